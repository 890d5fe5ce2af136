"""CompleteMultipartUpload: the parts become an object, once, however often it is asked for.

The upload is set `completing`, which makes its parts stand still; the part table is written to a
blob if it is long; then one transaction commits the object and sets the upload `done`. Whoever
repeats the request, after a crash or beside it, finds the state and goes on from there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from gateway.context import Context
from gateway.domain.conditions import WriteConditions
from gateway.domain.multipart import (
    PART_NUMBER_MAX,
    PART_SIZE_BYTES_MIN,
    KnownPart,
    ListedPart,
    NotAscending,
    PartNotFound,
    PartTooSmall,
    Refusal,
    completion_token,
    etag_of_parts,
    judge_parts,
)
from gateway.domain.storage_classes import scheme_named
from gateway.metadata import upload_commits, uploads
from gateway.metadata.entries import BucketEntry, Committed, ObjectEntry, etag_text
from gateway.metadata.errors import Contended, MetadataError, NoSuchBucket, RelianceBroken
from gateway.metadata.records import (
    BlobRef,
    Checksum,
    ObjectRecord,
    PartRef,
    UploadRecord,
    encode,
)
from gateway.metadata.uploads import COMPLETING, DONE, PartEntry, Parts, UploadEntry
from gateway.objects.commit import commit_blob
from gateway.objects.errors import ObjectsError
from gateway.objects.manifest import encode_parts
from gateway.objects.port import Stored
from gateway.operation import AnyOperation, Match, Operation, Resource
from gateway.operations.buckets import xml_response
from gateway.operations.expiration import expiration_headers, expiration_of
from gateway.operations.lock_headers import lock_of_upload
from gateway.operations.object_encryption import (
    EncryptionAsked,
    demand_completion_key,
    encryption_asked,
    encryption_headers,
)
from gateway.operations.object_headers import checksum_elements, write_conditions
from gateway.operations.object_versions import made_version, version_headers
from gateway.operations.put import demand_write
from gateway.operations.upload_parts import (
    UploadNamed,
    algorithm_of,
    checksum_type_of,
    no_such_upload,
    upload_named,
)
from gateway.s3.checksums import (
    ALGORITHM_BY_ELEMENT,
    ChecksumAlgorithm,
    ChecksumType,
    checksum_type,
    composite,
    decode_base64,
    full_object,
    header_checksum,
)
from gateway.s3.documents import COMPLETE_DOCUMENT_LIMIT_BYTES, CompletedPart, parse_complete
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.headers import quote_etag
from gateway.s3.message import S3Request, S3Response
from gateway.s3.xml import element
from placement.ids import GroupId

INLINE_TABLE_SIZE_BYTES_MAX = 512
"""A part table up to this size stays in the object's record; a longer one becomes a blob."""
_TRIES = 8
_OBJECT_SIZE = "x-amz-mp-object-size"


@dataclass(frozen=True, slots=True)
class Complete:
    """Input. `listed` is the part list as the rules see it, `parts` with the client's checksums."""

    named: UploadNamed
    listed: tuple[ListedPart, ...]
    parts: tuple[CompletedPart, ...]
    token: bytes
    checksum: tuple[ChecksumAlgorithm, str] | None
    checksum_type: ChecksumType | None
    size_bytes: int | None
    conditions: WriteConditions | None
    location: str
    encryption: EncryptionAsked | None


@dataclass(frozen=True, slots=True)
class Completed:
    """The object, as its completion told it at first, the version id to answer with, and what
    lifecycle rules have in store for it."""

    asked: Complete
    record: ObjectRecord
    version: str
    expiration: str


@dataclass(frozen=True, slots=True)
class Assembly:
    """What the chosen parts make; `unused` parts were uploaded but not listed."""

    parts: tuple[PartRef, ...]
    size_bytes: int
    etag: bytes
    checksum: Checksum
    narrow: bool
    unused: tuple[PartEntry, ...]


# Decoding


