"""Versioning of buckets: its state, and ListObjectVersions."""

from dataclasses import dataclass

import msgspec

from gateway.context import Context
from gateway.domain.listing import From
from gateway.domain.version_listing import (
    Item,
    VersionListing,
    VersionPosition,
    VersionQuestion,
    after_key_marker,
    list_versions,
)
from gateway.domain.versions import ENABLED, order_of, version_text
from gateway.metadata.entries import BucketEntry
from gateway.metadata.records import BucketRecord, ListedVersion
from gateway.operation import AnyOperation, Match, Operation, Resource, principal_of
from gateway.operations.access_lists import owner_elements
from gateway.operations.buckets import BucketNamed, bucket_named, xml_response
from gateway.operations.listing import (
    asked_element,
    check_arguments,
    keys_max,
    names_of,
    prefix_elements,
)
from gateway.operations.object_headers import named_version
from gateway.s3.documents import SETTINGS_DOCUMENT_LIMIT_BYTES, parse_versioning
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.headers import format_modified
from gateway.s3.message import Principal, S3Request, S3Response
from gateway.s3.xml import element

# The bucket's state


@dataclass(frozen=True, slots=True)
class SetVersioning:
    """Input of PutBucketVersioning: "Enabled" or "Suspended"."""

    named: BucketNamed
    state: str


def _decode_set(request: S3Request) -> SetVersioning:
    settings = parse_versioning(request.document)
    state = settings.get("Status")
    if state is None:
        raise S3Error(ErrorCode.ILLEGAL_VERSIONING, "The Versioning element must be specified")
    if settings.get("MfaDelete") == "Enabled":
        raise S3Error(ErrorCode.NOT_IMPLEMENTED, details={"Element": "MfaDelete"})
    return SetVersioning(bucket_named(request), state)


async def _set(context: Context, asked: SetVersioning) -> None:
    def change(record: BucketRecord) -> BucketRecord:
        if record.object_lock and asked.state != ENABLED:
            raise S3Error(
                ErrorCode.INVALID_BUCKET_STATE,
                "An Object Lock configuration is present on this bucket, so the versioning state "
                "cannot be changed.",
            )
        return msgspec.structs.replace(record, versioning=asked.state)

    await context.metadata.change_bucket(asked.named.bucket, asked.named.principal, change)


async def _find(context: Context, asked: BucketNamed) -> BucketEntry:
    return await context.metadata.bucket(asked.bucket, asked.principal)


def _encode_state(entry: BucketEntry) -> S3Response:
    state = entry.record.versioning
    return xml_response("VersioningConfiguration", [element("Status", state)] if state else [])


# ListObjectVersions


@dataclass(frozen=True, slots=True)
class ListVersions:
    """What a client asks. `marker_version` is None when no version is named beside the key."""

    bucket: str
    principal: Principal
    prefix: str
    delimiter: str
    key_marker: str
    version_marker: str
    marker_version: bytes | None
    keys_max: int
    url_encoded: bool


@dataclass(frozen=True, slots=True)
class Versions:
    """The answer beside its question."""

    asked: ListVersions
    listing: VersionListing[ListedVersion]
    owners: dict[str, str]


def _decode_list(request: S3Request) -> ListVersions:
    assert request.bucket is not None
    query = request.query
    key_marker, version_marker = query.get("key-marker", ""), query.get("version-id-marker", "")
    if version_marker and not key_marker:
        raise invalid_argument(
            "version-id-marker",
            version_marker,
            "A version-id marker cannot be specified without a key marker.",
        )
    return ListVersions(
        bucket=request.bucket,
        principal=principal_of(request),
        prefix=query.get("prefix", ""),
        delimiter=query.get("delimiter", ""),
        key_marker=key_marker,
        version_marker=version_marker,
        marker_version=named_version(version_marker or None),
        keys_max=keys_max(query.get("max-keys")),
        url_encoded=check_arguments(request),
    )


async def _list(context: Context, asked: ListVersions) -> Versions:
    entry = await context.metadata.bucket(asked.bucket, asked.principal)
    question = VersionQuestion(
        asked.prefix.encode(),
        asked.delimiter.encode(),
        await _start(context, entry, asked),
        asked.keys_max,
    )
    pages = context.metadata.versions.pages(entry)
    listing = await list_versions(pages, question)
    records = [item.value for item in listing.items]
    return Versions(asked, listing, await owner_elements(context, entry, records, asked.principal))


