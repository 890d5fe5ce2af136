"""The backlog of garbage in a process that writes: slows down, then refuses, what would queue more.

The keeper publishes how many entries wait, and through which revision it counted. To that a process adds
what it queued itself since, or is about to queue. So without a keeper, too, each process stops of itself;
what others queued since the keeper last published is what it does not know. The keeper publishes again
before that is much (`ops.keeper.waiting`).
"""

from collections import deque

from gateway.domain import garbage_backlog
from gateway.metadata import keys
from gateway.metadata.errors import GarbageBacklogged
from gateway.metadata.limit_records import GarbageWaiting
from placement.clock import Clock
from placement.metastore.port import Operation, Put, Txn

UNPUBLISHED_MAX = 4096
"""Own transactions that are kept one by one until the keeper has counted them; older ones are merged,
which only makes them count longer."""


def entries_queued(operations: tuple[Operation, ...]) -> int:
    """Entries of garbage that these operations queue; those that tell of an end alone are no work."""
    queued = 0
    for operation in operations:
        if isinstance(operation, Put):
            key = operation.key
            queued += key.startswith(keys.GARBAGE) and not key.startswith(keys.ENDED)
        elif isinstance(operation, Txn):
            queued += entries_queued(operation.success)
    return queued


class Backlog:
    """One a process. `slowed` and `refused` count commits since it began."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._published = GarbageWaiting(entries=0, revision=0)
        self._unpublished: deque[tuple[int, int]] = deque()
        self._own = 0
        self._under_way = 0
        self.slowed = 0
        self.refused = 0

    @property
    def waiting(self) -> int:
        """Entries that wait, as far as this process knows."""
        return self._published.entries + self._own + self._under_way

    def publish(self, told: GarbageWaiting) -> None:
        """The keeper counted again."""
        self._published = told
        while self._unpublished and self._unpublished[0][0] <= told.revision:
            self._own -= self._unpublished.popleft()[1]

    async def begin(self, entries: int) -> None:
        """Wait until a commit that queues so many may go ahead; then `end` must follow. Raises
        GarbageBacklogged."""
        delay = garbage_backlog.delay_seconds(
            self.waiting + entries, garbage_backlog.ENTRIES_SLOWED, garbage_backlog.ENTRIES_MAX
        )
        if delay is None:
            self.refused += 1
            raise GarbageBacklogged(f"{self.waiting} entries of garbage wait to be collected")
        self._under_way += entries
        if not delay:
            return
        self.slowed += 1
        try:
            await self._clock.sleep(delay)
        except BaseException:
            self._under_way -= entries
            raise

    def end(self, entries: int, revision: int) -> None:
        """The commit is over; it took place at that revision (0: not, or nobody knows)."""
        self._under_way -= entries
        if revision <= self._published.revision:
            return
        self._own += entries
        self._unpublished.append((revision, entries))
        if len(self._unpublished) > UNPUBLISHED_MAX:
            _, oldest = self._unpublished.popleft()
            later, next_one = self._unpublished.popleft()
            self._unpublished.appendleft((later, oldest + next_one))
