"""The SQLite owner: the same answers as the reference, restarts, kills, failing disks."""

import asyncio
import os
import signal
import sqlite3
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.clock import SystemClock
from placement.errors import (
    Compacted,
    LeaseNotFound,
    MetastoreUnavailable,
    OutcomeUnknown,
    PlacementError,
)
from placement.metastore.history import Change, History
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import (
    Compare,
    DeleteRange,
    KeyValue,
    Put,
    Range,
    Relation,
    Target,
    Txn,
    exists,
)
from placement.metastore.sqlite import SqliteOwner
from placement.metastore.sqlite_reading import CommittedReads

keys = st.sampled_from([b"a", b"b", b"c", b"ca", b"d"])
ends = st.none() | st.sampled_from([b"b", b"cz", b"\x00"])
values = st.binary(max_size=2)
numbers = st.integers(0, 6)
compares = st.builds(
    Compare,
    keys,
    st.sampled_from([target for target in Target if target is not Target.VALUE]),
    st.sampled_from(Relation),
    numbers,
    ends,
) | st.builds(Compare, keys, st.just(Target.VALUE), st.sampled_from(Relation), values, ends)
leaves = (
    st.builds(Put, keys, values)
    | st.builds(DeleteRange, keys, ends)
    | st.builds(Range, keys, ends, st.integers(0, 2), numbers, st.booleans(), st.booleans())
)


def txns(operations: st.SearchStrategy[object]) -> st.SearchStrategy[Txn]:
    several = st.lists(operations, max_size=3).map(tuple)
    return st.builds(Txn, st.lists(compares, max_size=2).map(tuple), several, several)


@pytest.fixture
def path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="meta") as folder:
        yield os.path.join(folder, "metadata.sqlite")


async def outcome(store: MemoryMetastore | SqliteOwner, txn: Txn) -> object:
    try:
        return await store.txn(txn)
    except PlacementError as error:
        return type(error), str(error)


@settings(max_examples=60, deadline=None)
@given(st.lists(txns(st.recursive(leaves, txns, max_leaves=6)), min_size=1, max_size=12), st.data())
def test_memory_and_sqlite_answer_alike(scene: list[Txn], data: st.DataObject) -> None:
    together = data.draw(st.booleans(), label="in one batch")

    async def play() -> None:
        with tempfile.TemporaryDirectory(prefix="meta") as folder:
            reference = MemoryMetastore(SystemClock())
            store = SqliteOwner(os.path.join(folder, "m"), SystemClock())
            expected = [await outcome(reference, txn) for txn in scene]
            if together:
                assert await asyncio.gather(*(outcome(store, txn) for txn in scene)) == expected
            else:
                assert [await outcome(store, txn) for txn in scene] == expected
            for revision in range(store.revision + 1):
                whole = Range(b"\x00", b"\x00", revision=revision)
                assert await store.range(whole) == await reference.range(whole)
            if store.revision > 1:
                left, right = (
                    s.watch(b"\x00", b"\x00", start_revision=2) for s in (store, reference)
                )
                assert await anext(left) == await anext(right)
                await left.aclose()  # type: ignore[attr-defined]
                await right.aclose()  # type: ignore[attr-defined]
            await store.close()
            await reference.close()

    asyncio.run(play())


def test_a_restart_keeps_keys_revision_and_leases_but_not_the_past(path: str) -> None:
    async def first() -> tuple[int, int]:
        store = SqliteOwner(path, SystemClock(), cluster_id=b"c" * 16)
        lease = await store.lease_grant(60)
        await store.txn(Txn(success=(Put(b"leased", b"", lease), Put(b"k", b"1"))))
        result = await store.txn(Txn(success=(Put(b"k", b"2"),)))
        await store.close()
        return lease, result.revision

    async def second(lease: int, revision: int) -> None:
        store = SqliteOwner(path, SystemClock())
        assert store.cluster_id == b"c" * 16
        assert store.revision == revision
        assert (await store.get_many((b"k",)))[0] == KeyValue(b"k", b"2", 2, 3, 2)
        with pytest.raises(Compacted):
            await store.range(Range(b"k", revision=revision - 1))
        with pytest.raises(Compacted):
            await anext(store.watch(b"k", start_revision=revision))
        await store.lease_revoke(lease)
        assert (await store.get_many((b"leased",))) == (None,)
        assert store.revision == revision + 1
        await store.close()
        again = SqliteOwner(path, SystemClock())
        with pytest.raises(LeaseNotFound):
            await again.lease_keep_alive(lease)
        await again.close()

    asyncio.run(second(*asyncio.run(first())))