def _decode(request: S3Request) -> Complete:
    parts = parse_complete(request.document)
    for part in parts:
        if not 1 <= part.part_number <= PART_NUMBER_MAX:
            raise invalid_argument(
                "PartNumber",
                str(part.part_number),
                f"Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive",
            )
    listed = tuple(ListedPart(part.part_number, part.etag.strip('"')) for part in parts)
    return Complete(
        named=upload_named(request),
        listed=listed,
        parts=parts,
        token=completion_token(listed),
        checksum=header_checksum(request.headers),
        checksum_type=checksum_type(request.headers.get("x-amz-checksum-type")),
        size_bytes=_object_size(request.headers),
        conditions=write_conditions(request.headers),
        location=_location(request),
        encryption=encryption_asked(request),
    )


def _object_size(headers: Mapping[str, str]) -> int | None:
    text = headers.get(_OBJECT_SIZE)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise S3Error(ErrorCode.INVALID_REQUEST, f"Value for {_OBJECT_SIZE} header is invalid.")
    return int(text)


def _location(request: S3Request) -> str:
    assert request.key is not None
    scheme = "https" if request.secure else "http"
    path = quote(request.key, safe="/-_.~")
    if not request.virtual_host:
        path = f"{request.bucket}/{path}"
    return f"{scheme}://{request.headers.get('host', '')}/{path}"


# Rules in S3's words


def assemble(asked: Complete, upload: UploadRecord, entries: Sequence[PartEntry]) -> Assembly:
    """The object that the listed parts make. Raises InvalidPart, InvalidPartOrder, EntityTooSmall,
    BadDigest, InvalidRequest."""
    known = {
        entry.number: KnownPart(entry.record.etag, entry.record.size_bytes) for entry in entries
    }
    refusal = judge_parts(asked.listed, known)
    if refusal is not None:
        raise _refused(refusal, asked)
    by_number = {entry.number: entry for entry in entries}
    chosen = [by_number.pop(part.number) for part in asked.listed]
    size_bytes = sum(entry.record.size_bytes for entry in chosen)
    checksum = _checksum(upload, chosen)
    _demand_checksum(asked, upload, checksum)
    _demand_part_checksums(asked, upload, chosen)
    if asked.size_bytes is not None and asked.size_bytes != size_bytes:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            f"The provided '{_OBJECT_SIZE}' header value {asked.size_bytes} does not match what "
            f"was computed: {size_bytes}",
        )
    return Assembly(
        parts=tuple(
            PartRef(
                number=entry.number,
                data=entry.record.data,
                checksum=entry.record.checksum,
                salt=entry.record.salt,
            )
            for entry in chosen
        ),
        size_bytes=size_bytes,
        etag=etag_of_parts([entry.record.etag for entry in chosen]),
        checksum=checksum,
        narrow=any(entry.record.narrow for entry in chosen),
        unused=tuple(by_number.values()),
    )


def _refused(refusal: Refusal, asked: Complete) -> S3Error:
    match refusal:
        case NotAscending():
            return S3Error(
                ErrorCode.INVALID_PART_ORDER, details={"UploadId": asked.named.upload_id}
            )
        case PartNotFound(part):
            return _invalid_part(asked, part)
        case PartTooSmall(part, size_bytes):
            return S3Error(
                ErrorCode.ENTITY_TOO_SMALL,
                details={
                    "ETag": part.etag,
                    "MinSizeAllowed": str(PART_SIZE_BYTES_MIN),
                    "ProposedSize": str(size_bytes),
                    "PartNumber": str(part.number),
                },
            )


def _invalid_part(asked: Complete, part: ListedPart) -> S3Error:
    return S3Error(
        ErrorCode.INVALID_PART,
        details={
            "UploadId": asked.named.upload_id,
            "PartNumber": str(part.number),
            "ETag": part.etag,
        },
    )


def _checksum(upload: UploadRecord, chosen: Sequence[PartEntry]) -> Checksum:
    algorithm, kind = algorithm_of(upload), checksum_type_of(upload)
    if kind is ChecksumType.COMPOSITE:
        value = composite(algorithm, [entry.record.checksum for entry in chosen])
    else:
        value = full_object(
            algorithm,
            [(entry.record.checksum, entry.record.size_bytes) for entry in chosen],
        )
    return Checksum(
        algorithm=algorithm.text,
        type=kind.value,
        value=value,
        parts=len(chosen) if kind is ChecksumType.COMPOSITE else 0,
    )


