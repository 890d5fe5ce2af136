"""PutObject (its row is in `objects`)."""

from collections.abc import Awaitable
from functools import lru_cache
from typing import Final

import msgspec

from gateway.context import Context
from gateway.domain.conditions import Verdict, WriteConditions, judge_write
from gateway.domain.encryption import EncryptionRefused
from gateway.domain.object_lock import UNLOCKED, Lock
from gateway.domain.quotas import NOTHING, Amount
from gateway.domain.storage_classes import Kept
from gateway.domain.tags import Tags
from gateway.domain.versions import ENABLED
from gateway.kms.port import KeyServiceError
from gateway.metadata.admission import admit_to_object
from gateway.metadata.entries import BucketEntry, Committed, ObjectEntry, etag_text
from gateway.metadata.errors import (
    MetadataError,
    NoSuchKey,
    PreconditionFailed,
    PresumptionBroken,
)
from gateway.metadata.records import BlobRef, Checksum, ObjectRecord
from gateway.objects.commit import commit_blob
from gateway.objects.encrypted import plain_size_of, stage_encrypted
from gateway.objects.port import Staged, Stored
from gateway.operation import Match, Operation, Resource, principal_of
from gateway.operations.access_lists import (
    AclAsked,
    ObjectAccess,
    access_of_new,
    acl_asked,
    own_access,
)
from gateway.operations.expiration import expiration_headers, expiration_of
from gateway.operations.lock_headers import asked_lock, lock_of_version
from gateway.operations.object_encryption import (
    EncryptionAsked,
    Sealed,
    encryption_asked,
    encryption_headers,
    new_encryption,
)
from gateway.operations.object_headers import (
    ObjectHeaders,
    checksum_headers,
    object_headers,
    quoted_etag,
    write_conditions,
)
from gateway.operations.object_versions import VERSION_ID, made_version
from gateway.operations.storage_class import class_asked, kept_in
from gateway.operations.tag_headers import request_tags
from gateway.s3.checksums import (
    ALGORITHM_BY_HEADER,
    ChecksumAlgorithm,
    ChecksumType,
    Digests,
)
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import Principal, S3Request, S3Response
from gateway.s3.payload import Payload

PRESUMED_SIZE_BYTES_MAX = 64 << 10
"""Larger bodies gain little by leaving out a read of metadata, and lose more when it was needed."""
OBJECT_SIZE_BYTES_MAX = 5 << 30
"""Largest body of one PUT. Source: S3 User Guide, "Uploading objects"."""
_TELLS_NOTHING: Final = frozenset(
    {
        *("accept", "accept-encoding", "authorization", "connection", "content-length"),
        *("content-md5", "content-type", "expect", "host", "user-agent"),
        *("amz-sdk-invocation-id", "amz-sdk-request", "x-amz-content-sha256", "x-amz-date"),
        *("x-amz-decoded-content-length", "x-amz-sdk-checksum-algorithm", "x-amz-security-token"),
        *("x-amz-trailer", *ALGORITHM_BY_HEADER),
    }
)
"""Headers that tell how a request is sent, and nothing of its object but the content type. Nearly all
requests have no others: then no other need be looked for."""


class Put(msgspec.Struct, frozen=True, gc=False):
    """Input of PutObject."""

    bucket: str
    key: str
    principal: Principal
    payload: Payload
    headers: ObjectHeaders
    conditions: WriteConditions | None
    tags: Tags
    lock: Lock
    acl: AclAsked | None = None
    encryption: EncryptionAsked | None = None
    storage_class: str = ""


class Upload(msgspec.Struct, frozen=True, gc=False):
    """What becomes of a body: bucket, key, and what the request says of the object. `previous` is
    what the key held when the request began, `lock` what the new version gets."""

    entry: BucketEntry
    previous: ObjectEntry | None
    key: str
    access: ObjectAccess
    headers: ObjectHeaders
    conditions: WriteConditions | None
    tags: Tags
    lock: Lock
    sealed: Sealed | None = None
    kept: Kept = Kept()
    presumed: bool = False
    """The bucket is `Metadata.bucket_for_new`'s."""


class Published(msgspec.Struct, frozen=True, gc=False):
    """The new object, the version id to answer with ("" where there are no versions), and what
    lifecycle rules have in store for it."""

    record: ObjectRecord
    version: str
    expiration: str = ""


