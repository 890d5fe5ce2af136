"""Which drives hold a blob: partitions, weighted rendezvous hashing, failure domains. Pure.

The order of a partition is part of the format: data lies where it says, so golden values pin it.

Every drive draws a number for every partition from a hash of (partition, *slot*), weighted so that
a drive comes first in proportion to its weight (the logarithmic method of weighted rendezvous
hashing: Wang and Ravishankar 1998; Schindelhauer and Schomaker 2005). A drive's draw depends on
nothing but itself, so adding or removing a drive moves only what goes to it or came from it; and a
replacement drive takes over its predecessor's slot, so replacing moves nothing at all.

Which shard of a blob a drive holds follows from the map's lineage: a drive that is among the first n
in two successive maps keeps its index among them, and the newcomers fill what others left. Without
that, a newcomer would shift the index of every drive ranked behind it, and nearly every shard.
"""

import math
import struct
from collections import Counter
from collections.abc import Sequence

import xxhash

from placement.cluster_map import ClusterMap, DriveState, MapDrive
from placement.ids import BlobId, Partition, Slot

_HASH_INPUT = struct.Struct("<4sII")
_HASH_DOMAIN = b"ost1"
_PARTITION_BITS_MAX = 16
_SPREAD_MAX = 64
"""Positions that keep to failure domains: more than the widest scheme has (32 + 16)."""


def partition_of(blob: BlobId, count: int) -> Partition:
    """The leading bits of a blob's id. `count` is a power of two, at most 2^16."""
    return Partition((blob[0] << 8 | blob[1]) * count >> _PARTITION_BITS_MAX)


def order_of(cluster: ClusterMap, partition: Partition) -> tuple[Slot, ...]:
    """All drives that take writes, in the order in which a blob's shards prefer them.

    For every width the first drives lie in as many different zones, and within a zone on as many
    hosts, as there are. Drives that are draining, out or of weight 0 are left out.
    """
    takers = [drive for drive in cluster.drives if _takes_writes(drive)]
    return tuple(drive.slot for drive in _ordered(takers, partition))


class Placement:
    """The orders of one map, worked out when first asked for and kept: one a map and process.

    `ancestors` are the maps of its lineage, oldest first. `width` is the number of a blob's shards:
    the first so many drives are their homes, in the order of their indexes; the rest are spares.
    """

    def __init__(self, cluster: ClusterMap, ancestors: Sequence[ClusterMap] = ()) -> None:
        self.map = cluster
        self._previous = Placement(ancestors[-1], ancestors[:-1]) if ancestors else None
        self._homes: dict[tuple[int, int], tuple[MapDrive, ...]] = {}
        self._count = cluster.partition_count
        self._takers = tuple(drive for drive in cluster.drives if _takes_writes(drive))
        self._leavers = tuple(drive for drive in cluster.drives if _only_reads(drive))
        # Keyed by the first two bytes of an id: the lookup is one slice and one dict access.
        # At most 2^16 entries, which share the tuples of their partition.
        self._write_by_head: dict[bytes, tuple[MapDrive, ...]] = {}
        self._read_by_head: dict[bytes, tuple[MapDrive, ...]] = {}
        self._write_by_partition: dict[Partition, tuple[MapDrive, ...]] = {}
        self._read_by_partition: dict[Partition, tuple[MapDrive, ...]] = {}

    def partition(self, blob: BlobId) -> Partition:
        """The blob's partition under this map."""
        return partition_of(blob, self._count)

    def write_order(self, blob: BlobId, width: int = 0) -> tuple[MapDrive, ...]:
        """Drives that take the blob's shards: shard i prefers drive i, the rest are spares."""
        if width and self._previous is not None:
            return self.homes_first(self.partition(blob), width)
        return self._write_by_head.get(blob[:2]) or self._fill_write(blob)

    def read_order(self, blob: BlobId, width: int = 0) -> tuple[MapDrive, ...]:
        """Drives that may hold the blob's shards: the write order, then those draining."""
        if width and self._previous is not None:
            partition = self.partition(blob)
            spares = self.read_order_of(partition)[len(self.write_order_of(partition)) :]
            return self.homes_first(partition, width) + spares
        return self._read_by_head.get(blob[:2]) or self._fill_read(blob)

    def write_order_of(self, partition: Partition) -> tuple[MapDrive, ...]:
        """`write_order` of every blob of that partition."""
        order = self._write_by_partition.get(partition)
        if order is None:
            order = self._write_by_partition[partition] = _ordered(self._takers, partition)
        return order

    def read_order_of(self, partition: Partition) -> tuple[MapDrive, ...]:
        """`read_order` of every blob of that partition."""
        order = self._read_by_partition.get(partition)
        if order is None:
            order = self.write_order_of(partition) + _ordered(self._leavers, partition)
            self._read_by_partition[partition] = order
        return order

    def homes_first(self, partition: Partition, width: int) -> tuple[MapDrive, ...]:
        """The write order with its first `width` drives in the order of the indexes they have."""
        key = (partition, width)
        known = self._homes.get(key)
        if known is not None:
            return known
        order = self.write_order_of(partition)
        result = order
        if self._previous is not None:
            former = self._previous.homes_first(partition, width)[:width]
            result = _keeping_indexes(order, [drive.slot for drive in former], width)
        self._homes[key] = result
        return result

    def _fill_write(self, blob: BlobId) -> tuple[MapDrive, ...]:
        order = self.write_order_of(self.partition(blob))
        self._write_by_head[blob[:2]] = order
        return order

    def _fill_read(self, blob: BlobId) -> tuple[MapDrive, ...]:
        order = self.read_order_of(self.partition(blob))
        self._read_by_head[blob[:2]] = order
        return order


