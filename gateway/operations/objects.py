"""GetObject and HeadObject: conditions, ranges, parts, overrides. With PutObject, the family's rows."""

import re

import msgspec

from gateway.context import Context
from gateway.domain.conditions import ReadConditions, Verdict, judge_read
from gateway.domain.ranges import pieces_of
from gateway.metadata.entries import BucketEntry, ObjectEntry, etag_text
from gateway.metadata.errors import NoSuchKey, PreconditionFailed
from gateway.metadata.records import BlobRef, Checksum, ObjectRecord, PartRef
from gateway.objects.errors import BlobDamaged, BlobOutOfReach
from gateway.objects.manifest import parts_of
from gateway.operation import AnyOperation, Match, Operation, Resource, principal_of
from gateway.operations.expiration import expiration_headers, expiration_of
from gateway.operations.lock_headers import lock_headers
from gateway.operations.object_encryption import (
    EncryptionAsked,
    demand_key_to_read,
    encryption_asked,
    encryption_headers,
    key_to_read,
    read_opened,
)
from gateway.operations.object_headers import (
    Headers,
    checksum_headers,
    describing_headers,
    read_conditions,
    validator_headers,
    version_argument,
)
from gateway.operations.object_versions import (
    VERSION_ID,
    find_version,
    missing,
    shown_version,
    version_headers,
)
from gateway.operations.put import PUT_OBJECT
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.headers import ByteRange, parse_range, response_overrides
from gateway.s3.message import Principal, S3Request, S3Response, Stream

PARTS_MAX = 10_000
_PART_NUMBER = re.compile(r"[0-9]{1,9}")
_READS_MAX = 3
"""Times a record is read again when its blob turned out to be replaced or unreadable."""


class Read(msgspec.Struct, frozen=True, gc=False):
    """Input of GetObject and HeadObject."""

    bucket: str
    key: str
    principal: Principal
    conditions: ReadConditions | None
    range: ByteRange | None
    part_number: int | None
    overrides: dict[str, str] | None
    with_checksum: bool
    version: bytes | None = None
    encryption: EncryptionAsked | None = None


class Window(msgspec.Struct, frozen=True, gc=False):
    """The bytes of an object that an answer carries. `partial` ones answer 206."""

    offset: int
    length: int
    partial: bool = False
    part: PartRef | None = None
    parts_count: int = 0


class Found(msgspec.Struct, frozen=True, gc=False):
    """What GET and HEAD answer. `window` None: not modified. `version` is the version id to show,
    "" where there are no versions; `expiration` what lifecycle rules have in store for it."""

    record: ObjectRecord
    asked: Read
    window: Window | None
    version: str
    body: bytes | Stream = b""
    expiration: str = ""


def _decode(request: S3Request) -> Read:
    assert request.bucket is not None
    assert request.key is not None
    query, headers = request.query, request.headers
    overrides: dict[str, str] | None = None
    part_number: int | None = None
    version: bytes | None = None
    if query:
        version = version_argument(request)
        overrides = response_overrides(query) or None
        part_number = _part_number(query.get("partNumber"))
    byte_range: ByteRange | None = None
    text = headers.get("range")
    if text is not None:
        if part_number is not None:
            raise S3Error(
                ErrorCode.INVALID_REQUEST,
                "Cannot specify both Range header and partNumber query parameter",
            )
        byte_range = parse_range(text)
    return Read(
        request.bucket,
        request.key,
        principal_of(request),
        read_conditions(headers),
        byte_range,
        part_number,
        overrides,
        headers.get("x-amz-checksum-mode", "").upper() == "ENABLED",
        version,
        encryption_asked(request),
    )


def _part_number(text: str | None) -> int | None:
    if text is None:
        return None
    if _PART_NUMBER.fullmatch(text) is None or not 1 <= int(text) <= PARTS_MAX:
        raise invalid_argument(
            "partNumber", text, "Part number must be an integer between 1 and 10000, inclusive"
        )
    return int(text)


def _head_now(context: Context, asked: Read) -> Found | None:
    found = _current_now(context, asked)
    if found is None:
        return None
    entry, current = found
    record = current.record
    if record.encryption or asked.encryption is not None:
        demand_key_to_read(context, record.encryption, asked.encryption)
    version = shown_version(entry, record)
    if _not_modified(context, asked, record):
        return Found(record, asked, None, version)
    expiration = _expiration(entry, current, asked) if entry.lifecycle else ""
    return Found(record, asked, _window_of_bytes(asked, record), version, b"", expiration)