async def _start(
    context: Context, entry: BucketEntry, asked: ListVersions
) -> VersionPosition | None:
    key, version = asked.key_marker.encode(), asked.marker_version
    behind = after_key_marker(key, asked.prefix.encode(), asked.delimiter.encode())
    if version is None or (behind is not None and behind.origin is From.PAST):
        return behind
    if version:
        return VersionPosition(From.AT, key, order_of(version))
    found = await context.metadata.versions.find(entry, asked.key_marker, version)
    # A null version that was deleted since it was listed tells no order: better to list some
    # versions of its key again than to leave some out.
    return VersionPosition(From.AT, key, None if found is None else found.record.order)


def _encode_list(output: Versions) -> S3Response:
    asked, listing = output.asked, output.listing
    head = [
        element("Name", asked.bucket),
        asked_element("Prefix", asked.prefix, asked),
        asked_element("KeyMarker", asked.key_marker, asked),
        element("VersionIdMarker", asked.version_marker),
        *_next(output),
        element("MaxKeys", str(asked.keys_max)),
    ]
    if asked.delimiter:
        head.append(asked_element("Delimiter", asked.delimiter, asked))
    if asked.url_encoded:
        head.append("<EncodingType>url</EncodingType>")
    head.append(element("IsTruncated", "true" if listing.last is not None else "false"))
    names = names_of([item.key for item in listing.items], asked)
    versions = [
        _element(name, item, output.owners[item.value.owner])
        for name, item in zip(names, listing.items, strict=True)
    ]
    prefixes = prefix_elements(listing.prefixes, asked)
    return xml_response("ListVersionsResult", [*head, *versions, *prefixes])


def _next(output: Versions) -> list[str]:
    """Where to go on: behind the last version, or behind a common prefix."""
    match output.listing.last:
        case None:
            return []
        case Item() as item:
            return [
                asked_element("NextKeyMarker", item.key.decode(), output.asked),
                element("NextVersionIdMarker", version_text(item.value.version_id)),
            ]
        case prefix:
            return [asked_element("NextKeyMarker", prefix.decode(), output.asked)]


def _element(name: str, item: Item[ListedVersion], owner: str) -> str:
    record = item.value
    head = (
        f"<Key>{name}</Key><VersionId>{version_text(record.version_id)}</VersionId>"
        f"<IsLatest>{'true' if item.latest else 'false'}</IsLatest>"
        f"<LastModified>{format_modified(record.modified_ms)}</LastModified>"
    )
    if record.delete_marker:
        return f"<DeleteMarker>{head}{owner}</DeleteMarker>"
    etag = record.etag.hex()
    if record.etag_parts:
        etag = f"{etag}-{record.etag_parts}"
    checksum = ""
    if record.checksum is not None:
        checksum = (
            f"<ChecksumAlgorithm>{record.checksum.algorithm}</ChecksumAlgorithm>"
            f"<ChecksumType>{record.checksum.type}</ChecksumType>"
        )
    return (
        f"<Version>{head}<ETag>&quot;{etag}&quot;</ETag>{checksum}"
        f"<Size>{record.size_bytes}</Size>{owner}"
        f"<StorageClass>{record.storage_class or 'STANDARD'}</StorageClass></Version>"
    )


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="PutBucketVersioning",
        match=Match("PUT", Resource.BUCKET, ("versioning",)),
        permission="s3:PutBucketVersioning",
        decode=_decode_set,
        handle=_set,
        encode=lambda _: S3Response(200),
        document_limit_bytes=SETTINGS_DOCUMENT_LIMIT_BYTES,
    ),
    Operation(
        name="GetBucketVersioning",
        match=Match("GET", Resource.BUCKET, ("versioning",)),
        permission="s3:GetBucketVersioning",
        decode=bucket_named,
        handle=_find,
        encode=_encode_state,
    ),
    Operation(
        name="ListObjectVersions",
        match=Match("GET", Resource.BUCKET, ("versions",)),
        permission="s3:ListBucketVersions",
        decode=_decode_list,
        handle=_list,
        encode=_encode_list,
    ),
)
