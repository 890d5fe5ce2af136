"""Multipart uploads as stored: reading them, and what the keeper asks about them.

The changes of their state are in `upload_commits`. An upload `u/…` is `open`, `completing` (its parts
stand still, a completion with `token` is under way or was cut off) or `done` (the object exists). A
done one is `f/…` instead, kept for an hour so that a repeated completion gets the same answer: under
`u/` listings would walk over it. (Stores of before may have some there; they are read as well.) Its
parts are `p/<upload id><number>`;
the group of all their blobs is the upload's id, the owner key in their envelopes is the upload's.

Who deletes what:

- A part that replaces another queues the old blob as `g/<blob>`.
- A completion deletes the part records and queues the blobs it did not use as entries
  `g/<upload id><number 2>`, each naming up to `BLOBS_A_GARBAGE_ENTRY` blobs and no group.
- Aborting (or deleting the bucket) deletes the upload's record and queues `g/<upload id>` with the
  group, owner key `u/…` and no blobs: the part records stay and *are* the list. Whoever carries out
  such an entry claims it, deletes the blobs that `remaining_parts` yields, then calls
  `forget_parts`, and only then drops the entry. No part can come any more: UploadPart compares the
  upload's record.
- A blob whose part record never came is found by the sweep: `blob_in_use`, `claim_blob`.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from gateway.domain.multipart_listing import (
    AfterKey,
    AfterUpload,
    Item,
    Page,
    PastPrefix,
    Position,
)
from gateway.metadata import keys
from gateway.metadata.entries import BucketEntry, ObjectEntry, object_entry
from gateway.metadata.records import (
    GarbageRecord,
    ObjectRecord,
    PartRecord,
    RecordError,
    UploadRecord,
    decode,
    encode,
)
from gateway.metadata.store import Metadata
from placement.clock import Randomness
from placement.ids import UploadId
from placement.metastore.port import (
    OPERATIONS_MAX,
    Compare,
    DeleteRange,
    KeyValue,
    Metastore,
    Put,
    Range,
    Relation,
    Target,
    Txn,
    absent,
    prefix_end,
    unchanged,
)

OPEN = "open"
COMPLETING = "completing"
DONE = "done"

DONE_RETENTION_MS = 3600 * 1000
STALE_COMPLETION_MS = 3600 * 1000
PAGE_RECORDS = 1000
BLOBS_A_GARBAGE_ENTRY = 256
_ID_SIZE_BYTES = 16
_TIME_SIZE_BYTES = 6


class UploadEntry(NamedTuple):
    """An upload's record as read at `mod_revision` of its key."""

    key: bytes
    record: UploadRecord
    mod_revision: int

    @property
    def upload_id(self) -> UploadId:
        """Names the upload, and the group of its parts."""
        return UploadId(self.record.upload_id)


class PartEntry(NamedTuple):
    """A part as read."""

    number: int
    record: PartRecord


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts in order of their numbers. None changed after `revision` if `unchanged_parts` holds."""

    entries: tuple[PartEntry, ...]
    revision: int
    more: bool = False


def new_upload_id(now_ms: int, randomness: Randomness) -> UploadId:
    """Milliseconds since the epoch, then 10 random bytes: ids of a key sort by initiation."""
    time = now_ms.to_bytes(_TIME_SIZE_BYTES, "big")
    return UploadId(time + randomness.token(_ID_SIZE_BYTES - _TIME_SIZE_BYTES))


def parse_upload_id(text: str) -> UploadId | None:
    """The id in a request; None for text that never was one."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        return None
    return UploadId(raw) if len(raw) == _ID_SIZE_BYTES and raw.hex() == text else None


def upload_entry(kv: KeyValue | None) -> UploadEntry | None:
    """An upload's record as read."""
    if kv is None:
        return None
    return UploadEntry(kv.key, decode(UploadRecord, kv.value), kv.mod_revision)


def part_entry(kv: KeyValue) -> PartEntry:
    """A part as read."""
    return PartEntry(int.from_bytes(kv.key[-2:], "big"), decode(PartRecord, kv.value))


