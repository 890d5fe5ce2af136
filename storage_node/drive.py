"""One drive: its log of segments, its index, its files, and whether it may still be used."""

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from placement.clock import Clock
from placement.ids import DriveId
from storage_node.apart import Apart
from storage_node.committer import Part
from storage_node.fd_cache import FdCache
from storage_node.files import FileLayer, FileStatus
from storage_node.identity import IDENTITY_NAME, DriveIdentity
from storage_node.index import (
    CONDEMNED,
    Entry,
    Index,
    IndexDamaged,
    IndexFull,
    SegmentFacts,
    decode_entry,
    encode_entry,
)
from storage_node.layout import SEGMENTS, file_path, quarantine_path
from storage_node.offload import Offload
from storage_node.port import Buffer, DriveCondition, Outcome, ShardId
from storage_node.record import (
    FILE_FACTS,
    HEADER_SIZE_BYTES,
    RecordKind,
    record_size_bytes,
    shard_of,
)
from storage_node.segments import SegmentLog, segment_name

log = logging.getLogger(__name__)

WRITE_BACK_COUNT = 4096
WRITE_BACK_SECONDS = 0.5
UNWRITTEN_COUNT_MAX = 200_000
"""Changes an index may hold in memory (while it is being rebuilt); then the drive counts as full."""
OPEN_FILES_MAX = 64
INLINE_READ_SIZE_BYTES_MAX = 256 << 10
"""Reads up to this size are done in the loop's thread if the page cache has them: that is shorter
than a hop."""


_NO_FACTS = SegmentFacts(0, 0)


@dataclass(slots=True)
class DriveCounters:
    """What a drive did since it was opened; read by the `stats` verb. Puts and deletes take as long
    as the group they were part of; a flush is one of a group's."""

    puts: int = 0
    put_seconds: float = 0.0
    gets: int = 0
    get_seconds: float = 0.0
    commits: int = 0
    commit_seconds: float = 0.0
    deletes: int = 0
    delete_seconds: float = 0.0
    flushes: int = 0
    flush_seconds: float = 0.0
    commit_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    groups: int = 0
    errors: int = 0
    write_backs: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """One life of the node process, by which ages of shards are told."""

    token: int
    began: float


