"""Drives that may move between nodes: each a disk that forgets, mounted where its node runs."""

import asyncio
import errno
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from storage_node.files import Space
from storage_node.flush import Flush
from storage_node.port import Buffer
from tests.sim.disk import SimFiles, Status
from tests.sim.loop import Process


class Looking:
    """While it is entered, reading is no work of the cluster's: no fault strikes, nothing counts."""

    now = False

    def __enter__(self) -> None:
        Looking.now = True

    def __exit__(self, *error: object) -> None:
        Looking.now = False


class Disk(SimFiles):
    """One drive. It outlives the processes that use it."""

    def __init__(self, folder: Path, seed: int, name: str) -> None:
        super().__init__(folder, seed)
        self.name = name
        self.slow_flushes = False
        self.errno = 0
        self.mkdir(f"/{name}")
        top = self.open("/", 0)
        self.fsync(top)
        self.close(top)

    def _flush(self, operation: str, fd: int) -> None:
        inode, path = self._fds[fd]
        self._step(operation, path)
        if not inode.folder:
            if inode.writes:
                inode.stored, inode.writes = bytes(inode.data), []
        elif operation == "fsync":
            inode.stored_names = dict(inode.names)

    def _step(self, operation: str, path: str) -> None:
        if Looking.now:
            return
        if self.errno:
            raise OSError(self.errno, "the drive errs")
        super()._step(operation, path)

    def lose_power(self, *, wholly: bool = False) -> None:
        """What was not flushed may be gone, or is, wholly."""
        if wholly:
            for inode in self._reachable():
                inode.writes.clear()
        self.crash()

    def forget_descriptors(self) -> None:
        """The process that had them is gone."""
        self._fds.clear()

    def decay(self, path: str, offset: int) -> None:
        """A bit flips, on the disk and in what the machine sees."""
        self.flip_stored_bit(path, offset)


class MountedFiles:
    """The file layer of one node process: paths lead to the disk of their first name."""

    def __init__(self, process: Process, disks: dict[str, Disk]) -> None:
        self.process = process
        self.disks = disks
        self.operations_left: int | None = None
        self.on_power_gone: Callable[[], None] = lambda: None
        self._fds: dict[int, tuple[Disk | None, int]] = {}
        self._next = itertools.count(1000)

    def _check(self) -> None:
        if Looking.now:
            return
        if not self.process.alive:
            raise OSError(errno.EIO, "the process is gone")
        if self.operations_left is not None:
            if self.operations_left <= 0:
                self.operations_left = None
                self.on_power_gone()
                raise OSError(errno.EIO, "the power is gone")
            self.operations_left -= 1

    def _disk(self, path: str) -> Disk:
        self._check()
        disk = self.disks.get(path.strip("/").split("/")[0])
        if disk is None:
            raise FileNotFoundError(errno.ENOENT, path)
        return disk

    def _at(self, fd: int) -> tuple[Disk, int]:
        self._check()
        disk, below = self._fds[fd]
        assert disk is not None
        return disk, below

    def open(self, path: str, flags: int) -> int:
        fd = next(self._next)
        if path == "/":
            self._fds[fd] = (None, 0)
        else:
            disk = self._disk(path)
            self._fds[fd] = (disk, disk.open(path, flags))
        return fd

    def close(self, fd: int) -> None:
        if not self.process.alive:
            return
        disk, below = self._fds.pop(fd)
        if disk is not None:
            disk.close(below)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        disk, below = self._at(fd)
        return disk.pread(below, length, offset)

    def pread_now(self, fd: int, length: int, offset: int) -> bytes | None:
        return self.pread(fd, length, offset)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        disk, below = self._at(fd)
        disk.pwritev(below, buffers, offset)

    def ftruncate(self, fd: int, length: int) -> None:
        disk, below = self._at(fd)
        disk.ftruncate(below, length)

    def fdatasync(self, fd: int) -> None:
        disk, below = self._at(fd)
        disk.fdatasync(below)

    def fsync(self, fd: int) -> None:
        if self._fds[fd][0] is not None:
            disk, below = self._at(fd)
            disk.fsync(below)

    def rename(self, source: str, target: str) -> None:
        self._disk(source).rename(source, target)

    def unlink(self, path: str) -> None:
        self._disk(path).unlink(path)

    def mkdir(self, path: str) -> None:
        self._disk(path).mkdir(path)

    def listdir(self, path: str) -> list[str]:
        return self._disk(path).listdir(path)

    def stat(self, path: str) -> Status:
        return self._disk(path).stat(path)

    def fstat(self, fd: int) -> Status:
        disk, below = self._at(fd)
        return disk.fstat(below)

    def space(self, path: str) -> Space:
        return self._disk(path).space(path)

    def sqlite_path(self, path: str) -> str:
        return self.disks[path.strip("/").split("/")[0]].sqlite_path(path)

    def disk_of(self, fd: int) -> Disk | None:
        """Which disk a descriptor leads to; None once it is closed."""
        return self._fds.get(fd, (None, 0))[0]


class DelayedFlusher:
    """Flushes take time; what was written is stored only when one ends."""

    def __init__(self, files: MountedFiles, process: Process) -> None:
        self._files = files
        self._process = process

    def flush(self, data: Sequence[int], whole: Sequence[int] = ()) -> Flush:
        loop = asyncio.get_running_loop()
        flush = Flush(len(data) + len(whole), loop)
        for position, fd in enumerate([*data, *whole]):
            disk = self._files.disk_of(fd)
            seconds = self._process.random.uniform(0.0002, 0.004)
            if disk is not None and disk.slow_flushes:
                seconds = self._process.random.uniform(0.0, 8.0)
            loop.call_later(seconds, self._end, flush, position, fd, position >= len(data))
        return flush

    def _end(self, flush: Flush, position: int, fd: int, whole: bool) -> None:
        error = None
        try:
            if self._files.disk_of(fd) is None:
                raise OSError(errno.EBADF, "closed meanwhile")
            if whole:
                self._files.fsync(fd)
            else:
                self._files.fdatasync(fd)
        except OSError as caught:
            error = caught
        flush.end(position, error)

    def close(self) -> None:
        """Nothing is held."""
