"""Where the bytes of a blob lie: stripes, fragments and shard offsets of a plain byte range. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CHECKSUM_SIZE_BYTES = 8
"""In front of every fragment in a shard (`storage_node.port`, shard layout)."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a blob is cut: k data fragments a stripe, full stripes of `stripe_size_bytes`, the last
    one shorter. `size_bytes` is the plain size."""

    k: int
    stripe_size_bytes: int
    size_bytes: int

    @property
    def stripes(self) -> int:
        """Number of stripes; 0 for an empty blob."""
        return -(-self.size_bytes // self.stripe_size_bytes)

    @property
    def fragment_size_bytes(self) -> int:
        """Bytes of a full stripe's fragment."""
        return -(-self.stripe_size_bytes // self.k)

    @property
    def shard_stride_bytes(self) -> int:
        """Distance of two stripes' fragments in a shard."""
        return self.fragment_size_bytes + CHECKSUM_SIZE_BYTES

    @property
    def shard_size_bytes(self) -> int:
        """Bytes of each shard, checksums included."""
        return self.shard_offset(self.stripes)

    def stripe_bytes(self, stripe: int) -> int:
        """Plain bytes of that stripe."""
        return min(self.stripe_size_bytes, self.size_bytes - stripe * self.stripe_size_bytes)

    def fragment_bytes(self, stripe: int) -> int:
        """Bytes of each fragment of that stripe, without the checksum."""
        return -(-self.stripe_bytes(stripe) // self.k)

    def shard_offset(self, stripe: int) -> int:
        """Where that stripe's checksum stands in a shard; the shard's end for `stripes`."""
        full = self.size_bytes // self.stripe_size_bytes
        if stripe <= full:
            return stripe * self.shard_stride_bytes
        return full * self.shard_stride_bytes + CHECKSUM_SIZE_BYTES + self.fragment_bytes(full)


@dataclass(frozen=True, slots=True)
class Step:
    """A run of stripes [first, last) read at once, and the plain bytes wanted of it: from `skip`
    bytes into stripe `first`, `take` bytes. `indices` are the data fragments that hold them."""

    first: int
    last: int
    skip: int
    take: int
    indices: tuple[int, ...]


def steps_of(geometry: Geometry, offset: int, length: int, step_size_bytes: int) -> Iterator[Step]:
    """Cut [offset, offset + length) of the blob into steps of about `step_size_bytes`."""
    assert offset >= 0
    assert 0 < length <= geometry.size_bytes - offset
    size = geometry.stripe_size_bytes
    per_step = max(1, step_size_bytes // size)
    every = tuple(range(geometry.k))
    end = offset + length
    first = offset // size
    while first * size < end:
        last = min(first + per_step, -(-end // size))
        start = max(offset, first * size)
        stop = min(end, last * size)
        skip = start - first * size
        indices = every
        if last - first == 1 and geometry.k > 1:
            fragment = geometry.fragment_bytes(first)
            indices = every[skip // fragment : (skip + stop - start - 1) // fragment + 1]
        yield Step(first, last, skip, stop - start, indices)
        first = last


def pieces_of(sizes: Sequence[int], offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Which parts of a concatenation a range touches: (part number from 0, offset, length)."""
    start = 0
    end = offset + length
    for number, size in enumerate(sizes):
        low, high = max(offset, start), min(end, start + size)
        if low < high:
            yield number, low - start, high - low
        start += size
        if start >= end:
            return
