"""Lifecycle configurations of buckets: put, get, delete. The keeper acts on them."""

from dataclasses import dataclass, field

import msgspec

from gateway.context import Context
from gateway.domain.lifecycle import LifecycleRule, LifecycleRules
from gateway.metadata.lifecycle import pack_lifecycle
from gateway.metadata.records import BucketRecord
from gateway.operation import AnyOperation, Match, Operation, Resource
from gateway.operations.buckets import BucketNamed, bucket_named, xml_response
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.lifecycle_documents import (
    LIFECYCLE_DOCUMENT_LIMIT_BYTES,
    Fields,
    parse_lifecycle,
    rule_element,
)
from gateway.s3.message import S3Request, S3Response

PACKED_SIZE_BYTES_MAX = 64 * 1024
"""Bound of what a bucket's record carries: every read of the bucket reads it."""
_ID_SIZE_BYTES = 16


@dataclass(frozen=True, slots=True)
class SetLifecycle:
    """Input of put, and of delete (no rules)."""

    named: BucketNamed
    rules: list[Fields] = field(default_factory=list)


def _decode_put(request: S3Request) -> SetLifecycle:
    if not request.document:
        raise S3Error(ErrorCode.MISSING_REQUEST_BODY)
    return SetLifecycle(bucket_named(request), parse_lifecycle(request.document))


async def _set(context: Context, asked: SetLifecycle) -> None:
    for fields in asked.rules:
        fields["id"] = fields["id"] or context.randomness.token(_ID_SIZE_BYTES).hex()
    packed = b""
    if asked.rules:
        packed = pack_lifecycle(tuple(LifecycleRule(**fields) for fields in asked.rules))
    if len(packed) > PACKED_SIZE_BYTES_MAX:
        raise S3Error(ErrorCode.INVALID_REQUEST, "The lifecycle configuration is too large.")

    def change(record: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(record, lifecycle=packed)

    await context.metadata.change_bucket(asked.named.bucket, asked.named.principal, change)


async def _get(context: Context, asked: BucketNamed) -> LifecycleRules:
    entry = await context.metadata.bucket(asked.bucket, asked.principal)
    if not entry.lifecycle:
        raise S3Error(ErrorCode.NO_SUCH_LIFECYCLE, details={"BucketName": asked.bucket})
    return entry.lifecycle


def _encode(rules: LifecycleRules) -> S3Response:
    shown = [rule_element(msgspec.structs.asdict(rule)) for rule in rules]
    return xml_response("LifecycleConfiguration", shown)


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="PutBucketLifecycleConfiguration",
        match=Match("PUT", Resource.BUCKET, ("lifecycle",)),
        permission="s3:PutLifecycleConfiguration",
        decode=_decode_put,
        handle=_set,
        encode=lambda _: S3Response(200),
        document_limit_bytes=LIFECYCLE_DOCUMENT_LIMIT_BYTES,
    ),
    Operation(
        name="GetBucketLifecycleConfiguration",
        match=Match("GET", Resource.BUCKET, ("lifecycle",)),
        permission="s3:GetLifecycleConfiguration",
        decode=bucket_named,
        handle=_get,
        encode=_encode,
    ),
    Operation(
        name="DeleteBucketLifecycle",
        match=Match("DELETE", Resource.BUCKET, ("lifecycle",)),
        permission="s3:PutLifecycleConfiguration",
        decode=lambda request: SetLifecycle(bucket_named(request)),
        handle=_set,
        encode=lambda _: S3Response(204),
    ),
)
