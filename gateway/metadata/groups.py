"""Groups, references and garbage: the transactions that begin, end and reclaim what blobs belong to.

Pure builders. The rules (each has an interleaving behind it):

- A group (a plain blob, or a multipart upload with its parts) has one first owner: the record key
  in its shards' envelopes. Any further record that uses it names that key in `group_owner` and puts
  `r/<group>/<its own key>` in the transaction that creates it, which compares its source.
- The transaction that ends a record puts `g/<group>`, unless its successor uses the group, and
  deletes the record's reference.
- Whoever reclaims claims first: the first owner does not use the group, and `r/<group>/` is empty.
  Nobody can come to use a claimed group: copies compare a source, and there is none left.
- A group's first commit compares `g/<group>` absent, so that a claim by the sweep beats it.
- A transaction whose answer was lost is sent again, and both sendings may arrive, the first one late.
  So nothing that brings a record to a key where there is none may hold a second time, once that
  record has ended: `g/<group>` tells, while the write window is open. A first commit compares it
  absent, a copy as it was read (`for_once`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.metadata import keys
from gateway.metadata.records import (
    BlobRef,
    GarbageRecord,
    ObjectRecord,
    UploadRecord,
    decode,
    encode,
)
from gateway.metadata.windows import window_compare
from placement.metastore.port import (
    OPERATIONS_MAX,
    Compare,
    DeleteRange,
    KeyValue,
    Metastore,
    Operation,
    Put,
    Range,
    Relation,
    Target,
    Txn,
    absent,
    prefix_end,
    unchanged,
)


def blobs_of(record: ObjectRecord) -> tuple[BlobRef, ...]:
    """Every blob that the record itself lists (parts in a manifest are not among them)."""
    if record.data is not None:
        return (record.data,)
    return tuple(part.data for part in record.parts)


def garbage_of(record_key: bytes, record: ObjectRecord, now_ms: int) -> Put:
    """The entry that queues an ended record's group."""
    entry = GarbageRecord(
        commit_id=record.commit_id,
        queued_ms=now_ms,
        blobs=blobs_of(record),
        manifest=record.manifest,
        group=record.group,
        owner_key=record.group_owner or record_key,
    )
    return Put(keys.garbage(record.group), encode(entry))


def end_of(record_key: bytes, record: ObjectRecord, now_ms: int) -> tuple[Operation, ...]:
    """What ends a record's use of its group."""
    garbage = garbage_of(record_key, record, now_ms)
    if record.group_owner:
        return (garbage, DeleteRange(keys.reference(record.group, record_key)))
    return (garbage,)


def replace(
    record_key: bytes,
    record: ObjectRecord,
    value: bytes,
    previous: ObjectRecord | None,
    now_ms: int,
) -> tuple[Operation, ...]:
    """The writes that make `record` (encoded: `value`) the successor of `previous`."""
    operations: list[Operation] = [Put(record_key, value)]
    if record.group_owner:
        operations.append(Put(keys.reference(record.group, record_key), b""))
    if previous is not None and previous.group != record.group:
        operations.extend(end_of(record_key, previous, now_ms))
    return tuple(operations)


def group_owner_of_copy(
    source_key: bytes,
    source: ObjectRecord,
    destination_key: bytes,
    previous: ObjectRecord | None,
) -> bytes:
    """The `group_owner` of a copy's record. An object copied onto itself keeps what it has."""
    if previous is not None and source_key == destination_key and previous.group == source.group:
        return previous.group_owner
    return source.group_owner or source_key


@dataclass(frozen=True, slots=True)
class Ending:
    """An object to delete, as it was read."""

    record_key: bytes
    record: ObjectRecord
    mod_revision: int


def delete_txn(bucket: Compare, endings: Sequence[Ending], now_ms: int) -> Txn:
    """Delete all of them or none. At most `ENDINGS_MAX`, no two of one group.

    The compares go on the outer level; the writes into nested transactions without compares, each
    as large as etcd's limit leaves room for (a level's limit shrinks by its parent's size).
    """
    assert len(endings) <= ENDINGS_MAX
    assert len({ending.record.group for ending in endings}) == len(endings)
    compares = (bucket, *(unchanged(e.record_key, e.mod_revision) for e in endings))
    operations: list[Operation] = []
    for ending in endings:
        operations.append(DeleteRange(ending.record_key))
        operations.extend(end_of(ending.record_key, ending.record, now_ms))
    if len(operations) <= OPERATIONS_MAX:
        return Txn(compares, tuple(operations))
    room = OPERATIONS_MAX - len(compares)
    nested = [
        Txn((), tuple(operations[start : start + room]))
        for start in range(0, len(operations), room)
    ]
    assert len(nested) <= len(compares)
    return Txn(compares, tuple(nested))


ENDINGS_MAX = 100
"""Objects a delete transaction: 101 compares leave 27 writes a nested level, enough levels for three
writes an object."""


