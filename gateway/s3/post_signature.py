"""Who signed a form: the SigV4 and SigV2 fields of browser uploads. The policy's text is signed.

Source: S3 API Reference, "Authenticating Requests: Browser-Based Uploads Using POST".
"""

import hmac
from base64 import b64encode
from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.s3 import sigv4
from gateway.s3.authentication import demand_temporary
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.signature import mismatch, same

AUTHENTICATION_FIELDS: Final = frozenset(
    {
        *("awsaccesskeyid", "policy", "signature", "x-amz-algorithm", "x-amz-credential"),
        *("x-amz-date", "x-amz-security-token", "x-amz-signature"),
    }
)
"""Fields that say who asks, and nothing of the object."""


class PostClaim(NamedTuple):
    """What a form says about its signature; nothing is proved before `verify`. `date` and `region`
    are those of the SigV4 credential, "" with SigV2."""

    access_key: str
    policy: str
    signature: str
    date: str
    region: str

    def verify(self, secret: str) -> None:
        """SignatureDoesNotMatch unless the secret's owner signed the policy."""
        text = self.policy.encode()
        if self.date:
            key = sigv4.signing_key(secret, self.date, self.region)
            expected = hmac.digest(key, text, "sha256").hex()
        else:
            expected = b64encode(hmac.digest(secret.encode(), text, "sha1")).decode("ascii")
        if not same(expected, self.signature):
            raise mismatch(self.access_key, self.policy, self.signature)


def session_token_in(fields: Mapping[str, str], access_key: str) -> str | None:
    """The token of temporary credentials in a form. Raises InvalidToken."""
    token = fields.get("x-amz-security-token")
    if token is not None:
        demand_temporary(access_key)
    return token


def parse_post_claim(fields: Mapping[str, str], region: str) -> PostClaim | None:
    """The form's claim, or None when it is anonymous. `fields` by lower-case name.

    Raises InvalidArgument when the fields of a signature are not complete.
    """
    if AUTHENTICATION_FIELDS.isdisjoint(fields):
        return None
    if "x-amz-algorithm" not in fields and "x-amz-signature" not in fields:
        return PostClaim(
            _required(fields, "AWSAccessKeyId"),
            _required(fields, "policy"),
            _required(fields, "signature"),
            "",
            "",
        )
    if "awsaccesskeyid" in fields or "signature" in fields:
        raise S3Error(ErrorCode.INVALID_ARGUMENT, "Only one auth mechanism allowed")
    algorithm = _required(fields, "X-Amz-Algorithm")
    if algorithm != sigv4.ALGORITHM:
        raise invalid_argument(
            "X-Amz-Algorithm", algorithm, f'X-Amz-Algorithm only supports "{sigv4.ALGORITHM}"'
        )
    access_key, scope, scope_region = sigv4.parse_credential(
        _required(fields, "X-Amz-Credential"), {}, region, ErrorCode.INVALID_ARGUMENT
    )
    timestamp = _required(fields, "X-Amz-Date")
    if sigv4.timestamp_seconds(timestamp) is None or timestamp[:8] != scope[:8]:
        raise invalid_argument(
            "X-Amz-Date",
            timestamp,
            "X-Amz-Date must be formatted as yyyyMMdd'T'HHmmss'Z' and of the credential's day",
        )
    return PostClaim(
        access_key,
        _required(fields, "policy"),
        _required(fields, "X-Amz-Signature"),
        scope[:8],
        scope_region,
    )


def _required(fields: Mapping[str, str], name: str) -> str:
    value = fields.get(name.lower())
    if not value:
        raise missing_field(name)
    return value


def missing_field(name: str) -> S3Error:
    """InvalidArgument for a field that must be there, before the file."""
    return invalid_argument(
        name,
        "",
        f"Bucket POST must contain a field named '{name}'.  If it is specified, please check the "
        "order of the fields.",
    )
