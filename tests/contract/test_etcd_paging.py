"""Pages of large ranges in etcd: guessed ends change nothing but the cost."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import pytest
import uvloop

from placement.metastore.etcd import EtcdMetastore, EtcdOptions, open_etcd
from placement.metastore.etcd.paging import LIMIT_MIN, Pages
from placement.metastore.port import DeleteRange, KeyValue, Put, Range, Txn, prefix_end
from tests.contract.etcd_process import EtcdCluster


def run(cluster: EtcdCluster, scene: Callable[[EtcdMetastore], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60):
            store = await open_etcd(EtcdOptions(cluster.endpoints))
            await store.txn(Txn(success=(DeleteRange(b"\x00", b"\x00"),)))
            await scene(store)
            await store.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


async def fill(store: EtcdMetastore, keys: Sequence[bytes]) -> None:
    async with asyncio.TaskGroup() as group:
        for at in range(0, len(keys), 100):
            puts = tuple(Put(key, b"") for key in keys[at : at + 100])
            group.create_task(store.txn(Txn(success=puts)))


async def listed(
    store: EtcdMetastore, prefix: bytes, limit: int, *, beside: bool
) -> list[list[bytes]]:
    """The pages of a listing, alone or together with another read."""
    pages: list[list[bytes]] = []
    begin, revision = prefix, 0
    while True:
        request = Range(begin, prefix_end(prefix), limit=limit, revision=revision)
        if beside:
            _, page = await store.read((Range(b"other"), request))
        else:
            page = await store.range(request)
        assert len(page.kvs) <= limit
        assert page.count > limit if page.more else page.count == len(page.kvs)
        pages.append([kv.key for kv in page.kvs])
        if not page.more:
            return pages
        assert len(page.kvs) == limit
        revision = revision or page.revision
        begin = page.kvs[-1].key + b"\x00"


def numbered() -> list[bytes]:
    return [b"p/%09d" % number for number in range(3000)]


def folders() -> list[bytes]:
    return [
        b"p/%b/%b-%05d" % (folder, b"x" * (position * 7), number)
        for position, (folder, count) in enumerate(
            [(b"a", 3), (b"b", 1200), (b"photos", 37), (b"photos2", 1), (b"zz", 1500)]
        )
        for number in range(count)
    ]


def scattered() -> list[bytes]:
    chosen = random.Random(7)
    return sorted({b"p/" + chosen.randbytes(chosen.randrange(1, 12)) for _ in range(3000)})


@pytest.mark.parametrize("names", [numbered, folders, scattered])
@pytest.mark.parametrize("beside", [False, True])
def test_a_listing_by_pages_is_whole_whatever_the_keys(
    etcd_cluster: EtcdCluster, names: Callable[[], list[bytes]], beside: bool
) -> None:
    async def scene(store: EtcdMetastore) -> None:
        keys = names()
        await fill(store, [*keys, b"q/after"])
        for limit in (LIMIT_MIN, 100, len(keys) // 4, len(keys), len(keys) + 1):
            pages = await listed(store, b"p/", limit, beside=beside)
            assert [key for page in pages for key in page] == keys

    run(etcd_cluster, scene)


def test_a_page_that_was_guessed_too_short_is_completed_at_its_revision(
    etcd_cluster: EtcdCluster,
) -> None:
    async def scene(store: EtcdMetastore) -> None:
        await fill(store, numbered())
        end = prefix_end(b"p/")
        await store.range(Range(b"p/", end, limit=50))  # teaches how close keys lie
        gone = (DeleteRange(b"p/000000010", b"p/000002900"),)
        revision = (await store.txn(Txn(success=gone))).revision
        page = await store.range(Range(b"p/", end, limit=50))
        assert (page.revision, page.more) == (revision, True)
        assert [kv.key for kv in page.kvs] == numbered()[:10] + numbered()[2900:2940]
        past = await store.range(Range(b"p/", end, limit=50, revision=revision - 1))
        assert [kv.key for kv in past.kvs] == numbered()[:50]
        await store.txn(Txn(success=(DeleteRange(b"p/", b"p/000002999"),)))
        last = await store.range(Range(b"p/", end, limit=50))
        assert [kv.key for kv in last.kvs] == numbered()[-1:]
        assert (last.more, last.count) == (False, 1)

    run(etcd_cluster, scene)


def page_of(keys: Sequence[bytes]) -> list[KeyValue]:
    return [KeyValue(key, b"", 1, 1, 1) for key in keys]


def test_only_large_ranges_are_guessed_and_never_beyond_their_end() -> None:
    pages = Pages()
    request = Range(b"p/", prefix_end(b"p/"), limit=100)
    keys = numbered()
    assert pages.ends(request) == ()
    pages.learn(request, page_of(keys[:100]), 300, narrowed=False)
    assert pages.ends(request) == ()
    pages.learn(request, page_of(keys[:100]), 3000, narrowed=False)
    ends = pages.ends(Range(keys[99], prefix_end(b"p/"), limit=100))
    assert ends
    assert list(ends) == sorted(ends)
    assert all(keys[99] < end < prefix_end(b"p/") for end in ends)
    for other in (
        Range(b"p/", prefix_end(b"p/"), limit=LIMIT_MIN - 1),
        Range(b"p/", prefix_end(b"p/"), limit=100, count_only=True),
        Range(b"p/", b"p/1", limit=100),
        Range(b"p/", prefix_end(b"p/")),
        Range(b"p/"),
    ):
        assert pages.ends(other) == ()
    pages.learn(request, page_of(keys[:5]), 5, narrowed=False)  # it has become small
    assert pages.ends(request) == ()
