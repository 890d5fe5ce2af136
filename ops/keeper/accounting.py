"""Accounting: what buckets hold, for those that have a quota, or are to be told apart by metrics.

Such buckets are read once, then kept up by following every change of objects, versions, uploads and
parts; what is counted is published once in `PUBLISH_SECONDS` where something changed. While no bucket
needs it, nothing is read and nothing followed.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.metadata import keys
from gateway.metadata.limit_records import UsageRecord
from gateway.metadata.records import BucketRecord, RecordError, decode
from gateway.metadata.store import Metadata
from gateway.metadata.watching import Watcher
from ops.keeper.bucket_counts import BucketCount, NotCountable
from ops.keeper.published import Publication, counted_to, publish
from placement.clock import Clock, Randomness
from placement.errors import PlacementError
from placement.metastore.port import (
    DeleteRange,
    Event,
    Range,
    Txn,
    WatchBatch,
    prefix_end,
)

PUBLISH_SECONDS = 0.5
IDLE_SECONDS_MAX = 30.0
"""Who has not worked for so long does not lead: the changes are not followed any longer."""
_FOLLOWED = (keys.OBJECTS, prefix_end(keys.VERSIONS))
_BUCKETS_A_TXN = 50
_PAGE_RECORDS = 500

log = logging.getLogger("ostraka.keeper.accounting")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A bucket to count."""

    name: str
    owner: str


@dataclass(slots=True)
class AccountingProgress:
    """`buckets` are counted, of which `reading` are being read; `recounts` since the process began."""

    buckets: int = 0
    reading: int = 0
    recounts: int = 0


