"""UploadPartCopy: a part whose bytes are a range of an object. They are read and stored again."""

from dataclasses import dataclass
from typing import NamedTuple

from gateway.context import Context
from gateway.domain.multipart import PART_SIZE_BYTES_MAX
from gateway.metadata.entries import ObjectEntry
from gateway.objects.errors import BlobDamaged
from gateway.operation import AnyOperation, Match, Operation, Resource
from gateway.operations.buckets import xml_response
from gateway.operations.copy import (
    COPY_SOURCE,
    SOURCE_VERSION,
    CopySource,
    copy_source,
    find_source,
)
from gateway.operations.object_encryption import (
    EncryptionAsked,
    encryption_asked,
    encryption_headers,
    source_key,
)
from gateway.operations.object_versions import made_version
from gateway.operations.source_body import StreamBody, open_range
from gateway.operations.upload_parts import (
    NewPart,
    UploadNamed,
    algorithm_of,
    find_open,
    key_for_part,
    part_number,
    shown_checksum,
    store_part,
    upload_named,
)
from gateway.s3.checksums import Digests, encode_base64
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.headers import ByteRange, format_modified, parse_copy_range, quote_etag
from gateway.s3.message import S3Request, S3Response
from gateway.s3.xml import element

_COPY_RANGE = "x-amz-copy-source-range"
_TRIES = 3


@dataclass(frozen=True, slots=True)
class CopyPart:
    """Input of UploadPartCopy; no `range` means the whole source."""

    named: UploadNamed
    number: int
    source: CopySource
    range: ByteRange | None
    encryption: EncryptionAsked | None


def _decode(request: S3Request) -> CopyPart:
    if request.body.size_bytes:
        raise S3Error(ErrorCode.INVALID_REQUEST, "A copy request carries no body.")
    text = request.headers.get(_COPY_RANGE)
    return CopyPart(
        upload_named(request),
        part_number(request),
        copy_source(request.headers),
        None if text is None else parse_copy_range(text),
        encryption_asked(request),
    )


def _window(asked: CopyPart, source: ObjectEntry) -> tuple[int, int]:
    """(offset, length) of the source; a range must lie within it, as a copy's must."""
    size_bytes = source.record.size_bytes
    offset, length = 0, size_bytes
    if asked.range is not None:
        assert asked.range.last is not None
        offset, length = asked.range.resolve(size_bytes)
        if asked.range.last >= size_bytes:
            raise S3Error(
                ErrorCode.INVALID_RANGE,
                f"Range specified is not valid for source object of size: {size_bytes}",
                details={
                    "RangeRequested": asked.range.text,
                    "ActualObjectSize": str(size_bytes),
                },
            )
    if length > PART_SIZE_BYTES_MAX:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            "The specified copy source is larger than the maximum allowable size for a copy "
            f"source: {PART_SIZE_BYTES_MAX}",
        )
    return offset, length


class CopiedPart(NamedTuple):
    """The part, and the version id of its source to answer with."""

    part: NewPart
    source_version: str


async def _copy(context: Context, asked: CopyPart) -> CopiedPart:
    found = await find_open(context, asked.named)
    data_key = await key_for_part(context, found[1].record, asked.encryption)
    for _ in range(_TRIES):
        _, source = await find_source(context, asked.source, asked.named.principal)
        offset, length = _window(asked, source)
        opening = await source_key(context, source.record.encryption, asked.encryption)
        digests = Digests(algorithm_of(found[1].record))
        try:
            body = StreamBody(await open_range(context, source.record, offset, length, opening))
            part = await store_part(
                context,
                asked.named,
                found,
                asked.number,
                body,
                digests,
                _nothing_announced,
                data_key,
            )
            return CopiedPart(part, made_version(source.record))
        except BlobDamaged:
            # Unless it was replaced meanwhile, the data cannot be read at present.
            _, again = await find_source(context, asked.source, asked.named.principal)
            if again.mod_revision == source.mod_revision:
                raise
    raise S3Error(ErrorCode.OPERATION_ABORTED)


def _nothing_announced() -> None:
    """A copy's bytes were verified as they were read."""


def _encode(copied: CopiedPart) -> S3Response:
    part = copied.part
    algorithm, value = shown_checksum(part.upload, part.record)
    response = xml_response(
        "CopyPartResult",
        [
            element("LastModified", format_modified(part.record.modified_ms)),
            element("ETag", quote_etag(part.record.etag.hex())),
            element(algorithm.element, encode_base64(value)),
        ],
    )
    if part.record.encryption:
        response.headers.extend(encryption_headers(part.record.encryption))
    if copied.source_version:
        response.headers.append((SOURCE_VERSION, copied.source_version))
    return response


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="UploadPartCopy",
        match=Match(
            "PUT", Resource.OBJECT, query=("partNumber", "uploadId"), headers=(COPY_SOURCE,)
        ),
        permission="s3:PutObject",
        decode=_decode,
        handle=_copy,
        encode=_encode,
    ),
)
