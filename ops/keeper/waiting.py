"""How much garbage waits, as the keeper tells it to all who write (`gateway.metadata.backlog`).

An idle store writes nothing for this: it is published when it has changed by a part of what slows
writes down. So what all processes together queued since stays below that part.
"""

from gateway.domain import garbage_backlog
from gateway.metadata import keys
from gateway.metadata.limit_records import GarbageWaiting
from gateway.metadata.records import RecordError, decode, encode
from placement.clock import Clock
from placement.metastore.port import Metastore, Put, Range, Txn, prefix_end

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
        self._published: GarbageWaiting | None = None
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
        found = await self._metastore.range(queue)
        published = self._published or await self._read()
        waiting = GarbageWaiting(entries=max(found.count - collected, 0), revision=found.revision)
        part = max(garbage_backlog.ENTRIES_SLOWED // PART, 1)
        queued = found.count + self._dropped - self._total_before
        if abs(waiting.entries - published.entries) < part and queued < part:
            self._published = published
            return
        await self._metastore.txn(Txn((), (Put(keys.GARBAGE_WAITING, encode(waiting)),)))
        self._published = waiting
        self._total_before, self._dropped = found.count, 0

    async def _read(self) -> GarbageWaiting:
        """What another leader published."""
        (found,) = await self._metastore.get_many([keys.GARBAGE_WAITING])
        nothing = GarbageWaiting(entries=0, revision=0)
        try:
            return nothing if found is None else decode(GarbageWaiting, found.value)
        except RecordError:  # of a later version
            return nothing
