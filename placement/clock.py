"""Time and randomness as ports: the only module that touches the real ones."""

import os
import secrets
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for what people read, monotonic time for ages and deadlines."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""
        ...


class Randomness(Protocol):
    """Source of ids, jitter and secrets."""

    def token(self, size_bytes: int) -> bytes:
        """That many unpredictable bytes."""
        ...

    def uniform(self) -> float:
        """A number in [0, 1)."""
        ...


class SystemClock:
    """The machine's clocks."""

    now_ns = staticmethod(time.time_ns)
    """Nanoseconds since the Unix epoch."""
    monotonic = staticmethod(time.monotonic)
    """Seconds on a clock that never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""
        import asyncio  # a supervisor has no loop, and does without

        await asyncio.sleep(seconds)


class SystemRandomness:
    """The kernel's random source."""

    def token(self, size_bytes: int) -> bytes:
        """That many unpredictable bytes."""
        return os.urandom(size_bytes)

    def uniform(self) -> float:
        """A number in [0, 1)."""
        return secrets.randbits(53) / (1 << 53)