def unchanged_parts(upload_id: bytes, revision: int) -> Compare:
    """No part of the upload was put after that revision."""
    return _none_put_since(keys.parts_of(UploadId(upload_id)), revision)


def _none_put_since(prefix: bytes, revision: int) -> Compare:
    """Of the keys with this prefix. A range compare over no key holds."""
    return Compare(prefix, Target.MOD_REVISION, Relation.LESS, revision + 1, prefix_end(prefix))


# Reading


async def find(
    metadata: Metadata, bucket: BucketEntry, key: str, upload_id: UploadId
) -> tuple[UploadEntry | None, ObjectEntry | None]:
    """The upload, and the object of its key, at one instant. Raises NoSuchBucket."""
    upload_key = keys.upload(bucket.bucket_id, key.encode(), upload_id)
    record_key = bucket.object_key(key)
    upload, finished, current = await metadata.snapshot(
        bucket, (Range(upload_key), Range(keys.finished(upload_key)), Range(record_key))
    )
    found = upload.kvs or finished.kvs
    return (
        upload_entry(found[0] if found else None),
        object_entry(record_key, current.kvs[0] if current.kvs else None),
    )


async def read_parts(metastore: Metastore, upload_id: bytes) -> Parts:
    """All parts of an upload. The pages may be of different instants: `unchanged_parts` with the
    revision given tells whether they were one."""
    entries: list[PartEntry] = []
    revision = 0
    async for page, page_revision in _part_pages(metastore, upload_id):
        revision = revision or page_revision
        entries.extend(map(part_entry, page))
    return Parts(tuple(entries), revision)


async def page_of_parts(
    metadata: Metadata, bucket: BucketEntry, upload: UploadEntry, *, after: int, limit: int
) -> Parts | None:
    """Up to `limit` parts with numbers above `after`; None when the upload has ended since it was
    read. Raises NoSuchBucket."""
    after = min(after, 0xFFFE)
    start = keys.part(upload.upload_id, after + 1)
    end = prefix_end(keys.parts_of(upload.upload_id))
    found_upload, found = await metadata.snapshot(
        bucket, (Range(upload.key), Range(start, end, limit=max(limit, 1)))
    )
    current = upload_entry(found_upload.kvs[0] if found_upload.kvs else None)
    if current is None or current.record.state == DONE:
        return None
    if not limit:  # to the port, no limit is none at all
        return Parts((), found.revision)
    return Parts(tuple(map(part_entry, found.kvs)), found.revision, found.more)


class BucketUploads:
    """A bucket's uploads for `domain.multipart_listing`. Those that are done lie elsewhere, but for
    some of stores of before, which are not listed."""

    def __init__(self, metadata: Metadata, bucket: BucketEntry) -> None:
        self._metadata = metadata
        self._bucket = bucket

    async def page(self, prefix: bytes, after: Position | None, limit: int) -> Page[UploadRecord]:
        """Raises NoSuchBucket."""
        uploads = keys.uploads_of(self._bucket.bucket_id)
        start = uploads + keys.escape(prefix)
        end = prefix_end(start)
        match after:
            case AfterUpload():
                upload_id = UploadId(after.upload_id)
                start = max(
                    start, keys.upload(self._bucket.bucket_id, after.key, upload_id) + b"\x00"
                )
            case AfterKey():
                start = max(start, prefix_end(uploads + keys.escape(after.key) + keys.END))
            case PastPrefix():
                start = max(start, prefix_end(uploads + keys.escape(after.prefix)))
            case None:
                pass
        if start >= end:
            return Page([], more=False)
        (found,) = await self._metadata.snapshot(self._bucket, (Range(start, end, limit=limit),))
        return Page([_item(kv) for kv in found.kvs], found.more)


def _item(kv: KeyValue) -> Item[UploadRecord]:
    key = keys.key_of_object(keys.object_of_upload(kv.key))
    record = decode(UploadRecord, kv.value)
    return Item(key, record.upload_id, None if record.state == DONE else record)


# For the keeper