async def claim(metastore: Metastore, group: bytes, owner_key: bytes, *, now_ms: int) -> Txn | None:
    """A transaction that claims a group for deletion, or None while something uses it.

    `owner_key` is the group's first owner: from the garbage entry, or from a shard's envelope
    (then an upload's key stands for the object it completes to as well). When the transaction
    succeeds, the group's shards may be deleted at once, readers' deadlines allowing; the entry
    stays until the longest retry of a commit has passed, then it may be deleted.
    """
    owners = [owner_key]
    if owner_key.startswith(keys.UPLOADS):
        owners.append(keys.object_of_upload(owner_key))
    references = keys.references_of(group)
    references_end = prefix_end(references)
    garbage_key = keys.garbage(group)
    *found, used, queued = await metastore.read(
        [
            *(Range(key) for key in owners),
            Range(references, references_end, limit=1, keys_only=True),
            Range(garbage_key),
        ]
    )
    present = {kv.key: kv for result in found for kv in result.kvs}
    if used.kvs or any(_uses(kv, group) for kv in present.values()):
        return None
    if queued.kvs:
        entry = decode(GarbageRecord, queued.kvs[0].value)
        queued_revision = queued.kvs[0].mod_revision
    else:
        entry = GarbageRecord(commit_id=b"", queued_ms=now_ms, group=group, owner_key=owner_key)
        queued_revision = 0
    compares = (
        *(unchanged(key, present[key].mod_revision if key in present else 0) for key in owners),
        # A range compare over no key holds: no reference may exist.
        Compare(references, Target.VERSION, Relation.EQUAL, 0, references_end),
        unchanged(garbage_key, queued_revision),
    )
    claimed = GarbageRecord(
        commit_id=entry.commit_id,
        queued_ms=entry.queued_ms,
        blobs=entry.blobs,
        manifest=entry.manifest,
        group=entry.group,
        owner_key=entry.owner_key,
        claimed=True,
    )
    return Txn(compares, (Put(garbage_key, encode(claimed)),))


def _uses(owner: KeyValue, group: bytes) -> bool:
    """Whether a group's first owner still uses it. An upload does until its completion is done."""
    if owner.key.startswith(keys.UPLOADS):
        upload = decode(UploadRecord, owner.value)
        return upload.upload_id == group and upload.state != "done"
    return decode(ObjectRecord, owner.value).group == group


def first_commit_of(group: bytes) -> Compare:
    """The compare every transaction needs that brings a new group into use."""
    return absent(keys.garbage(group))


async def for_once(metastore: Metastore, garbage: bytes) -> tuple[Compare, Compare]:
    """What the transaction compares that brings something to a key where there is none: not after it
    has ended, for whatever ends it puts this garbage entry, which stays at least until the write
    window is closed. It is that of a record's group, or else what `end_told` puts."""
    queued, opened = await metastore.read(
        [Range(garbage), Range(keys.WINDOWS, prefix_end(keys.WINDOWS), keys_only=True)]
    )
    return (
        unchanged(garbage, queued.kvs[0].mod_revision if queued.kvs else 0),
        window_compare([keys.window_number(kv.key) for kv in opened.kvs]),
    )


def end_told(name: bytes, now_ms: int) -> Put:
    """What the end of something leaves that has no bytes but an id of its own, as a bucket has."""
    return Put(keys.ended(name), encode(GarbageRecord(commit_id=b"", queued_ms=now_ms)))


def tells_of(ended: GarbageRecord, record: ObjectRecord, *, is_new: bool) -> bool:
    """Whether a garbage entry of the record's group shows that the record was committed: it is what
    ended, or, where the group `is_new`, any other that used the group (a claim by the sweep names no
    commit)."""
    return ended.commit_id == record.commit_id or (is_new and bool(ended.commit_id))


def stays_told(window: Compare | None, found: KeyValue | None) -> bool:
    """Whether what ended a group would be known still, of a first commit in that window (its key as
    found)."""
    return window is None or holds(window, found)


def holds(compare: Compare, found: KeyValue | None) -> bool:
    """Whether a compare of one key holds for the key as read (None: absent)."""
    assert compare.range_end is None
    actual: int | bytes
    if compare.target is Target.VALUE:
        if found is None:
            return False
        actual = found.value
    elif found is None:
        actual = 0
    elif compare.target is Target.MOD_REVISION:
        actual = found.mod_revision
    elif compare.target is Target.CREATE_REVISION:
        actual = found.create_revision
    elif compare.target is Target.VERSION:
        actual = found.version
    else:
        actual = found.lease
    operand = compare.operand
    assert isinstance(operand, bytes) == isinstance(actual, bytes)
    match compare.relation:
        case Relation.EQUAL:
            return actual == operand
        case Relation.NOT_EQUAL:
            return actual != operand
        case Relation.GREATER:
            return actual > operand  # type: ignore[operator]
        case Relation.LESS:
            return actual < operand  # type: ignore[operator]
