"""Compaction: a sealed segment that is mostly dead gives its live records to the active one.

Deletes are kept as long as a segment lies on the drive that may hold what they delete, so that an
index made anew does not bring it back.
"""

import asyncio
import logging
import os

import xxhash

from storage_node.committer import Committer, NodeBusy, Part, Ticket
from storage_node.drive import Drive
from storage_node.index import Index, decode_entry
from storage_node.layout import SEGMENTS
from storage_node.offload import Offload
from storage_node.port import Outcome
from storage_node.record import (
    HEADER_SIZE_BYTES,
    SEGMENT_HEADER_SIZE_BYTES,
    RecordKind,
    ScannedRecord,
    scan_segment,
)
from storage_node.segments import segment_name

log = logging.getLogger(__name__)

_CHUNK_SIZE_BYTES = 2 << 20
_MISPLACED = (Outcome.STORED, Outcome.DONE, Outcome.MISSING)


async def compact_one(drive: Drive, committer: Committer, offload: Offload) -> bool:
    """Compact one segment of the drive, if one is worth it; whether one was."""
    if drive.failed or drive.recovering:
        return False
    for segment, facts in drive.sealed_segments():
        data_size = facts.scanned - SEGMENT_HEADER_SIZE_BYTES
        if facts.dead_bytes >= 0 and facts.dead_bytes * 2 > data_size:
            try:
                return await _compact(drive, committer, offload, segment, facts.scanned)
            except NodeBusy:
                return False  # clients come first
            except OSError as error:
                drive.failed_by(error)
                return False
    return False


async def _compact(
    drive: Drive, committer: Committer, offload: Offload, segment: int, end: int
) -> bool:
    files = drive.files
    path = f"{drive.root}/{SEGMENTS}/{segment_name(segment)}"
    fd = await drive.apart(
        "opening a segment", lambda: files.open(path, os.O_RDONLY), drive.close_apart
    )
    try:
        records = await offload(
            lambda: list(scan_segment(files, fd, segment, SEGMENT_HEADER_SIZE_BYTES, end))
        )
        oldest = min(drive.facts)
        wanted: list[tuple[ScannedRecord, bytes | None]] = []
        size = 0
        for record in records:
            keep, expected = _is_wanted(drive.index, record, segment, oldest)
            if not keep:
                continue
            wanted.append((record, expected))
            size += record.size_bytes
            if size >= _CHUNK_SIZE_BYTES:
                if not await _copy(drive, committer, offload, fd, wanted):
                    return False
                wanted, size = [], 0
        if wanted and not await _copy(drive, committer, offload, fd, wanted):
            return False
    finally:
        drive.close_apart(fd)
    drive.condemn_segment(segment)
    await drive.write_back()
    if drive.failed:
        return False
    await offload(lambda: files.unlink(path))
    drive.drop_segment(segment)
    log.info("segment %d of %s was compacted", segment, drive.root)
    return True


def _is_wanted(
    index: Index, record: ScannedRecord, segment: int, oldest: int
) -> tuple[bool, bytes | None]:
    """Whether a record must live on, and (of a shard) the index entry that says so."""
    if record.kind == RecordKind.PUT:
        data = index.find(record.key)
        if data is None:
            return False, None
        entry = decode_entry(data)
        return (entry.segment, entry.offset) == (segment, record.offset), data
    if record.kind == RecordKind.TOMBSTONE:
        # What it deletes lay in its target; older segments may hold earlier copies.
        needed = oldest <= record.target[0] and oldest < segment
        return needed and index.find(record.key) is None, None
    if record.kind in (RecordKind.DAMAGED, RecordKind.MARK):
        return record.key in index.damaged, None
    return False, None


async def _copy(
    drive: Drive,
    committer: Committer,
    offload: Offload,
    fd: int,
    wanted: list[tuple[ScannedRecord, bytes | None]],
) -> bool:
    """Append copies of records and wait until they are durable and in the index."""
    files = drive.files
    bodies = await offload(
        lambda: [files.pread(fd, record.size_bytes, record.offset) for record, _ in wanted]
    )
    settled: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
    ticket = Ticket(len(wanted), lambda o: None if settled.done() else settled.set_result(o))
    parts = []
    for number, ((record, expected), body) in enumerate(zip(wanted, bodies, strict=True)):
        at = HEADER_SIZE_BYTES + record.envelope_length
        payload = body[at : at + record.payload_length]
        parts.append(
            Part(
                drive,
                RecordKind.MARK if record.kind == RecordKind.DAMAGED else record.kind,
                record.key,
                ticket,
                number,
                record.size_bytes,
                envelope=body[HEADER_SIZE_BYTES:at],
                payload=payload,
                checksum=xxhash.xxh3_64_intdigest(payload),
                target=record.target,
                expected=expected if expected is not None else b"",
            )
        )
    committer.submit(parts)
    return all(outcome in _MISPLACED for outcome in await settled)
