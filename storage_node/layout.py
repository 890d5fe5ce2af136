"""The folders and names inside a drive."""

import logging

from placement.ids import BlobId
from storage_node.files import FileLayer, fsync_directory
from storage_node.port import ShardId

log = logging.getLogger(__name__)

SEGMENTS = "segments"
FILES = "files"
TMP = "tmp"
QUARANTINE = "quarantine"
INDEX_NAME = "index.sqlite"
CLEAN_MARKER_NAME = "index.clean"


def file_path(root: str, shard: ShardId) -> str:
    """Where a large shard lies."""
    name = shard.blob.hex()
    return f"{root}/{FILES}/{name[:2]}/{name}.{shard.index}"


def file_folder(root: str, shard: ShardId) -> str:
    """The directory of that file."""
    return f"{root}/{FILES}/{shard.blob.hex()[:2]}"


def quarantine_path(root: str, shard: ShardId) -> str:
    """Where its file is put aside when it cannot be trusted."""
    return f"{root}/{QUARANTINE}/{shard.blob.hex()}.{shard.index}"


def parse_file_name(name: str) -> ShardId | None:
    """The shard that a file name stands for."""
    blob, _, index = name.partition(".")
    try:
        shard = ShardId(BlobId(bytes.fromhex(blob)), int(index))
    except ValueError:
        return None
    return shard if len(shard.blob) == 16 and 0 <= shard.index < 256 else None


def make_folders(files: FileLayer, root: str) -> None:
    """Make what is missing, durably: a shard's own directory is never made on the way."""
    present = set(files.listdir(root))
    for name in (SEGMENTS, FILES, TMP, QUARANTINE):
        if name not in present:
            files.mkdir(f"{root}/{name}")
    below = set(files.listdir(f"{root}/{FILES}"))
    for number in range(256):
        if f"{number:02x}" not in below:
            files.mkdir(f"{root}/{FILES}/{number:02x}")
    fsync_directory(files, f"{root}/{FILES}")
    fsync_directory(files, root)


def empty_tmp(files: FileLayer, root: str) -> None:
    """Drop what a dead process had begun to write."""
    for name in files.listdir(f"{root}/{TMP}"):
        files.unlink(f"{root}/{TMP}/{name}")
