"""What every metastore must do alike: in memory, the SQLite owner, the owner through a socket, etcd."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import pytest
import uvloop

from gateway.metadata.store import ReadsNow
from placement.clock import SystemClock
from placement.errors import (
    Compacted,
    DuplicateKey,
    LeaseNotFound,
    MetastoreUnavailable,
    RequestTooLarge,
)
from placement.metastore.etcd import EtcdOptions, open_etcd
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import (
    Compare,
    DeleteRange,
    DeleteResult,
    Event,
    KeyValue,
    Metastore,
    Operation,
    Put,
    Range,
    RangeResult,
    Relation,
    Target,
    Txn,
    TxnResult,
    WatchBatch,
    absent,
    exists,
    prefix_end,
    unchanged,
)
from placement.metastore.remote import EmbeddedMetastore
from placement.metastore.serve import serve_metastore
from placement.metastore.sqlite import SqliteOwner
from placement.rpc.client import RpcClient
from placement.rpc.server import RpcServer
from tests.contract.etcd_process import EtcdCluster

Scene = Callable[[Metastore], Awaitable[None]]


@asynccontextmanager
async def memory() -> AsyncIterator[Metastore]:
    store = MemoryMetastore(SystemClock())
    yield store
    await store.close()


@asynccontextmanager
async def sqlite() -> AsyncIterator[Metastore]:
    with tempfile.TemporaryDirectory(prefix="meta") as folder:
        store = SqliteOwner(os.path.join(folder, "metadata.sqlite"), SystemClock())
        yield store
        await store.close()


@asynccontextmanager
async def embedded() -> AsyncIterator[Metastore]:
    with tempfile.TemporaryDirectory(prefix="meta") as folder:
        path = os.path.join(folder, "metadata.sqlite")
        owner = SqliteOwner(path, SystemClock())
        server = RpcServer(serve_metastore(owner), name="owner")
        await server.listen_unix(os.path.join(folder, "s"))
        client = await RpcClient.connect(os.path.join(folder, "s"), name="gateway")
        store = EmbeddedMetastore(path, client)
        yield store
        await store.close()
        await client.close()
        await server.close(drain_seconds=0.1)
        await owner.close()


@asynccontextmanager
async def etcd(endpoints: tuple[str, ...]) -> AsyncIterator[Metastore]:
    store = await open_etcd(EtcdOptions(endpoints))
    await store.txn(Txn(success=(DeleteRange(b"\x00", b"\x00"),)))
    yield store
    await store.close()


KINDS = {"memory": memory, "sqlite": sqlite, "embedded": embedded}


@pytest.fixture(params=[*KINDS, "etcd"])
def play(request: pytest.FixtureRequest) -> Callable[[Scene], None]:
    """Run a scene on a fresh store."""
    opened: Callable[[], AbstractAsyncContextManager[Metastore]]
    if request.param == "etcd":
        cluster: EtcdCluster = request.getfixturevalue("etcd_cluster")
        opened = partial(etcd, cluster.endpoints)
    else:
        opened = KINDS[request.param]

    def run(scene: Scene) -> None:
        async def whole() -> None:
            async with asyncio.timeout(60), opened() as store:
                await scene(store)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(whole())

    return run


Play = Callable[[Scene], None]


async def put(store: Metastore, key: bytes, value: bytes = b"v", lease: int = 0) -> int:
    return (await store.txn(Txn(success=(Put(key, value, lease),)))).revision


async def get(store: Metastore, key: bytes) -> KeyValue | None:
    return (await store.get_many((key,)))[0]


async def keys(store: Metastore, key: bytes = b"\x00", end: bytes = b"\xff") -> list[bytes]:
    return [kv.key for kv in (await store.range(Range(key, end))).kvs]


def test_a_put_counts_versions_and_revisions(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        first = await put(store, b"a", b"1")
        other = await put(store, b"b", b"x")
        second = await put(store, b"a", b"2")
        assert (other, second) == (first + 1, first + 2)
        assert await get(store, b"a") == KeyValue(b"a", b"2", first, second, 2)
        await store.txn(Txn(success=(DeleteRange(b"a"),)))
        assert await get(store, b"a") is None
        third = await put(store, b"a", b"3")
        assert await get(store, b"a") == KeyValue(b"a", b"3", third, third, 1)

    play(scene)


def test_get_many_answers_in_the_order_asked_with_repetition(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        await put(store, b"a")
        await put(store, b"c")
        found = await store.get_many((b"c", b"b", b"a", b"c"))
        assert [kv and kv.key for kv in found] == [b"c", None, b"a", b"c"]
        assert await store.get_many(()) == ()
        assert len(await store.get_many([b"%d" % i for i in range(128)])) == 128
        with pytest.raises(RequestTooLarge):
            await store.get_many([b"k"] * 129)

    play(scene)


def test_a_guarded_read_tells_the_guards_revision(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        if not isinstance(store, ReadsNow):
            return  # what lies behind a network cannot be read without waiting
        read = store.get_guarded_now
        assert read(b"k", b"guard") == (0, None, None)
        await put(store, b"k", b"1")
        assert read(b"k", b"guard") == (0, None, None), "without its guard nothing is read"
        guard = await put(store, b"guard", b"g")
        second = await put(store, b"k", b"2")
        assert read(b"k", b"guard") == (guard, b"2", second)
        assert read(b"guard", b"guard") == (guard, b"g", guard)
        await store.txn(Txn(success=(DeleteRange(b"k"),)))
        assert read(b"k", b"guard") == (guard, None, None)

    play(scene)


def test_a_guarded_scan_tells_the_guards_revision(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        if not isinstance(store, ReadsNow):
            return
        scan = store.scan_guarded_now
        for name in (b"k1", b"k2", b"k3", b"l"):
            await put(store, name, b"v" + name)
        assert scan(b"k", b"l", 9, b"guard") == (0, [], [], False)
        guard = await put(store, b"guard")
        assert scan(b"k", b"l", 2, b"guard") == (guard, [b"k1", b"k2"], [b"vk1", b"vk2"], True)
        assert scan(b"k2", b"l", 2, b"guard") == (guard, [b"k2", b"k3"], [b"vk2", b"vk3"], False)
        assert scan(b"m", b"n", 2, b"guard") == (guard, [], [], False)

    play(scene)


def test_only_what_writes_raises_the_revision(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        before = await put(store, b"a")
        nothing = await store.txn(Txn(success=(DeleteRange(b"zz"), Range(b"a"))))
        assert nothing.revision == before
        assert nothing.results[0] == DeleteResult(0)
        failed = await store.txn(Txn((absent(b"a"),), (Put(b"a", b""),), (Range(b"a"),)))
        assert not failed.succeeded
        assert failed.revision == before
        one = await store.txn(Txn(success=(Put(b"x", b""), Put(b"y", b""), DeleteRange(b"a"))))
        assert one.revision == before + 1
        x, y = await store.get_many((b"x", b"y"))
        assert x is not None
        assert y is not None
        assert x.mod_revision == y.mod_revision == before + 1

    play(scene)


def test_ranges_have_limits_ends_and_counts(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        names = [b"p/%02d" % i for i in range(10)]
        for name in reversed(names):
            await put(store, name, b"value")
        revision = await put(store, b"q", b"")
        end = prefix_end(b"p/")
        whole = await store.range(Range(b"p/", end))
        assert [kv.key for kv in whole.kvs] == names
        assert (whole.more, whole.count, whole.revision) == (False, 10, revision)
        page = await store.range(Range(b"p/", end, limit=3))
        assert [kv.key for kv in page.kvs] == names[:3]
        assert page.more
        assert page.count > 3  # cut by its limit, a count is only a lower bound
        exact = await store.range(Range(b"p/", end, limit=10))
        assert (exact.more, exact.count) == (False, 10)
        only = await store.range(Range(b"p/", end, keys_only=True))
        assert [(kv.key, kv.value) for kv in only.kvs] == [(name, b"") for name in names]
        assert await store.range(Range(b"p/", end, count_only=True)) == RangeResult(
            revision, (), False, 10
        )
        counted, beside = await store.read([Range(b"p/", end, count_only=True), Range(b"q")])
        assert (counted.revision, counted.kvs, counted.count) == (revision, (), 10)
        assert [kv.mod_revision for kv in beside.kvs] == [revision]
        assert await keys(store, b"p/03", b"p/05") == names[3:5]
        assert await keys(store, b"p/05", b"p/03") == []
        assert await keys(store, b"p/08", b"\x00") == [*names[8:], b"q"]
        single = await store.range(Range(b"p/04"))
        assert [kv.key for kv in single.kvs] == [b"p/04"]
        assert (await store.range(Range(b"p"))).kvs == ()

    play(scene)


def test_keys_of_any_bytes_are_in_byte_order(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        names = [b"\x00", b"\x00\x00", b"\x01", b"a", b"a\x00", b"a\xff", "é".encode(), b"\xff\xff"]
        for name in names[::2] + names[1::2]:
            await put(store, name)
        assert [kv.key for kv in (await store.range(Range(b"\x00", b"\x00"))).kvs] == names

    play(scene)


def test_several_ranges_are_read_at_one_revision(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        revision = await put(store, b"a")
        a, nothing = await store.read((Range(b"a"), Range(b"b", b"c")))
        assert [kv.key for kv in a.kvs] == [b"a"]
        assert nothing == RangeResult(revision, (), False, 0)
        assert a.revision == revision

    play(scene)


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (absent(b"none"), True),
        (absent(b"a"), False),
        (exists(b"a"), True),
        (exists(b"none"), False),
        (Compare(b"a", Target.VERSION, Relation.EQUAL, 2), True),
        (Compare(b"a", Target.VERSION, Relation.LESS, 2), False),
        (Compare(b"a", Target.VERSION, Relation.GREATER, 1), True),
        (Compare(b"a", Target.VERSION, Relation.NOT_EQUAL, 1), True),
        (Compare(b"none", Target.VERSION, Relation.EQUAL, 0), True),
        (Compare(b"none", Target.CREATE_REVISION, Relation.LESS, 1), True),
        (Compare(b"a", Target.VALUE, Relation.EQUAL, b"two"), True),
        (Compare(b"a", Target.VALUE, Relation.GREATER, b"tw"), True),
        (Compare(b"a", Target.VALUE, Relation.NOT_EQUAL, b"two"), False),
        (Compare(b"none", Target.VALUE, Relation.NOT_EQUAL, b"two"), False),
        (Compare(b"none", Target.VALUE, Relation.EQUAL, b""), False),
        (Compare(b"a", Target.LEASE, Relation.EQUAL, 0), True),
        (Compare(b"a", Target.CREATE_REVISION, Relation.EQUAL, 0, b"b"), False),
        (Compare(b"c", Target.CREATE_REVISION, Relation.EQUAL, 0, b"d"), True),
        (Compare(b"a", Target.VERSION, Relation.GREATER, 0, b"c"), True),
        (Compare(b"a", Target.VERSION, Relation.EQUAL, 2, b"c"), False),
        (Compare(b"c", Target.VALUE, Relation.NOT_EQUAL, b"x", b"d"), False),
    ],
)
def test_compares_mean_what_etcd_means(play: Play, compare: Compare, holds: bool) -> None:
    async def scene(store: Metastore) -> None:
        await put(store, b"a", b"one")
        await put(store, b"a", b"two")
        await put(store, b"b", b"bee")
        assert (await store.txn(Txn((compare,)))).succeeded is holds

    play(scene)


def test_all_compares_are_evaluated_before_any_write(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        if_k_unchanged = Txn((absent(b"k"),), (Put(b"l", b"1"),))
        if_l_unchanged = Txn((absent(b"l"),), (Put(b"k", b"1"),))
        result = await store.txn(Txn(success=(if_k_unchanged, if_l_unchanged)))
        assert [isinstance(one, TxnResult) and one.succeeded for one in result.results] == [
            True,
            True,
        ]
        assert await keys(store) == [b"k", b"l"]

    play(scene)


def test_reads_in_a_transaction_see_its_earlier_puts(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        before = await put(store, b"a", b"old")
        result = await store.txn(
            Txn(success=(Range(b"a"), Put(b"a", b"new"), Range(b"a"), Range(b"a", revision=before)))
        )
        first, _, second, past = result.results
        assert isinstance(first, RangeResult)
        assert isinstance(second, RangeResult)
        assert isinstance(past, RangeResult)
        assert [first.kvs[0].value, second.kvs[0].value, past.kvs[0].value] == [
            b"old",
            b"new",
            b"old",
        ]
        assert second.kvs[0].mod_revision == result.revision == before + 1

    play(scene)


@pytest.mark.parametrize(
    "operations",
    [
        (Put(b"k", b"1"), Put(b"k", b"2")),
        (Txn(success=(Put(b"k", b"1"),)), Txn(failure=(Put(b"k", b"2"),))),
        (Put(b"k", b"1"), Txn(success=(Put(b"k", b"2"),))),
        (Put(b"k", b"1"), DeleteRange(b"k")),
        (Put(b"k", b"1"), DeleteRange(b"a", b"z")),
        (Txn(success=(DeleteRange(b"k"),)), Txn(success=(Put(b"k", b"1"),))),
    ],
)
def test_a_key_put_twice_is_refused_and_nothing_applied(
    play: Play, operations: tuple[Operation, ...]
) -> None:
    async def scene(store: Metastore) -> None:
        before = await put(store, b"other")
        with pytest.raises(DuplicateKey):
            await store.txn(Txn(success=(Put(b"x", b""), *operations)))
        assert await keys(store) == [b"other"]
        assert await put(store, b"other") == before + 1

    play(scene)


def test_put_and_delete_in_siblings_and_put_in_both_branches_pass(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        result = await store.txn(
            Txn(success=(Txn(success=(Put(b"k", b"1"),)), Txn(success=(DeleteRange(b"k"),))))
        )
        assert await get(store, b"k") is None
        assert result.results[1] == TxnResult(True, result.revision, (DeleteResult(1),))
        await store.txn(
            Txn(success=(Txn((exists(b"k"),), (Put(b"k", b"1"),), (Put(b"k", b"2"),)),))
        )
        kv = await get(store, b"k")
        assert kv is not None
        assert kv.value == b"2"

    play(scene)


def test_the_limits_are_those_of_etcd(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        def puts(count: int, prefix: bytes = b"") -> tuple[Put, ...]:
            return tuple(Put(prefix + b"k%d" % i, b"") for i in range(count))

        def nested(outer: int, inner: int) -> Txn:
            return Txn(success=tuple(Txn(success=puts(inner, b"%d/" % i)) for i in range(outer)))

        await store.txn(Txn(success=puts(128)))
        await store.txn(nested(64, 64))
        await store.txn(nested(100, 28))
        await store.txn(Txn(tuple(absent(b"n%d" % i) for i in range(128))))
        for refused in (
            Txn(success=puts(129)),
            Txn(failure=puts(129)),
            Txn(tuple(absent(b"n%d" % i) for i in range(129))),
            nested(128, 1),
            nested(64, 65),
            Txn(success=(Put(b"big", bytes(1_572_864)),)),
            Txn(success=tuple(Put(b"b%d" % i, bytes(160_000)) for i in range(10))),
        ):
            with pytest.raises(RequestTooLarge):
                await store.txn(refused)
        await store.txn(Txn(success=(Put(b"big", bytes(1_500_000)),)))
        kv = await get(store, b"big")
        assert kv is not None
        assert len(kv.value) == 1_500_000

    play(scene)


def test_an_empty_key_is_a_bug_of_the_caller(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        for txn in (
            Txn(success=(Put(b"", b""),)),
            Txn((absent(b""),)),
            Txn((Compare(b"a", Target.VALUE, Relation.EQUAL, 1),)),
            Txn((Compare(b"a", Target.VERSION, Relation.EQUAL, b"1"),)),
        ):
            with pytest.raises(ValueError, match=r"compare|operation"):
                await store.txn(txn)
        assert await put(store, b"a")

    play(scene)


def test_the_past_can_be_read_until_it_is_compacted(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        one = await put(store, b"a", b"1")
        two = await put(store, b"b", b"1")
        three = await put(store, b"a", b"2")
        four = (await store.txn(Txn(success=(DeleteRange(b"a", b"c"), Put(b"d", b""))))).revision

        async def at(revision: int, **options: int) -> list[tuple[bytes, bytes]]:
            result = await store.range(Range(b"a", b"z", revision=revision, **options))  # type: ignore[arg-type]
            assert result.revision == four
            return [(kv.key, kv.value) for kv in result.kvs]

        assert await at(one) == [(b"a", b"1")]
        assert await at(two) == [(b"a", b"1"), (b"b", b"1")]
        assert await at(three) == [(b"a", b"2"), (b"b", b"1")]
        assert await at(four) == [(b"d", b"")]
        assert await at(three, limit=1) == [(b"a", b"2")]
        assert await at(three, keys_only=True) == [(b"a", b""), (b"b", b"")]
        limited = await store.range(Range(b"a", b"z", revision=three, limit=1))
        assert limited.more
        counted = await store.range(Range(b"a", b"z", revision=three, count_only=True))
        assert counted.count == 2
        await store.compact(three)
        assert await at(three) == [(b"a", b"2"), (b"b", b"1")]
        with pytest.raises(Compacted) as caught:
            await at(two)
        assert caught.value.revision == three
        with pytest.raises(Compacted):
            await store.compact(two)
        with pytest.raises(Compacted):
            await at(four + 1)
        with pytest.raises(Compacted):
            await store.txn(Txn(success=(Put(b"e", b""), Range(b"a", revision=two))))
        assert await get(store, b"e") is None

    play(scene)


async def follow(stream: AsyncIterator[WatchBatch], until: int) -> list[Event]:
    events: list[Event] = []
    async for batch in stream:
        events += batch.events
        if batch.revision >= until:
            return events
    raise AssertionError("the watch ended")


def test_a_watch_tells_every_change_of_its_range_and_no_other(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        await put(store, b"p/old")
        stream = store.watch(b"p/", prefix_end(b"p/"))
        first = await anext(stream)
        assert first.events == ()
        one = await put(store, b"p/a", b"1")
        await put(store, b"q", b"1")
        two = (await store.txn(Txn(success=(Put(b"p/b", b"2"), DeleteRange(b"p/a"))))).revision
        events = await follow(stream, two)
        assert [(e.kv.key, e.kv.value, e.kv.mod_revision, e.deleted) for e in events] == [
            (b"p/a", b"1", one, False),
            (b"p/b", b"2", two, False),
            (b"p/a", b"", two, True),
        ]
        assert events[2].kv.version == 0
        await stream.aclose()  # type: ignore[attr-defined]

    play(scene)


def test_a_watch_tells_what_was_there_before_when_asked(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        old = await put(store, b"p/a", b"0")
        stream = store.watch(b"p/", prefix_end(b"p/"), previous=True)
        await anext(stream)
        await put(store, b"p/a", b"1")
        await put(store, b"p/b", b"2")
        last = (await store.txn(Txn(success=(DeleteRange(b"p/", prefix_end(b"p/")),)))).revision
        events = await follow(stream, last)
        told = [
            (e.kv.key, e.deleted, None if e.previous is None else e.previous.value) for e in events
        ]
        assert told[:2] == [(b"p/a", False, b"0"), (b"p/b", False, None)]
        assert sorted(told[2:]) == [(b"p/a", True, b"1"), (b"p/b", True, b"2")]
        assert events[0].previous is not None
        assert events[0].previous.mod_revision == old
        await stream.aclose()  # type: ignore[attr-defined]

    play(scene)


def test_a_watch_resumes_without_gap_or_repetition(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        revision = await put(store, b"k", b"0")
        seen: list[bytes] = []
        written = 0
        position = revision

        async def write() -> None:
            nonlocal written
            for written in range(1, 201):
                await put(store, b"k", b"%d" % written)
                if written % 7 == 0:
                    await put(store, b"other", b"")

        writer = asyncio.create_task(write())
        while len(seen) < 200:
            stream = store.watch(b"k", start_revision=position + 1)
            turns = 0
            async for batch in stream:
                assert batch.revision >= position
                position = batch.revision
                seen += [event.kv.value for event in batch.events]
                turns += 1
                if turns == 3 or len(seen) >= 200:
                    break
            await stream.aclose()  # type: ignore[attr-defined]
        await writer
        assert seen == [b"%d" % i for i in range(1, 201)]

    play(scene)


def test_a_watch_of_what_is_not_kept_is_refused(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        one = await put(store, b"k")
        two = await put(store, b"k")
        await store.compact(two)
        with pytest.raises(Compacted) as caught:
            await anext(store.watch(b"k", start_revision=one))
        assert caught.value.revision == two
        stream = store.watch(b"k", start_revision=two + 1)
        assert (await anext(stream)).revision == two
        three = await put(store, b"k")
        assert [e.kv.mod_revision for e in await follow(stream, three)] == [three]
        await stream.aclose()  # type: ignore[attr-defined]

    play(scene)


def test_a_lease_that_is_revoked_takes_its_keys(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        lease = await store.lease_grant(60)
        other = await store.lease_grant(60)
        assert lease != other
        for key in (b"a", b"b", b"c", b"d"):
            await put(store, key, b"", lease)
        await put(store, b"b")  # a put without the lease detaches
        await put(store, b"c", b"", other)
        kv = await get(store, b"a")
        assert kv is not None
        assert kv.lease == lease
        assert (
            await store.txn(Txn((Compare(b"a", Target.LEASE, Relation.EQUAL, lease),)))
        ).succeeded
        assert await store.lease_keep_alive(lease) == 60
        before = await put(store, b"e")
        stream = store.watch(b"a", b"z", start_revision=before + 1)
        await store.lease_revoke(lease)
        events = await follow(stream, before + 1)
        assert [(event.kv.key, event.deleted) for event in events] == [(b"a", True), (b"d", True)]
        assert {event.kv.mod_revision for event in events} == {before + 1}
        assert await keys(store) == [b"b", b"c", b"e"]
        for dead in (store.lease_revoke(lease), store.lease_keep_alive(lease)):
            with pytest.raises(LeaseNotFound):
                await dead
        with pytest.raises(LeaseNotFound):
            await store.txn(Txn(success=(Put(b"x", b""), Put(b"y", b"", lease))))
        assert await get(store, b"x") is None
        branch = Txn((absent(b"b"),), (Put(b"y", b"", lease),), (Put(b"z", b""),))
        assert not (await store.txn(branch)).succeeded
        await stream.aclose()  # type: ignore[attr-defined]

    play(scene)


def test_a_lease_expires_unless_it_is_renewed(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        dying, kept = await store.lease_grant(1), await store.lease_grant(2)
        assert await store.lease_keep_alive(dying) == 2  # the least there is
        await put(store, b"dying", b"", dying)
        await put(store, b"kept", b"", kept)
        for _ in range(3):
            await asyncio.sleep(1)
            await store.lease_keep_alive(kept)
        assert await keys(store) == [b"kept"]
        with pytest.raises(LeaseNotFound):
            await store.lease_keep_alive(dying)

    play(scene)


def test_of_racing_transactions_exactly_one_wins(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        for round_ in range(20):
            kv = await get(store, b"k")
            seen = unchanged(b"k", kv.mod_revision if kv else 0)
            results = await asyncio.gather(
                *(
                    store.txn(Txn((seen,), (Put(b"k", b"%d" % i),), (Range(b"k"),)))
                    for i in range(16)
                )
            )
            winners = [i for i, result in enumerate(results) if result.succeeded]
            assert len(winners) == 1, round_
            kv = await get(store, b"k")
            assert kv is not None
            assert kv.value == b"%d" % winners[0]

    play(scene)


def test_a_closed_store_refuses(play: Play) -> None:
    async def scene(store: Metastore) -> None:
        await put(store, b"k")
        await store.close()
        with pytest.raises(MetastoreUnavailable):
            await store.get_many((b"k",))

    play(scene)
