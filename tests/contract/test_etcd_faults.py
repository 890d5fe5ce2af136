"""etcd behind the port when things go wrong: killed, cut off, compacted, full, guarded."""

import asyncio
import itertools
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.metadata.outcomes import Transactions
from placement.clock import SystemClock, SystemRandomness
from placement.errors import (
    Compacted,
    DuplicateKey,
    LeaseNotFound,
    MetastoreDenied,
    MetastoreFull,
    MetastoreUnavailable,
    OutcomeUnknown,
)
from placement.metastore.etcd import EtcdMetastore, EtcdOptions, open_etcd
from placement.metastore.port import (
    Put,
    Range,
    Txn,
    TxnResult,
    absent,
    prefix_end,
    unchanged,
)
from tests.contract.etcd_operator import enable_users, make_room, write_certificates
from tests.contract.etcd_process import EtcdCluster, EtcdMember, etcd_binary

pytestmark = pytest.mark.skipif(
    etcd_binary() is None, reason="no etcd: install the test dependencies, or name one in TEST_ETCD"
)


def run(scene: Coroutine[Any, Any, None]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60):
            await scene

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


@asynccontextmanager
async def opened(cluster: EtcdCluster, **options: Any) -> AsyncIterator[EtcdMetastore]:
    store = await open_etcd(EtcdOptions(cluster.endpoints, **options))
    try:
        yield store
    finally:
        await store.close()


async def put(store: EtcdMetastore, key: bytes, value: bytes = b"") -> int:
    return (await store.txn(Txn(success=(Put(key, value),)))).revision


async def eventually(call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    while True:
        try:
            return await call()
        except MetastoreUnavailable:
            await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def three() -> Iterator[EtcdCluster]:
    with closing(EtcdCluster(3)) as cluster:
        yield cluster


@pytest.fixture
def one() -> Iterator[EtcdCluster]:
    with closing(EtcdCluster()) as cluster:
        yield cluster


class Writers:
    """Clients that each put new keys as long as they may, sending what was lost again unchanged."""

    def __init__(self, store: EtcdMetastore, name: bytes, count: int) -> None:
        clock, randomness = SystemClock(), SystemRandomness()
        self.transactions = Transactions(store, clock=clock, randomness=randomness)
        self.acknowledged: set[bytes] = set()
        self.longest_gap_seconds = 0.0
        self._last = time.monotonic()
        self._stop = False
        self._tasks = [
            asyncio.create_task(self._write(b"%b/%d/" % (name, i))) for i in range(count)
        ]

    async def _write(self, prefix: bytes) -> None:
        for number in itertools.count():
            if self._stop:
                return
            key = b"%b%06d" % (prefix, number)
            try:
                applied = await self.transactions.run(Txn((absent(key),), (Put(key, key),)))
            except MetastoreUnavailable:
                continue
            if applied.succeeded or not applied.certain:
                self.acknowledged.add(key)
                now = time.monotonic()
                self.longest_gap_seconds = max(self.longest_gap_seconds, now - self._last)
                self._last = now

    async def until(self, count: int) -> None:
        while len(self.acknowledged) < count:  # noqa: ASYNC110 — a test may poll
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)


async def stored(store: EtcdMetastore, prefix: bytes) -> dict[bytes, int]:
    found = await store.range(Range(prefix, prefix_end(prefix)))
    return {kv.key: kv.version for kv in found.kvs}


def test_a_killed_etcd_comes_back_and_nothing_acknowledged_is_lost(one: EtcdCluster) -> None:
    async def scene() -> None:
        async with opened(one) as store:
            told: list[bytes] = []

            first = await put(store, b"first") + 1

            async def follow() -> None:
                async for batch in store.watch(b"w/", b"w0", start_revision=first):
                    told.extend(event.kv.key for event in batch.events)

            follower = asyncio.create_task(follow())
            writers = Writers(store, b"w", 8)
            await writers.until(200)
            one.members[0].kill()
            await asyncio.sleep(0.3)
            one.members[0].start()
            await writers.until(len(writers.acknowledged) + 200)
            await writers.stop()
            there = await stored(store, b"w/")
            assert writers.acknowledged <= set(there)
            assert set(there.values()) == {1}  # nothing was applied twice
            while len(told) < len(there):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert sorted(told) == sorted(there)  # the watch missed nothing, repeated nothing
            follower.cancel()

    run(scene())


def leader_of(cluster: EtcdCluster) -> EtcdMember:
    for member in cluster.members:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{member.metrics_port}/metrics", timeout=5
        ) as answer:
            if b"\netcd_server_is_leader 1" in answer.read():
                return member
    raise AssertionError("no leader")


