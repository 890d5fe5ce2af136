"""What operators ask about buckets: what they hold, their quotas, and the settings of the whole store."""

import heapq
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from gateway.domain.encryption import AES256
from gateway.domain.quotas import NOTHING, Quota
from gateway.metadata import keys
from gateway.metadata.buckets import entry_of
from gateway.metadata.entries import BucketEntry
from gateway.metadata.errors import (
    BucketBusy,
    Contended,
    NoSuchAccount,
    NoSuchBucket,
    QuotaInvalid,
)
from gateway.metadata.limit_changes import (
    change_settings,
    quota_at,
    set_account_quota,
    set_bucket_quota,
    store_settings,
    usage_of,
)
from gateway.metadata.limit_records import QuotaRecord, StoreSettings, UsageRecord
from gateway.metadata.quotas import Quotas
from gateway.metadata.records import AccountRecord, decode
from gateway.metadata.store import Metadata
from ops.admin_errors import AdminError
from ops.keeper.bucket_counts import BucketCount
from ops.metrics import BucketHeld
from placement.clock import Clock
from placement.errors import MetastoreUnavailable, OutcomeUnknown
from placement.metastore.port import KeyValue, Range, prefix_end

BUCKETS_A_PAGE: Final = 500
COUNT_SECONDS_MAX: Final = 20.0
"""So long a bucket that the keeper does not follow is read to show what it holds."""
BUCKET_METRICS_MAX: Final = 1000
"""Of so many buckets at most metrics tell what they hold: each is two more series."""
NO_ENCRYPTION: Final = "none"
_KEYS_A_READ: Final = 100
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Held:
    """What a bucket holds. `source`: "followed" by the keeper as it changes, "counted" just now, or
    "at least", when counting took too long. Noncurrent: versions that are not current, delete markers
    left out; parts: of unfinished uploads."""

    source: str
    counted_ms: int
    objects: int
    size_bytes: int
    noncurrent: int
    noncurrent_bytes: int
    parts: int
    parts_bytes: int


@dataclass(frozen=True, slots=True)
class Limit:
    """A quota; None: no limit."""

    max_bytes: int | None = None
    max_objects: int | None = None


@dataclass(frozen=True, slots=True)
class BucketView:
    """A bucket as operators see it; `held` None: nobody counts it."""

    name: str
    owner: str
    region: str
    created_ms: int
    versioning: str
    object_lock: bool
    quota: Limit | None
    held: Held | None


