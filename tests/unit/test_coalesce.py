"""Sharing calls: what may travel together, in which order, and who gets which answer."""

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.clock import SystemClock
from placement.errors import DuplicateKey, MetastoreUnavailable, OutcomeUnknown
from placement.metastore import coalesce
from placement.metastore.coalesce import (
    BATCH_SIZE_BYTES_MAX,
    FULL_ENOUGH,
    PATIENCE_SECONDS,
    WAITING_MAX,
    Coalescer,
    WaitingRead,
    WaitingWrite,
    footprint_of,
    take_reads,
    take_writes,
)
from placement.metastore.execution import check_txn
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import (
    Compare,
    DeleteRange,
    Operation,
    Put,
    Range,
    RangeResult,
    Relation,
    Result,
    Target,
    Txn,
    TxnResult,
    absent,
    exists,
)


def waiting(*txns: Txn, size_bytes: int = 100) -> deque[WaitingWrite]:
    return deque(WaitingWrite(txn, bytes(size_bytes)) for txn in txns)


def together(*txns: Txn) -> bool:
    """Whether the second goes with the first."""
    return len(take_writes(waiting(*txns))) == len(txns)


PUT_K = Txn(success=(Put(b"k", b""),))


@pytest.mark.parametrize(
    ("other", "may"),
    [
        (Txn(success=(Put(b"l", b""),)), True),
        (PUT_K, False),
        (Txn(failure=(Put(b"k", b""),)), False),
        (Txn(success=(DeleteRange(b"k"),)), False),
        (Txn((absent(b"k"),), (Put(b"l", b""),)), False),
        (Txn((absent(b"j"),), (Put(b"l", b""),)), True),
        (Txn(success=(Range(b"k"), Put(b"l", b""))), False),
        (Txn(success=(Range(b"a", b"z"), Put(b"l", b""))), False),
        (Txn(success=(Range(b"a", b"k"), Put(b"l", b""))), True),
        (Txn(success=(Range(b"a", b"\x00"), Put(b"l", b""))), False),
        (Txn(success=(DeleteRange(b"k", b"l"),)), False),
        (Txn(success=(DeleteRange(b"l", b"\x00"),)), True),
        (
            Txn(
                (Compare(b"a", Target.VERSION, Relation.EQUAL, 0, b"z"),),
                (Put(b"zz", b""),),
            ),
            False,
        ),
    ],
)
def test_members_never_touch_what_another_writes(other: Txn, may: bool) -> None:
    assert together(PUT_K, other) is may
    assert together(other, PUT_K) is may


def test_members_may_read_the_same() -> None:
    def commit(key: bytes) -> Txn:
        return Txn((exists(b"bucket"), absent(key)), (Put(key, b""),), (Range(b"bucket"),))

    assert together(commit(b"a"), commit(b"b"), commit(b"c"))


def test_what_conflicts_goes_next_and_in_the_order_of_asking() -> None:
    first, second, third = PUT_K, Txn(success=(Put(b"k", b"2"),)), Txn(success=(Put(b"k", b"3"),))
    other = Txn(success=(Put(b"l", b""),))
    queue = waiting(first, second, other, third)
    assert [[item.txn for item in take_writes(queue)] for _ in range(3)] == [
        [first, other],
        [second],
        [third],
    ]
    assert not queue


@pytest.mark.parametrize(
    "alone",
    [
        Txn((absent(b"x"),), (), (Range(b"x"),)),  # nothing to write: no use of a nested one
        Txn(success=(Txn(success=(Put(b"x", b""),)),)),
        Txn(success=(Put(b"x", b""), Range(b"y", revision=7))),
    ],
)
def test_some_travel_alone(alone: Txn) -> None:
    assert not together(PUT_K, alone)
    assert not together(alone, PUT_K)


def test_a_batch_keeps_within_the_limits_of_etcd() -> None:
    def wide(prefix: int, width: int) -> Txn:
        return Txn(success=tuple(Put(b"%d/%d" % (prefix, i), b"") for i in range(width)))

    for width in (1, 5, 64, 100, 128):
        batch = take_writes(waiting(*(wide(i, width) for i in range(200))))
        assert len(batch) == max(128 - width, 1)
        check_txn(Txn(success=tuple(item.txn for item in batch)) if batch[1:] else batch[0].txn)
    heavy = take_writes(waiting(*(wide(i, 1) for i in range(9)), size_bytes=300_000))
    assert len(heavy) == BATCH_SIZE_BYTES_MAX // 300_000
    assert len(take_writes(waiting(wide(1, 1), size_bytes=1_500_000))) == 1


