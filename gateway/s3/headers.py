"""Header values both ways: dates, entity tags, ranges, content headers, user metadata."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from gateway.s3.errors import ErrorCode, S3Error, invalid_argument

MAX_METADATA_BYTES: Final = 2048
"""Names and values of user metadata together. Source: S3 User Guide, "Working with object
metadata"."""
METADATA_PREFIX: Final = "x-amz-meta-"
DEFAULT_CONTENT_TYPE: Final = "binary/octet-stream"

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
_MONTH_NUMBERS: Final = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 — all arithmetic here is in UTC


def format_http_date(seconds: int) -> str:
    """IMF-fixdate (RFC 9110, 5.6.7) of seconds since the epoch."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return (
        f"{_DAYS[moment.weekday()]}, {moment.day:02} {_MONTHS[moment.month - 1]} {moment.year:04}"
        f" {moment.hour:02}:{moment.minute:02}:{moment.second:02} GMT"
    )


_FIXDATE: Final = re.compile(
    r"(?:[A-Za-z]{3,9}, ?)?(\d{1,2})[ -]([A-Za-z]{3})[ -](\d{4}|\d{2}) "
    r"(\d{2}):(\d{2}):(\d{2}) (GMT|UTC|UT|Z|[+-]\d{4})",
    re.ASCII,
)
_ASCTIME: Final = re.compile(
    r"[A-Za-z]{3} ([A-Za-z]{3}) ([ \d]\d) (\d{2}):(\d{2}):(\d{2}) (\d{4})", re.ASCII
)


def parse_http_date(text: str) -> int | None:
    """Seconds since the epoch of an HTTP date; None when it is none, or before the epoch.

    RFC 9110's three forms, and RFC 5322's numeric zones, which old S3 clients send. The day of the
    week is not checked.
    """
    text = text.strip()
    match = _FIXDATE.fullmatch(text)
    if match is not None:
        day, month, year, hour, minute, second, zone = match.groups()
    else:
        match = _ASCTIME.fullmatch(text)
        if match is None:
            return None
        month, day, hour, minute, second, year = match.groups()
        zone = "GMT"
    number = _MONTH_NUMBERS.get(month.lower())
    if number is None:
        return None
    full_year = int(year)
    if len(year) == 2:  # RFC 850; the pivot of POSIX
        full_year += 1900 if full_year >= 69 else 2000
    try:
        moment = datetime(  # noqa: DTZ001 — the zone is applied below
            full_year, number, int(day), int(hour), int(minute), min(int(second), 59)
        )
    except ValueError:
        return None
    seconds = int((moment - _EPOCH).total_seconds())
    if zone[0] in "+-":
        offset = int(zone[1:3]) * 3600 + int(zone[3:5]) * 60
        seconds += offset if zone[0] == "-" else -offset
    return seconds if seconds >= 0 else None


def format_iso8601(milliseconds: int) -> str:
    """The form of dates in S3's XML: `2006-02-03T16:45:09.000Z`."""
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds") + "Z"


