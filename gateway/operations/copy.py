"""CopyObject: a further record for the same blobs. Bytes are read only for a checksum that the source
does not have, and stored again only where they have to be encrypted otherwise, or kept under another
scheme."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote

import msgspec

from gateway.authorization import admission_of
from gateway.context import Context
from gateway.domain.conditions import (
    ReadConditions,
    Verdict,
    WriteConditions,
    judge_copy_source,
)
from gateway.domain.object_lock import Lock
from gateway.domain.storage_classes import Kept
from gateway.domain.tags import Tags
from gateway.domain.versions import version_text
from gateway.metadata.entries import BucketEntry, ObjectEntry, etag_text
from gateway.metadata.errors import PreconditionFailed, RelianceBroken
from gateway.metadata.groups import group_owner_of_copy
from gateway.metadata.records import Checksum, ObjectRecord
from gateway.objects.errors import BlobDamaged
from gateway.operation import AnyOperation, Match, Operation, Resource, principal_of
from gateway.operations.access_lists import AclAsked, access_of_new, acl_asked
from gateway.operations.copy_encryption import (
    NewCopy,
    Transfer,
    judge_transfer,
    store_again,
)
from gateway.operations.expiration import expiration_headers, expiration_of
from gateway.operations.lock_headers import asked_lock, lock_of_version
from gateway.operations.object_encryption import (
    EncryptionAsked,
    encryption_asked,
    encryption_headers,
    rule_of,
)
from gateway.operations.object_headers import (
    WEBSITE_REDIRECT,
    ObjectHeaders,
    checksum_elements,
    named_version,
    object_headers,
    quoted_etag,
    read_conditions,
    redirect_header,
    write_conditions,
)
from gateway.operations.object_versions import (
    find_version,
    made_version,
    shown_version,
    version_headers,
)
from gateway.operations.put import demand_write, full_object
from gateway.operations.source_body import open_range
from gateway.operations.storage_class import STORAGE_CLASS, class_asked, kept_in
from gateway.operations.tag_headers import copy_tags
from gateway.s3.checksums import ChecksumAlgorithm, ChecksumType, Digests, algorithm_named
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.headers import format_modified
from gateway.s3.message import Principal, S3Request, S3Response
from gateway.s3.xml import document, element

COPY_SOURCE = "x-amz-copy-source"
SOURCE_VERSION = "x-amz-copy-source-version-id"
_RACES_MAX = 5
_DIRECTIVES = frozenset({"COPY", "REPLACE"})


@dataclass(frozen=True, slots=True)
class CopySource:
    """What x-amz-copy-source names, and the conditions on it. `version` is None for the current
    one, b"" for the null one."""

    bucket: str
    key: str
    conditions: ReadConditions | None
    version: bytes | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """Input of CopyObject. `headers` and `tags` None: the source's are copied."""

    bucket: str
    key: str
    principal: Principal
    source: CopySource
    headers: ObjectHeaders | None
    algorithm: ChecksumAlgorithm | None
    conditions: WriteConditions | None
    tags: Tags | None
    lock: Lock
    acl: AclAsked | None
    encryption: EncryptionAsked | None
    redirect: tuple[tuple[str, str], ...] = ()
    """Where a website sends whoever asks for the copy; the source's is not copied."""
    storage_class: str = ""
    """The copy's; the source's is not copied."""
    unchanged: bool = False
    """The object is copied to itself, and the request asks for no change."""


def copy_source(headers: Mapping[str, str]) -> CopySource:
    """Read x-amz-copy-source and its conditions. Raises InvalidArgument."""
    text = headers[COPY_SOURCE]
    path, marked, version = text.partition("?versionId=")
    # S3 decodes it as a form's field, where `+` is a space: clients send both `+` and %20 for one.
    bucket, slash, key = _decoded(path.replace("+", " "), text).removeprefix("/").partition("/")
    if not bucket or not slash or not key:
        raise invalid_argument(
            COPY_SOURCE,
            text,
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
        )
    if bucket.startswith("arn:"):
        raise S3Error(ErrorCode.NOT_IMPLEMENTED, details={"Header": COPY_SOURCE})
    return CopySource(
        bucket,
        key,
        read_conditions(headers, "x-amz-copy-source-"),
        named_version(_decoded(version, text)) if marked else None,
    )


