"""Room kept back on a drive, so that a disk without a free byte can still be opened and emptied.

A file of zeros holds it; opening the index, the record of a delete and the copies of a compaction
need little, but not nothing. It is given up when nothing else is free, and made again once the drive
takes shards again. On filesystems that compress zeros it holds little.
"""

import contextlib
import os

from storage_node.files import FileLayer

RESERVE_NAME = "reserve"
RESERVE_SIZE_BYTES = 4 << 20
_CHUNK = bytes(256 << 10)


def holds_reserve(files: FileLayer, root: str, size_bytes: int) -> bool:
    """Whether it is there, whole. Raises OSError."""
    try:
        return files.stat(f"{root}/{RESERVE_NAME}").st_size >= size_bytes
    except FileNotFoundError:
        return False


def is_scarce(free_bytes: int, size_bytes: int) -> bool:
    """Whether the reserve is needed now."""
    return free_bytes < size_bytes // 4


def release_reserve(files: FileLayer, root: str) -> None:
    """Give its space up. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        files.unlink(f"{root}/{RESERVE_NAME}")


def make_reserve(files: FileLayer, root: str, size_bytes: int) -> None:
    """Hold that much. Raises OSError; then nothing is held."""
    path = f"{root}/{RESERVE_NAME}"
    fd = files.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for at in range(0, size_bytes, len(_CHUNK)):
            files.pwritev(fd, [_CHUNK[: size_bytes - at]], at)
    except OSError:
        release_reserve(files, root)
        raise
    finally:
        files.close(fd)
