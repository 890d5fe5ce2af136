"""What was received of a blob and not yet committed: in memory when small, in drives' files when large."""

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.domain.ranges import Geometry
from gateway.domain.write_plan import WritePlan
from gateway.metadata.records import BlobRef
from placement.cluster_map import MapDrive
from placement.ids import GroupId, Slot
from placement.metastore.port import Compare
from placement.schemes import Scheme
from storage_node.port import StagedShard
from storage_node.shard import ShardEnvelope, envelopes_like

MEMORY_SIZE_BYTES_MAX = 512 << 10
"""Bodies above this go through files even if their shards would fit into segments."""


@dataclass(slots=True, eq=False)
class StagedBytes:
    """A blob in memory. Nothing of it is on a drive before `commit`."""

    ref: BlobRef
    group: GroupId
    plan: WritePlan
    placed: Compare
    """The map that the plan was made by."""
    data: bytes
    wanted: Scheme | None = None
    """The scheme that was named; None is the default one."""
    stored: dict[int, MapDrive] = field(default_factory=dict)
    """Where `commit` stored each index (a drive may have been replaced by another meanwhile)."""
    displaced: tuple[Slot, ...] = ()
    """Drives of the plan that failed, whether or not another took the shard: to be marked."""
    window: Compare | None = None
    """The write window in which its shards began to be stored."""


@dataclass(slots=True, eq=False)
class StagedFiles:
    """A blob in staged files of the drives. `failed` indices will not be committed."""

    ref: BlobRef
    group: GroupId
    plan: WritePlan
    placed: Compare
    """The map that the plan was made by."""
    shards: tuple[StagedShard, ...]
    wanted: Scheme | None = None
    failed: set[int] = field(default_factory=set)
    stored: dict[int, MapDrive] = field(default_factory=dict)
    """Where each index was committed."""
    window: Compare | None = None
    """The write window in which its shards began to be stored."""


StagedBlob = StagedBytes | StagedFiles


def geometry_of(ref: BlobRef) -> Geometry:
    """How a stored blob is cut."""
    return Geometry(ref.k, ref.stripe_size_bytes, ref.size_bytes)


def envelopes_of(
    ref: BlobRef, group: GroupId, owner_key: bytes, record: bytes, created_ms: int
) -> Callable[[int], bytes]:
    """The envelope of each index."""
    return envelopes_like(
        ShardEnvelope(
            group,
            ref.blob,
            0,
            ref.k,
            ref.m,
            ref.stripe_size_bytes,
            ref.size_bytes,
            owner_key,
            record,
            created_ms,
        )
    )