async def blob_in_use(
    metastore: Metastore, upload_key: bytes, blob: bytes, *, record: bytes = b""
) -> bool:
    """Whether something uses a blob of an upload's group, or is queued that will delete it.

    In use is a blob that a part record of the unfinished upload names (or its manifest), that the
    object the upload became names, or a further record that uses the group (a copy, a version). Of an
    object with a long part table every blob of the group counts, for the table is not read here.
    `record` is the record in the blob's envelope: it tells which part to look for, and spares a walk
    over all of them.
    """
    return (await _usage(metastore, upload_key, blob, record)).used


async def claim_blob(
    metastore: Metastore, upload_key: bytes, blob: bytes, *, now_ms: int, record: bytes = b""
) -> bool:
    """Put `g/<blob>`, claimed, so that nobody can come to use the blob; its shards may then be
    deleted. False when something uses it or came in between.

    An UploadPart that has yet to commit compares that entry absent; one that committed since the
    parts were read is seen by the compare over them; a completion changes the upload's record (its
    manifest's blob is compared as a part's is). A copy names what its source does, and no record
    named the blob; one that came to another key while they were read has put a reference since.
    """
    usage = await _usage(metastore, upload_key, blob, record)
    if usage.used:
        return False
    upload_id = upload_key[-_ID_SIZE_BYTES:]
    entry = GarbageRecord(
        commit_id=b"", queued_ms=now_ms, group=b"", owner_key=upload_key, claimed=True
    )
    references = keys.references_of(upload_id)
    txn = Txn(
        (
            unchanged(upload_key, usage.upload_revision),
            unchanged(keys.object_of_upload(upload_key), usage.object_revision),
            _none_put_since(references, usage.revision),
            unchanged_parts(upload_id, usage.revision),
            absent(keys.garbage(blob)),
        ),
        (Put(keys.garbage(blob), encode(entry)),),
    )
    return (await metastore.txn(txn)).succeeded


async def remaining_parts(
    metastore: Metastore, upload_id: bytes
) -> AsyncIterator[list[PartRecord]]:
    """Pages of an ended upload's parts: their blobs are to be deleted."""
    async for page, _ in _part_pages(metastore, upload_id):
        yield [decode(PartRecord, kv.value) for kv in page]


async def forget_parts(metastore: Metastore, upload_id: bytes) -> None:
    """Delete the part records of an ended upload, once their blobs are gone."""
    start = keys.parts_of(UploadId(upload_id))
    await metastore.txn(Txn((), (DeleteRange(start, prefix_end(start)),)))


async def unfinished(
    metastore: Metastore, *, now_ms: int, age_ms: int
) -> AsyncIterator[list[UploadEntry]]:
    """Pages of uploads that were begun at least that long ago and are not done (abandoned ones)."""
    async for page in _upload_pages(metastore, keys.UPLOADS):
        yield [
            entry
            for entry in page
            if entry.record.state != DONE and now_ms - entry.record.created_ms >= age_ms
        ]


async def tidy(metastore: Metastore, age_ms: Callable[[UploadEntry], int]) -> int:
    """Delete records of uploads done an hour ago, reopen completions cut off an hour ago; how many.
    `age_ms` tells for how long an upload has been as it is."""
    changed = 0
    for family in (keys.UPLOADS, keys.FINISHED):
        async for page in _upload_pages(metastore, family):
            for entry in page:
                change = _overdue(entry, age_ms(entry))
                if change is not None:
                    txn = Txn((unchanged(entry.key, entry.mod_revision),), (change,))
                    changed += (await metastore.txn(txn)).succeeded
    return changed


def _overdue(entry: UploadEntry, age_ms: int) -> Put | DeleteRange | None:
    if entry.record.state == DONE and age_ms >= DONE_RETENTION_MS:
        return DeleteRange(entry.key)
    if entry.record.state == COMPLETING and age_ms >= STALE_COMPLETION_MS:
        return Put(entry.key, encode(reopened(entry.record)))
    return None


def reopened(record: UploadRecord) -> UploadRecord:
    """The upload as it was before its completion began."""
    return msgspec.structs.replace(record, state=OPEN, token=b"", completing_ms=0)


class _Usage(NamedTuple):
    used: bool
    upload_revision: int
    object_revision: int
    revision: int


