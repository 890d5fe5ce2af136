"""Repair: shards that are missing, by inventory or by report, are rebuilt where they belong.

Two sources of work. Nodes remember shards that they quarantined: those are rebuilt within seconds.
And the whole inventory is compared with the metadata after every start, when a drive came back or
was replaced, and when a write had to leave a drive out. Damage marks are removed *before* such an
inventory is taken: a write that needs one while it runs makes a new mark, and so a new inventory.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from gateway.metadata import keys
from gateway.metadata.records import BlobRef
from gateway.objects.port import Objects
from ops.keeper.inventory import Found, blobs, find
from ops.keeper.rebuild import Destination, NotRebuilt, Source, rebuild_shard
from placement.cluster_map import MapDrive
from placement.errors import PeerUnavailable
from placement.hashing import Placement
from placement.ids import BlobId, DriveId
from placement.metastore.port import DeleteRange, Metastore, Range, Txn, prefix_end, unchanged
from storage_node.port import NodePort, Outcome, ShardId, ShardInfo
from storage_node.shard import decode_envelope, encode_envelope

DAMAGED_PER_ROUND = 64
MARKS_PER_TXN = 64

log = logging.getLogger("ostraka.keeper.repair")


@dataclass(frozen=True, slots=True)
class View:
    """The cluster as the keeper sees it now: placement and the drives that take writes."""

    placement: Placement
    live: frozenset[DriveId]


@dataclass(slots=True)
class RepairProgress:
    """What the gauges show. `due` while an inventory is wanted or running."""

    due: bool = True
    missing: int = 0
    rebuilt: int = 0
    unreadable: int = 0
    tolerance: int | None = None

    @property
    def pending(self) -> int:
        """Shards known to be missing; at least 1 until an inventory says that there are none."""
        return max(self.missing, 1) if self.due else self.missing


class Repair:
    """The duty. `view` tells the present map and drives."""

    def __init__(
        self,
        metastore: Metastore,
        objects: Objects,
        nodes: Mapping[str, NodePort],
        view: Callable[[], View],
    ) -> None:
        self._metastore = metastore
        self._objects = objects
        self._nodes = nodes
        self._view = view
        self._seen: frozenset[DriveId] = frozenset()
        self.progress = RepairProgress()

    async def work(self) -> bool:
        """One round: reported damage, then, if it is due, a whole inventory. True if it found work."""
        busy = await self._reported()
        live = self._view().live
        if live - self._seen or await self._marks():
            self.progress.due = True
        self._seen = live
        if self.progress.due:
            await self._inventory()
            busy = True
        return busy

    async def _marks(self) -> bool:
        end = prefix_end(keys.DAMAGE)
        found = await self._metastore.range(Range(keys.DAMAGE, end, limit=1, keys_only=True))
        return bool(found.kvs)

    async def _forget_marks(self) -> None:
        end = prefix_end(keys.DAMAGE)
        while True:
            page = await self._metastore.range(Range(keys.DAMAGE, end, limit=MARKS_PER_TXN))
            if not page.kvs:
                return
            await self._metastore.txn(
                Txn(
                    compares=tuple(unchanged(kv.key, kv.mod_revision) for kv in page.kvs),
                    success=tuple(DeleteRange(kv.key) for kv in page.kvs),
                )
            )

    async def _inventory(self) -> None:
        await self._forget_marks()
        live = self._view().live
        missing = unreadable = 0
        tolerance: int | None = None
        async for refs in blobs(self._metastore, self._objects):
            found = await find(refs, self._nodes)
            found.sort(key=lambda blob: blob.tolerance)  # least remaining tolerance first
            for blob in found:
                lost = await self._complete(blob)
                missing += lost
                unreadable += blob.tolerance < 0
                left = blob.ref.m - lost
                tolerance = left if tolerance is None else min(tolerance, left)
        # A drive that came back meanwhile may hold what was missing: look again.
        self.progress.due = bool(self._view().live - live)
        self.progress.missing = missing
        self.progress.unreadable = unreadable
        self.progress.tolerance = tolerance

    async def _complete(self, blob: Found) -> int:
        """Rebuild what a blob misses; how many shards are still missing after it."""
        lost = 0
        for index in blob.missing:
            try:
                await self._rebuild(blob, index)
                self.progress.rebuilt += 1
            except (NotRebuilt, PeerUnavailable) as error:
                lost += 1
                log.debug("shard %d of %s is not rebuilt: %s", index, blob.ref.blob.hex(), error)
        return lost

    async def _rebuild(self, blob: Found, index: int) -> None:
        sources = {
            i: Source(self._nodes[held[0].node], held[0].drive, i)
            for i, held in blob.shards.items()
            if held
        }
        if len(sources) < blob.ref.k:
            raise NotRebuilt(f"{len(sources)} of {blob.ref.k} shards are left")
        taken = {held.drive for helds in blob.shards.values() for held in helds}
        drive = destination_of(self._view(), blob.ref, index, taken)
        if drive is None:
            raise NotRebuilt("no drive is free for it")
        envelope = await self._envelope(blob.ref, list(sources.values()), index)
        node = self._nodes[drive.node]
        await rebuild_shard(blob.ref, sources, Destination(node, drive.drive_id, index, envelope))

    async def _envelope(self, ref: BlobRef, sources: Sequence[Source], index: int) -> bytes:
        for source in sources:
            shard = ShardId(BlobId(ref.blob), source.index)
            (info,) = await source.node.stat([(source.drive, shard)])
            if isinstance(info, ShardInfo):
                kept = decode_envelope(info.envelope)
                return encode_envelope(msgspec.structs.replace(kept, index=index))
        raise NotRebuilt("no envelope of the blob can be read")

    async def _reported(self) -> bool:
        """Rebuild shards that nodes have set aside; also those whose blob is garbage are settled."""
        busy = False
        for node in self._nodes.values():
            for drive, shard in await node.damaged(DAMAGED_PER_ROUND):
                busy = True
                try:
                    await self._settle(node, drive, shard)
                except (NotRebuilt, PeerUnavailable) as error:
                    log.info("shard %d of %s: %s", shard.index, shard.blob.hex(), error)
                    self.progress.due = True
        return busy

    async def _settle(self, node: NodePort, drive: DriveId, shard: ShardId) -> None:
        ref = await self._describe(shard)
        if ref is None:
            await node.delete([(drive, shard)])  # no shard is left that says what it was: forget it
            return
        (blob,) = await find([ref], self._nodes)
        if shard.index in blob.missing:
            await self._rebuild(blob, shard.index)
            self.progress.rebuilt += 1
        else:
            await node.delete([(drive, shard)])

    async def _describe(self, shard: ShardId) -> BlobRef | None:
        """The geometry of a blob, from the envelope of any shard that is left."""
        for node in self._nodes.values():
            (infos,) = await node.locate([shard.blob])
            for info in infos:
                (stat,) = await node.stat([(info.drive, info.shard)])
                if not isinstance(stat, Outcome):
                    kept = decode_envelope(stat.envelope)
                    return BlobRef(
                        blob=kept.blob,
                        k=kept.k,
                        m=kept.m,
                        stripe_size_bytes=kept.stripe_size_bytes,
                        size_bytes=kept.size_bytes,
                    )
        return None


def destination_of(view: View, ref: BlobRef, index: int, taken: set[DriveId]) -> MapDrive | None:
    """Where a missing shard goes: its own place, else the next live drive that has no shard of the
    blob; None when there is none."""
    order = view.placement.write_order(BlobId(ref.blob))
    preferred = order[index : index + 1] + order[ref.k + ref.m :] + order[: ref.k + ref.m]
    for drive in preferred:
        if drive.drive_id in view.live and drive.drive_id not in taken:
            return drive
    return None