def demand_size(payload: Payload) -> None:
    """EntityTooLarge beyond 5 GiB."""
    if payload.size_bytes > OBJECT_SIZE_BYTES_MAX:
        raise S3Error(
            ErrorCode.ENTITY_TOO_LARGE,
            details={
                "ProposedSize": str(payload.size_bytes),
                "MaxSizeAllowed": str(OBJECT_SIZE_BYTES_MAX),
            },
        )


def payload_of(request: S3Request) -> Payload:
    """The request's body with its expectations; the pipeline made it."""
    assert isinstance(request.body, Payload)
    return request.body


def _decode(request: S3Request) -> Put:
    assert request.bucket is not None
    assert request.key is not None
    payload = payload_of(request)
    demand_size(payload)
    principal = principal_of(request)
    if not request.query and request.headers.keys() <= _TELLS_NOTHING:
        plain = _plain_headers(request.headers.get("content-type", ""))
        return Put(request.bucket, request.key, principal, payload, plain, None, (), UNLOCKED)
    return Put(
        request.bucket,
        request.key,
        principal,
        payload,
        object_headers(request.headers),
        write_conditions(request.headers),
        request_tags(request),
        asked_lock(request.headers),
        acl_asked(request.headers, request.query),
        encryption=encryption_asked(request),
        storage_class=class_asked(request.headers),
    )


@lru_cache(maxsize=256)
def _plain_headers(content_type: str) -> ObjectHeaders:
    """Of an object of which nothing else is told."""
    return object_headers({"content-type": content_type} if content_type else {})


def full_object(digests: Digests) -> Checksum | None:
    """The record of a checksum over all bytes."""
    value = digests.checksum
    if digests.algorithm is None or value is None:
        return None
    return Checksum(algorithm=digests.algorithm.text, type=ChecksumType.FULL_OBJECT, value=value)


def demand_write(
    conditions: WriteConditions | None, key: str, previous: ObjectEntry | None
) -> None:
    """Refuse early what the commit would refuse: before the body is received."""
    if conditions is None:
        return
    judgement = judge_write(conditions, None if previous is None else etag_text(previous.record))
    if judgement.verdict is Verdict.NO_SUCH_KEY:
        raise NoSuchKey(key.encode())
    if judgement.verdict is not Verdict.PROCEED:
        raise PreconditionFailed(judgement.header)


def growth_of_put(entry: BucketEntry, previous: ObjectEntry | None, payload: Payload) -> Amount:
    """What the body will add to its bucket, as far as that is known before it is received: nothing
    where a null version that was not read may end with it."""
    growth, versioning = Amount(payload.size_bytes, 1), entry.record.versioning
    if versioning == ENABLED or (previous is None and not versioning):
        return growth
    if previous is None or previous.record.version_id:
        return NOTHING
    return growth.minus(Amount(previous.record.size_bytes, 1))


async def _handle(context: Context, put: Put) -> Published:
    entry = _presumed_bucket(context, put)
    if entry is not None:
        data = await put.payload.read_all(PRESUMED_SIZE_BYTES_MAX)
        put.payload.put_back(data)
        try:
            published = await _write(context, put, entry, None, presumed=True)
        except PresumptionBroken:
            context.metadata.newness.saw(entry.bucket_id, new=False)
        except (S3Error, MetadataError, EncryptionRefused, KeyServiceError):
            pass  # perhaps only by what the bucket was
        else:
            context.metadata.newness.saw(entry.bucket_id, new=True)
            return published
        put.payload.put_back(data)
    entry, previous = await context.metadata.lookup(put.bucket, put.key, put.principal)
    context.metadata.newness.saw(entry.bucket_id, new=previous is None)
    return await _write(context, put, entry, previous)


def _presumed_bucket(context: Context, put: Put) -> BucketEntry | None:
    """The bucket as last known, for a small write that need not know more before its commit: when
    that holds, what was decided here was true at that moment. A refusal is left to those who look."""
    if put.payload.size_bytes > PRESUMED_SIZE_BYTES_MAX:
        return None
    if put.conditions is not None or put.acl is not None or put.lock != UNLOCKED:
        return None
    entry = context.metadata.bucket_for_new(put.bucket)
    if entry is None:
        return None
    try:
        admit_to_object(entry, None, put.principal)
    except (S3Error, MetadataError):
        return None
    return entry


