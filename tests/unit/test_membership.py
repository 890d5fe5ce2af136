"""Membership: registration under leases, the live view, one leader a duty."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import msgspec
import pytest

from placement.clock import SystemClock, SystemRandomness
from placement.errors import Compacted, OutcomeUnknown
from placement.ids import DriveId
from placement.leadership import NO_TERM, Leadership, leader_key
from placement.membership import (
    DRIVES,
    LEADERS,
    NODES,
    ClusterRecord,
    DriveRecord,
    MembershipRefused,
    NodeRecord,
    decode,
    drive_key,
    encode,
    join_cluster,
    node_key,
)
from placement.membership_registrar import Registrar
from placement.membership_view import LiveView
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import (
    Put,
    Range,
    Txn,
    TxnResult,
    WatchBatch,
    prefix_end,
    unchanged,
)
from tests.waiting import eventually_async

T = TypeVar("T")
DRIVE = DriveId(b"d" * 16)


def run(scene: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scene)


def node(name: str = "n1:9100", run: bytes = b"run-1") -> NodeRecord:
    return NodeRecord(name=name, address=name, host="h", zone="z", run=run, started_ms=1)


def drive(
    node_name: str = "n1:9100", condition: str = "up", drive_id: bytes = DRIVE
) -> DriveRecord:
    return DriveRecord(
        drive=drive_id,
        node=node_name,
        address=node_name,
        host="h",
        zone="z",
        path="/d",
        condition=condition,
        capacity_bytes=100,
    )


def test_records_survive_and_others_are_refused() -> None:
    assert decode(NodeRecord, encode(node())) == node()
    assert decode(DriveRecord, encode(drive())) == drive()
    for odd in (b"", b"\x02" + encode(node())[1:], b"\x01\xc0", b"\x01\x91\x01"):
        with pytest.raises(MembershipRefused):
            decode(NodeRecord, odd)


def test_a_later_version_may_append_fields() -> None:
    fields = msgspec.msgpack.decode(encode(node())[1:])
    later = b"\x01" + msgspec.msgpack.encode([*fields, "new", 7])
    assert decode(NodeRecord, later) == node()
    earlier = b"\x01" + msgspec.msgpack.encode(fields[:-1])
    assert decode(NodeRecord, earlier) == node()


def test_the_first_process_names_the_cluster_and_a_wrong_key_is_refused() -> None:
    async def scene() -> None:
        metastore = MemoryMetastore(SystemClock())
        key = bytes(range(32))
        first, second = await asyncio.gather(
            *(join_cluster(metastore, key, SystemRandomness()) for _ in range(2))
        )
        assert isinstance(first, ClusterRecord)
        assert first == second
        assert len(first.cluster_id) == 16
        with pytest.raises(MembershipRefused, match="not the one of this cluster"):
            await join_cluster(metastore, bytes(32), SystemRandomness())

    run(scene())


class ForgetfulMetastore(MemoryMetastore):
    """Loses the answer of the next transaction that puts a drive's record in some condition."""

    loses = b""

    async def txn(self, txn: Txn) -> TxnResult:
        result = await super().txn(txn)
        if self.loses and any(
            isinstance(each, Put) and self.loses in each.value for each in txn.success
        ):
            self.loses = b""
            raise OutcomeUnknown("the answer was lost")
        return result


@pytest.mark.parametrize("wanted", ["up", None])
def test_a_record_whose_answer_was_lost_is_written_again(wanted: str | None) -> None:
    """The drive is as before when the node tries again; what it wrote meanwhile may stand there."""

    async def scene() -> None:
        metastore = ForgetfulMetastore(SystemClock())
        registrar = Registrar(metastore, node(), SystemClock())
        await registrar.start([drive()])
        metastore.loses = b"failed"
        registrar.update([drive(condition="failed")])
        await eventually_async(lambda: not metastore.loses, 10)
        registrar.update([drive(condition=wanted)] if wanted else [])

        async def told() -> str | None:
            (found,) = await metastore.get_many([drive_key(DRIVE)])
            return None if found is None else decode(DriveRecord, found.value).condition

        async with asyncio.timeout(5):
            while await told() != wanted:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)
        await registrar.close()

    run(scene())


