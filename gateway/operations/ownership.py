"""A bucket's ownership controls: put, get, delete. Without any, objects are their writers'."""

from dataclasses import dataclass

import msgspec

from gateway.context import Context
from gateway.domain import acl
from gateway.domain.access import ENFORCED, OWNERSHIPS
from gateway.metadata.records import BucketRecord
from gateway.operation import AnyOperation, Match, Operation, Resource
from gateway.operations.buckets import BucketNamed, bucket_named, xml_response
from gateway.s3.access_documents import parse_ownership
from gateway.s3.documents import SETTINGS_DOCUMENT_LIMIT_BYTES
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import S3Request, S3Response
from gateway.s3.xml import element


@dataclass(frozen=True, slots=True)
class SetOwnership:
    """Input of put, and of delete ("")."""

    named: BucketNamed
    ownership: str


def _decode_put(request: S3Request) -> SetOwnership:
    ownership = parse_ownership(request.document)
    if ownership not in OWNERSHIPS:
        raise S3Error(ErrorCode.MALFORMED_XML)
    return SetOwnership(bucket_named(request), ownership)


async def _set(context: Context, asked: SetOwnership) -> None:
    def change(record: BucketRecord) -> BucketRecord:
        if asked.ownership == ENFORCED and not acl.is_private(record.acl, record.owner):
            raise S3Error(ErrorCode.INVALID_BUCKET_ACL_WITH_OWNERSHIP)
        return msgspec.structs.replace(record, ownership=asked.ownership)

    await context.metadata.change_bucket(asked.named.bucket, asked.named.principal, change)


async def _get(context: Context, asked: BucketNamed) -> str:
    entry = await context.metadata.bucket(asked.bucket, asked.principal)
    if not entry.record.ownership:
        raise S3Error(ErrorCode.NO_SUCH_OWNERSHIP_CONTROLS, details={"BucketName": asked.bucket})
    return entry.record.ownership


def _encode(ownership: str) -> S3Response:
    rule = f"<Rule>{element('ObjectOwnership', ownership)}</Rule>"
    return xml_response("OwnershipControls", [rule])


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="PutBucketOwnershipControls",
        match=Match("PUT", Resource.BUCKET, ("ownershipControls",)),
        permission="s3:PutBucketOwnershipControls",
        decode=_decode_put,
        handle=_set,
        encode=lambda _: S3Response(200),
        document_limit_bytes=SETTINGS_DOCUMENT_LIMIT_BYTES,
    ),
    Operation(
        name="GetBucketOwnershipControls",
        match=Match("GET", Resource.BUCKET, ("ownershipControls",)),
        permission="s3:GetBucketOwnershipControls",
        decode=bucket_named,
        handle=_get,
        encode=_encode,
    ),
    Operation(
        name="DeleteBucketOwnershipControls",
        match=Match("DELETE", Resource.BUCKET, ("ownershipControls",)),
        permission="s3:PutBucketOwnershipControls",
        decode=lambda request: SetOwnership(bucket_named(request), ""),
        handle=_set,
        encode=lambda _: S3Response(204),
    ),
)
