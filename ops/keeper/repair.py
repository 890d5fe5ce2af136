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
from ops.keeper.census import Census, Counting
from ops.keeper.homes import homebound
from ops.keeper.inventory import Found, Holding, blobs, find
from ops.keeper.rebuild import Destination, NotRebuilt, Source, rebuild_shard
from ops.keeper.usage import Usage, ref_of, usage_of
from placement.clock import Clock
from placement.cluster_map import MapDrive
from placement.errors import PeerUnavailable
from placement.hashing import Placement
from placement.ids import BlobId, DriveId
from placement.leadership import NO_TERM
from placement.metastore.port import DeleteRange, Metastore, Range, Txn, prefix_end, unchanged
from storage_node.port import NodePort, Outcome, ShardId, ShardInfo
from storage_node.shard import ShardEnvelope, decode_envelope, encode_envelope

DAMAGED_PER_ROUND = 64
MARKS_PER_TXN = 64
MARKS_PER_PAGE = 1000
AGAIN_SECONDS = 20.0
AGAIN_FACTOR = 10.0
"""After an inventory in which something could not be done (a node did not answer, a drive was
full) the next one comes so long later, and not before so many times as long as it took."""

log = logging.getLogger("ostraka.keeper.repair")


@dataclass(frozen=True, slots=True)
class View:
    """The cluster as the keeper sees it now: placement and the drives that take writes. Those it
    `waits` for are away and may come back: what they hold is not rebuilt elsewhere."""

    placement: Placement
    live: frozenset[DriveId]
    waits: frozenset[DriveId] = frozenset()


@dataclass(slots=True)
class RepairProgress:
    """What the gauges show. `due` while an inventory is wanted or running; `covered` are the drives
    that the last whole inventory counted on; `reported` shards were set aside and not rebuilt yet;
    `misplaced` ones lie where the map of `epoch`, under which it ran, does not want them. `unseen`
    drives were away meanwhile and may come back: what they hold, nobody has seen. `unlisted` objects
    have a list of parts that could not be read: where those are, nobody knows."""

    due: bool = True
    covered: frozenset[DriveId] = frozenset()
    unseen: frozenset[DriveId] = frozenset()
    missing: int = 0
    reported: int = 0
    rebuilt: int = 0
    unreadable: int = 0
    unlisted: int = 0
    tolerance: int | None = None
    misplaced: int = 0
    moved: int = 0
    moved_bytes: int = 0
    examined: int = 0
    epoch: int = 0
    walked: int = 0
    """Blobs that all inventories looked at."""
    expected: int | None = None
    """Blobs that the one under way will look at, by the one before; None while there is none, or
    none was before."""
    known: int = 0
    """Blobs of the last whole inventory."""

    @property
    def unwalked(self) -> int | None:
        """Blobs that the inventory has still to look at; None while that is not known."""
        if not self.due:
            return 0
        return None if self.expected is None else max(self.expected - self.examined, 0)

    @property
    def pending(self) -> int:
        """Shards known to be missing; at least 1 until an inventory says that there are none."""
        known = max(self.missing, self.reported)
        return max(known, 1) if self.due else known

    def pending_with(self, live: frozenset[DriveId]) -> int:
        """The same when these drives are in use now: one that no inventory has counted on yet (it
        may have come back empty a moment ago) is not known to hold what it should."""
        return max(self.pending, 1) if live - self.covered else self.pending


