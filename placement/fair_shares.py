"""How many shards of a partition each drive ought to hold: in proportion to its weight, as far as the
spreading over failure domains lets it. Pure."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from placement.cluster_map import MapDrive

_HALVINGS = 60
_Counts = tuple[tuple[float, int], ...]
"""Numbers of shards, each with the share of partitions in which a domain has so many."""
K = TypeVar("K", bound=Hashable)


def fair_shares(drives: Sequence[MapDrive], width: int) -> list[float]:
    """Shards a partition of each drive, between 0 and 1; `width` of them or as many as there are
    drives, all together. Where a domain must have more than its weight, or can have no more, its
    drives share what it has by their weights, and the others what is left."""
    shares = [0.0] * len(drives)
    whole: _Counts = ((1.0, min(width, len(drives))),)
    every = range(len(drives))
    for zone, of_zone in _split(whole, every, drives, lambda drive: drive.zone):
        for host, of_host in _split(of_zone, zone, drives, lambda drive: drive.host):
            for (place,), share in _split(of_host, host, drives, lambda drive: drive.slot):
                shares[place] = sum(part * count for part, count in share)
    return shares


def _split(
    counts: _Counts,
    places: Sequence[int],
    drives: Sequence[MapDrive],
    domain_of: Callable[[MapDrive], K],
) -> list[tuple[list[int], _Counts]]:
    """The domains among these drives, and how many shards each has."""
    domains: dict[K, list[int]] = {}
    for place in places:
        domains.setdefault(domain_of(drives[place]), []).append(place)
    members = list(domains.values())
    sizes = [len(each) for each in members]
    weights = [sum(drives[place].weight for place in each) for each in members]
    least, most = [0.0] * len(sizes), [0.0] * len(sizes)
    for part, count in counts:
        cap = _cap(sizes, count)
        for number, size in enumerate(sizes):
            least[number] += part * min(size, max(cap - 1, 0))
            most[number] += part * min(size, cap)
    total = sum(part * count for part, count in counts)
    amounts = _within(weights, least, most, total)
    return [(each, _around(amount)) for each, amount in zip(members, amounts, strict=True)]


def _cap(sizes: Sequence[int], count: int) -> int:
    """The most that one domain holds of `count` when no other could have one more with fewer."""
    cap = 0
    while sum(min(size, cap) for size in sizes) < count:
        cap += 1
    return cap


def _within(
    weights: Sequence[float], least: Sequence[float], most: Sequence[float], total: float
) -> list[float]:
    """Amounts in proportion to weights, each between its bounds, that add up to `total`."""

    def at(factor: float) -> list[float]:
        bounds = zip(weights, least, most, strict=True)
        return [min(max(factor * weight, low), high) for weight, low, high in bounds]

    low, high = 0.0, total / min(weights) + 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(at(middle)) < total:
            low = middle
        else:
            high = middle
    return at(high)


def _around(amount: float) -> _Counts:
    below = math.floor(amount + 1e-9)
    part = max(amount - below, 0.0)
    return ((1.0 - part, below), (part, below + 1)) if part > 1e-9 else ((1.0, below),)
