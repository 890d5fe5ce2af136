"""The SQLite file of the embedded metastore: its tables, and its keys as an ordered space.

Format 1: `kv` holds the present keys, `lease` the living leases, `meta` one row about the store.
"""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from placement.errors import MetastoreUnavailable
from placement.metastore.execution import EVERYTHING_AFTER
from placement.metastore.leases import Leases
from placement.metastore.port import OPERATIONS_MAX, KeyValue

FORMAT_VERSION = 1
MIN_READER_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS kv(
    key BLOB PRIMARY KEY NOT NULL,
    value BLOB NOT NULL,
    create_revision INTEGER NOT NULL,
    mod_revision INTEGER NOT NULL,
    version INTEGER NOT NULL,
    lease INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kv_lease ON kv(lease) WHERE lease != 0;
CREATE TABLE IF NOT EXISTS lease(id INTEGER PRIMARY KEY, ttl_seconds INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS meta(
    id INTEGER PRIMARY KEY CHECK (id = 0),
    format_version INTEGER NOT NULL,
    min_reader_version INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    cluster_id BLOB NOT NULL
);
"""

_COLUMNS = "key, value, create_revision, mod_revision, version, lease"
_COLUMNS_ONLY = "key, x'', create_revision, mod_revision, version, lease"
_PUT = f"INSERT OR REPLACE INTO kv({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608
_DELETE = "DELETE FROM kv WHERE key = ?"


def _select_keys(count: int) -> str:
    """What reads so many keys, in the order asked; absent ones have no row.

    `key IN (…)` would build an index of the keys first, which costs more than reading two.
    """
    one = f"SELECT {_COLUMNS} FROM kv WHERE key = ?"  # noqa: S608
    if count == 0:
        return f"SELECT {_COLUMNS} FROM kv WHERE 0"  # noqa: S608
    if count <= 2:
        return " UNION ALL ".join([one] * count)
    asked = ", ".join(["(?)"] * count)
    return (
        f"WITH asked(name) AS (VALUES {asked})"  # noqa: S608
        f" SELECT {_COLUMNS} FROM asked CROSS JOIN kv ON key = name"
    )


SELECT_KEYS = [_select_keys(count) for count in range(129)]
"""By the number of keys asked for."""

SELECT_GUARDED = (
    "SELECT guard.mod_revision, kv.value, kv.mod_revision"
    " FROM kv AS guard LEFT JOIN kv ON kv.key = ? WHERE guard.key = ?"
)
"""A key beside another one, of which only the revision is asked; no row when that is absent."""

SELECT_REVISION = "SELECT mod_revision FROM kv WHERE key = ?"
SELECT_VALUES = "SELECT key, value FROM kv WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"

_CACHED_KEYS_MAX = 16_384
_CACHED_SIZE_BYTES_MAX = 8 << 20


class StoreFacts(NamedTuple):
    """The row about the store."""

    format_version: int
    min_reader_version: int
    revision: int
    cluster_id: bytes


def create_tables(connection: sqlite3.Connection, cluster_id: bytes) -> None:
    """Make a new file's tables, all or none."""
    connection.executescript(
        f"BEGIN IMMEDIATE; {_SCHEMA} INSERT OR IGNORE INTO meta VALUES "  # noqa: S608
        f"(0, {FORMAT_VERSION}, {MIN_READER_VERSION}, 1, x'{cluster_id.hex()}'); COMMIT;"
    )


def read_facts(connection: sqlite3.Connection) -> StoreFacts | None:
    """The row about the store, None in an empty file. Raises MetastoreUnavailable for a format
    that this code does not read."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
        return None
    facts = StoreFacts(
        *connection.execute(
            "SELECT format_version, min_reader_version, revision, cluster_id FROM meta"
        ).fetchone()
    )
    if facts.min_reader_version > FORMAT_VERSION:
        raise MetastoreUnavailable(
            f"the metadata has format {facts.format_version}; this program reads {FORMAT_VERSION}"
        )
    return facts


def read_revision(connection: sqlite3.Connection) -> int:
    """The revision of what the running read transaction sees."""
    revision: int = connection.execute("SELECT revision FROM meta").fetchone()[0]
    return revision


class SqliteReader:
    """The committed keys through one connection; what one call reads is of one instant."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def get(self, key: bytes) -> KeyValue | None:
        """One key."""
        row = self._execute(SELECT_KEYS[1], (key,)).fetchone()
        return None if row is None else KeyValue(*row)

    def scan(
        self, key: bytes, range_end: bytes | None, limit: int, *, keys_only: bool = False
    ) -> list[KeyValue]:
        """The keys of a range in order."""
        where, bounds = _where(key, range_end)
        columns = _COLUMNS_ONLY if keys_only else _COLUMNS
        rows = self._execute(
            f"SELECT {columns} FROM kv WHERE {where} ORDER BY key LIMIT ?",  # noqa: S608
            (*bounds, limit or -1),
        ).fetchall()
        return [KeyValue(*row) for row in rows]

    def count(self, key: bytes, range_end: bytes | None) -> int:
        """How many keys a range has."""
        where, bounds = _where(key, range_end)
        found: int = self._execute(
            f"SELECT count(*) FROM kv WHERE {where}",  # noqa: S608
            bounds,
        ).fetchone()[0]
        return found

    def put(self, kv: KeyValue) -> None:
        """Only the owner writes."""
        raise AssertionError("a reader does not write")

    def delete(self, key: bytes) -> None:
        """Only the owner writes."""
        raise AssertionError("a reader does not write")

    def lease_exists(self, lease: int) -> bool:
        """Only the owner knows leases."""
        raise AssertionError("a reader knows no leases")

    def lease_keys(self, lease: int) -> list[bytes]:
        """Only the owner knows leases."""
        raise AssertionError("a reader knows no leases")


class SqliteSpace:
    """The owner's space: keys read or written lately are kept, writes wait until `flush`.

    The cache is right because nobody else writes.
    """

    def __init__(self, connection: sqlite3.Connection, leases: Leases) -> None:
        self._connection = connection
        self._reader = SqliteReader(connection)
        self._leases = leases
        self._cache: dict[bytes, KeyValue | None] = {}
        self._cached_size_bytes = 0
        self._dirty: dict[bytes, KeyValue | None] = {}
        self.rows_written = 0

    def prefetch(self, keys: Iterable[bytes]) -> None:
        """Read those that are not known yet, many with one statement and in order."""
        cache = self._cache
        missing = sorted({key for key in keys if key not in cache})
        for start in range(0, len(missing), OPERATIONS_MAX):
            part = missing[start : start + OPERATIONS_MAX]
            rows = self._connection.execute(SELECT_KEYS[len(part)], part).fetchall()
            cache.update(dict.fromkeys(part))
            for row in rows:
                self._remember(KeyValue(*row))

    def get(self, key: bytes) -> KeyValue | None:
        """One key."""
        try:
            return self._cache[key]
        except KeyError:
            kv = self._cache[key] = self._reader.get(key)
            if kv is not None:
                self._remember(kv)
            return kv

    def scan(
        self, key: bytes, range_end: bytes | None, limit: int, *, keys_only: bool = False
    ) -> list[KeyValue]:
        """The keys of a range in order."""
        self.flush()
        return self._reader.scan(key, range_end, limit, keys_only=keys_only)

    def count(self, key: bytes, range_end: bytes | None) -> int:
        """How many keys a range has."""
        self.flush()
        return self._reader.count(key, range_end)

    def put(self, kv: KeyValue) -> None:
        """Set one key."""
        self._remember(kv)
        self._dirty[kv.key] = kv

    def delete(self, key: bytes) -> None:
        """Remove one key."""
        self._cache[key] = None
        self._dirty[key] = None

    def lease_exists(self, lease: int) -> bool:
        """Whether keys may be attached to it."""
        return lease in self._leases

    def lease_keys(self, lease: int) -> list[bytes]:
        """The keys attached to it, in order."""
        self.flush()
        rows = self._connection.execute(
            "SELECT key FROM kv WHERE lease = ? AND lease != 0 ORDER BY key", (lease,)
        ).fetchall()
        return [row[0] for row in rows]

    def flush(self) -> None:
        """Hand the waiting writes to SQLite, inside the running transaction."""
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, {}
        # In key order, so that neighbours land on pages just touched.
        gone = [(key,) for key, kv in dirty.items() if kv is None]
        kept = [
            (kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
            for kv in dirty.values()
            if kv is not None
        ]
        if gone:
            self._connection.executemany(_DELETE, sorted(gone))
        if kept:
            kept.sort()
            self._connection.executemany(_PUT, kept)
        self.rows_written += len(dirty)

    def trim(self) -> None:
        """Keep the cache within its bounds; only between batches."""
        if len(self._cache) > _CACHED_KEYS_MAX or self._cached_size_bytes > _CACHED_SIZE_BYTES_MAX:
            self.forget()

    def forget(self) -> None:
        """Drop what is cached and what waits."""
        self._cache.clear()
        self._dirty.clear()
        self._cached_size_bytes = 0

    def _remember(self, kv: KeyValue) -> None:
        self._cache[kv.key] = kv
        self._cached_size_bytes += len(kv.value)


def _where(key: bytes, range_end: bytes | None) -> tuple[str, tuple[bytes, ...]]:
    if range_end is None:
        return "key = ?", (key,)
    if range_end == EVERYTHING_AFTER:
        return "key >= ?", (key,)
    return "key >= ? AND key < ?", (key, range_end)
