"""Signs of life of a supervisor's children: a byte each in shared memory, which the child's event loop
changes every second and the supervisor looks at. Nobody waits for anybody, and nothing is sent."""

import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

BEAT_SECONDS = 1.0


class Pulse:
    """A child's own byte. It beats as long as the event loop that began it turns."""

    def __init__(self, descriptor: int, slot: int) -> None:
        self._bytes = mmap.mmap(descriptor, 0)
        os.close(descriptor)
        self._slot = slot

    def begin(self) -> None:
        """Beat from now on, on the running loop."""
        import asyncio  # the supervisor has no loop, and does without

        self._beat(asyncio.get_running_loop())

    def _beat(self, loop: "asyncio.AbstractEventLoop") -> None:
        self._bytes[self._slot] = self._bytes[self._slot] % 255 + 1  # never 0, which is "not yet"
        loop.call_later(BEAT_SECONDS, self._beat, loop)


class Heartbeats:
    """The supervisor's view: for how long each child has been silent, of the time in which the
    supervisor itself ran. While that was stopped, or the whole machine, nobody is to blame."""

    def __init__(self, count: int, check_seconds: float) -> None:
        self.descriptor = os.memfd_create("ostraka-heartbeats")
        os.ftruncate(self.descriptor, max(count, 1))
        self._bytes = mmap.mmap(self.descriptor, 0)
        self._check_seconds = check_seconds
        self._seen = bytearray(count)
        self._silent_seconds = [0.0] * count
        self._checked_at: float | None = None

    def reset(self, slot: int) -> None:
        """Another process begins: it is not expected to beat before it has begun."""
        self._bytes[slot] = 0
        self._seen[slot] = 0
        self._silent_seconds[slot] = 0.0

    def check(self, now: float) -> None:
        """Look at all. Call it about every `check_seconds`, with a monotonic clock's time."""
        before, self._checked_at = self._checked_at, now
        passed = 0.0 if before is None else now - before
        for slot, seen in enumerate(self._seen):
            beat = self._bytes[slot]
            if beat != seen or beat == 0:
                self._seen[slot] = beat
                self._silent_seconds[slot] = 0.0
            else:
                # A gap of our own says nothing of the children.
                self._silent_seconds[slot] += min(passed, self._check_seconds)

    def silent_seconds(self, slot: int) -> float:
        """Since the child's byte last changed; 0 before its first beat."""
        return self._silent_seconds[slot]
