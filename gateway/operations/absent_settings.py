"""Settings of buckets that no bucket here can have: what there is to say of them is that there are
none, or which fixed answer holds. Setting what holds anyway succeeds and changes nothing; anything
else is not offered."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.context import Context
from gateway.metadata.entries import BucketEntry
from gateway.operation import AnyOperation, Match, Operation, Resource
from gateway.operations.buckets import BucketNamed, bucket_named, xml_response
from gateway.s3.documents import SETTINGS_DOCUMENT_LIMIT_BYTES
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.fixed_documents import (
    BUCKET_OWNER,
    asks_for_logging,
    asks_for_notifications,
    asks_for_requester_pays,
)
from gateway.s3.message import S3Request, S3Response
from gateway.s3.xml import element

_Handle = Callable[[Context, BucketNamed], Awaitable[BucketEntry]]
_Encode = Callable[[BucketEntry], S3Response]


async def _find(context: Context, asked: BucketNamed) -> BucketEntry:
    return await context.metadata.bucket(asked.bucket, asked.principal)


def _refusing(code: ErrorCode) -> _Handle:
    """A handler for what the bucket has not; a bucket that is not there comes first."""

    async def handle(context: Context, asked: BucketNamed) -> BucketEntry:
        await context.metadata.bucket(asked.bucket, asked.principal)
        raise S3Error(code, details={"BucketName": asked.bucket})

    return handle


def _nothing_left(_: BucketEntry) -> S3Response:
    return S3Response(204)


def _empty(root: str) -> _Encode:
    return lambda _: xml_response(root, [])


def _encode_payer(_: BucketEntry) -> S3Response:
    return xml_response("RequestPaymentConfiguration", [element("Payer", BUCKET_OWNER)])


@dataclass(frozen=True, slots=True)
class SetFixed:
    """Input of a put; `unoffered`: it asks for something else than what holds anyway."""

    named: BucketNamed
    unoffered: bool


def _put(
    name: str, argument: str, permission: str, asks_for_more: Callable[[bytes], bool]
) -> AnyOperation:
    def decode(request: S3Request) -> SetFixed:
        return SetFixed(bucket_named(request), asks_for_more(request.document))

    async def handle(context: Context, asked: SetFixed) -> None:
        await _find(context, asked.named)
        if asked.unoffered:
            raise S3Error(
                ErrorCode.NOT_IMPLEMENTED,
                f"{name} with this configuration is not implemented by this server.",
            )

    return Operation(
        name=name,
        match=Match("PUT", Resource.BUCKET, (argument,)),
        permission=permission,
        decode=decode,
        handle=handle,
        encode=lambda _: S3Response(200),
        document_limit_bytes=SETTINGS_DOCUMENT_LIMIT_BYTES,
    )


def _get(
    name: str, argument: str, permission: str, handle: _Handle, encode: _Encode = _nothing_left
) -> AnyOperation:
    return Operation(
        name=name,
        match=Match("GET", Resource.BUCKET, (argument,)),
        permission=permission,
        decode=bucket_named,
        handle=handle,
        encode=encode,
    )


def _delete(name: str, argument: str, permission: str) -> AnyOperation:
    """Deleting what is not there succeeds, as at AWS."""
    return Operation(
        name=name,
        match=Match("DELETE", Resource.BUCKET, (argument,)),
        permission=permission,
        decode=bucket_named,
        handle=_find,
        encode=_nothing_left,
    )


_ABSENT: tuple[AnyOperation, ...] = tuple(
    _get(name, argument, permission, _refusing(code))
    for name, argument, permission, code in (
        (
            "GetBucketReplication",
            "replication",
            "s3:GetReplicationConfiguration",
            ErrorCode.NO_SUCH_REPLICATION,
        ),
    )
)

OPERATIONS: tuple[AnyOperation, ...] = (
    *_ABSENT,
    _get(
        "GetBucketAccelerateConfiguration",
        "accelerate",
        "s3:GetAccelerateConfiguration",
        _find,
        _empty("AccelerateConfiguration"),
    ),
    _get(
        "GetBucketLogging", "logging", "s3:GetBucketLogging", _find, _empty("BucketLoggingStatus")
    ),
    _get(
        "GetBucketNotificationConfiguration",
        "notification",
        "s3:GetBucketNotification",
        _find,
        _empty("NotificationConfiguration"),
    ),
    _get(
        "GetBucketRequestPayment",
        "requestPayment",
        "s3:GetBucketRequestPayment",
        _find,
        _encode_payer,
    ),
    _put("PutBucketLogging", "logging", "s3:PutBucketLogging", asks_for_logging),
    _put(
        "PutBucketNotificationConfiguration",
        "notification",
        "s3:PutBucketNotification",
        asks_for_notifications,
    ),
    _put(
        "PutBucketRequestPayment",
        "requestPayment",
        "s3:PutBucketRequestPayment",
        asks_for_requester_pays,
    ),
    _delete("DeleteBucketReplication", "replication", "s3:PutReplicationConfiguration"),
)
