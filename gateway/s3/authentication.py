"""Which signature a request carries: SigV4 or SigV2, in the header or in the query, or none."""

from typing import Final

from gateway.s3 import sigv2, sigv4
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import S3Request

Claim = sigv4.Claim | sigv2.Claim

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
    _refuse_session_token(request.headers.get("x-amz-security-token"))
    if authorization.startswith(sigv4.ALGORITHM):
        return sigv4.parse_header(request, region)
    if authorization.startswith(sigv2.SCHEME):
        return sigv2.parse_header(request)
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
        _refuse_session_token(query.get("X-Amz-Security-Token"))
        return sigv4.parse_query(request, region)
    if "X-Amz-Signature" in query:
        raise S3Error(
            ErrorCode.AUTHORIZATION_QUERY_PARAMETERS_ERROR,
            "X-Amz-Signature needs the X-Amz-Algorithm parameter.",
        )
    _refuse_session_token(query.get("x-amz-security-token"))
    return sigv2.parse_query(request)


def _refuse_session_token(token: str | None) -> None:
    """No temporary credentials are issued here, so no session token can be a valid one."""
    if token is not None:
        raise S3Error(ErrorCode.INVALID_TOKEN)
