"""Buckets as such: list, make, look at, delete; location."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

from gateway.authorization import demand_service_too
from gateway.context import Context
from gateway.domain.access import ENFORCED, OWNERSHIPS
from gateway.domain.tags import BUCKET_TAGS_MAX, Tags, check_tags
from gateway.metadata.buckets import OwnedBuckets
from gateway.metadata.entries import BucketEntry
from gateway.metadata.errors import BucketOwned
from gateway.operation import AnyOperation, Match, Operation, Resource, principal_of
from gateway.operations.access_lists import AclAsked, acl_asked, resolve
from gateway.s3.addressing import check_bucket_name
from gateway.s3.documents import SETTINGS_DOCUMENT_LIMIT_BYTES, parse_create_bucket
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.headers import format_modified
from gateway.s3.message import BUCKET_REGION, Principal, S3Request, S3Response
from gateway.s3.xml import document, element

XML_HEADERS = (("Content-Type", "application/xml"),)
_OWNERSHIP = "x-amz-object-ownership"
PRIVATE = "private"
LEGACY_REGION = "us-east-1"
"""The region that has no LocationConstraint, and where making one's own bucket again succeeds."""
BUCKETS_A_PAGE_MAX = 10_000
_TOKEN_LENGTH_MAX = 1024
_OBJECT_LOCK = "x-amz-bucket-object-lock-enabled"
_BUCKET_ARN = "x-amz-bucket-arn"
_TAG_RESOURCE = "s3:TagResource"
"""What CreateBucket with tags needs besides. Source: S3 API Reference, CreateBucket."""


def _arn(bucket: str) -> str:
    return f"arn:aws:s3:::{bucket}"


def xml_response(root: str, children: list[str]) -> S3Response:
    """200 with a document in S3's namespace."""
    return S3Response(200, list(XML_HEADERS), document(root, children))


def owner_element(principal: Principal) -> str:
    """`<Owner>` of what the caller owns."""
    return (
        f"<Owner>{element('ID', principal.canonical_id)}"
        f"{element('DisplayName', principal.name)}</Owner>"
    )


@dataclass(frozen=True, slots=True)
class BucketNamed:
    """Input of everything that needs no more than a bucket."""

    bucket: str
    principal: Principal


def bucket_named(request: S3Request) -> BucketNamed:
    """Decode the bucket and the caller."""
    assert request.bucket is not None
    return BucketNamed(request.bucket, principal_of(request))


# ListBuckets


@dataclass(frozen=True, slots=True)
class ListBucketsInput:
    """`limit` is None when the client asked for no pages: then it gets all there can be."""

    principal: Principal
    prefix: str
    after: str
    region: str | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class ListBucketsOutput:
    """A page and the question it answers."""

    asked: ListBucketsInput
    page: OwnedBuckets


def _decode_list_buckets(request: S3Request) -> ListBucketsInput:
    query = request.query
    limit: int | None = None
    text = query.get("max-buckets")
    if text is not None:
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= BUCKETS_A_PAGE_MAX):
            raise invalid_argument(
                "max-buckets", text, "Argument max-buckets must be an integer between 1 and 10000"
            )
        limit = int(text)
    token = query.get("continuation-token", "")
    return ListBucketsInput(
        principal=principal_of(request),
        prefix=query.get("prefix", ""),
        after=_read_token(token) if token else "",
        region=query.get("bucket-region") or None,
        limit=limit,
    )


def _read_token(token: str) -> str:
    try:
        if len(token) <= _TOKEN_LENGTH_MAX:
            return urlsafe_b64decode(token.encode()).decode()
    except (ValueError, binascii.Error):
        pass
    raise invalid_argument(
        "continuation-token", token, "The continuation token provided is incorrect"
    )


async def _list_buckets(context: Context, asked: ListBucketsInput) -> ListBucketsOutput:
    page = await context.metadata.owned_buckets(
        asked.principal,
        prefix=asked.prefix,
        after=asked.after,
        region=asked.region,
        limit=asked.limit or BUCKETS_A_PAGE_MAX,
    )
    return ListBucketsOutput(asked, page)


def _encode_list_buckets(output: ListBucketsOutput) -> S3Response:
    lines = [
        f"<Bucket><Name>{each.name}</Name>"
        f"<CreationDate>{format_modified(each.created_ms)}</CreationDate>"
        # Older clients know no region here; AWS sends it only to those that ask for pages.
        f"{_region_of(output, each.region)}{element('BucketArn', _arn(each.name))}</Bucket>"
        for each in output.page.buckets
    ]
    children = [owner_element(output.asked.principal), "<Buckets>", *lines, "</Buckets>"]
    if output.page.more:
        last = output.page.buckets[-1].name
        children.append(element("ContinuationToken", urlsafe_b64encode(last.encode()).decode()))
    if output.asked.prefix:
        children.append(element("Prefix", output.asked.prefix))
    return xml_response("ListAllMyBucketsResult", children)


def _region_of(output: ListBucketsOutput, region: str) -> str:
    asked = output.asked
    if asked.limit is None and asked.region is None and not asked.prefix and not asked.after:
        return ""
    return element("BucketRegion", region)


# CreateBucket


@dataclass(frozen=True, slots=True)
class CreateBucketInput:
    """`location` is the LocationConstraint, None when there is none."""

    bucket: str
    principal: Principal
    location: str | None
    tags: Tags
    object_lock: bool
    ownership: str
    acl: AclAsked | None


