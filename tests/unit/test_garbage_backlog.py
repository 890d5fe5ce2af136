"""The backlog of garbage: what is slowed down and refused, who knows how much waits, and how it ends."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import garbage_backlog
from gateway.domain.garbage_backlog import DELAY_SECONDS_MAX, delay_seconds
from gateway.metadata import keys
from gateway.metadata.backlog import UNPUBLISHED_MAX, entries_queued
from gateway.metadata.commits import Deletion
from gateway.metadata.errors import GarbageBacklogged
from gateway.metadata.records import BlobRef
from gateway.metadata.store import Metadata
from gateway.operations.error_map import to_s3_error
from ops.keeper import garbage
from ops.keeper.garbage import GRACE_SECONDS, Garbage
from ops.keeper.waiting import COUNT_SECONDS
from placement.errors import MetastoreUnavailable
from placement.metastore.port import DeleteRange, Put, Range, Txn, prefix_end
from tests.unit.metadata_doubles import OWNER, Rig, stored

SLOWED, MOST = 40, 60


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_backlog, "ENTRIES_SLOWED", SLOWED)
    monkeypatch.setattr(garbage_backlog, "ENTRIES_MAX", MOST)


class Scene:
    """Processes that write, a keeper, and how long writers were made to wait."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.waits: list[float] = []
        sleep = self.rig.clock.sleep

        async def slept(seconds: float) -> None:
            self.waits.append(seconds)
            await sleep(seconds)

        self.rig.clock.sleep = slept  # type: ignore[method-assign]
        self.metadata = self.rig.metadata
        self.keeper = Garbage(self.rig.memory, None, {}, self.rig.clock)  # type: ignore[arg-type]

    async def put(self, key: str, by: Metadata | None = None) -> None:
        metadata = by or self.metadata
        entry, previous = await metadata.lookup("bucket", key, OWNER)
        record = self.rig.record()
        await metadata.commits.commit(
            entry, entry.object_key(key), record, stored=stored(record), previous=previous
        )

    async def delete(self, key: str) -> None:
        entry, previous = await self.metadata.lookup("bucket", key, OWNER)
        await self.metadata.commits.delete(entry, entry.object_key(key), previous=previous)

    async def overwrites(self, count: int, by: Metadata | None = None) -> int:
        """So many are tried; how many are not refused."""
        await self.put("k", by)
        done = 0
        for _ in range(count):
            try:
                await self.put("k", by)
            except GarbageBacklogged:
                continue
            done += 1
        return done

    async def queued(self) -> int:
        queue = Range(keys.GARBAGE, prefix_end(keys.GARBAGE), count_only=True)
        return (await self.rig.memory.range(queue)).count

    async def keep(self, seconds: float, *processes: Metadata) -> None:
        """So much later the keeper works, and all are told what it published."""
        self.rig.clock.seconds += seconds
        await self.keeper.work()
        for metadata in (self.metadata, *processes):
            await metadata.quotas.mirror.load()


