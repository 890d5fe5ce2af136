"""Which drives hold a blob: partitions, weighted rendezvous hashing, failure domains. Pure.

The order of a partition is part of the format: data lies where it says, so golden values pin it.

Every drive draws a number for every partition from a hash of (partition, *slot*), weighted so that
a drive comes first in proportion to its weight (the logarithmic method of weighted rendezvous
hashing: Wang and Ravishankar 1998; Schindelhauer and Schomaker 2005). A drive's draw depends on
nothing but itself, so adding or removing a drive moves only what goes to it or came from it; and a
replacement drive takes over its predecessor's slot, so replacing moves nothing at all.

What it draws with is its *pull*: its weight, or in a balanced map a number near it, chosen when the
map was made so that chance gives no drive much more or less than its weight's share
(`placement.tuning`).

Which shard of a blob a drive holds follows from the map's lineage: a drive that is among the first n
in two successive maps keeps its index among them, and the newcomers fill what others left. Without
that, a newcomer would shift the index of every drive ranked behind it, and nearly every shard.
"""

import math
import struct
from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

import xxhash

from placement.cluster_map import ClusterMap, DriveState, MapDrive
from placement.ids import BlobId, Epoch, Partition, Slot

_HASH_HEAD = struct.Struct("<4sI")
"""Of what is hashed; the slot follows, as long."""
HASH_DOMAIN = b"ost1"
_UNIFORM = float(1 << 53)
_digest = xxhash.xxh3_64_intdigest
_PARTITION_BITS_MAX = 16
SPREAD_MAX = 64
"""Positions that keep to failure domains: more than the widest scheme has (32 + 16)."""
BULK_DRIVES = 64
"""From so many drives on, partitions are worked out in blocks."""
BLOCK_DRAWS = 1 << 15
"""Draws of a block, about: one or two milliseconds."""
Block = list["array[int]"]
"""Places of the drives in a block's partitions, in order."""


def partition_of(blob: BlobId, count: int) -> Partition:
    """The leading bits of a blob's id. `count` is a power of two, at most 2^16."""
    return Partition((blob[0] << 8 | blob[1]) * count >> _PARTITION_BITS_MAX)


def order_of(cluster: ClusterMap, partition: Partition) -> tuple[Slot, ...]:
    """All drives that take writes, in the order in which a blob's shards prefer them.

    For every width the first drives lie in as many different zones, and within a zone on as many
    hosts, as there are. Drives that are draining, out or of weight 0 are left out.
    """
    takers = Field([drive for drive in cluster.drives if takes_writes(drive)])
    return tuple(drive.slot for drive in takers.order(partition))


