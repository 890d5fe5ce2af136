"""Object lock: the bucket's configuration, retention and legal hold of versions."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gateway.authorization import may
from gateway.context import Context
from gateway.domain.object_lock import (
    PERIOD_MAX,
    DefaultRetention,
    Retention,
    may_change_retention,
)
from gateway.domain.versions import ENABLED
from gateway.metadata.entries import BucketEntry, ObjectEntry
from gateway.metadata.records import BucketRecord, ObjectRecord
from gateway.operation import AnyOperation, Match, Operation, Resource, principal_of
from gateway.operations.buckets import BucketNamed, bucket_named, xml_response
from gateway.operations.lock_headers import bypasses_governance, demand_future, hold_text
from gateway.operations.object_change import change_object
from gateway.operations.object_headers import version_argument
from gateway.operations.object_versions import find_version
from gateway.s3.documents import SETTINGS_DOCUMENT_LIMIT_BYTES
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.headers import format_iso8601
from gateway.s3.lock_documents import parse_legal_hold, parse_lock, parse_retention
from gateway.s3.message import Principal, S3Request, S3Response
from gateway.s3.xml import element

# The bucket's configuration


@dataclass(frozen=True, slots=True)
class Configure:
    """Input of PutObjectLockConfiguration: the default retention of new versions, if any."""

    named: BucketNamed
    default: DefaultRetention | None


def _decode_configure(request: S3Request) -> Configure:
    rule = parse_lock(request.document)
    if rule is not None and not 1 <= rule[1] <= PERIOD_MAX[rule[2]]:
        raise S3Error(
            ErrorCode.INVALID_RETENTION_PERIOD,
            "Default retention period must be a positive integer value, at most "
            f"{PERIOD_MAX[rule[2]]} {rule[2].lower()}.",
        )
    return Configure(bucket_named(request), rule)


async def _configure(context: Context, asked: Configure) -> None:
    def change(record: BucketRecord) -> BucketRecord:
        if record.versioning != ENABLED:
            raise S3Error(
                ErrorCode.INVALID_BUCKET_STATE,
                "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration",
            )
        return msgspec.structs.replace(record, object_lock=True, lock_default=asked.default)

    await context.metadata.change_bucket(asked.named.bucket, asked.named.principal, change)


async def _configuration(context: Context, asked: BucketNamed) -> BucketEntry:
    entry = await context.metadata.bucket(asked.bucket, asked.principal)
    if not entry.record.object_lock:
        raise S3Error(ErrorCode.NO_SUCH_OBJECT_LOCK, details={"BucketName": asked.bucket})
    return entry


def _encode_configuration(entry: BucketEntry) -> S3Response:
    children = [element("ObjectLockEnabled", "Enabled")]
    if entry.record.lock_default is not None:
        mode, count, unit = entry.record.lock_default
        children.append(
            f"<Rule><DefaultRetention>{element('Mode', mode)}{element(unit, str(count))}"
            "</DefaultRetention></Rule>"
        )
    return xml_response("ObjectLockConfiguration", children)


# Retention and legal hold of a version


@dataclass(frozen=True, slots=True)
class VersionNamed:
    """Input of what reads a version's lock; `version` None means the current one."""

    bucket: str
    key: str
    principal: Principal
    version: bytes | None


@dataclass(frozen=True, slots=True)
class SetRetention:
    """Input of PutObjectRetention; None ends it."""

    named: VersionNamed
    retention: Retention | None
    bypass: bool


@dataclass(frozen=True, slots=True)
class SetHold:
    """Input of PutObjectLegalHold."""

    named: VersionNamed
    hold: bool


def _named(request: S3Request) -> VersionNamed:
    assert request.bucket is not None
    assert request.key is not None
    return VersionNamed(
        request.bucket, request.key, principal_of(request), version_argument(request)
    )


def _decode_retention(request: S3Request) -> SetRetention:
    return SetRetention(
        _named(request), parse_retention(request.document), bypasses_governance(request.headers)
    )


