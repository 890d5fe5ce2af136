"""Deadlines of flushes: a drive that stalls, without an error, must not hold up the others.

What is too long depends on the others. While one drive is still at it and the rest of the same
group have long ended, that drive is stalled; while all are slow the machine is busy, and dropping
drives would only make it worse. What is past its deadline counts as failed, for good: the drive
leaves the write set, and the flush is never tried again.
"""

import asyncio
from dataclasses import dataclass

from storage_node.flush import Flush

SWEEP_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Patience:
    """How long flushes of a group may take from their beginning, in seconds."""

    minority_seconds: float = 5.0
    """When at least half of the group have ended: for the rest, or `minority_factor` times as long
    as that half took, whichever is longer."""
    minority_factor: float = 4.0
    some_seconds: float = 20.0
    """When at least one has ended."""
    all_seconds: float = 60.0
    """When none has."""
    bytes_per_second: float = 4 << 20
    """Beyond that, time for as much as is to be flushed."""
    call_seconds: float = 20.0
    """For any other call to a disk."""

    def limit_seconds(
        self, count: int, ended: int, half_ended_seconds: float, size_bytes: int
    ) -> float:
        """When the flushes of a group that have not ended are past their deadline."""
        if ended == 0:
            limit = self.all_seconds
        elif 2 * ended < count:
            limit = self.some_seconds
        else:
            limit = max(self.minority_seconds, self.minority_factor * half_ended_seconds)
        return limit + size_bytes / self.bytes_per_second


@dataclass(slots=True)
class _Watched:
    began: float
    size_bytes: int
    half_ended_seconds: float = -1.0


class StallWatch:
    """Waits for flushes and expires those past their deadline. One a node."""

    def __init__(self, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._loop = asyncio.get_running_loop()
        self._watched: dict[Flush, _Watched] = {}
        self._sweeping = False

    async def ended(self, flush: Flush, size_bytes: int = 0) -> None:
        """Return when all of the flush's files have ended or are past their deadline.
        `size_bytes`: roughly what the largest of them has to write."""
        if flush.done.done():
            return
        self._watched[flush] = _Watched(self._loop.time(), size_bytes)
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)
        try:
            await flush.done
        finally:
            del self._watched[flush]

    def _sweep(self) -> None:
        now = self._loop.time()
        for flush, watched in list(self._watched.items()):
            elapsed = now - watched.began
            count, ended = len(flush.errors), len(flush.errors) - flush.left
            if watched.half_ended_seconds < 0 and 2 * ended >= count:
                watched.half_ended_seconds = elapsed
            limit = self._patience.limit_seconds(
                count, ended, watched.half_ended_seconds, watched.size_bytes
            )
            if elapsed > limit:
                flush.expire()
        self._sweeping = bool(self._watched)
        if self._sweeping:
            self._loop.call_later(SWEEP_SECONDS, self._sweep)