def test_a_second_owner_another_cluster_and_a_newer_format_are_refused(path: str) -> None:
    async def scene() -> None:
        store = SqliteOwner(path, SystemClock(), cluster_id=b"one")
        with pytest.raises(MetastoreUnavailable, match="another process"):
            SqliteOwner(path, SystemClock())
        await store.close()
        with pytest.raises(MetastoreUnavailable, match="another cluster"):
            SqliteOwner(path, SystemClock(), cluster_id=b"two")
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE meta SET format_version = 9, min_reader_version = 9")
        connection.close()
        with pytest.raises(MetastoreUnavailable, match="format 9"):
            SqliteOwner(path, SystemClock())
        with pytest.raises(MetastoreUnavailable, match="format 9"):
            CommittedReads(path)

    asyncio.run(scene())


class _FailingConnection:
    """A connection whose next COMMIT or UPDATE fails as on a broken disk."""

    def __init__(self, real: sqlite3.Connection, statement: str) -> None:
        self.real = real
        self.statement = statement

    def execute(self, sql: str, *arguments: object) -> object:
        if self.statement and sql.startswith(self.statement):
            self.statement = ""
            raise sqlite3.OperationalError("disk I/O error")
        return self.real.execute(sql, *arguments)  # type: ignore[arg-type]

    def commit(self) -> None:
        self.execute("COMMIT")

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


def test_a_failed_commit_fails_its_whole_group_and_all_that_follow(path: str) -> None:
    async def scene() -> None:
        store = SqliteOwner(path, SystemClock())
        await store.txn(Txn(success=(Put(b"k", b"1"),)))
        watch = store.watch(b"k")
        await anext(watch)
        store._connection = _FailingConnection(store._connection, "COMMIT")  # type: ignore[assignment]
        group = [store.submit(Txn(success=(Put(b"k%d" % i, b""),))) for i in range(3)]
        for failed in await asyncio.gather(*group, return_exceptions=True):
            assert isinstance(failed, OutcomeUnknown)
        with pytest.raises(MetastoreUnavailable, match="opened again"):
            await store.txn(Txn(success=(Put(b"k", b"2"),)))
        with pytest.raises(MetastoreUnavailable):
            await anext(watch)
        await store.close()
        again = SqliteOwner(path, SystemClock())
        assert (await again.txn(Txn((exists(b"k"),)))).succeeded
        await again.close()

    asyncio.run(scene())


def test_a_batch_that_cannot_be_applied_is_taken_back_and_the_store_goes_on(path: str) -> None:
    async def scene() -> None:
        store = SqliteOwner(path, SystemClock())
        first = await store.txn(Txn(success=(Put(b"k", b"1"),)))
        store._connection = _FailingConnection(store._connection, "UPDATE meta")  # type: ignore[assignment]
        with pytest.raises(MetastoreUnavailable) as caught:
            await store.txn(Txn(success=(Put(b"k", b"2"),)))
        assert not isinstance(caught.value, OutcomeUnknown)
        result = await store.txn(Txn(success=(Range(b"k"), Put(b"k", b"3"))))
        assert result.results[0].kvs[0].value == b"1"  # type: ignore[union-attr]
        assert result.revision == first.revision + 1
        assert (await store.get_many((b"k",)))[0] == KeyValue(b"k", b"3", 2, 3, 2)
        await store.close()

    asyncio.run(scene())