def test_what_a_node_registers_is_seen_and_goes_when_it_leaves() -> None:
    async def scene() -> None:
        clock = SystemClock()
        metastore = MemoryMetastore(clock)
        view = LiveView(metastore, clock)
        changes: list[int] = []
        view.changed.append(lambda: changes.append(len(view.drives)))
        await view.start()
        registrar = Registrar(metastore, node(), clock)
        await registrar.start([drive()])
        await eventually_async(lambda: set(view.drives) == {DRIVE}, 10)
        assert view.nodes == {"n1:9100": node()}
        registrar.update([drive(condition="failed")])
        await eventually_async(lambda: view.drives[DRIVE].condition == "failed", 10)
        registrar.update([])
        await eventually_async(lambda: not view.drives, 10)
        registrar.update([drive()])
        await eventually_async(lambda: bool(view.drives), 10)
        await registrar.close()
        await eventually_async(lambda: not view.nodes and not view.drives, 10)
        assert changes[0] == 0
        await view.close()

    run(scene())


def test_a_node_that_says_nothing_more_is_forgotten_and_comes_back() -> None:
    async def scene() -> None:
        clock = SystemClock()
        metastore = MemoryMetastore(clock)
        view = LiveView(metastore, clock)
        await view.start()
        registrar = Registrar(metastore, node(), clock, lease_seconds=2)
        await registrar.start([drive()])
        # All leases lost at once: it registers again by itself.
        await metastore.lease_revoke(registrar._lease)
        await eventually_async(lambda: not view.nodes, 10)
        await eventually_async(lambda: bool(view.nodes) and bool(view.drives), 10)
        assert registrar._task is not None
        registrar._task.cancel()  # as a killed process would
        await eventually_async(lambda: not view.nodes and not view.drives, 10)
        again = Registrar(metastore, node(run=b"run-2"), clock, lease_seconds=2)
        await again.start([drive()])
        await eventually_async(lambda: bool(view.drives), 10)
        assert view.nodes["n1:9100"].run == b"run-2"
        await again.close()
        await view.close()

    run(scene())


def test_a_second_process_of_the_same_name_ends_the_first() -> None:
    async def scene() -> None:
        clock = SystemClock()
        metastore = MemoryMetastore(clock)
        first = Registrar(metastore, node(), clock, lease_seconds=2)
        await first.start([])
        second = Registrar(metastore, node(run=b"run-2"), clock, lease_seconds=2)
        await second.start([])
        async with asyncio.timeout(5):
            with pytest.raises(MembershipRefused, match="another process has registered"):
                await first.failed
        await first.close()
        await second.close()

    run(scene())


def test_two_drives_of_one_identity_are_not_both_registered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        clock = SystemClock()
        metastore = MemoryMetastore(clock)
        first = Registrar(metastore, node(), clock)
        await first.start([drive()])
        second = Registrar(metastore, node("n2:9100", b"run-2"), clock)
        await second.start([drive("n2:9100")])
        assert second.refused == {DRIVE}
        (found,) = await metastore.get_many([drive_key(DRIVE)])
        assert found is not None
        assert decode(DriveRecord, found.value).node == "n1:9100"
        # The drive moved: once the first node gave it up, the second may have it.
        first.update([])
        await asyncio.sleep(0.05)
        second.update([drive("n2:9100"), drive("n2:9100", drive_id=b"e" * 16)])
        await eventually_async(lambda: not second.refused, 10)
        await first.close()
        await second.close()

    run(scene())
    assert "two drives have one identity" in caplog.text


def test_one_leader_a_duty_and_another_when_it_goes() -> None:
    async def scene() -> None:
        clock = SystemClock()
        metastore = MemoryMetastore(clock)
        one = Leadership(metastore, "one", clock, lease_seconds=2)
        two = Leadership(metastore, "two", clock, lease_seconds=2)
        one.start()
        two.start()
        assert await one.leads("repair")
        assert await one.leads("repair")
        assert not await two.leads("repair")
        assert await two.leads("sweep")
        await asyncio.sleep(2.5)  # both keep their leases alive
        assert one.held == {"repair"}
        assert not await two.leads("repair")
        await one.publish("repair", b"{}")
        assert one._task is not None
        one._task.cancel()
        await asyncio.sleep(1.6)
        assert one.held == frozenset()  # it stops trusting itself before others may lead
        async with asyncio.timeout(5):
            while not await two.leads("repair"):  # noqa: ASYNC110 — a test may poll
                await asyncio.sleep(0.05)
        assert not await one.leads("repair")
        await one.close()
        await two.close()

    run(scene())


