"""Running disk work off the event loop's thread, as a port: threads in production, in line in tests."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")


class Offload(Protocol):
    """Somewhere to run a call that may block."""

    def __call__(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Run it; the future has its result or exception."""
        ...

    def close(self) -> None:
        """Wait for what is running."""
        ...


class ThreadOffload:
    """A small pool of threads, made as they are needed. `waits` false: closing does not wait for calls
    that are running and change nothing (reads)."""

    def __init__(self, threads: int, *, waits: bool = True) -> None:
        self._threads = ThreadPoolExecutor(threads, "disk")
        self._waits = waits

    def __call__(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """See Offload."""
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """See Offload."""
        self._threads.shutdown(wait=self._waits, cancel_futures=True)


class InlineOffload:
    """Runs at once, in the caller's thread."""

    def __call__(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """See Offload."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(work())
        except Exception as error:  # whoever awaits gets it
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Nothing is running."""
