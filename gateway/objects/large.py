"""Large blobs: received stripe by stripe, coded and written to the drives' files while more arrives.

Two receiving buffers serve a request, if there are as many: one is filled from the body while the
other is hashed and coded. MD5, the slowest step, runs in a thread of its own. Coding lays each
shard's part out in one piece, in a region; threads of the disks write these pieces, one thread a
device, while the next batch is coded into another region. What does not fill a block waits for the
next piece, so that files can be written past the page cache.
"""

import asyncio
import errno
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

import msgspec

from gateway.domain.ranges import CHECKSUM_SIZE_BYTES
from gateway.objects.buffers import Layout, WritingMemory
from gateway.objects.errors import NotEnoughDrives
from gateway.objects.port import Hashing
from gateway.objects.staging import StagedFiles, geometry_of
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import Body
from placement.codec import Codec, checksum_bytes, codec_for
from storage_node.port import Buffer, Outcome
from storage_node.shard_file import BLOCK_SIZE_BYTES, ShardFile

Append = Callable[[int, Sequence[Buffer]], Awaitable[bool]]
"""Sends a part of the shard of that index over the wire; false when that failed."""

LATE_SECONDS = 20.0
"""A write that takes longer while at least half of the others have ended: its drive has failed."""
STALLED_SECONDS = 60.0
"""The same while they have not: the drives may share a busy disk."""
IDLE_SECONDS = 0.05
"""A client that takes longer to fill a buffer leaves to others what it does not need for that."""
SLOW_SECONDS = 1.0
"""One that takes longer leaves to others another buffer in place of its own."""
FILL_SECONDS = 60.0
"""One that takes longer while others wait for a buffer is turned away: less than 35 kB a second."""
LANES_MAX = 2
"""Batches of one body that are coded or written at once."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Threads:
    """Where a writer's steps run."""

    coding: Executor
    disks: Executor
    """Its threads wait for disks and for nothing else."""


@dataclass(slots=True)
class _Batch:
    """Consecutive stripes in one buffer."""

    buffer: memoryview
    first: int
    sizes: list[int]
    ended: bool = False
    """The body ended here, before the size that it was given."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one shard's file takes of a batch."""

    index: int
    file: ShardFile
    part: memoryview
    offset: int


@dataclass(slots=True)
class _Lane:
    """A batch on its way from the coder to the disks."""

    region: memoryview | None
    """None where the bytes lie elsewhere."""
    writes: dict[Future[None], list[_Piece]] = field(default_factory=dict)


