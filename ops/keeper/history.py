"""History: the metadata store forgets revisions that nobody needs any more.

Watches resume and listings page at revisions of the last minutes; what is older only fills the store.
"""

import contextlib
from collections import deque

from gateway.metadata import keys
from placement.clock import Clock
from placement.errors import Compacted
from placement.metastore.port import Metastore, Range

KEPT_SECONDS = 300.0


class History:
    """The duty. It remembers which revision was the newest at which time."""

    def __init__(
        self, metastore: Metastore, clock: Clock, *, kept_seconds: float = KEPT_SECONDS
    ) -> None:
        self._metastore = metastore
        self._clock = clock
        self._kept_seconds = kept_seconds
        self._seen: deque[tuple[float, int]] = deque()
        self._compacted = 0

    async def work(self) -> None:
        """Note the present revision; compact to the newest one that is old enough."""
        now = self._clock.monotonic()
        found = await self._metastore.range(Range(keys.MAP_CURRENT))
        self._seen.append((now, found.revision))
        revision = 0
        while self._seen and self._seen[0][0] <= now - self._kept_seconds:
            revision = self._seen.popleft()[1]
        if revision > self._compacted:
            # Another keeper may have done more before it stepped down.
            with contextlib.suppress(Compacted):
                await self._metastore.compact(revision)
            self._compacted = revision