@pytest.mark.parametrize("fault", ["killed", "stopped"])
def test_writes_go_on_soon_after_the_leader_is_gone(three: EtcdCluster, fault: str) -> None:
    async def scene() -> None:
        async with opened(three) as store:
            name = b"leader-" + fault.encode()
            writers = Writers(store, name, 8)
            await writers.until(100)
            leader = await asyncio.to_thread(leader_of, three)
            if fault == "killed":
                leader.kill()
            else:
                leader.pause()
            await writers.until(len(writers.acknowledged) + 300)
            if fault == "killed":
                leader.start()
            else:
                leader.go_on()
            await asyncio.to_thread(leader.wait_healthy)
            await writers.until(len(writers.acknowledged) + 100)
            await writers.stop()
            assert writers.longest_gap_seconds < 5
            there = await stored(store, name + b"/")
            assert writers.acknowledged <= set(there)
            assert set(there.values()) == {1}

    run(scene())


def test_without_quorum_calls_fail_in_time_and_recover_by_themselves(three: EtcdCluster) -> None:
    async def scene() -> None:
        async with opened(three, timeout_seconds=1.5, attempt_seconds=0.5) as store:
            await put(store, b"quorum", b"1")
            for member in three.members[:2]:
                member.kill()
            await asyncio.sleep(2)  # the last one has noticed: it says so, instead of being silent
            started = time.monotonic()
            for call in (
                store.get_many((b"quorum",)),
                store.txn(Txn(success=(Put(b"quorum", b"2"),))),
                store.range(Range(b"quorum", b"r")),
                store.lease_grant(5),
            ):
                with pytest.raises(MetastoreUnavailable):
                    await call
            assert time.monotonic() - started < 4 * 2.5
            for member in three.members[:2]:
                member.start()
            await eventually(lambda: put(store, b"quorum", b"3"))
            (kv,) = await store.get_many((b"quorum",))
            assert kv is not None
            assert kv.value == b"3"
        for member in three.members:
            await asyncio.to_thread(member.wait_healthy)

    run(scene())


def test_a_member_that_does_not_answer_is_left_for_another(three: EtcdCluster) -> None:
    async def scene() -> None:
        leader = await asyncio.to_thread(leader_of, three)
        follower = next(member for member in three.members if member is not leader)
        follower.pause()
        try:
            options = EtcdOptions(
                (three.url(follower), three.url(leader)), attempt_seconds=0.3, timeout_seconds=3
            )
            for _ in range(4):  # whichever it begins with
                store = await open_etcd(options)
                started = time.monotonic()
                assert await store.get_many((b"none",)) == (None,)
                await eventually(lambda store=store: put(store, b"here"))  # type: ignore[misc]
                assert time.monotonic() - started < 2
                await store.close()
        finally:
            follower.go_on()

    run(scene())


def test_a_compaction_under_a_watch_is_reported(one: EtcdCluster) -> None:
    async def scene() -> None:
        async with opened(one) as store, opened(one) as other:
            revision = await put(store, b"k", b"1")
            stream = store.watch(b"k", start_revision=revision)
            seen = [await anext(stream), await anext(stream)]
            assert [event.kv.value for event in seen[1].events] == [b"1"]
            one.members[0].kill()
            one.members[0].start()
            await asyncio.to_thread(one.members[0].wait_healthy)
            await eventually(lambda: put(other, b"k", b"2"))
            last = await eventually(lambda: put(other, b"k", b"3"))
            await other.compact(last)
            with pytest.raises(Compacted) as caught:
                await anext(stream)
            assert caught.value.revision == last
            again = store.watch(b"k", start_revision=last + 1)
            assert (await anext(again)).revision == last
            await again.aclose()  # type: ignore[attr-defined]

    run(scene())


def test_a_watch_that_cannot_resume_says_so(one: EtcdCluster) -> None:
    async def scene() -> None:
        async with opened(one, watch_resume_seconds=0.5, timeout_seconds=0.5) as store:
            stream = store.watch(b"k")
            await anext(stream)
            one.members[0].kill()
            started = time.monotonic()
            with pytest.raises(MetastoreUnavailable, match="watch was lost"):
                await anext(stream)
            assert time.monotonic() - started < 3

    run(scene())


async def fill(store: EtcdMetastore) -> None:
    for _ in range(100):
        await put(store, b"big", bytes(1_000_000))


def test_out_of_space_writes_are_refused_reads_go_on_and_room_ends_it() -> None:
    async def scene(cluster: EtcdCluster) -> None:
        address = f"127.0.0.1:{cluster.members[0].client_port}"
        async with opened(cluster) as store, opened(cluster) as second:
            await put(store, b"small", b"1")
            with pytest.raises(OutcomeUnknown, match="space"):
                await fill(store)
            assert store.full
            told = await second.status()  # it has not met the alarm itself
            assert told.full
            assert told.size_bytes >= told.in_use_bytes > 1_000_000
            assert told.quota_bytes in (0, 8_000_000)  # told from etcd 3.6 on
            assert second.shared.reads > 0
            started = time.monotonic()
            for _ in range(50):
                with pytest.raises(MetastoreFull):
                    await put(store, b"small", b"2")
            assert time.monotonic() - started < 1  # etcd was hardly asked
            with pytest.raises(OutcomeUnknown, match="space"):
                await asyncio.gather(*(put(second, b"s%d" % i) for i in range(4)))
            (kv,) = await store.get_many((b"small",))
            assert kv is not None
            assert kv.value == b"1"
            some = await store.read((Range(b"small"), Range(b"a", b"b"), Range(b"a", b"z")))
            assert [len(found.kvs) for found in some] == [1, 0, 2]
            await asyncio.to_thread(make_room, address, (await store.status()).revision)
            await eventually(lambda: put(store, b"small", b"3"))
            await eventually(lambda: put(second, b"other", b"3"))
            assert not (await second.status()).full
            assert not store.full

    with closing(EtcdCluster(arguments=["--quota-backend-bytes", "8000000"])) as cluster:
        run(scene(cluster))


