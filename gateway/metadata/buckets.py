"""Buckets: the cache that finds their ids, and the transactions that make and delete them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from gateway.domain.versions import ENABLED
from gateway.metadata import groups, keys
from gateway.metadata.admission import admit_to_bucket
from gateway.metadata.cors import stored_cors
from gateway.metadata.entries import BucketEntry
from gateway.metadata.errors import (
    BucketBusy,
    BucketNotEmpty,
    BucketOwned,
    BucketTaken,
    NoSuchAccount,
    NoSuchBucket,
    TooManyBuckets,
)
from gateway.metadata.lifecycle import stored_lifecycle
from gateway.metadata.outcomes import Doubt, Transactions
from gateway.metadata.policies import stored_policy
from gateway.metadata.records import BucketRecord, GarbageRecord, UploadRecord, decode, encode
from gateway.s3.message import Principal
from placement.clock import Clock, Randomness
from placement.ids import BucketId
from placement.metastore.port import (
    Compare,
    DeleteRange,
    KeyValue,
    Metastore,
    Operation,
    Put,
    Range,
    Relation,
    Target,
    Txn,
    absent,
    exists,
    prefix_end,
    unchanged,
)

BUCKETS_CACHED_MAX = 10_000
BUCKETS_OWNED_MAX = 10_000
"""Buckets an account may own. Source: S3 User Guide, "Bucket quotas" (the default quota)."""
BUCKET_ID_SIZE_BYTES = 8
_UPLOADS_A_STEP = 50
_CREATE_TRIES = 8
"""A write window was closed meanwhile, or a bucket of that name made and deleted."""
_DELETE_TRIES = 8
_CHANGE_TRIES = 20


def entry_of(name: str, found: KeyValue) -> BucketEntry:
    """A bucket's record as read."""
    record = decode(BucketRecord, found.value)
    policy = stored_policy(record.policy, name) if record.policy else None
    return BucketEntry(
        name,
        record,
        found.mod_revision,
        BucketId(record.bucket_id),
        record.owner if policy is None else "",
        policy,
        stored_cors(record.cors, name) if record.cors else (),
        stored_lifecycle(record.lifecycle, name) if record.lifecycle else (),
    )


@dataclass(frozen=True, slots=True)
class OwnedBucket:
    """One line of ListBuckets."""

    name: str
    created_ms: int
    region: str


@dataclass(frozen=True, slots=True)
class OwnedBuckets:
    """A page of ListBuckets; `more` when there are buckets after the last."""

    buckets: tuple[OwnedBucket, ...]
    more: bool


