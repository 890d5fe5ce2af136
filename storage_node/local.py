"""A node on the same host: small shards and files are read directly, everything else is asked for.

A shard of a segment is found by a read-only connection to its drive's index and read by a kept
descriptor; a large one by its file. What is not found so, or looks odd in any way, is left to the
wire: the owner knows of shards that are not written back to the index yet, and of drives that went.
What is in memory is read at once, the rest in threads: a slow disk holds up who waits for it only.
Nothing read here is trusted: the reader verifies it as it does everything.
"""

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from placement.ids import DriveId
from placement.rpc.client import RpcClient
from storage_node.apart import Apart
from storage_node.client import NodeClient
from storage_node.fd_cache import FdCache
from storage_node.files import RealFiles
from storage_node.identity import DriveRefused, read_identity
from storage_node.index import Entry, IndexDamaged, decode_entry
from storage_node.layout import INDEX_NAME, SEGMENTS, TMP, file_path
from storage_node.offload import ThreadOffload
from storage_node.port import (
    Buffer,
    DriveCondition,
    DriveReport,
    GetShard,
    Outcome,
    ShardId,
    StagedShard,
)
from storage_node.record import HEADER_SIZE_BYTES, record_start, shard_key
from storage_node.segments import segment_name
from storage_node.uncleared import buffer_of

DRIVE_FILES_MAX = 32
"""Descriptors kept open a drive."""
DIRECT_READ_SIZE_BYTES_MAX = 2 << 20
PLACES_MAX = 4096
"""Shards in segments whose place is remembered, a drive: some 2 MiB."""
_ENVELOPE_SIZE_BYTES_MAX = 4096
"""A longer envelope is not read along with the shard, so its place is not remembered."""
READ_THREADS = 64
"""Of a process; each drive holds at most `apart.CALLS_MAX` of them."""
READS_AT_ONCE = 64
"""Reads of one drive that a thread makes in turn."""
READ_SECONDS = 20.0
"""Reads that take longer: the drive is left to its owner, who judges it."""
_FIND = "SELECT entry FROM shards WHERE key = ?"
_ODD = (OSError, sqlite3.Error, UnicodeDecodeError, IndexDamaged)
_READABLE = (DriveCondition.UP, DriveCondition.FULL)


@dataclass(slots=True)
class DirectReads:
    """Reads of one drive by this process."""

    reads: int = 0
    read_bytes: int = 0
    seconds: float = 0.0

    def add(self, reads: int, read_bytes: int, seconds: float) -> None:
        """Count some that went together."""
        self.reads += reads
        self.read_bytes += read_bytes
        self.seconds += seconds


class _Place(NamedTuple):
    """Where a shard lies in a segment: its record, which begins with `begins_with`, at `offset`, its
    bytes `start` after that."""

    path: str
    offset: int
    start: int
    length: int
    begins_with: bytes


class Span(NamedTuple):
    """Bytes of a file."""

    path: str
    offset: int
    length: int


