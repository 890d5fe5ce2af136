"""AWS Signature Version 2 in the Authorization header and in the query (presigned).

Kept because boto3 and the aws CLI presign with it when they are given an endpoint. Source: S3 User
Guide, "Signing and authenticating REST requests (Signature Version 2)".
"""

import hmac
from base64 import b64encode
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote

from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.headers import parse_http_date
from gateway.s3.message import S3Request
from gateway.s3.signature import (
    UNSIGNED_PAYLOAD,
    Verified,
    adopt,
    check_skew,
    collapsed,
    expired,
    headers_in_query,
    mismatch,
    same,
)

SCHEME: Final = "AWS "
_MOVED_HEADERS: Final = ("content-md5", "content-type")

_SIGNED_ARGUMENTS: Final = frozenset(
    {
        *("accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "encryption"),
        *("intelligent-tiering", "inventory", "legal-hold", "lifecycle", "location", "logging"),
        *("metrics", "notification", "object-lock", "ownershipControls", "partNumber", "policy"),
        *("policyStatus", "publicAccessBlock", "replication", "requestPayment", "response-"),
        *("response-cache-control", "response-content-disposition", "response-content-encoding"),
        *("response-content-language", "response-content-type", "response-expires", "restore"),
        *("retention", "select", "select-type", "storageClass", "tagging", "torrent", "uploadId"),
        *("uploads", "versionId", "versioning", "versions", "website"),
    }
)
"""Query arguments that belong to the canonical resource."""


class Claim(NamedTuple):
    """What a request says about its signature; nothing is proved before `verify`.

    `date` is the line that was signed; `expires_at` is set for a presigned URL only.
    """

    access_key: str
    signature: str
    date: str
    signed_at: int
    expires_at: int | None
    request: S3Request

    def verify(self, secret: str, now: float) -> Verified:
        """Check time and signature; `now` in seconds since the epoch.

        Headers that a presigned URL carries in its query join the request's headers. Raises
        SignatureDoesNotMatch, RequestTimeTooSkewed, AccessDenied (expired), InvalidArgument.
        """
        if self.expires_at is None:
            check_skew(self.signed_at, now, self.date or self.request.headers["x-amz-date"])
        elif now > self.expires_at:
            raise expired(self.expires_at, now)
        string_to_sign = self._string_to_sign()
        if not self._signs(secret, string_to_sign) and not any(
            self._signs(secret, variant) for variant in self._variants()
        ):
            raise mismatch(self.access_key, string_to_sign, self.signature)
        adopt(self.request, self._moved())
        return Verified(self.request.headers.get("x-amz-content-sha256", UNSIGNED_PAYLOAD))

    def _signs(self, secret: str, string_to_sign: str) -> bool:
        digest = hmac.digest(secret.encode(), string_to_sign.encode("latin-1", "replace"), "sha1")
        return same(b64encode(digest).decode("ascii"), self.signature)

    def _variants(self) -> Iterator[str]:
        """Other texts that clients sign for the same request."""
        slashes = [""]
        if self._names_bucket_only():
            # The SDKs sign a bucket's path with a final slash, but need not send it.
            slashes.append("/")
            yield self._string_to_sign(slash="/")
        if "=&" in f"{self.request.raw_query.decode('latin-1')}&":
            # minio-go sends `policy=` and signs `policy`.
            for slash in slashes:
                yield self._string_to_sign(slash=slash, bare=True)

    def _names_bucket_only(self) -> bool:
        request = self.request
        return (
            request.bucket is not None
            and request.key is None
            and not request.virtual_host
            and not request.raw_path.endswith(b"/")
        )

    def _string_to_sign(self, *, slash: str = "", bare: bool = False) -> str:
        request = self.request
        headers = {**self._moved(), **request.headers}
        lines = [
            request.method,
            headers.get("content-md5", ""),
            headers.get("content-type", ""),
            self.date,
        ]
        lines.extend(
            f"{name}:{collapsed(headers[name])}"
            for name in sorted(headers)
            if name.startswith("x-amz-")
        )
        lines.append(self._canonical_resource(slash, bare))
        return "\n".join(lines)

    def _moved(self) -> dict[str, str]:
        """The headers that a presigned URL carries in its query, and signs as what they stand for:
        x-amz-, Content-Type and Content-MD5. A header that is present as such wins."""
        if self.expires_at is None:
            return {}
        return {
            name: value
            for name, value in headers_in_query(self.request).items()
            if name.startswith("x-amz-") or name in _MOVED_HEADERS
        }

    def _canonical_resource(self, slash: str, bare: bool) -> str:
        """`bare` leaves out the sign of equality of arguments without a value."""
        request = self.request
        path = request.raw_path.decode("latin-1") + slash
        if request.virtual_host:
            path = f"/{request.bucket}{path}"
        arguments = []
        for pair in request.raw_query.decode("latin-1").split("&"):
            name, equals, value = pair.partition("=")
            if name in _SIGNED_ARGUMENTS:
                # Values are signed decoded; bytes stay bytes, as latin-1.
                mark = "" if bare and not value else equals
                arguments.append((name, mark + unquote(value, "latin-1")))
        if not arguments:
            return path
        arguments.sort()
        return path + "?" + "&".join(name + value for name, value in arguments)


def parse_header(request: S3Request) -> Claim:
    """The claim of an `Authorization: AWS key:signature` header.

    Raises InvalidArgument when it does not parse, AccessDenied without a valid date.
    """
    text = request.headers["authorization"]
    access_key, colon, signature = text[len(SCHEME) :].strip().rpartition(":")
    if not colon or not access_key or not signature:
        raise invalid_argument(
            "Authorization",
            text,
            "AWS authorization header is invalid.  Expected AwsAccessKeyId:signature",
        )
    amz_date = request.headers.get("x-amz-date")
    date = request.headers.get("date", "") if amz_date is None else amz_date
    signed_at = parse_http_date(date)
    if signed_at is None:
        raise S3Error(ErrorCode.DATE_MISSING)
    return Claim(
        access_key,
        signature,
        # With x-amz-date, which is among the signed headers, the date line is empty.
        date if amz_date is None else "",
        signed_at,
        None,
        request,
    )


def parse_query(request: S3Request) -> Claim:
    """The claim of a presigned URL (AWSAccessKeyId, Signature, Expires); AccessDenied if broken."""
    query = request.query
    access_key = query.get("AWSAccessKeyId")
    signature = query.get("Signature")
    expires = query.get("Expires")
    if not access_key or not signature or not expires:
        raise S3Error(
            ErrorCode.ACCESS_DENIED,
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId "
            "parameters",
        )
    if not expires.isascii() or not expires.isdigit() or len(expires) > 12:
        raise S3Error(
            ErrorCode.ACCESS_DENIED,
            f"Invalid date (should be seconds since epoch): {expires}",
        )
    return Claim(access_key, signature, expires, 0, int(expires), request)
