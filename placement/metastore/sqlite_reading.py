"""Committed metadata straight from the SQLite file, for the owner and for every other process.

Every read ends its transaction before it returns, so no snapshot outlives a call. SQLite shows a
transaction to others only once its WAL frames are synced: what is read is durable.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from placement.errors import MetastoreUnavailable, RequestTooLarge
from placement.metastore.execution import read_present, read_range
from placement.metastore.history import History
from placement.metastore.port import (
    OPERATIONS_MAX,
    UNGUARDED,
    Guarded,
    GuardedScan,
    KeyValue,
    Range,
    RangeResult,
)
from placement.metastore.sqlite_space import (
    SELECT_GUARDED,
    SELECT_KEYS,
    SELECT_REVISION,
    SELECT_VALUES,
    SqliteReader,
    read_facts,
    read_revision,
)


class CommittedReads:
    """One read-only connection. Methods raise MetastoreUnavailable when SQLite cannot read."""

    def __init__(self, path: str) -> None:
        """Raises MetastoreUnavailable when there is no store of a readable format."""
        with ExitStack() as undo:
            try:
                self._connection = undo.enter_context(closing(_connect(path)))
                self._connection.execute("PRAGMA query_only=ON")
                self._connection.execute("PRAGMA cache_size=-4096")
                facts = read_facts(self._connection)
            except sqlite3.Error as error:
                raise MetastoreUnavailable(f"cannot read {path}: {error}") from error
            if facts is None:
                raise MetastoreUnavailable(f"{path} holds no metadata")
            undo.pop_all()
        self._execute = self._connection.execute
        self._reader = SqliteReader(self._connection)

    def get_many(self, keys: Sequence[bytes]) -> tuple[KeyValue | None, ...]:
        """The named keys at one instant, with one statement."""
        count = len(keys)
        if count > OPERATIONS_MAX:
            raise RequestTooLarge(f"{count} keys where {OPERATIONS_MAX} are allowed")
        try:
            rows = self._execute(SELECT_KEYS[count], keys).fetchall()
        except sqlite3.Error as error:
            raise MetastoreUnavailable(f"cannot read metadata: {error}") from error
        if count == 1:
            return (KeyValue(*rows[0]) if rows else None,)
        found = {row[0]: KeyValue(*row) for row in rows}
        return tuple(map(found.get, keys))

    def get_guarded(self, key: bytes, guard: bytes) -> Guarded:
        """See `port.Guarded`."""
        try:
            # For bytes the module looks for an adapter first, which takes a tenth of the read.
            names = bytearray(key), bytearray(guard)
            rows = self._execute(SELECT_GUARDED, names).fetchall()
        except sqlite3.Error as error:
            raise MetastoreUnavailable(f"cannot read metadata: {error}") from error
        return rows[0] if rows else UNGUARDED

    def scan_guarded(self, key: bytes, end: bytes, limit: int, guard: bytes) -> GuardedScan:
        """See `port.GuardedScan`."""
        try:
            self._execute("BEGIN")
            try:
                revision = self._execute(SELECT_REVISION, (guard,)).fetchone()
                if revision is None:
                    return GuardedScan(0, [], [], more=False)
                rows = self._execute(SELECT_VALUES, (key, end, limit + 1)).fetchall()
            finally:
                self._execute("ROLLBACK")
        except sqlite3.Error as error:
            raise MetastoreUnavailable(f"cannot read metadata: {error}") from error
        more = len(rows) > limit
        if more:
            rows.pop()
        keys, values = [row[0] for row in rows], [row[1] for row in rows]
        return GuardedScan(revision[0], keys, values, more)

    def read(
        self, requests: Sequence[Range], history: History | None = None
    ) -> tuple[RangeResult, ...]:
        """Several ranges at one instant. Those at an older revision need the owner's history."""
        if len(requests) > OPERATIONS_MAX:
            raise RequestTooLarge(f"{len(requests)} ranges where {OPERATIONS_MAX} are allowed")
        if not all(request.key for request in requests):
            raise ValueError("a range names no key")
        try:
            self._execute("BEGIN")
            try:
                revision = read_revision(self._connection)
                if history is None:
                    return tuple(
                        [read_present(self._reader, request, revision) for request in requests]
                    )
                return tuple(
                    [
                        read_range(self._reader, history, request, revision, revision)
                        for request in requests
                    ]
                )
            finally:
                self._execute("ROLLBACK")
        except sqlite3.Error as error:
            raise MetastoreUnavailable(f"cannot read metadata: {error}") from error

    def used_bytes(self) -> int:
        """What of the file holds something; the rest is used again before the file grows."""
        try:
            pages = self._execute("PRAGMA page_count").fetchone()[0]
            free = self._execute("PRAGMA freelist_count").fetchone()[0]
            size = self._execute("PRAGMA page_size").fetchone()[0]
        except sqlite3.Error as error:
            raise MetastoreUnavailable(f"cannot read metadata: {error}") from error
        return int((pages - free) * size)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{Path(path).absolute().as_uri()}?mode=ro",
        uri=True,
        isolation_level=None,
        cached_statements=256,
        timeout=1,
    )
