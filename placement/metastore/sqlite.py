"""The owner of the embedded metastore: the only one who writes its SQLite file.

Transactions that arrive while a commit runs are applied together in one SQLite transaction and
answered together after its COMMIT, which is on stable storage (WAL, synchronous=FULL). Statements
run on the loop, where they compete with nobody for the interpreter; only COMMIT and checkpoints,
which wait for the disk, run in a thread of their own.

Leases are stored with their time to live and start anew when the store is opened, as in etcd. The
past is kept in memory only: after a start, older revisions answer `Compacted`.
"""

import asyncio
import fcntl
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from placement.clock import Clock, Randomness, SystemRandomness
from placement.errors import (
    LeaseNotFound,
    MetastoreFull,
    MetastoreUnavailable,
    OutcomeUnknown,
    PlacementError,
)
from placement.metastore.execution import check_revision, check_txn, end_lease, execute, point_keys
from placement.metastore.history import Change, History, Watches
from placement.metastore.leases import LEASES_MAX, Leases, clamp_ttl
from placement.metastore.port import (
    Guarded,
    GuardedScan,
    KeyValue,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    WatchBatch,
)
from placement.metastore.sqlite_reading import CommittedReads
from placement.metastore.sqlite_reserve import (
    PLENTY_SIZE_BYTES,
    RESERVE_SIZE_BYTES,
    SCARCE_SIZE_BYTES,
    SpaceReserve,
    frees,
)
from placement.metastore.sqlite_space import SqliteSpace, create_tables, read_facts

_log = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_MAX = 512
WAITING_MAX = 16_384
CHECKPOINT_ROWS = 4_000
"""Rows written between checkpoints: with one 4 KiB page a row, about 16 MiB of WAL."""
CHECKPOINT_ROWS_SCARCE = 128
"""The same while the disk is full: the WAL must fit into what little was kept back."""
MEASURE_SECONDS = 1.0
"""How often a full disk is measured, when somebody writes."""
WAL_PAGES_MAX = 16_384
"""A WAL beyond this (64 MiB) waits for its readers, so that it can start from its beginning."""

_Work = Callable[[int], tuple[object, list[Change]]]


class Promise(Protocol):
    """Where a transaction's outcome goes, once. A future is one."""

    def done(self) -> bool:
        """Whether nobody waits any more: then it is not applied, if it was not yet."""
        ...

    def set_result(self, result: TxnResult, /) -> None:
        """It is applied and durable."""
        ...

    def set_exception(self, error: Exception, /) -> None:
        """It was refused, or nobody knows."""
        ...


class Room(NamedTuple):
    """What the file and its WAL take, what of the file holds something, what they may take before
    the disk is full, and whether it is full now."""

    size_bytes: int
    in_use_bytes: int
    quota_bytes: int
    full: bool


class _Waiting(NamedTuple):
    work: Txn | _Work
    promise: Any


