"""The transactions that begin, fill, complete and abort multipart uploads. Reading is in `uploads`."""

from collections.abc import Iterator, Sequence
from functools import partial

import msgspec

from gateway.domain.conditions import WriteConditions
from gateway.domain.quotas import Amount
from gateway.metadata import groups, keys
from gateway.metadata.commits import RACES_MAX
from gateway.metadata.entries import BucketEntry, Committed, ObjectEntry
from gateway.metadata.errors import (
    Contended,
    GroupReclaimed,
    NoSuchBucket,
    RelianceBroken,
)
from gateway.metadata.outcomes import Doubt
from gateway.metadata.records import (
    BlobRef,
    GarbageRecord,
    ObjectRecord,
    PartRecord,
    UploadRecord,
    decode,
    encode,
)
from gateway.metadata.store import Metadata
from gateway.metadata.uploads import (
    BLOBS_A_GARBAGE_ENTRY,
    COMPLETING,
    DONE,
    OPEN,
    PartEntry,
    Parts,
    UploadEntry,
    reopened,
    unchanged_parts,
    upload_entry,
)
from gateway.metadata.windows import window_of
from gateway.objects.port import Stored
from placement.errors import OutcomeUnknown
from placement.ids import UploadId
from placement.metastore.port import (
    DeleteRange,
    KeyValue,
    Operation,
    Put,
    Txn,
    absent,
    prefix_end,
    unchanged,
)


async def create(metadata: Metadata, bucket: BucketEntry, key: str, record: UploadRecord) -> None:
    """Begin an upload. Raises NoSuchBucket, Contended."""
    upload_key = keys.upload(bucket.bucket_id, key.encode(), UploadId(record.upload_id))
    places = (upload_key, keys.finished(upload_key), keys.garbage(record.upload_id))
    for race in range(RACES_MAX):
        _, window = await groups.for_once(metadata.metastore, places[-1])
        txn = Txn(
            (bucket.unchanged, *map(absent, places), window), (Put(upload_key, encode(record)),)
        )
        if (await metadata.transactions.run(txn)).succeeded:
            return
        bucket, found = await _read_again(metadata, bucket, places)
        if any(found):
            return  # an earlier try, whose answer was lost; others may have ended the upload since
        await metadata.transactions.pause(race, first_seconds=0.001)
    raise Contended("the bucket keeps changing")


async def commit_part(
    metadata: Metadata,
    bucket: BucketEntry,
    upload: UploadEntry,
    number: int,
    part: PartRecord,
    *,
    value: bytes,
    stored: Stored,
    now_ms: int,
) -> None:
    """Make the part (encoded: `value`) the upload's part of that number; the one it replaces is
    queued as garbage.

    Raises RelianceBroken (of `stored`; or of the upload's key when it is not open any more),
    GroupReclaimed (the sweep took the new blob), NoSuchBucket, Contended, OutcomeUnknown.
    """
    part_key = keys.part(upload.upload_id, number)
    garbage_key = keys.garbage(part.data.blob)
    (previous,) = await metadata.metastore.get_many((part_key,))
    wanted = (upload.key, part_key, garbage_key, *(compare.key for compare in stored.compares))
    with Doubt() as doubt:
        for race in range(RACES_MAX):
            writes: list[Operation] = [Put(part_key, value), *stored.puts]
            if previous is not None:
                writes.append(_garbage_of_part(decode(PartRecord, previous.value), now_ms))
            compares = (
                bucket.unchanged,
                unchanged(upload.key, upload.mod_revision),
                unchanged(part_key, 0 if previous is None else previous.mod_revision),
                absent(garbage_key),
                *stored.compares,
            )
            txn = Txn(compares, tuple(writes))
            growth = partial(_growth_of_part, part, previous)
            applied = await metadata.quotas.run(bucket, growth, txn)
            if applied.succeeded:
                return
            doubt.raised = doubt.raised or not applied.certain
            bucket, found = await _read_again(metadata, bucket, wanted)
            found_upload, previous, garbage, *relied = found
            if not applied.certain and _part_was_applied(part, previous, garbage):
                return
            current = upload_entry(found_upload)
            if current is None or current.record.state != OPEN:
                if not applied.certain:
                    raise OutcomeUnknown("the part may have been committed before the upload ended")
                raise RelianceBroken(upload.key)
            if garbage is not None:
                raise GroupReclaimed(part.data.blob)
            for compare, kv in zip(stored.compares, relied, strict=True):
                if not groups.holds(compare, kv):
                    if not applied.certain and compare == window_of(stored.compares):
                        raise OutcomeUnknown("the part may have been committed, and replaced since")
                    raise RelianceBroken(compare.key)
            upload = current
            await metadata.transactions.pause(race, first_seconds=0.001)
        raise Contended("a part lost too many races")


def _part_was_applied(part: PartRecord, found: KeyValue | None, garbage: KeyValue | None) -> bool:
    """After an unknown outcome: the part is there, or was and has been replaced since."""
    if found is not None and decode(PartRecord, found.value).commit_id == part.commit_id:
        return True
    if garbage is None:
        return False
    return decode(GarbageRecord, garbage.value).commit_id == part.commit_id


def _growth_of_part(part: PartRecord, previous: KeyValue | None) -> Amount:
    """What a part adds to its bucket, when it takes another's place."""
    replaced = 0 if previous is None else decode(PartRecord, previous.value).size_bytes
    return Amount(part.size_bytes - replaced)


def _garbage_of_part(part: PartRecord, now_ms: int) -> Put:
    entry = GarbageRecord(commit_id=part.commit_id, queued_ms=now_ms, blobs=(part.data,))
    return Put(keys.garbage(part.data.blob), encode(entry))


