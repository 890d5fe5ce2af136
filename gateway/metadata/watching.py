"""A watch that keeps caches honest: it follows some prefixes for ever and says what changed."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from placement.clock import Clock, Randomness
from placement.errors import PlacementError
from placement.metastore.port import Metastore, prefix_end

_log = logging.getLogger(__name__)
RETRY_SECONDS_MIN = 0.05
RETRY_SECONDS_MAX = 2.0


class Watcher:
    """Calls `changed(key)` for every change under the prefixes and `lost()` whenever a change may
    have been missed: at the start, and when a watch broke. One task a prefix, owned here."""

    def __init__(
        self,
        metastore: Metastore,
        prefixes: Sequence[bytes],
        *,
        clock: Clock,
        randomness: Randomness,
        changed: Callable[[bytes], None],
        lost: Callable[[], None],
    ) -> None:
        self._metastore = metastore
        self._prefixes = tuple(prefixes)
        self._clock = clock
        self._randomness = randomness
        self._changed = changed
        self._lost = lost
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to follow; needs a running loop."""
        assert not self._tasks
        self._tasks = [
            asyncio.create_task(self._follow(prefix), name=f"watch {prefix!r}")
            for prefix in self._prefixes
        ]

    async def close(self) -> None:
        """End the tasks and wait for them."""
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                _log.error("a watch had ended", exc_info=result)
        self._tasks = []

    async def _follow(self, prefix: bytes) -> None:
        pause_seconds = RETRY_SECONDS_MIN
        while True:
            self._lost()
            try:
                async for batch in self._metastore.watch(prefix, prefix_end(prefix)):
                    if not batch.events:
                        # The watch stands from here on; what was cached before may be older.
                        self._lost()
                    for event in batch.events:
                        self._changed(event.kv.key)
                    pause_seconds = RETRY_SECONDS_MIN
            except PlacementError as error:
                # Once, not at each try: a peer that restarts is away for seconds.
                level = logging.WARNING if pause_seconds == RETRY_SECONDS_MIN else logging.DEBUG
                _log.log(level, "watch of %r broke: %s", prefix, error)
            self._lost()
            await self._clock.sleep(pause_seconds * (0.5 + self._randomness.uniform()))
            pause_seconds = min(pause_seconds * 2, RETRY_SECONDS_MAX)