async def _usage(metastore: Metastore, upload_key: bytes, blob: bytes, record: bytes) -> _Usage:
    upload_id = UploadId(upload_key[-_ID_SIZE_BYTES:])
    references = keys.references_of(upload_id)
    queue = keys.garbage(upload_id)
    number = _number_in(record)
    found_upload, found_object, reference, queued, queued_group, part = await metastore.read(
        [
            Range(upload_key),
            Range(keys.object_of_upload(upload_key)),
            Range(references, prefix_end(references), limit=1, keys_only=True),
            Range(keys.garbage(blob), keys_only=True),
            Range(queue, prefix_end(queue)),
            Range(keys.part(upload_id, number)),
        ]
    )
    upload = upload_entry(found_upload.kvs[0] if found_upload.kvs else None)
    used = (
        bool(queued.kvs)
        or any(_names(kv, upload_id, blob) for kv in queued_group.kvs)
        or any(_object_uses(kv, upload_id, blob) for kv in found_object.kvs)
        or any(part_entry(kv).record.data.blob == blob for kv in part.kvs)
    )
    if upload is not None and upload.record.state != DONE and not used:
        manifest = upload.record.manifest
        used = manifest is not None and manifest.blob == blob
        if not used and not number:
            used = await _some_part_names(metastore, upload_id, blob)
    if reference.kvs and not used:
        used = await _some_copy_names(metastore, upload_id, blob)
    return _Usage(
        used,
        upload.mod_revision if upload is not None else 0,
        found_object.kvs[0].mod_revision if found_object.kvs else 0,
        found_upload.revision,
    )


def _number_in(record: bytes) -> int:
    """The part number in an envelope's record; 0 when it is none of a part."""
    if not record:
        return 0
    try:
        return decode(PartRecord, record).number
    except RecordError:  # a manifest's envelope holds the object's record
        return 0


def _names(queued: KeyValue, upload_id: bytes, blob: bytes) -> bool:
    entry = decode(GarbageRecord, queued.value)
    return entry.group == upload_id or any(ref.blob == blob for ref in entry.blobs)


def _object_uses(found: KeyValue, upload_id: bytes, blob: bytes) -> bool:
    record = decode(ObjectRecord, found.value)
    if record.group != upload_id:
        return False
    return record.manifest is not None or any(part.data.blob == blob for part in record.parts)


async def _some_part_names(metastore: Metastore, upload_id: bytes, blob: bytes) -> bool:
    async for page, _ in _part_pages(metastore, upload_id):
        for kv in page:
            if blob in kv.value and decode(PartRecord, kv.value).data.blob == blob:
                return True
    return False


async def _some_copy_names(metastore: Metastore, upload_id: UploadId, blob: bytes) -> bool:
    """Whether a further record that uses the group names the blob. Copies name all that their source
    did: the first one tells of a blob that is in use."""
    references = keys.references_of(upload_id)
    start, end = references, prefix_end(references)
    limit = 1
    while True:
        page = await metastore.range(Range(start, end, limit=limit, keys_only=True))
        if not page.kvs:
            return False
        users = await metastore.get_many([kv.key[len(references) :] for kv in page.kvs])
        if any(kv is not None and _object_uses(kv, upload_id, blob) for kv in users):
            return True
        if not page.more:
            return False
        start, limit = page.kvs[-1].key + b"\x00", OPERATIONS_MAX


async def _part_pages(
    metastore: Metastore, upload_id: bytes
) -> AsyncIterator[tuple[tuple[KeyValue, ...], int]]:
    start = keys.parts_of(UploadId(upload_id))
    end = prefix_end(start)
    while True:
        page = await metastore.range(Range(start, end, limit=PAGE_RECORDS))
        yield page.kvs, page.revision
        if not page.more:
            return
        start = page.kvs[-1].key + b"\x00"


async def _upload_pages(metastore: Metastore, family: bytes) -> AsyncIterator[list[UploadEntry]]:
    start, end = family, prefix_end(family)
    while True:
        page = await metastore.range(Range(start, end, limit=PAGE_RECORDS))
        entries = [upload_entry(kv) for kv in page.kvs]
        yield [entry for entry in entries if entry is not None]
        if not page.more:
            return
        start = page.kvs[-1].key + b"\x00"