class Repair:
    """The duty. `view` tells the present map and drives."""

    def __init__(
        self,
        metastore: Metastore,
        objects: Objects,
        nodes: Mapping[str, NodePort],
        view: Callable[[], View],
        clock: Clock,
        *,
        term: Callable[[], int],
    ) -> None:
        """`term` names the unbroken time for which no other keeper was at it; `NO_TERM` when one may
        be now. Asked before a shard of a blob in use is deleted, and told to nodes, which refuse
        what comes late: who stood still for a while knows an older map than who leads now."""
        self._clock = clock
        self._term_now = term
        self._term = NO_TERM
        self._beginnings = 0
        self._metastore = metastore
        self._objects = objects
        self._nodes = nodes
        self._view = view
        self.progress = RepairProgress()
        self.census = Census(metastore, objects, nodes, lambda: view().waits, clock)
        """Takes the count of every whole inventory."""
        self._told: set[str] = set()
        self._moved_some = False
        self._hindered = False
        self._again_at = 0.0
        self._away_meanwhile: frozenset[DriveId] = frozenset()

    async def work(self) -> bool:
        """One round: reported damage, then, if it is due, a whole inventory. True if it found work."""
        self._term = self._term_now()
        self._told.clear()  # a node that restarts forgets
        busy = await self._reported()
        view = self._view()
        live = view.live
        # A drive that went is counted on no more: when it comes back, what it holds is looked at.
        self.progress.covered &= live
        if (
            live - self.progress.covered
            # Not waited for any longer, and not back: what it held is to be rebuilt.
            or self.progress.unseen - view.waits - live
            or view.placement.map.epoch > self.progress.epoch
            or self._moved_some
            or (self._hindered and self._clock.monotonic() >= self._again_at)
            or await self.marks()
        ):
            self.progress.due = True
        if self.progress.due:
            await self._inventory()
            busy = True
        return busy

    def begin_anew(self) -> None:
        """Another keeper may have led meanwhile: what was seen before counts no more."""
        self._beginnings += 1
        self.progress.covered = frozenset()
        self.progress.epoch = 0
        self.progress.due = True

    async def marks(self) -> bool:
        """Whether a write has left a drive out since the last inventory began."""
        start, end = keys.DAMAGE, prefix_end(keys.DAMAGE)
        waited_for = self._slots_waited_for()
        limit = MARKS_PER_PAGE if waited_for else 1
        while True:
            found = await self._metastore.range(Range(start, end, limit=limit, keys_only=True))
            if any(keys.marked_slot(kv.key) not in waited_for for kv in found.kvs):
                return True
            if not found.more:
                return False
            start = found.kvs[-1].key + b"\x00"

    def _slots_waited_for(self) -> frozenset[bytes]:
        """As they end the keys of marks. Such marks stay until the drive is back, or out."""
        view = self._view()
        return frozenset(
            drive.slot.to_bytes(2, "big")
            for drive in view.placement.map.drives
            if drive.drive_id in view.waits
        )

    async def _forget_marks(self) -> None:
        """One pass over the marks: those that writes put meanwhile stay, for the next inventory."""
        start, end = keys.DAMAGE, prefix_end(keys.DAMAGE)
        waited_for = self._slots_waited_for()
        while True:
            page = await self._metastore.range(Range(start, end, limit=MARKS_PER_TXN))
            if not page.kvs:
                return
            marks = [kv for kv in page.kvs if keys.marked_slot(kv.key) not in waited_for]
            if marks:
                await self._metastore.txn(
                    Txn(
                        compares=tuple(unchanged(kv.key, kv.mod_revision) for kv in marks),
                        success=tuple(DeleteRange(kv.key) for kv in marks),
                    )
                )
            start = page.kvs[-1].key + b"\x00"

    async def _inventory(self) -> None:
        began, beginnings = self._clock.monotonic(), self._beginnings
        self._hindered = False
        await self._forget_marks()
        view = self._view()
        live, epoch = view.live, view.placement.map.epoch
        self._away_meanwhile = view.waits
        missing = unreadable = misplaced = 0
        moved_before = self.progress.moved
        self.progress.examined = 0
        self.progress.expected = self.progress.known or None
        tolerance: int | None = None
        counting = Counting()
        unlisted = 0

        def cannot_be_read(manifest: BlobRef, error: Exception) -> None:
            nonlocal unlisted
            unlisted += 1
            self._hindered = True
            log.info("the list of parts %s: %s", manifest.blob.hex(), error)

        async for refs in blobs(self._metastore, self._objects, cannot_be_read):
            found = await find(refs, await self._nodes_told())
            found.sort(key=lambda blob: blob.tolerance)  # least remaining tolerance first
            for blob in found:
                await self._complete(blob)
                counting.add(blob)
                self.progress.examined += 1
                self.progress.walked += 1
                misplaced += self._misplaced(blob)
                left = blob.tolerance
                missing += blob.ref.m - left
                unreadable += left < 0
                tolerance = left if tolerance is None else min(tolerance, left)
        if beginnings != self._beginnings:
            return
        self.census.take(counting, began)
        # A drive that came back meanwhile, however short it was away, may hold what was missing: look
        # again.
        now = self._view()
        self.progress.covered = (live & now.live) - self._away_meanwhile
        self.progress.unseen = self._away_meanwhile
        self.progress.due = (
            bool(now.live - self.progress.covered) or now.placement.map.epoch > epoch
        )
        self.progress.epoch = epoch
        self.progress.known, self.progress.expected = self.progress.examined, None
        self.progress.misplaced = misplaced
        # Where one made room, another may follow; where none could move, trying again is idle.
        self._moved_some = misplaced > 0 and self.progress.moved > moved_before
        ended = self._clock.monotonic()
        self._again_at = ended + max(AGAIN_SECONDS, AGAIN_FACTOR * (ended - began))
        self.progress.missing = missing
        self.progress.unreadable = unreadable
        self.progress.unlisted = unlisted
        self.progress.tolerance = tolerance

    async def _complete(self, blob: Found) -> None:
        """Rebuild what a blob misses, and bring home what lies elsewhere."""
        view = self._view()
        self._away_meanwhile |= view.waits
        width = blob.ref.k + blob.ref.m
        order = view.placement.write_order(BlobId(blob.ref.blob), width)
        if blob.is_settled(order):
            return
        for index in blob.missing:
            if index >= len(order) or order[index].drive_id not in view.waits:
                await self._try(blob, index)
        lies = blob.places
        seats = {
            index: drive
            for index, drive in enumerate(order[:width])
            if drive.drive_id in view.live or drive.drive_id in lies.get(index, ())
        }
        homes = {index: drive.drive_id for index, drive in seats.items()}
        await self._bring_home(blob, {index: seats[index] for index in homebound(lies, homes)})
        for index, drives in blob.places.items():
            if drives and homes.get(index) not in drives and not blob.alone(index):
                await self._try(blob, index)

    async def _bring_home(self, blob: Found, seats: Mapping[int, MapDrive]) -> None:
        """Store these shards at home, beside whatever is there; only then those elsewhere go. Where
        one was at home already (a drive that was given up brings back what was rebuilt meanwhile),
        it is looked at before."""
        try:
            for index, drive in seats.items():
                held = blob.shards[index]
                kept = next((h for h in held if h.drive == drive.drive_id), None)
                if kept is None:
                    self._moved(await self._rebuild(blob, index, drive))
                elif len(held) > 1 and not await self._is_whole(blob, index, kept):
                    raise NotRebuilt(f"shard {index} at home is damaged")
            for index, drive in seats.items():
                await self._delete_elsewhere(blob, index, drive.drive_id)
        except (NotRebuilt, PeerUnavailable) as error:
            self._hindered = True
            log.debug("shards of %s stay where they are: %s", blob.ref.blob.hex(), error)

    async def _is_whole(self, blob: Found, index: int, holding: Holding) -> bool:
        shard = ShardId(BlobId(blob.ref.blob), index)
        (info,) = await self._nodes[holding.node].stat([(holding.drive, shard)], verify=True)
        return isinstance(info, ShardInfo)

    async def _delete_elsewhere(self, blob: Found, index: int, kept: DriveId) -> None:
        held = blob.shards[index]
        shard = ShardId(BlobId(blob.ref.blob), index)
        for holding in [holding for holding in held if holding.drive != kept]:
            if self._term == NO_TERM or self._term_now() != self._term:
                raise NotRebuilt("another keeper may lead now")
            await self._nodes[holding.node].delete_surplus(self._term, [(holding.drive, shard)])
            held.remove(holding)

    def _moved(self, size_bytes: int) -> None:
        self.progress.moved += 1
        self.progress.moved_bytes += size_bytes

    def _misplaced(self, blob: Found) -> int:
        """Shards on a drive that the newest map leaves out, or away from a home that is live."""
        view = self._view()
        order = view.placement.write_order(BlobId(blob.ref.blob), blob.ref.k + blob.ref.m)
        takers = {drive.drive_id for drive in order}
        count = 0
        for index, held in blob.shards.items():
            home = order[index].drive_id if index < len(order) else None
            for holding in held:
                away = home in view.live and holding.drive != home
                count += away or holding.drive not in takers
        return count

    async def _try(self, blob: Found, index: int) -> None:
        """Rebuild one shard on a drive that has none of the blob; then delete others of its index."""
        is_moved = bool(blob.shards.get(index))
        try:
            drive = self._free_drive(blob, index)
            size_bytes = await self._rebuild(blob, index, drive)
            if is_moved:
                self._moved(size_bytes)
                await self._delete_elsewhere(blob, index, drive.drive_id)
            else:
                self.progress.rebuilt += 1
        except (NotRebuilt, PeerUnavailable) as error:
            self._hindered = True
            log.debug("shard %d of %s is not rebuilt: %s", index, blob.ref.blob.hex(), error)

    def _free_drive(self, blob: Found, index: int) -> MapDrive:
        drive = destination_of(self._view(), blob.ref, index, blob.drives)
        if drive is None:
            raise NotRebuilt("no drive is free for it")
        return drive

    async def _rebuild(self, blob: Found, index: int, drive: MapDrive) -> int:
        """One shard more, on that drive; its bytes. Raises NotRebuilt."""
        sources = {
            i: Source(self._nodes[held[0].node], held[0].drive, i)
            for i, held in blob.shards.items()
            if held
        }
        if len(sources) < blob.ref.k:
            raise NotRebuilt(f"{len(sources)} of {blob.ref.k} shards are left")
        envelope = await self._envelope(blob.ref, list(sources.values()), index)
        node = (await self._nodes_told())[drive.node]
        size_bytes = await rebuild_shard(
            blob.ref, sources, Destination(node, drive.drive_id, index, envelope)
        )
        blob.shards.setdefault(index, []).append(Holding(drive.node, drive.drive_id))
        return size_bytes

    async def _envelope(self, ref: BlobRef, sources: Sequence[Source], index: int) -> bytes:
        for source in sources:
            shard = ShardId(BlobId(ref.blob), source.index)
            (info,) = await source.node.stat([(source.drive, shard)])
            if not isinstance(info, ShardInfo):
                continue
            try:
                kept = decode_envelope(info.envelope)
            except ValueError:
                await source.node.report_damage(source.drive, shard)
                continue
            return encode_envelope(msgspec.structs.replace(kept, index=index))
        raise NotRebuilt("no envelope of the blob can be read")

    async def _nodes_told(self) -> Mapping[str, NodePort]:
        """The nodes there are now, once each knows of our term: no keeper of an earlier one deletes
        what we see or store there from then on. Raises PeerUnavailable."""
        nodes = dict(self._nodes)
        for name in sorted(nodes.keys() - self._told):
            await nodes[name].begin_term(self._term)
            self._told.add(name)
        return nodes

    async def _reported(self) -> bool:
        """Rebuild shards that nodes have set aside, and forget those of blobs nobody uses."""
        busy = False
        left = 0
        for node in (await self._nodes_told()).values():
            for drive, shard in await node.damaged(DAMAGED_PER_ROUND):
                try:
                    await self._settle(node, drive, shard)
                    busy = True
                except (NotRebuilt, PeerUnavailable) as error:
                    left += 1
                    log.info("shard %d of %s: %s", shard.index, shard.blob.hex(), error)
        self.progress.reported = left
        return busy

    async def _settle(self, node: NodePort, drive: DriveId, shard: ShardId) -> None:
        envelope = await self._describe(shard)
        if envelope is not None:
            now_ms = self._clock.now_ns() // 1_000_000
            if await usage_of(self._metastore, envelope, now_ms=now_ms) is Usage.USED:
                (blob,) = await find([ref_of(envelope)], await self._nodes_told())
                if shard.index in blob.missing:
                    await self._rebuild(blob, shard.index, self._free_drive(blob, shard.index))
                    self.progress.rebuilt += 1
        # Rebuilt elsewhere, unused, or without a shard that says what it was: an inventory finds
        # what is missing by the records, so the note on the drive has done its duty. A shard that
        # was rebuilt on the same drive took its note away itself, and must not be deleted.
        (infos,) = await node.locate([shard.blob])
        if not any(info.drive == drive and info.shard == shard for info in infos):
            await node.delete_surplus(self._term, [(drive, shard)])

    async def _describe(self, shard: ShardId) -> ShardEnvelope | None:
        """The envelope of any shard of the blob that is left."""
        for node in self._nodes.values():
            (infos,) = await node.locate([shard.blob])
            for info in infos:
                (stat,) = await node.stat([(info.drive, info.shard)])
                if isinstance(stat, Outcome):
                    continue
                try:
                    return decode_envelope(stat.envelope)
                except ValueError:
                    await node.report_damage(info.drive, info.shard)
        return None


def destination_of(view: View, ref: BlobRef, index: int, taken: set[DriveId]) -> MapDrive | None:
    """Where a missing shard goes: its own place, else the next live drive that has no shard of the
    blob; None when there is none."""
    order = view.placement.write_order(BlobId(ref.blob), ref.k + ref.m)
    preferred = order[index : index + 1] + order[ref.k + ref.m :] + order[: ref.k + ref.m]
    for drive in preferred:
        if drive.drive_id in view.live and drive.drive_id not in taken:
            return drive
    return None
