"""Direct reads of a drive's folder: places that were found before, and what becomes of them."""

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from placement.ids import BlobId, DriveId
from placement.rpc.client import RpcClient
from storage_node import local
from storage_node.apart import Apart
from storage_node.client import NodeClient
from storage_node.files import RealFiles
from storage_node.index import Entry, Index, encode_entry
from storage_node.layout import INDEX_NAME, SEGMENTS
from storage_node.local import DirectReads, LocalNodeClient, _LocalDrive
from storage_node.offload import ThreadOffload
from storage_node.port import Buffer, GetShard, Outcome, ShardId
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
        self.apart = Apart(ThreadOffload(8, waits=False), lambda _: None, 0.5)
        self.drive = _LocalDrive(str(root), RealFiles(), DirectReads(), self.apart)

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


DRIVE = DriveId(b"d" * 16)
OWNER = b"from the owner"


@pytest.fixture
def client(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> LocalNodeClient:
    """A client of that one drive; what it asks the owner for is answered with OWNER."""

    async def ask_owner(_: NodeClient, reads: Sequence[GetShard]) -> tuple[Buffer | Outcome, ...]:
        return (OWNER,) * len(reads)

    monkeypatch.setattr(NodeClient, "get", ask_owner)
    made = LocalNodeClient(cast("RpcClient", None))
    made._drives[DRIVE] = folder.drive
    made._refresh_wanted = False
    return made


def whole(number: int, length: int = 14) -> GetShard:
    return GetShard(DRIVE, shard(number), 0, length)


def evict(path: Path) -> None:
    """Take a file out of the page cache."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def test_what_is_in_memory_is_read_at_once(folder: Folder, client: LocalNodeClient) -> None:
    folder.put(shard(1), b"payload of one")
    for _ in range(2):  # by the index, then from where it was
        (data,) = client.get_now([whole(1)])
        assert data is not None
        assert bytes(data) == b"payload of one"


def test_what_is_on_the_disk_is_read_in_a_thread(
    folder: Folder, client: LocalNodeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = []
    real_preadv = os.preadv

    def note(fd: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        if not flags & os.RWF_NOWAIT:
            readers.append(threading.current_thread())
        return real_preadv(fd, buffers, offset, flags)

    payload = os.urandom(300_000)
    folder.put(shard(1), payload)
    assert client.get_now([whole(1, len(payload))]) == (payload,)
    evict(folder.path(1))
    if client.get_now([whole(1, len(payload))]) != (None,):
        pytest.skip("this filesystem does not tell what is in memory")
    monkeypatch.setattr(os, "preadv", note)
    assert asyncio.run(client.get([whole(1, len(payload)), whole(2)])) == (payload, OWNER)
    assert readers
    assert threading.main_thread() not in readers


def test_a_stuck_disk_holds_up_nobody_else_and_is_left_to_its_owner(
    folder: Folder, client: LocalNodeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    real_preadv = os.preadv

    def stick(fd: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        answers.wait(20)
        return real_preadv(fd, buffers, offset, flags)

    folder.put(shard(1), b"payload of one")
    monkeypatch.setattr(os, "preadv", stick)

    async def read() -> tuple[int, tuple[Buffer | Outcome, ...]]:
        reading = asyncio.create_task(client.get([whole(1)]))
        turns = 0
        while not reading.done():
            await asyncio.sleep(0.01)
            turns += 1
        return turns, reading.result()

    turns, got = asyncio.run(read())
    answers.set()
    assert got == (OWNER,)
    assert turns > 5, "the loop stood still"
    assert DRIVE not in client._drives
