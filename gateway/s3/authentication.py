"""Which signature a request carries: SigV4 or SigV2, in the header or in the query, or none."""

from typing import Final

from gateway.s3 import sigv2, sigv4
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import S3Request

Claim = sigv4.Claim | sigv2.Claim

TEMPORARY: Final = "ASIA"
"""How access keys of sessions begin."""

_MECHANISMS: Final = (
    "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query "
    "string parameter or the Authorization header should be specified"
)


def parse_claim(request: S3Request, *, region: str) -> Claim | None:
    """The request's claim, or None when it is anonymous.

    Nothing is verified yet: `claim.access_key` names the secret to look up (InvalidAccessKeyId when there is none), then
    `claim.verify(secret, now)` returns a `Verified` or raises.
    """
    authorization = request.headers.get("authorization")
    query = request.query
    in_query = bool(query) and (
        "X-Amz-Algorithm" in query
        or "X-Amz-Signature" in query
        or "AWSAccessKeyId" in query
        or "Signature" in query
    )
    if not authorization:
        return _query_claim(request, region) if in_query else None
    if in_query:
        raise S3Error(ErrorCode.INVALID_ARGUMENT, _MECHANISMS)
    if authorization.startswith(sigv4.ALGORITHM):
        claim: Claim = sigv4.parse_header(request, region)
        if "x-amz-security-token" in request.headers:
            demand_temporary(claim.access_key)
        return claim
    if authorization.startswith(sigv2.SCHEME):
        claim = sigv2.parse_header(request)
        if "x-amz-security-token" in request.headers:
            demand_temporary(claim.access_key)
        return claim
    if authorization.startswith("AWS4-"):
        raise S3Error(
            ErrorCode.NOT_IMPLEMENTED, "This signature algorithm is not implemented by this server."
        )
    # The value may be another scheme's password: it is not repeated.
    raise S3Error(
        ErrorCode.INVALID_ARGUMENT,
        "Unsupported Authorization Type",
        details={"ArgumentName": "Authorization"},
    )


def _query_claim(request: S3Request, region: str) -> Claim:
    query = request.query
    if "X-Amz-Algorithm" in query:
        if "AWSAccessKeyId" in query or "Signature" in query:
            raise S3Error(ErrorCode.INVALID_ARGUMENT, _MECHANISMS)
        claim: Claim = sigv4.parse_query(request, region)
        if "X-Amz-Security-Token" in query:
            demand_temporary(claim.access_key)
        return claim
    if "X-Amz-Signature" in query:
        raise S3Error(
            ErrorCode.AUTHORIZATION_QUERY_PARAMETERS_ERROR,
            "X-Amz-Signature needs the X-Amz-Algorithm parameter.",
        )
    claim = sigv2.parse_query(request)
    if "x-amz-security-token" in query:
        demand_temporary(claim.access_key)
    return claim


def demand_temporary(access_key: str) -> None:
    """InvalidToken when a session's token comes with an access key that is not a session's."""
    if not access_key.startswith(TEMPORARY):
        raise S3Error(ErrorCode.INVALID_TOKEN)
