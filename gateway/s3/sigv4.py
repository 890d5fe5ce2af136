"""AWS Signature Version 4 in the Authorization header and in the query (presigned).

Source: S3 API Reference, "Authenticating Requests (AWS Signature Version 4)". `parse_header` and
`parse_query` read what the client claims; the caller looks the secret up; `Claim.verify` decides.
"""

import hashlib
import hmac
import re
from calendar import timegm
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote_to_bytes

import msgspec

from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.headers import parse_http_date
from gateway.s3.message import BUCKET_REGION, S3Request
from gateway.s3.signature import (
    STREAMING_SIGNED,
    STREAMING_SIGNED_TRAILER,
    STREAMING_UNSIGNED_TRAILER,
    UNSIGNED_PAYLOAD,
    Signer,
    Verified,
    adopt,
    check_skew,
    collapsed,
    expired,
    headers_in_query,
    mismatch,
    same,
    signer_with,
)

ALGORITHM: Final = "AWS4-HMAC-SHA256"
SERVICE: Final = "s3"
MAX_EXPIRES_SECONDS: Final = 7 * 24 * 3600
"""Longest life of a presigned URL."""
MAX_SIGNED_HEADERS: Final = 100

_STREAMING: Final = frozenset(
    {UNSIGNED_PAYLOAD, STREAMING_SIGNED, STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER}
)
_COMPONENTS: Final = (
    "The authorization header is malformed; the authorization header requires three components: "
    "Credential, SignedHeaders, and Signature."
)
_START_CHARACTERS_MAX: Final = 512
"""Of an Authorization header before the signature: longer ones are not remembered."""
_HEX_64: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_TIMESTAMP: Final = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_CANONICAL_PATH: Final = re.compile(rb"[A-Za-z0-9\-._~/]*(?:%[0-9A-F]{2}[A-Za-z0-9\-._~/]*)*")
_CANONICAL_WORD: Final = re.compile(
    r"[A-Za-z0-9\-._~]*(?:%[0-9A-F]{2}[A-Za-z0-9\-._~]*)*", re.ASCII
)


class Claim(msgspec.Struct, frozen=True):
    """What a request says about its signature; nothing is proved before `verify`."""

    access_key: str
    scope: str
    region: str
    timestamp: str
    signed_at: int
    signed_headers: tuple[str, ...]
    signature: str
    content_sha256: str
    expires_seconds: int | None
    request: S3Request
    service: str = SERVICE

    def verify(self, secret: str, now: float) -> Verified:
        """Check time and signature; `now` in seconds since the epoch.

        Headers that a presigned URL carries in its query join the request's headers. Raises
        SignatureDoesNotMatch, RequestTimeTooSkewed, AccessDenied (expired), InvalidArgument.
        """
        self._check_time(now)
        canonical = self._canonical_request()
        signer = signer_of(secret, self.scope[:8], self.region, self.service)
        # Header text is latin-1, so this restores the bytes that the client sent.
        string_to_sign = self._string_to_sign(canonical.encode("latin-1", "replace"))
        expected = signer.sign(string_to_sign.encode("latin-1", "replace"))
        if not same(expected, self.signature):
            if canonical.isascii():
                raise mismatch(self.access_key, string_to_sign, self.signature, canonical)
            # botocore signs header values as UTF-8, and then sends them as latin-1.
            signed = self._string_to_sign(canonical.encode("utf-8", "replace"))
            expected = signer.sign(signed.encode("latin-1", "replace"))
            if not same(expected, self.signature):
                raise mismatch(self.access_key, string_to_sign, self.signature, canonical)
        if self.expires_seconds is not None:
            _adopt_query_headers(self.request, self.signed_headers)
        return Verified(self.content_sha256, signer.key, expected, self.timestamp, self.scope)

    def _string_to_sign(self, canonical: bytes) -> str:
        digest = hashlib.sha256(canonical).hexdigest()
        return f"{ALGORITHM}\n{self.timestamp}\n{self.scope}\n{digest}"

    def _check_time(self, now: float) -> None:
        if self.expires_seconds is None:
            check_skew(self.signed_at, now, self.timestamp)
            return
        if now > self.signed_at + self.expires_seconds:
            raise expired(self.signed_at + self.expires_seconds, now, str(self.expires_seconds))
        if self.signed_at > now:
            try:
                check_skew(self.signed_at, now, self.timestamp)
            except S3Error:
                raise S3Error(ErrorCode.REQUEST_NOT_YET_VALID) from None

    def _canonical_request(self) -> str:
        request = self.request
        headers, names = request.headers, self.signed_headers
        if self.expires_seconds is not None and not headers.keys() >= set(names):
            # The JavaScript SDK (version 2) names as signed what it carries only in the query.
            headers = {**headers_in_query(request), **headers}
        lines = "".join([f"{name}:{headers.get(name, '')}\n" for name in names])
        if "  " in lines or "\t" in lines:
            lines = "".join([f"{name}:{collapsed(headers.get(name, ''))}\n" for name in names])
        query = (
            canonical_query(request.raw_query, skip_signature=self.expires_seconds is not None)
            if request.raw_query
            else ""
        )
        return (
            f"{request.method}\n{canonical_path(request.raw_path)}\n{query}\n{lines}\n"
            f"{';'.join(names)}\n{self.content_sha256}"
        )


