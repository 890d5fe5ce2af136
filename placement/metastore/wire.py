"""The metastore's messages between processes: MessagePack arrays that begin with a version.

Verbs 64 to 70. Golden bytes: tests/unit/test_metastore_wire.py.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import msgspec

from placement.errors import (
    Compacted,
    DuplicateKey,
    LeaseNotFound,
    MetastoreUnavailable,
    OutcomeUnknown,
    PlacementError,
    ProtocolError,
    RequestTooLarge,
)
from placement.metastore.port import (
    Compare,
    DeleteResult,
    Event,
    KeyValue,
    Operation,
    PutResult,
    Range,
    RangeResult,
    Result,
    Txn,
    TxnResult,
    WatchBatch,
)
from placement.rpc.frames import Buffer, RemoteError

FORMAT_VERSION = 1


class Verb(IntEnum):
    """What can be asked of the owner."""

    TXN = 64
    READ = 65
    WATCH = 66
    LEASE_GRANT = 67
    LEASE_KEEP_ALIVE = 68
    LEASE_REVOKE = 69
    COMPACT = 70


class Failure(IntEnum):
    """Error codes of these verbs."""

    COMPACTED = 16
    TOO_LARGE = 17
    DUPLICATE_KEY = 18
    LEASE_NOT_FOUND = 19
    UNAVAILABLE = 20
    OUTCOME_UNKNOWN = 21
    INVALID = 22


_DELETE, _RANGE, _TXN = 1, 2, 3
_KEY_VALUE_FIELDS = len(KeyValue.__struct_fields__)
_PUT_RESULT = PutResult()
_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[Buffer], Any] = msgspec.msgpack.Decoder().decode


class _TxnMessage(msgspec.Struct, array_like=True, gc=False):
    """What a later minor version appends is left out."""

    version: int
    compares: tuple[Compare, ...]
    success: tuple[Operation, ...]
    failure: tuple[Operation, ...]


_decode_txn = msgspec.msgpack.Decoder(_TxnMessage).decode


def encode_values(*values: object) -> bytes:
    """A message of plain values."""
    return _encode((FORMAT_VERSION, *values))


def decode_values(data: Buffer, count: int) -> list[Any]:
    """The plain values of a message; those a later minor version appends are left out.

    Raises ProtocolError for another version or too few values.
    """
    try:
        values = _decode(data)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"not a metastore message: {error}") from error
    if not isinstance(values, list) or len(values) <= count or values[0] != FORMAT_VERSION:
        raise ProtocolError("not a metastore message of this version")
    return values[1 : count + 1]


# --- transactions ---


def encode_txn(txn: Txn) -> bytes:
    """The header of a TXN call."""
    return _encode((FORMAT_VERSION, txn.compares, txn.success, txn.failure))


def decode_txn(data: Buffer) -> Txn:
    """Raises ProtocolError."""
    try:
        message = _decode_txn(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ProtocolError(f"a transaction cannot be read: {error}") from error
    if message.version != FORMAT_VERSION:
        raise ProtocolError("not a metastore message of this version")
    return Txn(message.compares, message.success, message.failure)


def encode_txn_result(result: TxnResult) -> bytes:
    """The header of the answer to a TXN call."""
    return _encode((FORMAT_VERSION, *_pack_txn_result(result)))


def decode_txn_result(data: Buffer) -> TxnResult:
    """Raises ProtocolError."""
    return _unpack_txn_result(*decode_values(data, 3))


def _pack_txn_result(result: TxnResult) -> tuple[object, ...]:
    return (result.succeeded, result.revision, [_pack_result(one) for one in result.results])


def _pack_result(result: Result) -> object:
    if result is _PUT_RESULT or isinstance(result, PutResult):
        return None
    if isinstance(result, DeleteResult):
        return (_DELETE, result.deleted)
    if isinstance(result, RangeResult):
        return (_RANGE, *_pack_range_result(result))
    return (_TXN, *_pack_txn_result(result))


def _unpack_txn_result(succeeded: bool, revision: int, results: list[Any]) -> TxnResult:
    return TxnResult(
        succeeded,
        revision,
        tuple([_PUT_RESULT if one is None else _unpack_result(*one) for one in results]),
    )


def _unpack_result(kind: int, *fields: Any) -> Result:
    if kind == _DELETE:
        return DeleteResult(*fields)
    if kind == _RANGE:
        return _unpack_range_result(*fields)
    return _unpack_txn_result(*fields)


# --- reads and watches ---


def encode_ranges(requests: Sequence[Range]) -> bytes:
    """The header of a READ call."""
    return encode_values([msgspec.structs.astuple(request) for request in requests])


def decode_ranges(data: Buffer) -> tuple[Range, ...]:
    """Raises ProtocolError."""
    try:
        return tuple(Range(*fields) for fields in decode_values(data, 1)[0])
    except TypeError as error:
        raise ProtocolError(f"a range cannot be read: {error}") from error


def encode_range_results(results: Sequence[RangeResult]) -> bytes:
    """The header of the answer to a READ call."""
    return encode_values([_pack_range_result(result) for result in results])


def decode_range_results(data: Buffer) -> tuple[RangeResult, ...]:
    """Raises ProtocolError."""
    return tuple(_unpack_range_result(*fields) for fields in decode_values(data, 1)[0])


def encode_watch_batch(batch: WatchBatch) -> bytes:
    """The header of an element of a WATCH stream."""
    return encode_values(
        batch.revision,
        [
            (event.deleted, *msgspec.structs.astuple(event.kv))
            if event.previous is None
            else (event.deleted, *msgspec.structs.astuple(event.kv), event.previous)
            for event in batch.events
        ],
    )


def decode_watch_batch(data: Buffer) -> WatchBatch:
    """Raises ProtocolError."""
    revision, events = decode_values(data, 2)
    return WatchBatch(revision, tuple(_unpack_event(*event) for event in events))


def _unpack_event(deleted: Any, *fields: Any) -> Event:
    kv = KeyValue(*fields[:_KEY_VALUE_FIELDS])
    if len(fields) == _KEY_VALUE_FIELDS:
        return Event(kv, deleted)
    return Event(kv, deleted, KeyValue(*fields[_KEY_VALUE_FIELDS]))


def _pack_range_result(result: RangeResult) -> tuple[object, ...]:
    return (result.revision, result.kvs, result.more, result.count)


def _unpack_range_result(revision: int, kvs: list[Any], more: bool, count: int) -> RangeResult:
    return RangeResult(revision, tuple([KeyValue(*kv) for kv in kvs]), more, count)


# --- errors ---


def failure_of(error: Exception) -> RemoteError:
    """How an error of the owner travels."""
    match error:
        case Compacted():
            return RemoteError(Failure.COMPACTED, str(error.revision))
        case RequestTooLarge():
            return RemoteError(Failure.TOO_LARGE, str(error))
        case DuplicateKey():
            return RemoteError(Failure.DUPLICATE_KEY, str(error))
        case LeaseNotFound():
            return RemoteError(Failure.LEASE_NOT_FOUND, str(error))
        case OutcomeUnknown():
            return RemoteError(Failure.OUTCOME_UNKNOWN, str(error))
        case MetastoreUnavailable():
            return RemoteError(Failure.UNAVAILABLE, str(error))
        case _:
            return RemoteError(Failure.INVALID, f"{type(error).__name__}: {error}")


def error_of(failure: RemoteError) -> Exception:
    """The error that the owner raised."""
    kinds: dict[int, type[PlacementError]] = {
        Failure.TOO_LARGE: RequestTooLarge,
        Failure.DUPLICATE_KEY: DuplicateKey,
        Failure.LEASE_NOT_FOUND: LeaseNotFound,
        Failure.OUTCOME_UNKNOWN: OutcomeUnknown,
    }
    if failure.code == Failure.COMPACTED:
        return Compacted(int(failure.message))
    if failure.code == Failure.INVALID:
        return ValueError(failure.message)
    return kinds.get(failure.code, MetastoreUnavailable)(failure.message)
