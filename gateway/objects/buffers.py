"""Buffers in which large bodies are received and coded: few, of one size, with their pages in place.

The pools bound the memory of large writes in a process: a request that finds none free waits for one.
"""

import asyncio
import mmap
from collections import deque
from dataclasses import dataclass

from gateway.domain.ranges import CHECKSUM_SIZE_BYTES, Geometry
from placement.schemes import Scheme
from storage_node.shard_file import BLOCK_SIZE_BYTES

LATE_BUFFERS_PER_BUFFER = 3
"""What slow clients may hold beside what all may: 48 MiB in a process, while there are so many."""
UNUSED_SECONDS = 1.0
"""Buffers that nobody needed for so long go: between writes a process needs none."""
BATCH_STRIPES = 2
"""Received, coded and written at once: 2 MiB. Fewer cost more hops, more cost memory and overlap
less with receiving."""


class BufferPool:
    """At most `count` buffers of `size_bytes`, made when needed and kept while they are; and one more
    for each that is excused, up to `late_max`. Belongs to one event loop."""

    def __init__(self, size_bytes: int, count: int, late_max: int = 0) -> None:
        assert count >= 1
        self.size_bytes = size_bytes
        self._count = count
        self._late_max = late_max
        self._late = 0
        self._made = 0
        self._free: list[memoryview] = []
        """The one used last is taken first."""
        self._unused = 0
        """So many of the free ones were free ever since the timer was set."""
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[asyncio.Future[memoryview]] = deque()

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for one."""
        return any(not waiter.done() for waiter in self._waiting)

    async def acquire(self) -> memoryview:
        """A buffer, in order of asking; waits while all are in use."""
        buffer = None if self._waiting else self.acquire_now()
        if buffer is not None:
            return buffer
        waiter: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release(waiter.result())
            raise

    def acquire_now(self) -> memoryview | None:
        """A buffer if one is free."""
        if self._free:
            return self._take_free()
        if self._made < self._count + self._late:
            self._made += 1
            return _prefaulted(self.size_bytes)
        return None

    def forget(self) -> None:
        """One that was acquired does not come back: another may be made in its place."""
        self._made -= 1
        self._make_for_waiting()

    def excuse(self) -> bool:
        """One that was acquired comes back late: until `expect` another may be made beside it. False
        when too many are late already."""
        if self._late == self._late_max:
            return False
        self._late += 1
        self._make_for_waiting()
        return True

    def expect(self) -> None:
        """One that was excused is no longer late."""
        self._late -= 1
        if self._free and self._made > self._count + self._late:
            self._take_free()
            self._made -= 1

    def release(self, buffer: memoryview) -> None:
        """Give one back; its contents may be overwritten at once."""
        assert len(buffer) == self.size_bytes
        if self._made > self._count + self._late:
            self._made -= 1
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(buffer)
                return
        self._free.append(buffer)
        if self._timer is None:
            self._watch()

    def _take_free(self) -> memoryview:
        buffer = self._free.pop()
        self._unused = min(self._unused, len(self._free))
        return buffer

    def _watch(self) -> None:
        self._unused = len(self._free)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(UNUSED_SECONDS, self._drop_unused)

    def _drop_unused(self) -> None:
        self._timer = None
        del self._free[: self._unused]
        self._made -= self._unused
        if self._free:
            self._watch()

    def _make_for_waiting(self) -> None:
        while self.wanted and (buffer := self.acquire_now()) is not None:
            self.release(buffer)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where stripes lie in a receiving buffer, and the shards' parts in a region."""

    stripes: int
    """Stripes of a batch."""
    slot_size_bytes: int
    """Room of one padded stripe."""
    regions: int
    """Parts that differ: all, or one when every shard is a copy."""
    part_size_bytes: int
    """Room of one shard's part; a multiple of the block."""

    @classmethod
    def of(
        cls, geometry: Geometry, m: int, buffer_size_bytes: int, region_size_bytes: int
    ) -> "Layout":
        """As many stripes as fit, at least one."""
        slot = geometry.k * geometry.fragment_size_bytes
        regions = 1 if geometry.k == 1 else geometry.k + m
        part = region_size_bytes // regions // BLOCK_SIZE_BYTES * BLOCK_SIZE_BYTES
        stripes = min(
            buffer_size_bytes // slot,
            (part - BLOCK_SIZE_BYTES) // geometry.shard_stride_bytes,
            max(geometry.stripes, 1),
        )
        assert stripes >= 1, "the buffers are too small for this scheme"
        return cls(stripes, slot, regions, part)

    def region_start(self, index: int) -> int:
        """Where that shard's part begins."""
        return 0 if self.regions == 1 else index * self.part_size_bytes


class WritingMemory:
    """What large writes of a process receive into (`buffers`) and lay shards out in (`regions`).
    Belongs to one event loop.

    `count` of the former, each of two stripes, and three quarters as many of the latter, each for
    the shards of two stripes: with 8 and 4+2 that is 16 + 18 MiB.
    """

    def __init__(self, scheme: Scheme, count: int, before: "WritingMemory | None" = None) -> None:
        """Room for this scheme, for those narrowed from it, and for what `before` had room for."""
        buffer, region = _sizes_of(scheme)
        if before is not None:
            buffer = max(buffer, before.buffers.size_bytes)
            region = max(region, before.regions.size_bytes)
        late_max = LATE_BUFFERS_PER_BUFFER * count
        self.buffers: BufferPool = BufferPool(buffer, count, late_max)
        self.regions: BufferPool = BufferPool(region, max(1, count * 3 // 4))

    def suits(self, scheme: Scheme) -> bool:
        """Whether there is room for this scheme."""
        buffer, region = _sizes_of(scheme)
        return buffer <= self.buffers.size_bytes and region <= self.regions.size_bytes

    def layout(self, geometry: Geometry, m: int) -> Layout:
        """How a blob of that geometry uses them."""
        return Layout.of(geometry, m, self.buffers.size_bytes, self.regions.size_bytes)


def _sizes_of(scheme: Scheme) -> tuple[int, int]:
    """Bytes of a buffer and of a region: for a full batch, or one stripe of a narrower scheme."""
    full = _region_size_bytes(scheme.k, scheme.m, scheme.stripe_size_bytes, BATCH_STRIPES)
    narrow = _region_size_bytes(min(2, scheme.k), scheme.m, scheme.stripe_size_bytes, 1)
    return BATCH_STRIPES * (scheme.stripe_size_bytes + scheme.k), max(full, narrow)


def _region_size_bytes(k: int, m: int, stripe_size_bytes: int, stripes: int) -> int:
    regions = 1 if k == 1 else k + m
    part = BLOCK_SIZE_BYTES + stripes * (-(-stripe_size_bytes // k) + CHECKSUM_SIZE_BYTES)
    return regions * -(-part // BLOCK_SIZE_BYTES) * BLOCK_SIZE_BYTES


def _prefaulted(size_bytes: int) -> memoryview:
    """Anonymous memory whose pages are there: the first use costs no page faults."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)
    return memoryview(mmap.mmap(-1, size_bytes, flags=flags))