def test_checkpoints_bound_the_wal(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("placement.metastore.sqlite.CHECKPOINT_ROWS", 50)

    async def scene() -> None:
        store = SqliteOwner(path, SystemClock())
        for round_ in range(60):
            await asyncio.gather(
                *(
                    store.txn(Txn(success=(Put(b"%d/%d" % (round_, i), bytes(300)),)))
                    for i in range(20)
                )
            )
        assert os.stat(path + "-wal").st_size < 1 << 20
        assert store.batches < store.transactions
        assert (await store.range(Range(b"\x00", b"\x00", count_only=True))).count == 1200
        await store.close()

    asyncio.run(scene())


def test_the_past_is_bounded_by_count_and_by_bytes() -> None:
    history = History(1, changes_max=10, size_bytes_max=10_000)
    for revision in range(2, 30):
        kv = KeyValue(b"k", b"v", revision, revision, 1)
        history.append(revision, (Change(b"k", None, kv),))
    assert history.floor == 19
    with pytest.raises(Compacted):
        history.undo(18, 29)
    assert [revision for revision, _ in history.since(20, 29)] == list(range(20, 30))
    history.append(30, (Change(b"k", None, KeyValue(b"k", bytes(9000), 30, 30, 1)),))
    assert history.floor == 27
    history.append(31, (Change(b"k", None, KeyValue(b"k", bytes(20_000), 31, 31, 1)),))
    assert history.floor == 31


_WRITER = """
import asyncio, os, struct, sys
from placement.clock import SystemClock
from placement.metastore.port import Put, Txn
from placement.metastore.sqlite import SqliteOwner

async def main() -> None:
    store = SqliteOwner(sys.argv[1], SystemClock())
    start = int(sys.argv[2])
    async def write(lane: int) -> None:
        number = start
        while True:
            number += 1
            name = b"%d/%d" % (lane, number)
            await store.txn(Txn(success=(Put(name, b"x"), Put(b"twin/" + name, b"x"))))
            os.write(1, struct.pack("<II", lane, number))
    await asyncio.gather(*(write(lane) for lane in range(8)))

asyncio.run(main())
"""


def test_what_was_acknowledged_survives_kill_minus_nine(path: str) -> None:
    acknowledged: set[bytes] = set()

    async def one_life(start: int) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _WRITER, path, str(start), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        # Killed at another moment each time: in the middle of whatever it does then.
        for _ in range(20 + start % 17):
            acknowledged.add(b"%d/%d" % struct.unpack("<II", await process.stdout.readexactly(8)))
        process.send_signal(signal.SIGKILL)
        rest = await process.stdout.read()
        for position in range(0, len(rest) - 7, 8):
            acknowledged.add(b"%d/%d" % struct.unpack_from("<II", rest, position))
        await process.wait()

    async def scene() -> None:
        for life in range(8):
            await one_life(life * 100_003)
            store = SqliteOwner(path, SystemClock())
            stored = {kv.key for kv in (await store.range(Range(b"\x00", b"\x00"))).kvs}
            assert acknowledged <= stored
            singles = {key for key in stored if not key.startswith(b"twin/")}
            assert stored - singles == {b"twin/" + key for key in singles}
            assert store.revision == 1 + len(singles)
            await store.close()

    asyncio.run(scene())


def test_a_full_disk_refuses_writes_and_they_succeed_again_with_space(path: str) -> None:
    async def scenario() -> None:
        owner = SqliteOwner(path, SystemClock(), cluster_id=bytes(16))
        try:
            kept = await owner.txn(Txn((), (Put(b"kept", b"1"),)))
            real = owner._disk.run
            full: list[str] = ["COMMIT"]

            def run(
                job: Callable[[], object], done: Callable[[BaseException | None], None]
            ) -> None:
                if full:
                    error = sqlite3.OperationalError("database or disk is full")
                    error.sqlite_errorcode = sqlite3.SQLITE_FULL
                    done(error)
                else:
                    real(job, done)

            owner._disk.run = run  # type: ignore[method-assign]
            for _ in range(3):
                with pytest.raises(MetastoreUnavailable) as refused:
                    await owner.txn(Txn((), (Put(b"lost", b"1"),)))
                assert not isinstance(refused.value, OutcomeUnknown)
            found, lost = await owner.get_many([b"kept", b"lost"])
            assert found is not None
            assert (found.value, found.mod_revision, lost) == (b"1", kept.revision, None)
            full.clear()
            done = await owner.txn(Txn((), (Put(b"later", b"1"),)))
            assert done.revision == kept.revision + 1
            assert not owner.broken.is_set()
        finally:
            await owner.close()

    asyncio.run(scenario())
