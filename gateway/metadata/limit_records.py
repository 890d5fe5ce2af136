"""Stored records of quotas, of what buckets hold, and of the settings of the whole store."""

from gateway.domain.quotas import Amount, Quota
from gateway.metadata.records import Record


class QuotaRecord(Record, frozen=True, kw_only=True):
    """A quota; -1: none. `name` is the bucket's (its key holds its id), "" of an account's."""

    name: str = ""
    size_bytes_max: int = -1
    objects_max: int = -1

    @property
    def quota(self) -> Quota:
        """As the rules know it."""
        return Quota(
            None if self.size_bytes_max < 0 else self.size_bytes_max,
            None if self.objects_max < 0 else self.objects_max,
        )


class UsageRecord(Record, frozen=True, kw_only=True):
    """What a bucket holds, counted through every change up to `revision`: current objects, versions
    that are not current (delete markers left out), and parts of unfinished uploads."""

    bucket: str
    owner: str
    revision: int
    counted_ms: int
    objects: int = 0
    size_bytes: int = 0
    noncurrent: int = 0
    noncurrent_bytes: int = 0
    parts: int = 0
    parts_bytes: int = 0

    @property
    def amount(self) -> Amount:
        """As quotas count it."""
        return Amount(
            self.size_bytes + self.noncurrent_bytes + self.parts_bytes,
            self.objects + self.noncurrent,
        )


class GarbageWaiting(Record, frozen=True, kw_only=True):
    """How many entries of garbage wait for their collection, counted through `revision`."""

    entries: int
    revision: int


class StoreSettings(Record, frozen=True, kw_only=True):
    """Settings of the whole store. `default_encryption`: AES256, or "" for none; `bucket_metrics`:
    of so many buckets, the largest, metrics tell apart."""

    default_encryption: str = ""
    bucket_metrics: int = 0
