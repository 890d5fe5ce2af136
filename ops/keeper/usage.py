"""Whether any record uses a blob that lies on a drive, told from the envelope of one shard."""

from enum import Enum

from gateway.metadata import keys, uploads
from gateway.metadata.groups import claim
from gateway.metadata.records import BlobRef, RecordError, decode
from gateway.metadata.snapshots import SnapshotPart, SnapshotState, has_passed, place_of
from placement.ids import BlobId
from placement.metastore.port import Metastore, Put, Txn, unchanged
from storage_node.shard import ShardEnvelope


def ref_of(envelope: ShardEnvelope) -> BlobRef:
    """The blob that a shard is of."""
    return BlobRef(
        blob=BlobId(envelope.blob),
        k=envelope.k,
        m=envelope.m,
        stripe_size_bytes=envelope.stripe_size_bytes,
        size_bytes=envelope.size_bytes,
    )


class Usage(Enum):
    """`QUEUED`: an entry of the garbage queue will have it deleted."""

    USED = "used"
    QUEUED = "queued"
    ORPHAN = "orphan"


async def usage_of(metastore: Metastore, envelope: ShardEnvelope, *, now_ms: int) -> Usage:
    """Ask the metadata, linearizably."""
    group, blob = keys.garbage(envelope.group), keys.garbage(envelope.blob)
    queued_group, queued_blob = await metastore.get_many([group, blob])
    if queued_blob is not None and blob != group:
        return Usage.QUEUED
    if queued_group is not None:
        # The record that queued it has ended; a copy may use the group all the same, and then the
        # entry will be dropped.
        claimable = await claim(metastore, envelope.group, envelope.owner_key, now_ms=now_ms)
        return Usage.USED if claimable is None else Usage.QUEUED
    if envelope.owner_key.startswith(keys.SNAPSHOT_PARTS):
        return await _usage_of_part(metastore, envelope)
    if envelope.owner_key.startswith(keys.UPLOADS):
        used = await uploads.blob_in_use(
            metastore, envelope.owner_key, envelope.blob, record=envelope.record
        )
        return Usage.USED if used else Usage.ORPHAN
    claimable = await claim(metastore, envelope.group, envelope.owner_key, now_ms=now_ms)
    return Usage.USED if claimable is None else Usage.ORPHAN


async def _usage_of_part(metastore: Metastore, envelope: ShardEnvelope) -> Usage:
    claimable = await _unnamed_part(metastore, envelope)
    return Usage.USED if claimable is None else Usage.ORPHAN


async def claim_part(metastore: Metastore, envelope: ShardEnvelope) -> bool:
    """Make sure that a part of a snapshot will never be named; False when it is, or may be."""
    claim = await _unnamed_part(metastore, envelope)
    return claim is not None and (await metastore.txn(claim)).succeeded


async def _unnamed_part(metastore: Metastore, envelope: ShardEnvelope) -> Txn | None:
    """The transaction after which nobody can name this part of a snapshot of the metadata: its
    commit compares where the snapshot stands. None for one that is named, and for one that the
    writer has not come to: this metadata may be rebuilt from it."""
    named, standing = await metastore.get_many([envelope.owner_key, keys.SNAPSHOT])
    if standing is None:
        return None
    try:
        if named is not None and decode(SnapshotPart, named.value).data.blob == envelope.blob:
            return None
        state = decode(SnapshotState, standing.value)
        if not has_passed(state, *place_of(envelope.owner_key)):
            return None
    except (RecordError, ValueError):
        return None
    compares = (
        unchanged(envelope.owner_key, named.mod_revision if named is not None else 0),
        unchanged(keys.SNAPSHOT, standing.mod_revision),
    )
    return Txn(compares, (Put(keys.SNAPSHOT, standing.value),))
