"""A family of keys held in memory: read once, then kept up by a watch."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from placement.clock import Clock, Randomness
from placement.errors import PlacementError
from placement.metastore.port import Event, KeyValue, Metastore, Range, prefix_end

RETRY_SECONDS = 0.5
_PAGE_RECORDS = 1000
log = logging.getLogger("ostraka.mirror")


class Mirror:
    """Tells `changed(key, value or None)` of every key under a prefix: of all at first, then of each
    that changes. After a lost watch everything is read anew, and what went meanwhile is told too.

    One task, owned here: `start` and `close` in the running loop.
    """

    def __init__(
        self,
        metastore: Metastore,
        prefix: bytes,
        *,
        clock: Clock,
        randomness: Randomness,
        changed: Callable[[bytes, bytes | None], None],
    ) -> None:
        self._metastore = metastore
        self._prefix = prefix
        self._clock = clock
        self._randomness = randomness
        self._changed = changed
        self._known: dict[bytes, int] = {}
        self._read = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether everything was read once."""
        return self._read.is_set()

    def start(self) -> None:
        """Begin to read and to follow."""
        assert self._task is None
        self._task = asyncio.create_task(self._follow(), name=f"mirror {self._prefix!r}")

    async def close(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def loaded(self, seconds: float) -> bool:
        """Wait until everything was read once; whether that came to pass in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._read.wait()
        return self._read.is_set()

    async def load(self) -> int:
        """Read everything; the revision from which a watch tells the rest."""
        start, end = self._prefix, prefix_end(self._prefix)
        seen: dict[bytes, int] = {}
        revision = 0
        while True:
            page = await self._metastore.range(Range(start, end, limit=_PAGE_RECORDS))
            revision = revision or page.revision
            for kv in page.kvs:
                seen[kv.key] = kv.mod_revision
                self._take(kv)
            if not page.more:
                break
            start = page.kvs[-1].key + b"\x00"
        for key in self._known.keys() - seen.keys():
            del self._known[key]
            self._changed(key, None)
        self._read.set()
        return revision

    async def _follow(self) -> None:
        while True:
            try:
                revision = await self.load()
                watch = self._metastore.watch(
                    self._prefix, prefix_end(self._prefix), start_revision=revision + 1
                )
                async for batch in watch:
                    for event in batch.events:
                        self._apply(event)
            except PlacementError as error:
                log.info("the watch of %r ended: %s", self._prefix, error)
            await self._clock.sleep(RETRY_SECONDS * (0.5 + self._randomness.uniform()))

    def _apply(self, event: Event) -> None:
        if not event.deleted:
            self._take(event.kv)
        elif self._known.pop(event.kv.key, None) is not None:
            self._changed(event.kv.key, None)

    def _take(self, kv: KeyValue) -> None:
        if self._known.get(kv.key, 0) >= kv.mod_revision:
            return  # a page that was read later told more
        self._known[kv.key] = kv.mod_revision
        self._changed(kv.key, kv.value)
