"""Opening a drive: is its index to be trusted, what came after it, and rebuilding it.

The index is trusted when its process closed it cleanly (`index.clean` says so), or when the machine
has not been booted since (then all that any process wrote is still there, flushed or not). What the
segments hold beyond the index is read and entered. Otherwise the index is made anew from segments
and files, while the drive already takes writes.
"""

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from storage_node.drive import Drive
from storage_node.files import FileLayer, exists, fsync_directory
from storage_node.index import (
    CONDEMNED,
    GONE,
    Index,
    IndexDamaged,
    SegmentFacts,
    decode_entry,
    encode_entry,
)
from storage_node.layout import (
    CLEAN_MARKER_NAME,
    FILES,
    INDEX_NAME,
    QUARANTINE,
    SEGMENTS,
    file_folder,
    file_path,
    parse_file_name,
    quarantine_path,
)
from storage_node.port import ShardId
from storage_node.record import (
    SEGMENT_HEADER_SIZE_BYTES,
    RecordKind,
    ScannedRecord,
    record_size_bytes,
    scan_segment,
    shard_key,
    shard_of,
)
from storage_node.segments import Segment, list_segments, segment_name
from storage_node.shard import FOOTER_SIZE_BYTES, decode_footer, tail_length

log = logging.getLogger(__name__)

_BATCH_COUNT = 20_000
EARLIER_RUN = 0
"""The run that shards of unknown age are said to be from."""


@dataclass(slots=True)
class OpenedIndex:
    """What opening found: the index, where to append, and whether it must be rebuilt first."""

    index: Index
    facts: dict[int, SegmentFacts]
    active: Segment | None
    next_segment: int
    rebuild: bool


def open_index(
    files: FileLayer, root: str, boot_id: str, *, trusted: bool, continue_segment: bool
) -> OpenedIndex:
    """Open the index of a drive and bring it up to date (or make an empty one to be rebuilt).

    Runs in a worker thread. Raises OSError for a drive that cannot be used; one without space to
    bring the index up to date (IndexFull) keeps its index until there is some.
    """
    marker = f"{root}/{CLEAN_MARKER_NAME}"
    clean = exists(files, marker)
    if clean:  # it holds for one opening only, and must not come back after a crash
        files.unlink(marker)
        fsync_directory(files, root)
    path = files.sqlite_path(f"{root}/{INDEX_NAME}")
    segments = list_segments(files, f"{root}/{SEGMENTS}")
    if trusted:
        with contextlib.suppress(IndexDamaged):
            opened = _open_trusted(files, root, path, boot_id, clean, segments, continue_segment)
            if opened is not None:
                return opened
    _remove_index(path)
    try:
        index = Index(path)
    except IndexDamaged as error:
        raise OSError(f"cannot make an index in {root}: {error}") from error
    next_segment = segments[-1] + 1 if segments else 1
    if not segments and not _any_files(files, root):
        index.set_meta("boot", boot_id.encode())
        return OpenedIndex(index, {}, None, next_segment, rebuild=False)
    return OpenedIndex(index, {}, None, next_segment, rebuild=True)


def _open_trusted(
    files: FileLayer,
    root: str,
    path: str,
    boot_id: str,
    clean: bool,
    segments: list[int],
    continue_segment: bool,
) -> OpenedIndex | None:
    if not os.path.exists(path):
        return None
    index = Index(path)
    keep = False
    try:
        boot = index.meta("boot")
        if boot is None or not (clean or boot == boot_id.encode() != b""):
            return None
        facts = index.segments()
        _finish_removals(files, root, index, facts, segments)
        if any(segment not in segments for segment in facts):
            return None
        index.set_meta("boot", boot_id.encode())
        active = _replay(files, root, index, facts, segments, continue_segment)
        keep = True
    finally:
        if not keep:
            index.abandon()
    next_segment = segments[-1] + 1 if segments else 1
    return OpenedIndex(index, index.segments(), active, next_segment, rebuild=False)


