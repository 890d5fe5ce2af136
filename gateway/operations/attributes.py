"""GetObjectAttributes."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.context import Context
from gateway.metadata.entries import etag_text
from gateway.metadata.records import ObjectRecord, PartRef
from gateway.objects.manifest import parts_of
from gateway.operation import AnyOperation, Match, Operation, Resource, principal_of
from gateway.operations.object_encryption import (
    EncryptionAsked,
    demand_key_to_read,
    encryption_asked,
)
from gateway.operations.object_headers import checksum_elements, http_date, version_argument
from gateway.operations.object_versions import find_version, shown_version, version_headers
from gateway.s3.checksums import ChecksumAlgorithm, encode_base64
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.message import Principal, S3Request, S3Response
from gateway.s3.xml import document, element

PARTS_DEFAULT = 1000
_ATTRIBUTES = frozenset({"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"})


@dataclass(frozen=True, slots=True)
class Ask:
    """Input of GetObjectAttributes: parts after `marker`, at most `parts_max`."""

    bucket: str
    key: str
    principal: Principal
    attributes: frozenset[str]
    marker: int
    parts_max: int
    version: bytes | None
    encryption: EncryptionAsked | None


@dataclass(frozen=True, slots=True)
class Attributes:
    """What was asked, of what is there."""

    asked: Ask
    record: ObjectRecord
    parts: Sequence[PartRef]
    version: str


def _decode(request: S3Request) -> Ask:
    assert request.bucket is not None
    assert request.key is not None
    header = "x-amz-object-attributes"
    text = request.headers.get(header, "")
    attributes = frozenset(name.strip() for name in text.split(",") if name.strip())
    if not attributes:
        raise S3Error(
            ErrorCode.INVALID_ARGUMENT,
            "The x-amz-object-attributes header specifying the attributes to be retrieved is "
            "either missing or empty",
            details={"ArgumentName": header, "ArgumentValue": text},
        )
    if not attributes <= _ATTRIBUTES:
        raise invalid_argument(header, text, "Invalid attribute name specified.")
    return Ask(
        request.bucket,
        request.key,
        principal_of(request),
        attributes,
        _number(request, "x-amz-part-number-marker", 0),
        min(_number(request, "x-amz-max-parts", PARTS_DEFAULT), PARTS_DEFAULT),
        version_argument(request),
        encryption_asked(request),
    )


def _number(request: S3Request, header: str, default: int) -> int:
    text = request.headers.get(header)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise invalid_argument(header, text, "Provided value is not an integer between 0 and 2^31")
    return int(text)


async def _handle(context: Context, asked: Ask) -> Attributes:
    entry, current = await find_version(
        context, asked.bucket, asked.key, asked.principal, asked.version
    )
    encryption = current.record.encryption
    if encryption or asked.encryption is not None:
        demand_key_to_read(context, encryption, asked.encryption)
    parts: Sequence[PartRef] = ()
    if "ObjectParts" in asked.attributes:
        parts = await parts_of(current.record, context.objects)
    return Attributes(asked, current.record, parts, shown_version(entry, current.record))


def _encode(found: Attributes) -> S3Response:
    record, wanted = found.record, found.asked.attributes
    children: list[str] = []
    if "ETag" in wanted:
        children.append(element("ETag", etag_text(record)))
    if "Checksum" in wanted and record.checksum is not None:
        children.append(f"<Checksum>{checksum_elements(record.checksum)}</Checksum>")
    if found.parts:
        children.append(_parts(found))
    if "StorageClass" in wanted:
        children.append(element("StorageClass", record.storage_class or "STANDARD"))
    if "ObjectSize" in wanted:
        children.append(element("ObjectSize", str(record.size_bytes)))
    headers = [
        ("Last-Modified", http_date(record.modified_ms // 1000)),
        ("Content-Type", "application/xml"),
        *version_headers(found.version),
    ]
    return S3Response(200, headers, document("GetObjectAttributesResponse", children))


def _parts(found: Attributes) -> str:
    asked = found.asked
    after = [part for part in found.parts if part.number > asked.marker]
    page = after[: asked.parts_max]
    last = page[-1].number if page else 0
    checksum = found.record.checksum
    name = None if checksum is None else ChecksumAlgorithm(checksum.algorithm).element
    rows = []
    for part in page:
        digest = ""
        if name is not None and part.checksum:
            digest = element(name, encode_base64(part.checksum))
        rows.append(
            f"<Part>{digest}<PartNumber>{part.number}</PartNumber>"
            f"<Size>{part.size_bytes}</Size></Part>"
        )
    truncated = "true" if len(after) > len(page) else "false"
    return (
        f"<ObjectParts><IsTruncated>{truncated}</IsTruncated>"
        f"<MaxParts>{asked.parts_max}</MaxParts>"
        f"<NextPartNumberMarker>{last}</NextPartNumberMarker>{''.join(rows)}"
        f"<PartNumberMarker>{asked.marker}</PartNumberMarker>"
        f"<PartsCount>{len(found.parts)}</PartsCount></ObjectParts>"
    )


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="GetObjectAttributes",
        match=Match("GET", Resource.OBJECT, query=("attributes",)),
        permission="s3:GetObjectAttributes",
        decode=_decode,
        handle=_handle,
        encode=_encode,
    ),
)