async def _head(context: Context, asked: Read) -> Found:
    entry, current = await _current(context, asked)
    record, version = current.record, shown_version(entry, current.record)
    if record.encryption or asked.encryption is not None:
        demand_key_to_read(context, record.encryption, asked.encryption)
    if _not_modified(context, asked, record):
        return Found(record, asked, None, version)
    window = await _window(context, asked, record)
    expiration = _expiration(entry, current, asked) if entry.lifecycle else ""
    return Found(record, asked, window, version, expiration=expiration)


def _get_now(context: Context, asked: Read) -> Found | None:
    """For what is stored plain in one blob; None too where its shards have to be waited for."""
    found = None if asked.encryption is not None else _current_now(context, asked)
    if found is None:
        return None
    entry, current = found
    record = current.record
    if record.data is None or record.encryption:
        return None
    version = shown_version(entry, record)
    if _not_modified(context, asked, record):
        return Found(record, asked, None, version)
    window = _window_of_bytes(asked, record)
    body = _body_now(context, record.data, window)
    if body is None:
        return None
    expiration = _expiration(entry, current, asked) if entry.lifecycle else ""
    return Found(record, asked, window, version, body, expiration)


async def _get(context: Context, asked: Read) -> Found:
    unreadable: ObjectEntry | None = None
    for _ in range(_READS_MAX):
        entry, current = await _current(context, asked)
        record, version = current.record, shown_version(entry, current.record)
        data_key: bytes | None = None
        if record.encryption or asked.encryption is not None:
            data_key = await key_to_read(context, record.encryption, asked.encryption)
        if _not_modified(context, asked, record):
            return Found(record, asked, None, version)
        try:
            window = await _window(context, asked, record)
            body = await _body(context, record, window, data_key)
            expiration = _expiration(entry, current, asked) if entry.lifecycle else ""
            return Found(record, asked, window, version, body, expiration)
        except BlobDamaged:
            # The object may have been replaced or deleted while its shards were asked for.
            if unreadable is not None and unreadable.record.group == current.record.group:
                raise
            unreadable = current
    raise BlobOutOfReach("the object is replaced faster than it can be read")


def _current_now(context: Context, asked: Read) -> tuple[BucketEntry, ObjectEntry] | None:
    """The current version, without waiting, for who asks for no other and for no part of it. Raises
    NoSuchKey."""
    if asked.version is not None or asked.part_number is not None:
        return None
    found = context.metadata.lookup_now(asked.bucket, asked.key, asked.principal)
    if found is None:
        return None
    entry, current = found
    if current is None:
        if entry.record.versioning:
            return None
        raise NoSuchKey(asked.key.encode())
    return entry, current


async def _current(context: Context, asked: Read) -> tuple[BucketEntry, ObjectEntry]:
    if asked.version is None:
        entry, current = await context.metadata.lookup(asked.bucket, asked.key, asked.principal)
        if current is not None:
            return entry, current
        raise await missing(context, entry, asked.key)
    return await find_version(context, asked.bucket, asked.key, asked.principal, asked.version)


def _expiration(entry: BucketEntry, found: ObjectEntry, asked: Read) -> str:
    """Of the current version only, and where no version is named: nothing foretells when another
    one goes."""
    key = found.key
    if asked.version is not None or found.record_key != entry.object_key(key):
        return ""
    return expiration_of(entry, key, found.record)


