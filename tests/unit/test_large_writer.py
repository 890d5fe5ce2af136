"""Large bodies become shard files byte for byte as the layout says, past the page cache or through it."""

import asyncio
import errno
import os
import random
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest

from gateway.domain.write_plan import WritePlan
from gateway.metadata.records import BlobRef
from gateway.objects import buffers, large
from gateway.objects.buffers import BufferPool, WritingMemory
from gateway.objects.errors import NotEnoughDrives
from gateway.objects.large import LargeWriter, Threads
from gateway.objects.staging import StagedFiles
from gateway.s3.checksums import Digests
from gateway.s3.errors import ErrorCode, S3Error
from placement.codec import checksum_bytes, codec_for
from placement.ids import BlobId, DriveId, GroupId
from placement.metastore.port import Compare
from placement.schemes import Scheme
from storage_node.port import Buffer, Outcome, ShardId, StagedShard
from storage_node.shard_file import ShardFile

BLOB = BlobId(bytes(16))
STRIPE = 64 << 10
SCHEME = Scheme(4, 2, STRIPE)


class Body:
    def __init__(self, data: bytes, *, breaks_after: int | None = None) -> None:
        self.size_bytes = len(data)
        self.trailers: dict[str, str] = {}
        self._data = memoryview(data)
        self._breaks_after = breaks_after

    async def read_into(self, buffer: memoryview) -> int:
        await asyncio.sleep(0)
        part = self._data[: len(buffer)]
        buffer[: len(part)] = part
        self._data = self._data[len(part) :]
        if self._breaks_after is not None and len(self._data) < self._breaks_after:
            raise ConnectionError("the client left")
        return len(part)

    async def read_all(self, limit_bytes: int) -> bytes:
        raise NotImplementedError


def staged_in(folder: Path, size_bytes: int, scheme: Scheme = SCHEME) -> StagedFiles:
    """Files for every shard, made as the node makes them."""
    ref = BlobRef(
        blob=BLOB,
        k=scheme.k,
        m=scheme.m,
        stripe_size_bytes=scheme.stripe_size_bytes,
        size_bytes=size_bytes,
    )
    shards = []
    for index in range(scheme.width):
        path = folder / f"{index}"
        path.touch()
        drive = DriveId(bytes([index]) * 16)
        shards.append(StagedShard(drive, ShardId(BLOB, index), index, str(path)))
    plan = WritePlan(scheme, (), (), narrow=False)
    return StagedFiles(ref, GroupId(BLOB), plan, cast("Compare", None), tuple(shards))


def expected_shards(data: bytes, scheme: Scheme) -> list[bytes]:
    codec = codec_for(scheme.k, scheme.m)
    shards = [bytearray() for _ in range(scheme.width)]
    for start in range(0, len(data), scheme.stripe_size_bytes):
        fragments = codec.encode(data[start : start + scheme.stripe_size_bytes])
        for shard, fragment in zip(shards, fragments, strict=True):
            shard += checksum_bytes(fragment) + bytes(fragment)
    return [bytes(shard) for shard in shards]


@contextmanager
def threads() -> Iterator[Threads]:
    with ThreadPoolExecutor(4) as coding, ThreadPoolExecutor(16) as disks:
        yield Threads(coding, disks)


async def never(_: int, __: object) -> bool:
    raise AssertionError("no shard is remote here")


def write(
    staged: StagedFiles,
    data: bytes,
    memory: WritingMemory | None = None,
    *,
    body: Body | None = None,
    early: bool = False,
) -> LargeWriter:
    digests = Digests(None)
    memory = memory or WritingMemory(Scheme(staged.ref.k, staged.ref.m, STRIPE), 4)

    async def receive(writer: LargeWriter) -> None:
        try:
            await writer.receive(body or Body(data), never)
        finally:
            await asyncio.sleep(0.05)  # threads of a write that ended badly end soon after it

    with threads() as pools:
        writer = LargeWriter(staged, digests, memory, pools, may_end_early=early)
        asyncio.run(receive(writer))
    return writer


def contents(folder: Path, width: int) -> list[bytes]:
    return [(folder / f"{index}").read_bytes() for index in range(width)]


