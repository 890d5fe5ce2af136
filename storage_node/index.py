"""A drive's index: where each shard lies. SQLite below, recent changes in memory above.

The index can always be rebuilt from the segments and files, so it is never flushed (`synchronous`
is off); it is trusted only after a clean shutdown or within the same boot of the machine (see
recovery.py). Changes gather in memory and are written in bulk, by one statement that takes all rows
in one blob: SQLite then works without holding up the event loop's thread.

Threads: `write_back` runs in a worker thread, one at a time; everything else in the loop's thread.
"""

import contextlib
import errno
import sqlite3
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

KEY_SIZE_BYTES = 17
_ENTRY = struct.Struct("<IIIQII")
ENTRY_SIZE_BYTES = _ENTRY.size
SCHEMA_VERSION = 1
DAMAGED_COUNT_MAX = 1 << 16
"""Marks kept in memory a drive; further reports wait until some are rebuilt."""

GONE = b""
"""Stands for a deleted shard among the recent changes."""

_UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
"""What a damaged database file makes of a statement; messages may quote its bytes."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shards (key BLOB PRIMARY KEY, entry BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS damaged (key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (
    segment INTEGER PRIMARY KEY, scanned INTEGER NOT NULL, dead_bytes INTEGER NOT NULL
);
"""
# Parameter 1 holds all rows in a row, parameter 2 its length; `n` counts through it.
_ADD = """
WITH RECURSIVE n(at) AS (SELECT 1 UNION ALL SELECT at + 45 FROM n WHERE at + 45 <= ?2)
INSERT OR IGNORE INTO shards (key, entry)
SELECT substr(?1, at, 17), substr(?1, at + 17, 28) FROM n
"""
_REPLACE = _ADD.replace("OR IGNORE", "OR REPLACE")
_DELETE_SHARDS = """
WITH RECURSIVE n(at) AS (SELECT 1 UNION ALL SELECT at + 17 FROM n WHERE at + 17 <= ?2)
DELETE FROM shards WHERE key IN (SELECT substr(?1, at, 17) FROM n)
"""
_DELETE_MARKS = """
WITH RECURSIVE n(at) AS (SELECT 1 UNION ALL SELECT at + 17 FROM n WHERE at + 17 <= ?2)
DELETE FROM damaged WHERE key IN (SELECT substr(?1, at, 17) FROM n)
"""
assert (KEY_SIZE_BYTES, ENTRY_SIZE_BYTES) == (17, 28), "the statements above name the sizes"


CONDEMNED = -1
"""In place of a segment's dead bytes: everything in it was copied, its file is being removed."""


class IndexFull(OSError):
    """There is no space to write to (ENOSPC); the index itself is well, and is kept."""


class IndexDamaged(Exception):
    """SQLite cannot read the index: rebuild it."""


_NO_SPACE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)


def _trouble(error: Exception) -> IndexFull | IndexDamaged:
    """What an error of SQLite says about the index."""
    if getattr(error, "sqlite_errorcode", None) in _NO_SPACE:
        return IndexFull(errno.ENOSPC, str(error))
    return IndexDamaged(str(error))


class Entry(NamedTuple):
    """Where a shard lies: in `segment` (0: a file of its own) the record at `offset`.

    `run` and `stored_seconds` tell its age: seconds since that run of the node began.
    """

    segment: int
    offset: int
    envelope_length: int
    length: int
    run: int
    stored_seconds: int


encode_entry = _ENTRY.pack


def decode_entry(data: bytes) -> Entry:
    """Read a stored entry. Raises IndexDamaged."""
    if len(data) != ENTRY_SIZE_BYTES:
        raise IndexDamaged("an entry has the wrong form")
    return Entry._make(_ENTRY.unpack(data))