def test_reads_fill_a_flat_transaction() -> None:
    queue = deque(WaitingRead([b"r"] * count) for count in (100, 20, 9, 128, 1))
    assert [[len(item.requests) for item in take_reads(queue)] for _ in range(4)] == [
        [100, 20],
        [9],
        [128],
        [1],
    ]


KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
ENDS = st.sampled_from([None, b"b", b"c", b"e", b"\x00"])
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Put, KEYS, st.sampled_from([b"1", b"2"])),
    st.builds(DeleteRange, KEYS, ENDS),
    st.builds(Range, KEYS, ENDS),
)
BRANCHES = st.lists(OPERATIONS, max_size=2).map(tuple)
COMPARES = st.lists(
    st.builds(
        Compare,
        KEYS,
        st.just(Target.VERSION),
        st.sampled_from(Relation),
        st.integers(0, 2),
        ENDS,
    ),
    max_size=2,
).map(tuple)
TXNS = st.builds(Txn, COMPARES, BRANCHES, BRANCHES)


def found(results: Sequence[Result]) -> list[object]:
    """The results without revisions, which differ when one transaction takes the place of many."""
    told: list[object] = []
    for one in results:
        if isinstance(one, TxnResult):
            told.append((one.succeeded, found(one.results)))
        elif isinstance(one, RangeResult):
            told.append([(kv.key, kv.value, kv.version) for kv in one.kvs])
        else:
            told.append(one)
    return told


def accepted(txn: Txn) -> bool:
    try:
        check_txn(txn)
    except DuplicateKey:
        return False
    return True


@given(st.lists(TXNS.filter(accepted), min_size=2, max_size=5))
def test_a_batch_means_what_its_members_mean_one_after_the_other(txns: list[Txn]) -> None:
    async def scene() -> None:
        shared, single = MemoryMetastore(SystemClock()), MemoryMetastore(SystemClock())
        for store in (shared, single):
            await store.txn(Txn(success=(Put(b"a", b"0"), Put(b"c", b"0"))))
        queue = waiting(*txns)
        while queue:
            members = [item.txn for item in take_writes(queue)]
            alone = [await single.txn(txn) for txn in members]
            if len(members) == 1:
                batch: Sequence[Result] = [await shared.txn(members[0])]
            else:
                batch = (await shared.txn(Txn(success=tuple(members)))).results
            assert found(batch) == found(alone)
        states = [await store.range(Range(b"\x00", b"\x00")) for store in (shared, single)]
        assert found(states)[0] == found(states)[1]
        await shared.close()
        await single.close()

    asyncio.run(scene())


def test_a_footprint_names_both_branches() -> None:
    txn = Txn(
        (exists(b"c"),),
        (Put(b"p", b""), Range(b"r"), Range(b"s", b"t")),
        (DeleteRange(b"d"), DeleteRange(b"e", b"\x00")),
    )
    footprint = footprint_of(txn)
    assert footprint.points == {b"c", b"p", b"r", b"d"}
    assert footprint.written_points == {b"p", b"d"}
    assert footprint.spans == ((b"s", b"t"), (b"e", b""))
    assert footprint.written_spans == ((b"e", b""),)
    assert (footprint.plain, footprint.width) == (True, 3)