def _decode_create_bucket(request: S3Request) -> CreateBucketInput:
    assert request.bucket is not None
    check_bucket_name(request.bucket)
    ownership = request.headers.get(_OWNERSHIP)
    if ownership is not None and ownership not in OWNERSHIPS:
        raise invalid_argument(
            _OWNERSHIP, ownership, f"Invalid x-amz-object-ownership header: {ownership}"
        )
    asked_acl = acl_asked(request.headers)
    if ownership == ENFORCED and asked_acl is not None and asked_acl.canned != PRIVATE:
        raise S3Error(ErrorCode.INVALID_BUCKET_ACL_WITH_OWNERSHIP)
    configuration = parse_create_bucket(request.document)
    if configuration.unoffered:
        raise S3Error(
            ErrorCode.NOT_IMPLEMENTED, details={"Element": ",".join(configuration.unoffered)}
        )
    return CreateBucketInput(
        request.bucket,
        principal_of(request),
        configuration.location_constraint,
        check_tags(configuration.tags, count_max=BUCKET_TAGS_MAX),
        request.headers.get(_OBJECT_LOCK, "").lower() == "true",
        ownership or "",
        asked_acl,
    )


async def _create_bucket(context: Context, asked: CreateBucketInput) -> str:
    _check_location(asked.location, context.region)
    if asked.tags:
        demand_service_too(asked.principal, _TAG_RESOURCE)
    owner = asked.principal.account_id
    grants = None
    if asked.acl is not None:
        grants = await resolve(context, asked.acl, owner=owner, bucket_owner=owner, of_bucket=True)
    try:
        await context.metadata.create_bucket(
            asked.bucket,
            asked.principal,
            context.region,
            object_lock=asked.object_lock,
            ownership=asked.ownership,
            acl=grants,
            tags=asked.tags,
        )
    except BucketOwned:
        if context.region != LEGACY_REGION or asked.tags:
            raise
        found = await context.metadata.bucket(asked.bucket, asked.principal)
        if found.record.acl != grants:
            # AWS would reset the list here: a request to create must not open, or close, what is
            # there.
            raise S3Error(
                ErrorCode.BUCKET_ALREADY_EXISTS, details={"BucketName": asked.bucket}
            ) from None
    return asked.bucket


def _check_location(location: str | None, region: str) -> None:
    """Source: S3 API Reference, CreateBucket, LocationConstraint."""
    if location is None:
        if region != LEGACY_REGION:
            raise S3Error(
                ErrorCode.ILLEGAL_LOCATION_CONSTRAINT,
                "The unspecified location constraint is incompatible for the region specific "
                "endpoint this request was sent to.",
            )
        return
    # AWS has no constraint for us-east-1; clients that send it or an empty one mean it all the same.
    if location == region or (region == LEGACY_REGION and location == ""):
        return
    raise S3Error(ErrorCode.INVALID_LOCATION_CONSTRAINT, details={"LocationConstraint": location})


def _encode_created(bucket: str) -> S3Response:
    return S3Response(200, [("Location", f"/{bucket}"), (_BUCKET_ARN, _arn(bucket))])


# HeadBucket, DeleteBucket, GetBucketLocation


async def _find(context: Context, asked: BucketNamed) -> BucketEntry:
    return await context.metadata.bucket(asked.bucket, asked.principal)


async def _head(context: Context, asked: BucketNamed) -> BucketEntry:
    """A refusal tells the region too: clients ask without credentials to learn it."""
    try:
        return await _find(context, asked)
    except S3Error as error:
        if error.code is ErrorCode.ACCESS_DENIED:
            error.headers.setdefault(BUCKET_REGION, context.region)
        raise


async def _delete_bucket(context: Context, asked: BucketNamed) -> None:
    await context.metadata.delete_bucket(asked.bucket, asked.principal)


def _encode_head(entry: BucketEntry) -> S3Response:
    return S3Response(
        200,
        [
            (BUCKET_REGION, entry.record.region),
            (_BUCKET_ARN, _arn(entry.name)),
            ("x-amz-access-point-alias", "false"),
            *XML_HEADERS,
        ],
    )


def _encode_location(entry: BucketEntry) -> S3Response:
    region = entry.record.region
    constraint = "" if region == LEGACY_REGION else region
    return xml_response("LocationConstraint", [constraint])


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="ListBuckets",
        match=Match("GET", Resource.SERVICE),
        permission="s3:ListAllMyBuckets",
        decode=_decode_list_buckets,
        handle=_list_buckets,
        encode=_encode_list_buckets,
    ),
    Operation(
        name="CreateBucket",
        match=Match("PUT", Resource.BUCKET),
        permission="s3:CreateBucket",
        decode=_decode_create_bucket,
        handle=_create_bucket,
        encode=_encode_created,
        document_limit_bytes=SETTINGS_DOCUMENT_LIMIT_BYTES,
    ),
    Operation(
        name="HeadBucket",
        match=Match("HEAD", Resource.BUCKET),
        permission="s3:ListBucket",
        decode=bucket_named,
        handle=_head,
        encode=_encode_head,
    ),
    Operation(
        name="DeleteBucket",
        match=Match("DELETE", Resource.BUCKET),
        permission="s3:DeleteBucket",
        decode=bucket_named,
        handle=_delete_bucket,
        encode=lambda _: S3Response(204),
    ),
    Operation(
        name="GetBucketLocation",
        match=Match("GET", Resource.BUCKET, ("location",)),
        permission="s3:GetBucketLocation",
        decode=bucket_named,
        handle=_find,
        encode=_encode_location,
    ),
)
