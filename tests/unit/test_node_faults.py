"""Drives that stall, fill up, err or are swapped while the node runs: only they leave the write set."""

import asyncio
import errno
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from placement.clock import SystemClock, SystemRandomness
from placement.ids import BlobId, DriveId
from storage_node.files import RealFiles
from storage_node.flush import AioFlusher, Flush, ThreadFlusher, open_flusher
from storage_node.node import Node
from storage_node.port import (
    CommitShard,
    DriveCondition,
    DriveReport,
    GetShard,
    Outcome,
    PutShard,
    ShardId,
    ShardInfo,
    StagedShard,
)
from storage_node.stall import Patience
from tests.contract.test_node import body_of, copies, envelope_of, node_config, until, write
from tests.unit.faulty_files import FaultyFiles

QUICK = Patience(minority_seconds=0.3, some_seconds=5.0, all_seconds=5.0, call_seconds=1.0)
FAILED, STORED, FULL = Outcome.DRIVE_FAILED, Outcome.STORED, Outcome.DRIVE_FULL

Scene = Callable[[Node, list[DriveId], FaultyFiles], Awaitable[None]]


def play(folder: Path, scene: Scene) -> None:
    """Run a scene against a node of three drives, flushed by threads."""

    async def run() -> None:
        files = FaultyFiles()
        node = await Node.open(
            node_config(folder),
            files,
            SystemClock(),
            SystemRandomness(),
            flusher=ThreadFlusher(files),
            patience=QUICK,
            tended=False,
        )
        try:
            await scene(node, [report.drive for report in node.reports()], files)
        finally:
            for faults in files.faults.values():
                for event in (faults.stalled, faults.stuck):
                    if event is not None:
                        event.set()
            files.faults.clear()
            await node.close()

    asyncio.run(run())


async def put(node: Node, drives: list[DriveId], data: bytes = b"x") -> tuple[BlobId, object]:
    blob, body = os.urandom(16), body_of(data)
    return BlobId(blob), await node.put_shards(copies(drives, blob, body, len(data)), [body])


async def commit_files(
    node: Node, drives: list[DriveId], size: int = 200_000
) -> tuple[BlobId, tuple[Outcome, ...]]:
    blob, body = os.urandom(16), body_of(os.urandom(size))
    staged = await node.open_shards([(d, ShardId(BlobId(blob), i)) for i, d in enumerate(drives)])
    commits = []
    for index, one in enumerate(staged):
        assert isinstance(one, StagedShard)
        write(one.path, body)
        commits.append(CommitShard(one.drive, one.token, envelope_of(blob, index, size), len(body)))
    return BlobId(blob), await node.commit(commits)


def report_of(node: Node, number: int) -> DriveReport:
    return node.reports()[number]


# Stalls


def test_a_drive_whose_flush_stalls_leaves_the_write_set_and_writes_go_on(tmp_path: Path) -> None:
    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        await put(node, drives)
        stalled = threading.Event()
        files.folder(tmp_path / "drive2").stalled = stalled
        loop = asyncio.get_running_loop()
        began = loop.time()
        blob, outcomes = await put(node, drives)
        assert outcomes == (STORED, FAILED, STORED)
        assert loop.time() - began < 3
        assert report_of(node, 1).condition is DriveCondition.FAILED
        assert "stalled" in report_of(node, 1).reason
        began = loop.time()
        _, outcomes = await put(node, drives)
        assert outcomes == (STORED, FAILED, STORED)
        assert loop.time() - began < 0.3
        assert (await node.get([GetShard(drives[0], ShardId(blob, 0), 0, 9)]))[0] == body_of(b"x")

    play(tmp_path, scene)


def test_a_stalled_drive_holds_up_no_care_and_returns_once_a_flush_succeeds(
    tmp_path: Path,
) -> None:
    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        await put(node, drives)
        stalled = threading.Event()
        files.folder(tmp_path / "drive1").stalled = stalled
        await put(node, drives)
        flushes = len([call for call in files.calls if "drive1/segments" in call[1]])
        rounds = asyncio.ensure_future(_rounds(node, 3.0))
        (tmp_path / "drive3").rename(tmp_path / "away")

        async def noticed() -> bool:
            return report_of(node, 2).condition is DriveCondition.MISSING

        await until(noticed)
        assert report_of(node, 0).condition is DriveCondition.FAILED
        assert len([c for c in files.calls if "drive1/segments" in c[1]]) == flushes, "tried again"
        files.folder(tmp_path / "drive1").stalled = None
        stalled.set()

        async def returned() -> bool:
            return report_of(node, 0).condition is DriveCondition.UP

        await until(returned)
        await rounds
        _, outcomes = await put(node, drives[:2])
        assert outcomes == (STORED, STORED)

    play(tmp_path, scene)


