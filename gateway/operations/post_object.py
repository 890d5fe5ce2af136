"""PostObject: a browser's form that uploads one file, under a policy that somebody signed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from gateway.authorization import ANONYMOUS, PUT_OBJECT, admit
from gateway.context import Context
from gateway.domain.tags import OBJECT_TAGS_MAX, Tags, check_tags
from gateway.identification import identify
from gateway.objects.encrypted import stage_encrypted_to_end
from gateway.operation import AnyOperation, Match, Operation, Resource
from gateway.operations.access_lists import access_of_new, acl_asked
from gateway.operations.expiration import expiration_headers
from gateway.operations.lock_headers import asked_lock, lock_of_version
from gateway.operations.object_encryption import (
    encryption_asked,
    encryption_headers,
    new_encryption,
)
from gateway.operations.object_headers import (
    checksum_headers,
    object_headers,
    quoted_etag,
    write_conditions,
)
from gateway.operations.object_versions import version_headers
from gateway.operations.put import (
    OBJECT_SIZE_BYTES_MAX,
    Published,
    Upload,
    demand_write,
    payload_of,
    publish_upload,
)
from gateway.operations.storage_class import class_asked, kept_in
from gateway.s3.addressing import MAX_KEY_BYTES
from gateway.s3.checksums import ChecksumAlgorithm, Digests
from gateway.s3.documents import parse_tagging
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.form import FormFile, boundary_of, is_form, read_form
from gateway.s3.headers import is_header_name, is_header_value
from gateway.s3.known import refuse_unoffered
from gateway.s3.message import Principal, S3Request, S3Response
from gateway.s3.payload import (
    Payload,
    announced_checksum,
    announced_md5,
    compare_checksum,
    compare_md5,
)
from gateway.s3.post_policy import BUCKET_FIELD, IGNORED_PREFIX, parse_policy
from gateway.s3.post_signature import (
    AUTHENTICATION_FIELDS,
    missing_field,
    parse_post_claim,
    session_token_in,
)
from gateway.s3.xml import DECLARATION, element

_NAME: Final = "PostObject"
_FILE_NAME: Final = "${filename}"
_HEADER_FIELDS: Final = frozenset(
    {
        *("cache-control", "content-disposition", "content-encoding", "content-language"),
        *("content-md5", "content-type", "expires", "if-match", "if-none-match"),
    }
)
_HEADER_NAMES: Final = {"acl": "x-amz-acl"}
"""Fields that have another name than the header they stand for."""
_STATUSES: Final = {"200": 200, "201": 201}
_NANOSECONDS_A_MILLISECOND: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Post:
    """Input of PostObject: the form is still to be read."""

    request: S3Request
    bucket: str
    payload: Payload
    boundary: bytes


@dataclass(frozen=True, slots=True)
class Posted:
    """The new object, and how the form wants to be answered."""

    published: Published
    bucket: str
    key: str
    location: str
    status: int
    redirect: str


def _decode(request: S3Request) -> Post:
    assert request.bucket is not None
    content_type = request.headers.get("content-type", "")
    if not is_form(content_type):
        raise S3Error(
            ErrorCode.PRECONDITION_FAILED,
            details={"Condition": "Bucket POST must be of the enclosure-type multipart/form-data"},
        )
    return Post(request, request.bucket, payload_of(request), boundary_of(content_type))


async def _handle(context: Context, post: Post) -> Posted:
    request = post.request
    parser, file = await read_form(post.payload, post.boundary)
    assert parser.file_name is not None
    fields = form_fields(parser.fields, parser.file_name)
    principal, policy_text = await _authenticate(context, fields)
    request.principal = principal
    size_range: tuple[int, int] | None = None
    if policy_text is not None:
        policy = parse_policy(policy_text)
        now_ms = context.clock.now_ns() // _NANOSECONDS_A_MILLISECOND
        policy.demand({**fields, BUCKET_FIELD: post.bucket}, now_ms)
        size_range = policy.size_range
    key = _key(fields)
    request.key = key
    headers = header_fields(fields)
    request.headers = {**request.headers, **headers}
    request.principal = principal = admit(context, request, principal, PUT_OBJECT)
    refuse_unoffered(_NAME, headers, {})
    least, most = size_range or (0, OBJECT_SIZE_BYTES_MAX)
    file.bounds = (least, min(most, OBJECT_SIZE_BYTES_MAX))

    entry, previous = await context.metadata.lookup(post.bucket, key, principal)
    upload = Upload(
        entry,
        previous,
        key,
        await access_of_new(context, entry, principal, acl_asked(headers)),
        object_headers(headers),
        write_conditions(headers),
        _tags(fields),
        lock_of_version(entry.record, asked_lock(headers), context.clock),
        sealed=await new_encryption(context, encryption_asked(request, headers), entry),
        kept=kept_in(context, entry, class_asked(headers)),
    )
    demand_write(upload.conditions, key, previous)
    published = await _store(context, upload, file, headers)
    return Posted(
        published,
        post.bucket,
        key,
        _location(request, key),
        _STATUSES.get(fields.get("success_action_status", ""), 204),
        fields.get("success_action_redirect") or fields.get("redirect", ""),
    )


def form_fields(fields: Sequence[tuple[str, bytes]], file_name: str) -> dict[str, str]:
    """The fields by lower-case name, `${filename}` replaced. Raises InvalidArgument for a field
    that comes twice or is not UTF-8.

    Of a path only what follows the last slash or backslash is the file's name.
    """
    name = re.split(r"[/\\]", file_name)[-1]
    found: dict[str, str] = {}
    for field, value in fields:
        if field in found and not field.startswith(IGNORED_PREFIX):
            raise invalid_argument(field, "", "A form field may come only once.")
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            raise invalid_argument(field, "", "A form field must be UTF-8 text.") from None
        if field not in AUTHENTICATION_FIELDS:
            text = text.replace(_FILE_NAME, name)
        found[field] = text
    return found


def header_fields(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields that stand for request headers, as such: lower-case names, latin-1 text.

    Raises InvalidArgument for what could be no header: answers to GET will carry it.
    """
    headers: dict[str, str] = {}
    for field, text in fields.items():
        name = _HEADER_NAMES.get(field, field)
        if field in AUTHENTICATION_FIELDS or not (
            name.startswith("x-amz-") or name in _HEADER_FIELDS
        ):
            continue
        if not is_header_name(name):
            raise invalid_argument(field, text, "The field's name cannot be a header's.")
        value = text.strip()
        if not is_header_value(value):
            raise invalid_argument(field, text, "The field's value cannot be a header's.")
        headers[name] = value.encode().decode("latin-1")
    return headers


