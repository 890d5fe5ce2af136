"""The file of a large shard, written by whoever received the bytes, past the page cache if it is long.

Through the page cache every byte is copied once more, into pages that are cold and that readers of
other objects lose; and the flush at the end has all of it to write. So a long file is written in
blocks, by direct I/O, and its odd end as usual. The page cache then holds what is read.
"""

import errno
import fcntl
import os

from storage_node.port import Buffer
from storage_node.writeback import begin_writeback

BLOCK_SIZE_BYTES = 4096
"""Direct I/O wants memory, offset and length in multiples of the device's block: 512 or 4,096."""
O_DIRECT: int = getattr(os, "O_DIRECT", 0)
"""The flag of direct I/O; 0 on systems without."""
WRITEBACK_SIZE_BYTES = 4 << 20
"""Without direct I/O: written by that much, the kernel is told to take it to the disk."""


class ShardFile:
    """An open file of a staged shard. Every method blocks; threads may write different parts."""

    __slots__ = ("_descriptor", "_direct", "_written_back", "device")

    def __init__(self, path: str, *, direct: bool) -> None:
        """Open the file, which the node has made. Raises OSError; a file that vanished is not made
        again. `direct` is a wish: some filesystems do not know direct I/O."""
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(path, flags | (O_DIRECT if direct else 0))
        except OSError as error:
            if not direct or error.errno != errno.EINVAL:
                raise
            self._descriptor = os.open(path, flags)
            direct = False
        self._direct = direct and O_DIRECT != 0
        self._written_back = 0
        self.device: int = os.fstat(self._descriptor).st_dev
        """Files of one device gain nothing from being written at once."""

    def write(self, part: memoryview, offset: int) -> None:
        """Write at a multiple of the block size a part that begins and ends at such in memory.
        Raises OSError."""
        if self._direct:
            try:
                written = os.pwrite(self._descriptor, part, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                written = 0  # a device with larger blocks
            if written == len(part):
                return
            self._be_plain()
            part, offset = part[written:], offset + written
        self._write_plain(part, offset)
        end = offset + len(part)
        if end - self._written_back >= WRITEBACK_SIZE_BYTES:
            begin_writeback(self._descriptor, self._written_back, end - self._written_back)
            self._written_back = end

    def write_end(self, part: Buffer, offset: int) -> None:
        """Write the last bytes, of any length, at any offset. Raises OSError."""
        if self._direct:
            self._be_plain()
        self._write_plain(memoryview(part), offset)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)

    def _be_plain(self) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~O_DIRECT)
        self._direct = False

    def _write_plain(self, rest: memoryview, offset: int) -> None:
        """All of it, also when the disk is nearly full or a signal comes."""
        while rest:
            count = os.pwrite(self._descriptor, rest, offset)
            if count == 0:
                raise OSError(errno.EIO, "a write wrote nothing")
            rest = rest[count:]
            offset += count
