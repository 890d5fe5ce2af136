"""What must hold at every moment, watched where it happens: at a drive's answer, and at a commit.

Nothing here is known to the store. The ledger hears what drives acknowledge, and sees every
transaction as it is applied; what breaks an invariant is a problem of the run at once.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gateway.metadata import keys
from gateway.metadata.groups import blobs_of
from gateway.metadata.records import BlobRef, ObjectRecord, PartRecord, UploadRecord, decode
from placement.cluster_map import ClusterMap, DriveState
from placement.hashing import partition_of
from placement.ids import BlobId, DriveId, Partition, UploadId
from placement.metastore.port import Put, Txn, prefix_end
from storage_node.node import Node
from storage_node.port import CommitShard, Outcome, PutShard, ShardId, StagedShard
from storage_node.record import shard_key
from tests.sim.etcd import writes_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sim.world import World

_MAP_EPOCHS = b"m/epoch/"
_KINDS = (
    (keys.OBJECTS, ObjectRecord),
    (keys.VERSIONS, ObjectRecord),
    (keys.PARTS, PartRecord),
    (keys.UPLOADS, UploadRecord),
)


def refs_in(key: bytes, value: bytes) -> Iterator[BlobRef]:
    """The blobs that a record names itself; none of keys that hold no records."""
    for prefix, kind in _KINDS:
        if not key.startswith(prefix):
            continue
        record = decode(kind, value)
        match record:
            case PartRecord():
                yield record.data
            case ObjectRecord():
                yield from blobs_of(record)
                if record.manifest is not None:
                    yield record.manifest
            case UploadRecord():
                if record.manifest is not None:
                    yield record.manifest


class Ledger:
    """What drives have acknowledged, and what the metadata has promised."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._held: dict[tuple[bytes, int], set[DriveId]] = {}
        self._ever: dict[bytes, dict[int, DriveId]] = {}
        self._committed: set[bytes] = set()
        self._out: frozenset[DriveId] = frozenset()
        self.may_go_out: set[DriveId] = set()
        """Drives that the nemesis took away for longer than the grace time, alone."""

    # -- drives ----------------------------------------------------------------------------------

    def stored(self, drive: DriveId, blob: bytes, index: int) -> None:
        """A drive said that it has the shard on stable storage."""
        self._held.setdefault((blob, index), set()).add(drive)
        self._ever.setdefault(blob, {})[index] = drive

    def lost(self, drive: DriveId) -> None:
        """It was destroyed."""
        for holders in self._held.values():
            holders.discard(drive)

    def only_on(self, drive: DriveId) -> list[str]:
        """Shards of blobs in use that no other drive has acknowledged, and nobody knows to be missing."""
        named = self.named()
        return [
            f"shard {index} of {blob.hex()}"
            for (blob, index), holders in self._held.items()
            if holders == {drive}
            and blob in named
            and not self._is_elsewhere(drive, ShardId(BlobId(blob), index))
            and not self._is_marked(named[blob], drive)
        ]

    def _is_marked(self, ref: BlobRef, drive: DriveId) -> bool:
        """Whether the commit did without that drive, which was being emptied by then: k + 1 shards lie
        on others, and a mark tells of it."""
        others = {
            holder
            for index in range(ref.k + ref.m)
            for holder in self._held.get((ref.blob, index), set()) - {drive}
        }
        return len(others) >= min(ref.k + ref.m, ref.k + 1) and self._marks(ref) > 0

    def _marks(self, ref: BlobRef) -> int:
        partition = Partition(partition_of(BlobId(ref.blob), self._world.partitions))
        marks = keys.DAMAGE + partition.to_bytes(2, "big")
        return self._world.etcd.store._space.count(marks, prefix_end(marks))

    def deleting(self, shards: Sequence[tuple[DriveId, ShardId]]) -> None:
        """A node is told to delete them."""
        named = self.named()
        for drive, shard in shards:
            holders = self._held.get((shard.blob, shard.index), set())
            if drive not in holders:
                continue
            holders.discard(drive)
            if not holders and shard.blob in named and not self._is_elsewhere(drive, shard):
                self._world.problems.append(
                    f"the only shard {shard.index} of blob {shard.blob.hex()}, which is in use, is deleted"
                )

    def _is_elsewhere(self, drive: DriveId, shard: ShardId) -> bool:
        """Whether another drive has it, found by its recovery: the answer was never given."""
        key = shard_key(shard.blob, shard.index)
        return any(
            other.id != drive and other.find(key) is not None
            for life in self._world.nodes.values()
            if life.node is not None and life.process.alive
            for other in life.node._drives.values()
        )

    def named(self) -> dict[bytes, BlobRef]:
        """Blobs in use, by their ids. The parts of an upload that has ended are but a
        list of what to delete."""
        space = self._world.etcd.store._space
        found: dict[bytes, BlobRef] = {}
        for prefix in (keys.OBJECTS, keys.VERSIONS, keys.UPLOADS):
            for kv in space.scan(prefix, prefix_end(prefix), 0):
                found.update({ref.blob: ref for ref in refs_in(kv.key, kv.value)})
        for upload in space.scan(keys.UPLOADS, prefix_end(keys.UPLOADS), 0):
            parts = keys.parts_of(UploadId(upload.key[-16:]))
            for kv in space.scan(parts, prefix_end(parts), 0):
                found.update({ref.blob: ref for ref in refs_in(kv.key, kv.value)})
        return found

    # -- metadata --------------------------------------------------------------------------------

    def applied(self, txn: Txn) -> None:
        """A transaction succeeded."""
        for write in writes_of(txn):
            if not isinstance(write, Put):
                continue
            if write.key.startswith(_MAP_EPOCHS):
                self._new_map(ClusterMap.decode(write.value))
            for ref in refs_in(write.key, write.value):
                if ref.blob not in self._committed:
                    self._committed.add(ref.blob)
                    self._first_commit(write.key, ref)

    def _first_commit(self, key: bytes, ref: BlobRef) -> None:
        """All shards are stable, or k + 1 and a mark."""
        stored = self._ever.get(ref.blob, {})
        drives, width = len(set(stored.values())), ref.k + ref.m
        what = f"{key!r} was committed with {len(stored)} of {width} shards on {drives} drives"
        if drives < min(width, ref.k + 1):
            self._world.problems.append(what)
        elif len(stored) < width and not self._marks(ref):
            self._world.problems.append(f"{what}, and no mark tells of it")

    def _new_map(self, new: ClusterMap) -> None:
        out = frozenset(d.drive_id for d in new.drives if d.state is DriveState.OUT)
        for drive in out - self._out - self.may_go_out:
            self._world.problems.append(
                f"epoch {new.epoch}: drive {drive.hex()} is put out, though it was not away alone and"
                " for the grace time of a metadata store that answers"
            )
        self._out = out


