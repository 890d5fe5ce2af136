"""The file layer: every system call by which a drive touches its disk, as a port.

The real implementation is thin. The test double (tests/sim/disk.py) forgets at a crash what was not
flushed, and can fail or damage what it is told to. SQLite does its own I/O on the drive's index,
which is why nothing depends on that file: it can be rebuilt.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from storage_node.port import Buffer
from storage_node.uncleared import buffer_of

JOIN_SIZE_BYTES_MAX = 64 << 10
"""Buffers of so little in all are joined before they are written."""
IOVECS_MAX = 1024
"""Buffers one pwritev takes on Linux (IOV_MAX)."""


class FileStatus(Protocol):
    """The part of a stat result that drives look at."""

    @property
    def st_dev(self) -> int:
        """Device."""
        ...

    @property
    def st_ino(self) -> int:
        """Inode."""
        ...

    @property
    def st_nlink(self) -> int:
        """Names left; 0 once unlinked."""
        ...

    @property
    def st_size(self) -> int:
        """Length in bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Space:
    """What a filesystem has, in bytes."""

    capacity_bytes: int
    free_bytes: int


class FileLayer(Protocol):
    """POSIX files by descriptor and path. Everything raises OSError, as the os module does."""

    def open(self, path: str, flags: int) -> int:
        """Open (and with O_CREAT make, mode 0600) a file or a directory."""
        ...

    def close(self, fd: int) -> None:
        """Give the descriptor back."""
        ...

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Read up to that many bytes; fewer only at the end of the file."""
        ...

    def pread_now(self, fd: int, length: int, offset: int) -> Buffer | None:
        """Exactly that many bytes where it needs no disk; None when not all are in memory, or the
        file ends before."""
        ...

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all buffers in a row; a write that cannot be completed raises."""
        ...

    def ftruncate(self, fd: int, length: int) -> None:
        """Cut or extend to that length."""
        ...

    def fdatasync(self, fd: int) -> None:
        """Put the file's bytes, and the size needed to read them, on stable storage."""
        ...

    def fsync(self, fd: int) -> None:
        """Everything about the file; for a directory its entries (fdatasync may skip those)."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Rename, replacing the target."""
        ...

    def unlink(self, path: str) -> None:
        """Remove a name."""
        ...

    def mkdir(self, path: str) -> None:
        """Make a directory; its parent must exist."""
        ...

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, in any order."""
        ...

    def stat(self, path: str) -> FileStatus:
        """What the name leads to."""
        ...

    def fstat(self, fd: int) -> FileStatus:
        """What the descriptor leads to."""
        ...

    def space(self, path: str) -> Space:
        """Capacity and free bytes of the filesystem under that path."""
        ...

    def sqlite_path(self, path: str) -> str:
        """Where SQLite shall keep the database of that name."""
        ...


class RealFiles:
    """The operating system's files."""

    def open(self, path: str, flags: int) -> int:
        """See FileLayer."""
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def close(self, fd: int) -> None:
        """See FileLayer."""
        os.close(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """See FileLayer."""
        data = os.pread(fd, length, offset)
        if len(data) == length or not data:
            return data
        pieces = [data]
        got = len(data)
        while got < length:  # a signal or the kernel's 2 GiB bound may cut a read short
            data = os.pread(fd, length - got, offset + got)
            if not data:
                break
            pieces.append(data)
            got += len(data)
        return b"".join(pieces)

    def pread_into(self, fd: int, buffer: bytearray | memoryview, offset: int) -> int:
        """Fill the buffer; fewer bytes only at the end of the file."""
        view, got = memoryview(buffer), 0
        while got < len(view):
            count = os.preadv(fd, (view[got:],), offset + got)
            if not count:
                break
            got += count
        return got

    def pread_now(self, fd: int, length: int, offset: int) -> Buffer | None:
        """See FileLayer."""
        buffer = buffer_of(length)
        try:
            got = os.preadv(fd, (buffer,), offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            # A filesystem that cannot tell (tmpfs, overlay).
            data = self.pread(fd, length, offset)
            return data if len(data) == length else None
        return buffer if got == length else None

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        """See FileLayer."""
        if sum(map(len, buffers)) <= JOIN_SIZE_BYTES_MAX:
            # A short copy costs less than an entry for each buffer.
            data = b"".join(buffers)
            written = os.pwrite(fd, data, offset)
            if written != len(data):
                self._write_rest(fd, memoryview(data), offset, written)
            return
        for start in range(0, len(buffers), IOVECS_MAX):
            chunk = buffers[start : start + IOVECS_MAX]
            size = sum(map(len, chunk))
            written = os.pwritev(fd, chunk, offset)
            if written != size:
                self._write_rest(fd, memoryview(b"".join(chunk)), offset, written)
            offset += size

    @staticmethod
    def _write_rest(fd: int, data: memoryview, offset: int, written: int) -> None:
        while written < len(data):
            count = os.pwrite(fd, data[written:], offset + written)
            if count == 0:
                raise OSError(errno.EIO, "a write made no progress")
            written += count

    def ftruncate(self, fd: int, length: int) -> None:
        """See FileLayer."""
        os.ftruncate(fd, length)

    def fdatasync(self, fd: int) -> None:
        """See FileLayer."""
        os.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        """See FileLayer."""
        os.fsync(fd)

    def rename(self, source: str, target: str) -> None:
        """See FileLayer."""
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        """See FileLayer."""
        os.unlink(path)

    def mkdir(self, path: str) -> None:
        """See FileLayer."""
        os.mkdir(path, 0o700)

    def listdir(self, path: str) -> list[str]:
        """See FileLayer."""
        return os.listdir(path)

    def stat(self, path: str) -> os.stat_result:
        """See FileLayer."""
        return os.stat(path)

    def fstat(self, fd: int) -> os.stat_result:
        """See FileLayer."""
        return os.fstat(fd)

    def space(self, path: str) -> Space:
        """See FileLayer."""
        facts = os.statvfs(path)
        return Space(facts.f_blocks * facts.f_frsize, facts.f_bavail * facts.f_frsize)

    def sqlite_path(self, path: str) -> str:
        """See FileLayer."""
        return path


def fsync_directory(files: FileLayer, path: str) -> None:
    """Make the entries of a directory durable."""
    fd = files.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        files.fsync(fd)
    finally:
        files.close(fd)


def exists(files: FileLayer, path: str) -> bool:
    """Whether the name leads anywhere. Errors other than absence are raised."""
    try:
        files.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def read_whole(files: FileLayer, path: str, size_bytes_max: int) -> bytes:
    """A small file's bytes, at most so many."""
    fd = files.open(path, os.O_RDONLY)
    try:
        return files.pread(fd, size_bytes_max, 0)
    finally:
        files.close(fd)


def write_whole(files: FileLayer, directory: str, name: str, data: bytes) -> None:
    """Write a small file so that it is either there whole or not there. Its name is durable once
    the directory was flushed."""
    draft = f"{directory}/{name}.new"
    fd = files.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        files.pwritev(fd, [data], 0)
        files.fdatasync(fd)
    finally:
        files.close(fd)
    files.rename(draft, f"{directory}/{name}")