def parse_header(request: S3Request, region: str, *, service: str = SERVICE) -> Claim:
    """The claim of an `Authorization: AWS4-HMAC-SHA256 …` header; `region` is the gateway's.

    Of another `service` than S3, clients sign in whichever region they think that it is in, and the
    body's digest need not be told: whoever reads the body puts it into the claim.

    Raises AuthorizationHeaderMalformed, AccessDenied (no date, unsigned headers), InvalidRequest.
    """
    headers = request.headers
    start, signature = _cut_signature(headers["authorization"])
    read_start = _read_start if len(start) <= _START_CHARACTERS_MAX else _read_start.__wrapped__
    access_key, scope, scope_region, signed_headers = read_start(
        start, region, service, "location" in request.query
    )
    if not signature:
        raise _malformed(_COMPONENTS)
    timestamp, signed_at = _header_time(headers)
    if timestamp[:8] != scope[:8]:
        raise _malformed(
            "The authorization header is malformed; Invalid credential date. Date is not the same "
            "as X-Amz-Date."
        )
    content_sha256 = headers.get("x-amz-content-sha256")
    if service != SERVICE:
        content_sha256 = UNSIGNED_PAYLOAD
    if content_sha256 is None:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            "Missing required header for this request: x-amz-content-sha256",
        )
    _check_content_sha256(content_sha256)
    _check_signed_headers(request, signed_headers)
    return Claim(
        access_key,
        scope,
        scope_region,
        timestamp,
        signed_at,
        signed_headers,
        signature,
        content_sha256,
        None,
        request,
        service,
    )


