"""x-amz-tagging and x-amz-tagging-directive of requests that make an object."""

import re
from typing import Final
from urllib.parse import unquote_plus

from gateway.domain.tags import OBJECT_TAGS_MAX, Tags, check_tags
from gateway.s3.errors import S3Error, invalid_argument
from gateway.s3.message import S3Request

TAGGING: Final = "x-amz-tagging"
_DIRECTIVE: Final = "x-amz-tagging-directive"
_BROKEN_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")


def _argument(request: S3Request, name: str) -> str | None:
    """A header; presigned URLs of older clients carry it in the query."""
    value = request.headers.get(name)
    return request.query.get(name) if value is None else value


def request_tags(request: S3Request) -> Tags:
    """The tags a request gives its object. Raises InvalidArgument, TagRefused."""
    text = _argument(request, TAGGING)
    return check_tags(_parsed(text), count_max=OBJECT_TAGS_MAX) if text else ()


def _parsed(text: str) -> Tags:
    """Read `key=value&key=value`, percent-encoded as a query is. Nothing between two `&` is no tag:
    clients that build such text in a loop leave one at its end."""
    found: list[tuple[str, str]] = []
    for pair in text.split("&"):
        if not pair:
            continue
        key, _, value = pair.partition("=")
        found.append((_decoded(key, text), _decoded(value, text)))
    if len({key for key, _ in found}) < len(found):
        raise _misspelt(text)
    return tuple(found)


def _decoded(text: str, whole: str) -> str:
    if _BROKEN_ESCAPE.search(text) is not None:
        raise _misspelt(whole)
    try:
        # Header text is latin-1: what was sent as plain UTF-8 is brought back first.
        return unquote_plus(text.encode("latin-1").decode("utf-8"), errors="strict")
    except UnicodeError:
        raise _misspelt(whole) from None


def _misspelt(text: str) -> S3Error:
    return invalid_argument(
        TAGGING,
        text,
        "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters "
        "without tag name duplicates.",
    )


def copy_tags(request: S3Request) -> Tags | None:
    """The tags of a copy; None when the source's are copied. Raises InvalidArgument, TagRefused."""
    directive = _argument(request, _DIRECTIVE)
    if directive is None or directive == "COPY":
        return None
    if directive != "REPLACE":
        raise invalid_argument(_DIRECTIVE, directive, "Unknown tagging directive.")
    return request_tags(request)
