"""The port's values as etcd's messages, and back.

Requests are written here byte by byte (https://protobuf.dev/programming-guides/encoding/): a message
is its fields in a row, a field its tag and its number, or its length and bytes. That is a third of
the cost of filling the generated classes, and a batch is put together from the bytes of its members.
Answers are parsed by the generated classes; a test holds both against each other.
"""

from collections.abc import Iterable, Sequence
from typing import Any

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
    Result,
    Target,
    Txn,
    TxnResult,
)

_PUT_RESULT = PutResult()
_DELETED = 1  # Event.EventType.DELETE

# Tags: field number × 8 + kind (0 a number, 2 bytes).
_COMPARE, _SUCCESS, _FAILURE = b"\x0a", b"\x12", b"\x1a"  # TxnRequest
_RANGE, _PUT, _DELETE, _TXN = b"\x0a", b"\x12", b"\x1a", b"\x22"  # RequestOp
_KEY, _RANGE_END = b"\x0a", b"\x12"  # RangeRequest, DeleteRangeRequest; PutRequest: key, value
_LIMIT, _REVISION, _KEYS_ONLY, _COUNT_ONLY = b"\x18", b"\x20", b"\x40\x01", b"\x48\x01"
_LEASE = b"\x18"  # PutRequest
_COMPARE_KEY, _COMPARE_RANGE_END = b"\x1a", b"\x82\x04"
_OPERAND = {  # Compare: tag of the operand
    Target.VERSION: b"\x20",
    Target.CREATE_REVISION: b"\x28",
    Target.MOD_REVISION: b"\x30",
    Target.VALUE: b"\x3a",
    Target.LEASE: b"\x40",
}
_MOD_REVISION = Target.MOD_REVISION
_EQUAL = Relation.EQUAL


# --- requests ---


def encode_key(key: bytes) -> bytes:
    """A RangeRequest for one key."""
    return _field(_KEY, key)


def encode_range(request: Range) -> bytes:
    """A RangeRequest."""
    message = _field(_KEY, request.key)
    if request.range_end:
        message += _field(_RANGE_END, request.range_end)
    if request.limit:
        message += _LIMIT + _number(request.limit)
    if request.revision:
        message += _REVISION + _number(request.revision)
    if request.keys_only:
        message += _KEYS_ONLY
    if request.count_only:
        message += _COUNT_ONLY
    return message


def at_revision(message: bytes, revision: int) -> bytes:
    """A RangeRequest that names no revision, as of that one."""
    return message + _REVISION + _number(revision)


def encode_reads(ranges: Iterable[bytes]) -> bytes:
    """A flat TxnRequest of RangeRequests."""
    return b"".join([_field(_SUCCESS, _field(_RANGE, one)) for one in ranges])


def encode_txn(txn: Txn) -> bytes:
    """A TxnRequest."""
    fields = [_field(_COMPARE, _compare(compare)) for compare in txn.compares]
    fields += [_field(_SUCCESS, _operation(operation)) for operation in txn.success]
    fields += [_field(_FAILURE, _operation(operation)) for operation in txn.failure]
    return b"".join(fields)


def encode_batch(members: Iterable[bytes], any_key: bytes) -> bytes:
    """A TxnRequest whose operations are these TxnRequests.

    Up to 3.6 etcd holds a transaction against its quota by the puts of its outermost level alone
    (costTxn in server/storage/quota.go), so members in a batch would go past the quota and even past
    the NOSPACE alarm. The branch that is never taken therefore has a put, of a key that the user may
    write: it counts and does nothing.
    """
    fields = [_field(_SUCCESS, _field(_TXN, one)) for one in members]
    fields.append(_field(_FAILURE, _field(_PUT, _field(_KEY, any_key))))
    return b"".join(fields)


def _field(tag: bytes, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return b"%b%c%b" % (tag, size, content)
    if size < 16384:
        return b"%b%c%c%b" % (tag, size & 127 | 128, size >> 7, content)
    return tag + _number(size) + content


def _number(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    if 0 <= value < 128:
        return b"%c" % value
    value &= 0xFFFF_FFFF_FFFF_FFFF
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _compare(compare: Compare) -> bytes:
    key, operand = compare.key, compare.operand
    if isinstance(operand, bytes):
        tail = _field(_OPERAND[compare.target], operand)
    elif compare.target is _MOD_REVISION:
        tail = b"\x30" + _number(operand)
        if compare.relation is _EQUAL and compare.range_end is None:  # nearly all
            return b"\x10\x02" + _field(_COMPARE_KEY, key) + tail
    else:
        tail = _OPERAND[compare.target] + _number(operand)
    if compare.range_end:
        tail += _field(_COMPARE_RANGE_END, compare.range_end)
    head = b"\x08%c\x10%c" % (compare.relation.value, compare.target.value)
    return head + _field(_COMPARE_KEY, key) + tail


def _operation(operation: Operation) -> bytes:
    if isinstance(operation, Put):
        message = _field(_KEY, operation.key) + _field(_RANGE_END, operation.value)
        if operation.lease:
            message += _LEASE + _number(operation.lease)
        return _field(_PUT, message)
    if isinstance(operation, Range):
        return _field(_RANGE, encode_range(operation))
    if isinstance(operation, DeleteRange):
        message = _field(_KEY, operation.key)
        if operation.range_end:
            message += _field(_RANGE_END, operation.range_end)
        return _field(_DELETE, message)
    return _field(_TXN, encode_txn(operation))


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
    previous = decode_key_value(event.prev_kv) if event.HasField("prev_kv") else None
    return Event(decode_key_value(event.kv), event.type == _DELETED, previous)


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