def _demand_checksum(asked: Complete, upload: UploadRecord, computed: Checksum) -> None:
    """The client's own checksum of the whole object, and its type."""
    if asked.checksum_type is not None and asked.checksum_type.value != computed.type:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            f"The upload was created using the {computed.type} checksum mode. The complete request "
            "must use the same checksum mode.",
        )
    if asked.checksum is None:
        return
    algorithm, text = asked.checksum
    if algorithm.text != computed.algorithm:
        expected = upload.checksum_algorithm.lower() or "null"
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            f"Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum "
            f"Type: {algorithm.text.lower()}",
        )
    value, _, parts = text.strip().partition("-")
    if decode_base64(value) != computed.value or (parts and parts != str(computed.parts)):
        raise S3Error(
            ErrorCode.BAD_DIGEST,
            f"The {algorithm.text} you specified did not match the calculated checksum.",
        )


def _demand_part_checksums(
    asked: Complete, upload: UploadRecord, chosen: Sequence[PartEntry]
) -> None:
    """Checksums in the part list must be the parts'; a composite checksum needs all of them."""
    own = algorithm_of(upload)
    needed = bool(upload.checksum_algorithm) and (
        checksum_type_of(upload) is ChecksumType.COMPOSITE
    )
    for claimed, listed, entry in zip(asked.parts, asked.listed, chosen, strict=True):
        if needed and own.element not in claimed.checksums:
            raise S3Error(
                ErrorCode.INVALID_REQUEST,
                f"The upload was created using a {own.text.lower()} checksum. The complete request "
                "must include the checksum for each part. It was missing for part "
                f"{listed.number} in the request.",
            )
        for name, text in claimed.checksums.items():
            algorithm = ALGORITHM_BY_ELEMENT[name]
            if algorithm is own:
                value = entry.record.checksum
            elif algorithm.text == entry.record.declared_algorithm:
                value = entry.record.declared
            else:
                raise _invalid_part(asked, listed)
            if decode_base64(text) != value:
                raise _invalid_part(asked, listed)


# Handling


async def _complete(context: Context, asked: Complete) -> Completed:
    for attempt in range(_TRIES):
        bucket, upload, previous = await _find(context, asked.named)
        if upload.record.encryption or asked.encryption is not None:
            demand_completion_key(
                context,
                upload.record.encryption,
                asked.encryption,
                checksummed=bool(upload.record.checksum_algorithm),
            )
        state, same = upload.record.state, upload.record.token == asked.token
        if state == DONE:
            if not same or upload.record.result is None:
                raise no_such_upload(asked.named)
            result = upload.record.result
            return _completed(asked, bucket, result)
        if attempt and state == COMPLETING and not same:
            raise S3Error(ErrorCode.OPERATION_ABORTED)  # another completion took over
        parts = await uploads.read_parts(context.metadata.metastore, upload.upload_id)
        try:
            assembly = assemble(asked, upload.record, parts.entries)
        except S3Error:
            _, again, _ = await _find(context, asked.named)
            if again.mod_revision == upload.mod_revision:
                raise
            continue  # what was read was the end of another completion
        demand_write(asked.conditions, asked.named.key, previous)
        frozen: UploadEntry | None = upload
        if state != COMPLETING or not same:
            frozen = await _freeze(context, asked, bucket, upload, parts)
        if frozen is None:
            continue
        committed = await _finish_or_reopen(context, asked, bucket, frozen, previous, assembly)
        if committed is not None:
            return _completed(asked, bucket, committed.record)
    raise Contended("the upload keeps changing")


def _completed(asked: Complete, bucket: BucketEntry, record: ObjectRecord) -> Completed:
    expiration = expiration_of(bucket, asked.named.key, record) if bucket.lifecycle else ""
    return Completed(asked, record, made_version(record), expiration)


async def _find(
    context: Context, named: UploadNamed
) -> tuple[BucketEntry, UploadEntry, ObjectEntry | None]:
    bucket = await context.metadata.bucket(named.bucket, named.principal)
    upload_id = uploads.parse_upload_id(named.upload_id)
    if upload_id is None:
        raise no_such_upload(named)
    upload, current = await uploads.find(context.metadata, bucket, named.key, upload_id)
    if upload is None:
        raise no_such_upload(named)
    return bucket, upload, current


