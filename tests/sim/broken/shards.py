"""Rules of shards, the map, damage marks and leaving, each taken out."""

# What is taken out is a name inside a module: mypy cannot know that on purpose.
# mypy: disable-error-code="attr-defined,assignment,misc,method-assign,arg-type"

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import gateway.objects.quick
import gateway.objects.reader
import gateway.objects.store
import gateway.operations.objects
import ops.keeper.departures
import ops.keeper.garbage
import ops.keeper.reencode
import placement.map_changes
import storage_node.committer
from gateway.metadata import keys
from gateway.metadata.commits import Commits
from gateway.objects.store import ObjectStore
from gateway.objects.topology import Topology
from ops.keeper.departures import Absences
from ops.keeper.garbage import Garbage
from ops.keeper.inventory import Found
from ops.keeper.moves import Moves
from ops.keeper.reencode import Reencode
from ops.keeper.repair import Repair
from ops.keeper_command import LedDuties
from placement.cluster_map import MapDrive
from placement.ids import BlobId, DriveId
from placement.leadership import NO_TERM
from placement.map_changes import close_epochs
from storage_node.port import ShardId
from storage_node.terms import Terms
from tests.sim.broken.registry import Nothing, always, rule
from tests.sim.world import World


@rule("shards are stable before the commit", "fair")
def commit_before_the_quorum(world: World) -> None:
    """A small write is acknowledged while its shards are still on their way."""
    put_small = gateway.objects.store.put_small
    under_way: list[Any] = []

    async def hurried(staged: Any, *rest: Any) -> set[int]:
        under_way.append(asyncio.ensure_future(put_small(staged, *rest)))
        staged.stored = dict(enumerate(staged.plan.seats))
        return set(staged.stored)

    gateway.objects.store.put_small = hurried


@rule("no flush is skipped", "power")
def skip_one_flush(world: World) -> None:
    """The group committer answers without having flushed."""

    async def unflushed(self: Any, drives: Any) -> None:
        return None

    storage_node.committer.Committer._flush_all = unflushed


@rule("what moves is deleted when it is stored", "moves")
def delete_before_a_move_is_verified(world: World) -> None:
    """What moves is deleted in its former place before it is stored in the new one."""
    rebuild = Repair._rebuild

    async def hasty(self: Any, blob: Found, index: int, drive: MapDrive) -> int:
        for holding in blob.shards.get(index, []):
            shard = ShardId(blob.ref.blob, index)
            await self._nodes[holding.node].delete([(holding.drive, shard)])
        return await rebuild(self, blob, index, drive)

    Repair._rebuild = hasty


@rule("bytes are checked end to end", "power")
def answers_unchecked(world: World) -> None:
    """Readers trust the bytes that come."""
    gateway.objects.reader.verified = lambda geometry, step, run: True
    gateway.objects.quick.checksum = lambda data: None


@rule("a commit compares the map that it was placed by", "moves")
def commits_ignore_the_epoch(world: World) -> None:
    """What was placed under an older map is committed all the same."""
    Topology.map_compare = property(always)


@rule("a commit compares the map that its shards were placed by, not the present one", "moves")
def plans_outlive_their_map(world: World) -> None:
    """What was placed under an older map is committed under the present one."""
    judged = ObjectStore._judged

    async def misplaced(self: ObjectStore, blob: Any, *rest: Any, **named: Any) -> Any:
        blob.placed = self._topology.map_compare
        return await judged(self, blob, *rest, **named)

    ObjectStore._judged = misplaced


@rule("marks are removed before an inventory", "absent drives")
def marks_forgotten_after_the_inventory(world: World) -> None:
    """Damage marks are removed when an inventory ends, those put meanwhile too."""
    forget, take = Repair._forget_marks, Repair._inventory

    async def nothing(self: Repair) -> None:
        return None

    async def then_forget(self: Repair) -> None:
        await take(self)
        await forget(self)

    Repair._forget_marks = nothing
    Repair._inventory = then_forget


@rule("a drive that was left out is marked", "absent drives")
def writes_leave_no_marks(world: World) -> None:
    """A drive that was left out of a write is not marked."""

    async def unmarked(self: Topology, *ignored: Any) -> list[bytes]:
        return []

    Topology.ensure_marks = unmarked


@rule("an epoch closes when its moves are verified", "moves")
def epochs_closed_unverified(world: World) -> None:
    """An epoch is closed at once, while its moves are still running; then drives are forgotten."""

    async def work(self: Moves) -> None:
        await self._maps.change(close_epochs)

    Moves.work = work


