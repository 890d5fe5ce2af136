"""Leases: which live, until when, and the task that ends them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from placement.clock import Clock, Randomness
from placement.errors import LeaseNotFound

TTL_SECONDS_MIN = 2
TTL_SECONDS_MAX = 9_000_000_000
LEASES_MAX = 65_536
_CHECK_SECONDS_MAX = 0.5


class Leases:
    """The lives of leases by one process's monotonic clock."""

    def __init__(self, clock: Clock, randomness: Randomness) -> None:
        self._clock = clock
        self._randomness = randomness
        self._deadlines: dict[int, tuple[int, float]] = {}
        self._watcher: asyncio.Task[None] | None = None

    def __contains__(self, lease: int) -> bool:
        return lease in self._deadlines

    def __len__(self) -> int:
        return len(self._deadlines)

    def new_id(self) -> int:
        """A positive number no living lease has."""
        while True:
            lease = int.from_bytes(self._randomness.token(8)) >> 1
            if lease and lease not in self._deadlines:
                return lease

    def add(self, lease: int, ttl_seconds: int) -> None:
        """A lease lives from now."""
        self._deadlines[lease] = (ttl_seconds, self._clock.monotonic() + ttl_seconds)

    def replace(self, leases: Iterable[tuple[int, int]]) -> None:
        """These (id, ttl) live, each with its whole time before it, and no others."""
        self._deadlines.clear()
        for lease, ttl_seconds in leases:
            self.add(lease, ttl_seconds)

    def renew(self, lease: int) -> int:
        """Its time starts again; the seconds. Raises LeaseNotFound."""
        if lease not in self._deadlines:
            raise LeaseNotFound(f"lease {lease} has expired or never was")
        ttl_seconds = self._deadlines[lease][0]
        self.add(lease, ttl_seconds)
        return ttl_seconds

    def remove(self, lease: int) -> bool:
        """Whether it was there."""
        return self._deadlines.pop(lease, None) is not None

    def due(self) -> list[int]:
        """Those whose time is over."""
        now = self._clock.monotonic()
        return [lease for lease, (_, deadline) in self._deadlines.items() if deadline <= now]

    def watch(self, expire: Callable[[int], Awaitable[None]]) -> None:
        """Run the task that ends leases, if there are any to end and it is not running."""
        if self._deadlines and (self._watcher is None or self._watcher.done()):
            self._watcher = asyncio.get_running_loop().create_task(self._run(expire))

    async def close(self) -> None:
        """End the task."""
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher

    async def _run(self, expire: Callable[[int], Awaitable[None]]) -> None:
        while self._deadlines:
            for lease in self.due():
                await expire(lease)
            if not self._deadlines:
                return
            soonest = min(deadline for _, deadline in self._deadlines.values())
            wait = soonest - self._clock.monotonic()
            await self._clock.sleep(min(max(wait, 0.01), _CHECK_SECONDS_MAX))


def clamp_ttl(ttl_seconds: int) -> int:
    """At least two seconds, as etcd makes of 1. Raises ValueError for nonsense."""
    if not 0 < ttl_seconds <= TTL_SECONDS_MAX:
        raise ValueError(f"a lease of {ttl_seconds} seconds")
    return max(ttl_seconds, TTL_SECONDS_MIN)
