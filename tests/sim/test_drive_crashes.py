"""Random work on a drive whose disk forgets, with crashes: nothing acknowledged is ever lost.

And the proof that the proof is worth something: taking any one flush out of the code loses a shard.
"""

import asyncio
import errno
import os
import random
from pathlib import Path

import pytest
import xxhash

from placement.ids import BlobId, DriveId, Slot
from storage_node.care import DriveConfig, NodeConfig
from storage_node.flush import InlineFlusher
from storage_node.identity import DriveRefused
from storage_node.node import Node
from storage_node.offload import InlineOffload
from storage_node.port import (
    CommitShard,
    DriveCondition,
    GetShard,
    Outcome,
    PutShard,
    ShardId,
    StagedShard,
)
from storage_node.shard import ShardEnvelope, encode_envelope
from tests.sim.disk import SimFiles

CLUSTER = b"c" * 16


class SimClock:
    def __init__(self) -> None:
        self.now = 0.0

    def now_ns(self) -> int:
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class SimRandomness:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token(self, size_bytes: int) -> bytes:
        return self._random.randbytes(size_bytes)

    def uniform(self) -> float:
        return self._random.random()


class Loss(AssertionError):
    """An acknowledged shard is not there."""


def body_of(data: bytes) -> bytes:
    return xxhash.xxh3_64_intdigest(data).to_bytes(8, "little") + data if data else b""


