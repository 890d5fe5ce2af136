"""Commits in buckets that have versioning, or had it: each write leaves a version behind.

As in `commits`, every transaction compares what it relied on and is built anew from a fresh read
after a lost race. The slot (see `versions`) is read before every try: one read more a write than in
plain buckets.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from gateway.domain.conditions import DeleteConditions, WriteConditions
from gateway.domain.object_lock import Lock, is_locked
from gateway.domain.versions import (
    ENABLED,
    RANDOM_SIZE_BYTES,
    Stamp,
    fits,
    new_stamp,
    order_of,
)
from gateway.metadata import groups, keys, versions
from gateway.metadata.buckets import Buckets
from gateway.metadata.demands import demand_delete, demand_write
from gateway.metadata.entries import BucketEntry, Committed, Deleted, ObjectEntry, object_entry
from gateway.metadata.errors import (
    BucketBusy,
    ConditionalConflict,
    Contended,
    GroupReclaimed,
    ObjectLocked,
    RelianceBroken,
)
from gateway.metadata.outcomes import Doubt, Transactions
from gateway.metadata.quotas import Quotas, growth_of
from gateway.metadata.records import GarbageRecord, ObjectRecord, decode, encode
from gateway.metadata.versions import Slot
from gateway.metadata.windows import window_of
from gateway.objects.port import Carrier
from placement.clock import Clock, Randomness
from placement.errors import OutcomeUnknown
from placement.metastore.port import (
    Compare,
    KeyValue,
    Metastore,
    Operation,
    Range,
    Txn,
    prefix_end,
    unchanged,
)

RACES_MAX = 40
_REREADS_MAX = 8


class Write(NamedTuple):
    """What a write brings: see `Commits.commit`. `value` is the record encoded; `is_copy`:
    another key's record, on which it relies, uses the group already."""

    object_key: bytes
    record: ObjectRecord
    value: bytes
    is_new: bool
    conditions: WriteConditions | None = None
    relied: Sequence[Compare] = ()
    operations: Sequence[Operation] = ()
    telling: Callable[[ObjectRecord], Operation] | None = None
    counted_bytes: int = 0
    carrier: Carrier | None = None
    is_copy: bool = False


