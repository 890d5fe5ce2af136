"""Rules of buckets, groups and unknown outcomes, each taken out."""

# What is taken out is a name inside a module: mypy cannot know that on purpose.
# mypy: disable-error-code="attr-defined,assignment,misc,method-assign,arg-type"

import contextvars
from collections.abc import Sequence
from typing import Any

import gateway.domain.garbage_backlog
import gateway.metadata.accounts
import gateway.metadata.commits
import gateway.metadata.groups
import gateway.metadata.outcomes
import gateway.metadata.store
import gateway.metadata.upload_commits
import gateway.metadata.version_commits
import gateway.objects.commit
import gateway.objects.store
import ops.keeper.garbage
import ops.keeper.sweep
import ops.keeper.usage
from gateway.metadata import keys
from gateway.metadata.buckets import Buckets
from gateway.metadata.commits import Commits
from gateway.metadata.entries import BucketEntry, Committed
from gateway.metadata.errors import NoSuchBucket
from gateway.metadata.outcomes import Applied, Transactions
from gateway.metadata.records import GarbageRecord, ObjectRecord, decode, encode
from gateway.metadata.store import Metadata
from gateway.objects.topology import Topology
from ops.keeper.windows import Windows
from ops.keeper_process import Duties
from placement.errors import OutcomeUnknown
from placement.ids import BucketId
from placement.metastore.port import Put, Range, RangeResult, Txn
from tests.sim.broken.registry import ALWAYS, Nothing, always, rule
from tests.sim.world import World

# -- reads check the bucket ----------------------------------------------------------------------


@rule("GET and HEAD read the bucket's key with the object", "buckets")
def stale_buckets_are_read(world: World) -> None:
    """Readers trust the bucket that they remember."""

    async def lookup(self: Any, bucket: str, key: str, principal: Any) -> Any:
        entry = await self.buckets.guess(bucket)
        record_key = keys.object_(entry.bucket_id, key.encode())
        (found,) = await self.metastore.get_many((record_key,))
        return entry, gateway.metadata.store.object_entry(record_key, found)

    Metadata.lookup = lookup


@rule("LIST reads the bucket's key with its page", "buckets")
def stale_buckets_are_listed(world: World) -> None:
    """A listing trusts the bucket that is remembered."""

    async def bucket(self: Any, name: str, principal: Any) -> BucketEntry:
        entry: BucketEntry = await self.buckets.guess(name)
        return entry

    async def snapshot(self: Any, entry: BucketEntry, requests: Sequence[Range]) -> Any:
        return await self.metastore.read(tuple(requests))

    Metadata.bucket, Metadata.snapshot = bucket, snapshot


@rule("nothing absent is cached", "buckets")
def absent_buckets_are_remembered(world: World) -> None:
    """That there is no such bucket is believed until the watch tells otherwise."""
    remember, changed, read = Buckets.remember, Buckets.changed, Buckets.read_unasked
    absent: dict[int, set[str]] = {}

    def noting(self: Buckets, name: str, found: Any) -> BucketEntry:
        if found is None:
            absent.setdefault(id(self), set()).add(name)
        else:
            absent.get(id(self), set()).discard(name)
        return remember(self, name, found)

    def told(self: Buckets, key: bytes) -> None:
        absent.get(id(self), set()).discard(key[len(keys.BUCKETS) :].decode())
        changed(self, key)

    def unless_absent(method: Any) -> Any:
        async def asked(self: Buckets, name: str) -> BucketEntry:
            if name in absent.get(id(self), ()):
                raise NoSuchBucket(name)
            entry: BucketEntry = await method(self, name)
            return entry

        return asked

    Buckets.remember, Buckets.changed = noting, told
    Buckets.guess, Buckets.read_unasked = unless_absent(Buckets.guess), unless_absent(read)


@rule("a commit compares the bucket", "buckets")
def commits_ignore_the_bucket(world: World) -> None:
    """Writes go into whatever bucket had that id."""
    BucketEntry.unchanged = property(always)


# -- what is replaced ----------------------------------------------------------------------------


