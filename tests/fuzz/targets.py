"""What is fuzzed: every parser that reads what a client sent, each as a function of bytes.

A target returns when the bytes were taken or refused as documented; whatever else it raises is a
finding. What was taken is used as the server uses it: judged, verified, written and read again.
"""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.domain.iam import IamRefused
from gateway.domain.policy.actions import refuse_unknown_actions
from gateway.domain.policy.document import Policy, read_bucket_policy, read_policy
from gateway.domain.policy.errors import MalformedPolicy
from gateway.domain.policy.publicity import is_public
from gateway.domain.policy.question import Caller, Question
from gateway.domain.policy.verdict import opinion
from gateway.domain.transitions import why_refused
from gateway.http.chunked import ChunkedDecoder as HttpChunkedDecoder
from gateway.http.head import HeadParser
from gateway.http.refusals import RefusedError
from gateway.iam.form import read_form as read_iam_form
from gateway.operations.lifecycle import lifecycle_fields, lifecycle_rule
from gateway.operations.post_object import form_fields, header_fields
from gateway.operations.website import website_fields, website_of
from gateway.s3 import (
    access_documents,
    cors_documents,
    documents,
    encryption_documents,
    lifecycle_documents,
    lock_documents,
    website_documents,
)
from gateway.s3.addressing import locate, parse_query, split_target
from gateway.s3.authentication import parse_claim
from gateway.s3.chunked import ChunkedDecoder
from gateway.s3.errors import ErrorCode, S3Error, render_error
from gateway.s3.form import boundary_of, read_form
from gateway.s3.message import S3Request
from gateway.s3.payload import BytesBody, make_payload
from gateway.s3.post_policy import BUCKET_FIELD, parse_policy
from gateway.s3.post_signature import parse_post_claim
from gateway.s3.signature import (
    STREAMING_SIGNED,
    STREAMING_SIGNED_TRAILER,
    STREAMING_UNSIGNED_TRAILER,
    Verified,
)
from tests.fuzz import seeds
from tests.unit.post_forms import PlainBody
from tests.unit.s3_requests import NoBody

NOW_SECONDS: Final = 1_700_000_000
REGION: Final = "us-east-1"
_HEADERS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Target:
    """A parser, and bytes that it takes or nearly takes, to begin with."""

    name: str
    feed: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


class _Facts:
    """Answers every condition key with values that look like anything."""

    def values(self, key: str) -> tuple[str, ...] | None:
        """Some of every kind; nothing for every third key."""
        kind = len(key) % 3
        if kind == 0:
            return None
        return ("10.1.2.3",) if kind == 1 else ("2023-11-14T22:13:20Z", "true", "1e3", "é*")


def _answer(error: S3Error) -> None:
    """A refusal is one that a client may see."""
    assert error.code is not ErrorCode.INTERNAL_ERROR, error
    render_error(error, "/bucket/key", "request", "host")


