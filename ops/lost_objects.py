"""Which objects cannot be read with the drives that are there, a page at a time: behind the admin port.

A page walks the records of objects and their versions in the order of listings and asks every node
where the shards of their blobs are. It keeps nothing: the next page begins where this one says that
it ended.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway.domain.versions import version_text
from gateway.metadata import keys
from gateway.metadata.buckets import BUCKET_ID_SIZE_BYTES
from gateway.metadata.records import BlobRef, BucketRecord, ObjectRecord, decode
from gateway.objects.errors import BlobDamaged
from gateway.objects.manifest import decode_parts
from ops.admin_errors import AdminError
from ops.clients import Clients
from ops.keeper.inventory import Found, placed, versions
from placement.cluster_map import MapDrive
from placement.errors import MetastoreUnavailable, PeerUnavailable
from placement.ids import BlobId, DriveId
from placement.metastore.port import KeyValue, Range, prefix_end
from storage_node.port import READABLE, DriveReport, NodePort, ShardInfo

OBJECTS_A_PAGE = 5_000
LOST_A_PAGE = 500
PAGE_SECONDS = 5.0
"""A page ends with the batch that reaches one of these."""
BATCH_BLOBS = 100
"""Blobs that a node is asked for at once: it answers nobody else meanwhile, for some milliseconds.
After a batch the walk rests as long as that took, so that half of the time is left to clients."""
NODE_SECONDS = 5.0
"""How long a node has for such a batch. One that takes longer is not asked again for this page."""
BUCKETS_A_READ = 100


@dataclass(frozen=True, slots=True)
class AbsentDrive:
    """A drive that may hold what is missing and cannot be read. `condition` is what its node reports;
    "away" when none serves it, "removed" when the map has forgotten it."""

    id: str
    path: str
    node: str
    host: str
    zone: str
    condition: str


@dataclass(frozen=True, slots=True)
class LostObject:
    """A version that cannot be read. `shards_left` of the `shards_needed` are there, of the worst of
    its `blobs_lost` blobs (a plain object is one blob, a multipart object one a part)."""

    bucket: str
    key: str
    version_id: str
    is_latest: bool
    size_bytes: int
    shards_left: int
    shards_needed: int
    blobs_lost: int
    drives: tuple[AbsentDrive, ...]


@dataclass(frozen=True, slots=True)
class LostPage:
    """`examined` objects and versions, and those of them that cannot be read. `after` is where the
    next page begins; "" after the last one. Nodes that are registered and did not answer are
    `silent`: what lies on their drives was taken for missing."""

    objects: tuple[LostObject, ...]
    examined: int
    after: str
    silent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a walk goes on: from that bucket's record on, within it from that record on (their keys
    without family and bucket id)."""

    bucket: str = ""
    start: bytes = b""

    @property
    def text(self) -> str:
        """For whoever asks for the next page."""
        return base64.urlsafe_b64encode(self.bucket.encode() + b"/" + self.start).decode()

    @classmethod
    def parse(cls, text: str) -> "Position":
        """The other way; "" is the beginning. Raises AdminError."""
        if not text:
            return cls()
        try:
            bucket, slash, start = base64.b64decode(text, b"-_", validate=True).partition(b"/")
            if not slash:
                raise ValueError("no slash")
            return cls(bucket.decode(), start)
        except (ValueError, binascii.Error) as error:
            raise AdminError(
                400, "InvalidInput", "`after` is not where a page has ended."
            ) from error


@dataclass(frozen=True, slots=True)
class Version:
    """A version as it was read."""

    bucket: str
    kv: KeyValue
    record: ObjectRecord

    @property
    def named(self) -> Iterator[BlobRef]:
        """The blobs that its record names itself."""
        for ref in (self.record.data, self.record.manifest):
            if ref is not None:
                yield ref
        yield from (part.data for part in self.record.parts)


@dataclass(frozen=True, slots=True)
class Batch:
    """Versions that are looked at together, and where the walk goes on after them."""

    versions: Sequence[Version]
    after: Position


@dataclass(slots=True)
class Loss:
    """What is lost of one version."""

    left: int = 0
    needed: int = 0
    blobs: int = 0
    drives: dict[DriveId, MapDrive] = field(default_factory=dict)

    def add(self, blob: Found, drives: Iterable[MapDrive]) -> None:
        """A blob that cannot be read, and the drives that may hold what it misses."""
        left = _indexes(blob)
        if not self.blobs or left - blob.ref.k < self.left - self.needed:
            self.left, self.needed = left, blob.ref.k
        self.blobs += 1
        self.drives |= {drive.drive_id: drive for drive in drives}


