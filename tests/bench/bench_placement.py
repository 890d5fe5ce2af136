"""Placement: look-ups from the cached table, what a change of the map costs, balance and movement.

`python tests/bench/bench_placement.py [--json]`. Look-ups are of random blobs under a map whose tables are
filled; *all tables* are the homes of every partition. Balance: the drives that hold most, and least,
against their shares by weight, and what is moved when a drive joins or leaves, against its share.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import replace

from placement.balance import balanced, balanced_again, spread_of
from placement.cluster_map import PARTITIONS_DEFAULT, ClusterMap, MapDrive
from placement.fair_shares import fair_shares
from placement.hashing import Placement
from placement.ids import BlobId, DriveId, Epoch, Partition, Slot
from placement.schemes import Scheme

DRIVES, PARTITIONS, HOSTS, ZONES = 300, 1 << 14, 50, 5
SIZES = (
    (6, PARTITIONS_DEFAULT, 6, 1),
    (7, PARTITIONS_DEFAULT, 7, 1),
    (12, PARTITIONS_DEFAULT, 6, 1),
    (30, PARTITIONS_DEFAULT, 30, 1),
    (30, PARTITIONS_DEFAULT, 10, 3),
    (100, PARTITIONS_DEFAULT, 20, 5),
    (DRIVES, PARTITIONS_DEFAULT, HOSTS, ZONES),
    (DRIVES, PARTITIONS, HOSTS, ZONES),
    (1000, PARTITIONS, 100, 10),
)
"""Drives, partitions, hosts, zones."""
LOOKUPS = 200_000
ROUNDS = 5
Row = dict[str, object]


def cluster_of(drives: int, partitions: int, hosts: int, zones: int) -> ClusterMap:
    """Drives of two sizes on so many hosts in so many zones."""
    placed = tuple(drive_of(i, hosts, zones, 1.0 + (i // hosts) % 2) for i in range(drives))
    return ClusterMap(Epoch(1), placed, Scheme(4, 2), partitions)


def drive_of(number: int, hosts: int, zones: int, weight: float) -> MapDrive:
    """On the hosts and zones in turn."""
    host = number % hosts
    names = (f"n{host}", f"h{host}", f"z{host % zones}")
    return MapDrive(Slot(number), DriveId(number.to_bytes(16)), *names, weight)


def fill(placement: Placement) -> None:
    """Work out the homes of every partition."""
    for number in range(placement.map.partition_count):
        placement.homes(Partition(number), placement.map.scheme.width)


def cpu_ms(work: Callable[[], object]) -> float:
    """Milliseconds of this thread's work."""
    before = time.thread_time()
    work()
    return round((time.thread_time() - before) * 1e3, 2)


def lookups(placement: Placement, name: str) -> Row:
    """Blobs a second a core."""
    width = placement.map.scheme.width
    chance = random.Random(1)
    blobs = [BlobId(chance.randbytes(16)) for _ in range(LOOKUPS)]
    best = 1e9
    for _ in range(ROUNDS):
        before = time.process_time()
        for blob in blobs:
            placement.write_order(blob, width)
        best = min(best, time.process_time() - before)
    return {"case": name, "per_second": round(LOOKUPS / best)}


def changes() -> list[Row]:
    """What a change of a large map costs: the admin who makes it, and whoever follows it."""
    cluster = balanced(cluster_of(DRIVES, PARTITIONS, HOSTS, ZONES))
    size = f"{PARTITIONS} partitions, {DRIVES} drives"
    placement = Placement(cluster)
    filled = cpu_ms(lambda: fill(placement))
    grown = cluster

    def change() -> None:
        nonlocal grown
        drives = (*cluster.drives, drive_of(DRIVES, HOSTS, ZONES, 1.0))
        tuned = balanced_again(cluster, drives)
        grown = replace(tuned, epoch=Epoch(2), lineage=(Epoch(1),))

    tuned = cpu_ms(change)
    after = Placement(grown, [cluster], placement)
    blob = BlobId(bytes(16))
    first = cpu_ms(lambda: after.write_order(blob, cluster.scheme.width))
    followed = cpu_ms(lambda: fill(after))
    closed = Placement(replace(grown, epoch=Epoch(3)), [cluster], after)
    quiet = cpu_ms(lambda: fill(closed))
    return [
        {"case": f"all tables, {size}", "cpu_ms": filled},
        {"case": f"one drive more: the change itself, {size}", "cpu_ms": tuned},
        {"case": f"one drive more: first look-up, {size}", "cpu_ms": first},
        {"case": f"one drive more: all tables, {size}", "cpu_ms": followed},
        {"case": f"a change that moves nothing: all tables, {size}", "cpu_ms": quiet},
        lookups(placement, "look-ups"),
        lookups(after, "look-ups, after a change"),
    ]


def balance(drives: int, partitions: int, hosts: int, zones: int) -> Row:
    """How far drives are off their shares at most, and what a drive more and a drive less move."""
    plain = cluster_of(drives, partitions, hosts, zones)
    above, below = spread_of(plain)
    now = balanced(plain)
    row: Row = {
        "case": f"{drives} drives, {partitions} partitions, {hosts} hosts, {zones} zones",
        "by_weight_above_percent": round(above * 100, 2),
        "by_weight_below_percent": round(below * 100, 2),
    }
    row |= _off("new", now)
    more = balanced_again(now, (*now.drives, drive_of(drives, hosts, zones, 1.0)))
    row |= _off("joined", more)
    row["joined_moved_by_share"] = _moved(now, more, _share(more, -1))
    if drives > now.scheme.width:
        less = balanced_again(now, now.drives[1:])
        row |= _off("left", less)
        row["left_moved_by_share"] = _moved(now, less, _share(now, 0))
    return row


def _off(name: str, cluster: ClusterMap) -> Row:
    above, below = spread_of(cluster)
    names = (f"{name}_above_percent", f"{name}_below_percent")
    return dict(zip(names, (round(above * 100, 2), round(below * 100, 2)), strict=True))


def _share(cluster: ClusterMap, place: int) -> float:
    width = cluster.scheme.width
    return fair_shares(cluster.drives, width)[place] / width


def _moved(before: ClusterMap, after: ClusterMap, share: float) -> float:
    width, count = before.scheme.width, before.partition_count
    old, new = Placement(before), Placement(after)
    moved = 0
    for partition in map(Partition, range(count)):
        held = {drive.slot for drive in old.homes(partition, width)}
        moved += sum(drive.slot not in held for drive in new.homes(partition, width))
    return round(moved / (width * count) / share, 3)


def rows() -> list[Row]:
    """All cases."""
    return [*changes(), *(balance(*size) for size in SIZES)]


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    as_json = parser.parse_args().json
    found = rows()
    if as_json:
        print(json.dumps(found))
        return
    for row in found:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