class SqliteOwner:
    """All of the port, and the only writer. Belongs to one event loop."""

    def __init__(
        self,
        path: str,
        clock: Clock,
        *,
        cluster_id: bytes = b"",
        randomness: Randomness | None = None,
    ) -> None:
        """Open or make the file. Raises MetastoreUnavailable when another process owns it, a newer
        format wrote it, it belongs to another cluster, or SQLite cannot open it."""
        self._path = path
        with ExitStack() as undo:
            self._lock = _take_lock(path + ".lock")
            undo.callback(os.close, self._lock)
            self._reserve = SpaceReserve(path)
            try:
                # Before SQLite needs a page: a WAL cannot be begun on a full disk.
                self._scarce = self._reserve.free_bytes() < SCARCE_SIZE_BYTES
                if self._scarce:
                    self._reserve.release()
            except OSError as error:
                raise MetastoreUnavailable(f"cannot use {path}: {error}") from error
            try:
                self._connection = undo.enter_context(closing(_connect(path)))
                _prepare(self._connection, path)
                facts = read_facts(self._connection)
                if facts is None:
                    create_tables(self._connection, cluster_id)
                    _sync_folder(path)
                    facts = read_facts(self._connection)
                assert facts is not None
                if cluster_id and facts.cluster_id != cluster_id:
                    raise MetastoreUnavailable(f"{path} belongs to another cluster")
                leases = self._connection.execute("SELECT id, ttl_seconds FROM lease").fetchall()
                self._reads = CommittedReads(path)
            except sqlite3.Error as error:
                raise MetastoreUnavailable(f"cannot open {path}: {error}") from error
            undo.pop_all()
        self.cluster_id = facts.cluster_id
        self.batches = 0
        self.transactions = 0
        self.commit_seconds = 0.0
        self._commit_began = 0.0
        self._leases = Leases(clock, randomness or SystemRandomness())
        self._leases.replace(leases)
        self._space = SqliteSpace(self._connection, self._leases)
        self._history = History(facts.revision)
        self._revision = facts.revision
        self._watches = Watches(self._history, facts.revision)
        self._waiting: list[_Waiting] = []
        self._batch: list[tuple[_Waiting, object]] = []
        self._committing = False
        self._scheduled = False
        self._rows_checkpointed = 0
        self._broken: str | None = None
        self._full = False
        self.broken = asyncio.Event()
        """Set when nothing can be done any more: the store must be closed and opened again."""
        self._loop = asyncio.get_running_loop()
        self._disk = _DiskThread(self._loop)
        self._leases.watch(self._expire)
        self._measured_at = self._loop.time()
        self._disk.run(self._reserve.make, _ignore)

    # --- the port ---

    async def get_many(self, keys: Sequence[bytes]) -> tuple[KeyValue | None, ...]:
        """The named keys at one instant."""
        return self._reads.get_many(keys)

    def get_guarded_now(self, key: bytes, guard: bytes) -> Guarded:
        """A key beside a guard, without waiting."""
        return self._reads.get_guarded(key, guard)

    def scan_guarded_now(self, key: bytes, end: bytes, limit: int, guard: bytes) -> GuardedScan:
        """A range beside a guard, without waiting."""
        return self._reads.scan_guarded(key, end, limit, guard)

    async def range(self, request: Range) -> RangeResult:
        """Range read."""
        return self._reads.read((request,), self._history)[0]

    async def read(self, requests: Sequence[Range]) -> tuple[RangeResult, ...]:
        """Several range reads at one instant."""
        return self._reads.read(requests, self._history)

    async def txn(self, txn: Txn) -> TxnResult:
        """Apply atomically and durably."""
        return await self.submit(txn)

    def submit(self, txn: Txn) -> "asyncio.Future[TxnResult]":
        """The same without a coroutine; refusals, too, are in the future."""
        future: asyncio.Future[TxnResult] = self._loop.create_future()
        self.submit_to(txn, future)
        return future

    def submit_to(self, txn: Txn, promise: Promise) -> None:
        """The same without a future; refusals, too, go to the promise."""
        try:
            check_txn(txn)
        except (PlacementError, ValueError) as error:
            promise.set_exception(error)
            return
        if self._scarce and self._still_scarce() and not frees(txn):
            promise.set_exception(
                MetastoreFull("the metadata's disk is full: only deletes are taken")
            )
            return
        self._enqueue(txn, promise)

    def watch(
        self,
        key: bytes,
        range_end: bytes | None = None,
        *,
        start_revision: int = 0,
        previous: bool = False,
    ) -> AsyncIterator[WatchBatch]:
        """Every change to the range, without a gap."""
        return self._watches.watch(key, range_end, start_revision, previous=previous)

    async def lease_grant(self, ttl_seconds: int) -> int:
        """A new lease id."""
        if len(self._leases) >= LEASES_MAX:
            raise MetastoreUnavailable("too many leases")
        lease, ttl_seconds = self._leases.new_id(), clamp_ttl(ttl_seconds)

        def grant(revision: int) -> tuple[None, list[Change]]:
            self._connection.execute("INSERT INTO lease VALUES (?, ?)", (lease, ttl_seconds))
            return None, []

        await self._run(grant)
        self._leases.add(lease, ttl_seconds)
        self._leases.watch(self._expire)
        return lease

    async def lease_keep_alive(self, lease: int) -> int:
        """Renew; the seconds left."""
        return self._leases.renew(lease)

    async def lease_revoke(self, lease: int) -> None:
        """End a lease and delete its keys. Raises LeaseNotFound."""

        def revoke(revision: int) -> tuple[None, list[Change]]:
            if not self._leases.remove(lease):
                raise LeaseNotFound(f"lease {lease} has expired or never was")
            self._connection.execute("DELETE FROM lease WHERE id = ?", (lease,))
            return None, end_lease(self._space, lease, revision)

        await self._run(revoke)

    async def compact(self, revision: int) -> None:
        """Forget history below that revision."""
        check_revision(self._history, revision, self._watches.revision)
        self._history.compact(revision)

    async def close(self) -> None:
        """Commit what was accepted, then close the file."""
        if self._disk.closed:
            return
        await self._leases.close()
        while (self._waiting or self._committing) and self._broken is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        self._break("closed")
        _log.info("%d transactions in %d commits", self.transactions, self.batches)
        self._disk.close()
        self._reads.close()
        self._connection.close()
        # Also with little space: whatever is free now may be taken by others before the next start.
        self._reserve.make(room_bytes=RESERVE_SIZE_BYTES + SCARCE_SIZE_BYTES)
        os.close(self._lock)

    def room(self) -> Room:
        """Raises MetastoreUnavailable."""
        try:
            used, free = self._reads.used_bytes(), os.statvfs(self._path)
            sizes = [os.stat(path).st_size for path in (self._path, self._path + "-wal")]
        except OSError as error:
            raise MetastoreUnavailable(f"cannot measure {self._path}: {error}") from error
        size = sum(sizes)
        quota = size + free.f_bavail * free.f_frsize
        return Room(size, used, quota, self._full or self._scarce)

    # --- group commit ---

    @property
    def revision(self) -> int:
        """The newest durable revision."""
        return self._watches.revision

    def _run(self, work: _Work) -> "asyncio.Future[object]":
        future: asyncio.Future[object] = self._loop.create_future()
        self._enqueue(work, future)
        return future

    def _enqueue(self, work: Txn | _Work, promise: Any) -> None:
        if self._broken is not None or len(self._waiting) >= WAITING_MAX:
            promise.set_exception(
                MetastoreUnavailable(self._broken or "too many transactions wait")
            )
            return
        self._waiting.append(_Waiting(work, promise))
        if not self._committing and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._start_batch)

    def _start_batch(self) -> None:
        """Apply what waits, then commit it in the thread."""
        self._scheduled = False
        if self._broken is not None or self._committing:
            return
        waiting, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
        if not waiting:
            return
        durable = self._watches.revision
        self._batch = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            wanted = [one for one in waiting if not one.promise.done()]
            keys: list[bytes] = []
            for one in wanted:
                if isinstance(one.work, Txn):
                    keys += point_keys(one.work)
            self._space.prefetch(keys)
            for one in wanted:
                self._apply(one)
            self._space.flush()
            if self._revision != durable:
                self._connection.execute("UPDATE meta SET revision = ?", (self._revision,))
        except Exception as error:  # even a bug in one member must not leave the batch half open
            self._roll_back(waiting, error)
            return
        self._committing = True
        self._commit_began = self._loop.time()
        self._disk.run(partial(_commit, self._connection), self._committed)

    def _apply(self, one: _Waiting) -> None:
        try:
            if isinstance(one.work, Txn):
                result: object
                result, changes = execute(self._space, self._history, one.work, self._revision)
            else:
                result, changes = one.work(self._revision)
        except PlacementError as error:
            self._batch.append((one, error))
            return
        if changes:
            self._revision += 1
            self._history.append(self._revision, changes)
        self._batch.append((one, result))

    def _committed(self, error: BaseException | None) -> None:
        """The commit has ended: answer its members."""
        self._committing = False
        batch, self._batch = self._batch, []
        if is_full(error):
            # Its last page was not written, so nothing of it counts; what it wrote is overwritten.
            self._roll_back([one for one, _ in batch], error)
            return
        if error is not None:
            # Nobody knows what a failed flush left behind: never go on from here.
            _log.critical("the metadata commit failed", exc_info=error)
            self._history.drop_after(self._watches.revision)
            for one, _ in batch:
                _fail(one.promise, OutcomeUnknown(f"the commit failed: {error}"))
            self._break(f"a commit failed and the store must be opened again: {error}")
            return
        self._full = False
        self.batches += 1
        self.transactions += len(batch)
        self.commit_seconds += self._loop.time() - self._commit_began
        self._watches.advance(self._revision)
        for (_, promise), result in batch:
            if promise.done():
                continue
            if isinstance(result, PlacementError):
                promise.set_exception(result)
            else:
                promise.set_result(result)
        self._space.trim()
        rows_max = CHECKPOINT_ROWS_SCARCE if self._scarce else CHECKPOINT_ROWS
        if self._space.rows_written - self._rows_checkpointed >= rows_max:
            self._rows_checkpointed = self._space.rows_written
            self._committing = True
            self._disk.run(partial(_checkpoint, self._connection), self._checkpointed)
        elif self._waiting and not self._scheduled:
            # One turn later, so that those just answered can be part of it.
            self._scheduled = True
            self._loop.call_soon(self._start_batch)

    def _checkpointed(self, error: BaseException | None) -> None:
        self._committing = False
        if is_full(error):
            _log.warning("the metadata checkpoint is put off: %s", error)
            error = None
        if error is not None:
            _log.critical("the metadata checkpoint failed", exc_info=error)
            self._break(f"a checkpoint failed and the store must be opened again: {error}")
        elif self._waiting:
            self._start_batch()

    def _roll_back(self, waiting: list[_Waiting], error: BaseException | None) -> None:
        """Nothing of the batch was committed: take it back and say so."""
        if not is_full(error):
            _log.error("a metadata batch was not applied", exc_info=error)
        else:
            if not self._full:
                self._full = True
                _log.error("no metadata can be written: %s", error)
            self._scarce = True
            self._measured_at = -MEASURE_SECONDS  # a quota may be full, and the disk not: look now
            self._reserve.release()
        self._batch = []
        self._space.forget()
        self._history.drop_after(self._watches.revision)
        self._revision = self._watches.revision
        for one in waiting:
            _fail(one.promise, MetastoreUnavailable(f"not applied: {error}"))
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._leases.replace(
                self._connection.execute("SELECT id, ttl_seconds FROM lease").fetchall()
            )
        except sqlite3.Error as second:
            self._break(f"cannot roll back: {second}")
            return
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._start_batch)

    def _still_scarce(self) -> bool:
        """Look, now and then, whether there is plenty of space again."""
        now = self._loop.time()
        if now - self._measured_at < MEASURE_SECONDS:
            return True
        self._measured_at = now
        try:
            self._scarce = self._reserve.free_bytes() < PLENTY_SIZE_BYTES
        except OSError:
            return True
        if not self._scarce:
            self._full = False
            _log.warning("the metadata's disk has room again")
            self._disk.run(self._reserve.make, _ignore)
        return self._scarce

    def _break(self, reason: str) -> None:
        """Refuse everything from now on."""
        if self._broken is not None:
            return
        self._broken = reason
        self.broken.set()
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            _fail(one.promise, MetastoreUnavailable(reason))
        self._watches.fail(MetastoreUnavailable(reason))

    async def _expire(self, lease: int) -> None:
        try:
            await self.lease_revoke(lease)
        except LeaseNotFound:
            return
        except MetastoreUnavailable as error:
            _log.warning("lease %d not ended yet: %s", lease, error)
            self._leases.add(lease, 1)


