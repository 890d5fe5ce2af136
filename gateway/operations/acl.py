"""Access control lists as they are under BucketOwnerEnforced: the owner has full control, and that
is all there can be."""

from dataclasses import dataclass

from gateway.context import Context
from gateway.operation import AnyOperation, Match, Operation, Resource, principal_of
from gateway.operations.buckets import (
    BucketNamed,
    bucket_named,
    owner_element,
    xml_response,
)
from gateway.operations.object_headers import version_argument
from gateway.operations.object_versions import find_version
from gateway.s3.documents import SETTINGS_DOCUMENT_LIMIT_BYTES, parse
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.message import Principal, S3Request, S3Response
from gateway.s3.xml import element

_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_GRANT_HEADERS = (
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
)
_CANNED = frozenset(
    {
        "private",
        "public-read",
        "public-read-write",
        "authenticated-read",
        "aws-exec-read",
        "bucket-owner-read",
        "bucket-owner-full-control",
        "log-delivery-write",
    }
)


@dataclass(frozen=True, slots=True)
class ObjectNamed:
    """Input of GetObjectAcl and PutObjectAcl."""

    bucket: str
    key: str
    principal: Principal
    version: bytes | None


def _object_named(request: S3Request) -> ObjectNamed:
    assert request.bucket is not None
    assert request.key is not None
    return ObjectNamed(
        request.bucket, request.key, principal_of(request), version_argument(request)
    )


def _put_bucket_acl(request: S3Request) -> BucketNamed:
    _demand_private(request)
    return bucket_named(request)


def _put_object_acl(request: S3Request) -> ObjectNamed:
    named = _object_named(request)
    _demand_private(request)
    return named


def _demand_private(request: S3Request) -> None:
    """Accept what changes nothing; anything else is a feature not offered."""
    if any(name in request.headers for name in _GRANT_HEADERS):
        raise S3Error(ErrorCode.NOT_IMPLEMENTED, details={"Header": "x-amz-grant-*"})
    canned = request.headers.get("x-amz-acl")
    if canned is not None:
        if request.document.strip():
            raise S3Error(
                ErrorCode.INVALID_REQUEST,
                "Specifying both Canned ACLs and Body Grants is not allowed",
            )
        if canned not in _CANNED:
            raise invalid_argument("x-amz-acl", canned, "Invalid canned ACL")
        if canned != "private":
            raise S3Error(ErrorCode.NOT_IMPLEMENTED, details={"Header": "x-amz-acl"})
        return
    if not request.document.strip():
        raise S3Error(ErrorCode.MISSING_SECURITY_HEADER, details={"MissingHeaderName": "x-amz-acl"})
    principal = principal_of(request)
    if _grants(request.document) != [(principal.canonical_id, "FULL_CONTROL")]:
        raise S3Error(
            ErrorCode.NOT_IMPLEMENTED,
            "Access control lists other than the owner's full control are not implemented.",
        )


def _grants(text: bytes) -> list[tuple[str, str]]:
    """(grantee id, permission) of each grant. Raises MalformedXML."""
    grants: list[tuple[str, str]] = []
    for child in parse(text, "AccessControlPolicy"):
        name = _name(child.tag)
        if name == "Owner":
            continue
        if name != "AccessControlList":
            raise S3Error(ErrorCode.MALFORMED_XML)
        for grant in child:
            found = {_name(part.tag): part for part in grant}
            if _name(grant.tag) != "Grant" or set(found) != {"Grantee", "Permission"}:
                raise S3Error(ErrorCode.MALFORMED_XML)
            grantee = {_name(part.tag): part.text or "" for part in found["Grantee"]}
            grants.append((grantee.get("ID", ""), (found["Permission"].text or "").strip()))
    return grants


def _name(tag: object) -> str:
    if not isinstance(tag, str):
        raise S3Error(ErrorCode.MALFORMED_XML)
    return tag.rpartition("}")[2]


async def _bucket_owner(context: Context, asked: BucketNamed) -> Principal:
    await context.metadata.bucket(asked.bucket, asked.principal)
    return asked.principal  # nobody else gets here


async def _object_owner(context: Context, asked: ObjectNamed) -> Principal:
    await find_version(context, asked.bucket, asked.key, asked.principal, asked.version)
    return asked.principal


def _encode_acl(owner: Principal) -> S3Response:
    grantee = (
        f'<Grantee xmlns:xsi="{_XSI}" xsi:type="CanonicalUser">'
        f"{element('ID', owner.canonical_id)}{element('DisplayName', owner.name)}</Grantee>"
    )
    return xml_response(
        "AccessControlPolicy",
        [
            owner_element(owner),
            f"<AccessControlList><Grant>{grantee}<Permission>FULL_CONTROL</Permission></Grant>"
            "</AccessControlList>",
        ],
    )


def _encode_done(_: Principal) -> S3Response:
    return S3Response(200)


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="GetBucketAcl",
        match=Match("GET", Resource.BUCKET, ("acl",)),
        permission="s3:GetBucketAcl",
        decode=bucket_named,
        handle=_bucket_owner,
        encode=_encode_acl,
    ),
    Operation(
        name="PutBucketAcl",
        match=Match("PUT", Resource.BUCKET, ("acl",)),
        permission="s3:PutBucketAcl",
        decode=_put_bucket_acl,
        handle=_bucket_owner,
        encode=_encode_done,
        document_limit_bytes=SETTINGS_DOCUMENT_LIMIT_BYTES,
    ),
    Operation(
        name="GetObjectAcl",
        match=Match("GET", Resource.OBJECT, ("acl",)),
        permission="s3:GetObjectAcl",
        decode=_object_named,
        handle=_object_owner,
        encode=_encode_acl,
    ),
    Operation(
        name="PutObjectAcl",
        match=Match("PUT", Resource.OBJECT, ("acl",)),
        permission="s3:PutObjectAcl",
        decode=_put_object_acl,
        handle=_object_owner,
        encode=_encode_done,
        document_limit_bytes=SETTINGS_DOCUMENT_LIMIT_BYTES,
    ),
)