class World:
    """One drive, its life and deaths, and what was acknowledged."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.files = SimFiles(folder, seed)
        self.clock = SimClock()
        self.randomness = SimRandomness(seed)
        self.boot = 1
        self.expected: DriveId | None = None
        self.kept: dict[ShardId, bytes] = {}
        self.tried: dict[ShardId, bytes] = {}
        self.gone: set[ShardId] = set()
        self.node: Node

    async def open(self) -> None:
        config = NodeConfig(
            CLUSTER,
            1,
            (DriveConfig(Slot(0), "/drive1", False, self.expected),),
            segment_size_bytes=48 << 10,
            prewrite_size_bytes=8 << 10,
            reserve_file_size_bytes=8 << 10,
        )
        self.node = await Node.open(
            config,
            self.files,
            self.clock,
            self.randomness,
            flusher=InlineFlusher(self.files),
            offload=InlineOffload(),
            boot_id=f"boot{self.boot}",
            tended=False,
        )
        for _ in range(3):
            await asyncio.sleep(0)  # an index that must be rebuilt is, at once
        (report,) = self.node.reports()
        if self.expected is not None and report.drive != self.expected:
            raise Loss("the drive has lost its identity")
        self.expected = report.drive

    async def die(self) -> None:
        """The process ends without a word."""
        self.node._committer._task.cancel()
        await asyncio.sleep(0)
        for drive in list(self.node._care.drives.values()):
            drive.index.abandon()
        for place in self.node._care._places:
            if place.drive is not None:
                place.drive.index.abandon()

    def make(self, size: int) -> tuple[ShardId, bytes, bytes]:
        blob = BlobId(self.random.randbytes(16))
        index = self.random.randrange(3)
        data = self.random.randbytes(size)
        envelope = ShardEnvelope(blob, blob, index, 1, 2, 1 << 20, size, b"key", b"record")
        return ShardId(blob, index), body_of(data), encode_envelope(envelope)

    async def put(self) -> None:
        count = self.random.randint(1, 5)
        made = [self.make(self.random.choice([0, 10, 900, 5000])) for _ in range(count)]
        if self.kept and self.random.random() < 0.2:  # a repair writes what is there already
            shard = self.random.choice(sorted(self.kept, key=lambda s: (s.blob, s.index)))
            body = self.kept[shard]
            size = max(0, len(body) - 8)
            envelope = ShardEnvelope(
                shard.blob, shard.blob, shard.index, 1, 2, 1 << 20, size, b"key", b"record"
            )
            made.append((shard, body, encode_envelope(envelope)))
        assert self.expected is not None
        puts, payload, at = [], [], 0
        for shard, body, envelope_bytes in made:
            puts.append(PutShard(self.expected, shard, envelope_bytes, at, len(body)))
            payload.append(body)
            at += len(body)
        self.tried.update({shard: body for shard, body, _ in made})
        outcomes = await self.node.put_shards(puts, payload)
        for (shard, body, _), outcome in zip(made, outcomes, strict=True):
            if outcome is Outcome.STORED:
                self.kept[shard] = body

    async def put_file(self) -> None:
        assert self.expected is not None
        shard, body, envelope = self.make(self.random.choice([3000, 20_000]))
        self.tried[shard] = body
        (staged,) = await self.node.open_shards([(self.expected, shard)])
        if not isinstance(staged, StagedShard):
            return
        try:
            fd = self.files.open(staged.path, os.O_WRONLY)
            self.files.pwritev(fd, [body], 0)
            self.files.close(fd)
        except OSError:
            return
        commit = CommitShard(self.expected, staged.token, envelope, len(body))
        if await self.node.commit([commit]) == (Outcome.STORED,):
            self.kept[shard] = body

    async def delete(self) -> None:
        if self.kept:
            shard = self.random.choice(sorted(self.kept, key=lambda s: (s.blob, s.index)))
            del self.kept[shard]
            assert self.expected is not None
            if await self.node.delete([(self.expected, shard)]) == (Outcome.DONE,):
                self.gone.add(shard)

    async def write_back(self) -> None:
        for drive in list(self.node._care.drives.values()):
            await drive.write_back()

    async def tend(self) -> None:
        await self.write_back()
        self.clock.now += 1
        await self.node.tend()

    async def check(self, *, deletes_hold: bool) -> None:
        """Everything acknowledged reads back, and is what it was."""
        assert self.expected is not None
        (report,) = self.node.reports()
        if self.expected not in self.node._care.drives:
            raise Loss(f"the drive did not come back: {report.reason}")
        for shard, body in self.kept.items():
            (info,) = await self.node.stat([(self.expected, shard)], verify=True)
            read = GetShard(self.expected, shard, 0, 1 << 20)
            (got,) = await self.node.get([read])
            if isinstance(info, Outcome) or isinstance(got, Outcome) or bytes(got) != body:
                raise Loss(f"shard {shard.blob.hex()}.{shard.index}: {info}")
        if deletes_hold:
            for shard in self.gone:
                assert await self.node.stat([(self.expected, shard)]) == (Outcome.MISSING,)
        else:
            self.gone.clear()  # deletes are not flushed: what comes back is left to the sweep

    async def keep_what_is_seen(self) -> None:
        """What a new process shows to readers must stay, though nobody had an answer."""
        assert self.expected is not None
        for shard, body in self.tried.items():
            (got,) = await self.node.get([GetShard(self.expected, shard, 0, 1 << 20)])
            if not isinstance(got, Outcome) and bytes(got) == body:
                self.kept[shard] = body

    async def restart(self) -> None:
        kind = self.random.choice(["clean", "kill", "power", "power"])
        if kind == "clean":
            await self.node.close()
        else:
            await self.die()
        if kind == "power":
            self.files.crash()
            self.boot += 1
        await self.open()
        await self.check(deletes_hold=kind != "power")

    async def be_born(self) -> None:
        """The first start, which the power may cut short."""
        while self.random.random() < 0.7:
            self.files.operations_left = self.random.randint(0, 24)
            await self.open()
            await self.die()
            self.files.crash()
            self.boot += 1
            self.expected = None
        await self.open()

    async def live(self, steps: int, *, troubled: bool = False) -> None:
        """Work, interrupted now and then; in a troubled life often, and over files most of all."""
        await self.be_born()
        work = [
            self.put,
            self.put,
            self.put,
            self.put_file,
            self.delete,
            self.write_back,
            self.tend,
        ]
        if troubled:
            work += [self.put_file] * 4
        for _ in range(steps):
            if self.random.random() < (0.4 if troubled else 0.1):
                self.files.operations_left = self.random.randint(0, 40)
            await self.random.choice(work)()
            broken = self.files.operations_left is not None
            if broken and self.random.random() < (0.3 if troubled else 0.6):
                await self.die()
                self.files.crash()
                self.boot += 1
                await self.open()
                await self.check(deletes_hold=False)
            elif broken:
                self.files.operations_left = None
                await self.die()
                await self.open()
                await self.check(deletes_hold=False)
                await self.keep_what_is_seen()
            elif self.random.random() < 0.15:
                await self.restart()
        await self.restart()
        await self.node.close()


def lose_indexes(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def live(folder: Path, seed: int, *, skipped: str = "", troubled: bool = False) -> World:
    folder.mkdir()
    world = World(folder, seed)
    world.files.skipped = skipped
    asyncio.run(world.live(40, troubled=troubled))
    return world


@pytest.mark.parametrize("seed", range(25))
def test_nothing_acknowledged_is_lost(tmp_path: Path, seed: int) -> None:
    live(tmp_path / "sqlite", seed, troubled=seed % 3 == 2)


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
        labels |= live(tmp_path / f"sqlite{seed}", seed).files.labels
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
        put = PutShard(world.expected, shard, envelope, 0, len(body))
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