def _decoded(text: str, whole: str) -> str:
    try:
        # Header text is latin-1: what was sent as plain UTF-8 is brought back first.
        return unquote(text.encode("latin-1").decode("utf-8"), errors="strict")
    except UnicodeError:
        raise invalid_argument(COPY_SOURCE, whole, "Invalid copy source encoding.") from None


async def find_source(
    context: Context, source: CopySource, principal: Principal
) -> tuple[BucketEntry, ObjectEntry]:
    """The source as it is now, its conditions judged. Raises NoSuchBucket, NoSuchKey,
    NoSuchVersion, NotBucketOwner, AccessDenied, PreconditionFailed; InvalidRequest for a delete
    marker."""
    admission = admission_of(principal)
    if admission is not None:
        version_id = None if source.version is None else version_text(source.version)
        principal = admission.for_source(source.bucket, source.key, version_id)
    try:
        entry, current = await find_version(
            context, source.bucket, source.key, principal, source.version
        )
    except S3Error as error:
        if error.code is not ErrorCode.METHOD_NOT_ALLOWED:
            raise
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            "The source of a copy request may not specifically refer to a delete marker by "
            "version id.",
        ) from None
    if source.conditions is not None:
        record = current.record
        conditions = source.conditions.at(context.clock.now_ns() // 1_000_000)
        judgement = judge_copy_source(
            conditions, etag=etag_text(record), modified_ms=record.modified_ms
        )
        if judgement.verdict is not Verdict.PROCEED:
            raise PreconditionFailed(judgement.header)
    return entry, current


def _decode(request: S3Request) -> Copy:
    assert request.bucket is not None
    assert request.key is not None
    headers = request.headers
    if request.body.size_bytes:
        raise S3Error(ErrorCode.INVALID_REQUEST, "A copy request carries no body.")
    source = copy_source(headers)
    directive = headers.get("x-amz-metadata-directive", "COPY")
    if directive not in _DIRECTIVES:
        raise invalid_argument("x-amz-metadata-directive", directive, "Unknown metadata directive.")
    replaces = directive == "REPLACE"
    itself = (source.bucket, source.key) == (request.bucket, request.key)
    encryption = encryption_asked(request)
    redirect = redirect_header(headers)
    changes = encryption is not None or redirect or STORAGE_CLASS in headers
    name = headers.get("x-amz-checksum-algorithm")
    return Copy(
        request.bucket,
        request.key,
        principal_of(request),
        source,
        object_headers(headers) if replaces else None,
        None if name is None else algorithm_named(name, "x-amz-checksum-algorithm"),
        write_conditions(headers),
        copy_tags(request),
        asked_lock(headers),
        acl_asked(headers, request.query),
        encryption,
        redirect,
        class_asked(headers),
        unchanged=itself and not replaces and source.version is None and not changes,
    )


class Copied(NamedTuple):
    """The new object, the version ids to answer with (its own and the source's), and what lifecycle
    rules have in store for it."""

    record: ObjectRecord
    version: str
    source_version: str
    expiration: str


async def _handle(context: Context, copy: Copy) -> Copied:
    for _ in range(_RACES_MAX):
        entry, previous = await context.metadata.lookup(copy.bucket, copy.key, copy.principal)
        _demand_change(context, copy, entry)
        _, source = await find_source(context, copy.source, copy.principal)
        demand_write(copy.conditions, copy.key, previous)
        kept = kept_in(context, entry, copy.storage_class)
        transfer = await judge_transfer(context, copy.encryption, source.record, entry, kept)
        try:
            record = await _record(context, copy, source, entry, previous, transfer, kept)
            if transfer.rewrites:
                committed = await store_again(
                    context,
                    NewCopy(entry, copy.key, previous, record, copy.conditions, kept),
                    source.record,
                    transfer,
                )
            else:
                committed = await context.metadata.commits.commit(
                    entry,
                    entry.object_key(copy.key),
                    record,
                    source=source,
                    previous=previous,
                    conditions=copy.conditions,
                )
        except (RelianceBroken, BlobDamaged) as error:
            # The source was replaced or deleted meanwhile: copy what is there now. Else the data
            # cannot be read at present.
            _, again = await find_source(context, copy.source, copy.principal)
            if isinstance(error, BlobDamaged) and again.mod_revision == source.mod_revision:
                raise
            continue
        return Copied(
            committed.record,
            # Other than of a put, S3 tells of a copy's null version in a suspended bucket too.
            shown_version(entry, committed.record),
            made_version(source.record),  # S3 names no null version as a source
            expiration_of(entry, copy.key, committed.record) if entry.lifecycle else "",
        )
    raise S3Error(ErrorCode.OPERATION_ABORTED)


def _demand_change(context: Context, copy: Copy, entry: BucketEntry) -> None:
    """InvalidRequest for a copy that would change nothing. A bucket that says how to encrypt may
    change the encryption: so what it held before is encrypted."""
    rule = rule_of(context, entry.record.encryption)
    if copy.unchanged and (rule is None or not rule.algorithm):
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            "This copy request is illegal because it is trying to copy an object to itself without "
            "changing the object's metadata, storage class, website redirect location or "
            "encryption attributes.",
        )


