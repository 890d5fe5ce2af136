"""Flushing many files at once: Linux AIO (one system call for all drives), threads, or in line.

A flush that fails is reported for its file and never retried: after an error the kernel may have
dropped the very pages, and a second flush would then succeed over lost data.
"""

import asyncio
import errno
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

from storage_node.files import FileLayer

log = logging.getLogger(__name__)

_AIO_DEPTH = 512
_NEGATIVE = 1 << 63


class Flush:
    """A group of flushes under way. `done` resolves when all have ended; `errors` is per file."""

    __slots__ = ("_began", "_left", "_loop", "done", "errors", "seconds")

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        self.errors: list[OSError | None] = [None] * count
        self.seconds: list[float] = [0.0] * count
        """How long each took."""
        self._loop = loop
        self._began = loop.time()
        self._left = set(range(count))
        self.done: asyncio.Future[None] = loop.create_future()
        if count == 0:
            self.done.set_result(None)

    @property
    def left(self) -> int:
        """Files whose flush has not ended."""
        return len(self._left)

    def end(self, position: int, error: OSError | None) -> None:
        """One file's flush has ended."""
        if position in self._left:
            self._left.remove(position)
            self.seconds[position] = self._loop.time() - self._began
            self.errors[position] = error
            if not self._left and not self.done.done():
                self.done.set_result(None)

    def expire(self) -> None:
        """Count what has not ended as failed: a drive that stalls must not hold up the others."""
        for position in list(self._left):
            self.end(position, OSError(errno.ETIMEDOUT, "the flush stalled"))


class Flusher(Protocol):
    """Puts files on stable storage."""

    def flush(self, data: Sequence[int], whole: Sequence[int] = ()) -> Flush:
        """Call fdatasync on every file of `data`, fsync on every file or directory of `whole`."""
        ...

    def close(self) -> None:
        """Give resources back; nothing may be under way."""
        ...


class InlineFlusher:
    """Flushes at once, one after the other: for the simulator."""

    def __init__(self, files: FileLayer) -> None:
        self._files = files

    def flush(self, data: Sequence[int], whole: Sequence[int] = ()) -> Flush:
        """See Flusher."""
        flush = Flush(len(data) + len(whole), asyncio.get_running_loop())
        for position, fd in enumerate([*data, *whole]):
            flush.end(position, _flush_one(self._files, fd, position >= len(data)))
        return flush

    def close(self) -> None:
        """See Flusher."""


class ThreadFlusher:
    """A thread for each flush: the fallback where AIO is not to be had.

    Threads are made as needed; the bound leaves room for those that a stalled drive holds.
    """

    def __init__(self, files: FileLayer, threads: int = 64) -> None:
        self._files = files
        self._threads = ThreadPoolExecutor(threads, "flush")

    def flush(self, data: Sequence[int], whole: Sequence[int] = ()) -> Flush:
        """See Flusher."""
        loop = asyncio.get_running_loop()
        flush = Flush(len(data) + len(whole), loop)

        def work(position: int, fd: int) -> None:
            error = _flush_one(self._files, fd, position >= len(data))
            loop.call_soon_threadsafe(flush.end, position, error)

        for position, fd in enumerate([*data, *whole]):
            self._threads.submit(work, position, fd)
        return flush

    def close(self) -> None:
        """See Flusher."""
        self._threads.shutdown(wait=False)


class AioFlusher:
    """Linux AIO: one system call submits the flushes of all drives, an eventfd tells their end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fallback: ThreadFlusher) -> None:
        """Raises OSError or ImportError where the machine has no AIO."""
        from caio import linux_aio

        self._operation = linux_aio.Operation
        self._context: Any = linux_aio.Context(_AIO_DEPTH)
        self._loop = loop
        self._fallback = fallback
        loop.add_reader(self._context.fileno, self._on_events)

    def flush(self, data: Sequence[int], whole: Sequence[int] = ()) -> Flush:
        """See Flusher."""
        flush = Flush(len(data) + len(whole), self._loop)
        operations = [self._operation.fdsync(fd) for fd in data]
        operations += [self._operation.fsync(fd) for fd in whole]
        for position, operation in enumerate(operations):
            operation.set_callback(_Ending(flush, position))
        accepted = 0
        if operations:
            try:
                accepted = self._context.submit(*operations)
            except (OSError, SystemError, RuntimeError, OverflowError, ValueError, TypeError):
                log.warning("AIO takes no flushes at present; threads do", exc_info=True)
        if accepted < len(operations):
            self._flush_by_threads(flush, [*data, *whole], accepted, len(data))
        return flush

    def _flush_by_threads(
        self, flush: Flush, fds: list[int], accepted: int, data_count: int
    ) -> None:
        split = max(accepted, data_count)
        rest = self._fallback.flush(fds[accepted:split], fds[split:])

        def copy(_: asyncio.Future[None]) -> None:
            for position, error in enumerate(rest.errors, accepted):
                flush.end(position, error)

        rest.done.add_done_callback(copy)

    def _on_events(self) -> None:
        with suppress(BlockingIOError):  # several completions may share one wake-up
            self._context.poll()
        while self._reap():
            pass

    def _reap(self) -> bool:
        """Hear of some completions; whether there may be more. A signal interrupts the system call."""
        try:
            return bool(self._context.process_events())
        except SystemError as error:
            if error.args[:1] != (errno.EINTR,):
                raise
            return True

    def close(self) -> None:
        """See Flusher."""
        self._loop.remove_reader(self._context.fileno)
        self._fallback.close()


class _Ending:
    """Called by caio with the kernel's result, a negative errno as an unsigned number."""

    __slots__ = ("_flush", "_position")

    def __init__(self, flush: Flush, position: int) -> None:
        self._flush = flush
        self._position = position

    def __call__(self, result: int) -> None:
        error = None
        if result >= _NEGATIVE:
            code = 2 * _NEGATIVE - result
            error = OSError(code, "flush failed")
        self._flush.end(self._position, error)


def _flush_one(files: FileLayer, fd: int, whole: bool) -> OSError | None:
    try:
        if whole:
            files.fsync(fd)
        else:
            files.fdatasync(fd)
    except OSError as error:
        return error
    return None


def open_flusher(files: FileLayer) -> Flusher:
    """The best flusher for real files on this machine."""
    fallback = ThreadFlusher(files)
    try:
        return AioFlusher(asyncio.get_running_loop(), fallback)
    except (ImportError, OSError, SystemError, NotImplementedError) as error:
        log.warning("no Linux AIO here (%s): flushing by threads", error)
        return fallback
