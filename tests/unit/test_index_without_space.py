"""An index on a drive without space is kept as it is, and brought up to date once there is some."""

import asyncio
import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from placement.clock import SystemClock, SystemRandomness
from placement.ids import BlobId
from storage_node import index as index_module
from storage_node.files import RealFiles
from storage_node.flush import ThreadFlusher
from storage_node.index import Index, IndexDamaged, IndexFull
from storage_node.layout import INDEX_NAME
from storage_node.node import Node
from storage_node.port import Outcome
from storage_node.recovery import OpenedIndex, open_index
from tests.contract.test_node import body_of, copies, node_config

SHARDS = 600


def killed_drive(folder: Path) -> Path:
    """A drive as a killed process leaves it: many shards in the segment, none in the index yet."""
    image = folder / "image"

    async def run() -> None:
        files = RealFiles()
        node = await Node.open(
            node_config(folder),
            files,
            SystemClock(),
            SystemRandomness(),
            flusher=ThreadFlusher(files),
            tended=False,
        )
        try:
            report = node.reports()[0]
            for _ in range(SHARDS):
                blob, body = os.urandom(16), body_of(b"x")
                outcomes = await node.put_shards(
                    copies([report.drive], BlobId(blob), body, 1), [body]
                )
                assert list(outcomes) == [Outcome.STORED]
            shutil.copytree(report.path, image)
        finally:
            await node.close()

    asyncio.run(run())
    return image


@contextmanager
def no_space(monkeypatch: pytest.MonkeyPatch, pages: int) -> Iterator[None]:
    """SQLite may not make the file longer than so many pages: as on a full disk."""
    connect = index_module._connect

    def limited(path: str) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute(f"PRAGMA max_page_count={pages}")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(index_module, "_connect", limited)
        yield


def opened(root: Path, boot: str) -> OpenedIndex:
    return open_index(RealFiles(), str(root), boot, trusted=True, continue_segment=True)


def test_an_index_that_cannot_be_brought_up_to_date_for_lack_of_space_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = killed_drive(tmp_path)
    before = Index(str(root / INDEX_NAME))
    boot = (before.meta("boot") or b"").decode()
    assert before.count == 0
    before.abandon()
    inode = (root / INDEX_NAME).stat().st_ino
    with no_space(monkeypatch, pages=6):
        for _ in range(2):
            with pytest.raises(OSError, match="full") as raised:
                opened(root, boot)
            assert raised.value.errno == errno.ENOSPC
    assert (root / INDEX_NAME).stat().st_ino == inode
    after = opened(root, boot)
    assert not after.rebuild
    assert after.index.count == SHARDS
    after.index.abandon()
    assert after.active is not None
    os.close(after.active.fd)


def test_making_an_index_without_space_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with no_space(monkeypatch, pages=1), pytest.raises(IndexFull):
        Index(str(tmp_path / "new"))


def test_a_file_that_is_no_index_is_damaged_not_full(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(IndexDamaged):
        Index(str(tmp_path / "bad"))