class _LocalDrive:
    """Read-only eyes on one drive's folder."""

    def __init__(self, root: str, files: RealFiles, counts: DirectReads, apart: Apart) -> None:
        self.root = root
        self.counts = counts
        self.apart = apart
        self._files = files
        self._fds = FdCache(files, DRIVE_FILES_MAX)
        self._places: dict[bytes, _Place] = {}
        self._paths: dict[int, str] = {}
        self._index: sqlite3.Connection | None = sqlite3.connect(
            f"file:{root}/{INDEX_NAME}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=0.05,
        )

    def read(self, shard: ShardId, offset: int, length: int) -> Buffer | None:
        """The bytes if they are in memory. None: ask elsewhere. Raises OSError, sqlite3.Error."""
        span = self.find(shard, offset, length)
        if span is None:
            return None
        path, at, length = span
        return self._files.pread_now(self._fds.get(path), length, at)

    def find(self, shard: ShardId, offset: int, length: int) -> Span | None:
        """Where the bytes lie, or None when the owner should be asked. Raises sqlite3.Error."""
        if self._index is None:
            return None
        key = shard_key(shard.blob, shard.index)
        row = self._index.execute(_FIND, (key,)).fetchone()
        if row is None:
            return None
        entry = decode_entry(row[0])
        if offset + length > entry.length:
            length = max(0, entry.length - offset)
        if not entry.segment:
            return Span(file_path(self.root, shard), offset, length)
        path = self._segment_path(entry.segment)
        self._remember(key, path, entry)
        at = entry.offset + HEADER_SIZE_BYTES + entry.envelope_length + offset
        return Span(path, at, length)

    def read_span(self, span: Span, buffer: bytearray | memoryview) -> Buffer | None:
        """The bytes, from the disk if need be, into that buffer: in a thread. None: the owner should
        be asked. Raises OSError."""
        try:
            fd = self._files.open(span.path, os.O_RDONLY)
        except FileNotFoundError:  # deleted, compacted, or the folder is gone
            return None
        try:
            got = self._files.pread_into(fd, buffer, span.offset)
        finally:
            self._files.close(fd)
        return buffer if got == span.length else None

    def read_again(self, shard: ShardId, length: int) -> Buffer | None:
        """The first bytes of a shard from where `find` found it before, if it is still there and in
        memory. Raises OSError.

        Segments are compacted, and their numbers may come again: so the record is read from its
        beginning, which names the shard. A shard that was damaged there and lies elsewhere since is
        found by `read`, to which the reader comes when bytes fail their checksum.
        """
        key = shard_key(shard.blob, shard.index)
        place = self._places.get(key)
        if place is None:
            return None
        path, offset, start, shard_length, begins_with = place
        size = start + min(length, shard_length)
        try:
            data = self._files.pread_now(self._fds.get(path), size, offset)
        except FileNotFoundError:
            data = b""
        if data is None:
            return None
        view = memoryview(data)
        if bytes(view[: len(begins_with)]) == begins_with:
            return view[start:]
        del self._places[key]
        self._fds.drop(path)
        return None

    def _remember(self, key: bytes, path: str, entry: Entry) -> None:
        if entry.envelope_length > _ENVELOPE_SIZE_BYTES_MAX:
            return
        places = self._places
        if len(places) >= PLACES_MAX:
            del places[next(iter(places))]
        start = HEADER_SIZE_BYTES + entry.envelope_length
        begins_with = record_start(entry.segment, entry.offset, key, entry.envelope_length)
        places[key] = _Place(path, entry.offset, start, entry.length, begins_with)

    def _segment_path(self, segment: int) -> str:
        path = self._paths.get(segment)
        if path is None:
            if len(self._paths) >= PLACES_MAX:
                self._paths.clear()
            path = f"{self.root}/{SEGMENTS}/{segment_name(segment)}"
            self._paths[segment] = path
        return path

    def close(self) -> None:
        """Give connection and descriptors back."""
        self._fds.close()
        index, self._index = self._index, None
        if index is not None:
            index.close()