async def _rounds(node: Node, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        node._care._begin_round()
        await asyncio.sleep(0.05)


def test_a_large_commit_on_a_stalled_drive_fails_only_there(tmp_path: Path) -> None:
    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        stalled = threading.Event()
        files.folder(tmp_path / "drive3").stalled = stalled
        loop = asyncio.get_running_loop()
        began = loop.time()
        blob, outcomes = await commit_files(node, drives)
        assert outcomes == (STORED, STORED, FAILED)
        assert loop.time() - began < 3
        assert report_of(node, 2).condition is DriveCondition.FAILED
        info = (await node.stat([(drives[0], ShardId(blob, 0))], verify=True))[0]
        assert isinstance(info, ShardInfo)

    play(tmp_path, scene)


def test_a_log_that_cannot_make_room_fails_its_drive(tmp_path: Path) -> None:
    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        node._committer._room_seconds = 0.3
        stalled = threading.Event()
        files.folder(tmp_path / "drive1").stalled = stalled  # its first segment is still to be made
        _, outcomes = await put(node, drives)
        assert outcomes == (FAILED, STORED, STORED)
        stalled.set()
        files.folder(tmp_path / "drive1").stalled = None

    play(tmp_path, scene)


# Full disks


def test_a_full_drive_takes_no_shards_reads_go_on_and_it_comes_back_with_space(
    tmp_path: Path,
) -> None:
    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        blob, _ = await put(node, drives)
        disk = files.folder(tmp_path / "drive2")
        disk.full = True
        _, outcomes = await put(node, drives)
        assert outcomes == (STORED, FULL, STORED)
        assert report_of(node, 1).condition is DriveCondition.FULL
        assert await node.open_shards([(drives[1], ShardId(BlobId(bytes(16)), 0))]) == (FULL,)
        await node.tend()
        assert report_of(node, 1).condition is DriveCondition.FULL
        assert (await node.get([GetShard(drives[1], ShardId(blob, 1), 0, 9)]))[0] == body_of(b"x")
        disk.full = False
        await node.tend()
        assert report_of(node, 1).condition is DriveCondition.UP
        _, outcomes = await put(node, drives)
        assert outcomes == (STORED,) * 3

    play(tmp_path, scene)


def test_a_large_commit_on_a_full_drive_fails_only_there(tmp_path: Path) -> None:
    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        disk = files.folder(tmp_path / "drive1")
        disk.full = True
        _, outcomes = await commit_files(node, drives)
        assert outcomes == (FULL, STORED, STORED)
        assert os.listdir(tmp_path / "drive1/tmp") == []
        disk.full = False
        await node.tend()
        _, outcomes = await commit_files(node, drives)
        assert outcomes == (STORED,) * 3

    play(tmp_path, scene)


# Errors of the medium


@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
def test_a_write_error_drops_the_drive_with_all_its_part_of_the_group(
    call: str, tmp_path: Path
) -> None:
    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        await put(node, drives)
        files.folder(tmp_path / "drive1").errors[call] = errno.EIO
        _, outcomes = await put(node, drives)
        assert outcomes == (FAILED, STORED, STORED)
        assert report_of(node, 0).condition is DriveCondition.FAILED
        assert report_of(node, 0).errors >= 1
        segment = node._care._places[0].drive
        assert segment is not None
        assert segment.log.active is not None
        before = segment.log.active.id
        await node.tend()  # closes it
        files.folder(tmp_path / "drive1").errors.clear()

        async def returned() -> bool:
            await node.tend()
            return report_of(node, 0).condition is DriveCondition.UP

        await until(returned)
        _, outcomes = await put(node, drives)
        assert outcomes == (STORED,) * 3
        drive = node._care.drives[drives[0]]
        assert drive.log.active is not None
        assert drive.log.active.id > before, "the segment of the failed write was sealed"

    play(tmp_path, scene)


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_read_error_drops_the_drive_and_is_an_outcome(size: int, tmp_path: Path) -> None:
    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        blob, _ = await put(node, drives, bytes(size))
        files.folder(tmp_path / "drive3").errors["pread"] = errno.EIO
        reads = [GetShard(d, ShardId(blob, i), 0, size + 8) for i, d in enumerate(drives)]
        got = await node.get(reads)
        assert [isinstance(one, Outcome) for one in got] == [False, False, True]
        assert got[2] is FAILED
        assert report_of(node, 2).condition is DriveCondition.FAILED
        assert await node.get(reads[2:]) == (FAILED,)

    play(tmp_path, scene)


def test_a_read_error_of_a_large_file_drops_the_drive(tmp_path: Path) -> None:
    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        blob, _ = await commit_files(node, drives, 400_000)
        files.folder(tmp_path / "drive1").errors["pread"] = errno.EIO
        assert await node.get([GetShard(drives[0], ShardId(blob, 0), 0, 400_008)]) == (FAILED,)

    play(tmp_path, scene)


def test_an_error_of_the_rename_fails_only_that_drive(tmp_path: Path) -> None:
    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        files.folder(tmp_path / "drive2").errors["rename"] = errno.EROFS
        _, outcomes = await commit_files(node, drives)
        assert outcomes == (STORED, FAILED, STORED)

    play(tmp_path, scene)


# Identity


@pytest.mark.parametrize("large", [False, True])
def test_a_folder_swapped_while_running_acknowledges_nothing(large: bool, tmp_path: Path) -> None:
    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        await put(node, drives)
        (tmp_path / "drive1").rename(tmp_path / "one")
        (tmp_path / "drive2").rename(tmp_path / "drive1")
        (tmp_path / "one").rename(tmp_path / "drive2")
        if large:
            blob, body = os.urandom(16), body_of(bytes(200_000))
            staged = await node.open_shards(
                [(d, ShardId(BlobId(blob), i)) for i, d in enumerate(drives)]
            )
            commits = []
            for one in staged:
                assert isinstance(one, StagedShard)
                write(one.path, body)
                envelope = envelope_of(blob, one.shard.index, 200_000)
                commits.append(CommitShard(one.drive, one.token, envelope, len(body)))
            outcomes = await node.commit(commits)
        else:
            _, outcomes = await put(node, drives)  # type: ignore[assignment]
        assert outcomes == (FAILED, FAILED, STORED)

        async def noticed() -> bool:
            await node.tend()
            return all("swapped" in report_of(node, number).reason for number in (0, 1))

        await until(noticed)
        assert all(report_of(node, n).condition is DriveCondition.FAILED for n in (0, 1))

    play(tmp_path, scene)


# Flushers


def test_threads_flush_data_and_folders_and_tell_errors_by_file(tmp_path: Path) -> None:
    async def scenario() -> None:
        files = FaultyFiles()
        flusher = ThreadFlusher(files)
        fds = [files.open(str(tmp_path / str(n)), os.O_RDWR | os.O_CREAT) for n in range(3)]
        folder = files.open(str(tmp_path), os.O_RDONLY | os.O_DIRECTORY)
        files.folder(tmp_path / "1").errors["fdatasync"] = errno.EIO
        flush = flusher.flush(fds, [folder])
        await flush.done
        found = [None if error is None else error.errno for error in flush.errors]
        assert found == [None, errno.EIO, None, None]
        assert sorted(call for call, _ in files.calls) == ["fdatasync", "fdatasync", "fsync"]
        for fd in (*fds, folder):
            files.close(fd)
        flusher.close()

    asyncio.run(scenario())


def test_without_linux_aio_threads_take_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        def none(*_: object) -> None:
            raise OSError(errno.ENOSYS, "no AIO")

        monkeypatch.setattr(AioFlusher, "__init__", none)
        flusher = open_flusher(FaultyFiles())
        assert isinstance(flusher, ThreadFlusher)
        flusher.close()

    asyncio.run(scenario())


def test_flushes_that_aio_does_not_take_are_done_by_threads(tmp_path: Path) -> None:
    async def scenario() -> None:
        files = FaultyFiles()
        flusher = open_flusher(files)
        if not isinstance(flusher, AioFlusher):
            pytest.skip("no Linux AIO on this machine")
        submit = flusher._context.submit

        class Reluctant:
            """Takes one operation, then is full."""

            def __init__(self, accepts: int) -> None:
                self.accepts = accepts

            def submit(self, *operations: object) -> int:
                if self.accepts < 0:
                    raise OSError(errno.EAGAIN, "full")
                return int(submit(*operations[: self.accepts])) if self.accepts else 0

        fds = [files.open(str(tmp_path / str(n)), os.O_RDWR | os.O_CREAT) for n in range(3)]
        folder = files.open(str(tmp_path), os.O_RDONLY | os.O_DIRECTORY)
        real = flusher._context
        for accepts in (-1, 0, 1, 3):
            files.calls.clear()
            flusher._context = Reluctant(accepts)
            flush: Flush = flusher.flush(fds, [folder])
            flusher._context = real
            async with asyncio.timeout(5):
                await flush.done
            assert flush.errors == [None] * 4
            taken = max(accepts, 0)
            assert len(files.calls) == 4 - taken
            assert ("fsync", str(tmp_path)) in files.calls
        for fd in (*fds, folder):
            files.close(fd)
        flusher.close()

    asyncio.run(scenario())


def test_aio_tells_the_error_of_a_descriptor(tmp_path: Path) -> None:
    async def scenario() -> None:
        flusher = open_flusher(RealFiles())
        read_end, write_end = os.pipe()
        good = os.open(tmp_path / "good", os.O_RDWR | os.O_CREAT)
        flush = flusher.flush([good, write_end])
        async with asyncio.timeout(5):
            await flush.done
        assert flush.errors[0] is None
        assert flush.errors[1] is not None
        assert flush.errors[1].errno == errno.EINVAL
        for fd in (read_end, write_end, good):
            os.close(fd)
        flusher.close()

    asyncio.run(scenario())


def test_a_shard_written_again_counts_once(tmp_path: Path) -> None:
    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        drive = node._care.drives[drives[0]]
        blob, body = os.urandom(16), body_of(b"x")
        for _ in range(2):
            for _ in range(2):
                await node.put_shards(copies(drives[:1], blob, body, 1), [body])
            await put(node, drives[:1])
            await drive.write_back()
        assert report_of(node, 0).shards == 3
        await node.put_shards(copies(drives[:1], blob, body, 1), [body])
        assert await node.delete([(drives[0], ShardId(BlobId(blob), 0))]) == (Outcome.DONE,)
        await drive.write_back()
        assert report_of(node, 0).shards == 2

    play(tmp_path, scene)


def test_a_put_that_names_no_drive_in_use_is_an_outcome(tmp_path: Path) -> None:
    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        body = body_of(b"x")
        unknown = PutShard(DriveId(b"?" * 16), BlobId(bytes(16)), 0, b"", 0, len(body))
        assert await node.put_shards([unknown], [body]) == (FAILED,)

    play(tmp_path, scene)


def test_an_index_that_cannot_be_written_for_want_of_space_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        drive = node._care.drives[drives[0]]
        first, _ = await put(node, drives)
        pages = drive.index._writer.execute("PRAGMA page_count").fetchone()[0]
        drive.index._writer.execute(f"PRAGMA max_page_count = {pages}")
        kept = [first]
        for _ in range(400):
            blob, _ = await put(node, drives[:1])
            kept.append(blob)
        await drive.write_back()
        assert not drive.failed
        assert report_of(node, 0).condition is DriveCondition.FULL
        assert report_of(node, 0).shards == 401
        for blob in (kept[0], kept[-1]):
            (got,) = await node.get([GetShard(drives[0], ShardId(blob, 0), 0, 9)])
            assert got == body_of(b"x")
        drive.index._writer.execute("PRAGMA max_page_count = 1000000")
        await node.tend()
        assert report_of(node, 0).condition is DriveCondition.UP
        await drive.write_back()
        assert drive.index.find_stored(kept[-1] + b"\0") is not None
        assert report_of(node, 0).shards == 401

    play(tmp_path, scene)