def test_a_term_lasts_while_nobody_else_can_have_led() -> None:
    async def scene() -> None:
        clock = SystemClock()
        metastore = MemoryMetastore(clock)
        one = Leadership(metastore, "one", clock)
        two = Leadership(metastore, "two", clock)
        assert one.term("repair") == NO_TERM
        assert await one.leads("repair")
        first = one.term("repair")
        assert first != NO_TERM
        holds = Txn((unchanged(leader_key("repair"), first),), ())
        assert (await metastore.txn(holds)).succeeded
        # It was not sure of its lease for a while, and nobody came.
        one._trusted_until = 0.0
        assert one.term("repair") == NO_TERM
        assert await one.leads("repair")
        assert one.term("repair") == first
        # Another led meanwhile.
        await metastore.lease_revoke(one._lease)
        one._trusted_until = 0.0
        assert await two.leads("repair")
        assert not await one.leads("repair")
        assert one.term("repair") == NO_TERM
        await two.close()
        assert await one.leads("repair")
        assert one.term("repair") > first
        assert not (await metastore.txn(holds)).succeeded
        await one.close()

    run(scene())


def test_records_lie_where_the_prefixes_say() -> None:
    async def scene() -> None:
        clock = SystemClock()
        metastore = MemoryMetastore(clock)
        registrar = Registrar(metastore, node(), clock)
        await registrar.start([drive()])
        for prefix, key in ((NODES, node_key("n1:9100")), (DRIVES, drive_key(DRIVE))):
            found = await metastore.range(Range(prefix, prefix_end(prefix)))
            assert [kv.key for kv in found.kvs] == [key]
            assert found.kvs[0].lease == registrar._lease
        await registrar.close()

    run(scene())


class SlowToGrant(MemoryMetastore):
    """Grants leases after a while."""

    granted = 0

    async def lease_grant(self, ttl_seconds: int) -> int:
        self.granted += 1
        await asyncio.sleep(0.02)
        return await super().lease_grant(ttl_seconds)


def test_duties_that_are_taken_at_once_are_held_under_one_lease() -> None:
    async def scene() -> None:
        clock = SystemClock()
        metastore = SlowToGrant(clock)
        one = Leadership(metastore, "one", clock)
        duties = [f"duty-{n}" for n in range(6)]
        assert all(await asyncio.gather(*map(one.leads, duties)))
        assert metastore.granted == 1
        found = await metastore.range(Range(LEADERS, prefix_end(LEADERS)))
        assert {kv.lease for kv in found.kvs} == {one._lease}
        # The lease ends behind its back: nothing is held that others may take.
        await metastore.lease_revoke(one._lease)
        one._trusted_until = 0.0
        assert one.held == frozenset()
        assert all(await asyncio.gather(*map(one.leads, duties)))
        found = await metastore.range(Range(LEADERS, prefix_end(LEADERS)))
        assert {kv.lease for kv in found.kvs} == {one._lease}
        await one.close()

    run(scene())


class ForgetfulWatches(MemoryMetastore):
    """Every watch ends after its first batch, as after a compaction or a lost connection."""

    async def watch(
        self,
        key: bytes,
        range_end: bytes | None = None,
        *,
        start_revision: int = 0,
        previous: bool = False,
    ) -> AsyncIterator[WatchBatch]:
        async for batch in super().watch(
            key, range_end, start_revision=start_revision, previous=previous
        ):
            yield batch
            raise Compacted(batch.revision)


def test_the_view_reads_anew_when_its_watch_lost_history() -> None:
    async def scene() -> None:
        clock = SystemClock()
        metastore = ForgetfulWatches(clock)
        view = LiveView(metastore, clock)
        await view.start()
        registrar = Registrar(metastore, node(), clock)
        await registrar.start([drive()])
        await eventually_async(lambda: set(view.drives) == {DRIVE}, 10)
        registrar.update([drive(), drive(drive_id=b"e" * 16)])
        await eventually_async(lambda: len(view.drives) == 2, 10)
        await registrar.close()
        await eventually_async(lambda: not view.nodes and not view.drives, 10)
        await view.close()

    run(scene())
