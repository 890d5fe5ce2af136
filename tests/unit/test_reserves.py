"""Room kept back for a full disk: given up when it is needed, made again when there is space."""

import asyncio
import os
from pathlib import Path

import pytest

from placement.clock import SystemClock, SystemRandomness
from placement.errors import MetastoreFull
from placement.metastore import sqlite
from placement.metastore.port import DeleteRange, Put, Txn, absent
from placement.metastore.sqlite import SqliteOwner
from placement.metastore.sqlite_reserve import RESERVE_SIZE_BYTES, SpaceReserve, frees
from storage_node.files import RealFiles, Space
from storage_node.node import Node
from storage_node.port import DriveCondition, Outcome, ShardId
from storage_node.reserve import RESERVE_NAME
from tests.contract.test_node import node_config
from tests.unit.test_node_faults import put
from tests.waiting import eventually_async

PUT, DELETE = Txn((), (Put(b"a", b"1"),)), Txn((), (DeleteRange(b"a"), Put(b"g", b"")))


class Disk:
    """What statvfs says."""

    free_bytes = 1 << 40


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Free space of the metadata's disk, as the test says."""
    told = Disk()
    monkeypatch.setattr(SpaceReserve, "free_bytes", lambda self: told.free_bytes)
    monkeypatch.setattr(sqlite, "MEASURE_SECONDS", 0.0)
    return told


def test_a_transaction_frees_when_it_deletes() -> None:
    assert frees(DELETE)
    assert frees(Txn((absent(b"x"),), (DELETE,)))
    assert not frees(PUT)
    assert not frees(Txn((absent(b"x"),), (PUT,), failure=(DeleteRange(b"a"),)))


def test_metadata_on_a_full_disk_takes_deletes_only_until_there_is_plenty(
    tmp_path: Path, disk: Disk
) -> None:
    path, reserve = str(tmp_path / "m.sqlite"), tmp_path / "m.sqlite.reserve"

    async def scene() -> None:
        owner = SqliteOwner(path, SystemClock())
        await owner.txn(PUT)
        await eventually_async(lambda: reserve.exists(), 10)
        assert reserve.stat().st_blocks * 512 >= RESERVE_SIZE_BYTES
        await owner.close()
        disk.free_bytes = 0
        owner = SqliteOwner(path, SystemClock())
        assert not reserve.exists()
        assert owner.room().full
        with pytest.raises(MetastoreFull):
            await owner.txn(PUT)
        disk.free_bytes = 8 << 20  # some, but others want it, too
        with pytest.raises(MetastoreFull):
            await owner.txn(PUT)
        await owner.txn(DELETE)
        assert not reserve.exists()
        disk.free_bytes = 1 << 30
        await owner.txn(PUT)
        assert not owner.room().full
        await eventually_async(lambda: reserve.exists(), 10)
        await owner.close()

    asyncio.run(scene())


def test_what_is_left_when_the_metadata_is_closed_is_kept_for_the_next_start(
    tmp_path: Path, disk: Disk
) -> None:
    path, reserve = str(tmp_path / "m.sqlite"), tmp_path / "m.sqlite.reserve"

    async def scene() -> None:
        disk.free_bytes = 0
        owner = SqliteOwner(path, SystemClock())
        disk.free_bytes = 6 << 20
        with pytest.raises(MetastoreFull):
            await owner.txn(PUT)
        await owner.close()
        assert reserve.exists()

    asyncio.run(scene())


class Drive1Space(RealFiles):
    """Free space of all drives, as the test says."""

    free_bytes = 1 << 40

    def __init__(self) -> None:
        self.reserve_was_there: list[bool] = []

    def space(self, path: str) -> Space:
        return Space(1 << 41, self.free_bytes)

    def listdir(self, path: str) -> list[str]:
        if path.endswith("drive1"):
            self.reserve_was_there.append(os.path.exists(f"{path}/{RESERVE_NAME}"))
        return super().listdir(path)


def test_a_drive_gives_its_reserve_up_when_nothing_is_free_and_still_deletes(
    tmp_path: Path,
) -> None:
    files, reserve = Drive1Space(), tmp_path / "drive1" / RESERVE_NAME

    async def scene() -> None:
        def opened() -> "asyncio.Task[Node]":
            config = node_config(tmp_path, drives=1)
            return asyncio.create_task(
                Node.open(config, files, SystemClock(), SystemRandomness(), tended=False)
            )

        node = await opened()
        (drive,) = [report.drive for report in node.reports()]
        assert reserve.stat().st_size == 64 << 10
        blob, outcomes = await put(node, [drive])
        assert outcomes == (Outcome.STORED,)
        files.free_bytes = 100
        await node.tend()
        assert not reserve.exists()
        await node.close()
        assert not reserve.exists()
        node = await opened()
        assert node.reports()[0].condition is DriveCondition.FULL
        assert (await put(node, [drive]))[1] == (Outcome.DRIVE_FULL,)
        assert await node.delete([(drive, ShardId(blob, 0))]) == (Outcome.DONE,)
        files.free_bytes = (1 << 20) + 1000  # a little: it is not taken back for a reserve yet
        await node.tend()
        assert not reserve.exists()
        files.free_bytes = 1 << 30
        await node.tend()
        assert reserve.exists()
        assert node.reports()[0].condition is DriveCondition.UP
        await node.close()

    asyncio.run(scene())


def test_a_drive_opened_on_a_full_disk_gives_its_reserve_up_first(tmp_path: Path) -> None:
    files, reserve = Drive1Space(), tmp_path / "drive1" / RESERVE_NAME

    async def scene() -> None:
        config = node_config(tmp_path, drives=1)
        node = await Node.open(config, files, SystemClock(), SystemRandomness(), tended=False)
        await node.close()
        assert reserve.exists()
        files.free_bytes = 0
        files.reserve_was_there.clear()
        seen = files.reserve_was_there
        node = await Node.open(config, files, SystemClock(), SystemRandomness(), tended=False)
        assert seen
        assert not any(seen)
        await node.close()

    asyncio.run(scene())
