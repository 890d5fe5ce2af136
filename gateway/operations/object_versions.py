"""Finding the version that a request means, and what answers say of versions.

Source: S3 User Guide, "Working with delete markers" (404 for reads of a key whose current version is
one, 405 for a marker asked for by its id or to be changed; all say x-amz-delete-marker).
"""

from gateway.context import Context
from gateway.domain.versions import NULL_VERSION, version_text
from gateway.metadata.entries import BucketEntry, ObjectEntry
from gateway.metadata.errors import NoSuchKey
from gateway.metadata.records import ObjectRecord
from gateway.operations.object_headers import Headers, http_date
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import Principal

VERSION_ID = "x-amz-version-id"
DELETE_MARKER = "x-amz-delete-marker"


async def find_version(
    context: Context,
    bucket: str,
    key: str,
    principal: Principal,
    version: bytes | None,
    *,
    changing: str = "",
) -> tuple[BucketEntry, ObjectEntry]:
    """The object's current version, or the one named; `changing` is the method of a request that
    changes it.

    Raises NoSuchKey and NoSuchVersion; MethodNotAllowed for a delete marker named by its id, and
    for one that is to be changed.
    """
    if version is None:
        entry, current = await context.metadata.lookup(bucket, key, principal)
        if current is None:
            raise await missing(context, entry, key, changing=changing)
        return entry, current
    entry, found = await context.metadata.versions.lookup(bucket, key, principal, version)
    if found is None:
        raise no_such_version(key, version)
    if found.record.delete_marker:
        raise _not_allowed(found.record, changing or "GET")
    return entry, found


async def missing(
    context: Context, entry: BucketEntry, key: str, *, changing: str = ""
) -> Exception:
    """The answer where no object is: it says so when a delete marker is the reason."""
    if entry.record.versioning:
        marker = await context.metadata.versions.current_marker(entry, key)
        if marker is not None and changing:
            return _not_allowed(marker.record, changing)
        if marker is not None:
            return S3Error(
                ErrorCode.NO_SUCH_KEY,
                details={"Key": key},
                headers=dict(marker_headers(marker.record)),
            )
    return NoSuchKey(key.encode())


def _not_allowed(marker: ObjectRecord, method: str) -> S3Error:
    """All that may be done to a delete marker is to delete it."""
    return S3Error(
        ErrorCode.METHOD_NOT_ALLOWED,
        details={"Method": method, "ResourceType": "DeleteMarker"},
        headers={
            **dict(marker_headers(marker)),
            "Allow": "DELETE",
            "Last-Modified": http_date(marker.modified_ms // 1000),
        },
    )


def no_such_version(key: str, version: bytes) -> S3Error:
    """The key has no version of that id."""
    return S3Error(
        ErrorCode.NO_SUCH_VERSION, details={"Key": key, "VersionId": version_text(version)}
    )


def marker_headers(marker: ObjectRecord) -> Headers:
    """That it is a delete marker, and which."""
    return [(DELETE_MARKER, "true"), (VERSION_ID, version_text(marker.version_id))]


def shown_version(entry: BucketEntry, record: ObjectRecord) -> str:
    """The version id to answer with; "" in buckets that never had versioning."""
    return version_text(record.version_id) if entry.record.versioning else ""


def told_version(entry: BucketEntry, record: ObjectRecord, asked: bytes | None) -> str:
    """The version id to answer with, "" for none. A client that names the null version is told so
    even where there are no versions."""
    return shown_version(entry, record) or ("" if asked is None else NULL_VERSION)


def made_version(record: ObjectRecord) -> str:
    """The version id that a write answers with. In a suspended bucket S3 tells none: every write
    makes the null version."""
    return version_text(record.version_id) if record.version_id else ""


def version_headers(shown: str) -> Headers:
    """x-amz-version-id, where there is something to show."""
    return [(VERSION_ID, shown)] if shown else []
