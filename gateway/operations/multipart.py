"""CreateMultipartUpload, UploadPart, AbortMultipartUpload; and the rows of all multipart operations."""

from dataclasses import dataclass

from gateway.context import Context
from gateway.domain.multipart import PART_SIZE_BYTES_MAX
from gateway.domain.object_lock import Lock
from gateway.domain.tags import Tags
from gateway.metadata import upload_commits, uploads
from gateway.metadata.errors import Contended
from gateway.metadata.records import UploadRecord
from gateway.operation import AnyOperation, Match, Operation, Resource, principal_of
from gateway.operations import multipart_complete, multipart_listing, part_copy
from gateway.operations.access_lists import AclAsked, access_of_new, acl_asked
from gateway.operations.buckets import xml_response
from gateway.operations.lock_headers import asked_lock, lock_of_version
from gateway.operations.object_encryption import (
    EncryptionAsked,
    encryption_asked,
    encryption_headers,
    keeps_md5,
    new_encryption,
)
from gateway.operations.object_headers import ObjectHeaders, object_headers
from gateway.operations.put import payload_of
from gateway.operations.storage_class import class_asked, kept_in
from gateway.operations.tag_headers import request_tags
from gateway.operations.upload_parts import (
    NewPart,
    UploadNamed,
    algorithm_of,
    checksum_type_of,
    find_open,
    find_unfinished,
    key_for_part,
    part_number,
    shown_checksum,
    store_part,
    upload_named,
)
from gateway.s3.checksums import (
    ChecksumAlgorithm,
    ChecksumType,
    encode_base64,
    upload_checksum,
)
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.headers import quote_etag
from gateway.s3.message import Principal, S3Request, S3Response
from gateway.s3.payload import Payload
from gateway.s3.xml import element

_ABORT_TRIES = 8


# CreateMultipartUpload


@dataclass(frozen=True, slots=True)
class Create:
    """Input of CreateMultipartUpload."""

    bucket: str
    key: str
    principal: Principal
    headers: ObjectHeaders
    checksum: tuple[ChecksumAlgorithm, ChecksumType] | None
    tags: Tags
    lock: Lock
    acl: AclAsked | None
    encryption: EncryptionAsked | None
    storage_class: str


@dataclass(frozen=True, slots=True)
class Created:
    """The upload begun. `encryption` is its envelope."""

    asked: Create
    upload_id: str
    encryption: bytes


def _decode_create(request: S3Request) -> Create:
    assert request.bucket is not None
    assert request.key is not None
    return Create(
        request.bucket,
        request.key,
        principal_of(request),
        object_headers(request.headers),
        upload_checksum(request.headers),
        request_tags(request),
        asked_lock(request.headers),
        acl_asked(request.headers, request.query),
        encryption_asked(request),
        class_asked(request.headers),
    )


async def _create(context: Context, asked: Create) -> Created:
    bucket = await context.metadata.bucket(asked.bucket, asked.principal)
    kept = kept_in(context, bucket, asked.storage_class)
    sealed = None
    if (
        asked.encryption is not None
        or bucket.record.encryption is not None
        or context.encrypts_everything
    ):
        sealed = await new_encryption(context, asked.encryption, bucket)
    encryption = b"" if sealed is None else sealed.encoded
    now_ms = context.clock.now_ns() // 1_000_000
    lock_of_version(bucket.record, asked.lock, context.clock)  # refused now, not at the end
    access = await access_of_new(context, bucket, asked.principal, asked.acl)
    upload_id = uploads.new_upload_id(now_ms, context.randomness)
    algorithm, kind = asked.checksum if asked.checksum is not None else (None, None)
    record = UploadRecord(
        upload_id=upload_id,
        owner=access.owner,
        acl=access.grants,
        initiator=asked.principal.account_id,
        created_ms=now_ms,
        checksum_algorithm="" if algorithm is None else algorithm.text,
        checksum_type="" if kind is None else kind.value,
        content_type=asked.headers.content_type,
        headers=asked.headers.headers,
        metadata=asked.headers.metadata,
        storage_class=kept.storage_class,
        scheme=kept.named,
        tags=asked.tags,
        retention=asked.lock.retention,
        legal_hold=asked.lock.is_held,
        hold_lifted=asked.lock.is_lifted,
        encryption=encryption,
    )
    await upload_commits.create(context.metadata, bucket, asked.key, record)
    return Created(asked, upload_id.hex(), encryption)


