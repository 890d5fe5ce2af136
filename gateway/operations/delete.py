"""DeleteObject and DeleteObjects."""

from dataclasses import dataclass

from gateway.context import Context
from gateway.domain.conditions import DeleteConditions
from gateway.domain.versions import VersionAsked, version_asked
from gateway.metadata.commits import Deletion
from gateway.operation import AnyOperation, Match, Operation, Resource, principal_of
from gateway.operations.error_map import to_s3_error
from gateway.s3.documents import DELETE_DOCUMENT_LIMIT_BYTES, ObjectIdentifier, parse_delete
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.headers import parse_etags, parse_http_date, parse_iso8601
from gateway.s3.message import Principal, S3Request, S3Response
from gateway.s3.payload import Payload
from gateway.s3.xml import document, escape

KEY_SIZE_BYTES_MAX = 1024


@dataclass(frozen=True, slots=True)
class Delete:
    """Input of DeleteObject. `exists` is False when a version is named that cannot exist here."""

    bucket: str
    key: str
    principal: Principal
    conditions: DeleteConditions | None
    exists: bool


@dataclass(frozen=True, slots=True)
class DeleteMany:
    """Input of DeleteObjects."""

    bucket: str
    principal: Principal
    objects: tuple[ObjectIdentifier, ...]
    quiet: bool


@dataclass(frozen=True, slots=True)
class DeletedMany:
    """For each key asked for: None, or why it was not deleted."""

    asked: DeleteMany
    outcomes: tuple[S3Error | None, ...]


def _decode_one(request: S3Request) -> Delete:
    assert request.bucket is not None
    assert request.key is not None
    version_id = request.query.get("versionId")
    asked = version_asked(version_id)
    if asked is VersionAsked.MALFORMED:
        raise invalid_argument("versionId", version_id or "", "Invalid version id specified")
    match = request.headers.get("if-match")
    conditions = None if match is None else DeleteConditions(if_match=parse_etags(match))
    return Delete(
        request.bucket,
        request.key,
        principal_of(request),
        conditions,
        asked is VersionAsked.CURRENT,
    )


async def _delete_one(context: Context, delete: Delete) -> None:
    entry, current = await context.metadata.lookup(delete.bucket, delete.key, delete.principal)
    if current is None or not delete.exists:
        return
    await context.metadata.delete_object(
        entry, current.record_key, previous=current, conditions=delete.conditions
    )


def _encode_one(_: None) -> S3Response:
    return S3Response(204)


def _decode_many(request: S3Request) -> DeleteMany:
    assert request.bucket is not None
    assert isinstance(request.body, Payload)
    if not request.body.has_integrity:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            "Missing required header for this request: Content-MD5 OR x-amz-checksum-*",
        )
    parsed = parse_delete(request.document)
    return DeleteMany(request.bucket, principal_of(request), parsed.objects, parsed.quiet)


async def _delete_many(context: Context, delete: DeleteMany) -> DeletedMany:
    entry = await context.metadata.bucket(delete.bucket, delete.principal)
    outcomes: list[S3Error | None] = []
    deletions: list[Deletion] = []
    positions: list[int] = []
    for position, each in enumerate(delete.objects):
        refusal: S3Error | None = None
        try:
            deletion = _deletion(each, entry.object_key(each.key))
        except S3Error as error:
            refusal = error
        else:
            if deletion is not None:
                deletions.append(deletion)
                positions.append(position)
        outcomes.append(refusal)
    results = await context.metadata.delete_objects(entry, deletions) if deletions else ()
    for position, result in zip(positions, results, strict=True):
        if result is not None:
            outcomes[position] = to_s3_error(result) or S3Error(ErrorCode.INTERNAL_ERROR)
    return DeletedMany(delete, tuple(outcomes))


def _deletion(asked: ObjectIdentifier, record_key: bytes) -> Deletion | None:
    """What to delete for one entry; None when a version is named that does not exist."""
    if len(asked.key.encode()) > KEY_SIZE_BYTES_MAX:
        raise S3Error(ErrorCode.KEY_TOO_LONG)
    version = version_asked(asked.version_id)
    if version is VersionAsked.MALFORMED:
        raise S3Error(ErrorCode.NO_SUCH_VERSION)
    if version is VersionAsked.ABSENT:
        return None
    if asked.etag is None and asked.size is None and asked.last_modified is None:
        return Deletion(record_key)
    conditions = DeleteConditions(
        if_match=None if asked.etag is None else parse_etags(asked.etag),
        if_match_size_bytes=_size(asked.size),
        if_match_last_modified=_seconds(asked.last_modified),
    )
    return Deletion(record_key, conditions)


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
    for each, error in zip(deleted.asked.objects, deleted.outcomes, strict=True):
        version = ""
        if each.version_id is not None:
            version = f"<VersionId>{escape(each.version_id)}</VersionId>"
        if error is not None:
            parts.append(
                f"<Error><Key>{escape(each.key)}</Key>{version}<Code>{error.code.code}</Code>"
                f"<Message>{escape(error.message)}</Message></Error>"
            )
        elif not deleted.asked.quiet:
            parts.append(f"<Deleted><Key>{escape(each.key)}</Key>{version}</Deleted>")
    return S3Response(200, [("Content-Type", "application/xml")], document("DeleteResult", parts))


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="DeleteObject",
        match=Match("DELETE", Resource.OBJECT),
        permission="s3:DeleteObject",
        decode=_decode_one,
        handle=_delete_one,
        encode=_encode_one,
    ),
    Operation(
        name="DeleteObjects",
        match=Match("POST", Resource.BUCKET, query=("delete",)),
        permission="s3:DeleteObject",
        decode=_decode_many,
        handle=_delete_many,
        encode=_encode_many,
        document_limit_bytes=DELETE_DOCUMENT_LIMIT_BYTES,
    ),
)