class SegmentFacts(NamedTuple):
    """How far a segment's records are in the index, and how much of it is dead."""

    scanned: int
    dead_bytes: int


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-4096")
        connection.execute("PRAGMA wal_autocheckpoint=2000")
        connection.execute("PRAGMA journal_size_limit=16777216")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class Index:
    """Where each shard of a drive lies, and which are damaged."""

    def __init__(self, path: str) -> None:
        """Open or create; raises IndexDamaged and IndexFull."""
        self.path = path
        opened: list[sqlite3.Connection] = []
        try:
            opened.append(_connect(path))
            self._writer = opened[0]
            self._writer.executescript(_SCHEMA)
            opened.append(_connect(path))
            self._reader = opened[1]
            version = self.meta("schema")
            if version is None:
                self.set_meta("schema", bytes([SCHEMA_VERSION]))
            elif version != bytes([SCHEMA_VERSION]):
                raise IndexDamaged("unknown schema of the index")
        except (*_UNREADABLE, IndexDamaged, IndexFull) as error:
            for connection in opened:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
            if isinstance(error, _UNREADABLE):
                raise _trouble(error) from error
            raise
        self.damaged: dict[bytes, None] = {}
        self._stored = 0
        self._stored_change = 0
        self._recent_change = 0
        self._flushing_change = 0
        self._recent: dict[bytes, bytes] = {}
        self._flushing: dict[bytes, bytes] = {}
        self._marks: dict[bytes, bool] = {}
        self.reload()

    def reload(self) -> None:
        """Count and list anew after rows were written behind the memory's back."""
        try:
            self._stored = self._reader.execute("SELECT count(*) FROM shards").fetchone()[0]
            rows = self._reader.execute("SELECT key FROM damaged LIMIT ?", (DAMAGED_COUNT_MAX,))
            self.damaged = dict.fromkeys([key for (key,) in rows])
        except _UNREADABLE as error:
            raise IndexDamaged(str(error)) from error
        for key, marked in self._marks.items():
            if marked:
                self.damaged[key] = None
            else:
                self.damaged.pop(key, None)

    # -- looking up -----------------------------------------------------------------------------

    def find(self, key: bytes) -> bytes | None:
        """The stored entry of a shard; None when there is none. Raises IndexDamaged."""
        entry = self._recent.get(key)
        if entry is None:
            entry = self._flushing.get(key)
            if entry is None:
                return self.find_stored(key)
        return entry or None

    def find_stored(self, key: bytes) -> bytes | None:
        """The same, looking only at what was written back. Any thread may call it."""
        try:
            row = self._reader.execute("SELECT entry FROM shards WHERE key = ?", (key,)).fetchone()
        except _UNREADABLE as error:
            raise IndexDamaged(str(error)) from error
        if row is None:
            return None
        if not isinstance(row[0], bytes) or len(row[0]) != ENTRY_SIZE_BYTES:
            raise IndexDamaged("an entry has the wrong form")
        return row[0]

    def of_blob(self, blob: bytes) -> list[tuple[bytes, bytes]]:
        """(key, entry) of every shard of a blob."""
        try:
            rows: dict[bytes, bytes] = dict(
                self._reader.execute(
                    "SELECT key, entry FROM shards WHERE key >= ? AND key <= ?",
                    (blob, blob + b"\xff"),
                ).fetchall()
            )
        except _UNREADABLE as error:
            raise IndexDamaged(str(error)) from error
        if self._flushing or self._recent:
            for index in range(64):  # schemes are at most 48 wide
                key = blob + bytes((index,))
                recent = self._recent.get(key)
                if recent is None:
                    recent = self._flushing.get(key)
                if recent is not None:
                    rows[key] = recent
        return [(key, rows[key]) for key in sorted(rows) if rows[key]]

    def after(self, key: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """The next (key, entry) in order, as far as they are written back."""
        try:
            return self._reader.execute(
                "SELECT key, entry FROM shards WHERE key > ? ORDER BY key LIMIT ?", (key, limit)
            ).fetchall()
        except _UNREADABLE as error:
            raise IndexDamaged(str(error)) from error

    @property
    def count(self) -> int:
        """Shards present. One that was put again counts twice until it is written back."""
        return max(0, self._stored + self._flushing_change + self._recent_change)

    @property
    def unwritten(self) -> int:
        """Changes that are only in memory yet."""
        return len(self._recent) + len(self._marks)

    # -- changing -------------------------------------------------------------------------------

    def put(self, key: bytes, entry: bytes) -> None:
        """A shard is there (again): that also ends a mark of damage."""
        self._recent[key] = entry
        self._recent_change += 1
        if key in self.damaged:
            self.unmark(key)

    def move(self, key: bytes, entry: bytes) -> None:
        """A shard that is there lies elsewhere now."""
        self._recent[key] = entry

    def remove(self, key: bytes) -> None:
        """A shard is there no longer."""
        self._recent[key] = GONE
        self._recent_change -= 1

    def mark(self, key: bytes) -> None:
        """A shard is to be rebuilt."""
        if len(self.damaged) < DAMAGED_COUNT_MAX and key not in self.damaged:
            self.damaged[key] = None
            self._marks[key] = True

    def unmark(self, key: bytes) -> None:
        """It was rebuilt or deleted."""
        if self.damaged.pop(key, key) is None:
            self._marks[key] = False

    def begin_write_back(self) -> tuple[dict[bytes, bytes], dict[bytes, bool]]:
        """Take the recent changes; they stay visible until `end_write_back`."""
        assert not self._flushing, "one write-back at a time"
        self._flushing, self._recent = self._recent, {}
        self._flushing_change, self._recent_change = self._recent_change, 0
        marks, self._marks = self._marks, {}
        return self._flushing, marks

    def write_back(
        self,
        changes: dict[bytes, bytes],
        marks: dict[bytes, bool],
        segments: dict[int, SegmentFacts],
        dropped_segments: Iterable[int] = (),
    ) -> None:
        """Write changes in one transaction (in a worker thread). Raises IndexDamaged, and IndexFull
        when nothing was written for want of space."""
        stored = b"".join([k + e for k, e in sorted(changes.items()) if e])
        removed = b"".join(sorted(k for k, e in changes.items() if not e))
        unmarked = b"".join(k for k, marked in marks.items() if not marked)
        write = self._writer
        change = 0
        try:
            write.execute("BEGIN IMMEDIATE")
            try:
                if stored:
                    # Nearly always all are new; how many were, the count of shards must know.
                    before = write.total_changes
                    write.execute(_ADD, (stored, len(stored)))
                    added = write.total_changes - before
                    if added * (KEY_SIZE_BYTES + ENTRY_SIZE_BYTES) < len(stored):
                        write.execute(_REPLACE, (stored, len(stored)))
                    change += added
                if removed:
                    before = write.total_changes
                    write.execute(_DELETE_SHARDS, (removed, len(removed)))
                    change -= write.total_changes - before
                if unmarked:
                    write.execute(_DELETE_MARKS, (unmarked, len(unmarked)))
                write.executemany(
                    "INSERT OR REPLACE INTO damaged VALUES (?)",
                    [(k,) for k, marked in marks.items() if marked],
                )
                write.executemany(
                    "INSERT OR REPLACE INTO segments VALUES (?, ?, ?)",
                    [(s, facts.scanned, facts.dead_bytes) for s, facts in segments.items()],
                )
                write.executemany(
                    "DELETE FROM segments WHERE segment = ?", [(s,) for s in dropped_segments]
                )
                write.execute("COMMIT")
            except BaseException:
                if write.in_transaction:
                    write.execute("ROLLBACK")
                raise
        except _UNREADABLE as error:
            raise _trouble(error) from error
        self._stored_change = change

    def take_back(self, marks: dict[bytes, bool]) -> None:
        """What was taken could not be written: it is among the recent changes again."""
        self._recent = {**self._flushing, **self._recent}
        self._marks = {**marks, **self._marks}
        self._recent_change += self._flushing_change
        self._flushing, self._flushing_change = {}, 0

    def end_write_back(self) -> None:
        """What was taken is in the file now."""
        self._flushing = {}
        self._stored += self._stored_change
        self._stored_change = self._flushing_change = 0

    # -- facts ----------------------------------------------------------------------------------

    def segments(self) -> dict[int, SegmentFacts]:
        """What is known of each segment. Raises IndexDamaged."""
        rows = self._run("SELECT segment, scanned, dead_bytes FROM segments")
        return {segment: SegmentFacts(scanned, dead) for segment, scanned, dead in rows}

    def meta(self, name: str) -> bytes | None:
        """A fact about the index itself. Raises IndexDamaged."""
        rows = self._run("SELECT value FROM meta WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def set_meta(self, name: str, value: bytes) -> None:
        """Remember a fact about the index itself, at once. Raises IndexDamaged and IndexFull."""
        self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def _run(self, statement: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        try:
            return self._writer.execute(statement, parameters).fetchall()
        except _UNREADABLE as error:
            raise _trouble(error) from error

    def close(self) -> None:
        """Checkpoint and close, durably: what was written back is on stable storage then.

        Raises IndexDamaged and IndexFull; it is closed all the same.
        """
        try:
            self._writer.execute("PRAGMA synchronous=FULL")
            self._reader.close()
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except _UNREADABLE as error:
            raise _trouble(error) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close without a checkpoint, whatever state it is in."""
        for connection in (self._reader, self._writer):
            try:
                connection.close()
            except sqlite3.Error:  # the drive is gone: there is nothing to save
                continue
