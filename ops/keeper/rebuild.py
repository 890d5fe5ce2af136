"""Rebuilding one missing shard from k others, stripe run by stripe run, in bounded memory."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.domain.ranges import CHECKSUM_SIZE_BYTES, Geometry
from gateway.metadata.records import BlobRef
from placement.codec import checksum_bytes, codec_for
from placement.ids import BlobId, DriveId
from storage_node.port import (
    SEGMENT_SHARD_SIZE_BYTES_MAX,
    Buffer,
    CommitShard,
    GetShard,
    NodePort,
    Outcome,
    PutShard,
    ShardId,
    StagedShard,
)

STRIPES_PER_STEP = 8
"""A step holds k fragments of so many stripes: 8 MiB of plain bytes at 1 MiB a stripe."""


class NotRebuilt(Exception):
    """The shard could not be rebuilt now; the message says why. Try again later."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a good shard of the blob lies."""

    node: NodePort
    drive: DriveId
    index: int


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the missing shard goes."""

    node: NodePort
    drive: DriveId
    index: int
    envelope: bytes


def geometry_of(ref: BlobRef) -> Geometry:
    """How the blob is cut."""
    return Geometry(ref.k, ref.stripe_size_bytes, ref.size_bytes)


async def rebuild_shard(
    ref: BlobRef, sources: Mapping[int, Source], destination: Destination
) -> int:
    """Store shard `destination.index` of the blob there; the bytes written. Raises NotRebuilt.

    `sources` by index; those that turn out to be damaged are passed over while k are left. A good
    shard of the same index (being moved) serves like any other.
    """
    geometry = geometry_of(ref)
    usable = dict(sources)
    if len(usable) < ref.k:
        raise NotRebuilt(f"{len(usable)} of {ref.k} shards are left")
    if geometry.shard_size_bytes <= SEGMENT_SHARD_SIZE_BYTES_MAX:
        body = await _stripes(ref, geometry, usable, destination.index, 0, geometry.stripes)
        return await _put(ref, destination, body)
    return await _write_file(ref, geometry, usable, destination)


async def _put(ref: BlobRef, destination: Destination, body: bytes) -> int:
    blob, index = BlobId(ref.blob), destination.index
    put = PutShard(destination.drive, blob, index, destination.envelope, 0, len(body))
    (outcome,) = await destination.node.put([put], [body], background=True)
    if outcome is not Outcome.STORED:
        raise NotRebuilt(f"the drive answered {outcome.name}")
    return len(body)


async def _write_file(
    ref: BlobRef, geometry: Geometry, sources: dict[int, Source], destination: Destination
) -> int:
    node, shard = destination.node, ShardId(BlobId(ref.blob), destination.index)
    (staged,) = await node.open([(destination.drive, shard)], background=True)
    if not isinstance(staged, StagedShard):
        raise NotRebuilt(f"the drive answered {staged.name}")
    length = 0
    try:
        for first in range(0, geometry.stripes, STRIPES_PER_STEP):
            last = min(first + STRIPES_PER_STEP, geometry.stripes)
            body = await _stripes(ref, geometry, sources, destination.index, first, last)
            outcome = await node.append(destination.drive, staged.token, [body])
            if outcome is not Outcome.DONE and outcome is not Outcome.STORED:
                raise NotRebuilt(f"the drive answered {outcome.name}")
            length += len(body)
        commit = CommitShard(destination.drive, staged.token, destination.envelope, length)
        (outcome,) = await node.commit([commit])
    except BaseException:
        await node.abort([(destination.drive, staged.token)])
        raise
    if outcome is not Outcome.STORED:
        raise NotRebuilt(f"the drive answered {outcome.name}")
    return length


async def _stripes(
    ref: BlobRef,
    geometry: Geometry,
    sources: dict[int, Source],
    wanted: int,
    first: int,
    last: int,
) -> bytes:
    """The missing shard's bytes for stripes [first, last)."""
    start = geometry.shard_offset(first)
    length = geometry.shard_offset(last) - start
    if length == 0:
        return b""
    good: dict[int, list[memoryview]] = {}
    # A shard that moves is copied: its own fragments are looked at first, and are enough.
    for index in sorted(sources, key=lambda index: (index != wanted, index)):
        source = sources[index]
        shard = ShardId(BlobId(ref.blob), index)
        (body,) = await source.node.get([GetShard(source.drive, shard, start, length)])
        fragments = (
            None if isinstance(body, Outcome) else verified_fragments(geometry, body, first, last)
        )
        if fragments is None:
            del sources[index]  # do not ask it again for the next stripes
            await source.node.report_damage(source.drive, shard)
            return await _stripes(ref, geometry, sources, wanted, first, last)
        if index == wanted and not isinstance(body, Outcome):
            return bytes(body)
        good[index] = fragments
        if len(good) == ref.k:
            break
    if len(good) < ref.k:
        raise NotRebuilt(f"{len(good)} of {ref.k} shards are left")
    codec = codec_for(ref.k, ref.m)
    pieces: list[Buffer] = []
    for number, stripe in enumerate(range(first, last)):
        have: dict[int, Buffer] = {index: views[number] for index, views in good.items()}
        rebuilt = codec.reconstruct(have, [wanted], geometry.stripe_bytes(stripe))[wanted]
        pieces += (checksum_bytes(rebuilt), rebuilt)
    return b"".join(pieces)


def verified_fragments(
    geometry: Geometry, body: Buffer, first: int, last: int
) -> list[memoryview] | None:
    """The fragments in a run of a shard, or None when one fails its checksum."""
    view = memoryview(body)
    fragments = []
    position = 0
    for stripe in range(first, last):
        start = position + CHECKSUM_SIZE_BYTES
        position = start + geometry.fragment_bytes(stripe)
        fragment = view[start:position]
        if position > len(view) or checksum_bytes(fragment) != view[start - 8 : start]:
            return None
        fragments.append(fragment)
    return fragments