async def _authenticate(
    context: Context, fields: Mapping[str, str]
) -> tuple[Principal, str | None]:
    """Who signed the form's policy, and the policy; nobody, and none, for a form without."""
    claim = parse_post_claim(fields, context.region)
    if claim is None:
        return ANONYMOUS, None
    token = session_token_in(fields, claim.access_key)
    principal, secret = await identify(context.metadata, claim.access_key, token)
    claim.verify(secret)
    return principal, claim.policy


def _key(fields: Mapping[str, str]) -> str:
    key = fields.get("key")
    if key is None:
        raise missing_field("key")
    if not key:
        raise invalid_argument("key", "", "User key must have a length greater than 0.")
    size_bytes = len(key.encode())
    if size_bytes > MAX_KEY_BYTES:
        raise S3Error(
            ErrorCode.KEY_TOO_LONG,
            details={"Size": str(size_bytes), "MaxSizeAllowed": str(MAX_KEY_BYTES)},
        )
    return key


def _tags(fields: Mapping[str, str]) -> Tags:
    """The field holds a Tagging document."""
    text = fields.get("tagging")
    if not text:
        return ()
    return check_tags(parse_tagging(text.encode()), count_max=OBJECT_TAGS_MAX)


async def _store(
    context: Context, upload: Upload, file: FormFile, headers: Mapping[str, str]
) -> Published:
    """Receive the file and make it the object."""
    md5 = announced_md5(headers)
    checksum = announced_checksum(headers)
    algorithm = ChecksumAlgorithm.CRC64NVME if checksum is None else checksum[0]
    sealed = upload.sealed
    digests = Digests(algorithm, md5=sealed is None or sealed.keeps_md5 or md5 is not None)
    size_bytes_max = min(file.size_bytes, file.bounds[1])
    if sealed is None:
        staged = await context.objects.stage_to_end(
            file, size_bytes_max, digests, scheme=upload.kept.scheme
        )
    else:
        staged = await stage_encrypted_to_end(
            context.objects,
            file,
            size_bytes_max,
            digests,
            sealed.cipher,
            scheme=upload.kept.scheme,
        )
    try:
        if md5 is not None:
            compare_md5(md5, digests)
        if checksum is not None:
            algorithm, expected = checksum
            assert expected is not None, "forms have no trailers"
            compare_checksum(algorithm, expected, digests)
    except S3Error:
        await context.objects.discard(staged)
        raise
    return await publish_upload(context, upload, staged, digests)


def _location(request: S3Request, key: str) -> str:
    scheme = "https" if request.secure else "http"
    path = quote(key, safe="/-_.~")
    if not request.virtual_host:
        path = f"{request.bucket}/{path}"
    return f"{scheme}://{request.headers.get('host', '')}/{path}"


def redirect_url(target: str, bucket: str, key: str, etag: str) -> str | None:
    """Where the browser is sent; None for a target that is no URL: it is then ignored, as S3 does."""
    if not target.isascii() or re.search(r"[\x00-\x20\x7f]", target) is not None:
        return None
    try:
        parts = urlsplit(target)
    except ValueError:
        return None
    if parts.scheme.lower() not in ("http", "https") or not parts.netloc:
        return None
    told = "&".join(
        f"{name}={quote(value, safe='')}"
        for name, value in (("bucket", bucket), ("key", key), ("etag", etag))
    )
    query = f"{parts.query}&{told}" if parts.query else told
    return parts._replace(query=query).geturl()


def _encode(posted: Posted) -> S3Response:
    record = posted.published.record
    etag = quoted_etag(record)
    headers = [
        ("ETag", etag),
        *checksum_headers(record.checksum),
        *version_headers(posted.published.version),
        *encryption_headers(posted.published.record.encryption, created=True),
        *expiration_headers(posted.published.expiration),
    ]
    redirect = redirect_url(posted.redirect, posted.bucket, posted.key, etag)
    if redirect is not None:
        return S3Response(303, [*headers, ("Location", redirect)])
    headers.append(("Location", posted.location))
    if posted.status != 201:
        return S3Response(posted.status, headers)
    body = "".join(
        element(name, text)
        for name, text in (
            ("Location", posted.location),
            ("Bucket", posted.bucket),
            ("Key", posted.key),
            ("ETag", etag),
        )
    )
    return S3Response(
        201,
        [*headers, ("Content-Type", "application/xml")],
        f"{DECLARATION}<PostResponse>{body}</PostResponse>".encode(),
    )


OPERATIONS: tuple[AnyOperation, ...] = (
    Operation(
        name=_NAME,
        match=Match("POST", Resource.BUCKET),
        permission="s3:PutObject",
        decode=_decode,
        handle=_handle,
        encode=_encode,
        authenticates_itself=True,
    ),
)
