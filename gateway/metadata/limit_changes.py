"""Setting quotas, and the settings of the whole store. What is set holds in every process as soon as its
watch tells it: within milliseconds, unless the watch is broken."""

from collections.abc import Callable

from gateway.domain.quotas import QUOTA_MAX, Quota
from gateway.metadata import keys
from gateway.metadata.errors import BucketBusy, Contended, QuotaInvalid
from gateway.metadata.limit_records import QuotaRecord, StoreSettings, UsageRecord
from gateway.metadata.records import decode, encode
from gateway.metadata.store import Metadata
from placement.metastore.port import (
    Compare,
    DeleteRange,
    Operation,
    Put,
    Txn,
    exists,
    unchanged,
)

_TRIES = 20


async def set_bucket_quota(metadata: Metadata, bucket: str, quota: Quota | None) -> None:
    """Give a bucket a quota, or (None) take it away. Raises NoSuchBucket, QuotaInvalid, BucketBusy."""
    for attempt in range(_TRIES):
        entry = await metadata.buckets.read_unasked(bucket)
        change = _change(keys.bucket_quota(entry.bucket_id), quota, bucket)
        if await _applied(metadata, entry.unchanged, change):
            return
        await metadata.transactions.pause(attempt, first_seconds=0.001)
    raise BucketBusy(bucket)


async def set_account_quota(metadata: Metadata, name_or_id: str, quota: Quota | None) -> None:
    """The same of an account: of all its buckets together. Raises NoSuchAccount, QuotaInvalid."""
    record = await metadata.accounts.named(name_or_id)
    change = _change(keys.account_quota(record.account_id), quota, "")
    if not await _applied(metadata, exists(keys.account(record.account_id)), change):
        raise Contended(f"account {record.name} was deleted meanwhile")


async def quota_at(metadata: Metadata, key: bytes) -> Quota | None:
    """The quota under that key, as it is now."""
    (found,) = await metadata.metastore.get_many([key])
    return None if found is None else decode(QuotaRecord, found.value).quota


async def usage_of(metadata: Metadata, bucket_id: bytes) -> UsageRecord | None:
    """What the keeper last published of a bucket; None when it is not counted, or not yet."""
    (found,) = await metadata.metastore.get_many([keys.usage(bucket_id)])
    return None if found is None else decode(UsageRecord, found.value)


async def store_settings(metadata: Metadata) -> StoreSettings:
    """The settings of the whole store, as they are now."""
    (found,) = await metadata.metastore.get_many([keys.STORE_SETTINGS])
    return StoreSettings() if found is None else decode(StoreSettings, found.value)


async def change_settings(
    metadata: Metadata, change: Callable[[StoreSettings], StoreSettings]
) -> StoreSettings:
    """Replace the settings by what `change` makes of them. Raises Contended."""
    for attempt in range(_TRIES):
        (found,) = await metadata.metastore.get_many([keys.STORE_SETTINGS])
        now = StoreSettings() if found is None else decode(StoreSettings, found.value)
        new = change(now)
        compare = unchanged(keys.STORE_SETTINGS, 0 if found is None else found.mod_revision)
        if new == now or await _applied(metadata, compare, Put(keys.STORE_SETTINGS, encode(new))):
            return new
        await metadata.transactions.pause(attempt, first_seconds=0.001)
    raise Contended("the settings keep changing")


def _change(key: bytes, quota: Quota | None, name: str) -> Operation:
    if quota is None:
        return DeleteRange(key)
    if quota == Quota():
        raise QuotaInvalid("a quota limits bytes, or objects, or both")
    for limit in quota:
        if limit is not None and not 0 <= limit <= QUOTA_MAX:
            raise QuotaInvalid(f"a quota is a number from 0 to {QUOTA_MAX}")
    record = QuotaRecord(
        name=name,
        size_bytes_max=-1 if quota.size_bytes_max is None else quota.size_bytes_max,
        objects_max=-1 if quota.objects_max is None else quota.objects_max,
    )
    return Put(key, encode(record))


async def _applied(metadata: Metadata, compare: Compare, change: Operation) -> bool:
    return (await metadata.transactions.run(Txn((compare,), (change,)))).succeeded
