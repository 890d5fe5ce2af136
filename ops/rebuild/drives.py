"""What the drives hold, read without any metadata: parts of snapshots, and blobs by their shards."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from gateway.domain.ranges import Geometry, steps_of
from gateway.metadata import keys
from gateway.metadata.records import BlobRef, RecordError, decode
from gateway.metadata.snapshots import SnapshotPart, digest_of
from gateway.objects.reader import plain_views, verified
from placement.errors import PeerUnavailable
from placement.ids import BlobId, DriveId
from storage_node.port import (
    Buffer,
    DriveCondition,
    GetShard,
    NodePort,
    Outcome,
    ShardId,
    ShardInfo,
)
from storage_node.shard import ShardEnvelope, decode_envelope

PAGE_SHARDS = 500
READABLE = (DriveCondition.UP, DriveCondition.FULL, DriveCondition.RECOVERING)

log = logging.getLogger("ostraka.rebuild")


class Unreadable(Exception):
    """A blob cannot be read from the drives that are there."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A shard of a blob and where it is."""

    node: str
    drive: DriveId
    index: int


@dataclass(slots=True)
class FoundParts:
    """Parts of snapshots by blob, with their shards. A few thousand at most, as many as are kept."""

    parts: dict[bytes, SnapshotPart] = field(default_factory=dict)
    holders: dict[bytes, list[Holder]] = field(default_factory=dict)


async def shards(
    nodes: Mapping[str, NodePort], seen: Callable[[int], None]
) -> AsyncIterator[tuple[str, ShardInfo, ShardEnvelope]]:
    """Every shard on every drive that says what it is. `seen` is told how many were looked at."""
    for name in sorted(nodes):
        node = nodes[name]
        for report in await node.reports():
            if report.condition not in READABLE:
                continue
            after: ShardId | None = None
            while page := await node.list(report.drive, after, PAGE_SHARDS):
                for info in page:
                    try:
                        yield name, info, decode_envelope(info.envelope)
                    except ValueError as error:
                        log.warning(
                            "shard %s.%d: %s", info.shard.blob.hex(), info.shard.index, error
                        )
                seen(len(page))
                after = page[-1].shard


async def find_parts(
    nodes: Mapping[str, NodePort], cluster_id: bytes, seen: Callable[[int], None]
) -> FoundParts:
    """All parts of this cluster's snapshots. Headers of shards are read without a checksum, so where
    the shards of a part differ in what they tell of it, most of them are believed."""
    found = FoundParts()
    told: dict[bytes, list[SnapshotPart]] = {}
    async for node, info, envelope in shards(nodes, seen):
        if not envelope.owner_key.startswith(keys.SNAPSHOT_PARTS):
            continue
        try:
            part = decode(SnapshotPart, envelope.record)
        except RecordError as error:
            log.warning("part %r: %s", envelope.owner_key, error)
            continue
        if part.cluster_id != cluster_id or part.data.blob != envelope.blob:
            continue
        told.setdefault(envelope.blob, []).append(part)
        holder = Holder(node, info.drive, info.shard.index)
        found.holders.setdefault(envelope.blob, []).append(holder)
    found.parts = {blob: max(parts, key=parts.count) for blob, parts in told.items()}
    return found


async def read_part(
    part: SnapshotPart, holders: list[Holder], nodes: Mapping[str, NodePort]
) -> bytes:
    """A part's bytes, verified. Raises Unreadable."""
    data = await read_blob(part.data, holders, nodes)
    if digest_of(data) != part.digest:
        raise Unreadable(f"part {part.part} of snapshot {part.number} is not as it was written")
    return data


async def read_blob(ref: BlobRef, holders: list[Holder], nodes: Mapping[str, NodePort]) -> bytes:
    """A blob from any k of its shards whose fragments pass their checksums. Raises Unreadable."""
    geometry = Geometry(ref.k, ref.stripe_size_bytes, ref.size_bytes)
    parts: list[Buffer] = []
    bad: set[Holder] = set()
    for step in steps_of(geometry, 0, ref.size_bytes, ref.stripe_size_bytes):
        offset = geometry.shard_offset(step.first)
        length = geometry.shard_offset(step.last) - offset
        good: dict[int, memoryview] = {}
        for holder in holders:
            if len(good) >= ref.k:
                break
            if holder in bad or holder.index in good:
                continue
            shard = ShardId(BlobId(ref.blob), holder.index)
            try:
                (body,) = await nodes[holder.node].get(
                    [GetShard(holder.drive, shard, offset, length)]
                )
            except PeerUnavailable:
                body = Outcome.DRIVE_FAILED
            if isinstance(body, Outcome) or not verified(geometry, step, memoryview(body)):
                bad.add(holder)
            else:
                good[holder.index] = memoryview(body)
        if len(good) < ref.k:
            raise Unreadable(f"{len(good)} of the {ref.k} shards needed of blob {ref.blob.hex()}")
        parts += plain_views(geometry, ref.m, step, good)
    return b"".join(parts)
