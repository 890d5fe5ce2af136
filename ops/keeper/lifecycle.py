"""Lifecycle: walks the buckets that have rules, ends what has come to its end, and moves to other
storage classes what is due.

Every transaction compares the record that was judged and the bucket as it was read, so nothing that
was written since, and nothing after the rules changed, is ended or moved; locked versions stay, but may be moved.
A move leaves everything of an object as it is but where its bytes lie. A pass goes
page by page and begins anew after a failure: what is done is not found again. A record that cannot
be read or ended is passed over and counted; one that cannot be moved now is looked at again in the
next pass.
"""

import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import NamedTuple

from gateway.domain.conditions import DeleteConditions
from gateway.domain.lifecycle import (
    LifecycleRules,
    current_due,
    lone_marker_ends,
    noncurrent_ends,
    upload_ends,
)
from gateway.domain.object_lock import Lock, is_locked
from gateway.domain.storage_classes import ClassNotMapped
from gateway.domain.transitions import current_class, has_transitions, noncurrent_class
from gateway.metadata import groups, keys, upload_commits, uploads, versions
from gateway.metadata.entries import BucketEntry, ObjectEntry, etag_text, object_entry
from gateway.metadata.errors import MetadataError
from gateway.metadata.records import BucketRecord, ObjectRecord, RecordError, decode
from gateway.metadata.store import Metadata
from gateway.objects.errors import ObjectsError
from ops.config import LIFECYCLE_DAY_SECONDS
from ops.keeper.recoding import Recoding
from placement.clock import Clock
from placement.errors import OutcomeUnknown
from placement.metastore.port import KeyValue, Range, Txn, prefix_end, unchanged

PAGE_RECORDS = 200
DAY_SECONDS = 24 * 60 * 60
_EVERY_SECONDS_MAX = 3600.0

log = logging.getLogger("ostraka.keeper.lifecycle")


def day_seconds() -> float:
    """How long a day of lifecycle rules lasts: a day, or what the environment says for tests."""
    try:
        said = float(os.environ.get(LIFECYCLE_DAY_SECONDS, DAY_SECONDS))
    except ValueError:
        return DAY_SECONDS
    return said if 0.1 <= said <= DAY_SECONDS else DAY_SECONDS


@dataclass(slots=True)
class LifecycleProgress:
    """Since the process began; `skipped` changed meanwhile, or could not be ended, and are judged
    again; `unreadable` were passed over."""

    passes: int = 0
    expired: int = 0
    noncurrent: int = 0
    markers: int = 0
    uploads: int = 0
    transitioned: int = 0
    transitioned_noncurrent: int = 0
    transitioned_bytes: int = 0
    skipped: int = 0
    unreadable: int = 0

    @property
    def acted_on(self) -> int:
        """Records that were ended or moved."""
        ended = self.expired + self.noncurrent + self.markers + self.uploads
        return ended + self.transitioned + self.transitioned_noncurrent


@dataclass(frozen=True, slots=True)
class _Exact:
    """The entity tag of the object that was judged."""

    etag: str

    def match(self, etag: str) -> bool:
        return etag == self.etag


class _NoncurrentVersion(NamedTuple):
    """One as the rules judge it: see `gateway.domain.lifecycle.noncurrent_ends`."""

    found: ObjectEntry
    succeeded_ms: int
    newer: int


class _Page(NamedTuple):
    """Records of one family, with the bucket and its rules as they were at that instant."""

    entry: BucketEntry
    rules: LifecycleRules
    kvs: tuple[KeyValue, ...]


