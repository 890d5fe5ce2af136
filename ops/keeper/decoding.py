"""Decoding a stored blob from a random k of its shards, to compare it with what the client sent."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from enum import Enum

from gateway.metadata import keys
from gateway.metadata.records import BlobRef, ObjectRecord, PartRecord, RecordError, decode
from ops.keeper.rebuild import Source, geometry_of, verified_fragments
from placement.clock import Randomness
from placement.codec import codec_for
from placement.ids import BlobId
from storage_node.port import Buffer, GetShard, Outcome, ShardId
from storage_node.shard import ShardEnvelope

STRIPES_PER_STEP = 4


class Verdict(Enum):
    """What decoding said. UNDECIDED: shards were missing, damaged or deleted meanwhile, or there is
    nothing to compare with."""

    SAME = "same"
    DIFFERENT = "different"
    UNDECIDED = "undecided"


class _Unread(Exception):
    """A shard could not be read, or failed its checksums: that is told elsewhere."""


def expected_md5(envelope: ShardEnvelope) -> bytes | None:
    """The MD5 that the client saw of the blob's bytes, as the record beside the shard tells it; None
    when there is none: the ETag of encrypted bytes is not of the bytes that are stored."""
    record: ObjectRecord | PartRecord
    try:
        if envelope.owner_key.startswith((keys.OBJECTS, keys.VERSIONS)):
            record = decode(ObjectRecord, envelope.record)
            if record.etag_parts:
                return None
        elif envelope.owner_key.startswith((keys.UPLOADS, keys.PARTS)):
            record = decode(PartRecord, envelope.record)
        else:
            return None
    except RecordError:
        return None
    data = record.data
    if data is None or data.blob != envelope.blob or record.encryption:
        return None
    if data.size_bytes != record.size_bytes or len(record.etag) != 16:
        return None
    return record.etag


async def decode_and_compare(
    ref: BlobRef,
    sources: Mapping[int, Source],
    md5: bytes | None,
    randomness: Randomness,
) -> AsyncIterator[tuple[int, Verdict]]:
    """Decode a blob step by step; each step yields the bytes it read, and the last the verdict.

    With `md5` one random set of k shards is decoded and compared with it. Without, two sets are
    compared with each other, as different as m allows.
    """
    order = sorted(sources, key=lambda _: randomness.uniform())
    chosen = [order[: ref.k]]
    if md5 is None:
        chosen.append(order[-ref.k :])
    if len(order) < ref.k or (set(chosen[0]) == set(chosen[-1]) and md5 is None):
        yield 0, Verdict.UNDECIDED
        return
    geometry = geometry_of(ref)
    digest = hashlib.md5(usedforsecurity=False)
    for first in range(0, geometry.stripes, STRIPES_PER_STEP):
        last = min(first + STRIPES_PER_STEP, geometry.stripes)
        try:
            decoded, size_bytes = await _decode(ref, sources, chosen, first, last)
        except _Unread:
            yield 0, Verdict.UNDECIDED
            return
        if any(other != decoded[0] for other in decoded[1:]):
            yield size_bytes, Verdict.DIFFERENT
            return
        digest.update(decoded[0])
        yield size_bytes, Verdict.UNDECIDED
    yield 0, Verdict.SAME if md5 in (None, digest.digest()) else Verdict.DIFFERENT


async def _decode(
    ref: BlobRef,
    sources: Mapping[int, Source],
    chosen: Sequence[Sequence[int]],
    first: int,
    last: int,
) -> tuple[list[bytes], int]:
    """Stripes [first, last) decoded from each choice of shards, and the bytes read. Raises _Unread."""
    geometry = geometry_of(ref)
    start = geometry.shard_offset(first)
    length = geometry.shard_offset(last) - start
    have: dict[int, list[memoryview]] = {}
    for index in {index for some in chosen for index in some}:
        source = sources[index]
        shard = ShardId(BlobId(ref.blob), index)
        (body,) = await source.node.get([GetShard(source.drive, shard, start, length)])
        if isinstance(body, Outcome):
            raise _Unread
        fragments = verified_fragments(geometry, body, first, last)
        if fragments is None:
            await source.node.report_damage(source.drive, shard)
            raise _Unread
        have[index] = fragments
    codec = codec_for(ref.k, ref.m)
    plain: list[bytes] = []
    for some in chosen:
        pieces: list[Buffer] = [
            codec.decode(
                {index: have[index][stripe - first] for index in some},
                geometry.stripe_bytes(stripe),
            )
            for stripe in range(first, last)
        ]
        plain.append(b"".join(pieces))
    return plain, length * len(have)
