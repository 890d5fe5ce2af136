"""How much garbage waits, as the keeper tells it to all who write (`gateway.metadata.backlog`).

An idle store writes nothing for this: it is published when it has changed by a part of what slows
writes down. So what all processes together queued since stays below that part.
"""

from gateway.domain import garbage_backlog
from gateway.metadata import keys
from gateway.metadata.limit_records import GarbageWaiting
from gateway.metadata.records import RecordError, decode
from ops.keeper.published import Publication, publish
from placement.clock import Clock
from placement.metastore.port import KeyValue, Metastore, Range, prefix_end

COUNT_SECONDS = 2.0
"""How often entries are counted at most."""
PART = 16
"""Published again after so many parts of `ENTRIES_SLOWED` were queued or collected."""


class Waiting:
    """The counter, beside the duty that collects."""

    def __init__(self, metastore: Metastore, clock: Clock) -> None:
        self._metastore = metastore
        self._clock = clock
        self._counted_at = float("-inf")
        self._total_before = 0
        self._dropped = 0

    def dropped(self) -> None:
        """An entry was taken out of the queue."""
        self._dropped += 1

    async def tell(self, collected: int) -> None:
        """Count what is queued; `collected` of it wait for nothing but their being forgotten."""
        now = self._clock.monotonic()
        if now - self._counted_at < COUNT_SECONDS:
            return
        self._counted_at = now
        queue = Range(keys.GARBAGE, prefix_end(keys.GARBAGE), count_only=True)
        found, told = await self._metastore.read([queue, Range(keys.GARBAGE_WAITING)])
        # Whoever published it: another may have led since this process did last.
        before = told.kvs[0] if told.kvs else None
        waiting = GarbageWaiting(entries=max(found.count - collected, 0), revision=found.revision)
        part = max(garbage_backlog.ENTRIES_SLOWED // PART, 1)
        queued = found.count + self._dropped - self._total_before
        if abs(waiting.entries - _entries(before)) < part and queued < part:
            return
        if await publish(self._metastore, [Publication(keys.GARBAGE_WAITING, before, waiting)]):
            self._total_before, self._dropped = found.count, 0


def _entries(before: KeyValue | None) -> int:
    if before is None:
        return 0
    try:
        return decode(GarbageWaiting, before.value).entries
    except RecordError:  # of a later version
        return 0
