"""Quotas in a process that writes: what may be held, what is held as far as it is known, and what
this process adds.

The keeper counts and publishes what each bucket holds and through which revision. To that a process
adds its own writes: those under way, and those committed later than that revision. So it never
exceeds a quota by its own writes; what other processes wrote since the keeper last published is what
it does not know (`ops/decisions/0024-quotas.md`).
"""

from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from gateway.domain.quotas import NOTHING, Amount, Quota, exceeded
from gateway.metadata import keys
from gateway.metadata.entries import BucketEntry
from gateway.metadata.errors import QuotaExceeded
from gateway.metadata.limit_records import (
    GarbageWaiting,
    QuotaRecord,
    StoreSettings,
    UsageRecord,
)
from gateway.metadata.mirror import Mirror
from gateway.metadata.outcomes import Applied, Transactions
from gateway.metadata.records import ObjectRecord, RecordError, decode
from gateway.objects.port import Carrier
from placement.clock import Clock, Randomness
from placement.metastore.port import Metastore, Txn

K = TypeVar("K")

UNPUBLISHED_MAX: Final = 4096
"""Own writes that are kept one by one until the keeper has counted them; older ones are merged, which
only makes them count longer."""


@dataclass(slots=True)
class _Holding:
    """One bucket: what was published, and what this process knows besides."""

    owner: str
    published: Amount = NOTHING
    revision: int = 0
    unpublished: deque[tuple[int, Amount]] = field(default_factory=deque)