def _indexes(blob: Found) -> int:
    """How many different shards are there, on however few drives."""
    return blob.ref.k + blob.ref.m - len(blob.missing)


class LostObjects:
    """Answers pages. `reports` tells of every drive of the map what is reported of it."""

    def __init__(
        self, clients: Clients, reports: Callable[[], Awaitable[Sequence[DriveReport]]]
    ) -> None:
        self._clients = clients
        self._reports = reports

    async def page(self, after: str = "", bucket: str = "", prefix: str = "") -> LostPage:
        """A page of what is lost in the whole store, in one bucket, or under a prefix. Raises
        AdminError."""
        position = Position.parse(after)
        clock = self._clients.clock
        until = clock.monotonic() + PAGE_SECONDS
        try:
            look = Look(self._clients, {r.drive: r for r in await self._reports()})
            lost: list[LostObject] = []
            examined = 0
            began = clock.monotonic()
            async for batch in self._batches(position, bucket, keys.escape(prefix.encode())):
                lost += await look.lost_of(batch.versions)
                examined += len(batch.versions)
                is_full = examined >= OBJECTS_A_PAGE or len(lost) >= LOST_A_PAGE
                if is_full or clock.monotonic() >= until:
                    return LostPage(tuple(lost), examined, batch.after.text, look.silent)
                await clock.sleep(clock.monotonic() - began)
                began = clock.monotonic()
            return LostPage(tuple(lost), examined, "", look.silent)
        except (MetastoreUnavailable, PeerUnavailable) as error:
            raise AdminError(503, "ServiceUnavailable", str(error)) from error

    async def _batches(
        self, position: Position, wanted: str, prefix: bytes
    ) -> AsyncIterator[Batch]:
        """One of no version ends every bucket, so that many empty ones do not make a page long."""
        async for name, record in self._buckets(position, wanted):
            within = record.bucket_id + prefix
            start = record.bucket_id + (position.start if name == position.bucket else b"")
            async for kvs in versions(self._clients.metastore, within, start):
                for batch in _batched(name, kvs):
                    yield batch
            yield Batch((), Position(f"{name}\x00"))

    async def _buckets(
        self, position: Position, wanted: str
    ) -> AsyncIterator[tuple[str, BucketRecord]]:
        metastore = self._clients.metastore
        if wanted:
            (kv,) = await metastore.get_many([keys.bucket(wanted)])
            if kv is None:
                raise AdminError(404, "NoSuchBucket", f"There is no bucket {wanted}.")
            if position.bucket <= wanted:
                yield wanted, decode(BucketRecord, kv.value)
            return
        start, more = keys.bucket(position.bucket), True
        while more:
            page = await metastore.range(
                Range(start, prefix_end(keys.BUCKETS), limit=BUCKETS_A_READ)
            )
            for kv in page.kvs:
                yield kv.key[len(keys.BUCKETS) :].decode(), decode(BucketRecord, kv.value)
                start = kv.key + b"\x00"
            more = page.more


def _batched(bucket: str, kvs: Sequence[KeyValue]) -> Iterator[Batch]:
    """Of about `BATCH_BLOBS` blobs each. A version whose parts a manifest lists goes alone."""
    batch: list[Version] = []
    blobs = 0
    for kv in kvs:
        version = Version(bucket, kv, decode(ObjectRecord, kv.value))
        if version.record.delete_marker:
            continue
        own = BATCH_BLOBS if version.record.manifest is not None else 1 + len(version.record.parts)
        if batch and blobs + own > BATCH_BLOBS:
            yield Batch(batch, _behind(batch[-1]))
            batch, blobs = [], 0
        batch.append(version)
        blobs += own
    if batch:
        yield Batch(batch, _behind(batch[-1]))


def _behind(version: Version) -> Position:
    within = version.kv.key[len(keys.OBJECTS) + BUCKET_ID_SIZE_BYTES :]
    return Position(version.bucket, within + b"\x00")


