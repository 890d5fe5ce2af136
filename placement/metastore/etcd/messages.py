"""The port's values as etcd's messages, and back.

Batches are put together from the bytes of their members: a message within a message is its length
and its bytes (https://protobuf.dev/programming-guides/encoding/), so nothing is encoded twice.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from placement.metastore.etcd.stubs import rpc_pb2 as pb
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
    Result,
    Target,
    Txn,
    TxnResult,
)

_PUT_RESULT = PutResult()
_SUCCESS = b"\x12"  # TxnRequest.success, field 2
_RANGE = b"\x0a"  # RequestOp.request_range, field 1
_TXN = b"\x22"  # RequestOp.request_txn, field 4
_OPERAND = {
    Target.VERSION: "version",
    Target.CREATE_REVISION: "create_revision",
    Target.MOD_REVISION: "mod_revision",
    Target.VALUE: "value",
    Target.LEASE: "lease",
}
_DELETED = 1  # Event.EventType.DELETE


# --- requests ---


def encode_key(key: bytes) -> bytes:
    """A RangeRequest for one key."""
    return _framed(_RANGE, key)  # field 1 of RangeRequest is the key


def encode_range(request: Range) -> bytes:
    """A RangeRequest."""
    return pb.RangeRequest(
        key=request.key,
        range_end=request.range_end or b"",
        limit=request.limit,
        revision=request.revision,
        keys_only=request.keys_only,
        count_only=request.count_only,
    ).SerializeToString()


def encode_reads(ranges: Iterable[bytes]) -> bytes:
    """A flat TxnRequest of RangeRequests."""
    return b"".join([_framed(_SUCCESS, _framed(_RANGE, one)) for one in ranges])


def encode_txn(txn: Txn) -> bytes:
    """A TxnRequest."""
    return _txn_message(txn).SerializeToString()


def encode_batch(members: Iterable[bytes]) -> bytes:
    """A TxnRequest whose operations are these TxnRequests."""
    return b"".join([_framed(_SUCCESS, _framed(_TXN, one)) for one in members])


def _framed(tag: bytes, message: bytes) -> bytes:
    size = len(message)
    if size < 128:
        return b"%b%c%b" % (tag, size, message)
    if size < 16384:
        return b"%b%c%c%b" % (tag, size & 127 | 128, size >> 7, message)
    length = bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return tag + length + message


def _txn_message(txn: Txn) -> pb.TxnRequest:
    return pb.TxnRequest(
        compare=[_compare_message(compare) for compare in txn.compares],
        success=[_operation_message(operation) for operation in txn.success],
        failure=[_operation_message(operation) for operation in txn.failure],
    )


def _compare_message(compare: Compare) -> pb.Compare:
    operand: dict[str, Any] = {_OPERAND[compare.target]: compare.operand}
    return pb.Compare(
        result=compare.relation.value,  # type: ignore[arg-type]  # the numbers are etcd's
        target=compare.target.value,  # type: ignore[arg-type]
        key=compare.key,
        range_end=compare.range_end or b"",
        **operand,
    )


def _operation_message(operation: Operation) -> pb.RequestOp:
    if isinstance(operation, Put):
        return pb.RequestOp(
            request_put=pb.PutRequest(
                key=operation.key, value=operation.value, lease=operation.lease
            )
        )
    if isinstance(operation, DeleteRange):
        return pb.RequestOp(
            request_delete_range=pb.DeleteRangeRequest(
                key=operation.key, range_end=operation.range_end or b""
            )
        )
    if isinstance(operation, Range):
        return pb.RequestOp(
            request_range=pb.RangeRequest(
                key=operation.key,
                range_end=operation.range_end or b"",
                limit=operation.limit,
                revision=operation.revision,
                keys_only=operation.keys_only,
                count_only=operation.count_only,
            )
        )
    return pb.RequestOp(request_txn=_txn_message(operation))


# --- answers ---


def decode_key_value(kv: Any) -> KeyValue:
    """A KeyValue of any message."""
    return KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)


def decode_range(response: Any, revision: int) -> RangeResult:
    """A RangeResponse, read at `revision`."""
    return RangeResult(
        revision, tuple(map(decode_key_value, response.kvs)), response.more, response.count
    )


def decode_txn(txn: Txn, response: Any, revision: int) -> TxnResult:
    """The TxnResponse to that transaction; `revision` is the store's after all of it."""
    succeeded = response.succeeded
    operations = txn.success if succeeded else txn.failure
    return TxnResult(succeeded, revision, _results(operations, response.responses, revision))


def decode_event(event: Any) -> Event:
    """One change that a watch tells."""
    return Event(decode_key_value(event.kv), deleted=event.type == _DELETED)


def _results(
    operations: Sequence[Operation], responses: Iterable[Any], revision: int
) -> tuple[Result, ...]:
    results: list[Result] = []
    for operation, response in zip(operations, responses, strict=True):
        if isinstance(operation, Put):
            results.append(_PUT_RESULT)
        elif isinstance(operation, Range):
            results.append(decode_range(response.response_range, revision))
        elif isinstance(operation, DeleteRange):
            results.append(DeleteResult(response.response_delete_range.deleted))
        else:
            results.append(decode_txn(operation, response.response_txn, revision))
    return tuple(results)
