"""Random work on a drive whose disk forgets, with crashes: nothing acknowledged is ever lost.

And the proof that the proof is worth something: taking any one flush out of the code loses a shard.
"""

import asyncio
import errno
from pathlib import Path

import pytest

from storage_node.identity import DriveRefused
from storage_node.port import DriveCondition, Outcome, PutShard
from tests.sim.drive_life import Loss, World, live, lose_indexes


@pytest.mark.parametrize("seed", range(25))
def test_nothing_acknowledged_is_lost(tmp_path: Path, seed: int) -> None:
    live(tmp_path / "sqlite", seed)


LOSING = {
    "_identify fsync /",
    "_identify fsync drive",
    "write_whole fdatasync drive/ostraka.drive.new",
    "make_folders fsync drive",
    "make_folders fsync drive/files",
    "_begin_next fsync drive/segments",
    "_flush_all fdatasync drive/segments/*.seg",
    "_carry_out fdatasync drive/tmp/*",
    "_flush_folders fsync drive/files/xx",
    "open_index fsync drive",
    "_replay fdatasync drive/segments/*.seg",
    "_settle_file fsync drive/files/xx",
}
"""Every flush that holds up a promise."""
HASTENING = {
    "_prewrite fdatasync drive/segments/*.seg",  # so that later flushes find sizes settled
    "mark_clean fsync drive",  # without it the next start may rebuild the index
}
"""Flushes that only save time; nothing depends on them."""


@pytest.mark.parametrize("label", sorted(LOSING))
def test_taking_out_any_one_flush_loses_something(tmp_path: Path, label: str) -> None:
    for seed in range(80):
        try:
            live(tmp_path / f"sqlite{seed}", seed, skipped=label, troubled=seed % 2 == 1)
        except (Loss, DriveRefused):
            return
    pytest.fail(f"the flush {label!r} is not needed, or the simulation is too mild")


def test_no_flush_in_the_code_is_left_out_of_the_list(tmp_path: Path) -> None:
    labels: set[str] = set()
    for seed in range(8):
        labels |= live(tmp_path / f"sqlite{seed}", seed, troubled=False).files.labels
    assert labels == LOSING | HASTENING


def test_decay_is_found_by_verifying_and_the_rest_survives_a_rebuild(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path, 7)
        await world.open()
        for _ in range(10):
            await world.put()
        shards = sorted(world.kept, key=lambda s: (s.blob, s.index))
        bad = next(shard for shard in shards if len(world.kept[shard]) > 900)
        segments = world.files.listdir("/drive1/segments")
        for name in segments:
            path = f"/drive1/segments/{name}"
            at = bytes(world.files._find(path).data).find(world.kept[bad])
            if at >= 0:
                world.files.flip_bit(path, at + 100)
        assert world.expected is not None
        await world.node.report_damage(world.expected, bad)
        assert await world.node.damaged(9) == ((world.expected, bad),)
        del world.kept[bad]
        await world.check(deletes_hold=True)
        await world.die()
        lose_indexes(tmp_path)
        await world.open()
        await world.check(deletes_hold=True)
        assert await world.node.damaged(9) == ((world.expected, bad),)
        await world.node.close()

    asyncio.run(scene())


@pytest.mark.parametrize("operation", ["pwritev", "fdatasync"])
def test_a_drive_that_errs_fails_its_part_and_is_taken_back_later(
    tmp_path: Path, operation: str
) -> None:
    async def scene() -> None:
        world = World(tmp_path, 3)
        await world.open()
        await world.put()

        def fault(happening: str, path: str) -> None:
            if happening == operation and path.endswith(".seg"):
                raise OSError(errno.EIO, "broken")

        world.files.fault = fault
        before = dict(world.kept)
        await world.put()
        assert world.kept == before
        await world.node.tend()
        assert world.node.reports()[0].condition is DriveCondition.FAILED
        world.files.fault = lambda happening, path: None
        for _ in range(8):
            world.clock.now += 1
            await world.node.tend()
        assert world.node.reports()[0].condition is DriveCondition.UP
        await world.put()
        assert len(world.kept) > len(before)
        await world.check(deletes_hold=True)
        await world.node.close()

    asyncio.run(scene())


def test_a_full_drive_refuses_puts_and_takes_them_again_when_there_is_space(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path, 4)
        await world.open()
        await world.put()

        def fault(happening: str, path: str) -> None:
            if happening == "pwritev":
                raise OSError(errno.ENOSPC, "full")

        assert world.expected is not None
        shard, body, envelope = world.make(900)
        put = PutShard(world.expected, shard.blob, shard.index, envelope, 0, len(body))
        world.files.fault = fault
        assert await world.node.put_shards([put], [body]) == (Outcome.DRIVE_FULL,)
        world.files.free_bytes = 0
        await world.node.tend()
        assert world.node.reports()[0].condition is DriveCondition.FULL
        world.files.fault = lambda happening, path: None
        assert await world.node.put_shards([put], [body]) == (Outcome.DRIVE_FULL,)
        victim = sorted(world.kept, key=lambda s: (s.blob, s.index))[0]
        del world.kept[victim]
        assert await world.node.delete([(world.expected, victim)]) == (Outcome.DONE,)
        world.files.free_bytes = 1 << 40
        await world.node.tend()
        assert await world.node.put_shards([put], [body]) == (Outcome.STORED,)
        await world.check(deletes_hold=True)
        await world.node.close()

    asyncio.run(scene())


def test_mostly_dead_segments_are_compacted_and_deletes_outlive_it(tmp_path: Path) -> None:
    async def scene() -> None:
        world = World(tmp_path, 5)
        await world.open()
        for _ in range(60):
            await world.put()
        before = world.files.listdir("/drive1/segments")
        assert world.expected is not None
        for number, shard in enumerate(sorted(world.kept, key=lambda s: (s.blob, s.index))):
            if number % 5:
                del world.kept[shard]
                await world.node.delete([(world.expected, shard)])
                world.gone.add(shard)
        for _ in range(2 * len(before)):
            await world.tend()
            await world.check(deletes_hold=True)
        after = world.files.listdir("/drive1/segments")
        assert len(after) < len(before) / 2
        await world.die()
        lose_indexes(tmp_path)
        await world.open()
        await world.check(deletes_hold=True)
        await world.node.close()

    asyncio.run(scene())
