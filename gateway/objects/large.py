"""Large blobs: received stripe by stripe, coded and written to the drives' files while more arrives.

Two buffers of a bounded pool serve a request: one is filled from the body while the other is hashed
and coded. MD5, the slowest step, runs in a thread of its own; checksums, parity and the writes in
another. Each buffer holds some whole stripes (each padded to k whole fragments), then their parity.
Memory: at most two buffers a request and the pool's bound a process.
"""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import msgspec

from gateway.domain.ranges import Geometry
from gateway.objects.buffers import BufferPool
from gateway.objects.errors import NotEnoughDrives
from gateway.objects.port import Hashing
from gateway.objects.staging import StagedFiles, geometry_of
from gateway.s3.message import Body
from placement.codec import Codec, checksum_bytes, codec_for
from storage_node.port import Buffer, Outcome
from storage_node.writeback import begin_writeback

Append = Callable[[int, Sequence[Buffer]], Awaitable[bool]]
"""Sends a part of the shard of that index over the wire; false when that failed."""

WRITEBACK_SIZE_BYTES = 4 << 20
"""Of a shard: written by that much, the kernel is told to take it to the disk, so that the flush at the
end does not have to take all."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where stripes and parity lie in a pool's buffer."""

    stripes: int
    """Stripes a buffer holds."""
    slot_size_bytes: int
    """Room of one padded stripe."""
    parity_size_bytes: int
    """Room of one stripe's parity."""

    @classmethod
    def of(cls, geometry: Geometry, m: int, buffer_size_bytes: int) -> "Layout":
        """As many stripes as fit, at least one."""
        slot = geometry.k * geometry.fragment_size_bytes
        parity = 0 if geometry.k == 1 else m * geometry.fragment_size_bytes
        stripes = min(buffer_size_bytes // (slot + parity), max(geometry.stripes, 1))
        assert stripes >= 1, "the pool's buffers are too small for this scheme"
        return cls(stripes, slot, parity)

    @staticmethod
    def room(k_least: int, m: int, stripe_size_bytes: int) -> int:
        """A buffer size that holds one stripe of k ≥ `k_least` data fragments."""
        fragment = -(-stripe_size_bytes // k_least)
        return (k_least + m) * (fragment + 1)


@dataclass(slots=True)
class _Batch:
    """Consecutive stripes in one buffer."""

    buffer: memoryview
    first: int
    sizes: list[int]
    ended: bool = False
    """The body ended here, before the size that it was given."""


class LargeWriter:
    """Writes one body into its staged files."""

    def __init__(
        self,
        staged: StagedFiles,
        digests: Hashing,
        pool: BufferPool,
        threads: Executor,
        *,
        may_end_early: bool = False,
    ) -> None:
        self._staged = staged
        self._may_end_early = may_end_early
        self._digests = digests
        self._pool = pool
        self._threads = threads
        self._geometry = geometry_of(staged.ref)
        self._codec: Codec = codec_for(staged.ref.k, staged.ref.m)
        self._layout = Layout.of(self._geometry, staged.ref.m, pool.size_bytes)
        self._files: dict[int, int] = {}
        self._written_back: dict[int, int] = {}
        self.full: set[int] = set()
        """Indices whose drive had no space left (the other failed ones erred)."""
        self.remote: dict[int, list[Buffer]] = {}
        """Of the batch in work: buffers for the shards that no local file takes."""

    async def receive(self, body: Body, append: Append) -> None:
        """Read the body to its end. Raises what the body raises, and NotEnoughDrives when fewer
        than k shards are left. The blob takes the size of a body that may end early and does."""
        buffers = [await self._pool.acquire()]
        work: list[Future[None]] = []
        try:
            if self._geometry.stripes > self._layout.stripes:
                second = self._pool.acquire_now()
                if second is not None:
                    buffers.append(second)
            stripe = 0
            turn = 0
            received_bytes = 0
            while stripe < self._geometry.stripes:
                if len(buffers) == 1:
                    await self._finish(work, append)
                batch = await self._fill(body, buffers[turn % len(buffers)], stripe)
                stripe += len(batch.sizes)
                turn += 1
                received_bytes += sum(batch.sizes)
                await self._finish(work, append)
                if batch.ended:
                    self._shrink(received_bytes)
                work += (
                    self._threads.submit(self._hash, batch),
                    self._threads.submit(self._code, batch),
                )
            await self._finish(work, append)
            # The body's end brings its trailers and its own verdict.
            extra = await body.read_into(buffers[0][:1])
            assert extra == 0, "the body is longer than it said"
        finally:
            self._release_after(work, buffers)

    def _release_after(self, work: "list[Future[None]]", buffers: list[memoryview]) -> None:
        """Close the files and give the buffers back, but not while a thread still uses them, as
        it may when the request was cancelled."""
        running = [future for future in work if not future.done()]
        if running:
            loop = asyncio.get_running_loop()
            running[0].add_done_callback(
                lambda _: loop.call_soon_threadsafe(self._release_after, running[1:], buffers)
            )
            return
        for buffer in buffers:
            self._pool.release(buffer)
        self._close()

    def _close(self) -> None:
        while self._files:
            _, descriptor = self._files.popitem()
            os.close(descriptor)

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

    async def _finish(self, work: "list[Future[None]]", append: Append) -> None:
        """Wait for the batch in work; send its parts for remote shards."""
        if not work:
            return
        for future in work:
            await asyncio.wrap_future(future)
        work.clear()
        if self.remote:
            await self._send(append)
        if len(self._staged.shards) - len(self._staged.failed) < self._geometry.k:
            raise NotEnoughDrives("too many drives failed while the body was written")

    async def _send(self, append: Append) -> None:
        """The parts for remote shards, to all nodes at once."""
        remote, self.remote = self.remote, {}
        indices = [index for index in remote if index not in self._staged.failed]
        sent = await asyncio.gather(*(append(index, remote[index]) for index in indices))
        self._staged.failed.update(
            index for index, whole in zip(indices, sent, strict=True) if not whole
        )

    # In threads

    def _hash(self, batch: _Batch) -> None:
        slot = self._layout.slot_size_bytes
        for position, size in enumerate(batch.sizes):
            start = position * slot
            self._digests.update_md5(batch.buffer[start : start + size])

    def _code(self, batch: _Batch) -> None:
        """Feed the other digests, compute parity and checksums, write every shard's part."""
        k, m = self._codec.k, self._codec.m
        vectors: list[list[Buffer]] = [[] for _ in range(k + m)]
        slot = self._layout.slot_size_bytes
        parity_start = self._layout.stripes * slot
        for position, size in enumerate(batch.sizes):
            start = position * slot
            stripe = batch.buffer[start : start + slot]
            self._digests.update_rest(stripe[:size])
            length = -(-size // k)
            if k == 1:
                fragments = [stripe[:size]] * (k + m)
                marks = [checksum_bytes(fragments[0])] * (k + m)
            else:
                base = parity_start + position * self._layout.parity_size_bytes
                parity = [
                    batch.buffer[base + i * length : base + (i + 1) * length] for i in range(m)
                ]
                self._codec.encode_into(stripe, size, parity)
                fragments = [stripe[i * length : (i + 1) * length] for i in range(k)] + parity
                marks = [checksum_bytes(fragment) for fragment in fragments]
            for index in range(k + m):
                vectors[index] += (marks[index], fragments[index])
        offset = self._geometry.shard_offset(batch.first)
        for index, shard in enumerate(self._staged.shards):
            if index in self._staged.failed:
                continue
            if not shard.path:
                self.remote[index] = vectors[index]
                continue
            try:
                self._write(index, shard.path, vectors[index], offset)
            except OSError as error:
                self._staged.failed.add(index)
                if error.errno in _NO_SPACE:
                    self.full.add(index)

    def _write(self, index: int, path: str, vector: Sequence[Buffer], offset: int) -> None:
        descriptor = self._files.get(index)
        if descriptor is None:
            # The node made the file: a vanished one must not be made again by us.
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            self._files[index] = descriptor
        written = os.pwritev(descriptor, vector, offset)
        expected = sum(map(len, vector))
        if written != expected:
            _write_rest(descriptor, vector, offset, written)
        end = offset + expected
        begun = self._written_back.get(index, 0)
        if end - begun >= WRITEBACK_SIZE_BYTES:
            begin_writeback(descriptor, begun, end - begun)
            self._written_back[index] = end


def _write_rest(descriptor: int, vector: Sequence[Buffer], offset: int, written: int) -> None:
    """Go on after a short write: the disk is nearly full, or a signal came."""
    rest = memoryview(b"".join(vector))[written:]
    offset += written
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        if count == 0:
            raise OSError(errno.EIO, "a write wrote nothing")
        rest = rest[count:]
        offset += count