class Quotas:
    """Implements the checks; one a process. `active` is False while there is no quota at all: then
    nothing else here need be called."""

    def __init__(
        self,
        metastore: Metastore,
        transactions: Transactions,
        *,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._transactions = transactions
        self.active = False
        self.settings = StoreSettings()
        self.usage: dict[bytes, UsageRecord] = {}
        self.buckets: dict[bytes, QuotaRecord] = {}
        self.accounts: dict[str, QuotaRecord] = {}
        self._holdings: dict[bytes, _Holding] = {}
        self._held_by_bucket: dict[bytes, Amount] = {}
        self._held_by_account: dict[str, Amount] = {}
        self.mirror = Mirror(
            metastore, keys.LIMITS, clock=clock, randomness=randomness, changed=self._changed
        )

    # What is told

    def _changed(self, key: bytes, value: bytes | None) -> None:
        try:
            self._adopt(key, value)
        except RecordError:  # of a later version: without it, what is known stays
            return
        finally:
            self.active = bool(self.buckets or self.accounts)

    def _adopt(self, key: bytes, value: bytes | None) -> None:
        if key.startswith(keys.USAGE):
            bucket_id = key[len(keys.USAGE) :]
            if value is None:
                self.usage.pop(bucket_id, None)
                self._forget(bucket_id)
            else:
                self.usage[bucket_id] = record = decode(UsageRecord, value)
                self._publish(bucket_id, record)
        elif key.startswith(keys.BUCKET_QUOTAS):
            _set(self.buckets, key[len(keys.BUCKET_QUOTAS) :], value)
        elif key.startswith(keys.ACCOUNT_QUOTAS):
            _set(self.accounts, key[len(keys.ACCOUNT_QUOTAS) :].decode(), value)
        elif key == keys.GARBAGE_WAITING:
            told = GarbageWaiting(entries=0, revision=0)
            self._transactions.backlog.publish(
                told if value is None else decode(GarbageWaiting, value)
            )
        elif key == keys.STORE_SETTINGS:
            self.settings = StoreSettings() if value is None else decode(StoreSettings, value)

    def _publish(self, bucket_id: bytes, record: UsageRecord) -> None:
        holding = self._holding(bucket_id, record.owner)
        known = record.amount
        while holding.unpublished and holding.unpublished[0][0] <= record.revision:
            _, amount = holding.unpublished.popleft()
            known = known.minus(amount)
        self._shift(bucket_id, holding.owner, known.minus(holding.published))
        holding.published, holding.revision = record.amount, record.revision

    def _forget(self, bucket_id: bytes) -> None:
        """It is not counted any more. What is under way stays until it is settled."""
        holding = self._holdings.pop(bucket_id, None)
        if holding is None:
            return
        for _, amount in holding.unpublished:
            self._shift(bucket_id, holding.owner, NOTHING.minus(amount))
        self._shift(bucket_id, holding.owner, NOTHING.minus(holding.published))
        if self._held_by_bucket.get(bucket_id) == NOTHING:
            del self._held_by_bucket[bucket_id]

    def _holding(self, bucket_id: bytes, owner: str) -> _Holding:
        holding = self._holdings.get(bucket_id)
        if holding is None:
            holding = self._holdings[bucket_id] = _Holding(owner)
        return holding

    def _shift(self, bucket_id: bytes, owner: str, by: Amount) -> None:
        held, of_account = self._held_by_bucket, self._held_by_account
        held[bucket_id] = held.get(bucket_id, NOTHING).plus(by)
        of_account[owner] = of_account.get(owner, NOTHING).plus(by)

    # What is asked

    def held_by_account(self, account_id: str) -> Amount:
        """What its buckets hold, as far as they are counted, and this process's own writes."""
        return self._held_by_account.get(account_id, NOTHING)

    def demand(self, entry: BucketEntry, growth: Amount) -> None:
        """Refuse early what would be refused at the commit. Raises QuotaExceeded."""
        owner = entry.record.owner
        quota = self.buckets.get(entry.bucket_id)
        if quota is not None:
            held = self._held_by_bucket.get(entry.bucket_id, NOTHING)
            _demand(quota.quota, held, growth, f"bucket {entry.name}")
        quota = self.accounts.get(owner)
        if quota is not None:
            _demand(quota.quota, self.held_by_account(owner), growth, "the bucket's account")

    def run(
        self,
        entry: BucketEntry,
        work_out: Callable[[], Amount],
        txn: Txn,
        carrier: Carrier | None = None,
    ) -> Coroutine[Any, Any, Applied]:
        """Run a transaction that adds so much to the bucket, which is worked out only where there is
        a quota. Raises QuotaExceeded, and what `Transactions.run` raises."""
        if entry.bucket_id in self.buckets or entry.record.owner in self.accounts:
            return self._run_within(entry, work_out(), txn, carrier)
        return self._transactions.run(txn, carrier)

    async def _run_within(
        self, entry: BucketEntry, growth: Amount, txn: Txn, carrier: Carrier | None
    ) -> Applied:
        owner, bucket_id = entry.record.owner, entry.bucket_id
        self.demand(entry, growth)
        under_way = growth.demand
        self._holding(bucket_id, owner)
        self._shift(bucket_id, owner, under_way)
        succeeded, revision = False, 0
        try:
            applied = await self._transactions.run(txn, carrier)
            succeeded, revision = applied.succeeded, applied.revision
            return applied
        finally:
            # What was sent and not answered counts once the keeper has seen it.
            self._settle(bucket_id, owner, under_way, growth if succeeded else None, revision)

    def _settle(
        self, bucket_id: bytes, owner: str, under_way: Amount, done: Amount | None, revision: int
    ) -> None:
        holding = self._holding(bucket_id, owner)
        self._shift(bucket_id, owner, NOTHING.minus(under_way))
        if done is None or revision <= holding.revision:
            return
        self._shift(bucket_id, owner, done)
        holding.unpublished.append((revision, done))
        if len(holding.unpublished) > UNPUBLISHED_MAX:
            _, oldest = holding.unpublished.popleft()
            later, next_one = holding.unpublished.popleft()
            holding.unpublished.appendleft((later, oldest.plus(next_one)))


def growth_of(record: ObjectRecord, ended: ObjectRecord | None, counted_bytes: int = 0) -> Amount:
    """What a new object adds to its bucket. `ended` is the version that ends with it; of its bytes
    so many are counted already: as parts of the upload that becomes it."""
    growth = Amount(record.size_bytes - counted_bytes, 1)
    if ended is None or ended.delete_marker:
        return growth
    return growth.minus(Amount(ended.size_bytes, 1))


def _set(quotas: dict[K, QuotaRecord], key: K, value: bytes | None) -> None:
    if value is None:
        quotas.pop(key, None)
    else:
        quotas[key] = decode(QuotaRecord, value)


def _demand(quota: Quota, held: Amount, growth: Amount, whose: str) -> None:
    broken = exceeded(quota, held, growth)
    if broken is not None:
        raise QuotaExceeded(f"The quota of {whose}, {broken}, does not leave room for this.")