async def _record(
    context: Context,
    copy: Copy,
    source: ObjectEntry,
    entry: BucketEntry,
    previous: ObjectEntry | None,
    transfer: Transfer,
    kept: Kept,
) -> ObjectRecord:
    """The destination's record: the source's data, the asked-for headers."""
    found = source.record
    stamp = context.metadata.versions.stamp(entry, previous)
    lock = lock_of_version(entry.record, copy.lock, context.clock)
    access = await access_of_new(context, entry, copy.principal, copy.acl)
    headers = (
        ObjectHeaders(
            found.content_type,
            (*(h for h in found.headers if h[0] != WEBSITE_REDIRECT), *copy.redirect),
            found.metadata,
        )
        if copy.headers is None
        else copy.headers
    )
    return msgspec.structs.replace(
        found,
        owner=access.owner,
        acl=access.grants,
        modified_ms=context.clock.now_ns() // 1_000_000,
        commit_id=context.randomness.token(8),
        group_owner=group_owner_of_copy(
            source.record_key,
            found,
            entry.object_key(copy.key),
            None if previous is None else previous.record,
        ),
        checksum=await _checksum(context, copy.algorithm, found, transfer),
        content_type=headers.content_type,
        headers=headers.headers,
        metadata=headers.metadata,
        storage_class=kept.storage_class,
        scheme=kept.named,
        tags=found.tags if copy.tags is None else copy.tags,
        version_id=stamp.version_id,
        order=stamp.order,
        retention=lock.retention,
        legal_hold=lock.is_held,
        hold_lifted=lock.is_lifted,
    )


async def _checksum(
    context: Context,
    algorithm: ChecksumAlgorithm | None,
    source: ObjectRecord,
    transfer: Transfer,
) -> Checksum | None:
    """The source's checksum, unless another algorithm is asked for: then the bytes are read. One
    that is stored again is summed on the way: then only the algorithm tells."""
    if transfer.rewrites and algorithm is not None:
        return Checksum(algorithm=algorithm.text, type=ChecksumType.FULL_OBJECT, value=b"")
    if algorithm is None:
        return source.checksum
    if source.checksum is not None and source.checksum.algorithm == algorithm.text:
        return source.checksum
    digests = Digests(algorithm, md5=False)
    stream = await open_range(context, source, 0, source.size_bytes, transfer.source_key)
    if stream is not None:
        async for group in stream.chunks():
            for buffer in group:
                digests.update_rest(memoryview(buffer))
    return full_object(digests)


def _encode(copied: Copied) -> S3Response:
    record = copied.record
    body = document(
        "CopyObjectResult",
        (
            element("LastModified", format_modified(record.modified_ms)),
            element("ETag", quoted_etag(record)),
            checksum_elements(record.checksum),
        ),
    )
    headers = [("Content-Type", "application/xml"), *version_headers(copied.version)]
    if record.encryption:
        headers += encryption_headers(record.encryption, created=True)
    headers += expiration_headers(copied.expiration)
    if copied.source_version:
        headers.append((SOURCE_VERSION, copied.source_version))
    return S3Response(200, headers, body)


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="CopyObject",
        match=Match("PUT", Resource.OBJECT, headers=(COPY_SOURCE,)),
        permission="s3:PutObject",
        decode=_decode,
        handle=_handle,
        encode=_encode,
    ),
)
