"""A signal that arrives while completions are asked for must not lose a flush."""

import asyncio
import errno
import os
from pathlib import Path

import pytest

from storage_node.files import RealFiles
from storage_node.flush import AioFlusher, ThreadFlusher


class Interrupted:
    """A context whose first calls are interrupted."""

    def __init__(self, real: object, times: int) -> None:
        self.times = times
        self._real = real

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def process_events(self) -> object:
        """What the C module raises when the kernel says EINTR."""
        if self.times:
            self.times -= 1
            raise SystemError(errno.EINTR, "Interrupted system call")
        return self._real.process_events()  # type: ignore[attr-defined]


def test_an_interrupted_system_call_is_made_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        try:
            flusher = AioFlusher(loop, ThreadFlusher(RealFiles()))
        except (OSError, ImportError):
            pytest.skip("no AIO on this machine")
        context = Interrupted(flusher._context, times=2)
        flusher._context = context
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        try:
            os.write(fd, b"x" * 100)
            flush = flusher.flush([fd])
            await asyncio.wait_for(flush.done, 5)
            assert flush.errors == [None]
            assert context.times == 0
        finally:
            os.close(fd)
            flusher.close()

    asyncio.run(scenario())
