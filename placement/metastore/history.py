"""What changed and when: the kept past of a metastore, and the watches that follow it.

Kept in memory, bounded by count and by bytes; what falls out counts as compacted.
"""

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from placement.errors import Compacted, MetastoreUnavailable
from placement.metastore.port import Event, KeyValue, WatchBatch

CHANGES_MAX = 100_000
SIZE_BYTES_MAX = 32 << 20
WATCHES_MAX = 4096
_BATCH_EVENTS_MAX = 1000
_BATCH_SIZE_BYTES_MAX = 4 << 20
_CHANGE_OVERHEAD_BYTES = 300


class Change(NamedTuple):
    """One key's step within a transaction; None: absent."""

    key: bytes
    before: KeyValue | None
    after: KeyValue | None


class _Entry(NamedTuple):
    revision: int
    changes: tuple[Change, ...]
    size_bytes: int


class History:
    """The changes of each revision after `floor`, the oldest revision that can still be read."""

    def __init__(
        self, floor: int, *, changes_max: int = CHANGES_MAX, size_bytes_max: int = SIZE_BYTES_MAX
    ) -> None:
        self.floor = floor
        self._entries: deque[_Entry] = deque()
        self._changes = 0
        self._size_bytes = 0
        self._changes_max = changes_max
        self._size_bytes_max = size_bytes_max

    def append(self, revision: int, changes: Iterable[Change]) -> None:
        """Remember one revision; the oldest make room."""
        kept = tuple(changes)
        size = 0
        for key, before, after in kept:
            size += _CHANGE_OVERHEAD_BYTES + len(key)
            size += len(before.value) if before is not None else 0
            size += len(after.value) if after is not None else 0
        self._entries.append(_Entry(revision, kept, size))
        self._changes += len(kept)
        self._size_bytes += size
        while self._changes > self._changes_max or self._size_bytes > self._size_bytes_max:
            self._forget_oldest()

    def compact(self, revision: int) -> None:
        """Forget what is needed only to read below `revision`."""
        while self._entries and self._entries[0].revision <= revision:
            self._forget_oldest()
        self.floor = max(self.floor, revision)

    def drop_after(self, revision: int) -> None:
        """Take back revisions whose commit failed."""
        while self._entries and self._entries[-1].revision > revision:
            entry = self._entries.pop()
            self._changes -= len(entry.changes)
            self._size_bytes -= entry.size_bytes

    def undo(self, revision: int, present: int) -> dict[bytes, KeyValue | None]:
        """What the keys changed in (revision, present] were at `revision`. Raises Compacted."""
        if revision < self.floor:
            raise Compacted(self.floor)
        past: dict[bytes, KeyValue | None] = {}
        for entry in reversed(self._entries):
            if entry.revision <= revision:
                break
            if entry.revision <= present:
                for change in reversed(entry.changes):
                    past[change.key] = change.before
        return past

    def since(self, revision: int, present: int) -> list[tuple[int, tuple[Change, ...]]]:
        """The revisions in [revision, present], oldest first. Raises Compacted."""
        if revision <= self.floor:
            raise Compacted(self.floor)
        found: list[tuple[int, tuple[Change, ...]]] = []
        for entry in reversed(self._entries):
            if entry.revision < revision:
                break
            if entry.revision <= present:
                found.append((entry.revision, entry.changes))
        found.reverse()
        return found

    def _forget_oldest(self) -> None:
        entry = self._entries.popleft()
        self.floor = entry.revision
        self._changes -= len(entry.changes)
        self._size_bytes -= entry.size_bytes


class _Watch:
    """One follower: `position` is the next revision it has not been told of."""

    __slots__ = ("key", "pending", "position", "previous", "range_end", "waiter")

    def __init__(
        self, key: bytes, range_end: bytes | None, position: int, *, previous: bool
    ) -> None:
        self.key = key
        self.range_end = key + b"\x00" if range_end is None else range_end
        self.position = position
        self.previous = previous
        self.pending = False
        self.waiter: asyncio.Future[None] | None = None

    def covers(self, key: bytes) -> bool:
        return self.key <= key and (key < self.range_end or self.range_end == b"\x00")

    def wake(self) -> None:
        self.pending = True
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Watches:
    """Everyone who follows a history. The history itself is the buffer: a follower that falls
    behind what is kept gets Compacted."""

    def __init__(self, history: History, revision: int) -> None:
        self.revision = revision
        """The newest revision that may be told: it is durable."""
        self._history = history
        self._watches: set[_Watch] = set()
        self._error: MetastoreUnavailable | None = None

    def advance(self, revision: int) -> None:
        """Everything up to `revision` is durable: wake whom it concerns."""
        if not self._watches or revision == self.revision:
            self.revision = revision
            return
        keys = [
            change.key
            for _, changes in self._history.since(
                max(self.revision, self._history.floor) + 1, revision
            )
            for change in changes
        ]
        keys.sort()
        self.revision = revision
        for watch in self._watches:
            if not watch.pending:
                at = bisect_left(keys, watch.key)  # if any is covered, the first from there on is
                if at < len(keys) and watch.covers(keys[at]):
                    watch.wake()
                elif watch.position <= revision:
                    watch.position = revision + 1

    def fail(self, error: MetastoreUnavailable) -> None:
        """End all watches, now and later."""
        self._error = error
        for watch in self._watches:
            watch.wake()

    async def watch(
        self,
        key: bytes,
        range_end: bytes | None,
        start_revision: int,
        *,
        previous: bool = False,
    ) -> AsyncIterator[WatchBatch]:
        """Batches without a gap; the first comes at once, empty or with what happened since."""
        if len(self._watches) >= WATCHES_MAX:
            raise MetastoreUnavailable("too many watches")
        watch = _Watch(key, range_end, start_revision or self.revision + 1, previous=previous)
        if watch.position <= self._history.floor:
            raise Compacted(self._history.floor)
        watch.pending = True
        self._watches.add(watch)
        first = True
        try:
            while True:
                while watch.pending:
                    if self._error is not None:
                        raise self._error
                    batch = self._next_batch(watch)
                    if batch.events or first:
                        first = False
                        yield batch
                watch.waiter = asyncio.get_running_loop().create_future()
                await watch.waiter
        finally:
            self._watches.discard(watch)

    def _next_batch(self, watch: _Watch) -> WatchBatch:
        events: list[Event] = []
        size = 0
        covers = watch.covers
        watch.pending = False
        if watch.position <= self.revision:
            for revision, changes in self._history.since(watch.position, self.revision):
                for change in changes:
                    if covers(change.key):
                        events.append(event_of(change, revision, previous=watch.previous))
                        size += len(change.key) + len(events[-1].kv.value)
                        if events[-1].previous is not None:
                            size += len(events[-1].previous.value)
                if len(events) >= _BATCH_EVENTS_MAX or size >= _BATCH_SIZE_BYTES_MAX:
                    watch.pending = True
                    watch.position = revision + 1
                    return WatchBatch(revision, tuple(events))
            watch.position = self.revision + 1
        return WatchBatch(watch.position - 1, tuple(events))


def event_of(change: Change, revision: int, *, previous: bool = False) -> Event:
    """A change as its followers see it."""
    before = change.before if previous else None
    if change.after is not None:
        return Event(change.after, deleted=False, previous=before)
    return Event(KeyValue(change.key, b"", 0, revision, 0), deleted=True, previous=before)