def _encode_create(created: Created) -> S3Response:
    asked = created.asked
    response = xml_response(
        "InitiateMultipartUploadResult",
        [
            element("Bucket", asked.bucket),
            element("Key", asked.key),
            element("UploadId", created.upload_id),
        ],
    )
    if created.encryption:
        response.headers.extend(encryption_headers(created.encryption, created=True))
    if asked.checksum is not None:
        algorithm, kind = asked.checksum
        response.headers.append(("x-amz-checksum-algorithm", algorithm.text))
        response.headers.append(("x-amz-checksum-type", kind.value))
    return response


# UploadPart


@dataclass(frozen=True, slots=True)
class UploadPart:
    """Input of UploadPart."""

    named: UploadNamed
    number: int
    payload: Payload
    encryption: EncryptionAsked | None


def _decode_part(request: S3Request) -> UploadPart:
    payload = payload_of(request)
    if payload.size_bytes > PART_SIZE_BYTES_MAX:
        raise S3Error(
            ErrorCode.ENTITY_TOO_LARGE,
            details={
                "ProposedSize": str(payload.size_bytes),
                "MaxSizeAllowed": str(PART_SIZE_BYTES_MAX),
            },
        )
    return UploadPart(
        upload_named(request), part_number(request), payload, encryption_asked(request)
    )


def _demand_algorithm(upload: UploadRecord, sent: ChecksumAlgorithm | None) -> None:
    """A part's checksum must be of the upload's algorithm; a composite one needs it from the client.
    Of a full-object checksum the parts' own are computed here when they are not sent."""
    if not upload.checksum_algorithm:
        return
    algorithm = algorithm_of(upload)
    optional = checksum_type_of(upload) is ChecksumType.FULL_OBJECT
    if sent is algorithm or (sent is None and optional):
        return
    actual = "null" if sent is None else sent.text.lower()
    raise S3Error(
        ErrorCode.INVALID_REQUEST,
        "Checksum Type mismatch occurred, expected checksum Type: "
        f"{algorithm.text.lower()}, actual checksum Type: {actual}",
    )


async def _upload_part(context: Context, asked: UploadPart) -> NewPart:
    found = await find_open(context, asked.named)
    upload, payload = found[1].record, asked.payload
    _demand_algorithm(upload, payload.algorithm)
    data_key = await key_for_part(context, upload, asked.encryption)
    digests = payload.digests(algorithm_of(upload), md5=keeps_md5(upload.encryption))
    return await store_part(
        context,
        asked.named,
        found,
        asked.number,
        payload,
        digests,
        lambda: payload.verify(digests),
        data_key,
    )


def _encode_part(part: NewPart) -> S3Response:
    algorithm, value = shown_checksum(part.upload, part.record)
    headers = [
        ("ETag", quote_etag(part.record.etag.hex())),
        (algorithm.header, encode_base64(value)),
    ]
    if part.record.encryption:
        headers += encryption_headers(part.record.encryption)
    return S3Response(200, headers)


# AbortMultipartUpload


async def _abort(context: Context, named: UploadNamed) -> None:
    for _ in range(_ABORT_TRIES):
        bucket, upload = await find_unfinished(context, named)
        now_ms = context.clock.now_ns() // 1_000_000
        if await upload_commits.abort(context.metadata, bucket, upload, now_ms=now_ms):
            return
    raise Contended("the upload keeps changing")


def _encode_abort(_: None) -> S3Response:
    return S3Response(204)


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="CreateMultipartUpload",
        match=Match("POST", Resource.OBJECT, query=("uploads",)),
        permission="s3:PutObject",
        decode=_decode_create,
        handle=_create,
        encode=_encode_create,
    ),
    Operation(
        name="UploadPart",
        match=Match("PUT", Resource.OBJECT, query=("partNumber", "uploadId")),
        permission="s3:PutObject",
        decode=_decode_part,
        handle=_upload_part,
        encode=_encode_part,
        length_required=True,
    ),
    Operation(
        name="AbortMultipartUpload",
        match=Match("DELETE", Resource.OBJECT, query=("uploadId",)),
        permission="s3:AbortMultipartUpload",
        decode=upload_named,
        handle=_abort,
        encode=_encode_abort,
    ),
    *part_copy.OPERATIONS,
    *multipart_listing.OPERATIONS,
    *multipart_complete.OPERATIONS,
)