class Buckets:
    """Reads and writes of buckets.

    The cache serves only to guess a bucket's id before it is read: whoever uses an entry reads or
    compares the bucket's key in the same snapshot or transaction as what he wants in it. So a stale
    entry costs a second read and nothing else. What is absent is never cached.
    """

    def __init__(
        self,
        metastore: Metastore,
        transactions: Transactions,
        *,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._metastore = metastore
        self._transactions = transactions
        self._clock = clock
        self._randomness = randomness
        self.cached: dict[str, BucketEntry] = {}

    def changed(self, key: bytes) -> None:
        """A bucket's key changed."""
        self.cached.pop(key[len(keys.BUCKETS) :].decode(), None)

    def clear(self) -> None:
        """Changes may have been missed."""
        self.cached.clear()

    def remember(self, name: str, found: KeyValue | None) -> BucketEntry:
        """Take in what was just read of a bucket's key. Raises NoSuchBucket."""
        if found is None:
            self.cached.pop(name, None)
            raise NoSuchBucket(name)
        entry = self.cached.get(name)
        if entry is not None and entry.mod_revision == found.mod_revision:
            return entry
        entry = entry_of(name, found)
        if len(self.cached) >= BUCKETS_CACHED_MAX:
            del self.cached[next(iter(self.cached))]
        self.cached[name] = entry
        return entry

    async def read(self, name: str, principal: Principal) -> BucketEntry:
        """The bucket as it is now. Raises NoSuchBucket, NotBucketOwner."""
        entry = await self.read_unasked(name)
        admit_to_bucket(entry, principal)
        return entry

    async def read_unasked(self, name: str) -> BucketEntry:
        """The bucket as it is now, for what anybody may know of it. Raises NoSuchBucket."""
        (found,) = await self._metastore.get_many([keys.bucket(name)])
        return self.remember(name, found)

    def same(self, entry: BucketEntry, found: KeyValue | None) -> BucketEntry:
        """The bucket as it is now (read as `found`), if it is still the one that was looked up.
        Raises NoSuchBucket."""
        current = self.remember(entry.name, found)
        if current.bucket_id != entry.bucket_id:
            raise NoSuchBucket(entry.name)
        return current

    async def guess(self, name: str) -> BucketEntry:
        """The bucket as cached, else as read. Raises NoSuchBucket."""
        entry = self.cached.get(name)
        if entry is not None:
            return entry
        (found,) = await self._metastore.get_many([keys.bucket(name)])
        return self.remember(name, found)

    async def create(
        self,
        name: str,
        principal: Principal,
        region: str,
        *,
        ownership: str = "",
        acl: tuple[tuple[str, str], ...] | None = None,
        public_access_block: tuple[bool, bool, bool, bool] | None = None,
        object_lock: bool = False,
        tags: tuple[tuple[str, str], ...] = (),
    ) -> BucketEntry:
        """Make a bucket. The name was checked before. Object lock brings versioning.

        Raises BucketOwned, BucketTaken, TooManyBuckets, NoSuchAccount (deleted meanwhile),
        BucketBusy.
        """
        key = keys.bucket(name)
        account_key = keys.account(principal.account_id)
        owned = keys.owned_buckets(principal.account_id)
        present, counted = await self._metastore.read(
            [Range(key), Range(owned, prefix_end(owned), count_only=True)]
        )
        if present.kvs:
            raise self._conflict(name, present.kvs[0], principal)
        if counted.count >= BUCKETS_OWNED_MAX:
            raise TooManyBuckets(f"an account may own {BUCKETS_OWNED_MAX} buckets")
        record = BucketRecord(
            bucket_id=self._randomness.token(BUCKET_ID_SIZE_BYTES),
            owner=principal.account_id,
            region=region,
            created_ms=self._now_ms(),
            ownership=ownership,
            acl=acl,
            public_access_block=public_access_block,
            object_lock=object_lock,
            versioning=ENABLED if object_lock else "",
            tags=tags,
        )
        value = encode(record)
        puts = (Put(key, value), Put(keys.owned_bucket(principal.account_id, name), value))
        with Doubt() as doubt:
            for _ in range(_CREATE_TRIES):
                once = await groups.for_once(self._metastore, keys.ended(record.bucket_id))
                txn = Txn((absent(key), exists(account_key), *once), puts)
                doubt.raised = not (await self._transactions.run(txn)).certain
                found, account = await self._metastore.get_many([key, account_key])
                if found is not None:
                    entry = self.remember(name, found)
                    # Ours, or (after a lost race) another's; also settles an unknown outcome.
                    if entry.record.bucket_id == record.bucket_id:
                        return entry
                    raise self._conflict(name, found, principal)
                if account is None:
                    raise NoSuchAccount(f"account {principal.account_id} does not exist any more")
                if doubt.raised:
                    break
            raise BucketBusy(name)

    def _conflict(
        self, name: str, found: KeyValue, principal: Principal
    ) -> BucketOwned | BucketTaken:
        entry = self.remember(name, found)
        if entry.record.owner == principal.account_id:
            return BucketOwned(name, entry.record.region)
        return BucketTaken(name)

    async def delete(self, name: str, principal: Principal) -> None:
        """Delete an empty bucket; multipart uploads in it are aborted, as S3 does.

        Raises NoSuchBucket, NotBucketOwner, BucketNotEmpty, BucketBusy.
        """
        lost = 0
        while lost < _DELETE_TRIES:
            entry = await self.read(name, principal)
            objects = keys.objects_of(entry.bucket_id)
            markers = keys.marker(objects)  # while a key has any version, one of them is current
            uploads = keys.uploads_of(entry.bucket_id)
            # A range compare over a full bucket would load it: look with limit 1 first.
            inside, marked, pending = await self._metastore.read(
                [
                    Range(objects, prefix_end(objects), limit=1, keys_only=True),
                    Range(markers, prefix_end(markers), limit=1, keys_only=True),
                    Range(uploads, prefix_end(uploads), limit=_UPLOADS_A_STEP),
                ]
            )
            if inside.kvs or marked.kvs:
                raise BucketNotEmpty(name)
            compares = [
                entry.unchanged,
                Compare(objects, Target.VERSION, Relation.EQUAL, 0, prefix_end(objects)),
                Compare(markers, Target.VERSION, Relation.EQUAL, 0, prefix_end(markers)),
            ]
            operations: list[Operation] = []
            for upload in pending.kvs:
                compares.append(unchanged(upload.key, upload.mod_revision))
                operations.extend(self._end_upload(upload))
            if not pending.more:
                # No upload was begun or changed since they were read.
                compares.append(
                    Compare(
                        uploads,
                        Target.MOD_REVISION,
                        Relation.LESS,
                        pending.revision + 1,
                        prefix_end(uploads),
                    )
                )
                operations.append(DeleteRange(entry.key))
                operations.append(
                    DeleteRange(keys.owned_bucket(entry.record.owner, name)),
                )
                operations.append(DeleteRange(keys.bucket_quota(entry.bucket_id)))
                operations.append(groups.end_told(entry.bucket_id, self._now_ms()))
            applied = await self._transactions.run(Txn(tuple(compares), tuple(operations)))
            if applied.succeeded and not pending.more:
                self.cached.pop(name, None)
                return
            if not applied.certain and await self._is_gone(entry):
                return
            lost += not applied.succeeded
        raise BucketBusy(name)

    async def change(
        self, name: str, principal: Principal, change: Callable[[BucketRecord], BucketRecord]
    ) -> BucketEntry:
        """Replace the bucket's settings by what `change` makes of them; the bucket as it is now.

        A lost race is tried again on what is there then. Raises NoSuchBucket, NotBucketOwner,
        BucketBusy, OutcomeUnknown.
        """
        return await self._change(name, lambda: self.read(name, principal), change)

    async def change_unasked(
        self, name: str, change: Callable[[BucketRecord], BucketRecord]
    ) -> BucketEntry:
        """The same for the operator, whoever owns the bucket."""
        return await self._change(name, lambda: self.read_unasked(name), change)

    async def _change(
        self,
        name: str,
        read: Callable[[], Awaitable[BucketEntry]],
        change: Callable[[BucketRecord], BucketRecord],
    ) -> BucketEntry:
        for attempt in range(_CHANGE_TRIES):
            entry = await read()
            record = msgspec.structs.replace(
                change(entry.record), settings_revision=entry.record.settings_revision + 1
            )
            assert record.bucket_id == entry.record.bucket_id
            value = encode(record)
            # The index by owner serves ListBuckets, which shows no settings.
            listed = encode(
                msgspec.structs.replace(record, policy=b"", cors=b"", lifecycle=b"", website=b"")
            )
            puts = (Put(entry.key, value), Put(keys.owned_bucket(record.owner, name), listed))
            applied = await self._transactions.run(Txn((entry.unchanged,), puts))
            # Read again also to fill the cache; and it settles an unknown outcome: an equal record
            # is what was asked for, whoever wrote it. The change may have been the last thing that
            # the caller was permitted.
            (found,) = await self._metastore.get_many([entry.key])
            current = self.remember(name, found)
            if applied.succeeded or (not applied.certain and current.record == record):
                return current
            await self._transactions.pause(attempt, first_seconds=0.001)
        raise BucketBusy(name)

    def _end_upload(self, upload: KeyValue) -> tuple[Operation, ...]:
        record = decode(UploadRecord, upload.value)
        if record.state == "done":  # the object that it became has taken over its group
            return (DeleteRange(upload.key),)
        garbage = GarbageRecord(
            commit_id=b"",
            queued_ms=self._now_ms(),
            group=record.upload_id,
            owner_key=upload.key,
            manifest=record.manifest,
        )
        return (
            DeleteRange(upload.key),
            Put(keys.garbage(record.upload_id), encode(garbage)),
        )

    def _now_ms(self) -> int:
        return self._clock.now_ns() // 1_000_000

    async def _is_gone(self, entry: BucketEntry) -> bool:
        (found,) = await self._metastore.get_many([entry.key])
        return found is None or decode(BucketRecord, found.value).bucket_id != entry.bucket_id

    async def owned(
        self, account_id: str, *, prefix: str, after: str, region: str | None, limit: int
    ) -> OwnedBuckets:
        """A page of an account's buckets in order of name, after the given name.

        `region` leaves out the others. `limit` from 1 to 10,000.
        """
        index = keys.owned_buckets(account_id)
        start = index + max(prefix.encode(), after.encode() + b"\x00" if after else b"")
        end = prefix_end(index + prefix.encode())
        buckets: list[OwnedBucket] = []
        while start < end:
            page = await self._metastore.range(Range(start, end, limit=min(limit + 1, 1000)))
            for found in page.kvs:
                record = decode(BucketRecord, found.value)
                if region is not None and record.region != region:
                    continue
                if len(buckets) == limit:
                    return OwnedBuckets(tuple(buckets), more=True)
                name = found.key[len(index) :].decode()
                buckets.append(OwnedBucket(name, record.created_ms, record.region))
            if not page.more:
                break
            start = page.kvs[-1].key + b"\x00"
        return OwnedBuckets(tuple(buckets), more=False)