async def _freeze(
    context: Context, asked: Complete, bucket: BucketEntry, upload: UploadEntry, parts: Parts
) -> UploadEntry | None:
    now_ms = context.clock.now_ns() // 1_000_000
    return await upload_commits.freeze(
        context.metadata, bucket, upload, parts, token=asked.token, now_ms=now_ms
    )


async def _finish_or_reopen(
    context: Context,
    asked: Complete,
    bucket: BucketEntry,
    upload: UploadEntry,
    previous: ObjectEntry | None,
    assembly: Assembly,
) -> Committed | None:
    """None when what was relied on changed: then look again. After a refusal the upload is open
    again; after an unknown outcome it is left as it is, for the client to ask again."""
    try:
        return await _finish(context, asked, bucket, upload, previous, assembly)
    except RelianceBroken:
        return None
    except NoSuchBucket:
        raise
    except (MetadataError, ObjectsError):
        await upload_commits.reopen(context.metadata, upload)
        raise


async def _finish(
    context: Context,
    asked: Complete,
    bucket: BucketEntry,
    upload: UploadEntry,
    previous: ObjectEntry | None,
    assembly: Assembly,
) -> Committed:
    now_ms = context.clock.now_ns() // 1_000_000
    commit_id = context.randomness.token(8)
    table = encode_parts(assembly.parts)
    stamp = context.metadata.versions.stamp(bucket, previous)
    lock = lock_of_upload(bucket.record, upload.record, now_ms)
    inline = len(table) <= INLINE_TABLE_SIZE_BYTES_MAX

    def build(manifest: BlobRef | None) -> ObjectRecord:
        return ObjectRecord(
            owner=upload.record.owner,
            acl=upload.record.acl,
            group=upload.upload_id,
            size_bytes=assembly.size_bytes,
            etag=assembly.etag,
            etag_parts=len(assembly.parts),
            # S3 User Guide, "Working with object metadata": the date of a multipart upload's
            # initiation.
            modified_ms=upload.record.created_ms,
            commit_id=commit_id,
            parts=assembly.parts if manifest is None else (),
            manifest=manifest,
            checksum=assembly.checksum,
            content_type=upload.record.content_type,
            headers=upload.record.headers,
            metadata=upload.record.metadata,
            storage_class=upload.record.storage_class,
            scheme=upload.record.scheme,
            tags=upload.record.tags,
            version_id=stamp.version_id,
            order=stamp.order,
            retention=lock.retention,
            legal_hold=lock.is_held,
            hold_lifted=lock.is_lifted,
            encryption=upload.record.encryption,
        )

    async def publish(record: ObjectRecord, value: bytes, stored: Stored | None) -> Committed:
        return await upload_commits.finish(
            context.metadata,
            bucket,
            upload,
            bucket.object_key(asked.named.key),
            record,
            value=value,
            stored_manifest=stored,
            previous=previous,
            conditions=asked.conditions,
            unused=assembly.unused,
            narrow=assembly.narrow,
            now_ms=now_ms,
        )

    if inline:
        record = build(None)
        return await publish(record, encode(record), None)
    staged = await context.objects.stage_bytes(
        table, group=GroupId(upload.upload_id), scheme=scheme_named(upload.record.scheme)
    )
    return await commit_blob(context.objects, staged, upload.key, build, publish)


# Encoding


def _encode(completed: Completed) -> S3Response:
    asked, record = completed.asked, completed.record
    response = xml_response(
        "CompleteMultipartUploadResult",
        [
            element("Location", asked.location),
            element("Bucket", asked.named.bucket),
            element("Key", asked.named.key),
            element("ETag", quote_etag(etag_text(record))),
            checksum_elements(record.checksum),
        ],
    )
    response.headers.extend(version_headers(completed.version))
    response.headers.extend(expiration_headers(completed.expiration))
    if record.encryption:
        response.headers.extend(encryption_headers(record.encryption))
    return response


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="CompleteMultipartUpload",
        match=Match("POST", Resource.OBJECT, query=("uploadId",)),
        permission="s3:PutObject",
        decode=_decode,
        handle=_complete,
        encode=_encode,
        document_limit_bytes=COMPLETE_DOCUMENT_LIMIT_BYTES,
        body_checksums=False,
    ),
)
