"""Whether any record uses a blob that lies on a drive, told from the envelope of one shard."""

from enum import Enum

from gateway.metadata import keys, uploads
from gateway.metadata.groups import claim
from placement.metastore.port import Metastore
from storage_node.shard import ShardEnvelope


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
    if envelope.owner_key.startswith(keys.UPLOADS):
        used = await uploads.blob_in_use(
            metastore, envelope.owner_key, envelope.blob, record=envelope.record
        )
        return Usage.USED if used else Usage.ORPHAN
    claimable = await claim(metastore, envelope.group, envelope.owner_key, now_ms=now_ms)
    return Usage.USED if claimable is None else Usage.ORPHAN