@dataclass(frozen=True, slots=True)
class BucketPage:
    """Some buckets in order of name; `more` when there are others after them."""

    buckets: tuple[BucketView, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account's quota, and what its buckets hold together as far as they are counted."""

    account_id: str
    name: str
    quota: Limit | None
    size_bytes: int
    objects: int


@dataclass(frozen=True, slots=True)
class SettingsView:
    """The settings of the whole store. `default_encryption`: none or AES256."""

    default_encryption: str
    bucket_metrics: int


class Limits:
    """Carries it out. Methods raise AdminError."""

    def __init__(self, metadata: Metadata, clock: Clock) -> None:
        self._metadata = metadata
        self._clock = clock

    async def buckets(self, after: str) -> BucketPage:
        """A page of the buckets of all accounts, with what is known of them."""
        start = keys.bucket(after) + b"\x00" if after else keys.BUCKETS
        request = Range(start, prefix_end(keys.BUCKETS), limit=BUCKETS_A_PAGE)
        page = await _answered(self._metadata.metastore.range(request))
        entries = [entry_of(kv.key[len(keys.BUCKETS) :].decode(), kv) for kv in page.kvs]
        usages = await self._values([keys.usage(each.bucket_id) for each in entries])
        quotas = await self._values([keys.bucket_quota(each.bucket_id) for each in entries])
        views = [
            _view(
                entry,
                None if quota is None else decode(QuotaRecord, quota.value).quota,
                None if usage is None else _followed(decode(UsageRecord, usage.value)),
            )
            for entry, usage, quota in zip(entries, usages, quotas, strict=True)
        ]
        return BucketPage(tuple(views), page.more)

    async def _values(self, wanted: list[bytes]) -> list[KeyValue | None]:
        found: list[KeyValue | None] = []
        for begin in range(0, len(wanted), _KEYS_A_READ):
            step = wanted[begin : begin + _KEYS_A_READ]
            found += await _answered(self._metadata.metastore.get_many(step))
        return found

    async def bucket(self, name: str) -> BucketView:
        """One bucket. What the keeper does not follow is counted now."""
        entry = await _answered(self._metadata.buckets.read_unasked(name))
        key = keys.bucket_quota(entry.bucket_id)
        quota = await _answered(quota_at(self._metadata, key))
        usage = await _answered(usage_of(self._metadata, entry.bucket_id))
        held = await self._counted(entry) if usage is None else _followed(usage)
        return _view(entry, quota, held)

    async def _counted(self, entry: BucketEntry) -> Held:
        count = BucketCount(bytes(entry.bucket_id), entry.name, entry.record.owner, {})
        until = self._clock.monotonic() + COUNT_SECONDS_MAX
        source = "counted"
        while (request := count.begin()) is not None:
            if self._clock.monotonic() > until:
                source = "at least"
                break
            count.read(await _answered(self._metadata.metastore.range(request)))
        return _held(count.usage(0, self._clock.now_ns() // 1_000_000), source)

    async def set_bucket_quota(self, name: str, limit: Limit | None) -> BucketView:
        """Give it one, or (None) take it away."""
        await _answered(set_bucket_quota(self._metadata, name, _quota(limit)))
        entry = await _answered(self._metadata.buckets.read_unasked(name))
        return _view(entry, _quota(limit), None)

    async def bucket_quota(self, name: str) -> BucketView:
        """The bucket with its quota, and what it holds if the keeper follows it."""
        entry = await _answered(self._metadata.buckets.read_unasked(name))
        key = keys.bucket_quota(entry.bucket_id)
        quota = await _answered(quota_at(self._metadata, key))
        usage = await _answered(usage_of(self._metadata, entry.bucket_id))
        return _view(entry, quota, None if usage is None else _followed(usage))

    async def set_account_quota(self, name: str, limit: Limit | None) -> AccountView:
        """The same of all buckets of an account together."""
        await _answered(set_account_quota(self._metadata, name, _quota(limit)))
        return await self.account_quota(name)

    async def account_quota(self, name: str) -> AccountView:
        """An account's quota and what its counted buckets hold."""
        record: AccountRecord = await _answered(self._metadata.accounts.named(name))
        key = keys.account_quota(record.account_id)
        quota = await _answered(quota_at(self._metadata, key))
        held = NOTHING
        for usage in self._metadata.quotas.usage.values():
            if usage.owner == record.account_id:
                held = held.plus(usage.amount)
        return AccountView(record.account_id, record.name, _limit(quota), *held)

    async def settings(self) -> SettingsView:
        """As they are now."""
        return _shown(await _answered(store_settings(self._metadata)))

    async def set_settings(
        self, default_encryption: str | None, bucket_metrics: int | None
    ) -> SettingsView:
        """Change what is not None."""
        if default_encryption not in (None, NO_ENCRYPTION, AES256):
            raise AdminError(400, "InvalidInput", "The default encryption is AES256 or none.")
        if bucket_metrics is not None and not 0 <= bucket_metrics <= BUCKET_METRICS_MAX:
            raise AdminError(
                400, "InvalidInput", f"Metrics tell of 0 to {BUCKET_METRICS_MAX} buckets."
            )

        def change(now: StoreSettings) -> StoreSettings:
            if default_encryption is not None:
                algorithm = "" if default_encryption == NO_ENCRYPTION else default_encryption
                now = msgspec.structs.replace(now, default_encryption=algorithm)
            if bucket_metrics is not None:
                now = msgspec.structs.replace(now, bucket_metrics=bucket_metrics)
            return now

        return _shown(await _answered(change_settings(self._metadata, change)))


def largest_buckets(quotas: Quotas) -> tuple[BucketHeld, ...]:
    """What metrics tell of buckets: of as many as the settings say, the largest."""
    most = min(quotas.settings.bucket_metrics, BUCKET_METRICS_MAX)
    largest = heapq.nlargest(
        most, quotas.usage.items(), key=lambda item: (item[1].amount.size_bytes, item[1].bucket)
    )
    found = []
    for bucket_id, usage in largest:
        record = quotas.buckets.get(bucket_id)
        limit = Quota() if record is None else record.quota
        amount = usage.amount
        found.append(
            BucketHeld(
                usage.bucket,
                amount.objects,
                amount.size_bytes,
                limit.objects_max,
                limit.size_bytes_max,
            )
        )
    return tuple(found)


async def _answered(work: Awaitable[T]) -> T:
    """The work's result; what the repository refuses in an operator's words."""
    try:
        return await work
    except (NoSuchBucket, NoSuchAccount) as error:
        raise AdminError(404, "NoSuchEntity", str(error)) from error
    except QuotaInvalid as error:
        raise AdminError(400, "InvalidInput", str(error)) from error
    except (BucketBusy, Contended) as error:
        raise AdminError(409, "ConcurrentModification", str(error)) from error
    except (MetastoreUnavailable, OutcomeUnknown) as error:
        raise AdminError(503, "ServiceUnavailable", str(error)) from error


def _view(entry: BucketEntry, quota: Quota | None, held: Held | None) -> BucketView:
    record = entry.record
    return BucketView(
        name=entry.name,
        owner=record.owner,
        region=record.region,
        created_ms=record.created_ms,
        versioning=record.versioning,
        object_lock=record.object_lock,
        quota=_limit(quota),
        held=held,
    )


def _followed(usage: UsageRecord) -> Held:
    return _held(usage, "followed")


def _held(usage: UsageRecord, source: str) -> Held:
    return Held(
        source=source,
        counted_ms=usage.counted_ms,
        objects=usage.objects,
        size_bytes=usage.size_bytes,
        noncurrent=usage.noncurrent,
        noncurrent_bytes=usage.noncurrent_bytes,
        parts=usage.parts,
        parts_bytes=usage.parts_bytes,
    )


def _quota(limit: Limit | None) -> Quota | None:
    return None if limit is None else Quota(limit.max_bytes, limit.max_objects)


def _limit(quota: Quota | None) -> Limit | None:
    return None if quota is None else Limit(*quota)


def _shown(settings: StoreSettings) -> SettingsView:
    return SettingsView(settings.default_encryption or NO_ENCRYPTION, settings.bucket_metrics)
