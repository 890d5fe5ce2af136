"""The metastore's messages: golden bytes, round trips, refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.errors import (
    Compacted,
    DuplicateKey,
    LeaseNotFound,
    MetastoreUnavailable,
    OutcomeUnknown,
    ProtocolError,
    RequestTooLarge,
)
from placement.metastore.port import (
    Compare,
    DeleteRange,
    DeleteResult,
    Event,
    KeyValue,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    Target,
    Txn,
    TxnResult,
    WatchBatch,
)
from placement.metastore.wire import (
    Verb,
    decode_range_results,
    decode_ranges,
    decode_txn,
    decode_txn_result,
    decode_values,
    decode_watch_batch,
    encode_range_results,
    encode_ranges,
    encode_txn,
    encode_txn_result,
    encode_values,
    encode_watch_batch,
    error_of,
    failure_of,
)

TXN = Txn(
    (Compare(b"a", Target.MOD_REVISION, Relation.LESS, 7, b"c"),),
    (Put(b"k", b"v", 3), DeleteRange(b"x", b"y"), Txn(success=(Range(b"r", None, 5),))),
    (Range(b"f", b"g", 1, 2, True, False),),
)
KV = KeyValue(b"k", b"v", 1, 2, 3, 4)
RESULT = TxnResult(
    True,
    9,
    (PutResult(), DeleteResult(2), RangeResult(9, (KV,), False, 1), TxnResult(False, 9, ())),
)

keys = st.binary(min_size=1, max_size=8)
ends = st.none() | keys
numbers = st.integers(0, 2**62)
compares = st.builds(
    Compare,
    keys,
    st.sampled_from(Target),
    st.sampled_from(Relation),
    numbers | st.binary(max_size=8),
    ends,
)
leaves = (
    st.builds(Put, keys, st.binary(max_size=20), numbers)
    | st.builds(DeleteRange, keys, ends)
    | st.builds(Range, keys, ends, numbers, numbers, st.booleans(), st.booleans())
)


def _txns(operations: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    several = st.lists(operations, max_size=3).map(tuple)
    return st.builds(Txn, st.lists(compares, max_size=3).map(tuple), several, several)


def test_transactions_have_their_golden_bytes() -> None:
    assert encode_txn(TXN).hex() == (
        "94" "01"
        "91" "95c40161020207c40163"
        "93" "9400c4016bc4017603" "9301c40178c40179"
        "94039091" "9702c40172c00500c2c2" "90"
        "91" "9702c40166c401670102c3c2"
    )  # fmt: skip
    assert encode_txn_result(RESULT).hex() == (
        "94" "01" "c3" "09" "94" "c0" "920102" "95020991" "96c4016bc4017601020304" "c201" "9403c20990"
    )  # fmt: skip


def test_reads_and_watches_have_their_golden_bytes() -> None:
    assert encode_ranges((Range(b"r"),)).hex() == "92019196c40172c00000c2c2"
    assert encode_range_results((RangeResult(5, (), True, 2),)).hex() == "920191940590c302"
    batch = WatchBatch(6, (Event(KV, deleted=False),))
    assert encode_watch_batch(batch).hex() == "93010691" "97c2c4016bc4017601020304"  # fmt: skip
    batch = WatchBatch(6, (Event(KV, deleted=False, previous=KV),))
    assert encode_watch_batch(batch).hex() == (
        "93010691" "98c2c4016bc4017601020304" "96c4016bc4017601020304"
    )  # fmt: skip
    assert [verb.value for verb in Verb] == list(range(64, 71))


@given(_txns(st.recursive(leaves, _txns, max_leaves=12)))
def test_every_transaction_survives_the_wire(txn: Txn) -> None:
    assert decode_txn(encode_txn(txn)) == txn


def test_results_reads_and_batches_survive_the_wire() -> None:
    assert decode_txn_result(memoryview(encode_txn_result(RESULT))) == RESULT
    ranges = (Range(b"a"), Range(b"b", b"c", 1, 2, True, True))
    assert decode_ranges(encode_ranges(ranges)) == ranges
    results = (RangeResult(1, (KV, KV), True, 3), RangeResult(1, (), False, 0))
    assert decode_range_results(encode_range_results(results)) == results
    gone = KeyValue(b"d", b"", 0, 4, 0)
    events = (Event(KV, deleted=False), Event(gone, True), Event(gone, True, KV))
    batch = WatchBatch(4, events)
    assert decode_watch_batch(encode_watch_batch(batch)) == batch


def test_a_later_minor_version_may_append_values() -> None:
    assert decode_values(encode_values(1, b"x", "later"), 2) == [1, b"x"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x91",
        b"\x93\x02\x01\x01",
        b"\x92\x01\x01",
        b"\xc0",
        b"\x80",
        encode_txn(TXN) + b"\x00",
        encode_values([[b"k", 9, 0, 0, None]], [], []),
        encode_values([], [[9, b"k"]], []),
        encode_values([], [[0]], []),
        encode_values([], [[]], []),
        encode_values(1, 2, 3),
    ],
)
def test_what_is_no_transaction_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_txn(data)


@given(st.binary(max_size=60))
def test_random_bytes_are_a_transaction_or_a_protocol_error(data: bytes) -> None:
    try:
        decode_txn(data)
    except ProtocolError:
        return


@pytest.mark.parametrize(
    "error",
    [
        RequestTooLarge("big"),
        DuplicateKey("twice"),
        LeaseNotFound("dead"),
        OutcomeUnknown("lost"),
        MetastoreUnavailable("down"),
    ],
)
def test_errors_arrive_as_what_they_were(error: Exception) -> None:
    arrived = error_of(failure_of(error))
    assert (type(arrived), str(arrived)) == (type(error), str(error))


def test_compacted_arrives_with_its_revision() -> None:
    arrived = error_of(failure_of(Compacted(42)))
    assert isinstance(arrived, Compacted)
    assert arrived.revision == 42
