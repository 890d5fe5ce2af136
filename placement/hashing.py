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
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import xxhash

from placement.cluster_map import ClusterMap, DriveState, MapDrive
from placement.ids import BlobId, Partition, Slot

_HASH_HEAD = struct.Struct("<4sI")
"""Of what is hashed; the slot follows, as long."""
_HASH_DOMAIN = b"ost1"
_UNIFORM = float(1 << 53)
_digest = xxhash.xxh3_64_intdigest
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
    takers = _Field([drive for drive in cluster.drives if _takes_writes(drive)])
    return tuple(drive.slot for drive in takers.order(partition))


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
        self._takers = _Field([drive for drive in cluster.drives if _takes_writes(drive)])
        self._leavers = _Field([drive for drive in cluster.drives if _only_reads(drive)])
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
            order = self._write_by_partition[partition] = self._takers.order(partition)
        return order

    def read_order_of(self, partition: Partition) -> tuple[MapDrive, ...]:
        """`read_order` of every blob of that partition."""
        order = self._read_by_partition.get(partition)
        if order is None:
            order = self.write_order_of(partition) + self._leavers.order(partition)
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


class _Field:
    """Drives that draw for partitions: what of them does not depend on the partition."""

    def __init__(self, drives: Sequence[MapDrive]) -> None:
        self.drives = tuple(sorted(drives, key=lambda drive: drive.slot))
        self._draws = [(drive.slot.to_bytes(4, "little"), drive.weight) for drive in self.drives]
        zones = _numbered(drive.zone for drive in self.drives)
        hosts = _numbered((drive.zone, drive.host) for drive in self.drives)
        self._zones = [zones[drive.zone] for drive in self.drives]
        self._hosts = [hosts[drive.zone, drive.host] for drive in self.drives]
        self._zone_count, self._host_count = len(zones), len(hosts)
        count = len(self.drives)
        self._is_flat = len(hosts) in (1, count) and len(zones) in (1, count)

    def order(self, partition: Partition) -> tuple[MapDrive, ...]:
        """All of them, as a blob's shards prefer them."""
        ranked = self._ranked(partition)
        drives = self.drives
        return tuple([drives[place] for place in self._spread(ranked)])

    def _ranked(self, partition: Partition) -> list[int]:
        """Places by their draws: exponentially distributed with the weight as rate, so that the
        smallest of several draws falls to each drive in proportion to its weight. The slot breaks
        the tie that will never be."""
        head, log, digest = _HASH_HEAD.pack(_HASH_DOMAIN, partition), math.log, _digest
        draws = [
            -log(((digest(head + slot) >> 11) + 0.5) / _UNIFORM) / weight
            for slot, weight in self._draws
        ]
        return sorted(range(len(draws)), key=draws.__getitem__)

    def _spread(self, ranked: list[int]) -> list[int]:
        """Reorder so that no zone, and in a zone no host, gets a further drive while another could
        have one with fewer.

        Passes over the ranking under caps a zone and a host, which rise only when nothing more fits
        below them. Under fixed caps this is the greedy choice of a laminar matroid, so one more
        drive changes the first n by one exchange.
        """
        if self._is_flat:
            return ranked
        zones, hosts = self._zones, self._hosts
        of_zone, of_host = [0] * self._zone_count, [0] * self._host_count
        # A level with one member only constrains nothing.
        zone_cap = 1 if self._zone_count > 1 else len(ranked)
        host_cap = 1
        chosen: list[int] = []
        while ranked and len(chosen) < _SPREAD_MAX:
            passed_over: list[int] = []
            open_zones = sum([count < zone_cap for count in of_zone])
            seen = 0
            for place in ranked:
                seen += 1
                zone, host = zones[place], hosts[place]
                if of_zone[zone] >= zone_cap or of_host[host] >= host_cap:
                    passed_over.append(place)
                    continue
                of_host[host] += 1
                of_zone[zone] += 1
                chosen.append(place)
                if of_zone[zone] == zone_cap:
                    open_zones -= 1
                    if not open_zones:
                        break  # nobody behind fits either
            ranked = passed_over + ranked[seen:]
            if open_zones and any(of_zone[zones[place]] < zone_cap for place in ranked):
                host_cap += 1
            else:
                zone_cap += 1
                host_cap = 1
        return chosen + ranked


K = TypeVar("K", bound=Hashable)


def _numbered(names: Iterable[K]) -> dict[K, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names))}