class Placement:
    """The orders of one map, worked out when first asked for and kept: one a map and process.

    `ancestors` are the maps of its lineage, oldest first. `width` is the number of a blob's shards:
    the first so many drives are their homes, in the order of their indexes; the rest are spares.
    `known` is the placement of an earlier map: what is the same in both is taken over.
    """

    def __init__(
        self,
        cluster: ClusterMap,
        ancestors: Sequence[ClusterMap] = (),
        known: "Placement | None" = None,
    ) -> None:
        self.map = cluster
        self._chain = tuple([ancestor.epoch for ancestor in ancestors])
        self._previous = _previous_of(ancestors, known)
        self._count = cluster.partition_count
        self._takers = Field([drive for drive in cluster.drives if takes_writes(drive)], known)
        self._leavers = Field([drive for drive in cluster.drives if _only_reads(drive)])
        # By width, then by the first two bytes of an id: a look-up is one slice and two accesses.
        # At most 2^16 entries a width, which share the tuples of their partition.
        self._write_by_head: dict[int, dict[bytes, tuple[MapDrive, ...]]] = {0: {}}
        self._read_by_head: dict[int, dict[bytes, tuple[MapDrive, ...]]] = {0: {}}
        self._write_by_partition: dict[tuple[Partition, int], tuple[MapDrive, ...]] = {}
        self._read_by_partition: dict[tuple[Partition, int], tuple[MapDrive, ...]] = {}
        self._homes: dict[tuple[Partition, int], tuple[MapDrive, ...]] = {}

    def partition(self, blob: BlobId) -> Partition:
        """The blob's partition under this map."""
        return partition_of(blob, self._count)

    def write_order(self, blob: BlobId, width: int = 0) -> tuple[MapDrive, ...]:
        """Drives that take the blob's shards: shard i prefers drive i, the rest are spares."""
        if self._previous is None:
            width = 0  # indexes are ranks, whatever the width
        try:
            return self._write_by_head[width][blob[:2]]
        except KeyError:
            order = self.homes_first(self.partition(blob), width)
            self._write_by_head.setdefault(width, {})[blob[:2]] = order
            return order

    def read_order(self, blob: BlobId, width: int = 0) -> tuple[MapDrive, ...]:
        """Drives that may hold the blob's shards: the write order, then those draining."""
        if self._previous is None:
            width = 0
        try:
            return self._read_by_head[width][blob[:2]]
        except KeyError:
            order = self.read_order_of(self.partition(blob), width)
            self._read_by_head.setdefault(width, {})[blob[:2]] = order
            return order

    def write_order_of(self, partition: Partition) -> tuple[MapDrive, ...]:
        """`write_order` of every blob of that partition."""
        return self.homes_first(partition, 0)

    def read_order_of(self, partition: Partition, width: int = 0) -> tuple[MapDrive, ...]:
        """`read_order` of every blob of that partition."""
        key = (partition, width)
        order = self._read_by_partition.get(key)
        if order is None:
            order = self.homes_first(partition, width)
            if self._leavers.drives:
                order += self._leavers.order(partition)
            self._read_by_partition[key] = order
        return order

    def homes_first(self, partition: Partition, width: int) -> tuple[MapDrive, ...]:
        """The write order with its first `width` drives in the order of the indexes they have."""
        key = (partition, width)
        order = self._write_by_partition.get(key)
        if order is None:
            order = self._takers.order(partition)
            if width and self._previous is not None:
                order = self.homes(partition, width) + order[width:]
            self._write_by_partition[key] = order
        return order

    def homes(self, partition: Partition, width: int) -> tuple[MapDrive, ...]:
        """The first `width` drives of the write order, in the order of the indexes they have."""
        key = (partition, width)
        seats = self._homes.get(key)
        if seats is None:
            seats = self._takers.order(partition, width)
            if self._previous is not None:
                former = self._previous.homes(partition, width)
                seats = _keeping_indexes(seats, [drive.slot for drive in former], width)
            self._homes[key] = seats
        return seats

    def homes_by_map(self, blob: BlobId, width: int) -> Iterator[tuple[MapDrive, ...]]:
        """The homes of a blob's shards by this map, then by each of its ancestors, newest first: also
        drives that were put out or forgotten since."""
        placement: Placement | None = self
        while placement is not None:
            yield placement.homes(self.partition(blob), width)
            placement = placement._previous  # noqa: SLF001 - of its own class

    def same_field(self, drives: Sequence[MapDrive]) -> "Field | None":
        """What this map's drives draw, where these would draw the same."""
        return self._takers if self._takers.draws_as(drives) else None

    def end_of(self, chain: tuple[Epoch, ...]) -> "Placement | None":
        """The placement of the last map of this chain, with all the others as its ancestors and no
        further ones, where it is at hand. A lineage is bounded: a map may have other ancestors of its
        own than as the ancestor of another."""
        if self._chain == chain:
            return self._previous
        return self if (*self._chain, self.map.epoch) == chain else None


def _previous_of(ancestors: Sequence[ClusterMap], known: Placement | None) -> Placement | None:
    if not ancestors:
        return None
    chain = tuple([ancestor.epoch for ancestor in ancestors])
    found = known.end_of(chain) if known is not None else None
    return found or Placement(ancestors[-1], ancestors[:-1], known)


def _keeping_indexes(
    order: tuple[MapDrive, ...], former: Sequence[Slot], width: int
) -> tuple[MapDrive, ...]:
    """The first `width` drives of an order where `former` had them; newcomers, in their order, take
    what is free."""
    first = {drive.slot: drive for drive in order}
    kept = {index: slot for index, slot in enumerate(former) if slot in first}
    stay = set(kept.values())
    newcomers = iter([drive for slot, drive in first.items() if slot not in stay])
    seats = [first[kept[i]] if i in kept else next(newcomers, None) for i in range(width)]
    # Fewer drives than seats: the last ones are empty, as they are without a lineage.
    return tuple([drive for drive in seats if drive is not None])


def takes_writes(drive: MapDrive) -> bool:
    """Whether new shards go to the drive."""
    return drive.state is DriveState.UP and drive.weight > 0