def free_memory(memory: WritingMemory) -> tuple[int, int]:
    """Buffers and regions that are to be had."""
    found = []
    for pool in (memory.buffers, memory.regions):
        taken = []
        while (one := pool.acquire_now()) is not None:
            taken.append(one)
        for one in taken:
            pool.release(one)
        found.append(len(taken))
    return found[0], found[1]


@pytest.mark.parametrize("scheme", [SCHEME, Scheme(3, 2, STRIPE), Scheme(1, 2, STRIPE)], ids=str)
@pytest.mark.parametrize(
    "size_bytes", [1, STRIPE + 1, 2 * STRIPE, 2 * STRIPE + 1, 5 * STRIPE, 11 * STRIPE + 4321]
)
def test_the_files_hold_checksums_and_fragments_of_every_stripe(
    tmp_path: Path, scheme: Scheme, size_bytes: int
) -> None:
    data = random.Random(size_bytes).randbytes(size_bytes)
    staged = staged_in(tmp_path, size_bytes, scheme)
    write(staged, data)
    assert not staged.failed
    assert contents(tmp_path, scheme.width) == expected_shards(data, scheme)


def test_a_body_that_ends_early_leaves_files_of_the_size_it_had(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(7 * STRIPE + 99)
    staged = staged_in(tmp_path, 20 * STRIPE)
    write(staged, data, early=True)
    assert staged.ref.size_bytes == len(data)
    assert contents(tmp_path, 6) == expected_shards(data, SCHEME)


def test_filesystems_without_direct_writes_are_written_as_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no direct I/O here")
        return real_open(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    data = random.Random(2).randbytes(9 * STRIPE)
    staged = staged_in(tmp_path, len(data))
    write(staged, data)
    assert not staged.failed
    assert contents(tmp_path, 6) == expected_shards(data, SCHEME)


def test_devices_with_larger_blocks_are_written_as_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = os.pwrite
    refused: list[int] = []

    def refuse(descriptor: int, part: memoryview, offset: int) -> int:
        if not refused:
            refused.append(offset)
            raise OSError(errno.EINVAL, "not aligned")
        return real_write(descriptor, part[:5000], offset)  # and short writes on top

    monkeypatch.setattr(os, "pwrite", refuse)
    data = random.Random(3).randbytes(6 * STRIPE)
    staged = staged_in(tmp_path, len(data))
    write(staged, data)
    assert not staged.failed
    assert contents(tmp_path, 6) == expected_shards(data, SCHEME)


def test_a_long_file_passes_the_page_cache_by(tmp_path: Path) -> None:
    """The descriptor's flags tell."""
    path = tmp_path / "0"
    path.touch()
    file = ShardFile(str(path), direct=True)
    try:
        flags = [
            line.split()[1]
            for line in Path(f"/proc/self/fdinfo/{file._descriptor}").read_text().splitlines()
            if line.startswith("flags:")
        ]
    finally:
        file.close()
    assert int(flags[0], 8) & os.O_DIRECT


def test_a_full_drive_is_told_from_one_that_erred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = ShardFile.write

    def fail(self: ShardFile, part: memoryview, offset: int) -> None:
        name = os.readlink(f"/proc/self/fd/{self._descriptor}")[-1]
        if offset and name in "05":
            raise OSError(errno.ENOSPC if name == "0" else errno.EIO, "as told")
        real_write(self, part, offset)

    monkeypatch.setattr(ShardFile, "write", fail)
    data = random.Random(4).randbytes(10 * STRIPE)
    staged = staged_in(tmp_path, len(data))
    writer = write(staged, data)
    assert staged.failed == {0, 5}
    assert writer.outcome_of(0) is Outcome.DRIVE_FULL
    assert writer.outcome_of(5) is Outcome.DRIVE_FAILED
    assert contents(tmp_path, 5)[1:] == expected_shards(data, SCHEME)[1:5]


def test_too_many_failures_end_the_write_and_free_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ShardFile, part: memoryview, offset: int) -> None:
        raise OSError(errno.EIO, "as told")

    monkeypatch.setattr(ShardFile, "write", fail)
    memory = WritingMemory(SCHEME, 4)
    with pytest.raises(NotEnoughDrives):
        write(staged_in(tmp_path, 10 * STRIPE), bytes(10 * STRIPE), memory)
    assert free_memory(memory) == (4, 3)


def test_a_client_that_leaves_frees_memory_and_files(tmp_path: Path) -> None:
    memory = WritingMemory(SCHEME, 4)
    data = bytes(10 * STRIPE)
    open_before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConnectionError):
        write(
            staged_in(tmp_path, len(data)), data, memory, body=Body(data, breaks_after=3 * STRIPE)
        )
    assert free_memory(memory) == (4, 3)
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_buffers_that_nobody_needs_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "UNUSED_SECONDS", 0.02)

    async def scenario() -> None:
        pool = BufferPool(4096, 3)
        taken = [await pool.acquire() for _ in range(3)]
        there = [weakref.ref(buffer) for buffer in taken]
        for buffer in taken:
            pool.release(buffer)
        del taken, buffer
        for _ in range(20):
            kept = await pool.acquire()
            await asyncio.sleep(0.005)
            pool.release(kept)
        assert [ref() is not None for ref in there] == [False, False, True]
        del kept
        await asyncio.sleep(0.1)
        assert not any(ref() for ref in there)
        again = [pool.acquire_now() for _ in range(4)]
        assert [buffer is not None for buffer in again] == [True, True, True, False]

    asyncio.run(scenario())


