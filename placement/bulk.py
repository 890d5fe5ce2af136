"""Orders of many partitions at once: what `placement.hashing` says of one, by operations on arrays.

A map of hundreds of drives has millions of draws. Here each step is one operation on all of them, in
C, so that all orders of such a map take a fraction of a second. Results are the same to the bit, or
the partition is named as one for the rule itself to decide. The only door to numpy, which is loaded
by whoever needs it: with few drives nobody does.
"""

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int32]
_Words = NDArray[np.uint64]

# XXH3, 64 bits, of 9 to 16 bytes: the parts of the default secret that this length uses, and the
# multiplier of its last step (the specification of xxHash, "XXH3 algorithm").
_FLIP_LOW = 0x1F67B3B7A4A44072 ^ 0x78E5C0CC4EE679CB
_FLIP_HIGH = 0x2172FFCC7DD05A82 ^ 0x8E2443F7744608B8
_AVALANCHE = np.uint64(0x165667919E3779F9)
_HASHED_BYTES = 12
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
NEAR = 1e-12
"""Draws so near to each other, relatively, may be ranked otherwise by another logarithm."""


def exponentials(domain: bytes, partitions: Sequence[int], slots: Sequence[int]) -> Floats:
    """What each slot (column) draws for each partition (row) before its weight is applied."""
    hashed = _hashes(
        domain, np.asarray(partitions, dtype=np.uint64), np.asarray(slots, dtype=np.uint64)
    )
    uniform = (hashed >> np.uint64(11)).astype(np.float64)
    uniform += 0.5
    uniform /= float(1 << 53)
    np.log(uniform, out=uniform)
    return np.negative(uniform, out=uniform)


def _hashes(domain: bytes, partitions: _Words, slots: _Words) -> _Words:
    """xxh3_64 of domain, partition and slot, four bytes each, as little-endian numbers."""
    head = np.uint64(int.from_bytes(domain, "little"))
    low = (head | partitions << _HALF) ^ np.uint64(_FLIP_LOW)
    # The second word is (partition, slot): a number that depends on the row, one on the column.
    flip_low, flip_high = _FLIP_HIGH & 0xFFFFFFFF, _FLIP_HIGH >> 32
    row = (partitions ^ np.uint64(flip_low))[:, None]
    column = (slots ^ np.uint64(flip_high))[None, :]
    # The product of both words, 128 bits, by halves; its own halves are folded.
    first, second = (low & _LOW)[:, None], (low >> _HALF)[:, None]
    low_low, high_low = first * row, second * row
    low_high = first * column
    cross = low_high + ((low_low >> _HALF) + (high_low & _LOW))
    mixed = second * column
    mixed += cross >> _HALF
    mixed += high_low >> _HALF
    cross <<= _HALF
    cross |= low_low & _LOW
    mixed ^= cross
    mixed += column << _HALF
    mixed += np.uint64(_HASHED_BYTES) + low.byteswap()[:, None] + row
    mixed ^= mixed >> np.uint64(37)
    mixed *= _AVALANCHE
    mixed ^= mixed >> _HALF
    return mixed


def ranked(draws: Floats) -> tuple[Places, list[int]]:
    """Columns of each row by their draws, and the rows in which two draws are too near to tell."""
    order = np.argsort(draws, axis=1)
    in_order = np.take_along_axis(draws, order, axis=1)
    near = (np.diff(in_order, axis=1) <= NEAR * in_order[:, 1:]).any(axis=1)
    return order.astype(np.int32), np.flatnonzero(near).tolist()


def spread(order: Places, zones: Sequence[int], hosts: Sequence[int], spread_max: int) -> Places:
    """Ranked columns reordered over zones and hosts, as `hashing` says, until `spread_max` are.

    A drive is the r-th of its host by draw; the z-th of its zone by (r, draw); and passes go by
    (z, r), each in the order of draws. How many drives a host or zone has is the same in all rows,
    so after sorting by host, or by zone, each column's r or z is known.
    """
    count = order.shape[1]
    zone_of, host_of = np.asarray(zones), np.asarray(hosts)
    levels = int(np.bincount(host_of).max())
    position = np.arange(count)
    # Numbers in one order are: what to sort by first, then the position by draw.
    keys = np.sort(host_of[order] * count + position, axis=1)
    by_host = np.argsort(host_of, kind="stable")
    of_host = _places_in_group(host_of[by_host])
    if len(set(zones)) == 1:
        keys = np.sort(of_host * count + keys % count, axis=1)
    else:
        zone = zone_of[by_host]
        keys = np.sort((zone * levels + of_host) * count + keys % count, axis=1)
        of_zone = _places_in_group(np.sort(zone))
        level = keys // count % levels
        keys = np.sort((of_zone * levels + level) * count + keys % count, axis=1)
    places = keys % count
    if count > spread_max:
        passes = keys // count
        last = passes[:, spread_max - 1 : spread_max]
        tail = np.where(passes <= last, position, count + places)
        places = np.sort(tail * count + places, axis=1) % count
    return np.take_along_axis(order, places, axis=1)


def stored(order: Places) -> list["array[int]"]:
    """The rows, as they are kept: two bytes a place, or four."""
    code, kind = ("H", np.uint16) if order.shape[1] <= 1 << 16 else ("I", np.uint32)
    return [array(code, row.tobytes()) for row in order.astype(kind)]


def _places_in_group(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2 … in each run of equal numbers."""
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
