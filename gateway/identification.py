"""Whose access key signs a request: that of an account's root, of a user, or of a session."""

from gateway.metadata.accounts import Identity
from gateway.metadata.store import Metadata
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import S3Request


def session_token_of(request: S3Request) -> str | None:
    """The token that comes with temporary credentials, wherever the signature is."""
    token = request.headers.get("x-amz-security-token")
    if token is None and request.query:
        query = request.query
        token = query.get("X-Amz-Security-Token") or query.get("x-amz-security-token")
    return token


async def identify(metadata: Metadata, access_key: str, token: str | None) -> Identity:
    """Raises S3Error (InvalidAccessKeyId, InvalidToken), SessionExpired and what reading raises."""
    if token is None:
        identity = await metadata.identity(access_key)
        if identity is None:
            raise S3Error(ErrorCode.INVALID_ACCESS_KEY_ID, details={"AWSAccessKeyId": access_key})
        return identity
    identity = await metadata.session_identity(access_key, token)
    if identity is None:
        raise S3Error(ErrorCode.INVALID_TOKEN)
    return identity