class LocalNodeClient(NodeClient):
    """NodePort for gateways on the node's own host."""

    def __init__(self, rpc: RpcClient) -> None:
        super().__init__(rpc)
        self._files = RealFiles()
        self._threads = ThreadOffload(READ_THREADS, waits=False)
        self._drives: dict[DriveId, _LocalDrive] = {}
        self._refresh_wanted = True
        self.direct_reads: dict[DriveId, DirectReads] = {}
        """What was read without the owner, by drive."""

    def get_now(self, reads: Sequence[GetShard]) -> tuple[Buffer | None, ...]:
        """What can be read without waiting; None: ask with `get`. Never raises."""
        return tuple([self._read_now(read) for read in reads])

    async def get(self, reads: Sequence[GetShard]) -> tuple[Buffer | Outcome, ...]:
        """See NodePort."""
        if self._refresh_wanted:
            await self.reports()
        by_drive: dict[DriveId, list[int]] = {}
        for position, read in enumerate(reads):
            if read.length <= DIRECT_READ_SIZE_BYTES_MAX and read.drive in self._drives:
                by_drive.setdefault(read.drive, []).append(position)
        parts = [
            (drive_id, positions[start : start + READS_AT_ONCE])
            for drive_id, positions in by_drive.items()
            for start in range(0, len(positions), READS_AT_ONCE)
        ]
        found = await asyncio.gather(
            *[self._read_apart(drive_id, [reads[p] for p in part]) for drive_id, part in parts]
        )
        results: list[Any] = [None] * len(reads)
        for (_, part), one in zip(parts, found, strict=True):
            for position, data in zip(part, one, strict=True):
                results[position] = data
        left = [position for position, result in enumerate(results) if result is None]
        if left:
            answers = await super().get([reads[position] for position in left])
            for position, answer in zip(left, answers, strict=True):
                results[position] = answer
        return tuple(results)

    def _read_now(self, read: GetShard) -> Buffer | None:
        drive = self._drives.get(read.drive)
        if drive is None:
            self._refresh_wanted = True
            return None
        began = monotonic()
        data: Buffer | None = None
        try:
            if not read.offset:
                data = drive.read_again(read.shard, read.length)
            if data is None:
                data = drive.read(read.shard, read.offset, read.length)
        except FileNotFoundError:  # deleted, compacted, or the folder is gone: the owner knows
            return None
        except _ODD:
            self._give_up(read.drive, drive)
            return None
        if data is not None:
            drive.counts.add(1, len(data), monotonic() - began)
        return data

    async def _read_apart(
        self, drive_id: DriveId, reads: Sequence[GetShard]
    ) -> Sequence[Buffer | None]:
        """One thread reads them in turn."""
        drive = self._drives.get(drive_id)
        if drive is None:  # given up meanwhile
            return [None] * len(reads)
        began = monotonic()
        try:
            spans = [drive.find(read.shard, read.offset, read.length) for read in reads]

            # Made here: what threads allocate lies in an arena of theirs, which keeps what others free.
            places = [None if span is None else (span, buffer_of(span.length)) for span in spans]

            def work() -> list[Buffer | None]:
                return [None if place is None else drive.read_span(*place) for place in places]

            found = await drive.apart("a read", work)
        except _ODD:
            self._give_up(drive_id, drive)
            return [None] * len(reads)
        sizes = [len(data) for data in found if data is not None]
        drive.counts.add(len(sizes), sum(sizes), monotonic() - began)
        return found

    def _give_up(self, drive_id: DriveId, drive: _LocalDrive) -> None:
        """Leave this drive to its owner until its next report."""
        if self._drives.get(drive_id) is drive:
            self._drop(drive_id)
        self._refresh_wanted = True

    async def reports(self) -> tuple[DriveReport, ...]:
        """See NodePort. Also where this client learns where drives lie."""
        reports = await super().reports()
        self._refresh_wanted = False
        readable = {r.drive: r.path for r in reports if r.condition in _READABLE}
        for drive_id, drive in list(self._drives.items()):
            if readable.get(drive_id) != drive.root:
                self._drop(drive_id)
        for drive_id, path in readable.items():
            if drive_id not in self._drives and self._is_here(drive_id, path):
                try:
                    counts = self.direct_reads.setdefault(drive_id, DirectReads())
                    # A read that is late raises, and is dealt with where it does.
                    apart = Apart(self._threads, lambda _: None, READ_SECONDS)
                    self._drives[drive_id] = _LocalDrive(path, self._files, counts, apart)
                except sqlite3.Error:  # not on this host, or just going
                    continue
        return reports

    def _is_here(self, drive_id: DriveId, path: str) -> bool:
        """Whether that folder is this drive. On one machine there is no other."""
        return True

    def _drop(self, drive_id: DriveId) -> None:
        self._drives.pop(drive_id).close()

    async def close(self) -> None:
        """See NodePort."""
        for drive_id in list(self._drives):
            self._drop(drive_id)
        self._threads.close()
        await super().close()


class SameHostNodeClient(LocalNodeClient):
    """NodePort over TCP for a process that runs under the node's own kernel, though maybe in another
    container or as another user: only drives whose folder is there, bears the drive's identity and
    can be written are reached by their files, the others over the wire."""

    async def open(
        self, shards: Sequence[tuple[DriveId, ShardId]], *, background: bool = False
    ) -> tuple[StagedShard | Outcome, ...]:
        """See NodePort."""
        return tuple(
            [
                msgspec.structs.replace(opened, path="")
                if isinstance(opened, StagedShard) and opened.drive not in self._drives
                else opened
                for opened in await super().open(shards, background=background)
            ]
        )

    def _is_here(self, drive_id: DriveId, path: str) -> bool:
        try:
            identity = read_identity(self._files, path)
        except (OSError, DriveRefused):
            return False
        return (
            identity is not None
            and identity.drive == drive_id
            and os.access(f"{path}/{TMP}", os.W_OK | os.X_OK)
        )