class LargeWriter:
    """Writes one body into its staged files."""

    def __init__(
        self,
        staged: StagedFiles,
        digests: Hashing,
        memory: WritingMemory,
        threads: Threads,
        *,
        may_end_early: bool = False,
    ) -> None:
        self._staged = staged
        self._may_end_early = may_end_early
        self._digests = digests
        self._memory = memory
        self._threads = threads
        self._geometry = geometry_of(staged.ref)
        self._codec: Codec = codec_for(staged.ref.k, staged.ref.m)
        self._layout: Layout = memory.layout(self._geometry, staged.ref.m)
        self._is_long = self._geometry.stripes > self._layout.stripes
        """One buffer does not hold it: its files pass the page cache by."""
        self._block = BLOCK_SIZE_BYTES if self._is_long else 1
        self._files: dict[int, ShardFile] = {}
        self._carried: dict[int, bytes] = {}
        """Of each shard, what does not fill a block yet."""
        self._coding: list[Future[None]] = []
        self._lanes: deque[_Lane] = deque()
        self._abandoned: list[Future[None]] = []
        """Writes that nobody waits for any more."""
        self.full: set[int] = set()
        """Indices whose drive had no space left (the other failed ones erred)."""
        self.remote: dict[int, memoryview] = {}
        """Of the batch in work: parts of the shards that no local file takes."""

    async def receive(self, body: Body, append: Append) -> None:
        """Read the body to its end. Raises what the body raises, and NotEnoughDrives when fewer
        than k shards are left. The blob takes the size of a body that may end early and does."""
        pool = self._memory.buffers
        buffers = [await pool.acquire()]
        try:
            stripe = 0
            in_work: memoryview | None = None
            received_bytes = 0
            while stripe < self._geometry.stripes:
                buffer = next((one for one in buffers if one is not in_work), None)
                if buffer is None:
                    buffer = pool.acquire_now()
                    if buffer is None:
                        await self._finish(append)
                        buffer = buffers[0]
                    else:
                        buffers.append(buffer)
                batch = await self._fill_in_time(body, buffer, stripe, buffers, append)
                stripe += len(batch.sizes)
                in_work = buffer
                received_bytes += sum(batch.sizes)
                await self._finish(append)
                if batch.ended:
                    self._shrink(received_bytes)
                await self._begin(batch)
            await self._finish(append)
            await self._settle_all()
            await self._write_ends()
            # The body's end brings its trailers and its own verdict.
            extra = await body.read_into(buffers[0][:1])
            assert extra == 0, "the body is longer than it said"
        finally:
            self._release_after(buffers)

    async def _fill_in_time(
        self,
        body: Body,
        buffer: memoryview,
        first: int,
        buffers: list[memoryview],
        append: Append,
    ) -> _Batch:
        """Fill the buffer from the body. A client that is slow holds nothing else meanwhile. Raises
        RequestTimeout where it takes `FILL_SECONDS` and others wait."""
        loop = asyncio.get_running_loop()
        filled = asyncio.Event()
        idling: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(None) as limit:

                def idle() -> None:
                    nonlocal idling
                    idling = loop.create_task(self._idle(buffer, buffers, append, filled, limit))

                timer = loop.call_later(IDLE_SECONDS, idle)
                try:
                    batch = await self._fill(body, buffer, first)
                    filled.set()
                    if idling is not None:
                        await idling
                finally:
                    timer.cancel()
                    if idling is not None:
                        idling.cancel()
                        await asyncio.gather(idling, return_exceptions=True)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise S3Error(ErrorCode.REQUEST_TIMEOUT) from error
        return batch

    async def _idle(
        self,
        buffer: memoryview,
        buffers: list[memoryview],
        append: Append,
        filled: asyncio.Event,
        limit: asyncio.Timeout,
    ) -> None:
        """Until the buffer is filled: let others have the regions and the buffer that were in work,
        and another buffer in place of this one."""
        await self._finish(append)
        await self._settle_all()
        pool = self._memory.buffers
        others = [one for one in buffers if one is not buffer]
        buffers[:] = [buffer]
        for one in others:
            pool.release(one)
        loop = asyncio.get_running_loop()
        end = loop.time() + FILL_SECONDS
        excused = False
        try:
            while not await _happens(filled, SLOW_SECONDS):
                excused = excused or pool.excuse()
                if loop.time() >= end and pool.wanted:
                    limit.reschedule(loop.time())
        finally:
            if excused:
                pool.expect()

    async def _begin(self, batch: _Batch) -> None:
        """Put the batch in work."""
        while len(self._lanes) >= LANES_MAX:
            await self._settle()
        regions = self._memory.regions
        region = regions.acquire_now()
        if region is None:
            # Whoever waits for one holds none.
            await self._settle_all()
            region = await regions.acquire()
        lane = _Lane(region)
        self._lanes.append(lane)
        self._coding += (
            self._threads.coding.submit(self._hash, batch),
            self._threads.coding.submit(self._code, batch, lane),
        )

    def _release_after(self, buffers: list[memoryview]) -> None:
        """Close the files and give the buffers back, but not while a thread still uses them, as
        it may when the request was cancelled."""
        if self._again_after([*self._coding], buffers):
            return
        if self._again_after([write for lane in self._lanes for write in lane.writes], buffers):
            return
        while buffers:
            self._memory.buffers.release(buffers.pop())
        while self._lanes:
            self._free(self._lanes.popleft())
        if self._again_after(self._abandoned, buffers):
            return
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _again_after(self, futures: Sequence[Future[None]], buffers: list[memoryview]) -> bool:
        """Whether one of these still runs; then `_release_after` comes again when it has ended."""
        running = next((future for future in futures if not future.done()), None)
        if running is None:
            return False
        loop = asyncio.get_running_loop()
        running.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release_after, buffers))
        return True

    def _free(self, lane: _Lane) -> None:
        if lane.region is not None:
            self._memory.regions.release(lane.region)

    def outcome_of(self, index: int) -> Outcome:
        """How a failed index is to be reported."""
        return Outcome.DRIVE_FULL if index in self.full else Outcome.DRIVE_FAILED

    async def _fill(self, body: Body, buffer: memoryview, first: int) -> _Batch:
        batch = _Batch(buffer, first, [])
        last = min(first + self._layout.stripes, self._geometry.stripes)
        for position, stripe in enumerate(range(first, last)):
            size = self._geometry.stripe_bytes(stripe)
            start = position * self._layout.slot_size_bytes
            received = await body.read_into(buffer[start : start + size])
            if received < size:
                assert self._may_end_early, "a body shorter than it said raises by itself"
                batch.ended = True
                if received:
                    batch.sizes.append(received)
                break
            batch.sizes.append(size)
        return batch

    def _shrink(self, size_bytes: int) -> None:
        """The size is known at last. Nothing is in work; what was written lies where it belongs,
        since only the last stripe's place in a shard depends on the size."""
        self._staged.ref = msgspec.structs.replace(self._staged.ref, size_bytes=size_bytes)
        self._geometry = geometry_of(self._staged.ref)

    async def _finish(self, append: Append) -> None:
        """Wait until the batch in work is coded; send its parts for remote shards."""
        if not self._coding:
            return
        for future in self._coding:
            await asyncio.wrap_future(future)
        self._coding.clear()
        if self.remote:
            await self._send(append)
            self._require_quorum()

    def _require_quorum(self) -> None:
        if len(self._staged.shards) - len(self._staged.failed) < self._geometry.k:
            raise NotEnoughDrives("too many drives failed while the body was written")

    async def _send(self, append: Append) -> None:
        """The parts for remote shards, to all nodes at once."""
        remote, self.remote = self.remote, {}
        indices = [index for index in remote if index not in self._staged.failed]
        sent = await asyncio.gather(*(append(index, [remote[index]]) for index in indices))
        self._staged.failed.update(
            index for index, whole in zip(indices, sent, strict=True) if not whole
        )

    async def _settle_all(self) -> None:
        while self._lanes:
            await self._settle()

    async def _settle(self) -> None:
        """Wait until the oldest batch is written, and free its region."""
        lane = self._lanes[0]
        whole = await self._written(lane.writes)
        self._lanes.popleft()
        if whole:
            self._free(lane)
        elif lane.region is not None:
            self._memory.regions.forget()
        self._require_quorum()

    async def _written(self, writes: dict[Future[None], list[_Piece]]) -> bool:
        """Wait for these, but not for a disk that is stuck; false when some have not ended."""
        count = sum(len(pieces) for pieces in writes.values())
        waiting = {asyncio.wrap_future(write): write for write in writes}
        left: set[asyncio.Future[None]] = set(waiting)
        for seconds in (LATE_SECONDS, STALLED_SECONDS - LATE_SECONDS):
            if left:
                _, left = await asyncio.wait(left, timeout=seconds)
            late = sum(len(writes[waiting[future]]) for future in left)
            if 2 * late <= count:
                break
        for future in left:
            self._give_up(waiting[future], writes.pop(waiting[future]))
        for write in list(writes):
            write.result()
        return not left

    def _give_up(self, write: Future[None], pieces: Sequence[_Piece]) -> None:
        """Their drives have failed. Until the kernel answers it may read the region, which goes with
        the thread; others get new memory."""
        self._staged.failed.update(piece.index for piece in pieces)
        self._abandoned.append(write)

    async def _write_ends(self) -> None:
        """Write what fills no block."""
        end = self._geometry.shard_size_bytes
        pieces = [
            _Piece(index, self._files[index], memoryview(part), end - len(part))
            for index, part in self._carried.items()
            if part and index not in self._staged.failed
        ]
        lane = _Lane(None)
        self._lanes.append(lane)
        self._submit(lane, pieces, ends=True)
        await self._settle()

    # In threads

    def _hash(self, batch: _Batch) -> None:
        slot = self._layout.slot_size_bytes
        for position, size in enumerate(batch.sizes):
            start = position * slot
            self._digests.update_md5(batch.buffer[start : start + size])

    def _code(self, batch: _Batch, lane: _Lane) -> None:
        """Feed the other digests, lay out every shard's part, have them written."""
        region = lane.region
        assert region is not None
        offset = self._geometry.shard_offset(batch.first)
        ahead = offset % self._block
        end = self._lay_out(batch, region, ahead)
        whole = end - end % self._block
        pieces = []
        for index, shard in enumerate(self._staged.shards):
            if index in self._staged.failed:
                continue
            start = self._layout.region_start(index)
            if not shard.path:
                self.remote[index] = region[start + ahead : start + end]
                continue
            region[start : start + ahead] = self._carried.get(index, b"")
            self._carried[index] = bytes(region[start + whole : start + end])
            file = self._files.get(index)
            try:
                if file is None:
                    file = self._files[index] = ShardFile(shard.path, direct=self._is_long)
            except OSError as error:
                self._note(index, error)
                continue
            pieces.append(_Piece(index, file, region[start : start + whole], offset - ahead))
        self._submit(lane, pieces)

    def _lay_out(self, batch: _Batch, region: memoryview, at: int) -> int:
        """Write checksum, fragment, checksum, fragment … of every shard into its part of the
        region, from `at` on; where they end."""
        k, width = self._codec.k, self._layout.regions
        starts = [self._layout.region_start(index) for index in range(width)]
        slot = self._layout.slot_size_bytes
        for position, size in enumerate(batch.sizes):
            stripe = batch.buffer[position * slot : (position + 1) * slot]
            self._digests.update_rest(stripe[:size])
            length = -(-size // k)
            begins = [start + at + CHECKSUM_SIZE_BYTES for start in starts]
            fragments = [region[begin : begin + length] for begin in begins]
            if k > 1:
                self._codec.encode_into(stripe, size, fragments[k:])
            for index in range(k):
                fragments[index][:] = stripe[index * length : (index + 1) * length]
            for begin, fragment in zip(begins, fragments, strict=True):
                region[begin - CHECKSUM_SIZE_BYTES : begin] = checksum_bytes(fragment)
            at += CHECKSUM_SIZE_BYTES + length
        return at

    def _submit(self, lane: _Lane, pieces: Sequence[_Piece], *, ends: bool = False) -> None:
        """Have them written, each device's by a thread of its own."""
        by_device: dict[int, list[_Piece]] = {}
        for piece in pieces:
            by_device.setdefault(piece.file.device, []).append(piece)
        for one in by_device.values():
            lane.writes[self._threads.disks.submit(self._write, one, ends)] = one

    def _write(self, pieces: Sequence[_Piece], ends: bool) -> None:
        for piece in pieces:
            if piece.index in self._staged.failed:
                continue
            write = piece.file.write_end if ends else piece.file.write
            try:
                write(piece.part, piece.offset)
            except OSError as error:
                self._note(piece.index, error)

    def _note(self, index: int, error: OSError) -> None:
        self._staged.failed.add(index)
        if error.errno in _NO_SPACE:
            self.full.add(index)


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    """Whether it does within that time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
