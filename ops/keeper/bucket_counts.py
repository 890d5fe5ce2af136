"""What a bucket holds, counted: by reading its records once, then by following every change of them.

No I/O here. Pages are read at the present while changes come in, each page at a revision of its own:
a change of a key counts if that key was read already, at an earlier revision. What is read later
shows the change by itself. Changes that come while a page is under way wait for it: only then is it
known at which revision it was read.
"""

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.metadata import keys
from gateway.metadata.limit_records import UsageRecord
from gateway.metadata.records import (
    PartRecord,
    Record,
    RecordError,
    UploadRecord,
    decode,
    decode_listed,
    decode_versions,
)
from gateway.metadata.uploads import DONE
from placement.metastore.port import Event, KeyValue, Range, RangeResult, prefix_end

PAGE_RECORDS = 1000
R = TypeVar("R", bound=Record)
log = logging.getLogger("ostraka.keeper.accounting")


class Coverage:
    """How far a range of keys has been read, and at which revisions."""

    def __init__(self, prefix: bytes, *, read_at: int = 0) -> None:
        """With `read_at`, the range is known to be empty at that revision."""
        self.start = prefix
        self.end = prefix_end(prefix)
        self.is_done = read_at > 0
        self._ends = [self.end] if read_at else []
        self._revisions = [read_at] if read_at else []

    def read(self, page: RangeResult) -> None:
        """A page from `start` on was read; go on after it."""
        self.is_done = not page.more
        self.start = page.kvs[-1].key + b"\x00" if page.more else self.end
        self._ends.append(self.start)
        self._revisions.append(page.revision)

    def takes(self, key: bytes, revision: int) -> bool:
        """Whether that change is not yet in what was read, and will not be."""
        place = bisect_left(self._ends, key + b"\x00")
        return place < len(self._ends) and revision > self._revisions[place]

    def settle(self, revision: int) -> None:
        """Changes up to that revision have come: all that is done is known at one revision."""
        if self.is_done and len(self._ends) > 1 and max(self._revisions) <= revision:
            self._ends, self._revisions = [self.end], [revision]


@dataclass(slots=True)
class _Upload:
    """An unfinished upload: what its parts hold."""

    coverage: Coverage
    parts: int = 0
    size_bytes: int = 0


class NotCountable(Exception):
    """A change came without what was there before: the bucket is to be counted anew."""


