"""Open descriptors of files that are read again and again; the least recently used one is closed."""

import os

from storage_node.files import FileLayer


class FdCache:
    """Read-only descriptors by path, at most so many. For one thread."""

    def __init__(self, files: FileLayer, count_max: int) -> None:
        self._files = files
        self._count_max = count_max
        self._fds: dict[str, int] = {}

    def get(self, path: str) -> int:
        """A descriptor, valid until the next call. Raises OSError."""
        fds = self._fds
        fd = fds.pop(path, -1)
        if fd < 0:
            if len(fds) >= self._count_max:
                self.drop(next(iter(fds)))
            fd = self._files.open(path, os.O_RDONLY)
        fds[path] = fd  # a dict keeps the order of insertion: the last is the most recent
        return fd

    def drop(self, path: str) -> None:
        """Close that file, if it is open."""
        fd = self._fds.pop(path, -1)
        if fd >= 0:
            self._files.close(fd)

    def close(self) -> None:
        """Close all."""
        for path in list(self._fds):
            self.drop(path)
