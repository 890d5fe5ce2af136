"""DeleteObject and DeleteObjects."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.authorization import admission_of, may
from gateway.context import Context
from gateway.domain.conditions import DeleteConditions
from gateway.domain.versions import VersionAsked, version_asked, version_text
from gateway.metadata.commits import Deletion
from gateway.metadata.entries import BucketEntry, Deleted, ObjectEntry
from gateway.metadata.errors import MetadataError
from gateway.operation import AnyOperation, Match, Operation, Resource, principal_of
from gateway.operations.error_map import to_s3_error
from gateway.operations.lock_headers import bypasses_governance
from gateway.operations.object_headers import named_version, version_argument
from gateway.operations.object_versions import DELETE_MARKER, version_headers
from gateway.s3.documents import DELETE_DOCUMENT_LIMIT_BYTES, ObjectIdentifier, parse_delete
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.headers import parse_etags, parse_http_date, parse_iso8601
from gateway.s3.message import Principal, S3Request, S3Response
from gateway.s3.payload import Payload
from gateway.s3.xml import document, escape
from placement.errors import PlacementError

KEY_SIZE_BYTES_MAX = 1024
_PERMISSION = "s3:DeleteObject"
_BYPASS_PERMISSION = "s3:BypassGovernanceRetention"
_CONCURRENT_DELETES = 32
_IF_SIZE = "x-amz-if-match-size"
_IF_MODIFIED = "x-amz-if-match-last-modified-time"


class Wanted(NamedTuple):
    """One thing to delete; `version` is None when none is named, b"" for the null one. `bypass`:
    governance mode is to be passed over."""

    key: str
    version: bytes | None
    conditions: DeleteConditions | None
    bypass: bool


@dataclass(frozen=True, slots=True)
class Delete:
    """Input of DeleteObject."""

    bucket: str
    principal: Principal
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class DeleteMany:
    """Input of DeleteObjects."""

    bucket: str
    principal: Principal
    objects: tuple[ObjectIdentifier, ...]
    quiet: bool
    bypass: bool


class Removed(NamedTuple):
    """What a delete tells. `version` is the version that ended or was asked for, or that of the new
    marker; "" where there are none to tell of. `marker`: it is, or was, a delete marker."""

    version: str = ""
    marker: bool = False


@dataclass(frozen=True, slots=True)
class DeletedMany:
    """For each key asked for: what was done, or why it was not deleted."""

    asked: DeleteMany
    outcomes: tuple[Removed | S3Error, ...]


def _decode_one(request: S3Request) -> Delete:
    assert request.bucket is not None
    assert request.key is not None
    wanted = Wanted(
        request.key,
        version_argument(request),
        _conditions(request.headers),
        bypasses_governance(request.headers),
    )
    return Delete(request.bucket, principal_of(request), wanted)


def _conditions(headers: Mapping[str, str]) -> DeleteConditions | None:
    match = headers.get("if-match")
    size, modified = headers.get(_IF_SIZE), headers.get(_IF_MODIFIED)
    if match is None and size is None and modified is None:
        return None
    if size is not None and not (size.isascii() and size.isdigit() and len(size) <= 19):
        raise invalid_argument(_IF_SIZE, size, "The size is not a number of bytes.")
    seconds = None if modified is None else parse_http_date(modified)
    if modified is not None and seconds is None:
        raise invalid_argument(_IF_MODIFIED, modified, "The time is not an HTTP date.")
    return DeleteConditions(
        if_match=None if match is None else parse_etags(match),
        if_match_size_bytes=None if size is None else int(size),
        if_match_last_modified=seconds,
    )


async def _delete_one(context: Context, delete: Delete) -> Removed:
    wanted = delete.wanted
    entry, current = await context.metadata.lookup(delete.bucket, wanted.key, delete.principal)
    if wanted.version is not None:
        _demand_bypass(entry, delete.principal, wanted)
        return await _delete_version(context, entry, wanted, current)
    if current is None and not entry.record.versioning:
        return Removed()
    deleted = await context.metadata.commits.delete(
        entry, entry.object_key(wanted.key), previous=current, conditions=wanted.conditions
    )
    return _with_marker(deleted)


def _with_marker(deleted: Deleted) -> Removed:
    if deleted.marker is None:
        return Removed()
    return Removed(version_text(deleted.marker.version_id), marker=True)


async def _delete_version(
    context: Context, entry: BucketEntry, wanted: Wanted, current: ObjectEntry | None
) -> Removed:
    """End one version. That it was not there is success. `current` matters in buckets that never
    had versioning."""
    assert wanted.version is not None
    text = version_text(wanted.version)
    if entry.record.versioning:
        ended = await context.metadata.versions.delete_version(
            entry,
            wanted.key,
            wanted.version,
            conditions=wanted.conditions,
            bypass_governance=wanted.bypass,
        )
        return Removed(text, marker=ended is not None and ended.record.delete_marker)
    if not wanted.version and current is not None:  # all there is, is the null version
        await context.metadata.commits.delete(
            entry, current.record_key, previous=current, conditions=wanted.conditions
        )
    return Removed(text)


def _encode_one(removed: Removed) -> S3Response:
    headers = version_headers(removed.version)
    if removed.marker:
        headers.append((DELETE_MARKER, "true"))
    return S3Response(204, headers)


def _decode_many(request: S3Request) -> DeleteMany:
    assert request.bucket is not None
    assert isinstance(request.body, Payload)
    if not request.body.has_integrity:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            "Missing required header for this request: Content-MD5 OR x-amz-checksum-*",
        )
    parsed = parse_delete(request.document)
    return DeleteMany(
        request.bucket,
        principal_of(request),
        parsed.objects,
        parsed.quiet,
        bypasses_governance(request.headers),
    )


async def _delete_many(context: Context, delete: DeleteMany) -> DeletedMany:
    entry = await context.metadata.bucket(delete.bucket, delete.principal)
    outcomes: list[Removed | S3Error] = [Removed()] * len(delete.objects)
    wanted: list[tuple[int, Wanted]] = []
    for position, each in enumerate(delete.objects):
        try:
            one = _wanted(each, bypass=delete.bypass)
            await _demand(context, entry, delete.principal, one)
            wanted.append((position, one))
        except S3Error as error:
            outcomes[position] = error
    if entry.record.versioning:
        await _delete_versions(context, entry, wanted, outcomes)
    else:
        await _delete_plain(context, entry, wanted, outcomes)
    return DeletedMany(delete, tuple(outcomes))


async def _demand(
    context: Context, entry: BucketEntry, principal: Principal, wanted: Wanted
) -> None:
    """The permission to delete one of many keys. Raises AccessDenied."""
    admission = admission_of(principal)
    if admission is None:
        return
    version_id = None if wanted.version is None else version_text(wanted.version)
    # Whether a list permits it depends on whose the object is.
    await context.metadata.lookup(
        entry.name, wanted.key, admission.for_key(wanted.key, _PERMISSION, version_id)
    )
    _demand_bypass(entry, principal, wanted)


def _demand_bypass(entry: BucketEntry, principal: Principal, wanted: Wanted) -> None:
    """Passing over governance mode is a permission of its own."""
    if wanted.bypass and not may(principal, entry, _BYPASS_PERMISSION, wanted.key):
        raise S3Error(ErrorCode.ACCESS_DENIED)


async def _delete_plain(
    context: Context,
    entry: BucketEntry,
    wanted: Sequence[tuple[int, Wanted]],
    outcomes: list[Removed | S3Error],
) -> None:
    """Without versioning, a hundred keys go in one transaction."""
    # A named version other than the null one is not there, which is success.
    present = [(position, each) for position, each in wanted if not each.version]
    deletions = [Deletion(entry.object_key(each.key), each.conditions) for _, each in present]
    results = await context.metadata.commits.delete_many(entry, deletions) if deletions else ()
    for (position, _), result in zip(present, results, strict=True):
        if result is not None:
            outcomes[position] = to_s3_error(result) or S3Error(ErrorCode.INTERNAL_ERROR)


async def _delete_versions(
    context: Context,
    entry: BucketEntry,
    wanted: Sequence[tuple[int, Wanted]],
    outcomes: list[Removed | S3Error],
) -> None:
    """With versioning each is a commit of its own; those of one key go one after another."""
    by_key: dict[str, list[tuple[int, Wanted]]] = {}
    for position, each in wanted:
        by_key.setdefault(each.key, []).append((position, each))
    keys = list(by_key.values())

    async def work() -> None:
        while keys:
            for position, each in keys.pop():
                outcomes[position] = await _delete_wanted(context, entry, each)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(len(keys), _CONCURRENT_DELETES)):
            group.create_task(work())


async def _delete_wanted(context: Context, entry: BucketEntry, wanted: Wanted) -> Removed | S3Error:
    try:
        if wanted.version is not None:
            return await _delete_version(context, entry, wanted, None)
        return _with_marker(
            await context.metadata.versions.delete(entry, wanted.key, conditions=wanted.conditions)
        )
    except (MetadataError, PlacementError) as error:
        return to_s3_error(error) or S3Error(ErrorCode.INTERNAL_ERROR)


def _wanted(asked: ObjectIdentifier, *, bypass: bool) -> Wanted:
    if len(asked.key.encode()) > KEY_SIZE_BYTES_MAX:
        raise S3Error(ErrorCode.KEY_TOO_LONG)
    if version_asked(asked.version_id) is VersionAsked.MALFORMED:
        raise S3Error(ErrorCode.NO_SUCH_VERSION)
    version = named_version(asked.version_id)
    if asked.etag is None and asked.size is None and asked.last_modified is None:
        return Wanted(asked.key, version, None, bypass)
    conditions = DeleteConditions(
        if_match=None if asked.etag is None else parse_etags(asked.etag),
        if_match_size_bytes=_size(asked.size),
        if_match_last_modified=_seconds(asked.last_modified),
    )
    return Wanted(asked.key, version, conditions, bypass)


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    text = text.strip()
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise S3Error(ErrorCode.MALFORMED_XML)
    return int(text)


def _seconds(text: str | None) -> int | None:
    if text is None:
        return None
    milliseconds = parse_iso8601(text)
    if milliseconds is not None:
        return milliseconds // 1000
    seconds = parse_http_date(text)
    if seconds is None:
        raise S3Error(ErrorCode.MALFORMED_XML)
    return seconds


def _encode_many(deleted: DeletedMany) -> S3Response:
    parts: list[str] = []
    for each, outcome in zip(deleted.asked.objects, deleted.outcomes, strict=True):
        version = ""
        if each.version_id is not None:
            version = f"<VersionId>{escape(each.version_id)}</VersionId>"
        if isinstance(outcome, S3Error):
            parts.append(
                f"<Error><Key>{escape(each.key)}</Key>{version}<Code>{outcome.code.code}</Code>"
                f"<Message>{escape(outcome.message)}</Message></Error>"
            )
        elif not deleted.asked.quiet:
            marker = ""
            if outcome.marker:
                marker = (
                    "<DeleteMarker>true</DeleteMarker>"
                    f"<DeleteMarkerVersionId>{outcome.version}</DeleteMarkerVersionId>"
                )
            parts.append(f"<Deleted><Key>{escape(each.key)}</Key>{version}{marker}</Deleted>")
    return S3Response(200, [("Content-Type", "application/xml")], document("DeleteResult", parts))


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="DeleteObject",
        match=Match("DELETE", Resource.OBJECT),
        permission=_PERMISSION,
        decode=_decode_one,
        handle=_delete_one,
        encode=_encode_one,
    ),
    Operation(
        name="DeleteObjects",
        match=Match("POST", Resource.BUCKET, query=("delete",)),
        permission=_PERMISSION,
        decode=_decode_many,
        handle=_delete_many,
        encode=_encode_many,
        document_limit_bytes=DELETE_DOCUMENT_LIMIT_BYTES,
    ),
)