def _replay(
    files: FileLayer,
    root: str,
    index: Index,
    facts: dict[int, SegmentFacts],
    segments: list[int],
    continue_segment: bool,
) -> Segment | None:
    """Enter what the segments hold beyond the index; the last one may be continued."""
    changes: dict[bytes, bytes] = {}
    marks: dict[bytes, bool] = {}
    had_files: set[bytes] = set()
    active = None
    for segment in segments:
        known = facts.get(segment, SegmentFacts(SEGMENT_HEADER_SIZE_BYTES, 0))
        fd = files.open(f"{root}/{SEGMENTS}/{segment_name(segment)}", os.O_RDWR)
        size = files.fstat(fd).st_size
        end = known.scanned
        for record in scan_segment(files, fd, segment, known.scanned, size):
            _enter(record, segment, changes, marks, index)
            if record.kind != RecordKind.PUT and record.target == (0, 0):
                had_files.add(record.key)
            end = record.offset + record.size_bytes
        if end > known.scanned:
            # Written by a process that died, perhaps before its flush.
            files.fdatasync(fd)
        facts[segment] = SegmentFacts(end, known.dead_bytes)
        if continue_segment and segment == segments[-1] and size > end:
            active = Segment(segment, fd, end, size)
        else:
            if size > end:
                files.ftruncate(fd, end)
            files.close(fd)
    try:
        for key in had_files:
            _settle_file(files, root, key, changes, marks)
        index.write_back(changes, marks, facts)
        index.reload()
    except BaseException:
        if active is not None:
            files.close(active.fd)
        raise
    return active


def _finish_removals(
    files: FileLayer,
    root: str,
    index: Index,
    facts: dict[int, SegmentFacts],
    segments: list[int],
) -> None:
    """Remove segments whose compaction was over but for that."""
    condemned = [s for s, known in facts.items() if known.dead_bytes == CONDEMNED]
    for segment in condemned:
        if segment in segments:
            files.unlink(f"{root}/{SEGMENTS}/{segment_name(segment)}")
            segments.remove(segment)
        del facts[segment]
    index.write_back({}, {}, {}, condemned)


def _enter(
    record: ScannedRecord,
    segment: int,
    changes: dict[bytes, bytes],
    marks: dict[bytes, bool],
    index: Index,
) -> None:
    """What a record found in a segment means for the index."""
    key = record.key
    if not record.intact or record.kind == RecordKind.MARK:
        # Torn or decayed. An earlier good record of the shard, if there is one, still counts.
        if not changes.get(key) and index.find_stored(key) is None:
            marks[key] = True
        return
    if record.kind in (RecordKind.TOMBSTONE, RecordKind.DAMAGED):
        known = changes.get(key)
        if known is None:
            known = index.find_stored(key)
        if known and decode_entry(known)[:2] > record.target:
            return  # it was stored again; this is a late copy of an earlier delete
    marks[key] = record.kind == RecordKind.DAMAGED
    if record.kind == RecordKind.PUT:
        changes[key] = encode_entry(
            segment, record.offset, record.envelope_length, record.payload_length, EARLIER_RUN, 0
        )
    elif record.kind == RecordKind.FILE:  # settled from the file itself
        changes[key] = encode_entry(0, 0, 0, 0, EARLIER_RUN, 0)
    else:
        changes[key] = GONE


def _settle_file(
    files: FileLayer,
    root: str,
    key: bytes,
    changes: dict[bytes, bytes],
    marks: dict[bytes, bool],
) -> None:
    """Make index and file of a large shard agree."""
    shard = shard_of(key)
    path = file_path(root, shard)
    change = changes.get(key)
    if change is None:
        return
    if change == GONE:
        with contextlib.suppress(FileNotFoundError):
            if marks.get(key):
                files.rename(path, quarantine_path(root, shard))
            else:
                files.unlink(path)
    elif decode_entry(change).segment == 0:
        entry = read_file_entry(files, path, shard)
        changes[key] = entry if entry is not None else GONE
        # The process may have died between renaming it and flushing its folder.
        fsync_directory(files, file_folder(root, shard))


def read_file_entry(files: FileLayer, path: str, shard: ShardId) -> bytes | None:
    """The index entry of a shard's file, from its footer; None when it is no whole shard."""
    try:
        fd = files.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        size = files.fstat(fd).st_size
        fixed = files.pread(fd, FOOTER_SIZE_BYTES, max(0, size - FOOTER_SIZE_BYTES))
        wanted = min(size, tail_length(fixed))
        footer = decode_footer(files.pread(fd, wanted, size - wanted), size)
    finally:
        files.close(fd)
    if footer is None or footer.shard != shard:
        return None
    return encode_entry(0, 0, footer.envelope_length, footer.body_length, EARLIER_RUN, 0)


