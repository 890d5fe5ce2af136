"""What request signatures have in common: the verified result and the time window."""

import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.headers import format_iso8601, is_header_name, is_header_value
from gateway.s3.message import S3Request

MAX_SKEW_SECONDS: Final = 15 * 60
"""How far a request's time may be from ours. Source: S3 API Reference, RequestTimeTooSkewed."""

UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
STREAMING_SIGNED: Final = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_SIGNED_TRAILER: Final = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_UNSIGNED_TRAILER: Final = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


class Verified(msgspec.Struct, frozen=True, gc=False):
    """A signature that holds, and what the body's own signatures continue from.

    `content_sha256` is the payload form that was signed (64 hex digits, UNSIGNED-PAYLOAD or a
    STREAMING- form). The key fields are empty where there is nothing to continue (SigV2).
    """

    content_sha256: str
    signing_key: bytes = b""
    seed_signature: str = ""
    timestamp: str = ""
    scope: str = ""

    def __repr__(self) -> str:
        return f"Verified(content_sha256={self.content_sha256!r}, scope={self.scope!r})"


class Signer:
    """A signing key with the half of its HMAC done that is the same for every text (RFC 2104): the
    digests of the key's two pads, from which each signature goes on."""

    __slots__ = ("_inner", "_outer", "key")

    def __init__(self, key: bytes) -> None:
        self.key = key
        block = key.ljust(hashlib.sha256().block_size, b"\0")
        self._inner = hashlib.sha256(bytes([byte ^ 0x36 for byte in block]))
        self._outer = hashlib.sha256(bytes([byte ^ 0x5C for byte in block]))

    def sign(self, text: bytes) -> str:
        """The signature in hex."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text)
        outer.update(inner.digest())
        return outer.hexdigest()


@lru_cache(maxsize=1024)
def signer_with(key: bytes) -> Signer:
    """The signer of a key; remembered, since a client's requests of a day have the same."""
    return Signer(key)


def collapsed(value: str) -> str:
    """A header's value as it is signed: runs of blanks are one space.

    Only ASCII's blanks: values are bytes read as latin-1, where two bytes of UTF-8 (85, A0) would
    pass for white space.
    """
    return " ".join([word for word in value.replace("\t", " ").split(" ") if word])


def same(expected: str, given: str) -> bool:
    """Constant-time comparison of two signatures."""
    return hmac.compare_digest(expected.encode("ascii"), given.encode("utf-8", "replace"))


def check_skew(signed_at: float, now: float, request_time: str) -> None:
    """RequestTimeTooSkewed unless the request was signed within 15 minutes of now."""
    if abs(now - signed_at) > MAX_SKEW_SECONDS:
        raise S3Error(
            ErrorCode.REQUEST_TIME_TOO_SKEWED,
            details={
                "RequestTime": request_time,
                "ServerTime": format_iso8601(int(now) * 1000),
                "MaxAllowedSkewMilliseconds": str(MAX_SKEW_SECONDS * 1000),
            },
        )


def mismatch(
    access_key: str, string_to_sign: str, given: str, canonical_request: str | None = None
) -> S3Error:
    """SignatureDoesNotMatch with what we signed, so that a client's author can compare."""
    details = {
        "AWSAccessKeyId": access_key,
        "StringToSign": string_to_sign,
        "SignatureProvided": given,
        "StringToSignBytes": string_to_sign.encode("latin-1", "replace").hex(" "),
    }
    if canonical_request is not None:
        details["CanonicalRequest"] = canonical_request
        details["CanonicalRequestBytes"] = canonical_request.encode("latin-1", "replace").hex(" ")
    return S3Error(ErrorCode.SIGNATURE_DOES_NOT_MATCH, details=details)


def headers_in_query(request: S3Request) -> dict[str, str]:
    """A presigned URL's arguments by lower-case name, as text of the headers that they stand for
    where SDKs have moved some there. Header text is latin-1 (see S3Request)."""
    return {
        argument.lower(): value.encode().decode("latin-1")
        for argument, value in request.query.items()
    }


def adopt(request: S3Request, moved: Mapping[str, str]) -> None:
    """Let headers that were found in the query join the request's; one that is present as such wins.

    Raises InvalidArgument for what could be no header: answers to GET will carry it.
    """
    for name, value in moved.items():
        if not is_header_name(name) or not is_header_value(value):
            raise invalid_argument(name, value, "The argument cannot be a header.")
        request.headers.setdefault(name, value)


def expired(expires_at: int, now: float, window: str | None = None) -> S3Error:
    """AccessDenied for a presigned URL past its time."""
    details = {} if window is None else {"X-Amz-Expires": window}
    details["Expires"] = format_iso8601(expires_at * 1000)
    details["ServerTime"] = format_iso8601(int(now) * 1000)
    return S3Error(ErrorCode.REQUEST_EXPIRED, details=details)
