"""Every blob that the metadata names, page by page, and where its shards are."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.metadata import keys
from gateway.metadata.records import (
    BlobRef,
    ObjectRecord,
    PartRecord,
    Record,
    RecordError,
    UploadRecord,
    decode,
)
from gateway.metadata.snapshots import SnapshotPart
from gateway.objects.errors import ObjectsError
from gateway.objects.manifest import parts_of
from gateway.objects.port import Objects
from placement.cluster_map import MapDrive
from placement.ids import BlobId, DriveId
from placement.metastore.port import KeyValue, Metastore, Range, prefix_end
from storage_node.port import NodePort, ShardInfo

PAGE_RECORDS = 500
PAGE_REFERENCES = 100


@dataclass(frozen=True, slots=True)
class Holding:
    """A shard that was found: on which drive of which node."""

    node: str
    drive: DriveId


@dataclass(slots=True)
class Found:
    """A blob and where its shards are, by index; kept up to date while it is repaired."""

    ref: BlobRef
    shards: dict[int, list[Holding]]

    @property
    def missing(self) -> tuple[int, ...]:
        """Indexes without any shard."""
        return tuple(i for i in range(self.ref.k + self.ref.m) if not self.shards.get(i))

    @property
    def places(self) -> dict[int, list[DriveId]]:
        """The drives of the shards, by index."""
        return {i: [holding.drive for holding in held] for i, held in self.shards.items()}

    @property
    def drives(self) -> set[DriveId]:
        """Drives that hold any shard of the blob."""
        return {holding.drive for held in self.shards.values() for holding in held}

    @property
    def tolerance(self) -> int:
        """Drives that may still be lost; negative when the blob cannot be read. Two shards on one
        drive are lost together, and so count once."""
        indexes = sum(1 for held in self.shards.values() if held)
        return min(indexes, len(self.drives)) - self.ref.k

    def is_settled(self, order: Sequence[MapDrive]) -> bool:
        """Whether every index has one shard, on the drive of its rank."""
        width, places = self.ref.k + self.ref.m, self.places
        return len(order) >= width and all(
            places.get(index) == [order[index].drive_id] for index in range(width)
        )

    def alone(self, index: int) -> bool:
        """Whether some shard of that index is on a drive that holds no other index."""
        others = {h.drive for i, held in self.shards.items() if i != index for h in held}
        return any(holding.drive not in others for holding in self.shards.get(index, ()))


async def blobs(
    metastore: Metastore,
    objects: Objects,
    unlisted: Callable[[BlobRef, Exception], None] | None = None,
) -> AsyncIterator[list[BlobRef]]:
    """Pages of all blobs named by parts and uploads, by objects and their versions, and of the
    metadata's own copies. A blob may come twice.

    Nothing is read at one instant, so what a blob may move to comes after where it was: a completed
    upload's parts become an object's, objects are copied and renamed to wherever.

    A list of parts that cannot be read is told to `unlisted`, and the walk goes on without its parts;
    where nobody wants to know, what reading it raised ends the walk.
    """
    families = (
        _records(metastore, keys.PARTS, PartRecord),
        _records(metastore, keys.UPLOADS, UploadRecord),
        _decoded(versions(metastore)),
        _decoded(_referring(metastore)),
        _records(metastore, keys.SNAPSHOT_PARTS, SnapshotPart),
    )
    for family in families:
        async for records in family:
            refs: list[BlobRef] = []
            for record in records:
                try:
                    refs += await blobs_of(record, objects)
                except (ObjectsError, RecordError) as error:
                    if unlisted is None or not isinstance(record, ObjectRecord):
                        raise
                    assert record.manifest is not None, "only lists of parts are read"
                    refs.append(record.manifest)
                    unlisted(record.manifest, error)
            if refs:
                yield refs


async def _records(
    metastore: Metastore, prefix: bytes, kind: type[Record]
) -> AsyncIterator[list[Record]]:
    """Pages of all records of a kind."""
    start, end = prefix, prefix_end(prefix)
    while True:
        page = await metastore.range(Range(start, end, limit=PAGE_RECORDS))
        yield [decode(kind, kv.value) for kv in page.kvs]
        if not page.more:
            return
        start = page.kvs[-1].key + b"\x00"


async def _decoded(pages: AsyncIterator[list[KeyValue]]) -> AsyncIterator[list[Record]]:
    async for kvs in pages:
        yield [decode(ObjectRecord, kv.value) for kv in kvs]


async def versions(
    metastore: Metastore, within: bytes = b"", start: bytes = b""
) -> AsyncIterator[list[KeyValue]]:
    """Pages of objects with all their versions, a key's together at one instant: a version that
    becomes current, or ceases to be, is not missed. Only a key with more versions than a page holds
    is read in several steps.

    `within` and `start` are of keys without their family: what they begin with, and where to begin.
    """
    ends = [prefix_end(family + within) for family in (keys.OBJECTS, keys.VERSIONS)]
    start = max(start, within)
    while True:
        current, others = await metastore.read(
            [
                Range(family + start, end, limit=PAGE_RECORDS)
                for family, end in zip((keys.OBJECTS, keys.VERSIONS), ends, strict=True)
            ]
        )
        kvs = sorted((*current.kvs, *others.kvs), key=lambda kv: kv.key[2:])
        cuts = [result.kvs[-1].key for result in (current, others) if result.more]
        if not cuts:
            yield kvs
            return
        last = min(cuts, key=lambda key: key[2:])
        # Other versions of its key may be missing: it comes again as a whole, if others precede.
        whole = keys.object_of(last)[2:]
        before = [kv for kv in kvs if kv.key[2:] < whole]
        if before:
            yield before
            start = whole
            continue
        yield [kv for kv in kvs if kv.key[2:] <= last[2:]]
        start = last[2:] + b"\x00"


async def _referring(metastore: Metastore) -> AsyncIterator[list[KeyValue]]:
    """Pages of the current objects that took over another's bytes. One that was copied or renamed to
    where the walk over objects had been already, and whose source has gone, is found here."""
    start, end = keys.REFERENCES, prefix_end(keys.REFERENCES)
    while True:
        page = await metastore.range(Range(start, end, limit=PAGE_REFERENCES, keys_only=True))
        named = [keys.record_of_reference(kv.key) for kv in page.kvs]
        if current := [key for key in named if key.startswith(keys.OBJECTS)]:
            found = await metastore.get_many(current)
            yield [kv for kv in found if kv is not None]
        if not page.more:
            return
        start = page.kvs[-1].key + b"\x00"


async def blobs_of(record: Record, objects: Objects) -> list[BlobRef]:
    """The blobs a record uses, manifests and what they list included."""
    match record:
        case ObjectRecord():
            listed = [part.data for part in await parts_of(record, objects)]
            listed += [ref for ref in (record.data, record.manifest) if ref is not None]
            return listed
        case PartRecord() | SnapshotPart():
            return [record.data]
        case UploadRecord():
            return [record.manifest] if record.manifest is not None else []
        case _:
            return []


async def find(refs: Sequence[BlobRef], nodes: Mapping[str, NodePort]) -> list[Found]:
    """Where the shards of these blobs are, on all drives of all nodes."""
    unique = {ref.blob: ref for ref in refs}
    wanted = [BlobId(blob) for blob in unique]
    answers = {name: await nodes[name].locate(wanted) for name in sorted(nodes)}
    return placed(tuple(unique.values()), answers)


def placed(
    refs: Sequence[BlobRef], answers: Mapping[str, Sequence[Sequence[ShardInfo]]]
) -> list[Found]:
    """What nodes told of the shards of these blobs, each of which is named once, put together."""
    places: list[dict[int, list[Holding]]] = [{} for _ in refs]
    for name, answer in answers.items():
        for held, infos in zip(places, answer, strict=True):
            for info in infos:
                held.setdefault(info.shard.index, []).append(Holding(name, info.drive))
    return [Found(ref, held) for ref, held in zip(refs, places, strict=True)]