def test_many_bodies_share_few_buffers(tmp_path: Path) -> None:
    memory = WritingMemory(SCHEME, 3)
    data = [random.Random(i).randbytes(5 * STRIPE + i) for i in range(12)]
    folders = [tmp_path / f"f{i}" for i in range(12)]
    for folder in folders:
        folder.mkdir()

    async def all_at_once(pools: Threads) -> None:
        async with asyncio.TaskGroup() as group:
            for folder, one in zip(folders, data, strict=True):
                staged = staged_in(folder, len(one))
                writer = LargeWriter(staged, Digests(None), memory, pools)
                group.create_task(writer.receive(Body(one), never))

    with threads() as pools:
        asyncio.run(asyncio.wait_for(all_at_once(pools), 30))
    for folder, one in zip(folders, data, strict=True):
        assert contents(folder, 6) == expected_shards(one, SCHEME)
    assert free_memory(memory) == (3, 2)


def test_a_stuck_disk_is_given_up_and_its_descriptor_kept_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "LATE_SECONDS", 0.2)
    monkeypatch.setattr(large, "STALLED_SECONDS", 5.0)
    answers = threading.Event()
    real_write = ShardFile.write
    real_init = ShardFile.__init__

    def init(self: ShardFile, path: str, *, direct: bool) -> None:
        real_init(self, path, direct=direct)
        self.device = int(Path(path).name)  # each file on a disk of its own

    def stick(self: ShardFile, part: memoryview, offset: int) -> None:
        if self.device == 3:
            answers.wait(20)
        real_write(self, part, offset)

    monkeypatch.setattr(ShardFile, "__init__", init)
    monkeypatch.setattr(ShardFile, "write", stick)
    data = random.Random(5).randbytes(10 * STRIPE)
    staged = staged_in(tmp_path, len(data))
    memory = WritingMemory(SCHEME, 4)
    open_before = len(os.listdir("/proc/self/fd"))

    async def receive_and_wait(pools: Threads) -> tuple[int, int]:
        writer = LargeWriter(staged, Digests(None), memory, pools)
        await writer.receive(Body(data), never)
        stuck = len(os.listdir("/proc/self/fd"))
        answers.set()
        for _ in range(500):
            await asyncio.sleep(0.01)
            if len(os.listdir("/proc/self/fd")) < stuck:
                break
        return stuck, len(os.listdir("/proc/self/fd"))

    with threads() as pools:
        stuck, after = asyncio.run(receive_and_wait(pools))
    assert staged.failed == {3}
    assert stuck > after, "files were closed under a thread that still wrote"
    assert len(os.listdir("/proc/self/fd")) == open_before
    expected = expected_shards(data, SCHEME)
    assert [c for i, c in enumerate(contents(tmp_path, 6)) if i != 3] == [
        c for i, c in enumerate(expected) if i != 3
    ]
    assert free_memory(memory) == (4, 3)


