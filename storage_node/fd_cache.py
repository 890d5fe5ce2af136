"""Open descriptors of files that are read again and again; the least recently used one is closed."""

import os
from collections.abc import Callable

from storage_node.files import FileLayer


class FdCache:
    """Read-only descriptors by path, at most so many. For one thread."""

    def __init__(
        self, files: FileLayer, count_max: int, close: Callable[[int], None] | None = None
    ) -> None:
        """`close`: what closes a descriptor that is not needed any more (default: at once)."""
        self._files = files
        self._count_max = count_max
        self._close = files.close if close is None else close
        self._fds: dict[str, int] = {}
        self.drops = 0
        """How often a path was dropped by name: its descriptors of before must not come back."""

    def get(self, path: str) -> int:
        """A descriptor, valid until the next call. Raises OSError."""
        fds = self._fds
        fd = fds.pop(path, -1)
        if fd < 0:
            self._make_room()
            fd = self._files.open(path, os.O_RDONLY)
        fds[path] = fd  # a dict keeps the order of insertion: the last is the most recent
        return fd

    def known(self, path: str) -> int:
        """A descriptor, valid until the next call; -1 when the file is not open."""
        fd = self._fds.pop(path, -1)
        if fd >= 0:
            self._fds[path] = fd
        return fd

    def keep(self, path: str, fd: int) -> None:
        """Take over a descriptor that was opened elsewhere."""
        if path in self._fds:
            self._close(fd)
            return
        self._make_room()
        self._fds[path] = fd

    def _make_room(self) -> None:
        if len(self._fds) >= self._count_max:
            self._close(self._fds.pop(next(iter(self._fds))))

    def drop(self, path: str) -> None:
        """Close that file, if it is open."""
        self.drops += 1
        fd = self._fds.pop(path, -1)
        if fd >= 0:
            self._close(fd)

    def close(self) -> None:
        """Close all."""
        for path in list(self._fds):
            self.drop(path)
