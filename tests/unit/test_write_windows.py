"""Write windows: what is forgotten of ended groups, and how late a first commit may come."""

import asyncio
from typing import Any

from gateway.metadata import keys
from gateway.metadata.groups import garbage_of
from gateway.metadata.records import GarbageRecord, ObjectRecord, decode
from gateway.metadata.windows import is_open, window_compare, window_of
from ops.keeper.garbage import GRACE_SECONDS, RETENTION_SECONDS, Garbage
from ops.keeper.windows import WINDOW_SECONDS, Windows
from placement.clock import SystemClock
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import (
    DeleteRange,
    Put,
    Range,
    Txn,
    TxnResult,
    absent,
    exists,
    prefix_end,
)

RECORD_KEY = keys.object_(b"b" * 8, b"k")  # type: ignore[arg-type]
GROUP = b"g" * 16


class HandClock(SystemClock):
    """Monotonic time that the test moves."""

    def __init__(self) -> None:
        self.at = 100.0

    def monotonic(self) -> float:
        return self.at


class Scene:
    """The garbage duty over a store in memory."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.metastore = MemoryMetastore(SystemClock())
        nodes: Any = {}
        objects: Any = None
        self.garbage = Garbage(self.metastore, objects, nodes, self.clock)

    async def numbers(self) -> list[int]:
        """The windows that are open."""
        found = await self.metastore.range(Range(keys.WINDOWS, prefix_end(keys.WINDOWS)))
        return [keys.window_number(kv.key) for kv in found.kvs]

    async def entry(self) -> GarbageRecord | None:
        """What is queued of the group."""
        (found,) = await self.metastore.get_many([keys.garbage(GROUP)])
        return None if found is None else decode(GarbageRecord, found.value)

    async def work(self, seconds: float) -> None:
        """So much later the duty looks."""
        self.clock.at += seconds
        await self.garbage.work()

    async def admits(self, *compares: Any) -> bool:
        """Whether a transaction with these compares is applied."""
        return (await self.metastore.txn(Txn(compares, (Put(b"t", b""),)))).succeeded


def a_record() -> ObjectRecord:
    return ObjectRecord(
        owner="o", group=GROUP, size_bytes=0, etag=b"e", modified_ms=1, commit_id=b"commit01"
    )


def test_the_first_window_that_was_closed_is_not_opened_by_a_late_sending() -> None:
    async def scene() -> None:
        at = Scene()
        sent: list[Txn] = []
        apply = at.metastore.txn

        async def noting(txn: Txn) -> TxnResult:
            sent.append(txn)
            return await apply(txn)

        at.metastore.txn = noting  # type: ignore[method-assign]
        windows = Windows(at.metastore, at.clock)
        for _ in range(3):
            await windows.read()
            at.clock.at += WINDOW_SECONDS
            await windows.advance()
        assert await at.numbers() == [2, 3]
        assert [(await apply(txn)).succeeded for txn in sent] == [False] * 3

    asyncio.run(scene())


def test_a_window_is_open_while_it_is_the_newest_and_one_longer() -> None:
    async def scene() -> None:
        at = Scene()
        windows = Windows(at.metastore, at.clock)
        before = window_compare(await at.numbers())
        assert await at.admits(before)
        for expected in ([1], [1, 2], [2, 3], [3, 4]):
            await windows.read()
            await windows.advance()  # too soon
            at.clock.at += WINDOW_SECONDS
            await windows.advance()
            assert await at.numbers() == expected
        assert not await at.admits(before)
        assert not await at.admits(exists(keys.window(2)))
        assert await at.admits(exists(keys.window(3)))

    asyncio.run(scene())


def test_another_keeper_waits_anew_and_does_not_overtake() -> None:
    async def scene() -> None:
        at = Scene()
        one, other = Windows(at.metastore, at.clock), Windows(at.metastore, at.clock)
        await one.read()
        await other.read()
        at.clock.at += WINDOW_SECONDS
        await one.advance()
        await other.advance()
        assert await at.numbers() == [1]
        await other.read()
        await other.advance()
        assert await at.numbers() == [1]

    asyncio.run(scene())


def test_which_window_a_commit_compares_and_whether_it_is_open() -> None:
    assert window_compare(()) == absent(keys.WINDOWED)
    assert window_compare((3, 4)) == exists(keys.window(4))
    assert is_open(exists(keys.window(3)), (3, 4))
    assert not is_open(exists(keys.window(2)), (3, 4))
    assert is_open(absent(keys.WINDOWED), ())
    assert not is_open(absent(keys.WINDOWED), (1,))
    relied = (exists(keys.MAP_CURRENT), exists(keys.window(7)))
    assert window_of(relied) == exists(keys.window(7))
    assert window_of(relied[:1]) is None


def test_an_entry_stays_until_the_windows_are_closed_that_were_open_when_it_was_claimed() -> None:
    async def scene() -> None:
        at = Scene()
        await at.metastore.txn(Txn((), (Put(keys.window(4), b"\x01"),)))
        await at.metastore.txn(Txn((), (garbage_of(RECORD_KEY, a_record(), 1),)))
        await at.work(0.0)
        await at.work(GRACE_SECONDS)
        entry = await at.entry()
        assert entry is not None
        assert entry.claimed
        open_then = exists(keys.window(4))
        while await at.entry() is not None:
            assert await at.admits(open_then) or at.clock.at < 100.0 + 2 * RETENTION_SECONDS
            await at.work(3.0)
        assert not await at.admits(open_then)

    asyncio.run(scene())


def test_without_garbage_no_window_moves() -> None:
    async def scene() -> None:
        at = Scene()
        for _ in range(5):
            await at.work(2 * WINDOW_SECONDS)
        assert await at.numbers() == []

    asyncio.run(scene())


def test_what_another_record_uses_is_told_of_for_as_long_and_queued_anew_by_the_last() -> None:
    async def scene() -> None:
        at = Scene()
        copy_key = keys.object_(b"b" * 8, b"copy")  # type: ignore[arg-type]
        reference = keys.reference(GROUP, copy_key)
        queued = garbage_of(RECORD_KEY, a_record(), 1)
        await at.metastore.txn(Txn((), (queued, Put(reference, b""))))
        await at.work(0.0)
        await at.work(GRACE_SECONDS)
        entry = await at.entry()
        assert entry is not None
        assert not entry.claimed
        assert at.garbage.pending == 0
        await at.metastore.txn(Txn((), (queued, DeleteRange(reference))))
        await at.work(0.0)
        assert at.garbage.pending == 1
        await at.work(GRACE_SECONDS)
        entry = await at.entry()
        assert entry is not None
        assert entry.claimed

    asyncio.run(scene())
