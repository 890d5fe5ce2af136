"""Bucket policies: put, get, delete, and whether a bucket is public."""

from dataclasses import dataclass

import msgspec

from gateway.authorization import denied
from gateway.context import Context
from gateway.domain import acl
from gateway.domain.access import ENFORCED
from gateway.domain.policy.actions import refuse_unknown_actions
from gateway.domain.policy.applicability import refuse_mismatches
from gateway.domain.policy.document import (
    BUCKET_POLICY_SIZE_BYTES_MAX,
    Policy,
    read_bucket_policy,
)
from gateway.domain.policy.publicity import is_public
from gateway.metadata.policies import pack_policy, unpack_policy
from gateway.metadata.records import BucketRecord
from gateway.operation import AnyOperation, Match, Operation, Resource
from gateway.operations.buckets import BucketNamed, bucket_named, xml_response
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import S3Request, S3Response


@dataclass(frozen=True, slots=True)
class PutPolicy:
    """Input of PutBucketPolicy; `text` is the document as it came."""

    named: BucketNamed
    text: bytes
    policy: Policy


def _decode_put(request: S3Request) -> PutPolicy:
    named = bucket_named(request)
    policy = read_bucket_policy(request.document, named.bucket)
    refuse_unknown_actions(policy)
    refuse_mismatches(policy)
    return PutPolicy(named, request.document, policy)


def _demand_own(record: BucketRecord, asked: BucketNamed) -> None:
    """A policy is its owner's account's to see and to change, whomever it lets: S3 API Reference,
    "PutBucketPolicy", "GetBucketPolicy", "DeleteBucketPolicy"."""
    if asked.principal.account_id != record.owner:
        raise S3Error(ErrorCode.METHOD_NOT_ALLOWED)


async def _put(context: Context, asked: PutPolicy) -> None:
    public = is_public(asked.policy)
    packed = pack_policy(asked.text)

    def change(record: BucketRecord) -> BucketRecord:
        _demand_own(record, asked.named)
        block = record.public_access_block
        if public and block is not None and block[2]:
            raise denied()
        return msgspec.structs.replace(record, policy=packed)

    await context.metadata.change_bucket(asked.named.bucket, asked.named.principal, change)


async def _get(context: Context, asked: BucketNamed) -> bytes:
    entry = await context.metadata.bucket(asked.bucket, asked.principal)
    _demand_own(entry.record, asked)
    if not entry.record.policy:
        raise S3Error(ErrorCode.NO_SUCH_BUCKET_POLICY, details={"BucketName": asked.bucket})
    return unpack_policy(entry.record.policy)


async def _delete(context: Context, asked: BucketNamed) -> None:
    entry = await context.metadata.bucket(asked.bucket, asked.principal)
    _demand_own(entry.record, asked)
    if not entry.record.policy:
        return

    def change(record: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(record, policy=b"")

    await context.metadata.change_bucket(asked.bucket, asked.principal, change)


async def _status(context: Context, asked: BucketNamed) -> bool:
    """Public by its policy or, where lists count, by its list."""
    entry = await context.metadata.bucket(asked.bucket, asked.principal)
    record = entry.record
    if entry.policy is not None and is_public(entry.policy):
        return True
    ignored = record.public_access_block is not None and record.public_access_block[1]
    return record.ownership != ENFORCED and not ignored and acl.is_public(record.acl)


def _encode_status(public: bool) -> S3Response:
    text = "true" if public else "false"
    return xml_response("PolicyStatus", [f"<IsPublic>{text}</IsPublic>"])


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="PutBucketPolicy",
        match=Match("PUT", Resource.BUCKET, ("policy",)),
        permission="s3:PutBucketPolicy",
        decode=_decode_put,
        handle=_put,
        encode=lambda _: S3Response(204),
        # Somewhat more than the rule admits, so that it answers what AWS answers.
        document_limit_bytes=4 * BUCKET_POLICY_SIZE_BYTES_MAX,
    ),
    Operation(
        name="GetBucketPolicy",
        match=Match("GET", Resource.BUCKET, ("policy",)),
        permission="s3:GetBucketPolicy",
        decode=bucket_named,
        handle=_get,
        encode=lambda text: S3Response(200, [("Content-Type", "application/json")], text),
    ),
    Operation(
        name="DeleteBucketPolicy",
        match=Match("DELETE", Resource.BUCKET, ("policy",)),
        permission="s3:DeleteBucketPolicy",
        decode=bucket_named,
        handle=_delete,
        encode=lambda _: S3Response(204),
    ),
    Operation(
        name="GetBucketPolicyStatus",
        match=Match("GET", Resource.BUCKET, ("policyStatus",)),
        permission="s3:GetBucketPolicyStatus",
        decode=bucket_named,
        handle=_status,
        encode=_encode_status,
    ),
)
