"""A node on the same host: small shards and files are read directly, everything else is asked for.

A shard of a segment is found by a read-only connection to its drive's index and read by a kept
descriptor; a large one by its file. What is not found so, or looks odd in any way, is left to the
wire: the owner knows of shards that are not written back to the index yet, and of drives that went.
Nothing read here is trusted: the reader verifies it as it does everything.
"""

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from placement.ids import DriveId
from placement.rpc.client import RpcClient
from storage_node.client import NodeClient
from storage_node.fd_cache import FdCache
from storage_node.files import RealFiles
from storage_node.identity import DriveRefused, read_identity
from storage_node.index import Entry, IndexDamaged, decode_entry
from storage_node.layout import INDEX_NAME, SEGMENTS, TMP, file_path
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

DRIVE_FILES_MAX = 32
"""Descriptors kept open a drive."""
DIRECT_READ_SIZE_BYTES_MAX = 2 << 20
PLACES_MAX = 4096
"""Shards in segments whose place is remembered, a drive: some 2 MiB."""
_ENVELOPE_SIZE_BYTES_MAX = 4096
"""A longer envelope is not read along with the shard, so its place is not remembered."""
REFRESH_SECONDS = 1.0
_FIND = "SELECT entry FROM shards WHERE key = ?"
_READABLE = (DriveCondition.UP, DriveCondition.FULL)


@dataclass(slots=True)
class DirectReads:
    """Reads of one drive by this process."""

    reads: int = 0
    read_bytes: int = 0
    seconds: float = 0.0


class _Place(NamedTuple):
    """Where a shard lies in a segment: its record, which begins with `begins_with`, at `offset`, its
    bytes `start` after that."""

    path: str
    offset: int
    start: int
    length: int
    begins_with: bytes


class _LocalDrive:
    """Read-only eyes on one drive's folder."""

    def __init__(self, root: str, files: RealFiles, counts: DirectReads) -> None:
        self.root = root
        self.counts = counts
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

    def read(self, shard: ShardId, offset: int, length: int) -> bytes | None:
        """The bytes, or None when the owner should be asked. Raises OSError, sqlite3.Error."""
        if self._index is None:
            return None
        key = shard_key(shard.blob, shard.index)
        row = self._index.execute(_FIND, (key,)).fetchone()
        if row is None:
            return None
        entry = decode_entry(row[0])
        if offset + length > entry.length:
            length = max(0, entry.length - offset)
        at = offset
        if entry.segment:
            path = self._segment_path(entry.segment)
            at += entry.offset + HEADER_SIZE_BYTES + entry.envelope_length
            self._remember(key, path, entry)
        else:
            path = file_path(self.root, shard)
        data = self._files.pread(self._fds.get(path), length, at)
        return data if len(data) == length else None

    def read_again(self, shard: ShardId, length: int) -> Buffer | None:
        """The first bytes of a shard from where `read` found it before, if it is still there. Raises
        OSError.

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
            data = self._files.pread(self._fds.get(path), size, offset)
        except FileNotFoundError:
            data = b""
        if len(data) == size and data.startswith(begins_with):
            return memoryview(data)[start:]
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
        self._drives: dict[DriveId, _LocalDrive] = {}
        self._refresh_wanted = True
        self.direct_reads: dict[DriveId, DirectReads] = {}
        """What was read without the owner, by drive."""

    def get_now(self, reads: Sequence[GetShard]) -> tuple[Buffer | None, ...]:
        """What can be read without waiting; None: ask with `get`. Never raises."""
        return tuple([self._read(read, again=True) for read in reads])

    async def get(self, reads: Sequence[GetShard]) -> tuple[Buffer | Outcome, ...]:
        """See NodePort."""
        if self._refresh_wanted:
            await self.reports()
        results: list[Any] = [
            self._read(read) if read.length <= DIRECT_READ_SIZE_BYTES_MAX else None
            for read in reads
        ]
        left = [position for position, result in enumerate(results) if result is None]
        if left:
            answers = await super().get([reads[position] for position in left])
            for position, answer in zip(left, answers, strict=True):
                results[position] = answer
        return tuple(results)

    def _read(self, read: GetShard, *, again: bool = False) -> Buffer | None:
        """`again`: from where the shard was before, if it was read before."""
        drive = self._drives.get(read.drive)
        if drive is None:
            self._refresh_wanted = True
            return None
        began = monotonic()
        data: Buffer | None = None
        try:
            if again and not read.offset:
                data = drive.read_again(read.shard, read.length)
            if data is None:
                data = drive.read(read.shard, read.offset, read.length)
        except FileNotFoundError:  # deleted, compacted, or the folder is gone: the owner knows
            return None
        except (OSError, sqlite3.Error, UnicodeDecodeError, IndexDamaged):
            self._drop(read.drive)
            self._refresh_wanted = True
            return None
        if data is not None:
            counts = drive.counts
            counts.reads += 1
            counts.read_bytes += len(data)
            counts.seconds += monotonic() - began
        return data

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
                    self._drives[drive_id] = _LocalDrive(path, self._files, counts)
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
