"""The segments of a drive: one that is appended to, zero-prewritten ahead of its write position.

Prewriting makes a flush cheap: the file's size and extents are settled before the data comes, so
fdatasync needs no journal commit. It happens off the loop, in steps that keep the disk's use near
the data. A place is written by the prewriter strictly before the appender may use it.
"""

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Sequence

from placement.ids import DriveId
from storage_node.files import FileLayer, fsync_directory
from storage_node.offload import Offload
from storage_node.port import Buffer
from storage_node.record import SEGMENT_HEADER_SIZE_BYTES, encode_segment_header

log = logging.getLogger(__name__)

SEGMENT_SIZE_BYTES = 64 << 20
PREWRITE_SIZE_BYTES = 4 << 20

_ZEROS = bytes(1 << 20)
_SUFFIX = ".seg"


def segment_name(segment: int) -> str:
    """The file's name within `segments/`."""
    return f"{segment:08x}{_SUFFIX}"


def list_segments(files: FileLayer, folder: str) -> list[int]:
    """Ids of the segments in a folder, ascending."""
    ids = []
    for name in files.listdir(folder):
        stem = name.removesuffix(_SUFFIX)
        if name.endswith(_SUFFIX) and len(stem) == 8:
            try:
                ids.append(int(stem, 16))
            except ValueError:
                log.warning("%s/%s is no segment", folder, name)
    return sorted(ids)


class Segment:
    """The segment being appended to. Bytes from `position` to `prewritten` are zeros on disk."""

    __slots__ = ("fd", "id", "position", "prewritten")

    def __init__(self, segment: int, fd: int, position: int, prewritten: int) -> None:
        self.id = segment
        self.fd = fd
        self.position = position
        self.prewritten = prewritten


class SegmentLog:
    """Appends records to a drive's active segment and begins the next one when it is full."""

    def __init__(
        self,
        files: FileLayer,
        folder: str,
        drive: DriveId,
        offload: Offload,
        on_error: Callable[[OSError], None],
        *,
        next_segment: int,
        active: Segment | None = None,
        segment_size_bytes: int = SEGMENT_SIZE_BYTES,
        prewrite_size_bytes: int = PREWRITE_SIZE_BYTES,
    ) -> None:
        """Append to `active`, if given; else the first append begins segment `next_segment`."""
        self.active = active
        self._files = files
        self._folder = folder
        self._drive = drive
        self._offload = offload
        self._on_error = on_error
        self._next_segment = next_segment
        self._segment_size_bytes = segment_size_bytes
        self._prewrite_size_bytes = prewrite_size_bytes
        self._prewriting = False
        self._waiters: list[asyncio.Future[None]] = []
        self._closed = False
        self.on_sealed: Callable[[int, int], None] = lambda segment, end: None

    def has_room(self, size_bytes: int) -> bool:
        """Whether so many bytes may be appended right now."""
        active = self.active
        if active is None:
            return False
        end = active.position + size_bytes
        if end > self._segment_size_bytes and active.position > SEGMENT_HEADER_SIZE_BYTES:
            return False
        return not self._prewriting or end <= active.prewritten

    async def make_room(self, size_bytes: int) -> None:
        """Wait for the prewriter, or begin the next segment. Raises OSError."""
        while not self.has_room(size_bytes):
            active = self.active
            if self._prewriting:
                # Also before rolling: the prewriter works on the file that would be cut.
                await self._prewritten()
            elif active is None or active.position + size_bytes > self._segment_size_bytes:
                await self._begin_next()

    def append(self, buffers: Sequence[Buffer], size_bytes: int) -> None:
        """Write at the position and advance. Raises OSError; then nothing has advanced."""
        active = self.active
        assert active is not None
        self._files.pwritev(active.fd, buffers, active.position)
        active.position += size_bytes
        if active.prewritten - active.position < self._prewrite_size_bytes:
            self._prewrite(active)

    def _prewrite(self, active: Segment) -> None:
        start = max(active.prewritten, active.position)
        end = min(start + self._prewrite_size_bytes, self._segment_size_bytes)
        if self._prewriting or start >= end:
            return
        self._prewriting = True
        active.prewritten = start

        def work() -> None:
            # By a descriptor of its own: Linux tells each descriptor once that the file could not be
            # stored. Told here, by the group's, it would be hidden from the group whose records are
            # among what was lost.
            fd = self._files.open(f"{self._folder}/{segment_name(active.id)}", os.O_RDWR)
            try:
                for at in range(start, end, len(_ZEROS)):
                    self._files.pwritev(fd, [_ZEROS[: end - at]], at)
                self._files.fdatasync(fd)
            finally:
                self._files.close(fd)

        self._offload(work).add_done_callback(
            lambda future: self._on_prewritten(active, end, future)
        )

    def _on_prewritten(self, active: Segment, end: int, future: "asyncio.Future[None]") -> None:
        self._prewriting = False
        error = future.exception()
        if error is None:
            active.prewritten = end
        elif isinstance(error, OSError):
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                self._on_error(error)
            # With a full disk appending goes on without prewriting, as far as it gets.
        else:
            raise error
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _prewritten(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    async def _begin_next(self) -> None:
        sealed, segment = self.active, self._next_segment
        self._next_segment += 1

        def work() -> int:
            if sealed is not None:
                self._files.ftruncate(sealed.fd, sealed.position)
                self._files.close(sealed.fd)
            path = f"{self._folder}/{segment_name(segment)}"
            fd = self._files.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            try:
                self._files.pwritev(fd, [encode_segment_header(self._drive, segment)], 0)
            except OSError:  # the disk is full: each try would leave a file
                self._files.close(fd)
                self._files.unlink(path)
                raise
            fsync_directory(self._files, self._folder)
            return fd

        if sealed is not None:
            self.active = None
            self.on_sealed(sealed.id, sealed.position)
        fd = await self._offload(work)
        if self._closed:  # the drive failed while this was under way
            self._files.close(fd)
            raise OSError(errno.EBADF, "the log was closed")
        self.active = Segment(segment, fd, SEGMENT_HEADER_SIZE_BYTES, SEGMENT_HEADER_SIZE_BYTES)

    async def close(self) -> None:
        """Wait for the prewriter and give the descriptor back."""
        self._closed = True
        while self._prewriting:
            await self._prewritten()
        if self.active is not None:
            fd, self.active = self.active.fd, None
            await self._offload(lambda: self._files.close(fd))