@dataclass(slots=True)
class BucketCount:
    """One bucket. `index` says of every upload which bucket counts it; `is_changed`: something came
    since `usage` was last taken."""

    bucket_id: bytes
    name: str
    owner: str
    index: dict[bytes, "BucketCount"]
    objects: int = 0
    size_bytes: int = 0
    noncurrent: int = 0
    noncurrent_bytes: int = 0
    uploads: dict[bytes, _Upload] = field(default_factory=dict)
    is_changed: bool = True
    unreadable: int = 0
    _families: dict[bytes, Coverage] = field(default_factory=dict)
    _reading: Coverage | None = None
    _held: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        for family in (keys.OBJECTS, keys.VERSIONS, keys.UPLOADS):
            self._families[family] = Coverage(family + self.bucket_id)

    # Reading once

    @property
    def is_whole(self) -> bool:
        """Whether everything was read."""
        return all(coverage.is_done for coverage in self._coverages())

    def begin(self) -> Range | None:
        """What is to be read next, for `read` or `abandon`; None when everything was."""
        assert self._reading is None
        coverage = next((one for one in self._coverages() if not one.is_done), None)
        if coverage is None:
            return None
        self._reading = coverage
        return Range(coverage.start, coverage.end, limit=PAGE_RECORDS)

    def abandon(self) -> None:
        """It could not be read: it will be asked for again."""
        self._reading = None
        held, self._held = self._held, []
        for event in held:
            self.take(event)

    def _coverages(self) -> Iterator[Coverage]:
        yield from self._families.values()
        for upload in self.uploads.values():
            yield upload.coverage

    def read(self, page: RangeResult) -> None:
        """Take in the page that was begun, then the changes that waited. Raises NotCountable."""
        coverage = self._reading
        assert coverage is not None
        values = [kv.value for kv in page.kvs]
        if coverage is self._families[keys.OBJECTS]:
            self._add_objects(values, 1)
        elif coverage is self._families[keys.VERSIONS]:
            self._add_versions(values, 1)
        elif coverage is self._families[keys.UPLOADS]:
            for kv in page.kvs:
                upload = self._readable(UploadRecord, kv.value)
                if upload is not None and upload.state != DONE:
                    self._add_upload(kv.key[-16:], read_at=0)
        else:
            held = self.uploads.get(coverage.start[2:18])
            if held is not None and held.coverage is coverage:
                self._add_parts(held, values, 1)
        coverage.read(page)
        self.abandon()

    # Following changes

    def take(self, event: Event) -> None:
        """A change of a record of this bucket, or of a part of one of its uploads. Raises
        NotCountable."""
        key, revision = event.kv.key, event.kv.mod_revision
        self.is_changed = True
        if self._reading is not None:
            if key.startswith(keys.UPLOADS):
                self.index[key[-16:]] = self  # its parts may come before it is taken
            self._held.append(event)
            return
        if key.startswith(keys.PARTS):
            upload = self.uploads.get(key[2:18])
            if upload is not None and upload.coverage.takes(key, revision):
                self._take_part(upload, event)
            return
        family = key[:2]
        if not self._families[family].takes(key, revision):
            return
        if family == keys.UPLOADS:
            self._take_upload(event)
            return
        add = self._add_objects if family == keys.OBJECTS else self._add_versions
        for kv, sign in _steps(event):
            add((kv.value,), sign)

    def _add_objects(self, values: Sequence[bytes], sign: int) -> None:
        heads = self._decoded(decode_listed, values)
        self.objects += sign * len(heads)
        self.size_bytes += sign * sum(head.size_bytes for head in heads)

    def _add_versions(self, values: Sequence[bytes], sign: int) -> None:
        versions = [v for v in self._decoded(decode_versions, values) if not v.delete_marker]
        self.noncurrent += sign * len(versions)
        self.noncurrent_bytes += sign * sum(version.size_bytes for version in versions)

    def _add_parts(self, upload: _Upload, values: Sequence[bytes], sign: int) -> None:
        for value in values:
            part = self._readable(PartRecord, value)
            if part is not None:
                upload.parts += sign
                upload.size_bytes += sign * part.size_bytes

    def _take_part(self, upload: _Upload, event: Event) -> None:
        for kv, sign in _steps(event):
            self._add_parts(upload, (kv.value,), sign)

    def _decoded(
        self, decode_all: Callable[[Sequence[bytes]], list[R]], values: Sequence[bytes]
    ) -> list[R]:
        """What can be read of these; damaged records are passed over."""
        try:
            return decode_all(values)
        except RecordError:
            found: list[R] = []
            for value in values:
                try:
                    found += decode_all((value,))
                except RecordError as error:
                    self._pass_over(error)
            return found

    def _readable(self, kind: type[R], value: bytes) -> R | None:
        try:
            return decode(kind, value)
        except RecordError as error:
            self._pass_over(error)
            return None

    def _pass_over(self, error: RecordError) -> None:
        self.unreadable += 1
        log.warning("bucket %s: %s", self.name, error)

    def _take_upload(self, event: Event) -> None:
        upload_id = event.kv.key[-16:]
        record = None if event.deleted else self._readable(UploadRecord, event.kv.value)
        if record is None or record.state == DONE:
            self.uploads.pop(upload_id, None)
            self.index.pop(upload_id, None)
        elif upload_id not in self.uploads:
            # No part was there before its upload.
            self._add_upload(upload_id, read_at=event.kv.mod_revision)

    def _add_upload(self, upload_id: bytes, *, read_at: int) -> None:
        self.uploads[upload_id] = _Upload(Coverage(keys.PARTS + upload_id, read_at=read_at))
        self.index[upload_id] = self

    def forget(self) -> None:
        """It is not counted any more."""
        for upload_id in [each for each, count in self.index.items() if count is self]:
            del self.index[upload_id]

    def settle(self, revision: int) -> None:
        """Every change up to that revision was told."""
        if self._reading is not None:
            return
        for coverage in self._coverages():
            coverage.settle(revision)

    def usage(self, revision: int, now_ms: int) -> UsageRecord:
        """What there is, with all changes up to that revision."""
        self.is_changed = False
        return UsageRecord(
            bucket=self.name,
            owner=self.owner,
            revision=revision,
            counted_ms=now_ms,
            objects=self.objects,
            size_bytes=self.size_bytes,
            noncurrent=self.noncurrent,
            noncurrent_bytes=self.noncurrent_bytes,
            parts=sum(upload.parts for upload in self.uploads.values()),
            parts_bytes=sum(upload.size_bytes for upload in self.uploads.values()),
        )


def _steps(event: Event) -> Iterator[tuple[KeyValue, int]]:
    """What a change takes away, and what it adds."""
    if event.previous is not None:
        yield event.previous, -1
    elif event.deleted or event.kv.version > 1:
        raise NotCountable
    if not event.deleted:
        yield event.kv, 1