def rebuild_index(
    drive: Drive, boot_id: str, segments: list[int], stopping: Callable[[], bool]
) -> dict[int, SegmentFacts]:
    """Fill the empty index from segments and files (in a worker thread, the drive taking writes
    into later segments meanwhile). Raises OSError, InterruptedError among them, and IndexDamaged.
    """
    files, root, index = drive.files, drive.root, drive.index
    facts: dict[int, SegmentFacts] = {}
    for segment in segments:
        if stopping():
            raise InterruptedError("the node is stopping")
        fd = files.open(f"{root}/{SEGMENTS}/{segment_name(segment)}", os.O_RDONLY)
        try:
            facts[segment] = SegmentFacts(_rebuild_segment(files, fd, segment, index), 0)
        finally:
            files.close(fd)
    _rebuild_files(files, root, index)
    facts = _count_dead(index, facts)
    index.write_back({}, {}, facts)
    index.set_meta("boot", boot_id.encode())
    return facts


def _rebuild_segment(files: FileLayer, fd: int, segment: int, index: Index) -> int:
    changes: dict[bytes, bytes] = {}
    marks: dict[bytes, bool] = {}
    end = SEGMENT_HEADER_SIZE_BYTES
    size = files.fstat(fd).st_size
    for record in scan_segment(files, fd, segment, SEGMENT_HEADER_SIZE_BYTES, size):
        end = record.offset + record.size_bytes
        if record.kind == RecordKind.FILE:
            continue  # the files themselves are looked at
        _enter(record, segment, changes, marks, index)
        if len(changes) >= _BATCH_COUNT:
            index.write_back(changes, marks, {})
            changes, marks = {}, {}
    index.write_back(changes, marks, {})
    return end


def _rebuild_files(files: FileLayer, root: str, index: Index) -> None:
    marks: dict[bytes, bool] = {}
    for name in files.listdir(f"{root}/{QUARANTINE}"):
        shard = parse_file_name(name)
        if shard is not None:
            marks[shard_key(shard.blob, shard.index)] = True
    index.write_back({}, marks, {})
    for folder in sorted(files.listdir(f"{root}/{FILES}")):
        changes: dict[bytes, bytes] = {}
        for name in files.listdir(f"{root}/{FILES}/{folder}"):
            shard = parse_file_name(name)
            if shard is None:
                log.warning("%s/%s/%s/%s is no shard", root, FILES, folder, name)
                continue
            key = shard_key(shard.blob, shard.index)
            entry = read_file_entry(files, f"{root}/{FILES}/{folder}/{name}", shard)
            if entry is None:
                log.warning("the shard file %s/%s is damaged", folder, name)
                index.write_back({}, {key: True}, {})
            else:
                changes[key] = entry
        index.write_back(changes, dict.fromkeys(changes, False), {})


def _count_dead(index: Index, facts: dict[int, SegmentFacts]) -> dict[int, SegmentFacts]:
    """Dead bytes of each segment: what no entry of the index points to."""
    live = dict.fromkeys(facts, 0)
    after = b""
    while rows := index.after(after, _BATCH_COUNT):
        for _, data in rows:
            entry = decode_entry(data)
            if entry.segment in live:
                size = record_size_bytes(entry.envelope_length, entry.length)
                live[entry.segment] += size
        after = rows[-1][0]
    return {
        segment: SegmentFacts(
            known.scanned, known.scanned - SEGMENT_HEADER_SIZE_BYTES - live[segment]
        )
        for segment, known in facts.items()
    }


def mark_clean(files: FileLayer, root: str) -> None:
    """Say that the index was closed whole. Raises OSError."""
    files.close(files.open(f"{root}/{CLEAN_MARKER_NAME}", os.O_WRONLY | os.O_CREAT))
    fsync_directory(files, root)


def _any_files(files: FileLayer, root: str) -> bool:
    return any(
        files.listdir(f"{root}/{FILES}/{folder}") for folder in files.listdir(f"{root}/{FILES}")
    )


def _remove_index(path: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)


def read_boot_id() -> str:
    """Names this boot of the machine; random where the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as source:
            return source.read().strip()
    except OSError:
        return ""
