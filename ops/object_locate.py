"""Every shard of an object, where it is and whether it is whole: behind `ostraka admin object locate`.

Shards are read and verified blob by blob, of a multipart object part by part. A page ends after some
seconds and keeps nothing: the next one begins with the blob that this one says.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.domain.versions import VersionAsked, version_asked, version_bytes, version_text
from gateway.metadata import keys
from gateway.metadata.entries import BucketEntry, ObjectEntry, object_entry
from gateway.metadata.errors import BucketBusy, NoSuchBucket
from gateway.metadata.records import BlobRef
from gateway.objects.errors import ObjectsError
from ops.admin_errors import AdminError
from ops.clients import Clients
from ops.keeper.inventory import blobs_of
from placement.cluster_map import MapDrive
from placement.errors import MetastoreUnavailable, PeerUnavailable
from placement.ids import BlobId, DriveId
from storage_node.port import READABLE, DriveReport, NodePort, Outcome, ShardId

VERIFY_SECONDS = 60.0
"""How long a node has to read its shards of a blob. One that takes longer counts as away."""
PAGE_SECONDS = 5.0
"""A page ends with the blob that reaches it."""


@dataclass(frozen=True, slots=True)
class ShardPlace:
    """One shard: `health` is whole, damaged, missing or unreachable (its drive is away)."""

    index: int
    drive: str
    path: str
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
    tolerance: int
    shards: tuple[ShardPlace, ...]


@dataclass(frozen=True, slots=True)
class ShardsPage:
    """Some blobs of a version. `after` is where the next page begins; "" after the last one."""

    version_id: str
    blobs: tuple[BlobPlaces, ...]
    after: str


class ObjectShards:
    """Answers pages. `reports` tells of every drive of the map what is reported of it."""

    def __init__(
        self, clients: Clients, reports: Callable[[], Awaitable[Sequence[DriveReport]]]
    ) -> None:
        self._clients = clients
        self._reports = reports

    async def page(
        self, bucket: str, key: str, version_id: str = "", after: str = ""
    ) -> ShardsPage:
        """The current version's blobs, or those of the version that is named. Raises AdminError."""
        clock = self._clients.clock
        until = clock.monotonic() + PAGE_SECONDS
        try:
            version = await self._version(bucket, key, version_id)
            refs = await self._refs(version)
            pinned = version.record.commit_id.hex()
            begin = _begin(after, pinned)
            look = Look(self._clients, await self._reports())
            blobs: list[BlobPlaces] = []
            for ref in refs[begin:]:
                blobs.append(await look.places(ref))
                if clock.monotonic() >= until:
                    break
        except (MetastoreUnavailable, PeerUnavailable, BucketBusy) as error:
            raise AdminError(503, "ServiceUnavailable", str(error)) from error
        reached = begin + len(blobs)
        left = f"{pinned}.{reached}" if reached < len(refs) else ""
        return ShardsPage(version_text(version.record.version_id), tuple(blobs), left)

    async def _version(self, bucket: str, key: str, version_id: str) -> ObjectEntry:
        (kv,) = await self._clients.metastore.get_many([keys.bucket(bucket)])
        try:
            entry = self._clients.metadata.buckets.remember(bucket, kv)
            found = await self._find(entry, key, version_id)
        except NoSuchBucket as error:
            raise AdminError(404, "NoSuchBucket", f"There is no bucket {bucket}.") from error
        if found is None or found.record.delete_marker:
            what = "a delete marker" if found is not None else "not there"
            raise (
                AdminError(
                    404, "NoSuchVersion", f"Version {version_id} of {key} in {bucket} is {what}."
                )
                if version_id
                else AdminError(404, "NoSuchKey", f"There is no object {key} in {bucket}.")
            )
        return found

    async def _find(self, entry: BucketEntry, key: str, version_id: str) -> ObjectEntry | None:
        if version_id:
            if version_asked(version_id) is not VersionAsked.NAMED:
                raise AdminError(400, "InvalidArgument", f"{version_id} is not a version id.")
            versions = self._clients.metadata.versions
            return await versions.find(entry, key, version_bytes(version_id))
        object_key = entry.object_key(key)
        (kv,) = await self._clients.metastore.get_many([object_key])
        return object_entry(object_key, kv)

    async def _refs(self, version: ObjectEntry) -> list[BlobRef]:
        try:
            return await blobs_of(version.record, self._clients.objects)
        except ObjectsError:
            assert version.record.manifest is not None, "only lists of parts are read"
            return [version.record.manifest]  # it cannot be read: of the parts nothing is known


