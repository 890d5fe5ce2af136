"""The metadata repository: everything operations read and commit goes through here."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from gateway.domain.listing import From, Page, Position
from gateway.domain.newness import ENOUGH_IN_A_ROW, ENOUGH_WHERE_READS_ARE_CHEAP, Newness
from gateway.metadata import groups, keys
from gateway.metadata.accounts import Accounts, Identity
from gateway.metadata.admission import admit_to_bucket, admit_to_object
from gateway.metadata.buckets import Buckets, OwnedBuckets
from gateway.metadata.commits import Commits
from gateway.metadata.credentials import Credentials
from gateway.metadata.entries import (
    BucketEntry,
    ObjectEntry,
    object_entry,
)
from gateway.metadata.errors import BucketBusy
from gateway.metadata.identities import Identities
from gateway.metadata.outcomes import Transactions
from gateway.metadata.quotas import Quotas
from gateway.metadata.records import BucketRecord, ObjectRecord, decode
from gateway.metadata.renames import Renames
from gateway.metadata.sealing import SealingKey
from gateway.metadata.version_store import Versions
from gateway.metadata.watching import Watcher
from gateway.s3.message import Principal
from placement.clock import Clock, Randomness
from placement.metastore.port import (
    Guarded,
    GuardedScan,
    Metastore,
    Range,
    RangeResult,
    Txn,
    prefix_end,
)

_REFRESHES_MAX = 8


class BucketPages:
    """The `PageSource` over a bucket's current objects; values are encoded records.

    Every page is read together with the bucket's key, so that a bucket that was deleted and made
    again is never listed from its former id.
    """

    def __init__(self, metadata: "Metadata", entry: BucketEntry) -> None:
        self._metadata = metadata
        self._entry = entry
        self._objects = keys.objects_of(entry.bucket_id)

    async def page(self, prefix: bytes, start: Position, limit: int) -> Page:
        """Raises NoSuchBucket when the bucket is not the one it was."""
        first = self._objects + keys.escape(prefix)
        begin = max(first, self._begin(start))
        end = prefix_end(first)
        if begin >= end:
            return Page([], [], more=False)
        record_keys, values, more = await self._read(begin, end, limit)
        found = [key[10:-2] for key in record_keys]
        if b"\x00" in b"".join(found):
            found = [keys.unescape(key) for key in found]
        return Page(found, values, more)

    async def _read(
        self, begin: bytes, end: bytes, limit: int
    ) -> tuple[list[bytes], list[bytes], bool]:
        entry = self._entry
        reads_now = self._metadata.reads_now
        if reads_now is not None:
            scan = reads_now.scan_guarded_now(begin, end, limit, entry.key)
            if scan.guard_revision == entry.mod_revision:
                return scan.keys, scan.values, scan.more
        (result,) = await self._metadata.snapshot(entry, (Range(begin, end, limit),))
        return [kv.key for kv in result.kvs], [kv.value for kv in result.kvs], result.more

    def _begin(self, start: Position) -> bytes:
        if start.origin is From.AFTER:
            return self._objects + keys.escape(start.key) + keys.END + b"\x00"
        bound = self._objects + keys.escape(start.key)
        return prefix_end(bound) if start.origin is From.PAST else bound


@runtime_checkable
class ReadsNow(Protocol):
    """A metadata store that can be read without waiting, as the embedded one can."""

    def get_guarded_now(self, key: bytes, guard: bytes) -> Guarded:
        """The key and the guard's revision, at one instant."""
        ...

    def scan_guarded_now(self, key: bytes, end: bytes, limit: int, guard: bytes) -> GuardedScan:
        """The same of the first keys in [key, end)."""
        ...


