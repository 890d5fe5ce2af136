"""Records of a segment: their bytes, and how they are found again in a file that may be torn.

A segment is a file header and then records, each padded to 8 bytes:

    magic 4 · version 1 · kind 1 · shard index 2 · segment 4 · offset 4 · blob 16
    envelope length 4 · payload length 4 · target segment 4 · target offset 4 · payload xxh3 8 · header xxh3 8
    envelope · payload · padding

The header's checksum covers the header (the payload's checksum among it) and the envelope. As it
covers segment and offset too, bytes left over from another life of that place are never taken.
All numbers are little-endian.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import xxhash

from placement.ids import BlobId, DriveId
from storage_node.files import FileLayer
from storage_node.port import SEGMENT_SHARD_SIZE_BYTES_MAX, Buffer, ShardId
from storage_node.shard import ENVELOPE_SIZE_BYTES_MAX

MAGIC = b"\xa7OsR"
RECORD_VERSION = 1
_HEAD = struct.Struct("<4sBBHII16sIIIIQ")
HEADER_SIZE_BYTES = _HEAD.size + 8
_HEADER = struct.Struct("<4sBBHII16sIIIIQQ")
_START = struct.Struct("<4sBBHII16sI")
FILE_FACTS = struct.Struct("<QI")
ALIGNMENT = 8
RECORD_SIZE_BYTES_MAX = HEADER_SIZE_BYTES + ENVELOPE_SIZE_BYTES_MAX + SEGMENT_SHARD_SIZE_BYTES_MAX

SEGMENT_HEADER_SIZE_BYTES = 64
_SEGMENT_HEADER = struct.Struct("<8sI4x16sI20xQ")
_SEGMENT_MAGIC = b"OSTRAKAs"

_WINDOW_SIZE_BYTES = 4 << 20
PADDING = tuple(bytes(n) for n in range(ALIGNMENT))

_checksum = xxhash.xxh3_64_intdigest


class RecordKind(IntEnum):
    """What a record says of its shard."""

    PUT = 1
    """Here it is."""
    TOMBSTONE = 2
    """It was deleted: what lies at `target` (segment, offset; 0, 0: a file) or before."""
    FILE = 3
    """It is a file of its own; the payload tells its length and its envelope's (FILE_FACTS)."""
    DAMAGED = 4
    """What lies at `target` or before is not to be trusted; to be rebuilt."""
    MARK = 5
    """To be rebuilt, unless it is there (a compacted DAMAGED)."""


class ScannedRecord(NamedTuple):
    """A record found by scanning. `intact` is false when only its payload fails its checksum."""

    kind: RecordKind
    key: bytes
    offset: int
    size_bytes: int
    envelope_length: int
    payload_length: int
    target: tuple[int, int]
    intact: bool


def shard_key(blob: bytes, index: int) -> bytes:
    """17 bytes that order shards by (blob, index)."""
    return blob + index.to_bytes(1, "big")


def shard_of(key: bytes) -> ShardId:
    """The other way."""
    return ShardId(BlobId(key[:16]), key[16])


def record_start(segment: int, offset: int, key: bytes, envelope_length: int) -> bytes:
    """How the record begins that holds that shard at that place."""
    return _START.pack(
        MAGIC, RECORD_VERSION, RecordKind.PUT, key[16], segment, offset, key[:16], envelope_length
    )


def record_size_bytes(envelope_length: int, payload_length: int) -> int:
    """Bytes a record takes in its segment."""
    size = HEADER_SIZE_BYTES + envelope_length + payload_length
    return size + -size % ALIGNMENT


def encode_head(
    kind: int,
    segment: int,
    offset: int,
    key: bytes,
    envelope: bytes,
    payload_length: int,
    payload_checksum: int,
    target: tuple[int, int] = (0, 0),
) -> bytes:
    """Header and envelope of a record; the payload and its padding follow."""
    head = _HEAD.pack(
        MAGIC,
        RECORD_VERSION,
        kind,
        key[16],
        segment,
        offset,
        key[:16],
        len(envelope),
        payload_length,
        target[0],
        target[1],
        payload_checksum,
    )
    return b"".join((head, _checksum(head + envelope).to_bytes(8, "little"), envelope))