def _keeping_indexes(
    order: tuple[MapDrive, ...], former: Sequence[Slot], width: int
) -> tuple[MapDrive, ...]:
    """The order with its first `width` drives where `former` had them; newcomers, in their order,
    take what is free."""
    first = {drive.slot: drive for drive in order[:width]}
    kept = {index: slot for index, slot in enumerate(former) if slot in first}
    stay = set(kept.values())
    newcomers = iter([drive for slot, drive in first.items() if slot not in stay])
    seats = [first[kept[i]] if i in kept else next(newcomers, None) for i in range(width)]
    # Fewer drives than seats: the last ones are empty, as they are without a lineage.
    return tuple([drive for drive in seats if drive is not None]) + order[width:]


def _takes_writes(drive: MapDrive) -> bool:
    return drive.state is DriveState.UP and drive.weight > 0


def _only_reads(drive: MapDrive) -> bool:
    return drive.state is DriveState.DRAINING and drive.weight > 0


def _ordered(drives: Sequence[MapDrive], partition: Partition) -> tuple[MapDrive, ...]:
    return tuple(_spread(sorted(drives, key=lambda drive: _draw(partition, drive))))


def _draw(partition: Partition, drive: MapDrive) -> tuple[float, int]:
    """Exponentially distributed with the weight as rate: the smallest of several draws falls to
    each drive in proportion to its weight. The slot breaks the tie that will never be."""
    hashed = xxhash.xxh3_64_intdigest(_HASH_INPUT.pack(_HASH_DOMAIN, partition, drive.slot))
    uniform = ((hashed >> 11) + 0.5) / (1 << 53)
    return -math.log(uniform) / drive.weight, drive.slot


def _spread(ranked: list[MapDrive]) -> list[MapDrive]:
    """Reorder so that no zone, and in a zone no host, gets a further drive while another could
    have one with fewer.

    Passes over the ranking under caps a zone and a host, which rise only when nothing more fits
    below them. Under fixed caps this is the greedy choice of a laminar matroid, so one more drive
    changes the first n by one exchange.
    """
    zones = {drive.zone for drive in ranked}
    hosts = {(drive.zone, drive.host) for drive in ranked}
    if len(hosts) in (1, len(ranked)) and len(zones) in (1, len(ranked)):
        return ranked
    of_zone: Counter[str] = Counter()
    of_host: Counter[tuple[str, str]] = Counter()
    # A level with one member only constrains nothing.
    zone_cap = 1 if len(zones) > 1 else len(ranked)
    host_cap = 1
    chosen: list[MapDrive] = []
    while ranked and len(chosen) < _SPREAD_MAX:
        passed_over: list[MapDrive] = []
        for drive in ranked:
            host = (drive.zone, drive.host)
            if of_zone[drive.zone] < zone_cap and of_host[host] < host_cap:
                of_zone[drive.zone] += 1
                of_host[host] += 1
                chosen.append(drive)
            else:
                passed_over.append(drive)
        ranked = passed_over
        if any(of_zone[drive.zone] < zone_cap for drive in ranked):
            host_cap += 1
        else:
            zone_cap += 1
            host_cap = 1
    return chosen + ranked
