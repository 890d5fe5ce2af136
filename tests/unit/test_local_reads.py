"""Direct reads of a drive's folder: places that were found before, and what becomes of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from placement.ids import BlobId
from storage_node import local
from storage_node.files import RealFiles
from storage_node.index import Entry, Index, encode_entry
from storage_node.layout import INDEX_NAME, SEGMENTS
from storage_node.local import DirectReads, _LocalDrive
from storage_node.port import ShardId
from storage_node.record import RecordKind, encode_head, record_size_bytes, shard_key
from storage_node.segments import segment_name

ENVELOPE = b"the story of a shard"
OFFSET = 64


class Folder:
    """A drive's folder with an index and segments, written by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / SEGMENTS).mkdir()
        self.index = Index(str(root / INDEX_NAME))
        self.drive = _LocalDrive(str(root), RealFiles(), DirectReads())

    def path(self, segment: int) -> Path:
        return self.root / SEGMENTS / segment_name(segment)

    def put(self, shard: ShardId, payload: bytes, segment: int = 1, offset: int = OFFSET) -> None:
        """Write the record, and tell the index."""
        key = shard_key(shard.blob, shard.index)
        head = encode_head(RecordKind.PUT, segment, offset, key, ENVELOPE, len(payload), 0)
        record = head + payload
        padded = record.ljust(record_size_bytes(len(ENVELOPE), len(payload)), b"\0")
        path = self.path(segment)
        before = path.read_bytes() if path.exists() else b""
        path.write_bytes(before[:offset].ljust(offset, b"\0") + padded)
        entry = Entry(segment, offset, len(ENVELOPE), len(payload), 0, 0)
        self.index.write_back({key: encode_entry(*entry)}, {}, {})

    def close(self) -> None:
        self.drive.close()
        self.index.close()


def shard(number: int) -> ShardId:
    return ShardId(BlobId(bytes([number]) * 16), 2)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    yield made
    made.close()


def again(folder: Folder, wanted: ShardId, length: int) -> bytes | None:
    data = folder.drive.read_again(wanted, length)
    return None if data is None else bytes(data)


def test_a_place_is_known_once_it_was_read(folder: Folder) -> None:
    folder.put(shard(1), b"payload of one")
    assert again(folder, shard(1), 7) is None
    assert folder.drive.read(shard(1), 8, 2) == b"of"
    assert again(folder, shard(1), 7) == b"payload"
    assert again(folder, shard(1), 1000) == b"payload of one", "never what lies behind it"


def test_a_segment_that_went_is_forgotten(folder: Folder) -> None:
    folder.put(shard(1), b"payload of one")
    folder.drive.read(shard(1), 0, 14)
    folder.path(1).unlink()
    # An open descriptor may still serve it: a shard's bytes never change.
    assert again(folder, shard(1), 14) == b"payload of one"
    folder.drive._fds.close()
    assert again(folder, shard(1), 14) is None
    folder.put(shard(1), b"payload of one", segment=2)
    assert folder.drive.read(shard(1), 0, 14) == b"payload of one"
    assert again(folder, shard(1), 14) == b"payload of one"


def test_another_shard_in_its_place_is_not_taken_for_it(folder: Folder) -> None:
    folder.put(shard(1), b"payload of one")
    folder.drive.read(shard(1), 0, 14)
    folder.put(shard(9), b"payload of two")  # the number of the segment came again
    assert again(folder, shard(1), 14) is None
    other = ShardId(shard(9).blob, 3)
    folder.drive.read(shard(9), 0, 14)
    folder.put(other, b"another index!")
    assert again(folder, shard(9), 14) is None


def test_a_shard_that_was_written_anew_is_read_there(folder: Folder) -> None:
    folder.put(shard(1), b"payload damage")
    folder.drive.read(shard(1), 0, 14)
    folder.put(shard(1), b"payload of one", segment=2)
    assert again(folder, shard(1), 14) == b"payload damage", "its reader sees, and asks `read`"
    assert folder.drive.read(shard(1), 0, 14) == b"payload of one"
    assert again(folder, shard(1), 14) == b"payload of one"


def test_remembered_places_are_bounded(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PLACES_MAX", 2)
    for number in (1, 2, 3):
        folder.put(shard(number), b"payload of one", segment=number)
        folder.drive.read(shard(number), 0, 14)
    assert [again(folder, shard(number), 7) for number in (1, 2, 3)] == [
        None,
        b"payload",
        b"payload",
    ]
