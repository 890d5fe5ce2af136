"""The keeper: runs every background duty in turn, throttled, and survives each one's failures."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from placement.clock import Clock
from placement.errors import MetastoreUnavailable, PeerUnavailable

REST_FACTOR = 0.5
"""After a piece of work a duty rests half as long as the work took, so that clients go first."""
FAILURE_PAUSE_SECONDS = 2.0

log = logging.getLogger("ostraka.keeper")


@dataclass(slots=True)
class Duty:
    """One duty: `work` does a bounded piece and says whether there is more to do at once."""

    name: str
    work: Callable[[], Awaitable[bool | None]]
    every_seconds: float
    first_after_seconds: float = 0.0
    failures: int = field(default=0)


class Keeper:
    """Owns one task a duty."""

    def __init__(self, duties: list[Duty], clock: Clock) -> None:
        self._duties = duties
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for duty in self._duties:
                group.create_task(self._repeat(duty), name=duty.name)

    async def _repeat(self, duty: Duty) -> None:
        await self._clock.sleep(duty.first_after_seconds)
        while True:
            begun = self._clock.monotonic()
            try:
                more = await duty.work()
            except (MetastoreUnavailable, PeerUnavailable) as error:
                duty.failures += 1
                log.warning("%s: %s", duty.name, error)
                await self._clock.sleep(FAILURE_PAUSE_SECONDS)
                continue
            except Exception:
                # A bug in one duty must not stop the others; it is shown and tried again.
                duty.failures += 1
                log.exception("%s failed", duty.name)
                await self._clock.sleep(FAILURE_PAUSE_SECONDS)
                continue
            took = self._clock.monotonic() - begun
            await self._clock.sleep(max(took * REST_FACTOR, 0.0 if more else duty.every_seconds))
