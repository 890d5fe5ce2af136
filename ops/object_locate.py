"""`ostraka admin object locate`: every shard of an object, where it is and whether it is whole."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.metadata import keys
from gateway.metadata.records import BlobRef, BucketRecord, ObjectRecord, decode
from gateway.objects.errors import ObjectsError
from ops.clients import Clients
from ops.keeper.inventory import blobs_of
from ops.refusal import Refused
from placement.cluster_map import MapDrive
from placement.errors import PeerUnavailable
from placement.ids import BlobId, BucketId, DriveId
from storage_node.port import NodePort, Outcome, ShardId

VERIFY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ShardPlace:
    """One shard: `health` is whole, damaged, missing or unreachable (its drive's node is away)."""

    index: int
    drive: str
    node: str
    host: str
    zone: str
    home: bool
    health: str


@dataclass(frozen=True, slots=True)
class BlobPlaces:
    """A blob and its shards. `tolerance`: drives that may still be lost; negative: unreadable."""

    blob: str
    scheme: str
    size_bytes: int
    shards: list[ShardPlace]
    tolerance: int

    def shown(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "blob": self.blob,
            "scheme": self.scheme,
            "size_bytes": self.size_bytes,
            "tolerance": self.tolerance,
            "shards": [
                {
                    "index": s.index,
                    "drive": s.drive,
                    "node": s.node,
                    "host": s.host,
                    "zone": s.zone,
                    "home": s.home,
                    "health": s.health,
                }
                for s in self.shards
            ],
        }


async def locate(clients: Clients, bucket: str, key: str) -> list[BlobPlaces]:
    """The current version's blobs. Raises Refused when there is none."""
    (found,) = await clients.metastore.get_many([keys.bucket(bucket)])
    if found is None:
        raise Refused(f"there is no bucket {bucket}")
    bucket_id = BucketId(decode(BucketRecord, found.value).bucket_id)
    (kv,) = await clients.metastore.get_many([keys.object_(bucket_id, key.encode())])
    if kv is None:
        raise Refused(f"there is no object {key} in {bucket}")
    record = decode(ObjectRecord, kv.value)
    try:
        refs = await blobs_of(record, clients.objects)
    except ObjectsError:
        assert record.manifest is not None, "only lists of parts are read"
        refs = [record.manifest]  # it cannot be read: of the parts nothing is known
    return [await _places(clients, ref) for ref in refs]


async def _places(clients: Clients, ref: BlobRef) -> BlobPlaces:
    blob = BlobId(ref.blob)
    order = clients.topology.write_order(blob, ref.k + ref.m)
    by_id = {drive.drive_id: drive for drive in clients.topology.map.drives}
    answers = await asyncio.gather(
        *(_on_node(name, node, blob) for name, node in clients.live_nodes.items())
    )
    held = [shard for answer in answers for shard in answer]
    shards = []
    for index in range(ref.k + ref.m):
        home = order[index] if index < len(order) else None
        places = [(node, drive, health) for node, drive, i, health in held if i == index]
        if not places:
            shards.append(_absent(clients, index, home))
        for node, drive, health in places:
            known = by_id.get(drive)
            at_home = home is not None and home.drive_id == drive
            host, zone = (known.host, known.zone) if known else ("", "")
            shards.append(ShardPlace(index, drive.hex(), node, host, zone, at_home, health))
    whole = [shard for shard in shards if shard.health == "whole"]
    tolerance = min(len({s.index for s in whole}), len({s.drive for s in whole})) - ref.k
    return BlobPlaces(blob.hex(), f"{ref.k}+{ref.m}", ref.size_bytes, shards, tolerance)


def _absent(clients: Clients, index: int, home: MapDrive | None) -> ShardPlace:
    if home is None:
        return ShardPlace(index, "", "", "", "", False, "missing")
    reachable = home.slot in clients.topology.writable
    health = "missing" if reachable else "unreachable"
    return ShardPlace(index, home.drive_id.hex(), home.node, home.host, home.zone, False, health)


async def _on_node(
    name: str, node: NodePort, blob: BlobId
) -> Sequence[tuple[str, DriveId, int, str]]:
    try:
        async with asyncio.timeout(VERIFY_SECONDS):
            (infos,) = await node.locate([blob])
            wanted = [(info.drive, ShardId(blob, info.shard.index)) for info in infos]
            stats = await node.stat(wanted, verify=True) if wanted else ()
    except (PeerUnavailable, TimeoutError):
        return ()
    return [
        (name, drive, shard.index, "damaged" if isinstance(stat, Outcome) else "whole")
        for (drive, shard), stat in zip(wanted, stats, strict=True)
    ]
