"""A disk that forgets: the file layer's test double.

Bytes count as stored once their file was flushed, names once their directory was. At a power cut
everything else is lost, or kept in part, as the seed will have it: of unflushed writes any subset,
each perhaps torn; of unflushed names any subset. Flushing a file does not flush its name, and
fdatasync of a directory flushes nothing.
"""

import errno
import itertools
import os
import random
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from storage_node.files import Space
from storage_node.port import Buffer

SECTOR_SIZE_BYTES = 512


@dataclass(eq=False)
class Inode:
    """A file or directory: as the running machine sees it, and as the disk would have it."""

    number: int
    folder: bool
    data: bytearray = field(default_factory=bytearray)
    stored: bytes = b""
    writes: list[tuple[int, bytes | None]] = field(default_factory=list)
    names: dict[str, "Inode"] = field(default_factory=dict)
    stored_names: dict[str, "Inode"] = field(default_factory=dict)
    links: int = 1
    forgotten: list[tuple[int, int]] = field(default_factory=list)
    """Where a flush failed: the machine shows what was written there, and will not write it again."""

    def written(self, offset: int, data: bytes) -> None:
        """What is written there anew is stored anew."""
        self.writes.append((offset, data))
        end, left = offset + len(data), []
        for at, length in self.forgotten:
            left += [
                (at, min(offset, at + length) - at),
                (max(at, end), at + length - max(at, end)),
            ]
        self.forgotten = [(at, length) for at, length in left if length > 0]

    def as_flushed(self) -> bytes:
        """What the disk has after a flush that succeeds."""
        if not self.forgotten:
            return bytes(self.data)
        data, before = bytearray(self.data), self.stored.ljust(len(self.data), b"\0")
        for at, length in self.forgotten:
            data[at : at + length] = before[at : at + length]
        return bytes(data)


@dataclass(frozen=True)
class Status:
    st_dev: int
    st_ino: int
    st_nlink: int
    st_size: int


def flush_label(operation: str, path: str) -> str:
    """Names a flush in the code by the function that wants it and the kind of thing flushed."""
    between = {
        "fsync",
        "fdatasync",
        "_flush",
        "_flush_one",
        "flush",
        "fsync_directory",
        "flush_label",
    }
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name in between:
        frame = frame.f_back
    assert frame is not None
    caller = frame.f_code.co_qualname.split(".<locals>")[0].split(".")[-1]
    kind = re.sub(r"[0-9a-f]{8,}(\.[0-9]+)?", "*", path)
    kind = re.sub(r"^/drive[0-9]+", "drive", re.sub(r"/files/[0-9a-f]{2}$", "/files/xx", kind))
    kind = re.sub(r"/tmp/.*", "/tmp/*", kind)
    return f"{caller} {operation} {kind}"


