"""Rules taken out of the code on purpose, one at a time: some seed must notice each of them.

Each function changes modules of the process that it runs in, which ends with the seed.
"""

# What is taken out is a name inside a module: mypy cannot know that on purpose.
# mypy: disable-error-code="attr-defined,assignment,misc,method-assign,arg-type"

import asyncio
from collections.abc import Callable
from typing import Any

import gateway.metadata.commits
import gateway.metadata.groups
import gateway.metadata.outcomes
import gateway.objects.commit
import gateway.objects.quick
import gateway.objects.reader
import gateway.objects.store
import ops.keeper.garbage
import ops.keeper.sweep
import storage_node.committer
from gateway.metadata import keys
from gateway.metadata.outcomes import Applied, Transactions
from gateway.metadata.records import GarbageRecord, encode
from gateway.objects.topology import Topology
from ops.keeper.inventory import Found
from ops.keeper.moves import Moves
from ops.keeper.repair import Repair
from placement.map_changes import close_epochs
from placement.membership import CLUSTER
from placement.metastore.port import Put, Txn, exists
from storage_node.port import ShardId
from tests.sim.world import World

ALWAYS = exists(CLUSTER)
"""A compare that holds."""


def commit_before_the_quorum(world: World) -> None:
    """A small write is acknowledged while its shards are still on their way."""
    put_small = gateway.objects.store.put_small
    under_way: list[Any] = []

    async def hurried(staged: Any, *rest: Any) -> set[int]:
        under_way.append(asyncio.ensure_future(put_small(staged, *rest)))
        staged.stored = dict(enumerate(staged.plan.seats))
        return set(staged.stored)

    gateway.objects.store.put_small = hurried


def skip_one_flush(world: World) -> None:
    """The group committer answers without having flushed."""

    async def unflushed(self: Any, drives: Any) -> None:
        return None

    storage_node.committer.Committer._flush_all = unflushed


def delete_before_a_move_is_verified(world: World) -> None:
    """What moves is deleted in its former place before it is stored in the new one."""
    rebuild = Repair._rebuild

    async def hasty(self: Any, blob: Found, index: int) -> int:
        for holding in blob.shards.get(index, []):
            shard = ShardId(blob.ref.blob, index)
            await self._nodes[holding.node].delete([(holding.drive, shard)])
        return await rebuild(self, blob, index)

    Repair._rebuild = hasty


def answers_unchecked(world: World) -> None:
    """Readers trust the bytes that come."""
    gateway.objects.reader.verified = lambda geometry, step, run: True
    gateway.objects.quick.checksum = lambda data: None


def garbage_without_a_claim(world: World) -> None:
    """A queued group is deleted without asking whether a copy uses it."""

    async def grab(metastore: Any, group: bytes, owner_key: bytes, *, now_ms: int) -> Txn:
        entry = GarbageRecord(
            commit_id=b"", queued_ms=now_ms, group=group, owner_key=owner_key, claimed=True
        )
        return Txn((), (Put(keys.garbage(group), encode(entry)),))

    ops.keeper.garbage.claim = grab


def hasty_sweep(world: World) -> None:
    """No rule is broken: but shards have no grace, so that sweep and writers meet."""
    ops.keeper.sweep.GRACE_SECONDS = 0.0
    world.sweep_seconds = 0.3


def first_commit_without_its_compare(world: World) -> None:
    """A slow upload commits though the sweep has claimed its group."""
    hasty_sweep(world)
    gateway.metadata.groups.first_commit_of = lambda group: ALWAYS


def discard_after_an_unknown_outcome(world: World) -> None:
    """A gateway that does not know whether it committed deletes the shards."""
    gateway.objects.commit.OutcomeUnknown = _Nothing
    gateway.metadata.outcomes.UNKNOWN_TRIES = 2


class _Nothing(Exception):
    """Never raised."""


def refusals_after_lost_answers_are_believed(world: World) -> None:
    """A retry that is refused counts as a lost race, though the first try may have been applied."""
    run = Transactions.run

    async def certain(self: Transactions, txn: Txn) -> Applied:
        applied = await run(self, txn)
        return Applied(applied.succeeded, True, applied.revision)

    Transactions.run = certain


def delete_settled_by_its_successor(world: World) -> None:
    """A delete whose answer was lost counts as done when the object was overwritten."""

    async def settle(self: Any, ending: Any) -> bool:
        (found,) = await self._metastore.get_many([ending.record_key])
        return found is None or found.mod_revision != ending.mod_revision

    gateway.metadata.commits.Commits._settle_delete = settle


def commits_ignore_what_they_replace(world: World) -> None:
    """Writes do not compare the record that they replace."""
    gateway.metadata.commits.unchanged = lambda key, revision: ALWAYS


def commits_ignore_the_epoch(world: World) -> None:
    """What was placed under an older map is committed all the same."""
    Topology.map_compare = property(lambda self: ALWAYS)


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


def writes_leave_no_marks(world: World) -> None:
    """A drive that was left out of a write is not marked."""
    gateway.objects.store.judge = _unmarked(gateway.objects.store.judge)


def _unmarked(judge: Callable[..., Any]) -> Callable[..., Any]:
    def judged(plan: Any, stored: Any) -> Any:
        verdict = judge(plan, stored)
        return type(verdict)(verdict.commits, ())

    return judged


def epochs_closed_unverified(world: World) -> None:
    """An epoch is closed at once, while its moves are still running; then drives are forgotten."""

    async def work(self: Moves) -> None:
        await self._maps.change(close_epochs)

    Moves.work = work


def too_few_shards_suffice(world: World) -> None:
    """A write is acknowledged with one shard fewer than can be read."""
    plan_type = gateway.objects.store.WritePlan
    plan_type.least = property(lambda self: max(self.scheme.k - 1, 1))


def stale_buckets_served(world: World) -> None:
    """Readers trust the bucket that they remember."""

    async def lookup(self: Any, bucket: str, key: str, principal: Any) -> Any:
        entry = await self.buckets.guess(bucket)
        record_key = keys.object_(entry.bucket_id, key.encode())
        (found,) = await self.metastore.get_many((record_key,))
        return entry, gateway.metadata.store.object_entry(record_key, found)

    gateway.metadata.store.Metadata.lookup = lookup


RULES: dict[str, Callable[[World], None]] = {
    rule.__name__: rule
    for rule in (
        commit_before_the_quorum,
        skip_one_flush,
        delete_before_a_move_is_verified,
        answers_unchecked,
        garbage_without_a_claim,
        first_commit_without_its_compare,
        discard_after_an_unknown_outcome,
        refusals_after_lost_answers_are_believed,
        delete_settled_by_its_successor,
        commits_ignore_what_they_replace,
        commits_ignore_the_epoch,
        marks_forgotten_after_the_inventory,
        writes_leave_no_marks,
        epochs_closed_unverified,
        too_few_shards_suffice,
        stale_buckets_served,
    )
}
"""By name. `hasty_sweep` alone breaks none."""