def test_users_and_passwords() -> None:
    async def scene(cluster: EtcdCluster) -> None:
        address = f"127.0.0.1:{cluster.members[0].client_port}"
        async with opened(cluster) as before:
            await put(before, b"a")
            await asyncio.to_thread(enable_users, address, "store", "secret")
            with pytest.raises(MetastoreDenied):
                await before.get_many((b"a",))
            with pytest.raises(MetastoreDenied):
                await put(before, b"a")
        with pytest.raises(MetastoreDenied, match="password"):
            await open_etcd(EtcdOptions(cluster.endpoints, user="store", password="guess"))
        with pytest.raises(MetastoreDenied, match="password"):
            await open_etcd(EtcdOptions(cluster.endpoints, user="nobody", password="secret"))
        async with opened(cluster, user="store", password="secret") as store:
            stream = store.watch(b"a")
            position = (await anext(stream)).revision
            last = await put(store, b"a", b"2")
            await asyncio.sleep(2.5)  # tokens live for a second: another is asked for
            await asyncio.gather(*(put(store, b"k%d" % i) for i in range(20)))
            assert len((await store.range(Range(b"k", b"l"))).kvs) == 20
            await asyncio.sleep(2.5)
            lease = await store.lease_grant(30)
            assert await store.lease_keep_alive(lease) == 30
            cluster.members[0].kill()  # and with it all tokens
            cluster.members[0].start()
            after = await eventually(lambda: put(store, b"a", b"3"))
            told: list[int] = []
            while len(told) < 2:
                told += [event.kv.mod_revision for event in (await anext(stream)).events]
            assert told == [last, after]
            assert position < last
            await stream.aclose()  # type: ignore[attr-defined]

    with closing(EtcdCluster(arguments=["--auth-token-ttl", "1"])) as cluster:
        run(scene(cluster))


def test_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    write_certificates(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    write_certificates(other)

    def pem(name: str, folder: Path = tmp_path) -> bytes:
        return (folder / name).read_bytes()

    async def scene(cluster: EtcdCluster) -> None:
        ca, certificate, key = pem("ca.pem"), pem("client.pem"), pem("client.key")
        async with opened(cluster, ca=ca, certificate=certificate, key=key) as store:
            revision = await put(store, b"a", b"1")
            stream = store.watch(b"a", start_revision=revision)
            events = [*(await anext(stream)).events, *(await anext(stream)).events]
            assert [event.kv.value for event in events] == [b"1"]
            await stream.aclose()  # type: ignore[attr-defined]
        wrong: list[dict[str, Any]] = [
            {"ca": ca},
            {"ca": pem("ca.pem", other), "certificate": certificate, "key": key},
            {"ca": ca, "certificate": pem("client.pem", other), "key": pem("client.key", other)},
        ]
        for options in wrong:
            with pytest.raises(MetastoreUnavailable):
                await open_etcd(EtcdOptions(cluster.endpoints, timeout_seconds=1, **options))
        plain = tuple(url.replace("https", "http") for url in cluster.endpoints)
        with pytest.raises(MetastoreUnavailable):
            await open_etcd(EtcdOptions(plain, timeout_seconds=1))

    with closing(EtcdCluster(tls=tmp_path)) as cluster:
        run(scene(cluster))


def test_a_refused_member_of_a_batch_harms_no_other(one: EtcdCluster) -> None:
    async def scene() -> None:
        async with opened(one, writes_in_flight=1) as store:
            dead = await store.lease_grant(60)
            await store.lease_revoke(dead)
            revision = await put(store, b"first")
            batches = store.shared.write_batches
            answers = await asyncio.gather(
                put(store, b"a"),
                store.txn(Txn(success=(Put(b"b", b"", dead),))),
                store.txn(Txn((unchanged(b"first", revision),), (Put(b"c", b""),))),
                put(store, b"d"),
                return_exceptions=True,
            )
            assert store.shared.write_batches == batches + 1
            assert isinstance(answers[1], LeaseNotFound)
            assert isinstance(answers[2], TxnResult)
            assert answers[2].succeeded
            assert await names(store) == [b"a", b"c", b"d", b"first"]
            with pytest.raises(DuplicateKey):
                await store.txn(Txn(success=(Put(b"x", b""), Put(b"x", b""))))

    run(scene())


async def names(store: EtcdMetastore) -> list[bytes]:
    return [kv.key for kv in (await store.range(Range(b"\x00", b"\x00", keys_only=True))).kvs]