class Lifecycle:
    """The duty: a page a call."""

    def __init__(self, metadata: Metadata, clock: Clock, recoding: Recoding) -> None:
        self._metadata = metadata
        self._clock = clock
        self._recoding = recoding
        self._day_ms = int(day_seconds() * 1000)
        self._steps: AsyncIterator[None] | None = None
        self.every_seconds = min(_EVERY_SECONDS_MAX, self._day_ms / 1000 / 5)
        self.progress = LifecycleProgress()

    async def work(self) -> bool:
        """One page; whether the pass goes on."""
        steps, self._steps = self._steps or self._pass(), None
        async for _ in steps:
            self._steps = steps
            return True
        self.progress.passes += 1
        return False

    async def _pass(self) -> AsyncIterator[None]:
        start, end = keys.BUCKETS, prefix_end(keys.BUCKETS)
        while True:
            page = await self._metadata.metastore.range(Range(start, end, limit=PAGE_RECORDS))
            for kv in page.kvs:
                try:
                    if not decode(BucketRecord, kv.value).lifecycle:
                        continue
                    async for _ in self._bucket(kv.key[len(keys.BUCKETS) :].decode()):
                        yield
                except (MetadataError, OutcomeUnknown, RecordError) as error:
                    log.warning("%s: %s", kv.key, error)
            if not page.more:
                return
            start = page.kvs[-1].key + b"\x00"
            yield

    async def _bucket(self, name: str) -> AsyncIterator[None]:
        entry = await self._metadata.buckets.read_unasked(name)
        objects = keys.objects_of(entry.bucket_id)
        async for page in self._pages(entry, objects):
            staying = await self._end_current(page)
            yield
            if has_transitions(page.rules):
                async for _ in self._move_current(page, staying):
                    yield
        if entry.record.versioning:
            async for _ in self._versions(entry, keys.versions_of(objects)):
                yield
            async for page in self._pages(entry, keys.marker(objects)):
                await self._end_markers(page)
                yield
        async for page in self._pages(entry, keys.uploads_of(entry.bucket_id)):
            await self._end_uploads(page)
            yield

    async def _pages(self, entry: BucketEntry, family: bytes) -> AsyncIterator[_Page]:
        """A family's records. Ends early when the bucket went or has no rules any more."""
        start, end = family, prefix_end(family)
        while True:
            bucket, found = await self._metadata.metastore.read(
                (Range(entry.key), Range(start, end, limit=PAGE_RECORDS))
            )
            entry = self._metadata.buckets.same(entry, bucket.kvs[0] if bucket.kvs else None)
            if not entry.lifecycle or not found.kvs:
                return
            yield _Page(entry, entry.lifecycle, tuple(found.kvs))
            if not found.more:
                return
            start = found.kvs[-1].key + b"\x00"

    def _now_ms(self) -> int:
        return self._clock.now_ns() // 1_000_000

    def _read(self, kv: KeyValue) -> ObjectEntry | None:
        """The record; None, and said so, when it cannot be read."""
        try:
            return object_entry(kv.key, kv)
        except RecordError as error:
            self._unreadable(kv, error)
            return None

    def _unreadable(self, kv: KeyValue, error: RecordError) -> None:
        self.progress.unreadable += 1
        log.error("%r: %s", kv.key, error)

    async def _end_current(self, page: _Page) -> list[ObjectEntry]:
        """The objects that do not end."""
        staying: list[ObjectEntry] = []
        for kv in page.kvs:
            found = self._read(kv)
            if found is None:
                continue
            record = found.record
            due = current_due(
                page.rules,
                found.key,
                tags=record.tags,
                size_bytes=record.size_bytes,
                modified_ms=record.modified_ms,
                day_ms=self._day_ms,
            )
            if due is None or due.at_ms > self._now_ms():
                staying.append(found)
                continue
            if page.entry.record.versioning:
                await self._mark(page.entry, found)
                continue
            ending = groups.Ending(found.record_key, record, found.mod_revision)
            txn = groups.delete_txn(page.entry.unchanged, (ending,), self._now_ms())
            self.progress.expired += await self._run(txn)
        return staying

    async def _move_current(self, page: _Page, staying: list[ObjectEntry]) -> AsyncIterator[None]:
        for found in staying:
            record = found.record
            target = current_class(
                page.rules,
                found.key,
                tags=record.tags,
                size_bytes=record.size_bytes,
                modified_ms=record.modified_ms,
                storage_class=record.storage_class,
                now_ms=self._now_ms(),
                day_ms=self._day_ms,
            )
            if target is not None:
                self.progress.transitioned += await self._move(page.entry, found, target)
                yield

    async def _move_noncurrent(
        self, page: _Page, staying: list[_NoncurrentVersion]
    ) -> AsyncIterator[None]:
        for found, succeeded_ms, newer in staying:
            record = found.record
            target = noncurrent_class(
                page.rules,
                found.key,
                tags=record.tags,
                size_bytes=record.size_bytes,
                succeeded_ms=succeeded_ms,
                newer=newer,
                storage_class=record.storage_class,
                now_ms=self._now_ms(),
                day_ms=self._day_ms,
            )
            if target is not None:
                moved = await self._move(page.entry, found, target)
                self.progress.transitioned_noncurrent += moved
                yield

    async def _move(self, entry: BucketEntry, found: ObjectEntry, target: str) -> bool:
        """To another class, its record swapped for one that differs in nothing else that is seen."""
        record = found.record
        try:
            wanted = self._recoding.in_class(record, target)
            fits = self._recoding.fits(self._recoding.scheme_of(wanted))
            moved = fits and await self._recoding.swap(found, wanted, (entry.unchanged,))
        except ClassNotMapped:
            moved = False  # since the rule was made: it moves nothing until the class has a scheme
        except ObjectsError as error:
            log.warning("%r is not moved to %s: %s", found.record_key, target, error)
            moved = False
        if moved:
            self.progress.transitioned_bytes += record.size_bytes
        else:
            self.progress.skipped += 1
        return moved

    async def _mark(self, entry: BucketEntry, found: ObjectEntry) -> None:
        """A delete marker in front of the very object that was judged."""
        conditions = DeleteConditions(
            if_match=_Exact(etag_text(found.record)),
            if_match_size_bytes=found.record.size_bytes,
            if_match_last_modified=found.record.modified_ms // 1000,
        )
        try:
            await self._metadata.versions.delete(entry, found.key, conditions=conditions)
        except MetadataError:
            self.progress.skipped += 1
        else:
            self.progress.expired += 1

    async def _versions(self, entry: BucketEntry, family: bytes) -> AsyncIterator[None]:
        """Versions of a key come newest first; each is succeeded by the one before it."""
        key, succeeded_ms, newer = b"", 0, 0
        async for page in self._pages(entry, family):
            staying: list[_NoncurrentVersion] = []
            for kv in page.kvs:
                found = self._read(kv)
                object_key = keys.object_of(kv.key)
                if object_key != key:
                    key, newer = object_key, 0
                    succeeded_ms = await self._current_since(object_key)
                if found is None:
                    newer += 1  # what is next was succeeded no later than this was
                    continue
                if self._is_over(page.rules, found, succeeded_ms, newer):
                    compares = (page.entry.unchanged, unchanged(kv.key, kv.mod_revision))
                    writes = versions.remove(found, self._now_ms())
                    self.progress.noncurrent += await self._run(Txn(compares, writes.operations()))
                elif not found.record.delete_marker:
                    staying.append(_NoncurrentVersion(found, succeeded_ms, newer))
                succeeded_ms, newer = _made_ms(found.record), newer + 1
            yield
            if has_transitions(page.rules):
                async for _ in self._move_noncurrent(page, staying):
                    yield

    def _is_over(
        self, rules: LifecycleRules, found: ObjectEntry, succeeded_ms: int, newer: int
    ) -> bool:
        record, now_ms = found.record, self._now_ms()
        if is_locked(Lock(record.retention, record.legal_hold), now_ms=now_ms, bypass=False):
            return False
        return noncurrent_ends(
            rules,
            found.key,
            tags=record.tags,
            size_bytes=record.size_bytes,
            succeeded_ms=succeeded_ms,
            newer=newer,
            now_ms=now_ms,
            day_ms=self._day_ms,
        )

    async def _current_since(self, object_key: bytes) -> int:
        """When the current version was made; now if it is just changing, so that nothing ends."""
        found = await self._metadata.metastore.get_many((object_key, keys.marker(object_key)))
        for kv in found:
            entry = None if kv is None else self._read(kv)
            if entry is not None:
                return _made_ms(entry.record)
        return self._now_ms()

    async def _end_markers(self, page: _Page) -> None:
        for kv in page.kvs:
            found = self._read(kv)
            if found is None:
                continue
            modified_ms, now_ms = found.record.modified_ms, self._now_ms()
            if not lone_marker_ends(
                page.rules, found.key, modified_ms=modified_ms, now_ms=now_ms, day_ms=self._day_ms
            ):
                continue
            behind = keys.versions_of(keys.object_of(kv.key))
            others = await self._metadata.metastore.range(
                Range(behind, prefix_end(behind), limit=1, keys_only=True)
            )
            if others.kvs:
                continue
            try:
                ended = await self._metadata.versions.delete_version(
                    page.entry, found.key, found.record.version_id
                )
            except MetadataError:
                self.progress.skipped += 1
            else:
                self.progress.markers += ended is not None

    async def _end_uploads(self, page: _Page) -> None:
        for kv in page.kvs:
            try:
                upload = uploads.upload_entry(kv)
            except RecordError as error:
                self._unreadable(kv, error)
                continue
            assert upload is not None
            record, now_ms = upload.record, self._now_ms()
            key = keys.key_of_object(keys.object_of_upload(kv.key)).decode()
            over = upload_ends(
                page.rules, key, begun_ms=record.created_ms, now_ms=now_ms, day_ms=self._day_ms
            )
            if over and record.state == "open":
                try:
                    self.progress.uploads += await upload_commits.abort(
                        self._metadata, page.entry, upload, now_ms=now_ms
                    )
                except MetadataError:
                    self.progress.skipped += 1

    async def _run(self, txn: Txn) -> bool:
        done = (await self._metadata.transactions.run(txn)).succeeded
        self.progress.skipped += not done
        return done


def _made_ms(record: ObjectRecord) -> int:
    """When a version took its place: an upload and a renamed object are dated earlier than that."""
    return max(record.modified_ms, record.order // 1_000_000)
