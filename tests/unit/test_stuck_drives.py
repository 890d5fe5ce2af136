"""A drive that answers no call at all: the event loop goes on, and so do the other drives."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from placement.ids import BlobId, DriveId
from storage_node.apart import CALLS_MAX, Apart
from storage_node.layout import TMP
from storage_node.node import Node
from storage_node.offload import ThreadOffload
from storage_node.port import DriveCondition, GetShard, Outcome, ShardId, StagedShard
from tests.contract.test_node import body_of
from tests.unit.faulty_files import FaultyFiles
from tests.unit.test_node_faults import FAILED, STORED, commit_files, play, put, report_of

LATE_SECONDS = 0.8
"""What the loop may be late by at worst: the machine that runs the tests is busy, too."""


async def never_late(work: Awaitable[object]) -> object:
    """Its result, after the loop turned all the time."""
    loop, worst = asyncio.get_running_loop(), 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            began = loop.time()
            await asyncio.sleep(0.01)
            worst = max(worst, loop.time() - began - 0.01)

    watching = asyncio.create_task(watch())
    try:
        return await work
    finally:
        await asyncio.sleep(0.02)
        watching.cancel()
        assert worst < LATE_SECONDS


def get(node: Node, drive: DriveId, blob: BlobId, index: int, length: int) -> Awaitable[object]:
    return node.get([GetShard(drive, ShardId(blob, index), 0, length)])


Call = Callable[[Node, list[DriveId], BlobId], Awaitable[object]]


async def open_file(node: Node, drives: list[DriveId], blob: BlobId) -> object:
    opened = await node.open_shards([(d, ShardId(BlobId(bytes(16)), 0)) for d in drives])
    assert isinstance(opened[0], StagedShard)
    assert isinstance(opened[2], StagedShard)
    node.abort([one.token for one in opened if isinstance(one, StagedShard)])
    return opened[1]


async def read_small(node: Node, drives: list[DriveId], blob: BlobId) -> object:
    assert await get(node, drives[0], blob, 0, 9) == (body_of(b"x"),)
    (outcome,) = await node.get([GetShard(drives[1], ShardId(blob, 1), 0, 9)])
    return outcome


async def stat_shard(node: Node, drives: list[DriveId], blob: BlobId) -> object:
    (outcome,) = await node.stat([(drives[1], ShardId(blob, 1))])
    return outcome


async def care(node: Node, drives: list[DriveId], blob: BlobId) -> object:
    await node.tend()
    return FAILED


@pytest.mark.parametrize("call", [open_file, read_small, stat_shard, care])
def test_a_call_to_a_stuck_drive_holds_up_nobody_and_fails_the_drive(
    tmp_path: Path, call: Call
) -> None:
    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        blob, outcomes = await put(node, drives)
        assert outcomes == (STORED,) * 3
        files.folder(tmp_path / "drive2").stuck = threading.Event()
        waiting = asyncio.ensure_future(never_late(call(node, drives, blob)))
        await asyncio.sleep(0.05)
        assert await get(node, drives[0], blob, 0, 9) == (body_of(b"x"),)
        assert await waiting is FAILED
        assert report_of(node, 1).condition is DriveCondition.FAILED
        assert "stalled" in report_of(node, 1).reason
        _, outcomes = await put(node, drives)
        assert outcomes == (STORED, FAILED, STORED)

    play(tmp_path, scene)


def test_large_writes_go_on_with_the_drives_that_answer(tmp_path: Path) -> None:
    """The disk gets stuck between opening the file and committing it."""

    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        def stuck() -> None:
            files.folder(tmp_path / "drive2").stuck = threading.Event()

        opened = node.open_shards

        async def open_and_stick(shards: object) -> object:
            try:
                return await opened(shards)  # type: ignore[arg-type]
            finally:
                stuck()

        node.open_shards = open_and_stick  # type: ignore[method-assign, assignment]
        began = time.monotonic()
        blob, outcomes = await commit_files(node, drives)
        assert outcomes == (STORED, FAILED, STORED)
        assert time.monotonic() - began < 10
        assert report_of(node, 1).condition is DriveCondition.FAILED
        (data,) = await node.get([GetShard(drives[0], ShardId(blob, 0), 0, 9)])
        assert not isinstance(data, Outcome)

    play(tmp_path, scene)


def test_files_that_were_opened_for_somebody_who_gave_up_are_dropped(tmp_path: Path) -> None:
    """One drive keeps the call; the caller, who waits no longer, learns no token of the others."""

    async def scene(node: Node, drives: list[DriveId], files: FaultyFiles) -> None:
        stuck = files.folder(tmp_path / "drive2").stuck = threading.Event()
        blob = BlobId(bytes(16))
        opening = asyncio.ensure_future(node.open_shards([(d, ShardId(blob, 0)) for d in drives]))
        await asyncio.sleep(0.1)
        assert any((tmp_path / "drive1" / TMP).iterdir())
        opening.cancel()
        await asyncio.wait([opening])
        stuck.set()
        for _ in range(500):
            if not any(any((tmp_path / f"drive{i}" / TMP).iterdir()) for i in (1, 2, 3)):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("files are left")

    play(tmp_path, scene)


def test_a_stuck_drive_holds_few_threads() -> None:
    """Forty calls at once: others find threads all the same."""

    async def scene() -> None:
        offload = ThreadOffload(2 * CALLS_MAX)
        stuck = threading.Event()
        stalled: list[str] = []
        bad = Apart(offload, stalled.append, 0.5)
        good = Apart(offload, stalled.append, 30.0)
        calls = [asyncio.create_task(bad("a call", lambda: stuck.wait(30))) for _ in range(40)]
        await asyncio.sleep(0.05)
        assert await good("a call", lambda: 7) == 7
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(error, TimeoutError) for error in ended)
        assert set(stalled) == {"a call stalled"}
        with pytest.raises(TimeoutError, match="stalls"):
            await bad("another", lambda: 1)
        stuck.set()
        offload.close()

    asyncio.run(scene())


def test_what_comes_too_late_is_disposed_of() -> None:
    async def scene() -> None:
        offload, stuck = ThreadOffload(1), threading.Event()
        unwanted: list[bool] = []
        apart = Apart(offload, lambda reason: None, 0.1)
        with pytest.raises(TimeoutError):
            await apart("opening", lambda: stuck.wait(30), unwanted.append)
        stuck.set()
        async with asyncio.timeout(20):
            while not unwanted:  # noqa: ASYNC110 - a test may poll
                await asyncio.sleep(0.01)
        offload.close()

    asyncio.run(scene())
