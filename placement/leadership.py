"""One leader a duty: a key under this process's lease says who leads.

A lease is trusted for less than its length, counted on our own monotonic clock from before it was
renewed: so nobody else can lead while we believe that we do, unless the clocks' rates differ wildly.
"""

import asyncio
import contextlib
import logging

from placement.clock import Clock
from placement.errors import LeaseNotFound, MetastoreUnavailable
from placement.membership import LEADERS, PROGRESS
from placement.metastore.port import Metastore, Put, Txn, absent

LEASE_SECONDS = 10
NO_TERM = 0
_log = logging.getLogger("ostraka.leadership")


def leader_key(duty: str) -> bytes:
    """The key that says who leads it."""
    return LEADERS + duty.encode()


class Leadership:
    """The duties that this process leads."""

    def __init__(
        self, metastore: Metastore, name: str, clock: Clock, *, lease_seconds: int = LEASE_SECONDS
    ) -> None:
        self._metastore = metastore
        self._name = name
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._lease = 0
        self._trusted_until = 0.0
        self._renewing = asyncio.Lock()
        self._held: dict[str, int] = {}
        self._published: dict[str, tuple[int, bytes]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to keep the lease alive."""
        self._task = asyncio.create_task(self._keep_alive(), name="leadership")

    async def close(self) -> None:
        """Step down: another may lead at once."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._held.clear()
        if self._lease:
            with contextlib.suppress(MetastoreUnavailable, LeaseNotFound):
                await self._metastore.lease_revoke(self._lease)

    @property
    def held(self) -> frozenset[str]:
        """Duties led now."""
        return frozenset(self._held) if self._trusted else frozenset()

    def term(self, duty: str) -> int:
        """Names the unbroken time for which this process has led the duty: the mod_revision of its
        `leader_key`. `NO_TERM` while it does not lead. Between two terms others may have led."""
        return self._held.get(duty, NO_TERM) if self._trusted else NO_TERM

    @property
    def _trusted(self) -> bool:
        return self._clock.monotonic() < self._trusted_until

    async def leads(self, duty: str) -> bool:
        """Whether this process leads the duty, trying to. Raises MetastoreUnavailable."""
        if not self._trusted:
            # One at a time: a lease that another call granted meanwhile must not be lost, for what
            # is held under it would end with it.
            async with self._renewing:
                if not self._trusted:
                    self._held.clear()
                    self._published.clear()
                    await self._renew()
        if duty in self._held:
            return True
        key, lease = leader_key(duty), self._lease
        try:
            await self._metastore.txn(Txn((absent(key),), (Put(key, self._name.encode(), lease),)))
        except LeaseNotFound:
            self._trusted_until = 0.0
            return False
        # Whatever was answered: it may be ours since before, when an answer was lost.
        (found,) = await self._metastore.get_many([key])
        if found is None or found.lease != lease:
            return False
        if lease != self._lease:
            return False  # it ended meanwhile, and what was put under it ends, too
        self._held[duty] = found.mod_revision
        _log.info("%s leads %s", self._name, duty)
        return True

    async def publish(self, duty: str, value: bytes) -> None:
        """What operators may see of the duty's work, for as long as we live. Raises
        MetastoreUnavailable."""
        if not self._trusted or self._published.get(duty) == (self._lease, value):
            return
        with contextlib.suppress(LeaseNotFound):
            await self._metastore.txn(Txn((), (Put(PROGRESS + duty.encode(), value, self._lease),)))
            self._published[duty] = (self._lease, value)

    async def _keep_alive(self) -> None:
        while True:
            await self._clock.sleep(self._lease_seconds / 4)
            if self._lease:
                with contextlib.suppress(MetastoreUnavailable):
                    async with self._renewing:
                        await self._renew()

    async def _renew(self) -> None:
        asked_at = self._clock.monotonic()
        if self._lease:
            try:
                await self._metastore.lease_keep_alive(self._lease)
            except LeaseNotFound:
                self._lease = 0
                self._held.clear()
        if not self._lease:
            self._lease = await self._metastore.lease_grant(self._lease_seconds)
        self._trusted_until = asked_at + self._lease_seconds * 0.75