def parse_query(request: S3Request, region: str) -> Claim:
    """The claim of a presigned URL (X-Amz-Algorithm and its companions).

    S3 does not ask that x-amz-content-sha256 be signed here, which HTTP clients add on their own.
    Raises AuthorizationQueryParametersError, AccessDenied (unsigned headers), NotImplemented.
    """
    query = request.query
    if query["X-Amz-Algorithm"] != ALGORITHM:
        raise _query_error('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"')
    try:
        credential = query["X-Amz-Credential"]
        signature = query["X-Amz-Signature"]
        timestamp = query["X-Amz-Date"]
        signed_headers = query["X-Amz-SignedHeaders"]
        expires = query["X-Amz-Expires"]
    except KeyError:
        raise _query_error(
            "Query-string authentication version 4 requires the X-Amz-Algorithm, "
            "X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and "
            "X-Amz-Expires parameters."
        ) from None
    access_key, scope, scope_region = parse_credential(
        credential, request.query, region, ErrorCode.AUTHORIZATION_QUERY_PARAMETERS_ERROR
    )
    names = _signed_names(signed_headers)
    signed_at = timestamp_seconds(timestamp)
    if signed_at is None:
        raise _query_error("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    if timestamp[:8] != scope[:8]:
        raise _query_error("Invalid credential date. Date is not the same as X-Amz-Date.")
    expires_seconds = _expires(expires)
    content_sha256 = query.get("X-Amz-Content-Sha256") or request.headers.get(
        "x-amz-content-sha256", UNSIGNED_PAYLOAD
    )
    _check_content_sha256(content_sha256)
    _check_signed_headers(request, (*names, "x-amz-content-sha256"))
    return Claim(
        access_key,
        scope,
        scope_region,
        timestamp,
        signed_at,
        names,
        signature,
        content_sha256,
        expires_seconds,
        request,
    )


def signing_key(secret: str, date: str, region: str, service: str = SERVICE) -> bytes:
    """The day's key: four HMACs."""
    key = hmac.digest(f"AWS4{secret}".encode(), date.encode(), "sha256")
    for word in (region, service, "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    return key


@lru_cache(maxsize=1024)
def signer_of(secret: str, date: str, region: str, service: str) -> Signer:
    """The day's signer; remembered, since every request of a client that day uses it.

    Keyed by the secret itself, so a changed secret never meets an old key.
    """
    return signer_with(signing_key(secret, date, region, service))


@lru_cache(maxsize=256)
def timestamp_seconds(timestamp: str) -> int | None:
    """Seconds since the epoch of `yyyymmddThhmmssZ`, or None."""
    if _TIMESTAMP.fullmatch(timestamp) is None:
        return None
    year, month, day = int(timestamp[:4]), int(timestamp[4:6]), int(timestamp[6:8])
    hour, minute, second = int(timestamp[9:11]), int(timestamp[11:13]), int(timestamp[13:15])
    if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60):
        return None
    return timegm((year, month, day, hour, minute, second))


def canonical_path(raw_path: bytes) -> str:
    """The path as S3 signs it: encoded once, `/` kept, nothing normalised.

    A path that is already in that form stays as received; SDKs send it so.
    """
    if _CANONICAL_PATH.fullmatch(raw_path) is not None:
        return raw_path.decode("ascii")
    return quote(unquote_to_bytes(raw_path), safe="/-_.~")


def canonical_query(raw_query: bytes, *, skip_signature: bool) -> str:
    """The query sorted and encoded as it is signed; a presigned URL does not sign its signature."""
    pairs = []
    for pair in raw_query.decode("latin-1").split("&"):
        if not pair:
            continue
        name, _, value = pair.partition("=")
        name = _canonical_word(name)
        if skip_signature and name == "X-Amz-Signature":
            continue
        pairs.append((name, _canonical_word(value)))
    if len(pairs) > 1:
        pairs.sort()
    return "&".join([f"{name}={value}" for name, value in pairs])


def _canonical_word(word: str) -> str:
    if _CANONICAL_WORD.fullmatch(word) is not None:
        return word
    return quote(unquote_to_bytes(word.replace("+", " ").encode("latin-1")), safe="-_.~")


_AUTHENTICATION_ARGUMENTS: Final = frozenset(
    {
        *("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires"),
        *("x-amz-signedheaders", "x-amz-signature", "x-amz-content-sha256", "x-amz-user-agent"),
    }
)
_CONDITIONS: Final = frozenset(
    {"if-match", "if-none-match", "if-modified-since", "if-unmodified-since"}
)
_CHECKSUM_VALUE: Final = re.compile(
    r"x-amz-(?:sdk-checksum-algorithm|checksum-(?!algorithm$|type$|mode$).*)"
)


def _adopt_query_headers(request: S3Request, signed: tuple[str, ...]) -> None:
    """SDKs move x-amz- headers and conditions into a presigned URL's query, where they are signed;
    S3 treats them as the headers they stand for. A header that is present as such wins.

    Checksum values are left out, as S3 leaves them out, unless they are among the headers that were
    `signed`: the JavaScript SDK presigns the checksum of an empty body there.
    """
    moved = {
        name: value
        for name, value in headers_in_query(request).items()
        if name in signed
        or name in _CONDITIONS
        or (
            name.startswith("x-amz-")
            and name not in _AUTHENTICATION_ARGUMENTS
            and _CHECKSUM_VALUE.fullmatch(name) is None
        )
    }
    adopt(request, moved)


def _cut_signature(authorization: str) -> tuple[str, str]:
    """What comes before the signature, and the signature, which clients put last."""
    start, mark, signature = authorization.rpartition("Signature=")
    if mark and "," not in signature:
        return start, signature
    fields = _fields(authorization)
    signature = fields.pop("Signature", "")
    before = "".join([f"{name}={value}, " for name, value in fields.items()])
    return f"{ALGORITHM} {before}", signature


@lru_cache(maxsize=1024)
def _read_start(
    start: str, region: str, service: str, asks_for_location: bool
) -> tuple[str, str, str, tuple[str, ...]]:
    """(access key, scope, region, signed headers) of an Authorization header up to its signature;
    remembered, since a client's requests of a day have the same. Raises AuthorizationHeaderMalformed
    and InvalidRequest."""
    fields = _fields(f"{start}Signature=-")
    credential, signed_headers = fields.get("Credential"), fields.get("SignedHeaders")
    if not credential or not signed_headers or fields.get("Signature") != "-":
        raise _malformed(_COMPONENTS)
    access_key, scope, scope_region = parse_credential(
        credential,
        {"location": ""} if asks_for_location else {},
        region,
        ErrorCode.AUTHORIZATION_HEADER_MALFORMED,
        service,
    )
    return access_key, scope, scope_region, _signed_names(signed_headers)


def _signed_names(signed_headers: str) -> tuple[str, ...]:
    """The names that SignedHeaders lists."""
    names = tuple(signed_headers.split(";", MAX_SIGNED_HEADERS))
    if len(names) > MAX_SIGNED_HEADERS:
        raise S3Error(ErrorCode.INVALID_REQUEST, "Too many signed headers.")
    return names


def _fields(authorization: str) -> dict[str, str]:
    """The comma-separated `name=value` fields after the algorithm."""
    fields: dict[str, str] = {}
    for field in authorization[len(ALGORITHM) :].split(",", 8):
        name, equals, value = field.strip().partition("=")
        if not equals or name in fields:
            raise _malformed("The authorization header is malformed; it does not parse.")
        fields[name] = value
    return fields


def parse_credential(
    credential: str,
    query: Mapping[str, str],
    region: str,
    code: ErrorCode,
    expected_service: str = SERVICE,
) -> tuple[str, str, str]:
    """(access key, scope, region) of `key/date/region/s3/aws4_request`. Keys may hold slashes."""
    what = (
        "The authorization header is malformed; "
        if code is ErrorCode.AUTHORIZATION_HEADER_MALFORMED
        else "Error parsing the X-Amz-Credential parameter; "
    )
    pieces = credential.rsplit("/", 4)
    if len(pieces) != 5 or not pieces[0]:
        raise S3Error(
            code,
            f'{what}the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/'
            'aws4_request".',
        )
    access_key, date, scope_region, service, terminator = pieces
    if len(date) != 8 or not date.isdigit() or not date.isascii():
        raise S3Error(
            code,
            f'{what}incorrect date format "{date}". This date in the credential must be in the '
            'format "yyyyMMdd".',
        )
    # Clients that do not know a bucket's region ask for its location in us-east-1.
    if (
        scope_region != region
        and expected_service == SERVICE
        and not (scope_region == "us-east-1" and "location" in query)
    ):
        raise S3Error(
            code,
            f"{what}the region '{scope_region}' is wrong; expecting '{region}'",
            details={"Region": region},
            headers={BUCKET_REGION: region},
        )
    if service != expected_service:
        raise S3Error(
            code,
            f'{what}incorrect service "{service}". This endpoint belongs to "{expected_service}".',
        )
    if terminator != "aws4_request":
        raise S3Error(
            code,
            f'{what}incorrect terminal "{terminator}". This endpoint uses "aws4_request".',
        )
    return access_key, f"{date}/{scope_region}/{service}/aws4_request", scope_region


def _header_time(headers: dict[str, str]) -> tuple[str, int]:
    """(timestamp as signed, seconds) of x-amz-date, else Date."""
    text = headers.get("x-amz-date")
    if text is None:
        text = headers.get("date", "")
    text = text.strip()
    seconds = timestamp_seconds(text)
    if seconds is not None:
        return text, seconds
    seconds = parse_http_date(text)
    if seconds is None:
        raise S3Error(ErrorCode.DATE_MISSING)
    return _format_timestamp(seconds), seconds


def _format_timestamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


def _expires(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise _query_error(
            "X-Amz-Expires must be non-negative"
            if text.startswith("-")
            else "X-Amz-Expires should be a number"
        )
    seconds = int(text[:12])
    if seconds > MAX_EXPIRES_SECONDS:
        raise _query_error(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given "
            "X-Amz-Expires must be less than 604800 seconds"
        )
    return seconds


def _check_content_sha256(value: str) -> None:
    if value in _STREAMING or _HEX_64.fullmatch(value) is not None:
        return
    if value.startswith("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"):
        raise S3Error(
            ErrorCode.NOT_IMPLEMENTED, "Signature version 4A is not implemented by this server."
        )
    raise invalid_argument(
        "x-amz-content-sha256",
        value,
        f"x-amz-content-sha256 must be {UNSIGNED_PAYLOAD}, {STREAMING_UNSIGNED_TRAILER}, "
        f"{STREAMING_SIGNED}, {STREAMING_SIGNED_TRAILER} or a valid sha256 value.",
    )


def _check_signed_headers(request: S3Request, signed: tuple[str, ...]) -> None:
    """`host` and every x-amz- header that is present must be signed."""
    unsigned = [
        name for name in request.headers if name.startswith("x-amz-") and name not in signed
    ]
    if "host" not in signed:
        unsigned.insert(0, "host")
    if unsigned:
        raise S3Error(
            ErrorCode.HEADERS_NOT_SIGNED, details={"HeadersNotSigned": ", ".join(unsigned)}
        )


def _malformed(message: str) -> S3Error:
    return S3Error(ErrorCode.AUTHORIZATION_HEADER_MALFORMED, message)


def _query_error(message: str) -> S3Error:
    return S3Error(ErrorCode.AUTHORIZATION_QUERY_PARAMETERS_ERROR, message)
