"""Website configurations of buckets: put, get, delete. The website port serves them."""

from dataclasses import dataclass

import msgspec

from gateway.context import Context
from gateway.domain.website import Redirect, RoutingRule, Website
from gateway.metadata.records import BucketRecord
from gateway.metadata.website import pack_website, stored_website
from gateway.operation import AnyOperation, Match, Operation, Resource
from gateway.operations.buckets import BucketNamed, bucket_named, xml_response
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import S3Request, S3Response
from gateway.s3.website_documents import (
    WEBSITE_DOCUMENT_LIMIT_BYTES,
    Fields,
    parse_website,
    website_elements,
)


@dataclass(frozen=True, slots=True)
class SetWebsite:
    """Input of put, and of delete (none)."""

    named: BucketNamed
    website: Website | None = None


def _decode_put(request: S3Request) -> SetWebsite:
    if not request.document:
        raise S3Error(ErrorCode.MISSING_REQUEST_BODY)
    return SetWebsite(bucket_named(request), website_of(parse_website(request.document)))


def website_of(fields: Fields) -> Website:
    """The value of a document's fields."""
    everything = fields.get("redirect_all")
    return Website(
        redirect_all=None if everything is None else Redirect(**everything),
        index_suffix=fields.get("index_suffix", ""),
        error_key=fields.get("error_key", ""),
        rules=tuple(
            RoutingRule(**{**rule, "redirect": Redirect(**rule["redirect"])})
            for rule in fields.get("rules", ())
        ),
    )


def website_fields(website: Website) -> Fields:
    """The fields of a value."""
    fields = msgspec.structs.asdict(website)
    if website.redirect_all is not None:
        fields["redirect_all"] = msgspec.structs.asdict(website.redirect_all)
    fields["rules"] = [
        {**msgspec.structs.asdict(rule), "redirect": msgspec.structs.asdict(rule.redirect)}
        for rule in website.rules
    ]
    return fields


async def _set(context: Context, asked: SetWebsite) -> None:
    packed = b"" if asked.website is None else pack_website(asked.website)

    def change(record: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(record, website=packed)

    await context.metadata.change_bucket(asked.named.bucket, asked.named.principal, change)


async def _get(context: Context, asked: BucketNamed) -> Website:
    entry = await context.metadata.bucket(asked.bucket, asked.principal)
    website = stored_website(entry.record.website, asked.bucket)
    if website is None:
        raise S3Error(ErrorCode.NO_SUCH_WEBSITE, details={"BucketName": asked.bucket})
    return website


def _encode(website: Website) -> S3Response:
    return xml_response("WebsiteConfiguration", website_elements(website_fields(website)))


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="PutBucketWebsite",
        match=Match("PUT", Resource.BUCKET, ("website",)),
        permission="s3:PutBucketWebsite",
        decode=_decode_put,
        handle=_set,
        encode=lambda _: S3Response(200),
        document_limit_bytes=WEBSITE_DOCUMENT_LIMIT_BYTES,
    ),
    Operation(
        name="GetBucketWebsite",
        match=Match("GET", Resource.BUCKET, ("website",)),
        permission="s3:GetBucketWebsite",
        decode=bucket_named,
        handle=_get,
        encode=_encode,
    ),
    Operation(
        name="DeleteBucketWebsite",
        match=Match("DELETE", Resource.BUCKET, ("website",)),
        permission="s3:DeleteBucketWebsite",
        decode=lambda request: SetWebsite(bucket_named(request)),
        handle=_set,
        encode=lambda _: S3Response(204),
    ),
)