def _only_reads(drive: MapDrive) -> bool:
    return drive.state is DriveState.DRAINING and drive.weight > 0


class Field:
    """Drives that draw for partitions: what of them does not depend on the partition."""

    def __init__(self, drives: Sequence[MapDrive], known: Placement | None = None) -> None:
        self.drives = tuple(sorted(drives, key=lambda drive: drive.slot))
        self._draws = [(drive.slot.to_bytes(4, "little"), drive.pull) for drive in self.drives]
        zones = _numbered(drive.zone for drive in self.drives)
        hosts = _numbered((drive.zone, drive.host) for drive in self.drives)
        self.zones = [zones[drive.zone] for drive in self.drives]
        """Of each drive, as a number."""
        self.hosts = [hosts[drive.zone, drive.host] for drive in self.drives]
        self._zone_count, self._host_count = len(zones), len(hosts)
        count = len(self.drives)
        self.is_flat = len(hosts) in (1, count) and len(zones) in (1, count)
        """Whether failure domains constrain nothing."""
        same = known.same_field(self.drives) if known is not None else None
        self.blocks: dict[int, Block] = same.blocks if same is not None else {}
        """What was worked out, by the number of the block."""
        self._block_rows = 1 << max(BLOCK_DRAWS // max(count, 1), 8).bit_length()

    def draws_as(self, drives: Sequence[MapDrive]) -> bool:
        """Whether these drives, in order of their slots, would be ranked alike."""
        return [_drawing(drive) for drive in drives] == [_drawing(drive) for drive in self.drives]

    def order(self, partition: Partition, width: int | None = None) -> tuple[MapDrive, ...]:
        """All of them, or the first `width`, as a blob's shards prefer them."""
        drives = self.drives
        return tuple([drives[place] for place in self._places(partition)[:width]])

    def _places(self, partition: Partition) -> Sequence[int]:
        if len(self.drives) < BULK_DRIVES:
            return self._spread(self._ranked(partition))
        number, row = divmod(partition, self._block_rows)
        block = self.blocks.get(number)
        if block is None:
            block = self.blocks[number] = self._block(number)
        return block[row]

    def _block(self, number: int) -> "Block":
        """The partitions around one, together: each then costs a tenth."""
        from placement import bulk  # numpy is for those who have so many drives

        first = number * self._block_rows
        rows = range(first, first + self._block_rows)
        pulls = [pull for _, pull in self._draws]
        draws = bulk.exponentials(HASH_DOMAIN, rows, [drive.slot for drive in self.drives])
        order, unsure = bulk.ranked(draws / pulls)
        if not self.is_flat:
            order = bulk.spread(order, self.zones, self.hosts, SPREAD_MAX)
        block = bulk.stored(order)
        for row in unsure:
            places = self._spread(self._ranked(Partition(first + row)))
            block[row] = array(block[row].typecode, places)
        return block

    def _ranked(self, partition: Partition) -> list[int]:
        """Places by their draws: exponentially distributed with the pull as rate, so that the
        smallest of several draws falls to each drive in proportion to its pull. The slot breaks
        the tie that will never be."""
        head, log, digest = _HASH_HEAD.pack(HASH_DOMAIN, partition), math.log, _digest
        draws = [
            -log(((digest(head + slot) >> 11) + 0.5) / _UNIFORM) / pull
            for slot, pull in self._draws
        ]
        return sorted(range(len(draws)), key=draws.__getitem__)

    def _spread(self, ranked: list[int]) -> list[int]:
        """Reorder so that no zone, and in a zone no host, gets a further drive while another could
        have one with fewer.

        Passes over the ranking under caps a zone and a host, which rise only when nothing more fits
        below them. Under fixed caps this is the greedy choice of a laminar matroid, so one more
        drive changes the first n by one exchange.
        """
        if self.is_flat:
            return ranked
        zones, hosts = self.zones, self.hosts
        of_zone, of_host = [0] * self._zone_count, [0] * self._host_count
        # A level with one member only constrains nothing.
        zone_cap = 1 if self._zone_count > 1 else len(ranked)
        host_cap = 1
        chosen: list[int] = []
        while ranked and len(chosen) < SPREAD_MAX:
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


def _drawing(drive: MapDrive) -> tuple[Slot, float, str, str]:
    return drive.slot, drive.pull, drive.zone, drive.host


K = TypeVar("K", bound=Hashable)


def _numbered(names: Iterable[K]) -> dict[K, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names))}