@rule("a commit compares the record that it replaces", "lost answers")
def commits_ignore_what_they_replace(world: World) -> None:
    """Of two racing conditional writes both win."""
    gateway.metadata.commits.unchanged = always


# -- groups, references, garbage -----------------------------------------------------------------


@rule("a copy puts its reference in its own transaction", "copies")
def copies_leave_no_references(world: World) -> None:
    """Whoever reclaims does not see that a copy uses the group."""
    replace = gateway.metadata.groups.replace

    def unreferenced(*arguments: Any) -> Any:
        return tuple(
            write
            for write in replace(*arguments)
            if not (isinstance(write, Put) and write.key.startswith(keys.REFERENCES))
        )

    gateway.metadata.groups.replace = unreferenced


@rule("a copy compares its source's revision", "copies")
def copies_ignore_their_source(world: World) -> None:
    """A copy is committed though its source ended, and its group was claimed, meanwhile."""
    commit, unchanged = Commits.commit, gateway.metadata.commits.unchanged
    sources: contextvars.ContextVar[bytes] = contextvars.ContextVar("source", default=b"")

    async def noting(self: Commits, *arguments: Any, **named: Any) -> Committed:
        source = named.get("source")
        token = sources.set(b"" if source is None else source.record_key)
        try:
            return await commit(self, *arguments, **named)
        finally:
            sources.reset(token)

    Commits.commit = noting
    gateway.metadata.commits.unchanged = lambda key, revision: (
        ALWAYS if key == sources.get() else unchanged(key, revision)
    )


def _claim_by(claim: Any) -> None:
    for module in (ops.keeper.garbage, ops.keeper.sweep, ops.keeper.usage, gateway.metadata.groups):
        module.claim = claim


@rule("a group is claimed before it is deleted", "copies")
def garbage_is_not_claimed(world: World) -> None:
    """A queued group is deleted without asking whether a copy uses it."""

    async def grab(metastore: Any, group: bytes, owner_key: bytes, *, now_ms: int) -> Txn:
        entry = GarbageRecord(
            commit_id=b"", queued_ms=now_ms, group=group, owner_key=owner_key, claimed=True
        )
        return Txn((), (Put(keys.garbage(group), encode(entry)),))

    ops.keeper.garbage.claim = grab


@rule("the sweep claims a group before it deletes it", "late commits")
def the_sweep_does_not_claim(world: World) -> None:
    """What has no record goes, whoever may be about to commit it."""

    async def nothing(metastore: Any, group: bytes, owner_key: bytes, *, now_ms: int) -> Txn | None:
        txn = await claim(metastore, group, owner_key, now_ms=now_ms)
        return None if txn is None else Txn((), (Put(keys.SCRUB, b""),))

    claim = gateway.metadata.groups.claim
    ops.keeper.sweep.claim = nothing


@rule("the transaction that ends a record queues its group", "power")
def nothing_is_queued(world: World) -> None:
    """What was replaced or deleted is left to the sweep."""
    gateway.metadata.groups.end_of = lambda *ignored: ()


@rule("a shard's header names its group and owner record", "fair")
def shards_name_no_owner(world: World) -> None:
    """Whoever finds a shard does not know whose it is."""
    envelopes_of = gateway.objects.store.envelopes_of

    def unowned(ref: Any, group: Any, owner_key: bytes, *rest: Any) -> Any:
        return envelopes_of(ref, group, keys.object_(BucketId(bytes(8)), b"nobody"), *rest)

    gateway.objects.store.envelopes_of = unowned


@rule("the sweep knows snapshots", "power")
def snapshots_are_swept(world: World) -> None:
    """What no object names is an orphan, also a copy of the metadata."""

    async def orphan(*ignored: Any) -> Any:
        return ops.keeper.usage.Usage.ORPHAN

    async def claimed(*ignored: Any) -> bool:
        return True

    ops.keeper.usage._usage_of_part = orphan
    ops.keeper.sweep.claim_part = claimed


