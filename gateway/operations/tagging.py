"""Tag sets of buckets and of objects: put, get, delete."""

from dataclasses import dataclass

import msgspec

from gateway.context import Context
from gateway.domain.tags import BUCKET_TAGS_MAX, OBJECT_TAGS_MAX, Tags, check_tags
from gateway.metadata.records import BucketRecord, ObjectRecord
from gateway.operation import AnyOperation, Match, Operation, Resource, principal_of
from gateway.operations.buckets import BucketNamed, bucket_named, xml_response
from gateway.operations.object_change import change_object
from gateway.operations.object_headers import version_argument
from gateway.operations.object_versions import VERSION_ID, find_version, told_version
from gateway.s3.documents import TAGGING_DOCUMENT_LIMIT_BYTES, parse_tagging
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import Principal, S3Request, S3Response
from gateway.s3.xml import element


@dataclass(frozen=True, slots=True)
class ObjectTags:
    """Input of the object operations; `tags` is the new set, where there is one."""

    bucket: str
    key: str
    principal: Principal
    version: bytes | None
    tags: Tags = ()


@dataclass(frozen=True, slots=True)
class BucketTags:
    """Input of the bucket operations that set."""

    named: BucketNamed
    tags: Tags


@dataclass(frozen=True, slots=True)
class Tagged:
    """What an object operation left or found. `shown_version` is the version id to answer with."""

    tags: Tags
    shown_version: str


def _object(request: S3Request, tags: Tags = ()) -> ObjectTags:
    assert request.bucket is not None
    assert request.key is not None
    version = version_argument(request)
    return ObjectTags(request.bucket, request.key, principal_of(request), version, tags)


def _put_object(request: S3Request) -> ObjectTags:
    return _object(request, check_tags(parse_tagging(request.document), count_max=OBJECT_TAGS_MAX))


async def _set_object(context: Context, asked: ObjectTags) -> Tagged:
    return await _change_object(context, asked, "PUT")


async def _delete_object(context: Context, asked: ObjectTags) -> Tagged:
    """The set asked for is empty."""
    return await _change_object(context, asked, "DELETE")


async def _change_object(context: Context, asked: ObjectTags, method: str) -> Tagged:
    def change(record: ObjectRecord) -> ObjectRecord:
        return msgspec.structs.replace(record, tags=asked.tags)

    entry, record = await change_object(
        context, asked.bucket, asked.key, asked.principal, change, asked.version, method=method
    )
    return Tagged(asked.tags, told_version(entry, record, asked.version))


async def _get_object(context: Context, asked: ObjectTags) -> Tagged:
    # Of all reads, S3 answers this one of a current delete marker as what would change it.
    entry, current = await find_version(
        context, asked.bucket, asked.key, asked.principal, asked.version, changing="GET"
    )
    return Tagged(current.record.tags, told_version(entry, current.record, asked.version))


def _answer(response: S3Response, tagged: Tagged) -> S3Response:
    if tagged.shown_version:
        response.headers.append((VERSION_ID, tagged.shown_version))
    return response


def _encode_tags(tags: Tags) -> S3Response:
    lines = [f"<Tag>{element('Key', key)}{element('Value', value)}</Tag>" for key, value in tags]
    return xml_response("Tagging", ["<TagSet>", *lines, "</TagSet>"])


def _put_bucket(request: S3Request) -> BucketTags:
    tags = check_tags(parse_tagging(request.document), count_max=BUCKET_TAGS_MAX)
    return BucketTags(bucket_named(request), tags)


async def _set_bucket(context: Context, asked: BucketTags) -> None:
    """Also deletes: then the asked-for set is empty."""

    def change(record: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(record, tags=asked.tags)

    await context.metadata.change_bucket(asked.named.bucket, asked.named.principal, change)


async def _get_bucket(context: Context, asked: BucketNamed) -> Tags:
    entry = await context.metadata.bucket(asked.bucket, asked.principal)
    if not entry.record.tags:
        raise S3Error(ErrorCode.NO_SUCH_TAG_SET, details={"BucketName": asked.bucket})
    return entry.record.tags


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="PutObjectTagging",
        match=Match("PUT", Resource.OBJECT, ("tagging",)),
        permission="s3:PutObjectTagging",
        decode=_put_object,
        handle=_set_object,
        encode=lambda tagged: _answer(S3Response(200), tagged),
        document_limit_bytes=TAGGING_DOCUMENT_LIMIT_BYTES,
    ),
    Operation(
        name="GetObjectTagging",
        match=Match("GET", Resource.OBJECT, ("tagging",)),
        permission="s3:GetObjectTagging",
        decode=_object,
        handle=_get_object,
        encode=lambda tagged: _answer(_encode_tags(tagged.tags), tagged),
    ),
    Operation(
        name="DeleteObjectTagging",
        match=Match("DELETE", Resource.OBJECT, ("tagging",)),
        permission="s3:DeleteObjectTagging",
        decode=_object,
        handle=_delete_object,
        encode=lambda tagged: _answer(S3Response(204), tagged),
    ),
    Operation(
        name="PutBucketTagging",
        match=Match("PUT", Resource.BUCKET, ("tagging",)),
        permission="s3:PutBucketTagging",
        decode=_put_bucket,
        handle=_set_bucket,
        encode=lambda _: S3Response(204),
        document_limit_bytes=TAGGING_DOCUMENT_LIMIT_BYTES,
    ),
    Operation(
        name="GetBucketTagging",
        match=Match("GET", Resource.BUCKET, ("tagging",)),
        permission="s3:GetBucketTagging",
        decode=bucket_named,
        handle=_get_bucket,
        encode=_encode_tags,
    ),
    Operation(
        name="DeleteBucketTagging",
        match=Match("DELETE", Resource.BUCKET, ("tagging",)),
        permission="s3:PutBucketTagging",
        decode=lambda request: BucketTags(bucket_named(request), ()),
        handle=_set_bucket,
        encode=lambda _: S3Response(204),
    ),
)
