"""Appending to a file in whole blocks, past the page cache: for bytes that come from elsewhere in pieces.

Why past the page cache: see shard_file.py, which does the same for writers on this host.
"""

import errno
import mmap
import os
from collections import deque

from storage_node.files import FileLayer
from storage_node.port import Buffer
from storage_node.shard_file import BLOCK_SIZE_BYTES, O_DIRECT

DIRECT_SIZE_BYTES_MIN = 256 << 10
"""Shorter pieces go through the page cache: they are of blobs that one flush takes to the disk."""
_COPY_SIZE_BYTES = 1 << 20


class BlockWriter:
    """Writes pieces of files. Threads may share one; each that writes takes a buffer of 1 MiB, which
    is kept for the next."""

    def __init__(self, files: FileLayer) -> None:
        self._files = files
        self._buffers: deque[memoryview] = deque()

    def append(self, path: str, carried: bytes, payload: Buffer, offset: int) -> bytes:
        """Write `carried`, which belongs at `offset`, and the payload after it; what does not fill a
        block is given back, to be carried to the next piece. Raises OSError."""
        total = len(carried) + len(payload)
        if not O_DIRECT or len(payload) < DIRECT_SIZE_BYTES_MIN or offset % BLOCK_SIZE_BYTES:
            self._write(path, [carried, payload], offset)
            return b""
        try:
            fd = self._files.open(path, os.O_WRONLY | O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a filesystem without direct I/O
                raise
            self._write(path, [carried, payload], offset)
            return b""
        try:
            whole = total - total % BLOCK_SIZE_BYTES
            self._write_blocks(fd, carried, memoryview(payload), whole, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a device with larger blocks
                raise
            self._write(path, [carried, payload], offset)
            return b""
        finally:
            self._files.close(fd)
        return bytes(memoryview(payload)[whole - len(carried) :])

    def _write(self, path: str, buffers: list[Buffer], offset: int) -> None:
        fd = self._files.open(path, os.O_WRONLY)
        try:
            self._files.pwritev(fd, [buffer for buffer in buffers if buffer], offset)
        finally:
            self._files.close(fd)

    def _write_blocks(
        self, fd: int, carried: bytes, payload: memoryview, whole: int, offset: int
    ) -> None:
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = memoryview(mmap.mmap(-1, _COPY_SIZE_BYTES))
        try:
            done = 0
            while done < whole:
                size = min(_COPY_SIZE_BYTES, whole - done)
                head = b"" if done else carried
                start = done + len(head) - len(carried)
                buffer[: len(head)] = head
                buffer[len(head) : size] = payload[start : start + size - len(head)]
                self._files.pwritev(fd, [buffer[:size]], offset + done)
                done += size
        finally:
            self._buffers.append(buffer)