class VersionCommits:
    """Builds and runs the transactions of versioned buckets, and finds versions."""

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
        self._randomness = randomness

    def stamp(self, entry: BucketEntry, *, above: int) -> Stamp:
        """The stamp of a new version in this bucket, newer than the order given."""
        return new_stamp(
            entry.record.versioning,
            above=above,
            now_ns=self._clock.now_ns(),
            random=self._randomness.token(RANDOM_SIZE_BYTES),
        )

    # Finding

    async def find(
        self, entry: BucketEntry, object_key: bytes, version_id: bytes
    ) -> tuple[BucketEntry, ObjectEntry | None]:
        """A version (perhaps a marker) by its id, b"" for the null one, as it is at one instant.
        Raises NoSuchBucket, BucketBusy."""
        places = [object_key, keys.marker(object_key)]
        if version_id:
            places.append(keys.version(object_key, order_of(version_id)))
            bucket, *found = await self._metastore.get_many([entry.key, *places])
            return self._buckets.same(entry, bucket), _with_id(places, found, version_id)
        pointer, told = keys.null_version(object_key), b""
        for _ in range(_REREADS_MAX):
            wanted = [entry.key, pointer, *places]
            if told:
                wanted.append(keys.versions_of(object_key) + told)
            bucket, pointed, *found = await self._metastore.get_many(wanted)
            entry = self._buckets.same(entry, bucket)
            version = _with_id(wanted[2:], found, b"")
            order = b"" if pointed is None else _suffix(pointed)
            if version is not None or order == told or not order:
                return entry, version
            told = order
        raise BucketBusy(entry.name)

    async def current_marker(self, entry: BucketEntry, object_key: bytes) -> ObjectEntry | None:
        """The delete marker that is current; for answers that say why there is no object."""
        key = keys.marker(object_key)
        (found,) = await self._metastore.get_many([key])
        return object_entry(key, found)

    async def slot(
        self,
        entry: BucketEntry,
        object_key: bytes,
        *,
        new_group: bytes | None = None,
        relied: Sequence[Compare] = (),
    ) -> tuple[BucketEntry, Slot]:
        """The slot, and whether what a write relies on still holds.

        Raises NoSuchBucket, GroupReclaimed, RelianceBroken.
        """
        marker_key = keys.marker(object_key)
        wanted = [
            entry.key,
            object_key,
            marker_key,
            keys.narrow(object_key),
            keys.null_version(object_key),
        ]
        own = len(wanted)
        wanted.extend(compare.key for compare in relied)
        if new_group is not None:
            wanted.append(keys.garbage(new_group))
        found = await self._metastore.get_many(wanted)
        entry = self._buckets.same(entry, found[0])
        if new_group is not None and found[-1] is not None:
            raise GroupReclaimed(new_group)
        for compare, kv in zip(relied, found[own:], strict=False):
            if not groups.holds(compare, kv):
                raise RelianceBroken(compare.key)
        _, on_object, on_marker, narrow, pointed = found[:own]
        null: ObjectEntry | None = None
        if pointed is not None and entry.record.versioning != ENABLED:
            key = keys.versions_of(object_key) + _suffix(pointed)
            (kv,) = await self._metastore.get_many([key])
            null = object_entry(key, kv)
        slot = Slot(
            object_key,
            0 if on_object is None else on_object.mod_revision,
            0 if on_marker is None else on_marker.mod_revision,
            object_entry(object_key, on_object) or object_entry(marker_key, on_marker),
            null,
            narrow is not None,
        )
        return entry, slot

    # Writing

    async def commit(self, entry: BucketEntry, write: Write, doubt: Doubt) -> Committed:
        """Make a record the current version of its key. See `Commits.commit`."""
        record, value, conditions = write.record, write.value, write.conditions
        new_group = record.group if write.is_new else None
        for race in range(RACES_MAX):
            entry, slot = await self.slot(
                entry, write.object_key, new_group=new_group, relied=write.relied
            )
            if conditions is not None:
                demand_write(conditions, write.object_key, slot.object)
            stamp = Stamp(record.version_id, record.order)
            if not fits(stamp, entry.record.versioning, above=slot.order):
                stamp = self.stamp(entry, above=slot.order)
                record = msgspec.structs.replace(
                    record, version_id=stamp.version_id, order=stamp.order
                )
                value = encode(record)
            ended = versions.replaced_null(slot, record)
            self.demand_unlocked(ended)
            telling = () if write.telling is None else (write.telling(record),)
            writes = versions.succeed(slot, record, value, self._now_ms())
            compares = [entry.unchanged, *slot.compares, *null_unchanged(slot), *write.relied]
            if write.is_new:
                compares.append(groups.first_commit_of(record.group))
            elif write.is_copy and slot.present is None:
                compares.extend(await groups.for_once(self._metastore, keys.garbage(record.group)))
            txn = Txn(tuple(compares), writes.operations((*write.operations, *telling)))
            gone = None if ended is None else ended.record
            growth = partial(growth_of, record, gone, write.counted_bytes)
            applied = await self._quotas.run(entry, growth, txn, write.carrier)
            if applied.succeeded:
                return Committed(write.object_key, record, applied.revision)
            if not applied.certain:
                doubt.raised = True
                settled = await self._settle(
                    write.object_key, record, is_new=write.is_new, window=window_of(write.relied)
                )
                if settled is not None:
                    return settled
            await self._transactions.pause(race, first_seconds=0.001)
        if conditions is not None:
            raise ConditionalConflict("a conditional write lost too many races")
        raise Contended("a write lost too many races")

    async def _settle(
        self,
        object_key: bytes,
        record: ObjectRecord,
        *,
        is_new: bool,
        window: Compare | None = None,
    ) -> Committed | None:
        """After an unknown outcome: was the version committed? None: certainly not.

        It is at its place, has been moved among the others, or was ended: then the group's garbage
        entry names a commit (a claim by the sweep names none), and stays while the commit's window
        is open.
        """
        places = [
            keys.marker(object_key) if record.delete_marker else object_key,
            keys.version(object_key, record.order),
        ]
        wanted = [*places, keys.garbage(record.group)] if record.group else places
        if window is not None:
            wanted = [*wanted, window.key]
        found = await self._metastore.get_many(wanted)
        for key, kv in zip(places, found, strict=False):
            if kv is None:
                continue
            there = decode(ObjectRecord, kv.value)
            same = bool(record.version_id) and there.version_id == record.version_id
            if there.commit_id == record.commit_id or same:
                return Committed(key, record, kv.mod_revision)
            if is_new and there.group == record.group:
                return Committed(key, record, 0)
        queued = found[2] if record.group else None
        if queued is not None:
            ended = decode(GarbageRecord, queued.value)
            if groups.tells_of(ended, record, is_new=is_new):
                return Committed(object_key, record, 0)
        if (is_new and groups.stays_told(window, found[-1])) or (
            record.delete_marker and record.version_id
        ):
            return None  # one more marker does no harm, should the first have come and gone
        raise OutcomeUnknown("a version may or may not have been committed")

    async def delete(
        self,
        entry: BucketEntry,
        object_key: bytes,
        *,
        conditions: DeleteConditions | None = None,
    ) -> Deleted:
        """Put a delete marker in front. In a suspended bucket it replaces the null version.
        Conditions are on what is current (a marker has no entity tag); when nothing is, nothing is
        done."""
        marker = ObjectRecord(
            owner=entry.record.owner,
            group=b"",
            size_bytes=0,
            etag=b"",
            modified_ms=self._now_ms(),
            commit_id=self._randomness.token(8),
            delete_marker=True,
        )
        for race in range(RACES_MAX):
            entry, slot = await self.slot(entry, object_key)
            if conditions is not None:
                if slot.present is None:
                    return Deleted(None)
                demand_delete(conditions, slot.present)
            stamp = self.stamp(entry, above=slot.order)
            marker = msgspec.structs.replace(marker, version_id=stamp.version_id, order=stamp.order)
            writes = versions.succeed(slot, marker, encode(marker), self._now_ms())
            compares = (entry.unchanged, *slot.compares, *null_unchanged(slot))
            applied = await self._transactions.run(Txn(compares, writes.operations()))
            if applied.succeeded:
                return Deleted(slot.object, marker)
            if not applied.certain and await self._settle(object_key, marker, is_new=False):
                return Deleted(slot.object, marker)
            await self._transactions.pause(race, first_seconds=0.001)
        if conditions is not None:
            raise ConditionalConflict("a conditional delete lost too many races")
        raise Contended("a delete lost too many races")

    async def delete_version(
        self,
        entry: BucketEntry,
        object_key: bytes,
        version_id: bytes,
        *,
        conditions: DeleteConditions | None = None,
        bypass_governance: bool = False,
    ) -> ObjectEntry | None:
        """End one version, or nothing when it is not there; what was ended. If it was the current
        one, the newest of the others becomes current. Conditions are on the version. Raises
        ObjectLocked for one that must stay."""
        unsure: ObjectEntry | None = None
        for race in range(RACES_MAX):
            entry, found = await self.find(entry, object_key, version_id)
            if unsure is not None and not _is_still_there(unsure, found):
                return unsure  # ended, at the latest just before whatever is there now
            if found is None:
                return None
            if conditions is not None:
                demand_delete(conditions, found)
            self.demand_unlocked(found, bypass=bypass_governance)
            txn = await self._removal(entry, object_key, found)
            if txn is not None:
                applied = await self._transactions.run(txn)
                if applied.succeeded:
                    return found
                if not applied.certain:
                    unsure = found
            await self._transactions.pause(race, first_seconds=0.001)
        if conditions is not None:
            raise ConditionalConflict("a conditional delete lost too many races")
        raise Contended("a delete lost too many races")

    async def _removal(
        self, entry: BucketEntry, object_key: bytes, version: ObjectEntry
    ) -> Txn | None:
        """The transaction that ends a version; None when it has moved since it was found."""
        now_ms = self._now_ms()
        if version.record_key.startswith(keys.VERSIONS):
            writes = versions.remove(version, now_ms)
            compares = (entry.unchanged, unchanged(version.record_key, version.mod_revision))
            return Txn(compares, writes.operations())
        entry, slot = await self.slot(entry, object_key)
        present = slot.present
        if present is None or present.mod_revision != version.mod_revision:
            return None
        others = keys.versions_of(object_key)
        result = await self._metastore.range(Range(others, prefix_end(others), limit=1))
        newest: ObjectEntry | None = None
        narrow: KeyValue | None = None
        extra: tuple[Compare, ...] = ()
        if result.kvs:
            (kv,) = result.kvs
            newest = object_entry(kv.key, kv)
            (narrow,) = await self._metastore.get_many([keys.narrow(kv.key)])
            extra = (unchanged(kv.key, kv.mod_revision),)
        writes = versions.promote(slot, newest, narrow=narrow is not None, now_ms=now_ms)
        return Txn((entry.unchanged, *slot.compares, *extra), writes.operations())

    def demand_unlocked(self, version: ObjectEntry | None, *, bypass: bool = False) -> None:
        """Nothing that is locked ends: every transaction that ends a version asks this first, of
        the record that it compares."""
        if version is None:
            return
        lock = Lock(version.record.retention, version.record.hold)
        if is_locked(lock, now_ms=self._now_ms(), bypass=bypass):
            raise ObjectLocked(version.key.encode())

    def _now_ms(self) -> int:
        return self._clock.now_ns() // 1_000_000


def _suffix(pointer: KeyValue) -> bytes:
    """The end of the key that a null version's pointer names."""
    return keys.order_suffix(int.from_bytes(pointer.value, "big"))


def _is_still_there(version: ObjectEntry, found: ObjectEntry | None) -> bool:
    """Whether what an id finds now is the same version; null versions replace one another."""
    if found is None or version.record.version_id:
        return found is not None
    if version.record.delete_marker or found.record.delete_marker:
        return found.record.commit_id == version.record.commit_id
    return found.record.group == version.record.group


def null_unchanged(slot: Slot) -> tuple[Compare, ...]:
    """The null version that is not current, if it was read, is as it was."""
    if slot.null is None:
        return ()
    return (unchanged(slot.null.record_key, slot.null.mod_revision),)


def _with_id(
    places: Sequence[bytes], found: Sequence[KeyValue | None], version_id: bytes
) -> ObjectEntry | None:
    for key, kv in zip(places, found, strict=True):
        entry = object_entry(key, kv)
        if entry is not None and entry.record.version_id == version_id:
            return entry
    return None