def run(scenario: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        scene = Scene()
        await scene.rig.ready()
        await scenario(scene)

    asyncio.run(main())


@given(st.integers(0, 100), st.integers(0, 100))
def test_the_more_wait_the_longer_is_the_delay(waiting: int, more: int) -> None:
    delay = delay_seconds(waiting, SLOWED, MOST)
    assert (delay is None) == (waiting > MOST)
    if waiting <= SLOWED:
        assert delay == 0
    later = delay_seconds(waiting + more, SLOWED, MOST)
    if delay is not None and later is not None:
        assert delay <= later <= DELAY_SECONDS_MAX


def test_entries_are_counted_in_nested_transactions_too() -> None:
    entry = Put(keys.garbage(b"g" * 16), b"")
    other = Put(b"o/x", b"")
    operations = (other, entry, DeleteRange(entry.key), Txn((), (entry, Txn((), (entry, other)))))
    assert entries_queued(operations) == 3


def test_overwrites_and_deletes_are_slowed_then_refused_and_new_objects_never() -> None:
    async def scenario(scene: Scene) -> None:
        for number in range(10):
            await scene.put(f"old{number}")
        assert await scene.overwrites(SLOWED) == SLOWED
        assert scene.waits == []
        # No keeper works: what this process queued itself is what it knows.
        assert await scene.overwrites(MOST) == MOST - SLOWED - 1
        assert len(scene.waits) == MOST - SLOWED
        assert scene.waits == sorted(scene.waits)
        assert scene.waits[-1] == DELAY_SECONDS_MAX
        assert await scene.queued() == MOST
        before = len(scene.rig.faulty.transactions)
        with pytest.raises(GarbageBacklogged) as refused:
            await scene.delete("old0")
        entry, _ = await scene.metadata.lookup("bucket", "old1", OWNER)
        with pytest.raises(GarbageBacklogged):
            await scene.metadata.commits.delete_many(
                entry, [Deletion(entry.object_key(f"old{i}")) for i in range(5)]
            )
        assert len(scene.rig.faulty.transactions) == before
        answer = to_s3_error(refused.value)
        assert answer is not None
        assert (answer.code.status, answer.code.code) == (503, "SlowDown")
        await scene.put("new")
        await scene.delete("nothing")
        backlog = scene.metadata.transactions.backlog
        assert backlog.slowed == MOST - SLOWED
        assert backlog.refused == MOST - (MOST - SLOWED - 1) + 2

    run(scenario)


def test_it_ends_when_the_keeper_has_collected() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.overwrites(2 * MOST)
        await scene.keep(COUNT_SECONDS)  # now it has seen them
        with pytest.raises(GarbageBacklogged):
            await scene.put("k")
        await scene.keep(GRACE_SECONDS)
        assert await scene.queued() == MOST  # remembered for late commits, and waiting for nothing
        await scene.keep(COUNT_SECONDS)
        scene.waits.clear()
        assert await scene.overwrites(SLOWED // 2) == SLOWED // 2
        assert scene.waits == []

    run(scenario)


def test_what_others_queue_is_known_once_the_keeper_has_counted() -> None:
    async def scenario(scene: Scene) -> None:
        other = scene.rig.gateway()
        assert await scene.overwrites(MOST, other) == MOST
        await scene.keep(COUNT_SECONDS, other)
        with pytest.raises(GarbageBacklogged):
            await scene.put("k")
        # Published and counted: its own entries do not count twice.
        assert other.transactions.backlog.waiting == MOST
        assert scene.metadata.transactions.backlog.waiting == MOST

    run(scenario)


def test_a_store_with_little_garbage_is_told_nothing() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.put("k")
        await scene.put("k")
        for _ in range(5):
            await scene.keep(COUNT_SECONDS)
        assert (await scene.rig.memory.get_many([keys.GARBAGE_WAITING]))[0] is None

    run(scenario)


def test_what_is_queued_and_collected_again_and_again_never_adds_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(garbage, "RETENTION_SECONDS", 0.0)

    async def scenario(scene: Scene) -> None:
        for _ in range(20):
            await scene.overwrites(SLOWED // 4)
            await scene.keep(COUNT_SECONDS)
            await scene.keep(GRACE_SECONDS)
        assert scene.waits == []
        assert scene.metadata.transactions.backlog.waiting < SLOWED

    run(scenario)


def test_many_own_transactions_are_remembered_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_backlog, "ENTRIES_SLOWED", 10 * UNPUBLISHED_MAX)
    monkeypatch.setattr(garbage_backlog, "ENTRIES_MAX", 20 * UNPUBLISHED_MAX)

    async def scenario(scene: Scene) -> None:
        backlog = scene.metadata.transactions.backlog
        for revision in range(1, UNPUBLISHED_MAX + 100):
            await backlog.begin(2)
            backlog.end(2, revision)
        assert backlog.waiting == 2 * (UNPUBLISHED_MAX + 99)

    run(scenario)


def test_a_claim_that_fails_does_not_keep_the_others_from_being_collected() -> None:
    async def scenario(scene: Scene) -> None:
        deleted: list[BlobRef] = []

        async def delete_blobs(nodes: object, refs: list[BlobRef]) -> int:
            deleted.extend(refs)
            return len(refs)

        await scene.overwrites(SLOWED)
        await scene.keep(0.0)
        txn, calls = scene.rig.memory.txn, 0

        async def failing(asked: Txn) -> object:
            nonlocal calls
            calls += 1
            if calls == 7:
                raise MetastoreUnavailable("gone for a moment")
            return await txn(asked)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(garbage, "delete_blobs", delete_blobs)
            patched.setattr(scene.rig.memory, "txn", failing)
            scene.rig.clock.seconds += GRACE_SECONDS
            with pytest.raises(MetastoreUnavailable):
                await scene.keeper.work()
            assert len({ref.blob for ref in deleted}) == SLOWED - 1
            await scene.keeper.work()
            assert len({ref.blob for ref in deleted}) == len(deleted) == SLOWED
        assert scene.keeper.deleted == SLOWED

    run(scenario)