@rule("a claim looks for references", "copies")
def claims_ignore_references(world: World) -> None:
    """A group is free when its first owner is done with it."""
    claim = gateway.metadata.groups.claim

    class Unreferenced:
        def __init__(self, metastore: Any) -> None:
            self._metastore = metastore

        async def read(self, requests: Sequence[Range]) -> Any:
            found = await self._metastore.read(requests)
            return [
                RangeResult(result.revision, (), more=False, count=0)
                if request.key.startswith(keys.REFERENCES)
                else result
                for request, result in zip(requests, found, strict=True)
            ]

    async def blind(metastore: Any, group: bytes, owner_key: bytes, *, now_ms: int) -> Txn | None:
        txn = await claim(Unreferenced(metastore), group, owner_key, now_ms=now_ms)
        if txn is None:
            return None
        compares = [c for c in txn.compares if not c.key.startswith(keys.REFERENCES)]
        return Txn(tuple(compares), txn.success)

    _claim_by(blind)


@rule("a claim compares what it saw", "late commits")
def claims_compare_nothing(world: World) -> None:
    """A claim succeeds though the group came into use after it looked."""
    claim = gateway.metadata.groups.claim

    async def bold(metastore: Any, group: bytes, owner_key: bytes, *, now_ms: int) -> Txn | None:
        txn = await claim(metastore, group, owner_key, now_ms=now_ms)
        return None if txn is None else Txn((), txn.success)

    _claim_by(bold)


@rule("a group's first commit compares that nobody claimed it", "late commits")
def first_commits_ignore_claims(world: World) -> None:
    """A slow upload commits though the sweep has claimed its group."""
    gateway.metadata.groups.first_commit_of = always


# -- restored metadata ---------------------------------------------------------------------------


@rule("garbage and sweep stay off until an operator confirms restored metadata", "power")
def reclaiming_does_not_wait_for_an_operator(world: World) -> None:
    """What metadata of yesterday does not name is deleted."""
    Duties._once_confirmed = lambda self, work: work


# -- unknown outcomes ----------------------------------------------------------------------------


@rule("after an unknown outcome a gateway deletes no shard", "lost answers")
def shards_are_discarded_after_unknown_outcomes(world: World) -> None:
    """A gateway that does not know whether it committed deletes the shards."""
    gateway.objects.commit.OutcomeUnknown = Nothing
    gateway.metadata.outcomes.UNKNOWN_TRIES = 2


@rule("a refusal after a lost answer says nothing", "lost answers")
def refusals_after_lost_answers_are_believed(world: World) -> None:
    """A retry that is refused counts as a lost race, though the first try may have been applied."""
    run = Transactions.run

    async def certain(self: Transactions, *arguments: Any) -> Applied:
        applied = await run(self, *arguments)
        return Applied(applied.succeeded, True, applied.revision)

    Transactions.run = certain


@rule("only the identical transaction is tried again", "lost answers")
def lost_answers_count_as_refusals(world: World) -> None:
    """What was not answered is built anew from what is there then."""

    async def once(self: Transactions, txn: Txn, carrier: Any = None) -> Applied:
        try:
            result = await self._metastore.txn(txn)
        except OutcomeUnknown:
            return Applied(False, True, 0)
        return Applied(result.succeeded, True, result.revision)

    Transactions.run = once


@rule("garbage that bears one's own commit id means success", "lost answers")
def ended_commits_are_not_recognised(world: World) -> None:
    """A first try that was applied, and replaced since, counts as one that was not."""

    async def settle(
        self: Commits, record_key: bytes, record: ObjectRecord, **ignored: Any
    ) -> Committed | None:
        (found,) = await self._metastore.get_many([record_key])
        if found is not None and decode(ObjectRecord, found.value).group == record.group:
            return Committed(record_key, record, found.mod_revision)
        return None

    Commits._settle_commit = settle


@rule("a group that is in use, or was ended by anybody, was committed", "lost answers")
def groups_that_moved_on_are_not_recognised(world: World) -> None:
    """Only the record itself, and the entry that ended it, tell of a first try, it says."""
    gateway.metadata.groups.tells_of = lambda ended, record, is_new: (
        ended.commit_id == record.commit_id
    )


