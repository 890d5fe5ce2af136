"""Balanced maps: pulls that keep drives near their shares, and how near they are. See `placement.tuning`.

Loads fall on drives by chance, so the rarest drive of 300 is 15 % off its weight's share with 2^14
partitions. A balanced map answers chance: pulls are chosen when the drives change. Only those are
tuned that are off by more than is tolerated, so a change moves what it must and little else.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable

from placement.cluster_map import ClusterMap, MapDrive
from placement.fair_shares import fair_shares
from placement.hashing import Placement, takes_writes
from placement.ids import Partition

TOLERANCE_NEW = 0.025
"""How far off its share a drive may be when all are balanced at once."""
TOLERANCE_CHANGED = 0.04
"""The same after a change: more, so that a change tunes few drives. Under 5 %, which is promised."""


def balanced(cluster: ClusterMap) -> ClusterMap:
    """The map with all its pulls tuned, as near as is aimed at."""
    return _tuned(cluster, cluster.drives, TOLERANCE_NEW)


def balanced_again(before: ClusterMap, drives: Iterable[MapDrive]) -> ClusterMap:
    """A map with other drives: those that it keeps keep their pulls, unless they would be off by more
    than is tolerated. The map as it would be anyway, where the one before is not balanced."""
    if not before.balanced:
        return dataclasses.replace(before, drives=tuple(drives))
    former = {drive.slot: drive for drive in before.drives if takes_writes(drive)}
    scale = sum(d.pull for d in former.values()) / (sum(d.weight for d in former.values()) or 1.0)
    placed = []
    for drive in drives:
        old = former.get(drive.slot)
        ratio = scale if old is None else old.pull / old.weight
        placed.append(_pulling(drive, drive.weight * ratio))
    return _tuned(before, placed, TOLERANCE_CHANGED)


def spread_of(cluster: ClusterMap) -> tuple[float, float]:
    """How far the fullest and the emptiest drive are off their shares, relatively: (above, below)."""
    drives = [drive for drive in cluster.drives if takes_writes(drive)]
    width, count = cluster.scheme.width, cluster.partition_count
    placement, held = Placement(cluster), Counter[int]()
    for partition in map(Partition, range(count)):
        held.update([drive.slot for drive in placement.write_order_of(partition)[:width]])
    shares = fair_shares(drives, width)
    off = [held[d.slot] / (s * count) - 1 for d, s in zip(drives, shares, strict=True)]
    return max(off, default=0.0), -min(off, default=0.0)


def _tuned(cluster: ClusterMap, drives: Iterable[MapDrive], tolerance: float) -> ClusterMap:
    drives = tuple(drives)
    takers = [drive for drive in drives if takes_writes(drive)]
    width = cluster.scheme.width
    pulls: dict[int, float] = {}
    if len(takers) > width:  # else each holds a shard of everything
        from placement.tuning import tune  # numpy is for those who change maps

        pulls = tune(takers, width, cluster.partition_count, tolerance)
    placed = tuple(_pulling(drive, pulls.get(drive.slot, drive.pull)) for drive in drives)
    return dataclasses.replace(cluster, drives=placed, balanced=True)


def _pulling(drive: MapDrive, pull: float) -> MapDrive:
    return dataclasses.replace(drive, tuned_pull=None if pull == drive.weight else pull)
