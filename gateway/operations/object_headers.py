"""Headers of objects both ways: what a request says of an object, and what an answer tells of one.

Shared by PutObject, CopyObject, CreateMultipartUpload and the reading operations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from gateway.domain.conditions import ReadConditions, WriteConditions
from gateway.domain.versions import VersionAsked, version_asked, version_bytes
from gateway.metadata.entries import etag_text
from gateway.metadata.records import Checksum, ObjectRecord
from gateway.s3.checksums import ALGORITHM_BY_NAME, format_checksum
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.headers import (
    DEFAULT_CONTENT_TYPE,
    METADATA_PREFIX,
    ETags,
    content_headers,
    format_http_date,
    parse_etags,
    parse_http_date,
    user_metadata,
)
from gateway.s3.message import S3Request
from gateway.s3.xml import element

Headers = list[tuple[str, str]]

_NAMES = {
    "cache-control": "Cache-Control",
    "content-disposition": "Content-Disposition",
    "content-encoding": "Content-Encoding",
    "content-language": "Content-Language",
    "content-type": "Content-Type",
    "expires": "Expires",
}

WEBSITE_REDIRECT: Final = "x-amz-website-redirect-location"
_REDIRECT_LENGTH_MAX: Final = 2048

http_date = lru_cache(maxsize=4096)(format_http_date)
"""An HTTP date of whole seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class ObjectHeaders:
    """What a request stores beside the bytes. `content_type` "" is the default one."""

    content_type: str
    headers: tuple[tuple[str, str], ...]
    metadata: tuple[tuple[str, str], ...]


def object_headers(headers: Mapping[str, str]) -> ObjectHeaders:
    """Content headers and user metadata of a request. Raises MetadataTooLarge."""
    content_type, others = content_headers(headers)
    others += redirect_header(headers)
    return ObjectHeaders(content_type, others, user_metadata(headers))


def redirect_header(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Where the website port sends whoever asks for the object, kept like a content header. Raises
    InvalidRedirectLocation. Source: S3 User Guide, "Configuring a webpage redirect"."""
    target = headers.get(WEBSITE_REDIRECT)
    if target is None:
        return ()
    if not target.startswith(("/", "http://", "https://")):
        raise S3Error(ErrorCode.INVALID_REDIRECT_LOCATION)
    if len(target) > _REDIRECT_LENGTH_MAX:
        raise S3Error(
            ErrorCode.INVALID_REDIRECT_LOCATION,
            f"The length of website redirect location cannot exceed {_REDIRECT_LENGTH_MAX}"
            " characters.",
        )
    return ((WEBSITE_REDIRECT, target),)


def write_conditions(headers: Mapping[str, str]) -> WriteConditions | None:
    """If-Match and If-None-Match of a write; None when there are none."""
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if match is None and none_match is None:
        return None
    return WriteConditions(_etags(match), _etags(none_match, weak=True))


def read_conditions(headers: Mapping[str, str], prefix: str = "") -> ReadConditions | None:
    """The four conditions of a read, or of a copy's source (`prefix` "x-amz-copy-source-"). Dates
    that are none are ignored, as HTTP demands. None when there are no conditions."""
    match = headers.get(f"{prefix}if-match")
    none_match = headers.get(f"{prefix}if-none-match")
    since = headers.get(f"{prefix}if-modified-since")
    unmodified = headers.get(f"{prefix}if-unmodified-since")
    if match is None and none_match is None and since is None and unmodified is None:
        return None
    return ReadConditions(
        if_match=_etags(match),
        if_none_match=_etags(none_match, weak=True),
        if_modified_since=None if since is None else parse_http_date(since),
        if_unmodified_since=None if unmodified is None else parse_http_date(unmodified),
    )


def _etags(text: str | None, *, weak: bool = False) -> ETags | None:
    return None if text is None else parse_etags(text, weak=weak)


def version_argument(request: S3Request) -> bytes | None:
    """The version that `versionId` names, b"" for the null one; None when there is no argument.
    Raises InvalidArgument for what is no version id."""
    return named_version(request.query.get("versionId"))


def named_version(text: str | None) -> bytes | None:
    """The same of an id found elsewhere (copy sources)."""
    match version_asked(text):
        case VersionAsked.CURRENT:
            return None
        case VersionAsked.NAMED:
            assert text is not None
            return version_bytes(text)
        case VersionAsked.MALFORMED:
            raise invalid_argument("versionId", text or "", "Invalid version id specified")


def quoted_etag(record: ObjectRecord) -> str:
    """The ETag header's value."""
    return f'"{etag_text(record)}"'


def validator_headers(record: ObjectRecord) -> Headers:
    """Last-Modified and ETag: all that a 304 says of the object."""
    return [
        ("Last-Modified", http_date(record.modified_ms // 1000)),
        ("ETag", quoted_etag(record)),
    ]


def describing_headers(record: ObjectRecord, overrides: Mapping[str, str] | None = None) -> Headers:
    """What GET and HEAD say of an object: validators, content headers, user metadata.

    `overrides` (lower case names) replace content headers: the `response-*` arguments.
    """
    answer = [
        ("Last-Modified", http_date(record.modified_ms // 1000)),
        ("ETag", quoted_etag(record)),
        ("Accept-Ranges", "bytes"),
    ]
    if overrides:
        content = {"content-type": record.content_type or DEFAULT_CONTENT_TYPE}
        content.update(record.headers)
        content.update(overrides)
        answer += ((_NAMES.get(name, name), value) for name, value in content.items())
    else:
        answer.append(("Content-Type", record.content_type or DEFAULT_CONTENT_TYPE))
        if record.headers:
            answer += ((_NAMES.get(name, name), value) for name, value in record.headers)
    if record.storage_class:  # of STANDARD objects S3 says nothing
        answer.append(("x-amz-storage-class", record.storage_class))
    if record.metadata:
        answer += ((METADATA_PREFIX + name, value) for name, value in record.metadata)
    return answer


def checksum_headers(checksum: Checksum | None) -> Headers:
    """The additional checksum and its type, as PUT always and reads in checksum mode tell it."""
    if checksum is None:
        return []
    algorithm = ALGORITHM_BY_NAME[checksum.algorithm]
    return [
        (algorithm.header, format_checksum(checksum.value, checksum.parts)),
        ("x-amz-checksum-type", checksum.type),
    ]


def checksum_elements(checksum: Checksum | None) -> str:
    """The same as XML elements (CopyObjectResult, GetObjectAttributes, …)."""
    if checksum is None:
        return ""
    algorithm = ALGORITHM_BY_NAME[checksum.algorithm]
    return element(algorithm.element, format_checksum(checksum.value, checksum.parts)) + element(
        "ChecksumType", checksum.type
    )