def _tolerant(parse: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def feed(data: bytes) -> None:
        try:
            parse(data)
        except S3Error as error:
            _answer(error)
        except MalformedPolicy as error:
            str(error).encode()
        except (IamRefused, RefusedError):
            return

    return feed


def _judge(policy: Policy) -> None:
    is_public(policy)
    for caller in (Caller("", ""), Caller("123456789012", "arn:aws:iam::123456789012:user/ann")):
        for action, resource in (
            ("s3:GetObject", "arn:aws:s3:::bucket/a/b é"),
            ("s3:ListBucket", "arn:aws:s3:::bucket"),
        ):
            opinion([policy], Question(caller, action, resource, _Facts()))


def _policy(data: bytes) -> None:
    readings: tuple[Callable[[], Policy], ...] = (
        lambda: read_bucket_policy(data, "bucket"),
        lambda: read_policy(data, with_principals=False),
        lambda: read_policy(data, with_principals=True, with_resources=False),
    )
    policies: list[Policy] = []
    for read in readings:
        try:
            policies.append(read())
        except MalformedPolicy:
            continue
    for policy in policies:
        _judge(policy)
        refuse_unknown_actions(policy)


_DOCUMENTS: Final[tuple[Callable[[bytes], object], ...]] = (
    documents.parse_delete,
    documents.parse_complete,
    documents.parse_create_bucket,
    documents.parse_versioning,
    documents.parse_tagging,
    access_documents.parse_acl,
    access_documents.parse_ownership,
    access_documents.parse_public_access_block,
    encryption_documents.parse_encryption,
    lock_documents.parse_lock,
    lock_documents.parse_retention,
    lock_documents.parse_legal_hold,
)


def _xml(data: bytes) -> None:
    for parse in _DOCUMENTS:
        _tolerant(parse)(data)
    website = website_of(website_documents.parse_website(data))
    shown = "".join(website_documents.website_elements(website_fields(website)))
    again = f"<WebsiteConfiguration>{shown}</WebsiteConfiguration>".encode()
    assert website_of(website_documents.parse_website(again)) == website


def _lifecycle(data: bytes) -> None:
    rules = [lifecycle_rule(fields) for fields in lifecycle_documents.parse_lifecycle(data)]
    shown = "".join(lifecycle_documents.rule_element(lifecycle_fields(rule)) for rule in rules)
    again = lifecycle_documents.parse_lifecycle(
        f"<LifecycleConfiguration>{shown}</LifecycleConfiguration>".encode()
    )
    assert [lifecycle_rule(fields) for fields in again] == rules
    for rule in rules:
        why_refused(rule)


def _cors(data: bytes) -> None:
    rules = cors_documents.parse_cors(data)
    shown = "".join(map(cors_documents.rule_element, rules))
    again = f"<CORSConfiguration>{shown}</CORSConfiguration>".encode()
    assert cors_documents.parse_cors(again) == rules


def _chunked(data: bytes) -> None:
    """The first byte says which kind of body and how it is cut; the second how much it declares."""
    if len(data) < 2:
        return
    kind, declared, wire = data[0], data[1], data[2:]
    if kind % 4 == 3:
        _http_chunked(wire, 1 + kind // 4)
        return
    forms = (STREAMING_SIGNED, STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER)
    verified = Verified(
        forms[kind % 4], b"k" * 32, "0" * 64, "20231114T221320Z", "20231114/us-east-1/s3"
    )
    trailer = None if kind % 4 == 0 else "x-amz-checksum-crc32"
    decoder = ChunkedDecoder(declared * 64, verified, trailer)
    target = memoryview(bytearray(declared * 64 + 64))
    step = 1 + kind // 4
    produced_bytes = 0
    for start in range(0, len(wire), step):
        piece = memoryview(wire[start : start + step])
        while piece:
            consumed, produced = decoder.decode_into(piece, target[produced_bytes:])
            assert consumed, "no progress"
            produced_bytes += produced
            piece = piece[consumed:]
    decoder.finish()
    assert produced_bytes == declared * 64


def _http_chunked(wire: bytes, step: int) -> None:
    decoder = HttpChunkedDecoder()
    for start in range(0, len(wire), step):
        if decoder.finished:
            return
        decoder.decode(wire[start : start + step])


def _post_form(data: bytes) -> None:
    asyncio.run(_post(data))


async def _post(data: bytes) -> None:
    boundary = boundary_of(f"multipart/form-data; boundary={seeds.BOUNDARY}")
    parser, file = await read_form(PlainBody(data), boundary)
    buffer = memoryview(bytearray(512))
    read_bytes = 0
    while count := await file.read_into(buffer):
        read_bytes += count
        assert read_bytes <= file.size_bytes
    fields = form_fields(parser.fields, parser.file_name or "")
    header_fields(fields)
    _post_policy(fields.get("policy", ""), fields)
    claim = parse_post_claim(fields, REGION)
    if claim is not None:
        claim.verify("secret")


def _post_policy(text: str, fields: dict[str, str]) -> None:
    policy = parse_policy(text)
    policy.demand({**fields, BUCKET_FIELD: "bucket"}, NOW_SECONDS * 1000)


def _post_document(data: bytes) -> None:
    fields = {"key": "a/b", "content-type": "image/jpeg", "acl": "private"}
    _post_policy(base64.b64encode(data).decode(), fields)


def _request(data: bytes) -> None:
    """A whole head: framing, address, query, signature in all its forms, payload."""
    head = HeadParser(_HEADERS_MAX).parse(data + b"\r\n\r\n")
    raw_path, raw_query = split_target(head.target)
    host = head.headers.get("host", "")
    address = locate(raw_path, host, ("s3.test",))
    request = S3Request(
        method=head.method,
        bucket=address.bucket,
        key=address.key,
        query=parse_query(raw_query),
        headers=head.headers,
        raw_path=raw_path,
        raw_query=raw_query,
        body=NoBody(),
        request_id="R",
        virtual_host=address.virtual_host,
    )
    claim = parse_claim(request, region=REGION)
    if claim is None:
        return
    try:
        verified = claim.verify("secret", NOW_SECONDS)
    except S3Error as error:
        _answer(error)
        # What came before the signature did not hold; the payload's headers are read all the same.
        verified = Verified(head.headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD"), b"k" * 32)
        if verified.content_sha256 not in (STREAMING_SIGNED, STREAMING_UNSIGNED_TRAILER):
            verified = Verified("UNSIGNED-PAYLOAD")
    make_payload(head.headers, BytesBody(b""), verified)


TARGETS: Final = {
    target.name: target
    for target in (
        Target("policy", _tolerant(_policy), seeds.POLICIES),
        Target("xml", _tolerant(_xml), seeds.DOCUMENTS),
        Target("lifecycle", _tolerant(_lifecycle), seeds.LIFECYCLES),
        Target("cors", _tolerant(_cors), seeds.CORS),
        Target("chunked", _tolerant(_chunked), seeds.CHUNKED),
        Target("post-form", _tolerant(_post_form), seeds.FORMS),
        Target("post-policy", _tolerant(_post_document), seeds.POST_POLICIES),
        Target("request", _tolerant(_request), seeds.REQUESTS),
        Target("iam-form", _tolerant(read_iam_form), seeds.IAM_FORMS),
    )
}