def _begin(after: str, pinned: str) -> int:
    """The first blob of a page that begins there, of the version with that commit."""
    if not after:
        return 0
    commit, dot, number = after.partition(".")
    if not dot or not number.isascii() or not number.isdecimal() or len(number) > 9:
        raise AdminError(400, "InvalidInput", "`after` is not where a page has ended.")
    if commit != pinned:
        raise AdminError(409, "ConcurrentModification", "The object was replaced meanwhile.")
    return int(number)


class Look:
    """One page's look at nodes and drives, of which that is reported."""

    def __init__(self, clients: Clients, reports: Sequence[DriveReport]) -> None:
        self._clients = clients
        self._paths = {report.drive: report.path for report in reports}
        self._readable = {r.drive for r in reports if r.condition in READABLE}
        self._drives = {drive.drive_id: drive for drive in clients.topology.map.drives}

    async def places(self, ref: BlobRef) -> BlobPlaces:
        """Read and verify every shard of a blob."""
        blob = BlobId(ref.blob)
        order = self._clients.topology.write_order(blob, ref.k + ref.m)
        answers = await asyncio.gather(
            *(_on_node(name, node, blob) for name, node in self._clients.live_nodes.items())
        )
        held = [shard for answer in answers for shard in answer]
        shards = []
        for index in range(ref.k + ref.m):
            home = order[index] if index < len(order) else None
            there = [shard for shard in held if shard.index == index]
            if not there:
                shards.append(self._absent(index, home))
            shards += [self._present(shard, home) for shard in there]
        whole = [shard for shard in shards if shard.health == "whole"]
        tolerance = min(len({s.index for s in whole}), len({s.drive for s in whole})) - ref.k
        scheme = f"{ref.k}+{ref.m}"
        return BlobPlaces(blob.hex(), scheme, ref.size_bytes, tolerance, tuple(shards))

    def _present(self, shard: "Held", home: MapDrive | None) -> ShardPlace:
        known = self._drives.get(shard.drive)
        return ShardPlace(
            index=shard.index,
            drive=shard.drive.hex(),
            path=self._paths.get(shard.drive, ""),
            node=shard.node,
            host=known.host if known else "",
            zone=known.zone if known else "",
            home=home is not None and home.drive_id == shard.drive,
            health="whole" if shard.is_whole else "damaged",
        )

    def _absent(self, index: int, home: MapDrive | None) -> ShardPlace:
        if home is None:
            return ShardPlace(index, "", "", "", "", "", False, "missing")
        return ShardPlace(
            index=index,
            drive=home.drive_id.hex(),
            path=self._paths.get(home.drive_id, ""),
            node=home.node,
            host=home.host,
            zone=home.zone,
            home=False,
            health="missing" if home.drive_id in self._readable else "unreachable",
        )


@dataclass(frozen=True, slots=True)
class Held:
    """A shard that a node has, and whether its bytes are those that were written."""

    node: str
    drive: DriveId
    index: int
    is_whole: bool


async def _on_node(name: str, node: NodePort, blob: BlobId) -> Sequence[Held]:
    try:
        async with asyncio.timeout(VERIFY_SECONDS):
            (infos,) = await node.locate([blob])
            wanted = [(info.drive, ShardId(blob, info.shard.index)) for info in infos]
            stats = await node.stat(wanted, verify=True) if wanted else ()
    except (PeerUnavailable, TimeoutError):
        return ()
    return [
        Held(name, drive, shard.index, not isinstance(stat, Outcome))
        for (drive, shard), stat in zip(wanted, stats, strict=True)
    ]
