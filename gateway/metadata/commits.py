"""Commits of object records: the one point at which an object exists, changes or is gone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from gateway.domain.conditions import DeleteConditions, WriteConditions
from gateway.metadata import groups, keys
from gateway.metadata.buckets import Buckets
from gateway.metadata.demands import demand_delete, demand_write
from gateway.metadata.entries import (
    BucketEntry,
    Committed,
    Deleted,
    ObjectEntry,
    object_entry,
)
from gateway.metadata.errors import (
    ConditionalConflict,
    Contended,
    GroupReclaimed,
    MetadataError,
    PresumptionBroken,
    RelianceBroken,
)
from gateway.metadata.groups import Ending
from gateway.metadata.outcomes import Doubt, Transactions
from gateway.metadata.quotas import Quotas, growth_of
from gateway.metadata.records import GarbageRecord, ObjectRecord, decode, encode
from gateway.metadata.version_commits import VersionCommits, Write
from gateway.metadata.windows import window_of
from gateway.objects.port import Stored
from placement.clock import Clock, Randomness
from placement.errors import OutcomeUnknown
from placement.metastore.port import (
    Compare,
    Metastore,
    Operation,
    Put,
    Txn,
    unchanged,
)

RACES_MAX = 40
"""Races that one commit may lose before the client is told to slow down."""
_KEYS_A_READ = 100


@dataclass(frozen=True, slots=True)
class Deletion:
    """One key of a DeleteObjects request."""

    record_key: bytes
    conditions: DeleteConditions | None = None


class Commits:
    """Builds and runs the transactions, reading again and retrying where only a race was lost."""

    def __init__(
        self,
        metastore: Metastore,
        transactions: Transactions,
        buckets: Buckets,
        quotas: Quotas,
        *,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._metastore = metastore
        self._transactions = transactions
        self._buckets = buckets
        self._quotas = quotas
        self._clock = clock
        self.versions = VersionCommits(
            metastore, transactions, buckets, quotas, clock=clock, randomness=randomness
        )

    async def commit(
        self,
        entry: BucketEntry,
        record_key: bytes,
        record: ObjectRecord,
        *,
        value: bytes | None = None,
        stored: Stored | None = None,
        previous: ObjectEntry | None = None,
        source: ObjectEntry | None = None,
        conditions: WriteConditions | None = None,
        new_group: bool = False,
        compares: Sequence[Compare] = (),
        operations: Sequence[Operation] = (),
        telling: Callable[[ObjectRecord], Operation] | None = None,
        counted_bytes: int = 0,
        presumed: bool = False,
    ) -> Committed:
        """Make `record` the object's record, in one transaction.

        `entry` and `previous` are as `lookup` gave them (a stale `previous` costs a retry, nothing
        else). `value` is the encoded record, when the caller has it. `stored` is what the blobs
        demand; `new_group` says that the record's group is used for the first time though nothing
        was `stored` with it (a completed upload). `source` is a copy's source; the record then has
        `group_owner` by `groups.group_owner_of_copy`. `compares` (of single keys) and `operations`
        go into the same transaction; no operation may touch the record's, garbage's or reference's
        keys. `telling` makes one more of the record as it is committed. Quotas know so many
        `counted_bytes` of the object already: those of its parts.

        In a bucket with versioning the record becomes a version, stamped anew if need be, and what
        it replaces stays one; of null versions there is one. `record_key` is the object's key all
        the same.

        With `presumed`, `entry` is from `bucket_for_new`: if it is not the bucket as it is, or the
        key not absent, PresumptionBroken is raised and nothing was committed.

        An overwrite that merely lost a race is tried again, `conditions` being judged anew.
        Raises PreconditionFailed, NoSuchKey (If-Match, nothing there), NoSuchBucket (deleted
        meanwhile), ConditionalConflict, Contended, GroupReclaimed, RelianceBroken (of `stored`,
        `source` or `compares`), QuotaExceeded, OutcomeUnknown.
        """
        assert (
            not record.group_owner
            or source is not None
            or (previous is not None and previous.record.group == record.group)
        )
        value = encode(record) if value is None else value
        is_new = stored is not None or new_group
        relied: list[Compare] = list(compares)
        extra: list[Operation] = list(operations)
        carrier = None
        if stored is not None:
            carrier = stored.carrier
            relied.extend(stored.compares)
            extra.extend(stored.puts)
            if stored.narrow:
                extra.append(Put(keys.narrow(record_key), b""))
        is_copy = source is not None and source.record_key != record_key
        if source is not None and is_copy:
            relied.append(unchanged(source.record_key, source.mod_revision))
            if await self._is_narrow(source.record_key):
                extra.append(Put(keys.narrow(record_key), b""))
        own_source: tuple[Compare, ...] = ()
        if source is not None and source.record_key == record_key:
            own_source = (unchanged(record_key, source.mod_revision),)
        with Doubt() as doubt:
            for race in range(RACES_MAX):
                if entry.record.versioning:
                    write = Write(
                        record_key,
                        record,
                        value,
                        is_new,
                        conditions,
                        (*relied, *own_source),
                        extra,
                        telling,
                        counted_bytes,
                        carrier,
                        is_copy,
                    )
                    return await self.versions.commit(entry, write, doubt)
                if (
                    source is not None
                    and source.record_key == record_key
                    and (previous is None or previous.mod_revision != source.mod_revision)
                ):
                    raise RelianceBroken(record_key)
                if conditions is not None:
                    demand_write(conditions, record_key, previous)
                own = [
                    entry.unchanged,
                    unchanged(record_key, 0 if previous is None else previous.mod_revision),
                ]
                if is_new:
                    own.append(groups.first_commit_of(record.group))
                elif is_copy and previous is None:
                    own.extend(await groups.for_once(self._metastore, keys.garbage(record.group)))
                ended = None if previous is None else previous.record
                writes = groups.replace(record_key, record, value, ended, self._now_ms())
                if telling is not None:
                    writes = (*writes, telling(record))
                txn = Txn((*own, *relied), (*writes, *extra))
                growth = partial(growth_of, record, ended, counted_bytes)
                applied = await self._quotas.run(entry, growth, txn, carrier)
                if applied.succeeded:
                    return Committed(record_key, record, applied.revision)
                if not applied.certain:
                    doubt.raised = True
                    settled = await self._settle_commit(
                        record_key, record, is_new=is_new, window=window_of(relied)
                    )
                    if settled is not None:
                        return settled
                if presumed:
                    raise PresumptionBroken(entry.name)
                entry, previous = await self._after_a_lost_race(
                    entry, record_key, record.group if is_new else None, relied
                )
                await self._transactions.pause(race, first_seconds=0.001)
            if conditions is not None:
                raise ConditionalConflict("a conditional write lost too many races")
            raise Contended("a write lost too many races")

    async def _is_narrow(self, source_key: bytes) -> bool:
        """Whether what a copy shares with its source was stored on too few drives. It is told at
        the record's key as long as the record is as it was read."""
        (narrow,) = await self._metastore.get_many([keys.narrow(source_key)])
        return narrow is not None

    async def delete(
        self,
        entry: BucketEntry,
        record_key: bytes,
        *,
        previous: ObjectEntry | None,
        conditions: DeleteConditions | None = None,
    ) -> Deleted:
        """End an object, or put a delete marker in front in a bucket with versioning. That nothing
        was there is success.

        `previous` as `lookup` gave it. Raises PreconditionFailed, NoSuchBucket,
        ConditionalConflict, Contended, OutcomeUnknown.
        """
        for race in range(RACES_MAX):
            if entry.record.versioning:
                return await self.versions.delete(entry, record_key, conditions=conditions)
            if previous is None:
                return Deleted(None)
            if conditions is not None:
                demand_delete(conditions, previous)
            ending = Ending(record_key, previous.record, previous.mod_revision)
            txn = groups.delete_txn(entry.unchanged, (ending,), self._now_ms())
            applied = await self._transactions.run(txn)
            if applied.succeeded:
                return Deleted(previous)
            if not applied.certain and await self._settle_delete(ending):
                return Deleted(previous)
            entry, previous = await self._after_a_lost_race(entry, record_key, None, ())
            await self._transactions.pause(race, first_seconds=0.001)
        if conditions is not None:
            raise ConditionalConflict("a conditional delete lost too many races")
        raise Contended("a delete lost too many races")

    async def delete_many(
        self, entry: BucketEntry, deletions: Sequence[Deletion]
    ) -> tuple[MetadataError | None, ...]:
        """End many objects, a hundred a transaction; for each None (gone) or why it is not."""
        verdicts: dict[bytes, MetadataError | None] = {}
        asked = {deletion.record_key: deletion for deletion in deletions}
        record_keys = list(asked)
        for start in range(0, len(record_keys), _KEYS_A_READ):
            step = record_keys[start : start + _KEYS_A_READ]
            bucket, *found = await self._metastore.get_many([entry.key, *step])
            entry = self._buckets.same(entry, bucket)
            if entry.record.versioning:  # since a moment ago: markers, one by one
                for record_key in step:
                    verdicts[record_key] = await self._delete_one(entry, asked[record_key])
                continue
            present: list[ObjectEntry] = []
            for record_key, kv in zip(step, found, strict=True):
                verdicts[record_key] = None
                current = object_entry(record_key, kv)
                if current is None:
                    continue
                conditions = asked[record_key].conditions
                try:
                    if conditions is not None:
                        demand_delete(conditions, current)
                except MetadataError as error:
                    verdicts[record_key] = error
                else:
                    present.append(current)
            for batch in _of_distinct_groups(present):
                await self._delete_batch(entry, batch, asked, verdicts)
        return tuple(verdicts[deletion.record_key] for deletion in deletions)

    async def _delete_batch(
        self,
        entry: BucketEntry,
        batch: Sequence[ObjectEntry],
        asked: dict[bytes, Deletion],
        verdicts: dict[bytes, MetadataError | None],
    ) -> None:
        """One transaction; when it is refused, each key alone, so that none fails the others."""
        endings = [Ending(each.record_key, each.record, each.mod_revision) for each in batch]
        applied = await self._transactions.run(
            groups.delete_txn(entry.unchanged, endings, self._now_ms())
        )
        if applied.succeeded:
            return
        for current, ending in zip(batch, endings, strict=True):
            if not applied.certain and await self._settle_delete(ending):
                continue
            verdicts[current.record_key] = await self._delete_one(
                entry, asked[current.record_key], previous=current
            )

    async def _delete_one(
        self, entry: BucketEntry, deletion: Deletion, *, previous: ObjectEntry | None = None
    ) -> MetadataError | None:
        try:
            await self.delete(
                entry, deletion.record_key, previous=previous, conditions=deletion.conditions
            )
        except MetadataError as error:
            return error
        return None

    async def _after_a_lost_race(
        self,
        entry: BucketEntry,
        record_key: bytes,
        new_group: bytes | None,
        relied: Sequence[Compare],
    ) -> tuple[BucketEntry, ObjectEntry | None]:
        """Read what a refused transaction compared; raise for what cannot be retried."""
        wanted = [entry.key, record_key]
        if new_group is not None:
            wanted.append(keys.garbage(new_group))
        own = len(wanted)
        wanted.extend(compare.key for compare in relied)
        found = await self._metastore.get_many(wanted)
        entry = self._buckets.same(entry, found[0])
        if new_group is not None and found[2] is not None:
            raise GroupReclaimed(new_group)
        for compare, kv in zip(relied, found[own:], strict=True):
            if not groups.holds(compare, kv):
                raise RelianceBroken(compare.key)
        return entry, object_entry(record_key, found[1])

    async def _settle_commit(
        self,
        record_key: bytes,
        record: ObjectRecord,
        *,
        is_new: bool,
        window: Compare | None,
    ) -> Committed | None:
        """After an unknown outcome: was the record committed? None: certainly not.

        A new group can only be in use, or ended, if its first commit was applied; the entry of who
        ended last names a commit, and stays while the commit's window is open. A shared group tells
        less.
        """
        # If the bucket has got versioning since, the record may be among the older versions.
        places = (record_key, keys.version(record_key, record.order))
        wanted = [*places, keys.garbage(record.group)]
        if window is not None:
            wanted.append(window.key)
        *found, garbage = (told := await self._metastore.get_many(wanted))[:3]
        for kv in found:
            if kv is None:
                continue
            current = decode(ObjectRecord, kv.value)
            if current.commit_id == record.commit_id:
                return Committed(record_key, record, kv.mod_revision)
            if is_new and current.group == record.group:
                return Committed(record_key, record, 0)
        if garbage is not None:
            ended = decode(GarbageRecord, garbage.value)
            if groups.tells_of(ended, record, is_new=is_new):
                return Committed(record_key, record, 0)
        if is_new and groups.stays_told(window, told[-1]):
            return None
        raise OutcomeUnknown("the record may or may not have been committed")

    async def _settle_delete(self, ending: Ending) -> bool:
        """After an unknown outcome: was there nothing at some moment since the object was read? Then
        that is when the delete took effect, whoever's it was.

        A key that was only ever overwritten keeps its create revision: then the delete was not
        applied. It would be wrong to say that it came just before whatever replaced the object, for
        that may have been a write on the condition that the object was there.
        """
        (found,) = await self._metastore.get_many([ending.record_key])
        return found is None or found.create_revision > ending.mod_revision

    def _now_ms(self) -> int:
        return self._clock.now_ns() // 1_000_000


def _of_distinct_groups(entries: Sequence[ObjectEntry]) -> list[list[ObjectEntry]]:
    """Batches without two records of one group: each puts the group's one garbage key."""
    batches: list[list[ObjectEntry]] = []
    seen: list[set[bytes]] = []
    for entry in entries:
        for batch, groups_seen in zip(batches, seen, strict=True):
            if entry.record.group not in groups_seen and len(batch) < groups.ENDINGS_MAX:
                break
        else:
            batch, groups_seen = [], set()
            batches.append(batch)
            seen.append(groups_seen)
        batch.append(entry)
        groups_seen.add(entry.record.group)
    return batches