class Metadata:
    """Buckets, objects, identities. One a process; `start` and `close` inside the running loop.

    Errors: `gateway.metadata.errors` and those of the metadata port (`MetastoreUnavailable`,
    `OutcomeUnknown`: after the latter nobody may delete the shards concerned).
    """

    def __init__(
        self,
        metastore: Metastore,
        *,
        clock: Clock,
        randomness: Randomness,
        sealing_key: SealingKey,
    ) -> None:
        self.metastore = metastore
        self.transactions = Transactions(metastore, clock=clock, randomness=randomness)
        self.buckets = Buckets(metastore, self.transactions, clock=clock, randomness=randomness)
        credentials = Credentials(clock=clock, randomness=randomness, sealing_key=sealing_key)
        self.accounts = Accounts(
            metastore,
            self.transactions,
            clock=clock,
            randomness=randomness,
            credentials=credentials,
        )
        self.identities = Identities(metastore, self.transactions, credentials, randomness)
        self.quotas = Quotas(metastore, self.transactions, clock=clock, randomness=randomness)
        self.commits = Commits(
            metastore,
            self.transactions,
            self.buckets,
            self.quotas,
            clock=clock,
            randomness=randomness,
        )
        """Of object records."""
        self.versions = Versions(self, self.commits.versions)
        self.renames = Renames(
            metastore,
            self.transactions,
            self.buckets,
            self.commits.versions,
            self.quotas,
            clock=clock,
            randomness=randomness,
        )
        self._clock = clock
        self.reads_now = metastore if isinstance(metastore, ReadsNow) else None
        self.newness = Newness(
            ENOUGH_IN_A_ROW if self.reads_now is None else ENOUGH_WHERE_READS_ARE_CHEAP
        )
        self._get_guarded_now = None if self.reads_now is None else self.reads_now.get_guarded_now
        self._watchers = (
            Watcher(
                metastore,
                (keys.BUCKETS,),
                clock=clock,
                randomness=randomness,
                changed=self.buckets.changed,
                lost=self.buckets.clear,
            ),
            Watcher(
                metastore,
                (keys.ACCOUNTS, keys.ACCESS_KEYS, keys.IDENTITIES),
                clock=clock,
                randomness=randomness,
                changed=lambda _: self.accounts.clear(),
                lost=self.accounts.clear,
            ),
        )

    def start(self) -> None:
        """Begin to watch buckets, identities, quotas and settings."""
        self.quotas.mirror.start()
        for watcher in self._watchers:
            watcher.start()

    async def close(self) -> None:
        """End the watches. The metastore is closed by whoever opened it."""
        await self.quotas.mirror.close()
        for watcher in self._watchers:
            await watcher.close()

    # Who is asking

    def identity_now(self, access_key: str) -> Identity | None:
        """The cached identity; None says nothing, then ask `identity`."""
        return self.accounts.cached_identity(access_key)

    async def identity(self, access_key: str) -> Identity | None:
        """(principal, secret) of an access key; None when there is none."""
        return await self.accounts.identity(access_key)

    async def session_identity(self, access_key: str, token: str) -> Identity | None:
        """The same of a session's credentials. Raises SessionExpired."""
        return await self.accounts.session_identity(access_key, token)

    # Buckets

    async def bucket(self, name: str, principal: Principal) -> BucketEntry:
        """The bucket as it is now. Raises NoSuchBucket, NotBucketOwner."""
        return await self.buckets.read(name, principal)

    async def create_bucket(
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
        """Raises BucketOwned, BucketTaken, TooManyBuckets, BucketBusy."""
        return await self.buckets.create(
            name,
            principal,
            region,
            ownership=ownership,
            acl=acl,
            public_access_block=public_access_block,
            object_lock=object_lock,
            tags=tags,
        )

    async def delete_bucket(self, name: str, principal: Principal) -> None:
        """Raises NoSuchBucket, NotBucketOwner, BucketNotEmpty, BucketBusy."""
        await self.buckets.delete(name, principal)

    async def change_bucket(
        self, name: str, principal: Principal, change: Callable[[BucketRecord], BucketRecord]
    ) -> BucketEntry:
        """Change a bucket's settings. Raises NoSuchBucket, NotBucketOwner, BucketBusy."""
        return await self.buckets.change(name, principal, change)

    async def owned_buckets(
        self, principal: Principal, *, prefix: str, after: str, region: str | None, limit: int
    ) -> OwnedBuckets:
        """A page of the caller's buckets."""
        return await self.buckets.owned(
            principal.account_id, prefix=prefix, after=after, region=region, limit=limit
        )

    # Objects

    def lookup_now(
        self, bucket: str, key: str, principal: Principal
    ) -> tuple[BucketEntry, ObjectEntry | None] | None:
        """As `lookup`, without waiting; None when that is not possible just now."""
        entry = self.buckets.cached.get(bucket)
        if entry is None or self._get_guarded_now is None:
            return None
        record_key = keys.object_(entry.bucket_id, key.encode())
        revision, value, mod_revision = self._get_guarded_now(
            record_key, keys.BUCKETS + bucket.encode()
        )
        if revision != entry.mod_revision:
            return None
        current = None
        if value is not None:
            assert mod_revision is not None
            current = ObjectEntry(record_key, decode(ObjectRecord, value), mod_revision)
        if entry.plain_owner != principal.plain_account or (
            current is not None and current.record.owner != principal.account_id
        ):
            admit_to_object(entry, current, principal)
        return entry, current

    async def lookup(
        self, bucket: str, key: str, principal: Principal
    ) -> tuple[BucketEntry, ObjectEntry | None]:
        """The bucket and the object as they were at one instant after the call; linearizable.

        Raises NoSuchBucket, NotBucketOwner, BucketBusy.
        """
        done = self.lookup_now(bucket, key, principal)
        if done is not None:
            return done
        plain_key = key.encode()
        for _ in range(_REFRESHES_MAX):
            entry = await self.buckets.guess(bucket)
            record_key = keys.object_(entry.bucket_id, plain_key)
            found_bucket, found = await self.metastore.get_many((entry.key, record_key))
            current = self.buckets.remember(bucket, found_bucket)
            if current.bucket_id == entry.bucket_id:
                existing = object_entry(record_key, found)
                admit_to_object(current, existing, principal)
                return current, existing
            admit_to_bucket(current, principal)
        raise BucketBusy(bucket)

    def bucket_for_new(self, bucket: str) -> BucketEntry | None:
        """The bucket as last known, if a write may begin on the presumption that it is still so and
        that the key is new (`Commits.commit` with `presumed`); None: use `lookup`. Nobody was
        admitted yet. Never where versions or quotas want to know what is there."""
        if self.quotas.active:
            return None
        entry = self.buckets.cached.get(bucket)
        if entry is None or entry.record.versioning or not self.newness.expects(entry.bucket_id):
            return None
        return entry

    async def snapshot(
        self, entry: BucketEntry, requests: Sequence[Range]
    ) -> tuple[RangeResult, ...]:
        """Ranges inside a bucket, read at one instant at which the bucket was that one.

        Raises NoSuchBucket when it was deleted, or made again, since the entry was read.
        """
        bucket, *results = await self.metastore.read((Range(entry.key), *requests))
        kv = bucket.kvs[0] if bucket.kvs else None
        self.buckets.same(entry, kv)
        return tuple(results)

    def pages(self, entry: BucketEntry) -> BucketPages:
        """A bucket's objects for `domain.listing`. Take the entry fresh from `bucket`."""
        return BucketPages(self, entry)

    async def may_reclaim(self, group: bytes, owner_key: bytes) -> Txn | None:
        """For the keeper: the transaction that claims a group, or None while it is used. See
        `groups.claim`."""
        return await groups.claim(
            self.metastore, group, owner_key, now_ms=self._clock.now_ns() // 1_000_000
        )