async def freeze(
    metadata: Metadata,
    bucket: BucketEntry,
    upload: UploadEntry,
    parts: Parts,
    *,
    token: bytes,
    now_ms: int,
) -> UploadEntry | None:
    """Set an upload `completing`, if its parts are as they were read. None when a race was lost:
    read everything again. From another completion it takes over: that one's commit will fail."""
    record = msgspec.structs.replace(
        upload.record, state=COMPLETING, token=token, completing_ms=now_ms
    )
    txn = Txn(
        (
            bucket.unchanged,
            unchanged(upload.key, upload.mod_revision),
            unchanged_parts(upload.upload_id, parts.revision),
        ),
        (Put(upload.key, encode(record)),),
    )
    applied = await metadata.transactions.run(txn)
    return UploadEntry(upload.key, record, applied.revision) if applied.succeeded else None


async def reopen(metadata: Metadata, upload: UploadEntry) -> UploadEntry | None:
    """End a completion that cannot succeed: parts may come again. None when something else changed
    the upload first."""
    record = reopened(upload.record)
    applied = await metadata.transactions.run(
        Txn((unchanged(upload.key, upload.mod_revision),), (Put(upload.key, encode(record)),))
    )
    return UploadEntry(upload.key, record, applied.revision) if applied.succeeded else None


async def finish(
    metadata: Metadata,
    bucket: BucketEntry,
    upload: UploadEntry,
    record_key: bytes,
    record: ObjectRecord,
    *,
    value: bytes,
    stored_manifest: Stored | None,
    previous: ObjectEntry | None,
    conditions: WriteConditions | None,
    unused: Sequence[PartEntry],
    narrow: bool,
    now_ms: int,
) -> Committed:
    """Commit the object of an upload that is `completing` and set it `done`, in one transaction:
    the part records go, the blobs of `unused` parts are queued. `narrow`: some part is.

    Raises what `Commits.commit` raises; RelianceBroken of the upload's key when another
    completion or an abort was first.
    """
    assert upload.record.state == COMPLETING
    start = keys.parts_of(upload.upload_id)
    compares = [unchanged(upload.key, upload.mod_revision)]
    operations: list[Operation] = [
        DeleteRange(upload.key),
        DeleteRange(start, prefix_end(start)),
        *_garbage_of_unused(upload, unused, now_ms),
    ]
    if stored_manifest is not None:
        compares.append(absent(keys.garbage(stored_manifest.ref.blob)))
    if narrow and not (stored_manifest is not None and stored_manifest.narrow):
        operations.append(Put(keys.narrow(record_key), b""))
    try:
        return await metadata.commits.commit(
            bucket,
            record_key,
            record,
            value=value,
            stored=stored_manifest,
            previous=previous,
            conditions=conditions,
            new_group=True,
            compares=compares,
            operations=operations,
            telling=lambda made: Put(
                keys.finished(upload.key), encode(_done(upload.record, made, now_ms))
            ),
            counted_bytes=record.size_bytes + sum(part.record.size_bytes for part in unused),
        )
    except GroupReclaimed as error:
        # The group was ended: the upload was aborted, or completed and the object replaced since.
        raise RelianceBroken(upload.key) from error


def _done(upload: UploadRecord, record: ObjectRecord, now_ms: int) -> UploadRecord:
    """What is kept of a completed upload: enough to repeat the answer, and no blob's name."""
    result = msgspec.structs.replace(
        record, data=None, parts=(), manifest=None, headers=(), metadata=()
    )
    return msgspec.structs.replace(
        upload, state=DONE, result=result, headers=(), metadata=(), completing_ms=now_ms
    )


def _garbage_of_unused(
    upload: UploadEntry, unused: Sequence[PartEntry], now_ms: int
) -> Iterator[Put]:
    for index, start in enumerate(range(0, len(unused), BLOBS_A_GARBAGE_ENTRY)):
        blobs: tuple[BlobRef, ...] = tuple(
            part.record.data for part in unused[start : start + BLOBS_A_GARBAGE_ENTRY]
        )
        entry = GarbageRecord(commit_id=b"", queued_ms=now_ms, blobs=blobs)
        yield Put(keys.garbage(upload.upload_id + index.to_bytes(2, "big")), encode(entry))


async def abort(
    metadata: Metadata, bucket: BucketEntry, upload: UploadEntry, *, now_ms: int
) -> bool:
    """End an upload that is not done; its parts are queued as one group (see `uploads`). False when
    it changed first. Raises NoSuchBucket."""
    assert upload.record.state != DONE
    entry = GarbageRecord(
        commit_id=b"", queued_ms=now_ms, group=upload.upload_id, owner_key=upload.key
    )
    txn = Txn(
        (bucket.unchanged, unchanged(upload.key, upload.mod_revision)),
        (DeleteRange(upload.key), Put(keys.garbage(upload.upload_id), encode(entry))),
    )
    applied = await metadata.transactions.run(txn)
    if applied.succeeded or applied.certain:
        return applied.succeeded
    _, (queued,) = await _read_again(metadata, bucket, (keys.garbage(upload.upload_id),))
    return queued is not None and decode(GarbageRecord, queued.value).owner_key == upload.key


async def _read_again(
    metadata: Metadata, bucket: BucketEntry, wanted: Sequence[bytes]
) -> tuple[BucketEntry, tuple[KeyValue | None, ...]]:
    """The bucket as it is now, and some keys at the same instant. Raises NoSuchBucket."""
    found_bucket, *found = await metadata.metastore.get_many((bucket.key, *wanted))
    current = metadata.buckets.remember(bucket.name, found_bucket)
    if current.bucket_id != bucket.bucket_id:
        raise NoSuchBucket(bucket.name)
    return current, tuple(found)
