"""What shards tell that the rebuilt metadata does not: written after the last snapshot and changes.

Nobody can say of them that their commit ever came, nor that they were not deleted since. So they are
told apart, and put back only when an operator says so.
"""

import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.domain.storage_classes import SchemeOf, StoredAs, is_narrow
from gateway.metadata import keys, uploads
from gateway.metadata.entries import BucketEntry
from gateway.metadata.errors import MetadataError
from gateway.metadata.records import (
    BlobRef,
    BucketRecord,
    ObjectRecord,
    PartRecord,
    RecordError,
    UploadRecord,
    decode,
    encode,
)
from gateway.metadata.snapshots import RebuiltRecord, digest_of
from gateway.objects.port import Stored
from gateway.s3.message import Principal
from ops.clients import Clients
from ops.keeper.usage import Usage, usage_of
from ops.rebuild.drives import shards
from ops.refusal import Refused
from placement.errors import PeerUnavailable
from placement.ids import BlobId, BucketId, UploadId
from placement.metastore.port import Put, Range, Txn, absent, prefix_end, unchanged
from placement.schemes import Scheme
from storage_node.port import NodePort, ShardInfo
from storage_node.shard import ShardEnvelope, decode_envelope, encode_envelope

MARGIN_MS = 300_000
"""Clocks of gateways and keeper may differ by so much: what is older was known, and has ended."""
_BUCKETS_A_PAGE = 1000

log = logging.getLogger("ostraka.rebuild")


@dataclass(frozen=True, slots=True)
class Later:
    """An object, or a part of an upload, that only its shards tell of. `bucket` is empty when the
    metadata does not know it: its name is nowhere then."""

    kind: str
    bucket: str
    key: str
    size_bytes: int
    created_ms: int
    readable: bool
    envelope: ShardEnvelope
    part: int = 0

    def shown(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": self.kind,
            "bucket": self.bucket,
            "bucket_id": self.envelope.owner_key[2:10].hex(),
            "key": self.key,
            "size_bytes": self.size_bytes,
            "created_ms": self.created_ms,
            "readable": self.readable,
            "blob": self.envelope.blob.hex(),
        } | ({"part": self.part} if self.part else {})


async def later_shards(clients: Clients, seen: Callable[[int], None]) -> AsyncIterator[Later]:
    """All of them, in no order. Raises Refused when nothing was rebuilt. Memory: 32
    bytes and some for each.

    A listing reads headers without their checksums: they tell what to look at. What is yielded was
    read, and verified.
    """
    (found,) = await clients.metastore.get_many([keys.REBUILT])
    if found is None:
        raise Refused("no rebuild waits to be confirmed")
    since_ms = decode(RebuiltRecord, found.value).as_of_ms - MARGIN_MS
    names = await _bucket_names(clients)
    told: set[bytes] = set()
    judged: set[bytes] = set()
    async for _, info, listed in shards(clients.nodes, seen):
        blob = info.shard.blob
        # Where the headers of a blob differ, each is a reason to look.
        header = digest_of(encode_envelope(msgspec.structs.replace(listed, index=0)))
        if blob in told or header in judged:
            continue
        judged.add(header)
        if not await _is_later(clients, listed, since_ms):
            continue
        told.add(blob)
        whole, readable = await _verified(clients, blob)
        if whole is not None and not await _is_later(clients, whole, since_ms):
            continue
        envelope = whole or listed
        try:
            item = _read(envelope, names, readable=readable)
        except RecordError as error:
            log.warning("blob %s: %s", envelope.blob.hex(), error)
            continue
        if item is not None:
            yield item


async def _is_later(clients: Clients, envelope: ShardEnvelope, since_ms: int) -> bool:
    """Whether no record uses the blob, and it is as new as that."""
    if envelope.created_ms < since_ms or envelope.owner_key.startswith(keys.SNAPSHOT_PARTS):
        return False
    now_ms = clients.clock.now_ns() // 1_000_000
    return await usage_of(clients.metastore, envelope, now_ms=now_ms) is Usage.ORPHAN


async def _verified(clients: Clients, blob: BlobId) -> tuple[ShardEnvelope | None, bool]:
    """The envelope of the blob's shards that pass their checksums, header and fragments, and whether
    they are enough to read it by; None when there is none. Reads no more shards than are needed."""
    intact: dict[int, ShardEnvelope] = {}
    for name in sorted(clients.nodes):
        node = clients.nodes[name]
        (infos,) = await node.locate([blob])
        for info in infos:
            if info.shard.index in intact:
                continue
            envelope = await _intact(node, info)
            if envelope is None:
                continue
            intact[info.shard.index] = envelope
            if len(intact) >= envelope.k:
                return envelope, True
    return next(iter(intact.values()), None), False


async def _intact(node: NodePort, info: ShardInfo) -> ShardEnvelope | None:
    """What a shard tells, once its node has read and verified it."""
    shard = info.shard
    try:
        (found,) = await node.stat([(info.drive, shard)], verify=True)
        if isinstance(found, ShardInfo):
            envelope = decode_envelope(found.envelope)
            if (envelope.blob, envelope.index) == (shard.blob, shard.index):
                return envelope
        log.warning("shard %s.%d is not as it was written", shard.blob.hex(), shard.index)
    except (PeerUnavailable, ValueError) as error:
        log.warning("shard %s.%d: %s", shard.blob.hex(), shard.index, error)
    return None


