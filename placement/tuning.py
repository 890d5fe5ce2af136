"""Pulls that keep every drive near its weight's share: found by trying them on all partitions.

Drives draw with their *pull* in place of their weight (`placement.hashing`). How many partitions come
to a drive is then counted, and the pull of one that has too many is lowered, of one that has too few
raised, in smaller and smaller steps. What comes out is stored in the map, so it need not come out alike
on every machine, and looking up a partition costs what it did.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from placement import bulk
from placement.cluster_map import MapDrive
from placement.fair_shares import fair_shares
from placement.hashing import HASH_DOMAIN, SPREAD_MAX, Field

ROUNDS_MAX, ROUNDS_MIN = 24, 4
DRAWS_MAX = 1 << 31
"""Of all rounds together: some minutes. Only maps of thousands of drives come near."""
FIRST_STEP, STEP_FALL, STEP_MIN = 0.9, 0.7, 0.2
"""How far a round goes towards the pull that would be right if no other changed: they all do."""
PULL_FACTOR_MAX = 16.0
"""A pull stays within this factor of the weight: where domains cannot hold their weight, no pull helps."""
LEFT_ALONE = 0.8
"""A drive within this part of what is tolerated keeps its pull."""
_ROWS = 256
_KEPT_DRAWS_MAX = 1 << 25
"""As many draws are kept between rounds, 256 MiB; those of larger maps are worked out each time."""

_Pulls = NDArray[np.float64]


def tune(
    drives: Sequence[MapDrive], width: int, partitions: int, tolerance: float
) -> dict[int, float]:
    """Pulls by slot, from those that the drives have: for shares of the first `width` within
    `tolerance` (relative) of what weights say, or within one partition. The nearest that was found,
    where that is not possible."""
    trial = _Trial(Field(drives), width, partitions)
    drives = trial.field.drives
    wanted = np.array(fair_shares(drives, width)) * partitions
    tolerated = np.maximum(tolerance * wanted, 1.0)
    weights = np.array([drive.weight for drive in drives])
    found = pulls = np.array([drive.pull for drive in drives])
    nearest = np.inf
    step = FIRST_STEP
    rounds = DRAWS_MAX // (partitions * len(drives))
    for _ in range(min(max(rounds, ROUNDS_MIN), ROUNDS_MAX)):
        held = trial.held(pulls)
        off = np.abs(held - wanted) / tolerated
        if off.max() < nearest:
            nearest, found = off.max(), pulls
        if nearest <= 1.0:
            break
        # Of exponential draws with rate r, the chance to come before t is 1 - exp(-rt).
        ratio = np.log1p(-_chance(wanted, partitions)) / np.log1p(-_chance(held, partitions))
        moved = np.where(off > LEFT_ALONE, pulls * ratio**step, pulls)
        pulls = np.clip(moved, weights / PULL_FACTOR_MAX, weights * PULL_FACTOR_MAX)
        step = max(step * STEP_FALL, STEP_MIN)
    return {drive.slot: float(pull) for drive, pull in zip(drives, found, strict=True)}


def _chance(count: NDArray[np.float64], of: int) -> NDArray[np.float64]:
    return np.clip(count / of, 0.25 / of, 1 - 0.25 / of)


class _Trial:
    """All partitions, and who would hold them."""

    def __init__(self, field: Field, width: int, partitions: int) -> None:
        self.field = field
        self._width = width
        self._partitions = partitions
        self._slots = [drive.slot for drive in field.drives]
        self._hosts = _Hosts(field) if _one_a_host(field, width) else None
        kept = partitions * len(field.drives) <= _KEPT_DRAWS_MAX
        self._draws = list(self._drawn()) if kept else None

    def held(self, pulls: _Pulls) -> NDArray[np.float64]:
        """Partitions of each drive."""
        counts = np.zeros(len(self._slots), dtype=np.int64)
        for draws in self._draws if self._draws is not None else self._drawn():
            counts += np.bincount(self._first(draws / pulls).ravel(), minlength=len(counts))
        return counts.astype(np.float64)

    def _drawn(self) -> Iterator[bulk.Floats]:
        for start in range(0, self._partitions, _ROWS):
            rows = range(start, min(start + _ROWS, self._partitions))
            yield bulk.exponentials(HASH_DOMAIN, rows, self._slots)

    def _first(self, draws: bulk.Floats) -> NDArray[np.int64]:
        if self._hosts is not None:
            return self._hosts.first(draws, self._width)
        order, _ = bulk.ranked(draws)
        field = self.field
        if not field.is_flat:
            order = bulk.spread(order, field.zones, field.hosts, SPREAD_MAX)
        return order[:, : self._width].astype(np.int64)


def _one_a_host(field: Field, width: int) -> bool:
    """Whether no host holds two of the first `width`: then each is as good as its best drive."""
    zones, count = field.zones, len(field.drives)
    if len(set(field.hosts)) == count:
        return False  # nothing to gain
    drives_of = np.bincount(zones)
    hosts_of = np.bincount([zone for zone, _ in set(zip(zones, field.hosts, strict=True))])
    each = 0
    while np.minimum(drives_of, each).sum() < min(width, count):
        each += 1
    return bool((np.minimum(drives_of, each) <= hosts_of).all())


class _Hosts:
    """Each host stands for its drives: far fewer to rank."""

    def __init__(self, field: Field) -> None:
        hosts = np.array(field.hosts)
        self._by_host = np.argsort(hosts, kind="stable")
        in_order = hosts[self._by_host]
        self._starts = np.flatnonzero(np.r_[True, in_order[1:] != in_order[:-1]])
        sizes = np.diff(np.r_[self._starts, len(hosts)])
        self._zones = [field.zones[place] for place in self._by_host[self._starts]]
        self._is_flat = len(set(self._zones)) in (1, len(self._zones))
        # Columns of each host's drives; a smaller host names its last one again.
        reach = np.minimum(np.arange(sizes.max())[None, :], sizes[:, None] - 1)
        self._columns = self._starts[:, None] + reach

    def first(self, draws: bulk.Floats, width: int) -> NDArray[np.int64]:
        """Drives of the first `width` shards of each row."""
        draws = draws[:, self._by_host]
        order, _ = bulk.ranked(np.minimum.reduceat(draws, self._starts, axis=1))
        if not self._is_flat:
            order = bulk.spread(order, self._zones, range(len(self._zones)), SPREAD_MAX)
        columns = self._columns[order[:, :width]]
        theirs = np.take_along_axis(draws, columns.reshape(len(draws), -1), axis=1)
        best = theirs.reshape(columns.shape).argmin(axis=2)
        chosen = np.take_along_axis(columns, best[:, :, None], axis=2)[:, :, 0]
        found: NDArray[np.int64] = self._by_host[chosen]
        return found
