"""Access control lists of buckets and objects: get and put."""

from dataclasses import dataclass

import msgspec

from gateway.authorization import denied
from gateway.context import Context
from gateway.domain import acl
from gateway.domain.access import ENFORCED
from gateway.metadata.entries import BucketEntry
from gateway.metadata.records import BucketRecord, ObjectRecord
from gateway.operation import AnyOperation, Match, Operation, Resource, principal_of
from gateway.operations.access_lists import (
    CANNED_HEADER,
    AclAsked,
    acl_asked,
    acl_elements,
    demand_not_public,
    people,
    resolve,
)
from gateway.operations.buckets import BucketNamed, bucket_named, xml_response
from gateway.operations.object_change import change_object
from gateway.operations.object_headers import version_argument
from gateway.operations.object_versions import find_version, told_version, version_headers
from gateway.s3.access_documents import ACCESS_DOCUMENT_LIMIT_BYTES, parse_acl
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import Principal, S3Request, S3Response


@dataclass(frozen=True, slots=True)
class ObjectNamed:
    """Input of GetObjectAcl, and part of PutObjectAcl's."""

    bucket: str
    key: str
    principal: Principal
    version: bytes | None


@dataclass(frozen=True, slots=True)
class NewAcl:
    """What a put asks for. `owner` is the canonical id that the document names, if it does."""

    asked: AclAsked
    owner: str | None


@dataclass(frozen=True, slots=True)
class PutBucketAcl:
    """Input."""

    named: BucketNamed
    new: NewAcl


@dataclass(frozen=True, slots=True)
class PutObjectAcl:
    """Input."""

    named: ObjectNamed
    new: NewAcl


@dataclass(frozen=True, slots=True)
class ObjectAcl:
    """Output of GetObjectAcl: the document's children, and the version id to answer with."""

    children: list[str]
    told_version: str


def _object_named(request: S3Request) -> ObjectNamed:
    assert request.bucket is not None
    assert request.key is not None
    return ObjectNamed(
        request.bucket, request.key, principal_of(request), version_argument(request)
    )


def _new_acl(request: S3Request) -> NewAcl:
    """From the headers or the document, not both."""
    asked = acl_asked(request.headers, request.query)
    has_document = bool(request.document.strip())
    if asked is not None:
        if has_document:
            raise S3Error(
                ErrorCode.INVALID_REQUEST,
                "Specifying both Canned ACLs and Body Grants is not allowed"
                if asked.canned is not None
                else "Specifying both Header Grants and Body Grants is not allowed",
            )
        return NewAcl(asked, None)
    if not has_document:
        raise S3Error(
            ErrorCode.MISSING_SECURITY_HEADER, details={"MissingHeaderName": CANNED_HEADER}
        )
    document = parse_acl(request.document)
    return NewAcl(AclAsked(None, document.grants), document.owner)


def _decode_put_bucket(request: S3Request) -> PutBucketAcl:
    return PutBucketAcl(bucket_named(request), _new_acl(request))


def _decode_put_object(request: S3Request) -> PutObjectAcl:
    return PutObjectAcl(_object_named(request), _new_acl(request))


async def _grants(
    context: Context, entry: BucketEntry, new: NewAcl, owner: str, *, of_bucket: bool
) -> acl.Grants | None:
    """The list to store for what that account owns. Raises AccessControlListNotSupported,
    AccessDenied, and as `access_lists.resolve`."""
    if entry.record.ownership == ENFORCED:
        raise S3Error(ErrorCode.ACL_NOT_SUPPORTED)
    if new.owner is not None:
        named = await context.metadata.accounts.by_canonical_id(new.owner)
        if named is not None and named != owner:
            raise denied()  # a list cannot give away what it is about
    grants = await resolve(
        context,
        new.asked,
        owner=owner,
        bucket_owner=entry.record.owner,
        of_bucket=of_bucket,
    )
    demand_not_public(entry, grants)
    return grants


