"""ListObjects, ListObjectsV2: S3's words for the rules in `domain.listing`. What ListObjectVersions
shares with them is public here."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import gmtime, strftime
from typing import Protocol
from urllib.parse import quote

from gateway.authorization import ANONYMOUS_ACCOUNT_ID
from gateway.context import Context
from gateway.domain.listing import (
    KEYS_MAX,
    From,
    Listing,
    Position,
    Question,
    after_marker,
    after_start,
    list_keys,
)
from gateway.metadata.records import ListedChecksum, ListedObject, decode_listed
from gateway.operation import AnyOperation, Match, Operation, Resource, principal_of
from gateway.operations.access_lists import owner_elements
from gateway.operations.buckets import xml_response
from gateway.s3.errors import invalid_argument
from gateway.s3.message import Principal, S3Request, S3Response
from gateway.s3.xml import element, escape

_KEYS_MAX_ARGUMENT = 2**31 - 1
_TOKEN_VERSION = 1
_URL_SAFE = "/*"
_OPTIONAL_ATTRIBUTES = "x-amz-optional-object-attributes"
_TOKEN_LENGTH_MAX = 2048
_TOKEN_ORIGINS = {From.AFTER: 0, From.PAST: 1}
_ORIGINS = {number: origin for origin, number in _TOKEN_ORIGINS.items()}


@dataclass(frozen=True, slots=True)
class ListInput:
    """What both operations ask. `keys_max` is as the answer repeats it."""

    bucket: str
    principal: Principal
    prefix: str
    delimiter: str
    marker: str
    """marker or start-after, as given."""
    question: Question
    url_encoded: bool
    token: str | None = None
    fetch_owner: bool = False


@dataclass(frozen=True, slots=True)
class ListOutput:
    """The answer beside its question. `owners` is empty where none are to be shown."""

    asked: ListInput
    listing: Listing
    records: Sequence[ListedObject]
    owners: dict[str, str]


# Decoding


class Asked(Protocol):
    """What is written the same way in every listing."""

    @property
    def url_encoded(self) -> bool:
        """Whether keys are to be escaped as in URLs."""
        ...


def check_arguments(request: S3Request) -> bool:
    """Whether keys are asked for URL-encoded. Raises InvalidArgument for what no listing takes."""
    encoding = request.query.get("encoding-type")
    if encoding is not None and encoding != "url":
        raise invalid_argument(
            "encoding-type", encoding, "Invalid Encoding Method specified in Request"
        )
    for attribute in request.headers.get(_OPTIONAL_ATTRIBUTES, "RestoreStatus").split(","):
        # Nothing is ever archived here, so no key has a restore status to tell.
        if attribute.strip() != "RestoreStatus":
            raise invalid_argument(
                _OPTIONAL_ATTRIBUTES, attribute, "Invalid optional object attribute specified"
            )
    return encoding is not None


def _decode(request: S3Request, marker_name: str, *, token: str | None = None) -> ListInput:
    assert request.bucket is not None
    query = request.query
    url_encoded = check_arguments(request)
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    marker = query.get(marker_name, "")
    plain_prefix, plain_delimiter = prefix.encode(), delimiter.encode()
    if token:  # an empty one is repeated in the answer and means nothing
        after: Position | None = _read_token(token)
    else:
        position_of = after_marker if marker_name == "marker" else after_start
        after = position_of(marker.encode(), plain_prefix, plain_delimiter)
    return ListInput(
        bucket=request.bucket,
        principal=principal_of(request),
        prefix=prefix,
        delimiter=delimiter,
        marker=marker,
        question=Question(plain_prefix, plain_delimiter, after, keys_max(query.get("max-keys"))),
        url_encoded=url_encoded,
        token=token,
        # The older operation always tells the owner.
        fetch_owner=marker_name == "marker" or query.get("fetch-owner", "").lower() == "true",
    )


def keys_max(text: str | None) -> int:
    """Beyond 1,000 S3 gives 1,000."""
    if not text:
        return KEYS_MAX
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise invalid_argument(
            "max-keys", text, "Provided max-keys not an integer or within integer range"
        )
    number = int(text)
    if not 0 <= number <= _KEYS_MAX_ARGUMENT:
        raise invalid_argument(
            "max-keys", text, "Argument maxKeys must be an integer between 0 and 2147483647"
        )
    return min(number, KEYS_MAX)


def _decode_v1(request: S3Request) -> ListInput:
    kind = request.query.get("list-type", "")
    if kind not in ("", "1"):
        raise invalid_argument("list-type", kind, "Invalid List Type specified in Request")
    return _decode(request, "marker")


def _decode_v2(request: S3Request) -> ListInput:
    token = request.query.get("continuation-token")
    return _decode(request, "start-after", token=token)


def make_token(position: Position) -> str:
    """A continuation token: where to go on, so that it outlives restarts and deletes."""
    raw = bytes((_TOKEN_VERSION, _TOKEN_ORIGINS[position.origin])) + position.key
    return urlsafe_b64encode(raw).decode()


def _read_token(token: str) -> Position:
    try:
        if 0 < len(token) <= _TOKEN_LENGTH_MAX and token.isascii():
            raw = urlsafe_b64decode(token)
            if len(raw) > 2 and raw[0] == _TOKEN_VERSION and raw[1] in _ORIGINS:
                raw[2:].decode()
                return Position(_ORIGINS[raw[1]], raw[2:])
    except (binascii.Error, ValueError):
        pass
    raise invalid_argument(
        "continuation-token", token, "The continuation token provided is incorrect"
    )


# Handling


async def _list(context: Context, asked: ListInput) -> ListOutput:
    entry = await context.metadata.bucket(asked.bucket, asked.principal)
    listing = await list_keys(context.metadata.pages(entry), asked.question)
    records = decode_listed(listing.values)
    owners: dict[str, str] = {}
    # S3 tells nobody in particular whose the objects are.
    if asked.fetch_owner and asked.principal.account_id != ANONYMOUS_ACCOUNT_ID:
        owners = await owner_elements(context, entry, records, asked.principal)
    return ListOutput(asked, listing, records, owners)


# Encoding


def _escape_url(text: str) -> str:
    """encoding-type=url: as S3 does, but a space is %20, which every decoder reads."""
    return quote(text, safe=_URL_SAFE)


def texts(asked: Asked) -> Callable[[str], str]:
    """How a key is written."""
    return _escape_url if asked.url_encoded else escape


def names_of(keys: list[bytes], asked: Asked) -> list[str]:
    """Keys as they are written. All at once, which is much cheaper than one by one."""
    together = b"\n".join(keys).decode()
    written = quote(together, safe=_URL_SAFE + "\n") if asked.url_encoded else escape(together)
    names = written.split("\n")
    if len(names) == len(keys):
        return names
    text = texts(asked)  # some key has a line break
    return [text(key.decode()) for key in keys]


def _checksum_summary(checksum: ListedChecksum | None) -> str:
    if checksum is None:
        return ""
    return (
        f"<ChecksumAlgorithm>{checksum.algorithm}</ChecksumAlgorithm>"
        f"<ChecksumType>{checksum.type}</ChecksumType>"
    )


def _contents(output: ListOutput) -> list[str]:
    """One element a key: the hot loop of listings."""
    names = names_of(output.listing.keys, output.asked)
    owners = output.owners
    owner, summary, second, stamp = "", "", -1, ""
    described: ListedChecksum | None = None
    lines: list[str] = []
    for key, record in zip(names, output.records, strict=True):
        if owners:
            owner = owners[record.owner]
        moment = record.modified_ms // 1000  # whole seconds: see `format_modified`
        if moment != second:
            second, stamp = moment, strftime("%Y-%m-%dT%H:%M:%S.000Z", gmtime(moment))
        etag = record.etag.hex()
        if record.etag_parts:
            etag = f"{etag}-{record.etag_parts}"
        if record.checksum != described:
            described = record.checksum
            summary = _checksum_summary(described)
        lines.append(
            f"<Contents><Key>{key}</Key>"
            f"<LastModified>{stamp}</LastModified>"
            f"<ETag>&quot;{etag}&quot;</ETag>{summary}"
            f"<Size>{record.size_bytes}</Size>{owner}"
            f"<StorageClass>{record.storage_class or 'STANDARD'}</StorageClass></Contents>"
        )
    return lines


def prefix_elements(prefixes: Sequence[bytes], asked: Asked) -> list[str]:
    """The common prefixes."""
    text = texts(asked)
    return [
        f"<CommonPrefixes><Prefix>{text(prefix.decode())}</Prefix></CommonPrefixes>"
        for prefix in prefixes
    ]


def asked_element(name: str, text: str, asked: Asked) -> str:
    """A text of the question, repeated in the answer, or a key."""
    return f"<{name}>{texts(asked)(text)}</{name}>"


def _tail(output: ListOutput) -> list[str]:
    """What closes the head of every answer."""
    asked = output.asked
    tail = [element("MaxKeys", str(asked.question.keys_max))]
    if asked.delimiter:
        tail.append(asked_element("Delimiter", asked.delimiter, asked))
    if asked.url_encoded:
        tail.append("<EncodingType>url</EncodingType>")
    truncated = "true" if output.listing.next is not None else "false"
    tail.append(f"<IsTruncated>{truncated}</IsTruncated>")
    return tail


def _encode_v1(output: ListOutput) -> S3Response:
    asked, position = output.asked, output.listing.next
    head = [
        element("Name", asked.bucket),
        asked_element("Prefix", asked.prefix, asked),
        asked_element("Marker", asked.marker, asked),
    ]
    if position is not None and asked.delimiter:
        head.append(asked_element("NextMarker", position.key.decode(), asked))
    contents = _contents(output)
    return xml_response(
        "ListBucketResult",
        [*head, *_tail(output), *contents, *prefix_elements(output.listing.prefixes, asked)],
    )


def _encode_v2(output: ListOutput) -> S3Response:
    asked, listing = output.asked, output.listing
    head = [element("Name", asked.bucket), asked_element("Prefix", asked.prefix, asked)]
    if asked.token is not None:
        head.append(element("ContinuationToken", asked.token))
    if listing.next is not None:
        head.append(element("NextContinuationToken", make_token(listing.next)))
    if asked.marker:
        head.append(asked_element("StartAfter", asked.marker, asked))
    head.append(element("KeyCount", str(len(listing.keys) + len(listing.prefixes))))
    contents = _contents(output)
    return xml_response(
        "ListBucketResult",
        [*head, *_tail(output), *contents, *prefix_elements(output.listing.prefixes, asked)],
    )


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="ListObjects",
        match=Match("GET", Resource.BUCKET),
        permission="s3:ListBucket",
        decode=_decode_v1,
        handle=_list,
        encode=_encode_v1,
    ),
    Operation(
        name="ListObjectsV2",
        match=Match("GET", Resource.BUCKET, ("list-type=2",)),
        permission="s3:ListBucket",
        decode=_decode_v2,
        handle=_list,
        encode=_encode_v2,
    ),
)
