"""Real files that fail on demand: the disk errors, fills up or stalls, one folder at a time."""

import errno
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from storage_node.files import RealFiles, Space
from storage_node.port import Buffer


@dataclass
class Faults:
    """What is wrong with a folder. `errors`: errno by call; `full`: nothing more may be written;
    `stalled`: flushes wait until it is set; `stuck`: every call that asks the disk does."""

    errors: dict[str, int] = field(default_factory=dict)
    full: bool = False
    stalled: threading.Event | None = None
    stuck: threading.Event | None = None


class FaultyFiles(RealFiles):
    """The operating system's files, with faults by folder."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[str, Faults] = {}
        self.calls: list[tuple[str, str]] = []
        self._paths: dict[int, str] = {}

    def folder(self, path: os.PathLike[str]) -> Faults:
        """The faults of that folder, to be changed at will."""
        return self.faults.setdefault(os.fspath(path) + "/", Faults())

    def _at(self, path: str) -> Faults:
        for folder, faults in self.faults.items():
            if f"{path}/".startswith(folder):
                return faults
        return Faults()

    def _meet(self, call: str, path: str) -> None:
        faults = self._at(path)
        if call in faults.errors:
            raise OSError(faults.errors[call], os.strerror(faults.errors[call]), path)
        if faults.stuck is not None:
            faults.stuck.wait(60)
        if call in ("fdatasync", "fsync"):
            self.calls.append((call, path))
            if faults.stalled is not None:
                faults.stalled.wait(30)

    def open(self, path: str, flags: int) -> int:
        self._meet("open", path)
        descriptor = super().open(path, flags)
        self._paths[descriptor] = path
        return descriptor

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        self._meet("pread", self._paths[fd])
        return super().pread(fd, length, offset)

    def pread_now(self, fd: int, length: int, offset: int) -> Buffer | None:
        if self._at(self._paths[fd]).stuck is not None:
            return None
        self._meet("pread", self._paths[fd])
        return super().pread_now(fd, length, offset)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        if self._at(self._paths[fd]).stuck is None:  # the page cache takes it
            self._meet("pwritev", self._paths[fd])
        if self._at(self._paths[fd]).full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().pwritev(fd, buffers, offset)

    def fdatasync(self, fd: int) -> None:
        self._meet("fdatasync", self._paths[fd])
        super().fdatasync(fd)

    def fsync(self, fd: int) -> None:
        self._meet("fsync", self._paths[fd])
        super().fsync(fd)

    def rename(self, source: str, target: str) -> None:
        self._meet("rename", target)
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        self._meet("unlink", path)
        super().unlink(path)

    def stat(self, path: str) -> os.stat_result:
        self._meet("stat", path)
        return super().stat(path)

    def space(self, path: str) -> Space:
        self._meet("space", path)
        found = super().space(path)
        return Space(found.capacity_bytes, 0) if self._at(path).full else found