async def _put_bucket(context: Context, asked: PutBucketAcl) -> None:
    named = asked.named
    entry = await context.metadata.bucket(named.bucket, named.principal)
    grants = await _grants(context, entry, asked.new, entry.record.owner, of_bucket=True)

    def change(record: BucketRecord) -> BucketRecord:
        if record.ownership == ENFORCED:  # set meanwhile
            raise S3Error(ErrorCode.ACL_NOT_SUPPORTED)
        return msgspec.structs.replace(record, acl=grants)

    await context.metadata.change_bucket(named.bucket, named.principal, change)


async def _put_object(context: Context, asked: PutObjectAcl) -> str:
    """The version id to answer with."""
    named = asked.named
    entry, current = await find_version(
        context, named.bucket, named.key, named.principal, named.version, changing="PUT"
    )
    owner = current.record.owner
    grants = await _grants(context, entry, asked.new, owner, of_bucket=False)

    def change(record: ObjectRecord) -> ObjectRecord:
        if record.owner != owner:  # replaced by another's meanwhile
            raise S3Error(ErrorCode.OPERATION_ABORTED)
        return msgspec.structs.replace(record, acl=grants)

    entry, record = await change_object(
        context, named.bucket, named.key, named.principal, change, named.version
    )
    return told_version(entry, record, named.version)


async def _get_bucket(context: Context, asked: BucketNamed) -> list[str]:
    entry = await context.metadata.bucket(asked.bucket, asked.principal)
    return await _shown(context, entry, entry.record.owner, entry.record.acl, asked.principal)


async def _get_object(context: Context, asked: ObjectNamed) -> ObjectAcl:
    entry, current = await find_version(
        context, asked.bucket, asked.key, asked.principal, asked.version
    )
    record = current.record
    return ObjectAcl(
        await _shown(context, entry, record.owner, record.acl, asked.principal),
        told_version(entry, record, asked.version),
    )


async def _shown(
    context: Context,
    entry: BucketEntry,
    owner: str,
    grants: acl.Grants | None,
    principal: Principal,
) -> list[str]:
    """Where lists do not count, everything is the bucket owner's."""
    if entry.record.ownership == ENFORCED:
        owner, grants = entry.record.owner, None
    named = {grantee for grantee, _ in acl.effective(grants, owner)} - acl.GROUPS.keys()
    return acl_elements(owner, grants, await people(context, named | {owner}, principal))


def _encode_acl(children: list[str]) -> S3Response:
    return xml_response("AccessControlPolicy", children)


def _encode_object_acl(found: ObjectAcl) -> S3Response:
    response = _encode_acl(found.children)
    response.headers.extend(version_headers(found.told_version))
    return response


def _encode_done(_: None) -> S3Response:
    return S3Response(200)


def _encode_object_done(told: str) -> S3Response:
    return S3Response(200, headers=version_headers(told))


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="GetBucketAcl",
        match=Match("GET", Resource.BUCKET, ("acl",)),
        permission="s3:GetBucketAcl",
        decode=bucket_named,
        handle=_get_bucket,
        encode=_encode_acl,
    ),
    Operation(
        name="PutBucketAcl",
        match=Match("PUT", Resource.BUCKET, ("acl",)),
        permission="s3:PutBucketAcl",
        decode=_decode_put_bucket,
        handle=_put_bucket,
        encode=_encode_done,
        document_limit_bytes=ACCESS_DOCUMENT_LIMIT_BYTES,
    ),
    Operation(
        name="GetObjectAcl",
        match=Match("GET", Resource.OBJECT, ("acl",)),
        permission="s3:GetObjectAcl",
        decode=_object_named,
        handle=_get_object,
        encode=_encode_object_acl,
    ),
    Operation(
        name="PutObjectAcl",
        match=Match("PUT", Resource.OBJECT, ("acl",)),
        permission="s3:PutObjectAcl",
        decode=_decode_put_object,
        handle=_put_object,
        encode=_encode_object_done,
        document_limit_bytes=ACCESS_DOCUMENT_LIMIT_BYTES,
    ),
)
