"""Buffers in which large bodies are received and coded: few, of one size, with their pages in place.

The pool bounds the memory of large writes in a process: a request that finds none free waits for one.
"""

import asyncio
import mmap
from collections import deque


class BufferPool:
    """At most `count` buffers of `size_bytes`, made when first needed and kept."""

    def __init__(self, size_bytes: int, count: int) -> None:
        assert count >= 1
        self.size_bytes = size_bytes
        self._unmade = count
        self._free: list[memoryview] = []
        self._waiting: deque[asyncio.Future[memoryview]] = deque()

    async def acquire(self) -> memoryview:
        """A buffer, in order of asking; waits while all are in use."""
        buffer = None if self._waiting else self.acquire_now()
        if buffer is not None:
            return buffer
        waiter: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release(waiter.result())
            raise

    def acquire_now(self) -> memoryview | None:
        """A buffer if one is free."""
        if self._free:
            return self._free.pop()
        if self._unmade:
            self._unmade -= 1
            return _prefaulted(self.size_bytes)
        return None

    def release(self, buffer: memoryview) -> None:
        """Give one back; its contents may be overwritten at once."""
        assert len(buffer) == self.size_bytes
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(buffer)
                return
        self._free.append(buffer)


def _prefaulted(size_bytes: int) -> memoryview:
    """Anonymous memory whose pages are there: the first use costs no page faults."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)
    return memoryview(mmap.mmap(-1, size_bytes, flags=flags))
