"""Requests written byte by byte are the messages of etcd's proto files; answers become the port's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.metastore.etcd.messages import (
    decode_event,
    decode_txn,
    encode_batch,
    encode_key,
    encode_range,
    encode_reads,
    encode_txn,
)
from placement.metastore.etcd.stubs import kv_pb2, rpc_pb2
from placement.metastore.port import (
    Compare,
    DeleteRange,
    DeleteResult,
    Event,
    KeyValue,
    Operation,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    Target,
    Txn,
    TxnResult,
)

BYTES = st.one_of(st.binary(min_size=1, max_size=20), st.sampled_from([b"k" * 127, b"k" * 20_000]))
NUMBERS = st.one_of(st.integers(0, 300), st.sampled_from([1 << 35, (1 << 63) - 1]))
ENDS = st.one_of(st.none(), BYTES)
RANGES = st.builds(Range, BYTES, ENDS, NUMBERS, NUMBERS, st.booleans(), st.booleans())
COMPARES = st.one_of(
    st.builds(
        Compare,
        BYTES,
        st.sampled_from([target for target in Target if target is not Target.VALUE]),
        st.sampled_from(Relation),
        NUMBERS,
        ENDS,
    ),
    st.builds(Compare, BYTES, st.just(Target.VALUE), st.sampled_from(Relation), BYTES, ENDS),
)
SIMPLE = st.one_of(
    st.builds(Put, BYTES, st.one_of(st.just(b""), BYTES), NUMBERS),
    st.builds(DeleteRange, BYTES, ENDS),
    RANGES,
)


def txns(operations: st.SearchStrategy[Operation]) -> st.SearchStrategy[Txn]:
    branch = st.lists(operations, max_size=4).map(tuple)
    return st.builds(Txn, st.lists(COMPARES, max_size=4).map(tuple), branch, branch)


TXNS = txns(st.one_of(SIMPLE, txns(SIMPLE)))
OPERAND = {
    Target.VERSION: "version",
    Target.CREATE_REVISION: "create_revision",
    Target.MOD_REVISION: "mod_revision",
    Target.VALUE: "value",
    Target.LEASE: "lease",
}


def range_message(request: Range) -> rpc_pb2.RangeRequest:
    return rpc_pb2.RangeRequest(
        key=request.key,
        range_end=request.range_end or b"",
        limit=request.limit,
        revision=request.revision,
        keys_only=request.keys_only,
        count_only=request.count_only,
    )


def operation_message(operation: Operation) -> rpc_pb2.RequestOp:
    match operation:
        case Put(key, value, lease):
            put = rpc_pb2.PutRequest(key=key, value=value, lease=lease)
            return rpc_pb2.RequestOp(request_put=put)
        case DeleteRange(key, end):
            delete = rpc_pb2.DeleteRangeRequest(key=key, range_end=end or b"")
            return rpc_pb2.RequestOp(request_delete_range=delete)
        case Range():
            return rpc_pb2.RequestOp(request_range=range_message(operation))
        case Txn():
            return rpc_pb2.RequestOp(request_txn=txn_message(operation))


def compare_message(compare: Compare) -> rpc_pb2.Compare:
    message = rpc_pb2.Compare(key=compare.key, range_end=compare.range_end or b"")
    message.target = compare.target.value  # type: ignore[assignment]
    message.result = compare.relation.value  # type: ignore[assignment]
    setattr(message, OPERAND[compare.target], compare.operand)
    return message


def txn_message(txn: Txn) -> rpc_pb2.TxnRequest:
    return rpc_pb2.TxnRequest(
        compare=[compare_message(compare) for compare in txn.compares],
        success=[operation_message(operation) for operation in txn.success],
        failure=[operation_message(operation) for operation in txn.failure],
    )


@given(TXNS)
def test_a_transaction_is_the_message_that_the_generated_classes_make(txn: Txn) -> None:
    assert rpc_pb2.TxnRequest.FromString(encode_txn(txn)) == txn_message(txn)


@given(RANGES)
def test_a_range_is_the_message_that_the_generated_classes_make(request: Range) -> None:
    assert rpc_pb2.RangeRequest.FromString(encode_range(request)) == range_message(request)


@given(st.lists(TXNS, max_size=5))
def test_a_batch_is_one_transaction_of_transactions(members: list[Txn]) -> None:
    sent = rpc_pb2.TxnRequest.FromString(encode_batch(map(encode_txn, members), b"k"))
    # The put in the other branch is what etcd's quota sees.
    assert sent == txn_message(Txn((), tuple(members), (Put(b"k", b""),)))


def test_reads_are_one_flat_transaction_of_ranges() -> None:
    ranges = (Range(b"a"), Range(b"b" * 200, b"c", limit=300))
    sent = rpc_pb2.TxnRequest.FromString(encode_reads([encode_key(b"a"), encode_range(ranges[1])]))
    assert sent == txn_message(Txn(success=ranges))


def test_numbers_of_the_port_are_those_of_etcd() -> None:
    for target in Target:
        assert rpc_pb2.Compare.CompareTarget.Value(OPERAND[target].split("_")[0].upper()) == (
            target.value
        )
    for relation in Relation:
        assert rpc_pb2.Compare.CompareResult.Value(relation.name) == relation.value


def kv_message(key: bytes) -> kv_pb2.KeyValue:
    return kv_pb2.KeyValue(
        key=key, value=b"v", create_revision=2, mod_revision=5, version=3, lease=9
    )


def test_an_answer_is_read_along_the_branch_that_was_taken() -> None:
    txn = Txn(
        (),
        (Put(b"never", b""),),
        (Range(b"a", b"b"), DeleteRange(b"a"), Txn(success=(Put(b"x", b""),)), Put(b"y", b"")),
    )
    inner = rpc_pb2.TxnResponse(
        succeeded=True, responses=[rpc_pb2.ResponseOp(response_put=rpc_pb2.PutResponse())]
    )
    found = rpc_pb2.RangeResponse(kvs=[kv_message(b"a")], more=True, count=7)
    answer = rpc_pb2.TxnResponse(
        succeeded=False,
        responses=[
            rpc_pb2.ResponseOp(response_range=found),
            rpc_pb2.ResponseOp(response_delete_range=rpc_pb2.DeleteRangeResponse(deleted=4)),
            rpc_pb2.ResponseOp(response_txn=inner),
            rpc_pb2.ResponseOp(response_put=rpc_pb2.PutResponse()),
        ],
    )
    assert decode_txn(txn, answer, 11) == TxnResult(
        False,
        11,
        (
            RangeResult(11, (KeyValue(b"a", b"v", 2, 5, 3, 9),), True, 7),
            DeleteResult(4),
            TxnResult(True, 11, (PutResult(),)),
            PutResult(),
        ),
    )
    with pytest.raises(ValueError, match="zip"):  # an answer to something else is never taken
        decode_txn(Txn(), rpc_pb2.TxnResponse(succeeded=True, responses=answer.responses), 1)


def test_events_tell_puts_and_deletes() -> None:
    put = kv_pb2.Event(type=kv_pb2.Event.PUT, kv=kv_message(b"a"))
    assert decode_event(put) == Event(KeyValue(b"a", b"v", 2, 5, 3, 9), deleted=False)
    gone = kv_pb2.Event(type=kv_pb2.Event.DELETE, kv=kv_pb2.KeyValue(key=b"a", mod_revision=6))
    assert decode_event(gone) == Event(KeyValue(b"a", b"", 0, 6, 0), deleted=True)