async def put_back(clients: Clients, item: Later) -> str:
    """Commit what the shards tell; "" when that is done, else why not."""
    if not item.readable:
        return "too few of its shards are whole"
    if not item.bucket:
        return "its bucket is not known"
    try:
        bucket = await clients.metadata.bucket(item.bucket, await _owner_of(clients, item.bucket))
        if item.kind == "part":
            return await _put_part_back(clients, bucket, item)
        return await _put_object_back(clients, bucket, item)
    except MetadataError as error:
        return str(error)


async def _put_object_back(clients: Clients, bucket: BucketEntry, item: Later) -> str:
    record = decode(ObjectRecord, item.envelope.record)
    record_key = bucket.object_key(item.key)
    owner = await _owner_of(clients, bucket.name)
    bucket, present = await clients.metadata.lookup(bucket.name, item.key, owner)
    if present is not None and present.record.modified_ms > record.modified_ms:
        return "a newer object is in its place"
    assert record.data is not None
    # The map is not compared: the shards are where they are, and repair brings them home.
    narrow = _is_narrow(clients, record.scheme, record.data)
    stored = Stored(record.data, (), (), narrow)
    await clients.metadata.commits.commit(
        bucket, record_key, record, stored=stored, previous=present
    )
    return ""


async def _put_part_back(clients: Clients, bucket: BucketEntry, item: Later) -> str:
    """Into its upload, which is begun anew if need be: whoever knows what it was to become can
    complete it, or abort it."""
    part = decode(PartRecord, item.envelope.record)
    upload_key = item.envelope.owner_key
    upload_id = UploadId(item.envelope.group)
    finished_key = keys.finished(upload_key)
    found, finished, object_ = await clients.metastore.get_many(
        [upload_key, finished_key, keys.object_of_upload(upload_key)]
    )
    if finished is not None:
        return "its upload is done"
    if object_ is not None and decode(ObjectRecord, object_.value).group == upload_id:
        return "its upload has become an object without it"
    upload = None if found is None else decode(UploadRecord, found.value)
    named = None if upload is None else upload.scheme
    part = msgspec.structs.replace(part, narrow=_is_narrow(clients, named, part.data))
    writes = [Put(keys.part(upload_id, item.part), encode(part))]
    if upload is None:
        begun = UploadRecord(
            upload_id=upload_id,
            owner=bucket.record.owner,
            initiator=bucket.record.owner,
            created_ms=part.modified_ms,
            encryption=part.encryption,
        )
        writes.append(Put(upload_key, encode(begun)))
    elif upload.state != uploads.OPEN:
        return "its upload is being completed, or is done"
    compares = (
        bucket.unchanged,
        unchanged(upload_key, found.mod_revision if found is not None else 0),
        absent(finished_key),
        absent(keys.part(upload_id, item.part)),
        absent(keys.garbage(item.envelope.blob)),
        absent(keys.garbage(upload_id)),
    )
    done = await clients.metastore.txn(Txn(compares, tuple(writes)))
    return "" if done.succeeded else "another part is in its place, or it was given up"


def _is_narrow(clients: Clients, named: SchemeOf | None, data: BlobRef) -> bool:
    """A shard's own record was made before that showed."""
    blob = StoredAs(Scheme(data.k, data.m, data.stripe_size_bytes), data.size_bytes)
    return is_narrow(named, blob, clients.objects.schemes)


def _read(envelope: ShardEnvelope, names: dict[bytes, str], *, readable: bool) -> Later | None:
    """What an envelope tells. None for a table of parts, which says nothing by itself."""
    owner_key = envelope.owner_key
    bucket = names.get(owner_key[2:10], "")
    if owner_key.startswith((keys.OBJECTS, keys.VERSIONS)):
        record = decode(ObjectRecord, envelope.record)
        if record.data is None or record.data.blob != envelope.blob:
            return None
        key = keys.key_of_object(keys.object_of(owner_key)).decode()
        size = record.size_bytes
        return Later("object", bucket, key, size, envelope.created_ms, readable, envelope)
    if owner_key.startswith(keys.UPLOADS):
        part = decode(PartRecord, envelope.record)
        key = keys.key_of_object(keys.object_of_upload(owner_key)).decode()
        size = part.size_bytes
        return Later(
            "part", bucket, key, size, envelope.created_ms, readable, envelope, part.number
        )
    return None


async def _bucket_names(clients: Clients) -> dict[bytes, str]:
    names: dict[bytes, str] = {}
    start, end = keys.BUCKETS, prefix_end(keys.BUCKETS)
    while True:
        page = await clients.metastore.range(Range(start, end, limit=_BUCKETS_A_PAGE))
        for kv in page.kvs:
            record = decode(BucketRecord, kv.value)
            names[BucketId(record.bucket_id)] = kv.key[len(keys.BUCKETS) :].decode()
        if not page.more:
            return names
        start = page.kvs[-1].key + b"\x00"


async def _owner_of(clients: Clients, bucket: str) -> Principal:
    """The root of the account that owns the bucket."""
    (found,) = await clients.metastore.get_many([keys.bucket(bucket)])
    owner = decode(BucketRecord, found.value).owner if found is not None else ""
    return Principal(owner, "", "", "", "")
