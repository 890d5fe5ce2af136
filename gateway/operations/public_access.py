"""A bucket's public access block: put, get, delete."""

from dataclasses import dataclass

import msgspec

from gateway.context import Context
from gateway.metadata.records import BucketRecord
from gateway.operation import AnyOperation, Match, Operation, Resource
from gateway.operations.buckets import BucketNamed, bucket_named, xml_response
from gateway.s3.access_documents import parse_public_access_block, public_access_block_elements
from gateway.s3.documents import SETTINGS_DOCUMENT_LIMIT_BYTES
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import S3Request, S3Response

Block = tuple[bool, bool, bool, bool]


@dataclass(frozen=True, slots=True)
class SetBlock:
    """Input of put, and of delete (None)."""

    named: BucketNamed
    block: Block | None


def _decode_put(request: S3Request) -> SetBlock:
    return SetBlock(bucket_named(request), parse_public_access_block(request.document))


async def _set(context: Context, asked: SetBlock) -> None:
    def change(record: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(record, public_access_block=asked.block)

    await context.metadata.change_bucket(asked.named.bucket, asked.named.principal, change)


async def _get(context: Context, asked: BucketNamed) -> Block:
    entry = await context.metadata.bucket(asked.bucket, asked.principal)
    block = entry.record.public_access_block
    if block is None:
        raise S3Error(ErrorCode.NO_SUCH_PUBLIC_ACCESS_BLOCK, details={"BucketName": asked.bucket})
    return block


def _encode(block: Block) -> S3Response:
    return xml_response("PublicAccessBlockConfiguration", public_access_block_elements(block))


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="PutPublicAccessBlock",
        match=Match("PUT", Resource.BUCKET, ("publicAccessBlock",)),
        permission="s3:PutBucketPublicAccessBlock",
        decode=_decode_put,
        handle=_set,
        encode=lambda _: S3Response(200),
        document_limit_bytes=SETTINGS_DOCUMENT_LIMIT_BYTES,
    ),
    Operation(
        name="GetPublicAccessBlock",
        match=Match("GET", Resource.BUCKET, ("publicAccessBlock",)),
        permission="s3:GetBucketPublicAccessBlock",
        decode=bucket_named,
        handle=_get,
        encode=_encode,
    ),
    Operation(
        name="DeletePublicAccessBlock",
        match=Match("DELETE", Resource.BUCKET, ("publicAccessBlock",)),
        permission="s3:PutBucketPublicAccessBlock",
        decode=lambda request: SetBlock(bucket_named(request), None),
        handle=_set,
        encode=lambda _: S3Response(204),
    ),
)