async def _set_retention(context: Context, asked: SetRetention) -> None:
    named = asked.named
    entry = await _demand_lock(context, named)
    bypass = asked.bypass and may(named.principal, entry, "s3:BypassGovernanceRetention", named.key)
    now_ms = context.clock.now_ns() // 1_000_000
    if asked.retention is not None:
        demand_future(asked.retention[1], now_ms)

    def change(record: ObjectRecord) -> ObjectRecord:
        if not may_change_retention(
            record.retention, asked.retention, now_ms=now_ms, bypass=bypass
        ):
            raise S3Error(
                ErrorCode.ACCESS_DENIED, "Access Denied because object protected by object lock."
            )
        return msgspec.structs.replace(record, retention=asked.retention)

    await _change(context, named, change)


async def _set_hold(context: Context, asked: SetHold) -> None:
    await _demand_lock(context, asked.named)
    await _change(
        context,
        asked.named,
        lambda record: msgspec.structs.replace(
            record, legal_hold=asked.hold, hold_lifted=not asked.hold
        ),
    )


async def _change(
    context: Context, named: VersionNamed, change: Callable[[ObjectRecord], ObjectRecord]
) -> None:
    await change_object(context, named.bucket, named.key, named.principal, change, named.version)


async def _find(context: Context, named: VersionNamed) -> ObjectRecord:
    return (await _locking_version(context, named))[1].record


async def _demand_lock(context: Context, named: VersionNamed) -> BucketEntry:
    """Of what is to be changed."""
    return (await _locking_version(context, named, changing="PUT"))[0]


async def _locking_version(
    context: Context, named: VersionNamed, *, changing: str = ""
) -> tuple[BucketEntry, ObjectEntry]:
    entry, found = await find_version(
        context, named.bucket, named.key, named.principal, named.version, changing=changing
    )
    if not entry.record.object_lock:
        raise S3Error(ErrorCode.INVALID_REQUEST, "Bucket is missing Object Lock Configuration")
    return entry, found


def _encode_retention(record: ObjectRecord) -> S3Response:
    if record.retention is None:
        raise S3Error(ErrorCode.NO_SUCH_VERSION_LOCK)
    mode, until_ms = record.retention
    return xml_response(
        "Retention",
        [element("Mode", mode), element("RetainUntilDate", format_iso8601(until_ms))],
    )


def _encode_hold(record: ObjectRecord) -> S3Response:
    if record.hold is None:
        raise S3Error(ErrorCode.NO_SUCH_VERSION_LOCK)
    return xml_response("LegalHold", [element("Status", hold_text(record.hold))])


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="PutObjectLockConfiguration",
        match=Match("PUT", Resource.BUCKET, ("object-lock",)),
        permission="s3:PutBucketObjectLockConfiguration",
        decode=_decode_configure,
        handle=_configure,
        encode=lambda _: S3Response(200),
        document_limit_bytes=SETTINGS_DOCUMENT_LIMIT_BYTES,
    ),
    Operation(
        name="GetObjectLockConfiguration",
        match=Match("GET", Resource.BUCKET, ("object-lock",)),
        permission="s3:GetBucketObjectLockConfiguration",
        decode=bucket_named,
        handle=_configuration,
        encode=_encode_configuration,
    ),
    Operation(
        name="PutObjectRetention",
        match=Match("PUT", Resource.OBJECT, ("retention",)),
        permission="s3:PutObjectRetention",
        decode=_decode_retention,
        handle=_set_retention,
        encode=lambda _: S3Response(200),
        document_limit_bytes=SETTINGS_DOCUMENT_LIMIT_BYTES,
    ),
    Operation(
        name="GetObjectRetention",
        match=Match("GET", Resource.OBJECT, ("retention",)),
        permission="s3:GetObjectRetention",
        decode=_named,
        handle=_find,
        encode=_encode_retention,
    ),
    Operation(
        name="PutObjectLegalHold",
        match=Match("PUT", Resource.OBJECT, ("legal-hold",)),
        permission="s3:PutObjectLegalHold",
        decode=lambda request: SetHold(_named(request), parse_legal_hold(request.document)),
        handle=_set_hold,
        encode=lambda _: S3Response(200),
        document_limit_bytes=SETTINGS_DOCUMENT_LIMIT_BYTES,
    ),
    Operation(
        name="GetObjectLegalHold",
        match=Match("GET", Resource.OBJECT, ("legal-hold",)),
        permission="s3:GetObjectLegalHold",
        decode=_named,
        handle=_find,
        encode=_encode_hold,
    ),
)