def _not_modified(context: Context, asked: Read, record: ObjectRecord) -> bool:
    """Judge the conditions; raises PreconditionFailed."""
    if asked.conditions is None:
        return False
    conditions = asked.conditions.at(context.clock.now_ns() // 1_000_000)
    judgement = judge_read(conditions, etag=etag_text(record), modified_ms=record.modified_ms)
    if judgement.verdict is Verdict.FAILED:
        raise PreconditionFailed(judgement.header)
    return judgement.verdict is Verdict.NOT_MODIFIED


def _window_of_bytes(asked: Read, record: ObjectRecord) -> Window:
    """Of a request that asks for no part. Raises InvalidRange."""
    if asked.range is None:
        return Window(0, record.size_bytes)
    offset, length = asked.range.resolve(record.size_bytes)
    return Window(offset, length, partial=True)


async def _window(context: Context, asked: Read, record: ObjectRecord) -> Window:
    """Raises InvalidRange, InvalidPartNumber."""
    if asked.part_number is None:
        return _window_of_bytes(asked, record)
    size = record.size_bytes
    parts = await parts_of(record, context.objects)
    if not parts:
        if asked.part_number == 1:
            return Window(0, size, partial=size > 0)
        raise _no_such_part(asked.part_number, 1)
    offset = 0
    for part in parts:
        if part.number == asked.part_number:
            length = part.size_bytes
            return Window(offset, length, length > 0, part, len(parts))
        offset += part.size_bytes
    raise _no_such_part(asked.part_number, len(parts))


def _no_such_part(number: int, count: int) -> S3Error:
    return S3Error(
        ErrorCode.INVALID_PART_NUMBER,
        details={"ActualPartCount": str(count), "PartNumberRequested": str(number)},
    )


async def _body(
    context: Context, record: ObjectRecord, window: Window, data_key: bytes | None
) -> bytes | Stream:
    """The window's bytes: at once when they are at hand, else a stream whose start is verified."""
    if data_key is not None:
        return await read_opened(context, record, data_key, window.offset, window.length)
    if record.data is not None:
        whole = context.objects.read_now(record.data)
        if whole is None:
            whole = await context.objects.read_small(record.data)
        if whole is not None:
            return _within(whole, window)
    pieces = await pieces_within(context, record, window.offset, window.length)
    return await context.objects.read(pieces)


def _body_now(context: Context, data: BlobRef, window: Window) -> bytes | None:
    """The window's bytes if they are to be had without waiting."""
    whole = context.objects.read_now(data)
    return None if whole is None else _within(whole, window)


def _within(whole: bytes, window: Window) -> bytes:
    return whole[window.offset : window.offset + window.length] if window.partial else whole


async def pieces_within(
    context: Context, record: ObjectRecord, offset: int, length: int
) -> list[tuple[BlobRef, int, int]]:
    """Which bytes of which blobs an object's range is; of one that is stored plain."""
    assert not record.encryption
    if record.data is not None:
        return [(record.data, offset, length)]
    parts = await parts_of(record, context.objects)
    sizes = [part.data.size_bytes for part in parts]
    return [
        (parts[number].data, start, count)
        for number, start, count in pieces_of(sizes, offset, length)
    ]


def _headers(found: Found, window: Window) -> Headers:
    record, asked = found.record, found.asked
    headers = describing_headers(record, asked.overrides)
    if window.partial:
        last = window.offset + window.length - 1
        headers.append(("Content-Range", f"bytes {window.offset}-{last}/{record.size_bytes}"))
    if found.version:
        headers.append((VERSION_ID, found.version))
        headers += lock_headers(record)
    if record.encryption:
        headers += encryption_headers(record.encryption)
    if found.expiration:
        headers += expiration_headers(found.expiration)
    if record.tags:
        headers.append(("x-amz-tagging-count", str(len(record.tags))))
    if window.parts_count:
        headers.append(("x-amz-mp-parts-count", str(window.parts_count)))
    if asked.with_checksum and record.checksum is not None:
        headers += checksum_headers(_checksum_of(record.checksum, window, record.size_bytes))
    return headers


def _checksum_of(checksum: Checksum, window: Window, size_bytes: int) -> Checksum | None:
    """The checksum to tell: the part's own for a part, none for a mere range."""
    if window.part is not None:
        if not window.part.checksum:
            return None
        return Checksum(
            algorithm=checksum.algorithm, type=checksum.type, value=window.part.checksum
        )
    return checksum if window.length == size_bytes else None


def _encode_get(found: Found) -> S3Response:
    window = found.window
    if window is None:
        headers = validator_headers(found.record) + version_headers(found.version)
        return S3Response(304, headers)
    status = 206 if window.partial else 200
    return S3Response(status, _headers(found, window), found.body)


def _encode_head(found: Found) -> S3Response:
    window = found.window
    if window is None:
        headers = validator_headers(found.record) + version_headers(found.version)
        return S3Response(304, headers)
    status = 206 if window.partial else 200
    return S3Response(status, _headers(found, window), b"", content_length=window.length)


OPERATIONS: tuple[AnyOperation, ...] = (
    PUT_OBJECT,
    Operation(
        name="GetObject",
        match=Match("GET", Resource.OBJECT),
        permission="s3:GetObject",
        decode=_decode,
        handle=_get,
        handle_now=_get_now,
        encode=_encode_get,
    ),
    Operation(
        name="HeadObject",
        match=Match("HEAD", Resource.OBJECT),
        permission="s3:GetObject",
        decode=_decode,
        handle=_head,
        handle_now=_head_now,
        encode=_encode_head,
    ),
)