class _DiskThread:
    """One thread for what waits for the disk; results come back to the loop in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[
            tuple[Callable[[], object], Callable[[BaseException | None], None]] | None
        ] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="metastore-commit", daemon=True)
        self._thread.start()
        self.closed = False

    def run(self, job: Callable[[], object], done: Callable[[BaseException | None], None]) -> None:
        """Run a job; `done` is called on the loop with its error, if any."""
        self._jobs.put((job, done))

    def close(self) -> None:
        """End the thread after its last job."""
        self.closed = True
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            error: BaseException | None = None
            try:
                job()
            except BaseException as raised:
                error = raised
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(done, error)


def _ignore(error: BaseException | None) -> None:
    """Nobody waits for the reserve."""
    if error is not None:
        _log.error("the metadata's reserve", exc_info=error)


def is_full(error: BaseException | None) -> bool:
    """Whether SQLite had no space left to write what it was to write."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_FULL


def _fail(promise: Any, error: Exception) -> None:
    if not promise.done():
        promise.set_exception(error)


def _commit(connection: sqlite3.Connection) -> None:
    """`commit` gives the interpreter away, and takes it back, once; a statement does so several
    times, and each time contends with the loop's thread. But it is silent where there is nothing to
    commit."""
    assert connection.in_transaction, "SQLite ended the transaction by itself"
    connection.commit()


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Move the WAL's pages into the file; a WAL that grew large is also started anew."""
    _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if pages > WAL_PAGES_MAX:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=512, timeout=2
    )


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    os.chmod(path, 0o600)
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise MetastoreUnavailable(f"{path}: SQLite cannot use a WAL here")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA cache_size=-32768")
    connection.execute("PRAGMA checkpoint_fullfsync=ON")
    connection.execute("PRAGMA secure_delete=OFF")


def _take_lock(path: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise MetastoreUnavailable(f"another process holds {path}") from None
    return descriptor


def _sync_folder(path: str) -> None:
    """Make the new file's name durable."""
    descriptor = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
