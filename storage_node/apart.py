"""A drive's calls that may block, apart from the event loop: few at a time, and each with a deadline.

A disk that is stuck (a dead device, a network filesystem without its server) answers no call, and a
call from the loop's thread would hold up every other drive with it. Here it holds at most a few
threads, and the drive has failed when a call is late.
"""

import asyncio
import errno
from collections.abc import Callable
from typing import TypeVar

from storage_node.offload import Offload

T = TypeVar("T")

CALLS_MAX = 4
"""Threads that one drive may hold with such calls."""


class Apart:
    """The door of one drive. Belongs to the loop's thread."""

    def __init__(
        self, offload: Offload, on_stalled: Callable[[str], None], call_seconds: float
    ) -> None:
        self._offload = offload
        self._on_stalled = on_stalled
        self._call_seconds = call_seconds
        self._free = asyncio.Semaphore(CALLS_MAX)
        self._is_stalled = False

    async def __call__(
        self, what: str, work: Callable[[], T], unwanted: Callable[[T], None] | None = None
    ) -> T:
        """The result of `work`. One that comes when nobody waits any more goes to `unwanted`.

        Raises what `work` raises, and TimeoutError (an OSError) when it is late or something else
        of this drive was.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._call_seconds
        if not self._is_stalled:
            await self._enter(what)
        if self._is_stalled:
            raise OSError(errno.ETIMEDOUT, f"{what}: the drive stalls")
        running = self._offload(work)
        running.add_done_callback(self._leave)
        ended = False
        try:
            done, _ = await asyncio.wait({running}, timeout=max(0.0, deadline - loop.time()))
            ended = bool(done)
        finally:
            if not ended:
                running.add_done_callback(lambda late: _dispose(late, unwanted))
        if not ended:
            raise self._stall(what)
        return running.result()

    def let(self, work: Callable[[], object]) -> None:
        """Run it some time; nobody waits, and errors do not matter (closing of descriptors)."""
        try:
            running = self._offload(work)
        except RuntimeError:  # the node is closed, and its threads are gone
            return
        running.add_done_callback(lambda ended: _dispose(ended, None))

    async def _enter(self, what: str) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(self._call_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise self._stall(what) from None
        if self._is_stalled:
            self._free.release()

    def _leave(self, _: "asyncio.Future[T]") -> None:
        self._free.release()

    def _stall(self, what: str) -> OSError:
        self._is_stalled = True
        self._on_stalled(f"{what} stalled")
        return OSError(errno.ETIMEDOUT, f"{what} stalled")


def _dispose(late: "asyncio.Future[T]", unwanted: Callable[[T], None] | None) -> None:
    if not late.cancelled() and late.exception() is None and unwanted is not None:
        unwanted(late.result())