@rule(
    "a keeper that leads anew begins with the newest map, and with nothing it saw before", "moves"
)
def terms_are_not_told_apart(world: World) -> None:
    """It goes on with what it knows, whoever led meanwhile."""

    async def begin(self: LedDuties, name: str) -> bool:
        term = self._terms[name] = self._leadership.term(name)
        return term != NO_TERM

    LedDuties._begin = begin
    LedDuties._led_repair = lambda self: ()


@rule("nodes refuse what comes late from a term that is over", "moves")
def late_deletes_count(world: World) -> None:
    """Whoever sent it, and whenever."""

    @asynccontextmanager
    async def within(self: Terms, term: int) -> AsyncIterator[None]:
        yield

    Terms.within = within


@rule("k + 1 shards are the least", "absent drives")
def too_few_shards_suffice(world: World) -> None:
    """A write is acknowledged with one shard fewer than can be read."""
    plan_type = gateway.objects.store.WritePlan
    plan_type.least = property(lambda self: max(self.scheme.k - 1, 1))


@rule("a commit that left a drive out compares its mark", "absent drives")
def commits_ignore_the_marks(world: World) -> None:
    """That a mark was there once is enough."""
    gateway.objects.store.exists = always


@rule("that nothing fitted is believed of what was there, and of no more", "absent drives")
def nothing_ever_fits_again(world: World) -> None:
    """Where nothing that was queued could be stored again, whatever is queued later waits for other
    drives."""
    reencode = Reencode._reencode

    async def waiting(self: Reencode, entry: Any, walk: Any) -> None:
        walk.waiting += 1
        await reencode(self, entry, walk)

    Reencode._reencode = waiting
    ops.keeper.reencode.FUTILE_SECONDS = float("inf")


@rule("a copy is queued for re-encoding as its source is", "copies")
def copies_stay_narrow(world: World) -> None:
    """Only what was written on too few drives is queued, not what shares its bytes."""

    async def never(self: Commits, source_key: bytes) -> bool:
        return False

    Commits._is_narrow = never


@rule("what was placed by another map is placed anew", "moves")
def renewed_wherever_they_lie(world: World) -> None:
    """A commit that another map refused is tried again under it, wherever the shards are."""

    async def renew(self: ObjectStore, staged: Any) -> Any:
        partition = self._topology.partition(BlobId(staged.ref.blob))
        self._topology.forget_marks(
            [keys.damage(partition, drive.slot) for drive in self._topology.map.drives]
        )
        await self._topology.refresh()
        staged.placed = self._topology.map_compare
        return await self._judged(staged, staged.stored, marks_in_commit=True)

    ObjectStore.renew = renew


@rule("one planned move at a time", "moves")
def moves_do_not_wait_for_each_other(world: World) -> None:
    """A drive may be removed while it is still being emptied."""
    placement.map_changes._demand_quiet = lambda now: None


@rule("nobody is put out while two failure domains are missing", "absent drives")
def put_out_in_twos(world: World) -> None:
    """Whoever is away for long is put out."""
    ops.keeper.departures.may_put_out = lambda now, lost: None


@rule("grace counts only while etcd is well", "absent drives")
def absences_are_counted_unseen(world: World) -> None:
    """Whoever is away after an outage was away all the time."""

    def see(self: Absences, now: float, away: Iterable[DriveId]) -> None:
        step = 0.0 if self._seen_at is None else now - self._seen_at
        self._seen_at = now
        self._seconds = {drive: self._seconds.get(drive, -step) + step for drive in away}

    Absences.see = see
    Absences.blind = lambda self: None


@rule("a GET that misses shards reads its record again", "copies")
def records_are_not_read_again(world: World) -> None:
    """Shards that are not there are lost, it says."""
    gateway.operations.objects.BlobDamaged = Nothing


@rule("garbage waits longer than a GET", "power")
def garbage_does_not_wait(world: World) -> None:
    """What was replaced is deleted under its readers."""
    ops.keeper.garbage.GRACE_SECONDS = 0.0


@rule("ages come from a monotonic clock", "late commits")
def ages_by_the_wall_clock(world: World) -> None:
    """Garbage is as old as the clock on the wall says."""

    class Wall:
        def __init__(self, clock: Any) -> None:
            self.now_ns = clock.now_ns

        def monotonic(self) -> float:
            return float(self.now_ns()) / 1e9

    begin = Garbage.__init__

    def begun(self: Garbage, metastore: Any, objects: Any, nodes: Any, clock: Any) -> None:
        begin(self, metastore, objects, nodes, Wall(clock))

    Garbage.__init__ = begun
