"""PutBucketEncryption, GetBucketEncryption, DeleteBucketEncryption."""

from dataclasses import dataclass

import msgspec

from gateway.context import Context
from gateway.domain.encryption import default_rule
from gateway.metadata.entries import BucketEntry
from gateway.metadata.records import BucketEncryption, BucketRecord
from gateway.operation import AnyOperation, Match, Operation, Resource
from gateway.operations.buckets import BucketNamed, bucket_named, xml_response
from gateway.operations.object_encryption import rule_of
from gateway.s3.documents import SETTINGS_DOCUMENT_LIMIT_BYTES
from gateway.s3.encryption_documents import EncryptionRule, parse_encryption
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import S3Request, S3Response
from gateway.s3.xml import element


@dataclass(frozen=True, slots=True)
class PutEncryption:
    """Input of PutBucketEncryption."""

    named: BucketNamed
    rule: EncryptionRule


def _decode_put(request: S3Request) -> PutEncryption:
    return PutEncryption(bucket_named(request), parse_encryption(request.document))


async def _put(context: Context, asked: PutEncryption) -> None:
    await context.metadata.bucket(asked.named.bucket, asked.named.principal)
    rule = default_rule(*asked.rule)
    stored = BucketEncryption(
        algorithm=rule.algorithm,
        key_id=rule.key_id,
        bucket_key=rule.bucket_key,
        blocked=rule.blocked,
    )
    await _change(context, asked.named, stored)


async def _delete(context: Context, asked: BucketNamed) -> None:
    await _change(context, asked, None)


async def _change(context: Context, named: BucketNamed, rule: BucketEncryption | None) -> None:
    def change(record: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(record, encryption=rule)

    await context.metadata.change_bucket(named.bucket, named.principal, change)


async def _get(context: Context, asked: BucketNamed) -> BucketEncryption:
    entry: BucketEntry = await context.metadata.bucket(asked.bucket, asked.principal)
    rule = rule_of(context, entry.record.encryption)
    if rule is None:
        raise S3Error(ErrorCode.NO_SUCH_ENCRYPTION, details={"BucketName": asked.bucket})
    return rule


def _encode(rule: BucketEncryption) -> S3Response:
    children = []
    if rule.algorithm:
        key = element("KMSMasterKeyID", rule.key_id) if rule.key_id else ""
        children.append(
            "<ApplyServerSideEncryptionByDefault>"
            f"{element('SSEAlgorithm', rule.algorithm)}{key}"
            "</ApplyServerSideEncryptionByDefault>"
        )
    children.append(element("BucketKeyEnabled", "true" if rule.bucket_key else "false"))
    if rule.blocked:
        types = "".join(element("EncryptionType", name) for name in rule.blocked)
        children.append(f"<BlockedEncryptionTypes>{types}</BlockedEncryptionTypes>")
    return xml_response("ServerSideEncryptionConfiguration", [f"<Rule>{''.join(children)}</Rule>"])


def _done(_: None) -> S3Response:
    return S3Response(200)


def _gone(_: None) -> S3Response:
    return S3Response(204)


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="PutBucketEncryption",
        match=Match("PUT", Resource.BUCKET, query=("encryption",)),
        permission="s3:PutEncryptionConfiguration",
        decode=_decode_put,
        handle=_put,
        encode=_done,
        document_limit_bytes=SETTINGS_DOCUMENT_LIMIT_BYTES,
    ),
    Operation(
        name="GetBucketEncryption",
        match=Match("GET", Resource.BUCKET, query=("encryption",)),
        permission="s3:GetEncryptionConfiguration",
        decode=bucket_named,
        handle=_get,
        encode=_encode,
    ),
    Operation(
        name="DeleteBucketEncryption",
        match=Match("DELETE", Resource.BUCKET, query=("encryption",)),
        permission="s3:PutEncryptionConfiguration",
        decode=bucket_named,
        handle=_delete,
        encode=_gone,
    ),
)
