"""Cross-origin rules: put, get, delete; the answer to a browser's preflight, and the headers that
the rules add to other answers."""

from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.context import Context
from gateway.domain.cors import (
    CorsRule,
    CorsRules,
    answer_headers,
    answering_rule,
    requested_headers,
)
from gateway.metadata.cors import pack_cors
from gateway.metadata.errors import MetadataError, NoSuchBucket
from gateway.metadata.records import BucketRecord
from gateway.operation import AnyOperation, Match, Operation, Resource
from gateway.operations.buckets import BucketNamed, bucket_named, xml_response
from gateway.s3.cors_documents import (
    CORS_DOCUMENT_LIMIT_BYTES,
    METHODS,
    WantedRule,
    parse_cors,
    rule_element,
)
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import S3Request, S3Response
from placement.errors import PlacementError

PREFLIGHT: Final = "Preflight"
"""Label of preflight requests in logs and metrics."""
_REQUESTED_METHOD: Final = "access-control-request-method"
_REQUESTED_HEADERS: Final = "access-control-request-headers"


@dataclass(frozen=True, slots=True)
class SetCors:
    """Input of put, and of delete (no rules)."""

    named: BucketNamed
    rules: CorsRules = ()


def _decode_put(request: S3Request) -> SetCors:
    if not request.document:
        raise S3Error(ErrorCode.MISSING_REQUEST_BODY)
    wanted = parse_cors(request.document)
    return SetCors(bucket_named(request), tuple(CorsRule(**rule._asdict()) for rule in wanted))


async def _set(context: Context, asked: SetCors) -> None:
    packed = pack_cors(asked.rules) if asked.rules else b""

    def change(record: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(record, cors=packed)

    await context.metadata.change_bucket(asked.named.bucket, asked.named.principal, change)


async def _get(context: Context, asked: BucketNamed) -> CorsRules:
    entry = await context.metadata.bucket(asked.bucket, asked.principal)
    if not entry.cors:
        raise S3Error(ErrorCode.NO_SUCH_CORS, details={"BucketName": asked.bucket})
    return entry.cors


def _encode(rules: CorsRules) -> S3Response:
    shown = [rule_element(WantedRule(**msgspec.structs.asdict(rule))) for rule in rules]
    return xml_response("CORSConfiguration", shown)


async def answer_preflight(context: Context, request: S3Request) -> S3Response:
    """200 with what the first rule allows. Nobody signs a preflight, so it is answered to anybody.

    Raises BadRequest (not a preflight), AccessForbidden (no rule allows the request).
    """
    origin = request.headers.get("origin")
    if not origin:
        raise S3Error(
            ErrorCode.BAD_REQUEST, "Insufficient information. Origin request header needed."
        )
    method = request.headers.get(_REQUESTED_METHOD)
    if method is not None and method not in METHODS:
        raise S3Error(ErrorCode.BAD_REQUEST, f"Invalid Access-Control-Request-Method: {method}")
    assert request.bucket is not None
    details = {
        "Method": method or "OPTIONS",
        "ResourceType": "BUCKET" if request.key is None else "OBJECT",
    }
    try:
        entry = await context.metadata.buckets.read_unasked(request.bucket)
    except NoSuchBucket:
        raise S3Error(
            ErrorCode.ACCESS_FORBIDDEN, "CORSResponse: Bucket not found", details=details
        ) from None
    if not entry.cors:
        raise S3Error(ErrorCode.ACCESS_FORBIDDEN, details=details)
    if method is None:
        raise S3Error(ErrorCode.BAD_REQUEST, "Invalid Access-Control-Request-Method: null")
    headers = requested_headers(request.headers.get(_REQUESTED_HEADERS, ""))
    rule = answering_rule(entry.cors, origin, method, headers)
    if rule is None:
        raise S3Error(
            ErrorCode.ACCESS_FORBIDDEN,
            "CORSResponse: This CORS request is not allowed. This is usually because the evalution "
            "of Origin, request method / Access-Control-Request-Method or "
            "Access-Control-Request-Headers are not whitelisted by the resource's CORS spec.",
            details=details,
        )
    return S3Response(200, answer_headers(rule, origin, headers))


async def headers_of_answer(
    context: Context, bucket: str, method: str, headers: dict[str, str]
) -> list[tuple[str, str]]:
    """What the bucket's rules add to the answer to a request with an Origin, be it an error. A
    bucket that cannot be looked up adds nothing: the answer itself is already made."""
    try:
        entry = await context.metadata.buckets.guess(bucket)
    except (MetadataError, PlacementError):
        return []
    if not entry.cors:
        return []
    # AWS believes what a preflight asks for on other requests too.
    method = headers.get(_REQUESTED_METHOD, method)
    wanted = requested_headers(headers.get(_REQUESTED_HEADERS, ""))
    origin = headers["origin"]
    rule = answering_rule(entry.cors, origin, method, wanted)
    return [] if rule is None else answer_headers(rule, origin)


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="PutBucketCors",
        match=Match("PUT", Resource.BUCKET, ("cors",)),
        permission="s3:PutBucketCORS",
        decode=_decode_put,
        handle=_set,
        encode=lambda _: S3Response(200),
        document_limit_bytes=CORS_DOCUMENT_LIMIT_BYTES,
    ),
    Operation(
        name="GetBucketCors",
        match=Match("GET", Resource.BUCKET, ("cors",)),
        permission="s3:GetBucketCORS",
        decode=bucket_named,
        handle=_get,
        encode=_encode,
    ),
    Operation(
        name="DeleteBucketCors",
        match=Match("DELETE", Resource.BUCKET, ("cors",)),
        permission="s3:PutBucketCORS",
        decode=lambda request: SetCors(bucket_named(request)),
        handle=_set,
        encode=lambda _: S3Response(204),
    ),
)