class SimFiles:
    """In memory; deterministic for a seed. `root` holds what SQLite insists on keeping itself."""

    def __init__(self, root: Path, seed: int) -> None:
        self._numbers = itertools.count(1)
        self._root = root
        self._random = random.Random(seed)
        self._top = Inode(next(self._numbers), folder=True)
        self._fds: dict[int, tuple[Inode, str]] = {}
        self._next_fd = itertools.count(100)
        self._index_images: dict[str, bytes] = {}
        self.skipped = ""
        self.labels: set[str] = set()
        self.operations_left: int | None = None
        self.fault: Callable[[str, str], None] = lambda operation, path: None
        self.free_bytes = 1 << 40
        self.failing_flushes = 0
        """So many flushes of segments will fail, and lose what they were to store."""
        self._untold: set[int] = set()
        """Descriptors that were open when a flush failed: each learns of it once, as on Linux."""

    # -- the file layer ----------------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        self._step("open", path)
        if path == "/":
            return self._open_inode(self._top, path)
        folder, name = self._parent(path)
        inode = folder.names.get(name)
        if inode is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, path)
            inode = folder.names[name] = Inode(next(self._numbers), folder=False)
            if name == "index.clean":  # SQLite has just flushed the index
                index = self.sqlite_path(os.path.dirname(path) + "/index.sqlite")
                self._index_images[index] = Path(index).read_bytes()
        elif flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, path)
        if flags & os.O_TRUNC and inode.data:
            inode.data.clear()
            inode.writes.append((0, None))
        return self._open_inode(inode, path)

    def _open_inode(self, inode: Inode, path: str) -> int:
        fd = next(self._next_fd)
        self._fds[fd] = (inode, path)
        return fd

    def close(self, fd: int) -> None:
        del self._fds[fd]
        self._untold.discard(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        inode = self._at("pread", fd)
        return bytes(inode.data[offset : offset + length])

    def pread_now(self, fd: int, length: int, offset: int) -> bytes | None:
        return self.pread(fd, length, offset)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        inode = self._at("pwritev", fd)
        for buffer in buffers:
            data = bytes(buffer)
            if len(inode.data) < offset:
                inode.data.extend(bytes(offset - len(inode.data)))
            inode.data[offset : offset + len(data)] = data
            inode.written(offset, data)
            offset += len(data)

    def ftruncate(self, fd: int, length: int) -> None:
        inode = self._at("ftruncate", fd)
        inode.data[:] = inode.data[:length].ljust(length, b"\0")
        inode.writes.append((length, None))

    def fdatasync(self, fd: int) -> None:
        self._flush("fdatasync", fd)

    def fsync(self, fd: int) -> None:
        self._flush("fsync", fd)

    def rename(self, source: str, target: str) -> None:
        self._step("rename", target)
        folder, name = self._parent(source)
        if name not in folder.names:
            raise FileNotFoundError(errno.ENOENT, source)
        into, new_name = self._parent(target)
        if new_name in into.names:
            into.names[new_name].links -= 1
        into.names[new_name] = folder.names.pop(name)

    def unlink(self, path: str) -> None:
        self._step("unlink", path)
        folder, name = self._parent(path)
        if name not in folder.names:
            raise FileNotFoundError(errno.ENOENT, path)
        folder.names.pop(name).links -= 1

    def mkdir(self, path: str) -> None:
        self._step("mkdir", path)
        folder, name = self._parent(path)
        if name in folder.names:
            raise FileExistsError(errno.EEXIST, path)
        folder.names[name] = Inode(next(self._numbers), folder=True)

    def listdir(self, path: str) -> list[str]:
        self._step("listdir", path)
        inode = self._find(path)
        if not inode.folder:
            raise NotADirectoryError(errno.ENOTDIR, path)
        return sorted(inode.names)

    def stat(self, path: str) -> Status:
        self._step("stat", path)
        return self._status(self._find(path))

    def fstat(self, fd: int) -> Status:
        return self._status(self._at("fstat", fd))

    def space(self, path: str) -> Space:
        self._step("space", path)
        return Space(1 << 40, self.free_bytes)

    def sqlite_path(self, path: str) -> str:
        return str(self._root / path.strip("/").replace("/", "_"))

    # -- what tests do to it -------------------------------------------------------------------

    def flip_bit(self, path: str, offset: int) -> None:
        """Decay."""
        inode = self._find(path)
        inode.data[offset] ^= 1

    def flip_stored_bit(self, path: str, offset: int) -> None:
        """Decay, on the disk and in what the machine sees."""
        inode = self._find(path)
        inode.data[offset] ^= 1
        if len(inode.stored) > offset:
            stored = bytearray(inode.stored)
            stored[offset] = inode.data[offset]
            inode.stored = bytes(stored)

    def remove_tree(self, path: str) -> None:
        """A folder vanishes."""
        folder, name = self._parent(path)
        gone = [folder.names.pop(name)]
        while gone:
            inode = gone.pop()
            inode.links = 0
            gone += inode.names.values()

    def crash(self) -> None:
        """The power goes; what comes back is what was stored, and some of the rest."""
        self._fds.clear()
        self._untold.clear()
        self.operations_left = None
        for inode in self._reachable():
            if inode.folder:
                self._crash_names(inode)
            else:
                self._crash_data(inode)
        for inode in self._reachable():
            inode.links = 1
        for folder in self._top.names:
            self._crash_index(folder)

    def _crash_data(self, inode: Inode) -> None:
        data = bytearray(inode.stored)
        for offset, written in inode.writes:
            fate = self._random.random()
            if fate < 0.5:
                continue
            if written is None:
                data[:] = data[:offset].ljust(offset, b"\0")
                continue
            if fate < 0.7:
                sectors = len(written) // SECTOR_SIZE_BYTES
                written = written[: self._random.randint(0, sectors) * SECTOR_SIZE_BYTES]
            if len(data) < offset:
                data.extend(bytes(offset - len(data)))
            data[offset : offset + len(written)] = written
        inode.data, inode.stored, inode.writes = data, bytes(data), []
        inode.forgotten = []

    def _crash_names(self, inode: Inode) -> None:
        names = dict(inode.stored_names)
        for name in sorted({*inode.names, *names}):
            if inode.names.get(name) is not names.get(name) and self._random.random() < 0.5:
                if name in inode.names:
                    names[name] = inode.names[name]
                else:
                    del names[name]
        inode.names, inode.stored_names = names, dict(names)

    def _crash_index(self, folder: str) -> None:
        """SQLite's file was never flushed, except when the drive says that it was closed whole."""
        path = self.sqlite_path(f"/{folder}/index.sqlite")
        clean = "index.clean" in self._top.names[folder].names
        fate = self._random.random()
        if clean:
            self._remove_index(path)
            Path(path).write_bytes(self._index_images[path])
        elif fate < 0.3:
            self._remove_index(path)
        elif fate < 0.6 and os.path.exists(path):
            with open(path, "r+b") as file:
                file.seek(self._random.randrange(0, os.path.getsize(path)))
                file.write(self._random.randbytes(3000))

    @staticmethod
    def _remove_index(path: str) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(path + suffix).unlink(missing_ok=True)

    def _reachable(self) -> list[Inode]:
        """Every inode that a name may lead to, before or after a crash."""
        seen: dict[int, Inode] = {}
        left = [self._top]
        while left:
            inode = left.pop()
            if inode.number not in seen:
                seen[inode.number] = inode
                left += inode.names.values()
                left += inode.stored_names.values()
        return list(seen.values())

    # -- below ---------------------------------------------------------------------------------

    def _flush(self, operation: str, fd: int) -> None:
        inode, path = self._fds[fd]
        self._step(operation, path)
        label = flush_label(operation, path)
        self.labels.add(label)
        if label == self.skipped:
            return
        if self.failing_flushes and path.endswith(".seg"):
            self.failing_flushes -= 1
            inode.forgotten += [(at, len(data)) for at, data in inode.writes if data is not None]
            inode.writes = []
            self._untold |= {other for other, (file, _) in self._fds.items() if file is inode}
        if fd in self._untold:
            self._untold.discard(fd)
            raise OSError(errno.EIO, "the flush failed")
        if not inode.folder:
            inode.stored, inode.writes = inode.as_flushed(), []
        elif operation == "fsync":
            inode.stored_names = dict(inode.names)

    def _step(self, operation: str, path: str) -> None:
        if self.operations_left is not None:
            if self.operations_left == 0:
                raise OSError(errno.EIO, "the power is gone")
            self.operations_left -= 1
        self.fault(operation, path)

    def _at(self, operation: str, fd: int) -> Inode:
        inode, path = self._fds[fd]
        self._step(operation, path)
        return inode

    def _find(self, path: str) -> Inode:
        inode = self._top
        for name in path.strip("/").split("/"):
            if not inode.folder:
                raise NotADirectoryError(errno.ENOTDIR, path)
            if name not in inode.names:
                raise FileNotFoundError(errno.ENOENT, path)
            inode = inode.names[name]
        return inode

    def _parent(self, path: str) -> tuple[Inode, str]:
        folder, _, name = path.rpartition("/")
        return (self._find(folder) if folder else self._top), name

    @staticmethod
    def _status(inode: Inode) -> Status:
        return Status(1, inode.number, inode.links, len(inode.data))
