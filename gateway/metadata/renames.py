"""Renaming an object: its record moves to another key in one transaction, its bytes stay.

In a bucket without versioning the record itself moves. Where there is versioning, the renamed object
becomes a version of its new key, and a delete marker comes in front of what the old key held: as a
copy and a delete would leave it, but at one instant.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgspec

from gateway.metadata import keys, versions
from gateway.metadata.buckets import Buckets
from gateway.metadata.entries import BucketEntry, ObjectEntry, object_entry
from gateway.metadata.errors import Contended
from gateway.metadata.outcomes import Doubt, Transactions
from gateway.metadata.quotas import Quotas, growth_of
from gateway.metadata.records import ObjectRecord, encode
from gateway.metadata.version_commits import VersionCommits, null_unchanged
from gateway.metadata.versions import Slot
from placement.clock import Clock, Randomness
from placement.errors import OutcomeUnknown
from placement.metastore.port import DeleteRange, Metastore, Operation, Put, Txn, unchanged

_RACES_MAX = 40

Judge = Callable[[BucketEntry, ObjectEntry | None, ObjectEntry | None], None]
"""Raises what refuses a rename; asked of the bucket, source and destination as each try reads them."""


class Rename(NamedTuple):
    """From one record key to another. `commit_id` marks the renamed record: the same rename asked
    for again has the same. `admit` says who may, `judge` what else refuses it: a source that is not
    there, and conditions."""

    source: bytes
    destination: bytes
    commit_id: bytes
    admit: Judge
    judge: Judge


class Renames:
    """Part of the repository: `Metadata.renames`."""

    def __init__(
        self,
        metastore: Metastore,
        transactions: Transactions,
        buckets: Buckets,
        commits: VersionCommits,
        quotas: Quotas,
        *,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._metastore = metastore
        self._transactions = transactions
        self._buckets = buckets
        self._commits = commits
        self._quotas = quotas
        self._clock = clock
        self._randomness = randomness

    async def run(self, entry: BucketEntry, rename: Rename) -> ObjectRecord:
        """The object under its new key. A rename that was carried out under this commit id, and
        whose object is still there, is not carried out again.

        Raises what `admit` and `judge` raise, NoSuchBucket, ObjectLocked, Contended, OutcomeUnknown.
        """
        assert rename.source != rename.destination
        unsure: int | None = None
        with Doubt() as doubt:
            for race in range(_RACES_MAX):
                entry, source, destination = await self._slots(entry, rename)
                found, there = source.object, destination.object
                rename.admit(entry, found, there)
                if there is not None and there.record.commit_id == rename.commit_id:
                    return there.record
                if unsure is not None and (found is None or found.mod_revision != unsure):
                    raise OutcomeUnknown("a rename may or may not have been carried out")
                rename.judge(entry, found, there)
                assert found is not None
                record = self._record(entry, rename, found.record, destination)
                if entry.record.versioning:
                    txn = self._version_txn(entry, source, destination, record)
                    # What the old key held stays: the object is there twice.
                    ended = versions.replaced_null(destination, record)
                    growth = partial(growth_of, record, None if ended is None else ended.record)
                    applied = await self._quotas.run(entry, growth, txn)
                else:
                    txn = self._plain_txn(entry, source, destination, record)
                    applied = await self._transactions.run(txn)
                if applied.succeeded:
                    return record
                unsure = None if applied.certain else found.mod_revision
                doubt.raised = doubt.raised or not applied.certain
                await self._transactions.pause(race, first_seconds=0.001)
            raise Contended("a rename lost too many races")

    async def _slots(self, entry: BucketEntry, rename: Rename) -> tuple[BucketEntry, Slot, Slot]:
        if entry.record.versioning:
            entry, source = await self._commits.slot(entry, rename.source)
            entry, destination = await self._commits.slot(entry, rename.destination)
            return entry, source, destination
        pair = (rename.source, rename.destination)
        bucket, *found = await self._metastore.get_many(
            [entry.key, *pair, *(keys.narrow(key) for key in pair)]
        )
        entry = self._buckets.same(entry, bucket)
        if entry.record.versioning:  # since a moment ago
            return await self._slots(entry, rename)
        source, destination = (
            Slot(
                key,
                0 if kv is None else kv.mod_revision,
                0,
                object_entry(key, kv),
                narrow=narrow is not None,
            )
            for key, kv, narrow in zip(pair, found[:2], found[2:], strict=True)
        )
        return entry, source, destination

    def _record(
        self, entry: BucketEntry, rename: Rename, found: ObjectRecord, destination: Slot
    ) -> ObjectRecord:
        """All that is recorded stays, the date of the last modification too."""
        owner = found.group_owner or rename.source
        record = msgspec.structs.replace(
            found,
            commit_id=rename.commit_id,
            group_owner=b"" if owner == rename.destination else owner,
        )
        if not entry.record.versioning:
            return record
        stamp = self._commits.stamp(entry, above=destination.order)
        return msgspec.structs.replace(record, version_id=stamp.version_id, order=stamp.order)

    def _plain_txn(
        self, entry: BucketEntry, source: Slot, destination: Slot, record: ObjectRecord
    ) -> Txn:
        writes = versions.rename(source, destination, record, self._now_ms())
        compares = (
            entry.unchanged,
            unchanged(source.object_key, source.object_revision),
            unchanged(destination.object_key, destination.object_revision),
        )
        return Txn(compares, writes.operations(_narrow_too(source, destination)))

    def _version_txn(
        self, entry: BucketEntry, source: Slot, destination: Slot, record: ObjectRecord
    ) -> Txn:
        now_ms = self._now_ms()
        stamp = self._commits.stamp(entry, above=source.order)
        marker = ObjectRecord(
            owner=entry.record.owner,
            group=b"",
            size_bytes=0,
            etag=b"",
            modified_ms=now_ms,
            commit_id=self._randomness.token(8),
            delete_marker=True,
            version_id=stamp.version_id,
            order=stamp.order,
        )
        self._commits.demand_unlocked(versions.replaced_null(source, marker))
        self._commits.demand_unlocked(versions.replaced_null(destination, record))
        left = versions.succeed(source, marker, encode(marker), now_ms)
        made = versions.succeed(destination, record, encode(record), now_ms)
        compares = (
            entry.unchanged,
            *source.compares,
            *destination.compares,
            *null_unchanged(source),
            *null_unchanged(destination),
        )
        narrow = (Put(keys.narrow(destination.object_key), b""),) if source.narrow else ()
        return Txn(compares, (*left.operations(), *made.operations(narrow)))

    def _now_ms(self) -> int:
        return self._clock.now_ns() // 1_000_000


def _narrow_too(source: Slot, destination: Slot) -> tuple[Operation, ...]:
    """What waits to be re-encoded waits under its new key."""
    if not source.narrow:
        return ()
    return (
        DeleteRange(keys.narrow(source.object_key)),
        Put(keys.narrow(destination.object_key), b""),
    )