def encode_segment_header(drive: DriveId, segment: int) -> bytes:
    """The first 64 bytes of a segment file."""
    head = _SEGMENT_HEADER.pack(_SEGMENT_MAGIC, RECORD_VERSION, drive, segment, 0)[:-8]
    return head + _checksum(head).to_bytes(8, "little")


def decode_segment_header(data: bytes) -> tuple[DriveId, int] | None:
    """Drive and segment id; None when the header is not intact."""
    if len(data) < SEGMENT_HEADER_SIZE_BYTES:
        return None
    magic, version, drive, segment, checksum = _SEGMENT_HEADER.unpack(
        data[:SEGMENT_HEADER_SIZE_BYTES]
    )
    head = data[: SEGMENT_HEADER_SIZE_BYTES - 8]
    if magic != _SEGMENT_MAGIC or version != RECORD_VERSION or _checksum(head) != checksum:
        return None
    return DriveId(drive), segment


def parse_record(view: Buffer, at: int, segment: int, offset: int) -> ScannedRecord | None:
    """The record at view[at:], said to lie at `offset` of `segment`; None when it is none, or when
    the view ends before it does."""
    if at + HEADER_SIZE_BYTES > len(view):
        return None
    (
        magic,
        version,
        kind,
        index,
        its_segment,
        its_offset,
        blob,
        envelope_length,
        payload_length,
        target_segment,
        target_offset,
        payload_checksum,
        checksum,
    ) = _HEADER.unpack_from(view, at)
    if magic != MAGIC or version != RECORD_VERSION or its_segment != segment:
        return None
    if its_offset != offset or envelope_length > ENVELOPE_SIZE_BYTES_MAX:
        return None
    if payload_length > SEGMENT_SHARD_SIZE_BYTES_MAX or not 1 <= kind <= 5 or index > 255:
        return None
    size = record_size_bytes(envelope_length, payload_length)
    if at + size > len(view):
        return None
    payload_at = at + HEADER_SIZE_BYTES + envelope_length
    head = bytes(view[at : at + _HEAD.size])
    if _checksum(head + view[at + HEADER_SIZE_BYTES : payload_at]) != checksum:
        return None
    intact = _checksum(view[payload_at : payload_at + payload_length]) == payload_checksum
    return ScannedRecord(
        RecordKind(kind),
        shard_key(blob, index),
        offset,
        size,
        envelope_length,
        payload_length,
        (target_segment, target_offset),
        intact,
    )


def scan_segment(
    files: FileLayer, fd: int, segment: int, start: int, end: int
) -> Iterator[ScannedRecord]:
    """Every record between two offsets, in order; what is torn or damaged is skipped."""
    position = start + -start % ALIGNMENT
    window = memoryview(b"")
    raw = b""
    base = position
    while position + HEADER_SIZE_BYTES <= end:
        at = position - base
        # A window must hold any record whole, or end where the segment does.
        if at + RECORD_SIZE_BYTES_MAX > len(window) and base + len(window) < end:
            wanted = min(_WINDOW_SIZE_BYTES, end - position)
            raw = files.pread(fd, wanted, position)
            if len(raw) < wanted:
                end = position + len(raw)
            window, base, at = memoryview(raw), position, 0
        record = parse_record(window, at, segment, position)
        if record is not None:
            yield record
            position += record.size_bytes
            continue
        found = _next_magic(raw, at + ALIGNMENT)
        position = base + found if found >= 0 else max(position + ALIGNMENT, _resume(base, raw))


def _next_magic(raw: bytes, at: int) -> int:
    """Where the next aligned magic stands in the window; -1 for nowhere."""
    found = raw.find(MAGIC, at)
    while found >= 0 and found % ALIGNMENT:
        found = raw.find(MAGIC, found + 1)
    return found


def _resume(base: int, raw: bytes) -> int:
    """Where to go on after a window without a magic: its last aligned place, which a magic may
    straddle."""
    end = base + len(raw)
    return end - end % ALIGNMENT
