"""Placement: look-ups from the cached table, what a change of the map costs, and balance.

`python tests/bench/bench_placement.py [--json]`. Look-ups are of random blobs under a map whose tables are
filled; a partition's order is worked out when it is first asked for, and all of them only to tell what a
change of the map would move. Balance: the drive that holds most, and least, against its weight.
"""

import argparse
import dataclasses
import json
import random
import time
from collections import Counter

from placement.cluster_map import PARTITIONS_DEFAULT, ClusterMap, MapDrive
from placement.hashing import Placement
from placement.ids import BlobId, DriveId, Epoch, Partition, Slot
from placement.schemes import Scheme

DRIVES, PARTITIONS = 300, 1 << 14
LOOKUPS = 200_000
ROUNDS = 5
Row = dict[str, object]


def cluster_of(drives: int, partitions: int, hosts: int, zones: int) -> ClusterMap:
    """Drives of two sizes on so many hosts in so many zones."""
    placed = tuple(
        MapDrive(
            Slot(i),
            DriveId(i.to_bytes(16)),
            f"n{i % hosts}",
            f"h{i % hosts}",
            f"z{i % hosts % zones}",
            1.0 + (i // hosts) % 2,
        )
        for i in range(drives)
    )
    return ClusterMap(Epoch(1), placed, Scheme(4, 2), partitions)


def fill(placement: Placement) -> float:
    """CPU seconds of working out all orders."""
    before = time.process_time()
    for number in range(placement.map.partition_count):
        placement.homes_first(Partition(number), placement.map.scheme.width)
    return time.process_time() - before


def lookups(placement: Placement) -> Row:
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
    return {"case": "look-ups", "per_second": round(LOOKUPS / best)}


def balance(placement: Placement, name: str) -> Row:
    """How far shards lie from the weights, at most."""
    width, held = placement.map.scheme.width, Counter[int]()
    for number in range(placement.map.partition_count):
        for drive in placement.write_order_of(Partition(number))[:width]:
            held[drive.slot] += 1
    total = sum(drive.weight for drive in placement.map.drives)
    shards = width * placement.map.partition_count
    off = [held[d.slot] / (shards * d.weight / total) - 1 for d in placement.map.drives]
    return {
        "case": name,
        "most_above_percent": round(max(off) * 100, 2),
        "most_below_percent": round(-min(off) * 100, 2),
        "mean_off_percent": round(sum(map(abs, off)) / len(off) * 100, 2),
    }


def rows() -> list[Row]:
    """All cases."""
    cluster = cluster_of(DRIVES, PARTITIONS, hosts=50, zones=5)
    placement = Placement(cluster)
    filled = fill(placement)
    newcomer = MapDrive(Slot(DRIVES), DriveId(DRIVES.to_bytes(16)), "n0", "h0", "z0", 1.0)
    grown = dataclasses.replace(
        cluster, epoch=Epoch(2), drives=(*cluster.drives, newcomer), lineage=(Epoch(1),)
    )
    before = time.process_time()
    Placement(grown, [cluster]).write_order(BlobId(bytes(16)), cluster.scheme.width)
    adopted = time.process_time() - before
    size = f"{PARTITIONS} partitions, {DRIVES} drives"
    found: list[Row] = [
        {"case": f"a new map and its first look-up, {size}", "cpu_ms": round(adopted * 1e3, 2)},
        {"case": f"all tables, {size}", "cpu_ms": round(filled * 1e3, 2)},
    ]
    found += [lookups(placement), balance(placement, f"balance of {DRIVES} drives")]
    for count in (6, 12, 30):
        small = Placement(cluster_of(count, PARTITIONS_DEFAULT, hosts=count, zones=1))
        found.append(balance(small, f"balance of {count} drives, {PARTITIONS_DEFAULT} partitions"))
    return found


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