class Wire:
    """Batches as they are sent, each answered when the test says."""

    def __init__(self, in_flight_max: int = 2) -> None:
        self.sent: list[list[Any]] = []
        self.answers: list[asyncio.Future[Sequence[Any]]] = []
        self.shared = Coalescer[WaitingRead](take_reads, self.send, in_flight_max=in_flight_max)

    async def send(self, batch: list[WaitingRead]) -> Sequence[Any]:
        self.sent.append([item.requests[0] for item in batch])
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]

    def ask(self, name: bytes) -> asyncio.Future[Any]:
        return self.shared.ask(WaitingRead([name]))


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 10))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_is_asked_in_one_turn_travels_together_and_the_rest_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coalesce, "PATIENCE_SECONDS", 60)  # however slow the machine is

    async def scene() -> None:
        wire = Wire()
        first = [wire.ask(b"a"), wire.ask(b"b")]
        await settle()
        second = wire.ask(b"c")
        await settle()
        third = wire.ask(b"d")
        await settle()
        assert wire.sent == [[b"a", b"b"]]
        wire.answers[0].set_result(["A", MetastoreUnavailable("B's own")])
        assert await first[0] == "A"
        with pytest.raises(MetastoreUnavailable, match="B's own"):
            await first[1]
        await settle()
        assert wire.sent[1:] == [[b"c", b"d"]]
        wire.answers[1].set_result(["C", "D"])
        assert [await second, await third] == ["C", "D"]
        assert (wire.shared.batches, wire.shared.members) == (2, 4)

    run(scene())


def test_many_that_wait_do_not_wait_for_the_batch_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coalesce, "PATIENCE_SECONDS", 60)  # however slow the machine is

    async def scene() -> None:
        wire = Wire()
        wire.ask(b"first")
        await settle()
        for i in range(2 * FULL_ENOUGH):
            wire.ask(b"%d" % i)
            await settle()
        # Two batches under way; the others wait for either.
        assert [len(batch) for batch in wire.sent] == [1, FULL_ENOUGH]
        wire.answers[0].set_result([""])
        await settle()
        assert [len(batch) for batch in wire.sent] == [1, FULL_ENOUGH, FULL_ENOUGH]
        for answer, batch in zip(wire.answers[1:], wire.sent[1:], strict=True):
            answer.set_result([""] * len(batch))
        await settle()

    run(scene())


def test_a_batch_that_does_not_come_back_holds_nobody_up() -> None:
    async def scene() -> None:
        wire = Wire()
        wire.ask(b"stuck")
        await settle()
        answered = wire.ask(b"a")
        await settle()
        assert len(wire.sent) == 1
        await asyncio.sleep(2 * PATIENCE_SECONDS)
        assert wire.sent == [[b"stuck"], [b"a"]]
        wire.answers[1].set_result(["A"])
        assert await answered == "A"
        wire.answers[0].set_result([""])
        await settle()

    run(scene())


def test_an_error_of_a_batch_is_everybodys_and_each_has_an_own() -> None:
    async def scene() -> None:
        wire = Wire()
        both = [wire.ask(b"a"), wire.ask(b"b")]
        await settle()
        wire.answers[0].set_exception(OutcomeUnknown("lost"))
        told = await asyncio.gather(*both, return_exceptions=True)
        assert [type(one) for one in told] == [OutcomeUnknown, OutcomeUnknown]
        assert told[0] is not told[1]

    run(scene())


def test_who_gave_up_before_the_batch_left_is_not_sent() -> None:
    async def scene() -> None:
        wire = Wire(in_flight_max=1)
        wire.ask(b"a")
        await settle()
        gone, stays = wire.ask(b"b"), wire.ask(b"c")
        gone.cancel()
        wire.answers[0].set_result(["A"])
        await settle()
        assert wire.sent[1:] == [[b"c"]]
        wire.answers[1].set_result(["C"])
        assert await stays == "C"
        alone = wire.ask(b"d")
        alone.cancel()
        await settle()
        assert len(wire.sent) == 2

    run(scene())


def test_closing_refuses_what_waits_and_what_comes() -> None:
    async def scene() -> None:
        wire = Wire(in_flight_max=1)
        wire.ask(b"a")
        await settle()
        waits = wire.ask(b"b")
        wire.shared.close()
        with pytest.raises(MetastoreUnavailable, match="closed"):
            await waits
        with pytest.raises(MetastoreUnavailable, match="closed"):
            wire.ask(b"c")
        wire.answers[0].set_result(["A"])

    run(scene())


def test_too_many_are_not_kept_waiting() -> None:
    async def scene() -> None:
        wire = Wire(in_flight_max=1)
        for _ in range(WAITING_MAX):
            wire.ask(b"a")
        with pytest.raises(MetastoreUnavailable, match="too many"):
            wire.ask(b"a")
        wire.shared.close()

    run(scene())