class Accounting:
    """The duty: one page of one bucket a call, and what is due to be published."""

    def __init__(self, metadata: Metadata, clock: Clock, randomness: Randomness) -> None:
        self._metadata = metadata
        self._metastore = metadata.metastore
        self._clock = clock
        self._counts: dict[bytes, BucketCount] = {}
        self._uploads: dict[bytes, BucketCount] = {}
        self._following: asyncio.Task[None] | None = None
        self._stands = False
        self._revision = 0
        self._published_at = float("-inf")
        self._worked_at = 0.0
        self._known: tuple[object, ...] = ()
        self._buckets_changed = True
        self._watcher = Watcher(
            self._metastore,
            (keys.BUCKETS,),
            clock=clock,
            randomness=randomness,
            changed=lambda _: self._list_changed(),
            lost=self._list_changed,
        )
        self._watches_buckets = False
        self.progress = AccountingProgress()

    def _list_changed(self) -> None:
        self._buckets_changed = True

    async def close(self) -> None:
        """Stop following."""
        await self._stop()
        if self._watches_buckets:
            await self._watcher.close()
            self._watches_buckets = False

    async def work(self) -> bool:
        """One piece; whether a bucket is still to be read."""
        self._worked_at = self._clock.monotonic()
        quotas = self._metadata.quotas
        if not quotas.mirror.is_loaded:
            return False
        await self._choose()
        if not self._counts:
            await self._stop()
            return False
        if self._following is None or self._following.done():
            await self._begin()
        if not self._stands:
            return False
        more = await self._read_page()
        if self._clock.monotonic() - self._published_at >= PUBLISH_SECONDS:
            self._published_at = self._clock.monotonic()
            await self._publish()
        return more

    # Which buckets

    async def _choose(self) -> None:
        """Which buckets are to be counted; read again only when quotas, settings or buckets changed."""
        quotas = self._metadata.quotas
        known = (dict(quotas.buckets), frozenset(quotas.accounts), quotas.settings)
        wants_any = quotas.active or quotas.settings.bucket_metrics > 0
        if wants_any and not self._watches_buckets:
            self._watcher.start()
            self._watches_buckets = True
        if known == self._known and not (wants_any and self._buckets_changed):
            return
        self._buckets_changed = False
        try:
            wanted = await self._wanted() if wants_any else {}
        except BaseException:
            self._buckets_changed = True
            raise
        self._known = known
        for bucket_id in self._counts.keys() - wanted.keys():
            self._counts.pop(bucket_id).forget()
        for bucket_id, bucket in wanted.items():
            if bucket_id not in self._counts:
                self._counts[bucket_id] = BucketCount(
                    bucket_id, bucket.name, bucket.owner, self._uploads
                )
        self.progress.buckets = len(self._counts)
        gone = quotas.usage.keys() - wanted.keys()
        await self._forget([keys.usage(each) for each in gone])

    async def _wanted(self) -> dict[bytes, Wanted]:
        quotas = self._metadata.quotas
        wanted: dict[bytes, Wanted] = {}
        if not quotas.settings.bucket_metrics and not quotas.accounts:
            named = list(quotas.buckets.values())
            for start in range(0, len(named), _BUCKETS_A_TXN):
                step = [quota.name for quota in named[start : start + _BUCKETS_A_TXN]]
                found = await self._metastore.get_many([keys.bucket(name) for name in step])
                for name, kv in zip(step, found, strict=True):
                    if kv is not None:
                        self._want(wanted, name, kv.value)
            return {each: wanted[each] for each in wanted if each in quotas.buckets}
        begin, end = keys.BUCKETS, prefix_end(keys.BUCKETS)
        while True:
            page = await self._metastore.range(Range(begin, end, limit=_PAGE_RECORDS))
            for kv in page.kvs:
                self._want(wanted, kv.key[len(keys.BUCKETS) :].decode(), kv.value)
            if not page.more:
                break
            begin = page.kvs[-1].key + b"\x00"
        if quotas.settings.bucket_metrics:
            return wanted
        return {
            bucket_id: bucket
            for bucket_id, bucket in wanted.items()
            if bucket_id in quotas.buckets or bucket.owner in quotas.accounts
        }

    def _want(self, wanted: dict[bytes, Wanted], name: str, value: bytes) -> None:
        try:
            record = decode(BucketRecord, value)
        except RecordError as error:
            log.warning("bucket %s is not counted: %s", name, error)
            return
        wanted[record.bucket_id] = Wanted(name, record.owner)

    async def _forget(self, which: list[bytes]) -> None:
        for start in range(0, len(which), _BUCKETS_A_TXN):
            step = which[start : start + _BUCKETS_A_TXN]
            await self._metastore.txn(Txn((), tuple(DeleteRange(key) for key in step)))

    # Following

    async def _begin(self) -> None:
        """Follow the changes anew, and read every bucket again: some may have been missed."""
        await self._stop()
        if self._revision:
            self.progress.recounts += len(self._counts)
        for bucket_id in list(self._counts):
            self._recount(bucket_id)
        self._following = asyncio.create_task(self._follow(), name="accounting")

    def _recount(self, bucket_id: bytes) -> None:
        old = self._counts[bucket_id]
        old.forget()
        self._counts[bucket_id] = BucketCount(bucket_id, old.name, old.owner, self._uploads)

    async def _stop(self) -> None:
        self._stands = False
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
            self._following = None

    async def _follow(self) -> None:
        start, end = _FOLLOWED
        try:
            async for batch in self._metastore.watch(start, end, previous=True):
                self._take(batch)
                if self._clock.monotonic() - self._worked_at > IDLE_SECONDS_MAX:
                    log.info("somebody else counts now")
                    break
        except PlacementError as error:
            log.info("the watch of changes ended: %s", error)
        finally:
            self._stands = False

    def _take(self, batch: WatchBatch) -> None:
        for event in batch.events:
            count = self._count_of(event)
            if count is None:
                continue
            try:
                count.take(event)
            except NotCountable:
                log.warning("bucket %s is counted anew", count.name)
                self.progress.recounts += 1
                self._recount(count.bucket_id)
        self._revision = max(self._revision, batch.revision)
        self._stands = True
        for count in self._counts.values():
            count.settle(batch.revision)

    def _count_of(self, event: Event) -> BucketCount | None:
        key = event.kv.key
        if key.startswith(keys.PARTS):
            return self._uploads.get(key[2:18])
        if key.startswith((keys.OBJECTS, keys.VERSIONS, keys.UPLOADS)):
            return self._counts.get(key[2:10])
        return None

    # Reading and publishing

    async def _read_page(self) -> bool:
        unread = [count for count in self._counts.values() if not count.is_whole]
        self.progress.reading = len(unread)
        if not unread:
            return False
        count = unread[0]
        request = count.begin()
        assert request is not None
        try:
            page = await self._metastore.range(request)
        except BaseException:
            count.abandon()
            raise
        try:
            count.read(page)
        except NotCountable:
            log.warning("bucket %s is counted anew", count.name)
            if self._counts.get(count.bucket_id) is count:
                self._recount(count.bucket_id)
        return True

    async def _publish(self) -> None:
        due = [count for count in self._counts.values() if count.is_changed and count.is_whole]
        for start in range(0, len(due), _BUCKETS_A_TXN):
            await self._publish_some(due[start : start + _BUCKETS_A_TXN])

    async def _publish_some(self, due: Sequence[BucketCount]) -> None:
        now_ms = self._clock.now_ns() // 1_000_000
        known = await self._metastore.get_many([keys.usage(count.bucket_id) for count in due])
        told: list[BucketCount] = []
        publications: list[Publication] = []
        for count, kv in zip(due, known, strict=True):
            if counted_to(UsageRecord, kv) <= self._revision:
                told.append(count)
                usage = count.usage(self._revision, now_ms)
                publications.append(Publication(keys.usage(count.bucket_id), kv, usage))
        if not told:
            return
        succeeded = False
        try:
            succeeded = await publish(self._metastore, publications)
        finally:
            if not succeeded:
                for count in told:
                    count.is_changed = True
