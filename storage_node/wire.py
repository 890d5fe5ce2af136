"""The node verbs as messages: what goes into the frames of placement/rpc.

Each header is a version byte and MessagePack (or, for outcomes alone, one byte each). Payloads carry
shard bytes, joined. Message fields are positional; new ones are added at the end.
"""

from enum import IntEnum
from typing import Any, Generic, TypeVar

import msgspec

from placement.errors import ProtocolError
from placement.ids import BlobId, DriveId
from storage_node.port import (
    Buffer,
    DriveCondition,
    DriveReport,
    Outcome,
    PutShard,
    ShardId,
    ShardInfo,
    StagedShard,
)

MESSAGE_VERSION = 1
_VERSION_BYTE = bytes((MESSAGE_VERSION,))

READ_SIZE_BYTES_MAX = 8 << 20
"""Payload that one `get` or `append` asks for; larger ones are cut into several calls."""
BATCH_COUNT_MAX = 4096
"""Shards in one message."""


class Verb(IntEnum):
    """Numbers 1–63 belong to the node."""

    PUT = 1
    OPEN = 2
    APPEND = 3
    COMMIT = 4
    ABORT = 5
    GET = 6
    LOCATE = 7
    STAT = 8
    DELETE = 9
    LIST = 10
    REPORT_DAMAGE = 11
    DAMAGED = 12
    REPORTS = 13
    STATS = 14
    PUT_AND_COMMIT = 15
    """Only where one process owns the drives and the metadata (joint.py)."""
    BEGIN_TERM = 16
    DELETE_SURPLUS = 17


class NodeErrorCode(IntEnum):
    """Errors of the node's own in error frames."""

    BUSY = 16
    BAD_REQUEST = 17
    NO_SUCH_DRIVE = 18
    TERM_IS_OVER = 19


ShardTuple = tuple[bytes, bytes, int]
"""Drive, blob, index."""
PutMessage = list[PutShard]
OpenMessage = list[ShardTuple]
AppendMessage = tuple[bytes, int]
CommitMessage = list[tuple[bytes, int, bytes, int]]
"""Drive, token, envelope, length."""
AbortMessage = list[tuple[bytes, int]]
GetMessage = list[tuple[bytes, bytes, int, int, int]]
"""Drive, blob, index, offset, length."""
LocateMessage = list[bytes]
StatMessage = tuple[list[ShardTuple], bool]
DeleteMessage = list[ShardTuple]
DeleteSurplusMessage = tuple[int, list[ShardTuple]]
"""The term, and what to delete."""
ListMessage = tuple[bytes, bytes, int, int]
"""Drive, blob ("" from the start), index, limit."""

InfoTuple = tuple[bytes, bytes, int, int, bytes, float]
"""Drive, blob, index, length, envelope, age in seconds."""
ReportsMessage = int | None
REPORTS_WITH_LOAD = 1
"""Who asks for reports knows their field `busy`. None: only those before it."""


class ReportMessage(msgspec.Struct, array_like=True, gc=False):
    """A drive's report as told. Fields are added at the end; who asks says which it knows."""

    drive: bytes
    path: str
    condition: str
    capacity_bytes: int
    free_bytes: int
    shards: int
    quarantined: int
    errors: int
    reason: str
    busy: float = 0.0


T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
OUTCOMES = tuple(sorted(Outcome, key=lambda outcome: outcome.value))
_OUTCOME_BYTES = {outcome: outcome.value for outcome in Outcome}
_STORED = Outcome.STORED
_ALL_STORED = tuple(_VERSION_BYTE + bytes([Outcome.STORED.value]) * count for count in range(49))
"""What nearly every put is answered, by the number of shards."""


def encode(message: Any) -> bytes:
    """Version byte, then MessagePack."""
    return _VERSION_BYTE + _encoder.encode(message)


class Reader(Generic[T]):
    """Reads one type of message."""

    def __init__(self, message_type: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(message_type)

    def __call__(self, data: Buffer) -> T:
        """Raises ProtocolError for anything else than such a message of this version."""
        if not data or data[0] != MESSAGE_VERSION:
            raise ProtocolError("unknown version of a node message")
        try:
            return self._decoder.decode(memoryview(data)[1:])
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"not a message of this verb: {error}") from None


def bounded(messages: list[T]) -> list[T]:
    """The list, if it is none too long for one message. Raises ValueError."""
    if len(messages) > BATCH_COUNT_MAX:
        raise ValueError("too many shards in one message")
    return messages


def encode_outcomes(outcomes: "list[Outcome] | tuple[Outcome, ...]") -> bytes:
    """One byte each, after the version."""
    count = len(outcomes)
    if count < len(_ALL_STORED) and outcomes.count(_STORED) == count:
        return _ALL_STORED[count]
    values = _OUTCOME_BYTES
    return bytes([MESSAGE_VERSION, *[values[outcome] for outcome in outcomes]])


def decode_outcomes(data: Buffer, count: int) -> tuple[Outcome, ...]:
    """Raises ProtocolError unless these are so many outcomes."""
    if count < len(_ALL_STORED) and data == _ALL_STORED[count]:
        return (_STORED,) * count
    if len(data) != count + 1 or data[0] != MESSAGE_VERSION:
        raise ProtocolError("not the outcomes that were asked for")
    try:
        return tuple([OUTCOMES[value] for value in data[1:]])
    except IndexError:
        raise ProtocolError("an unknown outcome") from None


def info_to_wire(info: ShardInfo) -> InfoTuple:
    """For `locate`, `stat`, `list`."""
    return (
        info.drive,
        info.shard.blob,
        info.shard.index,
        info.length,
        info.envelope,
        info.age_seconds,
    )


def info_from_wire(fields: InfoTuple) -> ShardInfo:
    """The other way."""
    drive, blob, index, length, envelope, age = fields
    return ShardInfo(DriveId(drive), ShardId(BlobId(blob), index), length, envelope, age)


def info_or_outcome_to_wire(value: ShardInfo | Outcome) -> InfoTuple | int:
    """An outcome travels as its number."""
    return value.value if isinstance(value, Outcome) else info_to_wire(value)


def info_or_outcome_from_wire(value: InfoTuple | int) -> ShardInfo | Outcome:
    """The other way."""
    return outcome_from_wire(value) if isinstance(value, int) else info_from_wire(value)


def outcome_from_wire(value: int) -> Outcome:
    """Raises ProtocolError for an unknown number."""
    if not 0 <= value < len(OUTCOMES):
        raise ProtocolError("an unknown outcome")
    return OUTCOMES[value]


def staged_to_wire(value: StagedShard | Outcome) -> tuple[int, str] | int:
    """Token and path, or the number of an outcome."""
    return value.value if isinstance(value, Outcome) else (value.token, value.path)


def report_to_wire(report: DriveReport, *, with_load: bool) -> tuple[object, ...]:
    """For `reports`."""
    fields = (
        report.drive,
        report.path,
        report.condition.value,
        report.capacity_bytes,
        report.free_bytes,
        report.shards,
        report.quarantined,
        report.errors,
        report.reason,
    )
    return (*fields, report.busy) if with_load else fields


def report_from_wire(message: ReportMessage) -> DriveReport:
    """Raises ProtocolError for a condition this code does not know."""
    try:
        known = DriveCondition(message.condition)
    except ValueError:
        raise ProtocolError(f"unknown condition of a drive: {message.condition}") from None
    return DriveReport(
        DriveId(message.drive),
        message.path,
        known,
        message.capacity_bytes,
        message.free_bytes,
        message.shards,
        message.quarantined,
        message.errors,
        message.reason,
        message.busy,
    )