@rule("garbage entries outlive the longest retry", "late commits")
def garbage_is_forgotten_at_once(world: World) -> None:
    """An entry goes with the shards."""
    ops.keeper.garbage.RETENTION_SECONDS = 0.0
    Windows.closed_since = lambda self, revision: True


@rule("a first commit compares the write window in which its shards were stored", "late commits")
def commits_ignore_their_window(world: World) -> None:
    """What was swept, and its claim forgotten, is committed at last."""
    Topology.window_compare = property(always)
    Topology.is_open = lambda self, window: True


@rule(
    "a claim stays until the write windows are closed that were open when it was made",
    "late commits",
)
def claims_are_forgotten_in_open_windows(world: World) -> None:
    """Ninety seconds are long enough, it says."""
    Windows.closed_since = lambda self, revision: True


@rule("a copy to a new key compares the garbage entry of its group", "copies")
def copies_may_come_twice(world: World) -> None:
    """A copy holds whenever its source is as it was and there is nothing in its place."""

    async def nothing(*ignored: Any) -> tuple[()]:
        return ()

    gateway.metadata.groups.for_once = nothing


@rule("what begins at a key where there is none compares that it has not ended", "buckets")
def what_ended_may_begin_again(world: World) -> None:
    """A bucket, an upload or an account is made whenever there is none of that name."""

    async def nothing(*ignored: Any) -> Any:
        return ALWAYS, ALWAYS

    gateway.metadata.groups.for_once = nothing
    absent = gateway.metadata.upload_commits.absent
    gateway.metadata.upload_commits.absent = lambda key: (
        ALWAYS if key.startswith(keys.GARBAGE) else absent(key)
    )


@rule("and the write window, as long as which that entry stays", "copies")
def copies_ignore_the_window(world: World) -> None:
    """A copy that was ended, and its end forgotten, comes a second time."""
    for_once = gateway.metadata.groups.for_once

    async def whenever(*arguments: Any) -> Any:
        return (await for_once(*arguments))[:1]

    gateway.metadata.groups.for_once = whenever


@rule("after a closed write window nobody knows that a commit did not come", "lost answers")
def closed_windows_tell_all(world: World) -> None:
    """What is not to be found was never applied, it says, and applies it once more."""
    gateway.metadata.groups.stays_told = lambda window, found: True


@rule("a delete took effect when there was nothing", "lost answers")
def deletes_are_settled_by_their_successors(world: World) -> None:
    """A delete whose answer was lost counts as done when the object was overwritten."""

    async def settle(self: Any, ending: Any) -> bool:
        (found,) = await self._metastore.get_many([ending.record_key])
        return found is None or found.mod_revision != ending.mod_revision

    Commits._settle_delete = settle


@rule("after a lost answer a refusal is not told: that sending may come yet", "lost answers")
def refusals_are_told_though_a_sending_is_on_its_way(world: World) -> None:
    """What was not carried out is refused, though it may be carried out later."""
    gateway.metadata.outcomes._is_for_good = always


# -- identities ----------------------------------------------------------------------------------


@rule("how stale an identity may be is bounded", "buckets")
def identities_do_not_age(world: World) -> None:
    """An identity is remembered until the watch tells otherwise."""
    gateway.metadata.accounts.IDENTITY_AGE_SECONDS_MAX = float("inf")


# -- order ---------------------------------------------------------------------------------------


@rule("versions of a key are ordered by sequence, not by clock", "versions")
def versions_are_ordered_by_the_clock(world: World) -> None:
    """The newest version is the one whose gateway's clock is ahead."""
    stamp = gateway.metadata.version_commits.new_stamp

    def by_clock(versioning: str, *, above: int, now_ns: int, random: bytes) -> Any:
        return stamp(versioning, above=-1, now_ns=now_ns, random=random)

    gateway.metadata.version_commits.new_stamp = by_clock
    gateway.metadata.version_commits.fits = lambda *ignored, **named: True


@rule("the backlog of garbage is bounded", "copies")
def garbage_grows_without_bound(world: World) -> None:
    """Whatever waits, more is queued at once."""
    gateway.domain.garbage_backlog.delay_seconds = lambda waiting, slowed, most: 0.0