class WatchedNode(Node):
    """A node whose answers the ledger hears."""

    ledger: Ledger

    def put(
        self,
        shards: Sequence[PutShard],
        payload: memoryview,
        done: "Callable[[list[Outcome]], None]",
    ) -> None:
        """See Node."""

        def heard(outcomes: list[Outcome]) -> None:
            for shard, outcome in zip(shards, outcomes, strict=True):
                if outcome is Outcome.STORED:
                    self.ledger.stored(shard.drive, shard.blob, shard.index)
            done(outcomes)

        super().put(shards, payload, heard)

    async def open_shards(
        self, shards: Sequence[tuple[DriveId, ShardId]]
    ) -> tuple[StagedShard | Outcome, ...]:
        """See Node."""
        opened = await super().open_shards(shards)
        for staged in opened:
            if isinstance(staged, StagedShard):
                self._opened()[staged.token] = staged
        return opened

    async def commit(self, shards: Sequence[CommitShard]) -> tuple[Outcome, ...]:
        """See Node."""
        outcomes = await super().commit(shards)
        for shard, outcome in zip(shards, outcomes, strict=True):
            staged = self._opened().pop(shard.token, None)
            if staged is not None and outcome is Outcome.STORED:
                self.ledger.stored(staged.drive, staged.shard.blob, staged.shard.index)
        return outcomes

    async def delete(self, shards: Sequence[tuple[DriveId, ShardId]]) -> tuple[Outcome, ...]:
        """See Node."""
        drives = self._drives
        good = [
            (drive, shard)
            for drive, shard in shards
            if drive in drives
            and drives[drive].find(shard_key(shard.blob, shard.index)) is not None
        ]
        self.ledger.deleting(good)
        return await super().delete(shards)

    def _opened(self) -> dict[int, StagedShard]:
        found: dict[int, StagedShard] = self.__dict__.setdefault("_opened_by_token", {})
        return found
