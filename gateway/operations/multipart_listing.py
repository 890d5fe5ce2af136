"""ListParts and ListMultipartUploads."""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from gateway.context import Context
from gateway.domain.multipart_listing import (
    UPLOADS_MAX,
    AfterUpload,
    Listing,
    PastPrefix,
    Question,
    after_markers,
    list_uploads,
)
from gateway.metadata import uploads
from gateway.metadata.records import UploadRecord
from gateway.metadata.uploads import Parts
from gateway.operation import AnyOperation, Match, Operation, Resource, principal_of
from gateway.operations.access_lists import Person, people, person_element
from gateway.operations.buckets import xml_response
from gateway.operations.upload_parts import (
    UploadNamed,
    find_unfinished,
    no_such_upload,
    shown_checksum,
    upload_named,
)
from gateway.s3.checksums import encode_base64
from gateway.s3.errors import invalid_argument
from gateway.s3.headers import format_modified, quote_etag
from gateway.s3.message import Principal, S3Request, S3Response
from gateway.s3.xml import element, escape

PARTS_MAX = 1000
_NUMBER_MAX = 2**31 - 1


def _number(request: S3Request, name: str, default: int) -> int:
    """A count or part number among the query's arguments."""
    text = request.query.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _NUMBER_MAX):
        raise invalid_argument(
            name, text, f"Argument {name} must be an integer between 0 and {_NUMBER_MAX}"
        )
    return int(text)


def _encodes_urls(request: S3Request) -> bool:
    encoding = request.query.get("encoding-type")
    if encoding is not None and encoding != "url":
        raise invalid_argument(
            "encoding-type", encoding, "Invalid Encoding Method specified in Request"
        )
    return encoding is not None


def _checksum_elements(upload: UploadRecord) -> str:
    if not upload.checksum_algorithm:
        return ""
    return element("ChecksumAlgorithm", upload.checksum_algorithm) + element(
        "ChecksumType", upload.checksum_type
    )


# ListParts


@dataclass(frozen=True, slots=True)
class ListParts:
    """Input. `marker` is the part number to list after."""

    named: UploadNamed
    marker: int
    parts_max: int
    url_encoded: bool


@dataclass(frozen=True, slots=True)
class ListedParts:
    """The answer beside its question."""

    asked: ListParts
    upload: UploadRecord
    parts: Parts
    persons: dict[str, Person]


def _decode_parts(request: S3Request) -> ListParts:
    return ListParts(
        upload_named(request),
        _number(request, "part-number-marker", 0),
        min(_number(request, "max-parts", PARTS_MAX), PARTS_MAX),
        _encodes_urls(request),
    )


async def _list_parts(context: Context, asked: ListParts) -> ListedParts:
    bucket, upload = await find_unfinished(context, asked.named)
    parts = await uploads.page_of_parts(
        context.metadata, bucket, upload, after=asked.marker, limit=asked.parts_max
    )
    if parts is None:  # completed or aborted meanwhile, and its parts with it
        raise no_such_upload(asked.named)
    record = upload.record
    persons = await people(context, (record.owner, record.initiator), asked.named.principal)
    return ListedParts(asked, record, parts, persons)


def _encode_parts(listed: ListedParts) -> S3Response:
    asked, upload, parts = listed.asked, listed.upload, listed.parts
    named = asked.named
    key = quote(named.key, safe="/*") if asked.url_encoded else escape(named.key)
    last = parts.entries[-1].number if parts.entries else 0
    lines = [
        element("Bucket", named.bucket),
        f"<Key>{key}</Key>",
        element("UploadId", named.upload_id),
        person_element("Initiator", listed.persons[upload.initiator]),
        person_element("Owner", listed.persons[upload.owner]),
        element("StorageClass", upload.storage_class or "STANDARD"),
        element("PartNumberMarker", str(asked.marker)),
        element("NextPartNumberMarker", str(last)),
        element("MaxParts", str(asked.parts_max)),
        "<EncodingType>url</EncodingType>" if asked.url_encoded else "",
        element("IsTruncated", "true" if parts.more else "false"),
        _checksum_elements(upload),
    ]
    for number, part in parts.entries:
        algorithm, value = shown_checksum(upload, part)
        lines.append(
            f"<Part><PartNumber>{number}</PartNumber>"
            f"<LastModified>{format_modified(part.modified_ms)}</LastModified>"
            f"{element('ETag', quote_etag(part.etag.hex()))}"
            f"<Size>{part.size_bytes}</Size>"
            f"{element(algorithm.element, encode_base64(value))}</Part>"
        )
    return xml_response("ListPartsResult", lines)


# ListMultipartUploads


