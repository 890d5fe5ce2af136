"""Lifecycle configurations of buckets: put, get, delete. The keeper acts on them."""

from dataclasses import dataclass, field

import msgspec

from gateway.context import Context
from gateway.domain.lifecycle import LifecycleRule, LifecycleRules, Transition
from gateway.domain.storage_classes import WATERFALL, why_not_offered
from gateway.domain.transitions import MINIMUMS, why_refused
from gateway.metadata.lifecycle import pack_lifecycle
from gateway.metadata.records import BucketRecord
from gateway.operation import AnyOperation, Match, Operation, Resource
from gateway.operations.buckets import BucketNamed, bucket_named, xml_response
from gateway.s3.elements import malformed
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
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
_MINIMUM = "x-amz-transition-default-minimum-object-size"
_MOVES = ("transitions", "noncurrent_transitions")


@dataclass(frozen=True, slots=True)
class SetLifecycle:
    """Input of put, and of delete (no rules)."""

    named: BucketNamed
    rules: list[Fields] = field(default_factory=list)
    minimum: str = ""


def _decode_put(request: S3Request) -> SetLifecycle:
    if not request.document:
        raise S3Error(ErrorCode.MISSING_REQUEST_BODY)
    minimum = request.headers.get(_MINIMUM, "")
    if minimum and minimum not in MINIMUMS:
        raise invalid_argument(_MINIMUM, minimum, "The default minimum object size is not valid.")
    return SetLifecycle(bucket_named(request), parse_lifecycle(request.document), minimum)


def lifecycle_rule(fields: Fields) -> LifecycleRule:
    """The rule that a document's fields make."""
    moves = {name: tuple(Transition(**move) for move in fields.get(name, ())) for name in _MOVES}
    return LifecycleRule(**{**fields, **moves})


def lifecycle_fields(rule: LifecycleRule) -> Fields:
    """The same back: all fields, as `rule_element` takes them."""
    fields = msgspec.structs.asdict(rule)
    for name in _MOVES:
        fields[name] = tuple(msgspec.structs.asdict(move) for move in fields[name])
    return fields


def _rule(context: Context, fields: Fields, minimum: str) -> LifecycleRule:
    """A rule as it is kept. Raises InvalidArgument, MalformedXML, NotImplemented."""
    identity = fields["id"] or context.randomness.token(_ID_SIZE_BYTES).hex()
    rule = lifecycle_rule({**fields, "id": identity, "transition_minimum": minimum})
    for move in (*rule.transitions, *rule.noncurrent_transitions):
        _demand_class(context, move.storage_class)
    reason = why_refused(rule)
    if reason is not None:
        raise S3Error(ErrorCode.INVALID_ARGUMENT, reason)
    return rule


def _demand_class(context: Context, name: str) -> None:
    """S3 takes the names that it knows; of those one without a scheme here is no valid argument."""
    reason = why_not_offered(name)
    if reason is not None:
        raise S3Error(ErrorCode.NOT_IMPLEMENTED, f"The storage class {reason}.")
    if context.objects.schemes.of_class(name) is None:
        if name in WATERFALL:
            raise S3Error(
                ErrorCode.INVALID_ARGUMENT, f"The storage class {name} has no scheme in this store."
            )
        raise malformed("StorageClass is one that objects can be moved to")


async def _set(context: Context, asked: SetLifecycle) -> None:
    packed = b""
    if asked.rules:
        packed = pack_lifecycle(
            tuple(_rule(context, fields, asked.minimum) for fields in asked.rules)
        )
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
    response = xml_response(
        "LifecycleConfiguration", [rule_element(lifecycle_fields(r)) for r in rules]
    )
    minimum = rules[0].transition_minimum
    if minimum:
        response.headers.append((_MINIMUM, minimum))
    return response


async def _put(context: Context, asked: SetLifecycle) -> str:
    await _set(context, asked)
    return asked.minimum


def _encode_put(minimum: str) -> S3Response:
    return S3Response(200, [(_MINIMUM, minimum)] if minimum else [])


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="PutBucketLifecycleConfiguration",
        match=Match("PUT", Resource.BUCKET, ("lifecycle",)),
        permission="s3:PutLifecycleConfiguration",
        decode=_decode_put,
        handle=_put,
        encode=_encode_put,
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