class Drive:
    """A drive in use. All methods belong to the loop's thread unless they say otherwise."""

    def __init__(
        self,
        *,
        files: FileLayer,
        root: str,
        identity: DriveIdentity,
        identity_status: FileStatus,
        index: Index,
        segment_log: SegmentLog,
        facts: dict[int, SegmentFacts],
        recovering: bool,
        offload: Offload,
        clock: Clock,
        run: Run,
        call_seconds: float,
    ) -> None:
        self.id: DriveId = identity.drive
        self.identity = identity
        self.root = root
        self.files = files
        self.index = index
        self.log = segment_log
        self.facts = facts
        self.counters = DriveCounters()
        self.recovering = recovering
        self.failed = False
        self.full = False
        self.index_damaged = False
        self.reason = ""
        self.on_failed: Callable[[Drive], None] = lambda drive: None
        self._identity_path = f"{root}/{IDENTITY_NAME}"
        self._identity_place = (identity_status.st_dev, identity_status.st_ino)
        self._offload = offload
        self._clock = clock
        self._run = run
        self.apart = Apart(offload, self.fail, call_seconds)
        self._fds = FdCache(files, OPEN_FILES_MAX, close=self.close_apart)
        self._facts_changed: set[int] = set()
        self._segments_dropped: list[int] = []
        self._removals: dict[str, str | None] = {}
        self._removing: dict[str, str | None] = {}
        self._claimed: set[str] = set()
        self._writing_back: asyncio.Future[None] | None = None
        self._last_write_back = clock.monotonic()
        segment_log.on_sealed = self._sealed

    # -- is it usable ---------------------------------------------------------------------------

    @property
    def condition(self) -> DriveCondition:
        """How the node reports it."""
        if self.failed:
            return DriveCondition.FAILED
        if self.recovering:
            return DriveCondition.RECOVERING
        return DriveCondition.FULL if self.full else DriveCondition.UP

    def fail(self, reason: str) -> None:
        """Drop the drive: nothing is written to or read from it any more."""
        self.counters.errors += 1
        if not self.failed:
            self.failed = True
            self.reason = reason
            log.error("drive %s has failed: %s", self.root, reason)
            self.on_failed(self)

    def failed_by(self, error: OSError) -> Outcome:
        """Take notice of an error of the disk, and say what it means for what was asked."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.filled(str(error))
            return Outcome.DRIVE_FULL
        self.fail(str(error))
        return Outcome.DRIVE_FAILED

    def filled(self, reason: str) -> None:
        """No space: takes no shards until the monitor sees space again."""
        if not self.full:
            self.full = True
            self.reason = reason
            log.warning("drive %s is full: %s", self.root, reason)

    def prove(self) -> bool:
        """Whether the drive is still itself: its identity file is the same one, its segment still
        has a name. Otherwise it has failed. It asks the disk: only for a drive that has just
        answered a flush."""
        try:
            return self._proven_by(self.files.stat(self._identity_path))
        except OSError as error:
            self.fail(f"the folder is gone: {error}")
        return False

    async def prove_apart(self) -> bool:
        """The same of a drive that may be stuck."""
        try:
            path = self._identity_path
            return self._proven_by(
                await self.apart("a look at its identity", lambda: self.files.stat(path))
            )
        except OSError as error:
            self.fail(f"the folder is gone: {error}")
        return False

    def _proven_by(self, status: FileStatus) -> bool:
        active = self.log.active
        try:
            if (status.st_dev, status.st_ino) != self._identity_place:
                self.fail("the folder was replaced by another")
            elif active is not None and self.files.fstat(active.fd).st_nlink == 0:
                self.fail("its open segment was removed")
        except OSError as error:
            self.fail(f"its open segment is gone: {error}")
        return not self.failed

    def close_apart(self, fd: int) -> None:
        """Close a descriptor, which may wait for the disk when it was the last of a removed file."""
        self.apart.let(lambda: self.files.close(fd))

    def age_seconds(self, entry: Entry) -> float:
        """Since the shard was stored; infinite when an earlier process stored it."""
        if entry.run != self._run.token:
            return float("inf")
        return self._clock.monotonic() - self._run.began - entry.stored_seconds

    # -- looking up and reading -----------------------------------------------------------------

    def find(self, key: bytes) -> Entry | None:
        """Where a shard lies. A damaged index fails the drive, which is then reopened anew."""
        try:
            entry = self.index.find(key)
        except IndexDamaged as error:
            self.index_failed(error)
            return None
        return None if entry is None else decode_entry(entry)

    def index_failed(self, error: IndexDamaged) -> None:
        """The index cannot be read: drop the drive; reopening it rebuilds the index."""
        self.index_damaged = True
        self.fail(f"its index is damaged: {error}")

    def path_of(self, shard: ShardId, entry: Entry) -> str:
        """The file that holds it."""
        if entry.segment:
            return f"{self.root}/{SEGMENTS}/{segment_name(entry.segment)}"
        return file_path(self.root, shard)

    async def read(self, shard: ShardId, entry: Entry, offset: int, length: int) -> Buffer:
        """Bytes of a shard: at once when they are in memory, else by a worker thread.

        Raises OSError; FileNotFoundError when its file is gone.
        """
        at, length = _place_of(entry, offset, length)
        self.counters.gets += 1
        self.counters.read_bytes += length
        return await self._bytes_at(self.path_of(shard, entry), at, length)

    def read_now(self, shard: ShardId, entry: Entry, offset: int, length: int) -> Buffer | None:
        """The same if they are in memory, else None. Raises OSError."""
        at, length = _place_of(entry, offset, length)
        data = self._cached_at(self.path_of(shard, entry), at, length)
        if data is not None:
            self.counters.gets += 1
            self.counters.read_bytes += length
        return data

    async def read_envelope(self, shard: ShardId, entry: Entry) -> bytes:
        """Its envelope. Raises OSError."""
        at = entry.offset + HEADER_SIZE_BYTES if entry.segment else entry.length
        return bytes(await self._bytes_at(self.path_of(shard, entry), at, entry.envelope_length))

    async def _bytes_at(self, path: str, at: int, length: int) -> Buffer:
        cached = self._cached_at(path, at, length)
        if cached is not None:
            return cached
        fds = self._fds
        files, drops = self.files, fds.drops

        def work() -> tuple[int, bytes]:
            fd = files.open(path, os.O_RDONLY)
            try:
                return fd, files.pread(fd, length, at)
            except BaseException:
                files.close(fd)
                raise

        fd, data = await self.apart("a read", work, lambda late: self.close_apart(late[0]))
        if self.failed or fds.drops != drops:  # it may be the file that was there before
            self.close_apart(fd)
        else:
            fds.keep(path, fd)
        return data

    def _cached_at(self, path: str, at: int, length: int) -> Buffer | None:
        if length > INLINE_READ_SIZE_BYTES_MAX:
            return None
        fd = self._fds.known(path)
        return self.files.pread_now(fd, length, at) if fd >= 0 else None

    # -- what the committer calls ---------------------------------------------------------------

    def apply(self, parts: list[Part], seconds: float) -> None:
        """Records are durable (or need not be): enter them into the index and settle. `seconds`:
        what the group took."""
        now = int(self._clock.monotonic() - self._run.began)
        put, stored, token = RecordKind.PUT, Outcome.STORED, self._run.token
        enter = self.index.put
        puts = 0
        for part in parts:
            if part.kind is not put:
                self._apply_other(part, now, seconds)
            elif part.expected is not None:
                self._apply_move(part)
            else:
                entry = encode_entry(
                    part.segment, part.offset, len(part.envelope), len(part.payload), token, now
                )
                enter(part.key, entry)
                puts += 1
                part.ticket.settle(part.position, stored)
        self.counters.puts += puts
        self.counters.put_seconds += puts * seconds
        last = parts[-1]
        self._note(last.segment, scanned=last.offset + last.size_bytes)

    def _apply_other(self, part: Part, now: int, seconds: float) -> None:
        self._note(part.segment, dead=part.size_bytes)
        if part.expected is not None:  # the copy of a delete or mark that was applied long ago
            part.ticket.settle(part.position, Outcome.DONE)
            return
        if part.key in self.index.damaged and part.kind != RecordKind.DAMAGED:
            shard = shard_of(part.key)
            self._removals[quarantine_path(self.root, shard)] = None
        if part.kind == RecordKind.FILE:
            length, envelope_length = FILE_FACTS.unpack(part.payload)
            entry = encode_entry(0, 0, envelope_length, length, self._run.token, now)
            self.index.put(part.key, entry)
            part.ticket.settle(part.position, Outcome.STORED)
            return
        old = self.find(part.key)
        damaged = part.kind == RecordKind.DAMAGED
        if old is not None:
            self._retire(part.key, old, quarantine=damaged)
        if old is not None or self.recovering:  # it may be found there yet
            self.index.remove(part.key)
        if damaged:
            self.index.mark(part.key)
        else:
            self.counters.deletes += 1
            self.counters.delete_seconds += seconds
            self.index.unmark(part.key)
        part.ticket.settle(part.position, Outcome.DONE)

    def _apply_move(self, part: Part) -> None:
        assert part.expected is not None
        old = decode_entry(part.expected)
        try:
            unchanged = self.index.find(part.key) == part.expected
        except IndexDamaged as error:
            self.index_failed(error)
            unchanged = False
        if not unchanged:
            self._note(part.segment, dead=part.size_bytes)
            part.ticket.settle(part.position, Outcome.MISSING)
            return
        moved = old._replace(segment=part.segment, offset=part.offset)
        self.index.move(part.key, encode_entry(*moved))
        part.ticket.settle(part.position, Outcome.STORED)

    def _retire(self, key: bytes, entry: Entry, *, quarantine: bool) -> None:
        """The place of a shard that is no longer wanted."""
        if entry.segment:
            self._note(entry.segment, dead=record_size_bytes(entry.envelope_length, entry.length))
            return
        shard = shard_of(key)
        path = file_path(self.root, shard)
        self._fds.drop(path)
        self._removals[path] = quarantine_path(self.root, shard) if quarantine else None

    def _note(self, segment: int, *, scanned: int = 0, dead: int = 0) -> None:
        known, dead_before = self.facts.get(segment, _NO_FACTS)
        self.facts[segment] = SegmentFacts(max(known, scanned), dead_before + dead)
        self._facts_changed.add(segment)

    def _sealed(self, segment: int, end: int) -> None:
        self._note(segment, scanned=end)

    # -- files ----------------------------------------------------------------------------------

    async def claim_path(self, path: str) -> None:
        """A file is about to be renamed to `path`: no removal of an older one may follow, and none
        of this one comes before `release_path`."""
        self._removals.pop(path, None)
        self._claimed.add(path)
        while path in self._removing and self._writing_back is not None:
            await asyncio.wait([self._writing_back])
        self._fds.drop(path)

    def release_path(self, path: str) -> None:
        """It was renamed, or will not be. What a read opened under that name was the older file."""
        self._claimed.discard(path)
        self._fds.drop(path)

    # -- writing the index back -----------------------------------------------------------------

    @property
    def write_back_due(self) -> bool:
        """Whether enough has gathered, or for long enough."""
        unwritten = self.index.unwritten
        if self.recovering:
            if self.holds_too_much:
                self.filled("its index is being rebuilt and holds no more changes")
            return False
        if unwritten >= WRITE_BACK_COUNT:
            return True
        waited = self._clock.monotonic() - self._last_write_back
        return waited >= WRITE_BACK_SECONDS and bool(unwritten or self._facts_changed)

    @property
    def is_writing_back(self) -> bool:
        """Whether a write-back is under way."""
        return self._writing_back is not None

    async def write_back(self) -> None:
        """Bring the index file up to date, and carry out removals of files."""
        while self._writing_back is not None:
            await asyncio.wait([self._writing_back])
        if self.recovering or self.failed:
            return
        changes, marks = self.index.begin_write_back()
        facts = {s: self.facts[s] for s in self._facts_changed if s in self.facts}
        dropped = self._segments_dropped
        removals, self._removals = self._removals, {}
        for path in self._claimed & removals.keys():
            self._removals[path] = removals.pop(path)
        self._removing = removals
        self._facts_changed, self._segments_dropped = set(), []
        removing = self._removing

        def work() -> None:
            # Removals come first: once the index has forgotten a file nobody would remove it.
            _remove_files(self.files, removing)
            self.index.write_back(changes, marks, facts, dropped)

        self._writing_back = self._offload(work)
        try:
            await self._writing_back
        except IndexFull as error:
            self.index.take_back(marks)
            self._facts_changed.update(facts)
            self._segments_dropped = dropped + self._segments_dropped
            self.filled(str(error))
        except IndexDamaged as error:
            self.index_failed(error)
        except OSError as error:
            self.fail(f"a file could not be removed: {error}")
        finally:
            self._writing_back = None
            self._removing = {}
            self._last_write_back = self._clock.monotonic()
            self.counters.write_backs += 1
            if not self.failed:
                self.index.end_write_back()

    def recovered(self, facts: dict[int, SegmentFacts]) -> None:
        """The index was rebuilt; these are the segments it was rebuilt from."""
        self.facts = {**facts, **self.facts}
        self.recovering = False
        self.index.reload()

    @property
    def holds_too_much(self) -> bool:
        """Whether more changes wait in memory than should."""
        return self.index.unwritten > UNWRITTEN_COUNT_MAX

    def condemn_segment(self, segment: int) -> None:
        """All of a segment was copied: should we die before its file is gone, the next start
        removes it."""
        self.facts[segment] = SegmentFacts(self.facts[segment].scanned, CONDEMNED)
        self._facts_changed.add(segment)

    def drop_segment(self, segment: int) -> None:
        """A compacted segment was removed."""
        self.facts.pop(segment, None)
        self._facts_changed.discard(segment)
        self._segments_dropped.append(segment)
        self._fds.drop(f"{self.root}/{SEGMENTS}/{segment_name(segment)}")

    def sealed_segments(self) -> Iterator[tuple[int, SegmentFacts]]:
        """Segments that are not appended to."""
        active = self.log.active.id if self.log.active is not None else 0
        return ((s, facts) for s, facts in list(self.facts.items()) if s != active)

    async def close(self) -> bool:
        """Write back and close; whether the index is whole on stable storage."""
        while self._writing_back is not None:
            await asyncio.wait([self._writing_back])
        clean = not (self.recovering or self.failed) and await self.prove_apart()
        if clean:
            await self.write_back()
            clean = not self.failed
        await self.log.close()
        self._fds.close()
        if not clean:
            # In a thread: closing the database may wait for a disk that is stuck.
            await self._offload(self.index.abandon)
            return False
        try:
            await self._offload(self.index.close)
        except IndexFull as error:
            self.filled(str(error))
            return False
        except IndexDamaged as error:
            self.index_failed(error)
            return False
        return True


def _remove_files(files: FileLayer, removals: dict[str, str | None]) -> None:
    for path, aside in removals.items():
        try:
            if aside is None:
                files.unlink(path)
            else:
                files.rename(path, aside)
        except FileNotFoundError:
            log.info("%s was gone already", path)


def _place_of(entry: Entry, offset: int, length: int) -> tuple[int, int]:
    """Where in its file bytes of a shard's payload lie, and how many of them there are."""
    length = max(0, min(length, entry.length - offset))
    if entry.segment:
        offset += entry.offset + HEADER_SIZE_BYTES + entry.envelope_length
    return offset, length