@dataclass(frozen=True, slots=True)
class ListUploads:
    """Input. The markers are as the client gave them."""

    bucket: str
    principal: Principal
    prefix: str
    delimiter: str
    key_marker: str
    upload_id_marker: str
    question: Question
    url_encoded: bool


@dataclass(frozen=True, slots=True)
class ListedUploads:
    """The answer beside its question."""

    asked: ListUploads
    listing: Listing[UploadRecord]
    persons: dict[str, Person]


def _decode_uploads(request: S3Request) -> ListUploads:
    assert request.bucket is not None
    query = request.query
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    key_marker, id_marker = query.get("key-marker", ""), query.get("upload-id-marker", "")
    upload_id = uploads.parse_upload_id(id_marker)
    if key_marker and id_marker and upload_id is None:
        raise invalid_argument("upload-id-marker", id_marker, "Invalid uploadId marker")
    after = after_markers(
        key_marker.encode(), upload_id or b"", prefix.encode(), delimiter.encode()
    )
    uploads_max = min(_number(request, "max-uploads", UPLOADS_MAX), UPLOADS_MAX)
    return ListUploads(
        bucket=request.bucket,
        principal=principal_of(request),
        prefix=prefix,
        delimiter=delimiter,
        key_marker=key_marker,
        upload_id_marker=id_marker,
        question=Question(prefix.encode(), delimiter.encode(), after, uploads_max),
        url_encoded=_encodes_urls(request),
    )


async def _list_uploads(context: Context, asked: ListUploads) -> ListedUploads:
    bucket = await context.metadata.bucket(asked.bucket, asked.principal)
    source = uploads.BucketUploads(context.metadata, bucket)
    listing = await list_uploads(source, asked.question)
    records = [item.value for item in listing.items if item.value is not None]
    ids = {record.owner for record in records} | {record.initiator for record in records}
    return ListedUploads(asked, listing, await people(context, ids, asked.principal))


def _escape_url(text: str) -> str:
    return quote(text, safe="/*")


def _encode_uploads(listed: ListedUploads) -> S3Response:
    asked, listing = listed.asked, listed.listing
    text: Callable[[str], str] = _escape_url if asked.url_encoded else escape
    next_key, next_id = "", ""
    match listing.next:
        case AfterUpload(key, upload_id):
            next_key, next_id = key.decode(), upload_id.hex()
        case PastPrefix(prefix):
            next_key = prefix.decode()
        case None if listing.items:
            # S3 names the last upload also where nothing comes after it.
            next_key, next_id = listing.items[-1].key.decode(), listing.items[-1].upload_id.hex()
        case None:
            pass
    lines = [
        element("Bucket", asked.bucket),
        f"<KeyMarker>{text(asked.key_marker)}</KeyMarker>",
        element("UploadIdMarker", asked.upload_id_marker),
        f"<NextKeyMarker>{text(next_key)}</NextKeyMarker>",
        element("NextUploadIdMarker", next_id),
    ]
    if asked.prefix:
        lines.append(f"<Prefix>{text(asked.prefix)}</Prefix>")
    if asked.delimiter:
        lines.append(f"<Delimiter>{text(asked.delimiter)}</Delimiter>")
    lines.append(element("MaxUploads", str(asked.question.uploads_max)))
    if asked.url_encoded:
        lines.append("<EncodingType>url</EncodingType>")
    lines.append(element("IsTruncated", "false" if listing.next is None else "true"))
    for item in listing.items:
        record = item.value
        assert record is not None
        persons = person_element("Initiator", listed.persons[record.initiator])
        persons += person_element("Owner", listed.persons[record.owner])
        lines.append(
            f"<Upload><Key>{text(item.key.decode())}</Key>"
            f"<UploadId>{item.upload_id.hex()}</UploadId>{persons}"
            f"{element('StorageClass', record.storage_class or 'STANDARD')}"
            f"<Initiated>{format_modified(record.created_ms)}</Initiated>"
            f"{_checksum_elements(record)}</Upload>"
        )
    lines.extend(
        f"<CommonPrefixes><Prefix>{text(prefix.decode())}</Prefix></CommonPrefixes>"
        for prefix in listing.prefixes
    )
    return xml_response("ListMultipartUploadsResult", lines)


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="ListParts",
        match=Match("GET", Resource.OBJECT, query=("uploadId",)),
        permission="s3:ListMultipartUploadParts",
        decode=_decode_parts,
        handle=_list_parts,
        encode=_encode_parts,
    ),
    Operation(
        name="ListMultipartUploads",
        match=Match("GET", Resource.BUCKET, query=("uploads",)),
        permission="s3:ListBucketMultipartUploads",
        decode=_decode_uploads,
        handle=_list_uploads,
        encode=_encode_uploads,
    ),
)