def format_modified(milliseconds: int) -> str:
    """When something was made or last written, in S3's XML: in whole seconds, rounded down, as S3
    has it. So an object's listing and its Last-Modified header tell the same time, which clients
    (Hadoop's among them) compare."""
    return format_iso8601(milliseconds // 1000 * 1000)


def parse_iso8601(text: str) -> int | None:
    """Milliseconds since the epoch of an ISO 8601 date with zone; None when it is none."""
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            return None
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    milliseconds = (moment.replace(tzinfo=None) - _EPOCH) // timedelta(milliseconds=1)
    return milliseconds if milliseconds >= 0 else None


class ETags(NamedTuple):
    """The value of If-Match or If-None-Match: `any` for "*", else tags without quotes."""

    any: bool
    tags: tuple[str, ...] = ()

    def match(self, etag: str) -> bool:
        """Whether an existing object with this tag (no quotes) is among them."""
        return self.any or etag in self.tags


_ETAG: Final = re.compile(r'\s*(?:(W/)?"([^"]*)"|([^",\s][^",]*))\s*(?:,|$)')


def parse_etags(text: str, *, weak: bool = False) -> ETags:
    """A list of entity tags. As S3 does, quotes may be missing.

    Weak tags count only when `weak` (If-None-Match compares weakly, RFC 9110 13.1.2). A list that
    cannot be parsed matches nothing beyond what was read.
    """
    text = text.strip()
    if text == "*":
        return ETags(any=True)
    tags: list[str] = []
    position = 0
    while position < len(text):
        match = _ETAG.match(text, position)
        if match is None:
            break
        position = match.end()
        if match[1] is None or weak:
            tags.append(match[2] if match[2] is not None else match[3].rstrip())
    return ETags(any=False, tags=tuple(tags))


class ByteRange(NamedTuple):
    """A single byte range: `first`-`last` inclusive, `first`- when last is None, and the last
    `last` bytes when first is None."""

    first: int | None
    last: int | None
    text: str

    def resolve(self, size_bytes: int) -> tuple[int, int]:
        """(offset, length) within an object; InvalidRange when it holds none of these bytes."""
        if self.first is None:
            assert self.last is not None
            length = min(self.last, size_bytes)
            if length > 0:
                return size_bytes - length, length
        elif self.first < size_bytes:
            last = size_bytes - 1 if self.last is None else min(self.last, size_bytes - 1)
            return self.first, last - self.first + 1
        raise S3Error(
            ErrorCode.INVALID_RANGE,
            details={"RangeRequested": self.text, "ActualObjectSize": str(size_bytes)},
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )


_RANGE: Final = re.compile(r"bytes=\s*(\d+)?\s*-\s*(\d+)?\s*", re.ASCII | re.IGNORECASE)
_POSITION_MAX: Final = 10**18
"""Beyond any object: stands for every longer number in a range."""
_COPY_RANGE: Final = re.compile(r"bytes=(\d{1,19})-(\d{1,19})", re.ASCII)


def _position(digits: str | None) -> int | None:
    if digits is None:
        return None
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= 18 else _POSITION_MAX


def parse_range(text: str) -> ByteRange | None:
    """The Range header. None, that is the whole object, for several ranges and for anything that
    is not a byte range: S3 ignores both."""
    match = _RANGE.fullmatch(text.strip())
    if match is None or (match[1] is None and match[2] is None):
        return None
    first, last = _position(match[1]), _position(match[2])
    if first is not None and last is not None and last < first:
        return None
    return ByteRange(first, last, text.strip())


def parse_copy_range(text: str) -> ByteRange:
    """x-amz-copy-source-range, which must be `bytes=first-last`; else InvalidArgument."""
    match = _COPY_RANGE.fullmatch(text)
    if match is None or int(match[2]) < int(match[1]):
        raise invalid_argument(
            "x-amz-copy-source-range",
            text,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first "
            "and last are the zero-based offsets of the first and last bytes to copy",
        )
    return ByteRange(int(match[1]), int(match[2]), text)


def user_metadata(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """User metadata, names without prefix, in order. Raises MetadataTooLarge beyond 2 KiB.

    Values are kept exactly as sent: header text is latin-1, so UTF-8 bytes and RFC 2047 words of
    clients that use them come back unchanged.
    """
    found = tuple(
        (name[len(METADATA_PREFIX) :], value)
        for name, value in headers.items()
        if name.startswith(METADATA_PREFIX)
    )
    if found:
        size_bytes = sum(len(name) + len(value) for name, value in found)
        if size_bytes > MAX_METADATA_BYTES:
            raise S3Error(
                ErrorCode.METADATA_TOO_LARGE,
                details={"Size": str(size_bytes), "MaxSizeAllowed": str(MAX_METADATA_BYTES)},
            )
    return found


_CONTENT_HEADERS: Final = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OVERRIDES: Final = {
    f"response-{name}": name
    for name in (
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "expires",
    )
}


def content_headers(headers: Mapping[str, str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """(content type, other content headers) to store; "" stands for the default content type.

    `aws-chunked` describes the transfer, not the object, and is taken out of Content-Encoding.
    """
    others: list[tuple[str, str]] = []
    for name in _CONTENT_HEADERS:
        value = headers.get(name)
        if not value:
            continue
        if name == "content-encoding" and "aws-chunked" in value.lower():
            value = ",".join(
                coding
                for coding in (part.strip() for part in value.split(","))
                if coding.lower() != "aws-chunked"
            )
            if not value:
                continue
        others.append((name, value))
    content_type = headers.get("content-type", "")
    return ("" if content_type == DEFAULT_CONTENT_TYPE else content_type), tuple(others)


def is_header_name(name: str) -> bool:
    """Whether a lower-case text could be a header's name."""
    return _HEADER_NAME.fullmatch(name) is not None


def is_header_value(value: str) -> bool:
    """Whether a text could be a header's value: it has no controls but tabs."""
    return _CONTROLS.search(value) is None


def response_overrides(query: Mapping[str, str]) -> dict[str, str]:
    """Response headers (lower case) that `response-*` arguments replace. Text outside latin-1 is
    carried as UTF-8; line breaks and other controls raise InvalidArgument."""
    overrides: dict[str, str] = {}
    for name, value in query.items():
        header = _OVERRIDES.get(name)
        if header is None:
            continue
        if any(character < " " or character == "\x7f" for character in value):
            raise invalid_argument(name, value, "Header value cannot contain control characters.")
        overrides[header] = value
    return overrides


def quote_etag(etag: str) -> str:
    """An entity tag as it is sent."""
    return f'"{etag}"'