class Look:
    """One page's look at nodes and drives, all as they were when it began."""

    def __init__(self, clients: Clients, reports: dict[DriveId, DriveReport]) -> None:
        self._clients = clients
        self._reports = reports
        self._places = {drive.drive_id: drive for drive in clients.topology.map.drives}
        self._silent: set[str] = set()

    @property
    def silent(self) -> tuple[str, ...]:
        """Nodes that did not answer."""
        return tuple(sorted(self._silent))

    async def lost_of(self, batch: Sequence[Version]) -> list[LostObject]:
        """Those of some versions that cannot be read. They are looked at twice: shards move, and what
        was replaced or deleted meanwhile is gone rightly."""
        suspects = [version for version, _ in await self._losses(batch)]
        if not suspects:
            return []
        now = await self._clients.metastore.get_many([version.kv.key for version in suspects])
        still = [
            version
            for version, kv in zip(suspects, now, strict=True)
            if kv is not None and kv.mod_revision == version.kv.mod_revision
        ]
        return [self._shown(version, loss) for version, loss in await self._losses(still)]

    async def _losses(self, batch: Sequence[Version]) -> list[tuple[Version, Loss]]:
        found = await self._find([ref for version in batch for ref in version.named])
        losses = []
        for version in batch:
            loss = Loss()
            self._take(loss, [found[ref.blob] for ref in version.named])
            manifest = version.record.manifest
            if manifest is not None and not loss.blobs:
                await self._look_at_parts(loss, found[manifest.blob])
            if loss.blobs:
                losses.append((version, loss))
        return losses

    async def _look_at_parts(self, loss: Loss, manifest: Found) -> None:
        try:
            parts = decode_parts(await self._clients.objects.read_bytes(manifest.ref))
        except BlobDamaged:
            loss.add(manifest, self._absent(manifest))
            return
        for begin in range(0, len(parts), BATCH_BLOBS):
            refs = [part.data for part in parts[begin : begin + BATCH_BLOBS]]
            found = await self._find(refs)
            self._take(loss, [found[ref.blob] for ref in refs])

    def _take(self, loss: Loss, blobs: Sequence[Found]) -> None:
        for blob in blobs:
            # Of nothing every byte can be read, without asking a drive.
            if blob.ref.size_bytes and _indexes(blob) < blob.ref.k:
                loss.add(blob, self._absent(blob))

    async def _find(self, refs: Sequence[BlobRef]) -> dict[bytes, Found]:
        if not refs:
            return {}
        unique = tuple({ref.blob: ref for ref in refs}.values())
        wanted = [BlobId(ref.blob) for ref in unique]
        nodes = self._clients.live_nodes
        asked = [name for name in sorted(nodes) if name not in self._silent]
        told = await asyncio.gather(*(_told(nodes[name], wanted) for name in asked))
        answers = {name: one for name, one in zip(asked, told, strict=True) if one is not None}
        self._silent.update(set(asked) - answers.keys())
        return {found.ref.blob: found for found in placed(unique, answers)}

    def _absent(self, blob: Found) -> list[MapDrive]:
        """Drives that cannot be read and may hold what a blob misses: by the newest map, and by earlier
        ones only where their drives are too few to bring the blob back."""
        placement = self._clients.topology.placement
        width = blob.ref.k + blob.ref.m
        absent: dict[DriveId, MapDrive] = {}
        for homes in placement.homes_by_map(BlobId(blob.ref.blob), width):
            for index in blob.missing:
                if index < len(homes) and self._condition(homes[index].drive_id):
                    absent.setdefault(homes[index].drive_id, homes[index])
            if _indexes(blob) + len(absent) >= blob.ref.k:
                break
        return list(absent.values())

    def _condition(self, drive: DriveId) -> str:
        """Why a drive cannot be read; "" when it can."""
        place, member = self._places.get(drive), self._clients.member
        if place is None:
            return "" if member is not None and drive in member.view.drives else "removed"
        if place.node in self._silent:
            return "silent"
        report = self._reports.get(drive)
        if report is None:
            return "away"
        return "" if report.condition in READABLE else report.condition.value

    def _shown(self, version: Version, loss: Loss) -> LostObject:
        record = version.record
        drives = [
            AbsentDrive(
                drive.drive_id.hex(),
                report.path if (report := self._reports.get(drive.drive_id)) else "",
                drive.node,
                drive.host,
                drive.zone,
                self._condition(drive.drive_id),
            )
            for drive in loss.drives.values()
        ]
        return LostObject(
            bucket=version.bucket,
            key=keys.key_of_object(keys.object_of(version.kv.key)).decode(),
            version_id=version_text(record.version_id),
            is_latest=version.kv.key.startswith(keys.OBJECTS),
            size_bytes=record.size_bytes,
            shards_left=loss.left,
            shards_needed=loss.needed,
            blobs_lost=loss.blobs,
            drives=tuple(sorted(drives, key=lambda drive: (drive.node, drive.path, drive.id))),
        )


async def _told(node: NodePort, wanted: Sequence[BlobId]) -> Sequence[Sequence[ShardInfo]] | None:
    """Where the blobs' shards are on a node; None when it does not say."""
    try:
        async with asyncio.timeout(NODE_SECONDS):
            return await node.locate(wanted)
    except (PeerUnavailable, TimeoutError):
        return None