class StallingBody(Body):
    """Its client sends so much, and no more until it is let go on."""

    def __init__(self, data: bytes, sends: int, goes_on: asyncio.Event) -> None:
        super().__init__(data)
        self._sends = sends
        self._goes_on = goes_on

    async def read_into(self, buffer: memoryview) -> int:
        if self._sends < len(buffer):
            await self._goes_on.wait()
        self._sends -= len(buffer)
        return await super().read_into(buffer)


def slow_among_others(
    folder: Path, memory: WritingMemory, slow: int
) -> tuple[list[BaseException | None], list[StagedFiles]]:
    """So many bodies stall in their second batch; another comes, and is to be received whole while
    they stall. How they end once they go on, and what was staged for them all."""
    folders = [folder / f"f{i}" for i in range(slow + 1)]
    for one in folders:
        one.mkdir()
    data = random.Random(6).randbytes(7 * STRIPE + 1)
    staged = [staged_in(one, len(data)) for one in folders]

    async def all_at_once(pools: Threads) -> list[BaseException | None]:
        goes_on = asyncio.Event()

        async def receive(one: StagedFiles, body: Body) -> None:
            await LargeWriter(one, Digests(None), memory, pools).receive(body, never)

        stalling = [
            asyncio.create_task(receive(one, StallingBody(data, 3 * STRIPE, goes_on)))
            for one in staged[:-1]
        ]
        async with asyncio.timeout(20):
            await asyncio.sleep(0.1)
            await receive(staged[-1], Body(data))
            goes_on.set()
            return await asyncio.gather(*stalling, return_exceptions=True)

    with threads() as pools:
        ends = asyncio.run(all_at_once(pools))
    expected = expected_shards(data, SCHEME)
    for end, one in zip([*ends, None], folders, strict=True):
        assert end is not None or contents(one, 6) == expected
    return ends, staged


def test_clients_that_stall_hold_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there are buffers, and twice that: more are made in place of theirs."""
    monkeypatch.setattr(large, "SLOW_SECONDS", 0.05)
    memory = WritingMemory(SCHEME, 2)
    ends, _ = slow_among_others(tmp_path, memory, 4)
    assert ends == [None] * 4
    assert free_memory(memory) == (2, 1)


def test_a_client_that_stalls_too_long_is_turned_away_for_those_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "SLOW_SECONDS", 0.05)
    monkeypatch.setattr(large, "FILL_SECONDS", 0.5)
    memory = WritingMemory(SCHEME, 2)
    ends, _ = slow_among_others(tmp_path, memory, 12)
    refused = [end for end in ends if end is not None]
    assert refused
    for end in refused:
        assert isinstance(end, S3Error)
        assert end.code is ErrorCode.REQUEST_TIMEOUT
    assert free_memory(memory) == (2, 1)


def test_parts_for_other_nodes_are_sent_whole_while_the_client_stalls(tmp_path: Path) -> None:
    data = random.Random(8).randbytes(7 * STRIPE + 1)
    staged = staged_in(tmp_path, len(data))
    staged.shards = tuple(msgspec.structs.replace(one, path="") for one in staged.shards)
    sent: list[list[bytes]] = [[] for _ in staged.shards]

    async def append(index: int, parts: Sequence[Buffer]) -> bool:
        await asyncio.sleep(0)
        sent[index] += [bytes(part) for part in parts]
        return True

    async def receive(pools: Threads) -> None:
        goes_on = asyncio.Event()
        body = StallingBody(data, 3 * STRIPE, goes_on)
        memory = WritingMemory(SCHEME, 2)
        writer = LargeWriter(staged, Digests(None), memory, pools)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(writer.receive(body, append))
            await asyncio.sleep(4 * large.IDLE_SECONDS)
            assert [len(parts) for parts in sent] == [1] * 6, "they went out while it stalled"
            assert free_memory(memory) == (1, 1)
            goes_on.set()

    with threads() as pools:
        asyncio.run(receive(pools))
    assert [b"".join(parts) for parts in sent] == expected_shards(data, SCHEME)