async def _write(
    context: Context,
    put: Put,
    entry: BucketEntry,
    previous: ObjectEntry | None,
    *,
    presumed: bool = False,
) -> Published:
    demand_write(put.conditions, put.key, previous)
    kept = kept_in(context, entry, put.storage_class)
    if context.metadata.quotas.active:
        context.metadata.quotas.demand(entry, growth_of_put(entry, previous, put.payload))
    lock = lock_of_version(entry.record, put.lock, context.clock)
    access = own_access(entry, put.principal)
    if put.acl is not None:
        access = await access_of_new(context, entry, put.principal, put.acl)
    payload, sealed = put.payload, None
    if (
        put.encryption is not None
        or entry.record.encryption is not None
        or context.encrypts_everything
    ):
        sealed = await new_encryption(context, put.encryption, entry)
    if sealed is None:
        digests = payload.digests(ChecksumAlgorithm.CRC64NVME)
        staged = await context.objects.stage(
            payload, payload.size_bytes, digests, scheme=kept.scheme
        )
    else:
        digests = payload.digests(ChecksumAlgorithm.CRC64NVME, md5=sealed.keeps_md5)
        staged = await stage_encrypted(
            context.objects,
            payload,
            payload.size_bytes,
            digests,
            sealed.cipher,
            scheme=kept.scheme,
        )
    try:
        payload.verify(digests)
    except S3Error:
        await context.objects.discard(staged)
        raise
    return await publish_upload(
        context,
        Upload(
            entry,
            previous,
            put.key,
            access,
            put.headers,
            put.conditions,
            put.tags,
            lock,
            sealed,
            kept,
            presumed,
        ),
        staged,
        digests,
    )


async def publish_upload(
    context: Context, upload: Upload, staged: Staged, digests: Digests
) -> Published:
    """Make a verified body the object: durable first, then its record. The staged blob is used up."""
    entry = upload.entry
    record_key = entry.object_key(upload.key)
    checksum = full_object(digests)
    sealed = upload.sealed
    etag = digests.md5 if sealed is None or sealed.keeps_md5 else context.randomness.token(16)
    now_ms = context.clock.now_ns() // 1_000_000
    commit_id = context.randomness.token(8)
    stamp = context.metadata.versions.stamp(entry, upload.previous)

    def build(ref: BlobRef) -> ObjectRecord:
        return ObjectRecord(
            owner=upload.access.owner,
            group=ref.blob,
            size_bytes=ref.size_bytes if sealed is None else plain_size_of(ref),
            etag=etag,
            modified_ms=now_ms,
            commit_id=commit_id,
            data=ref,
            checksum=checksum,
            content_type=upload.headers.content_type,
            headers=upload.headers.headers,
            metadata=upload.headers.metadata,
            storage_class=upload.kept.storage_class,
            scheme=upload.kept.named,
            tags=upload.tags,
            version_id=stamp.version_id,
            order=stamp.order,
            retention=upload.lock.retention,
            legal_hold=upload.lock.is_held,
            hold_lifted=upload.lock.is_lifted,
            encryption=b"" if sealed is None else sealed.encoded,
            acl=upload.access.grants,
        )

    def publish(record: ObjectRecord, value: bytes, stored: Stored) -> Awaitable[Committed]:
        return context.metadata.commits.commit(
            entry,
            record_key,
            record,
            value=value,
            stored=stored,
            previous=upload.previous,
            conditions=upload.conditions,
            presumed=upload.presumed,
        )

    committed = await commit_blob(context.objects, staged, record_key, build, publish, along=True)
    expiration = expiration_of(entry, upload.key, committed.record) if entry.lifecycle else ""
    return Published(committed.record, made_version(committed.record), expiration)


def _encode(published: Published) -> S3Response:
    record = published.record
    headers = [("ETag", quoted_etag(record)), *checksum_headers(record.checksum)]
    if record.encryption:
        headers += encryption_headers(record.encryption, created=True)
    if published.version:
        headers.append((VERSION_ID, published.version))
    if published.expiration:
        headers += expiration_headers(published.expiration)
    return S3Response(200, headers, b"")


PUT_OBJECT = Operation(
    name="PutObject",
    match=Match("PUT", Resource.OBJECT),
    permission="s3:PutObject",
    decode=_decode,
    handle=_handle,
    encode=_encode,
)
