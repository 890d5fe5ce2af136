"""RenameObject: an object gets another key in its bucket, at once, without a byte being moved.

Source: S3 API Reference, RenameObject, which S3 offers in directory buckets; here in all buckets.
A client token marks the renamed object, so a rename that is asked for again does nothing as long as
that object is there. A token that comes again with other arguments is taken for a new one: S3
would answer IdempotencyParameterMismatch.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import unquote

from gateway.authorization import admission_of
from gateway.context import Context
from gateway.domain.conditions import ReadConditions, Verdict, WriteConditions, judge_read
from gateway.metadata.admission import admit_to_object
from gateway.metadata.entries import BucketEntry, ObjectEntry, etag_text
from gateway.metadata.errors import NoSuchKey, PreconditionFailed
from gateway.metadata.records import ObjectRecord
from gateway.metadata.renames import Rename
from gateway.operation import AnyOperation, Match, Operation, Resource, principal_of
from gateway.operations.object_headers import read_conditions, write_conditions
from gateway.operations.object_versions import made_version, version_headers
from gateway.operations.put import demand_write
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.message import Principal, S3Request, S3Response

RENAME_SOURCE: Final = "x-amz-rename-source"
CLIENT_TOKEN: Final = "x-amz-client-token"  # noqa: S105 - the header's name
_TOKEN: Final = re.compile(r"[!-~]{1,64}")
_COMMIT_ID_SIZE_BYTES: Final = 8
_OF_SOURCE: Final = ("s3:GetObject", "s3:DeleteObject")
"""What the caller needs on the old key; s3:PutObject on the new one."""


@dataclass(frozen=True, slots=True)
class RenameAsked:
    """Input of RenameObject. `existing` and `since` are conditions on what has the new key."""

    bucket: str
    source: str
    key: str
    principal: Principal
    source_conditions: ReadConditions | None
    existing: WriteConditions | None
    since: ReadConditions | None
    token: str | None


def _decode(request: S3Request) -> RenameAsked:
    assert request.bucket is not None
    assert request.key is not None
    headers = request.headers
    if request.body.size_bytes:
        raise S3Error(ErrorCode.INVALID_REQUEST, "A rename request carries no body.")
    source = _source(headers.get(RENAME_SOURCE))
    if source == request.key:
        raise S3Error(ErrorCode.INVALID_REQUEST, "An object cannot be renamed to its own key.")
    if source.endswith("/") or request.key.endswith("/"):
        raise S3Error(
            ErrorCode.INVALID_REQUEST, "Keys that end in a slash cannot be renamed, or renamed to."
        )
    token = headers.get(CLIENT_TOKEN)
    if token is not None and _TOKEN.fullmatch(token) is None:
        raise invalid_argument(CLIENT_TOKEN, token, "A client token is 1 to 64 ASCII characters.")
    dated: dict[str, str] = {name: headers[name] for name in _DATES if name in headers}
    return RenameAsked(
        request.bucket,
        source,
        request.key,
        principal_of(request),
        read_conditions(headers, f"{RENAME_SOURCE}-"),
        write_conditions(headers),
        read_conditions(dated),
        token,
    )


_DATES: Final = ("if-modified-since", "if-unmodified-since")


def _source(text: str | None) -> str:
    """The old key: URL-encoded, perhaps after a slash."""
    if not text:
        raise invalid_argument(RENAME_SOURCE, text or "", "A rename request names its source.")
    try:
        # Header text is latin-1: what was sent as plain UTF-8 is brought back first.
        key = unquote(text.encode("latin-1").decode("utf-8"), errors="strict").removeprefix("/")
    except UnicodeError:
        raise invalid_argument(RENAME_SOURCE, text, "Invalid rename source encoding.") from None
    if not key:
        raise invalid_argument(RENAME_SOURCE, text, "A rename request names its source.")
    return key


async def _handle(context: Context, asked: RenameAsked) -> ObjectRecord:
    entry, _ = await context.metadata.lookup(asked.bucket, asked.key, asked.principal)
    rename = Rename(
        entry.object_key(asked.source),
        entry.object_key(asked.key),
        _commit_id(context, entry, asked),
        lambda *found: _admit(asked, *found),
        lambda _, source, existing: _judge(asked, source, existing),
    )
    return await context.metadata.renames.run(entry, rename)


def _commit_id(context: Context, entry: BucketEntry, asked: RenameAsked) -> bytes:
    if asked.token is None:
        return context.randomness.token(_COMMIT_ID_SIZE_BYTES)
    said = (entry.bucket_id.hex(), asked.principal.account_id, asked.token, asked.source, asked.key)
    return sha256(repr(said).encode()).digest()[:_COMMIT_ID_SIZE_BYTES]


def _admit(
    asked: RenameAsked,
    entry: BucketEntry,
    source: ObjectEntry | None,
    existing: ObjectEntry | None,
) -> None:
    """Raises AccessDenied."""
    admit_to_object(entry, existing, asked.principal)
    admission = admission_of(asked.principal)
    for action in _OF_SOURCE:
        principal = asked.principal
        if admission is not None:
            principal = admission.for_key(asked.source, action)
        admit_to_object(entry, source, principal)


def _judge(asked: RenameAsked, source: ObjectEntry | None, existing: ObjectEntry | None) -> None:
    """Raises NoSuchKey, PreconditionFailed."""
    if source is None:
        raise NoSuchKey(asked.source.encode())
    _demand_as_read(asked.source_conditions, source, f"{RENAME_SOURCE}-")
    demand_write(asked.existing, asked.key, existing)
    if asked.since is None:
        return
    if existing is not None:
        _demand_as_read(asked.since, existing, "")
    elif asked.since.if_modified_since is not None:
        raise PreconditionFailed("If-Modified-Since")  # it holds only where there is something


def _demand_as_read(conditions: ReadConditions | None, found: ObjectEntry, prefix: str) -> None:
    if conditions is None:
        return
    record = found.record
    judgement = judge_read(conditions, etag=etag_text(record), modified_ms=record.modified_ms)
    if judgement.verdict is not Verdict.PROCEED:
        raise PreconditionFailed(f"{prefix}{judgement.header}")


def _encode(record: ObjectRecord) -> S3Response:
    return S3Response(200, version_headers(made_version(record)))


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name="RenameObject",
        match=Match("PUT", Resource.OBJECT, ("renameObject",)),
        permission="s3:PutObject",
        decode=_decode,
        handle=_handle,
        encode=_encode,
    ),
)
