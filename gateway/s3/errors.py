"""S3 errors: one table, one exception type."""

from enum import Enum
from typing import Mapping


class ClientDisconnected(Exception):
    """The client went away or stalled past its deadline; there is nobody to answer."""


class ErrorCode(Enum):
    """Every error this gateway can answer with: code, HTTP status, default message.

    Source: Amazon S3 API Reference, "Error responses".
    """

    ACCESS_DENIED = ("AccessDenied", 403, "Access Denied")
    INTERNAL_ERROR = (
        "InternalError", 500, "We encountered an internal error. Please try again.",
    )
    NO_SUCH_BUCKET = ("NoSuchBucket", 404, "The specified bucket does not exist")
    NO_SUCH_KEY = ("NoSuchKey", 404, "The specified key does not exist.")
    NOT_IMPLEMENTED = (
        "NotImplemented", 501,
        "A header you provided implies functionality that is not implemented.",
    )

    def __init__(self, code: str, status: int, message: str) -> None:
        self.code = code
        self.status = status
        self.message = message


class S3Error(Exception):
    """An answer to the client. `details` become extra XML elements, `headers` extra headers.

    `code` INTERNAL_ERROR is for the pipeline alone. 304 and other bodiless statuses are responses,
    not errors.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str | None = None,
        *,
        details: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message or code.message)
        self.code = code
        self.message = message or code.message
        self.details = dict(details or {})
        self.headers = dict(headers or {})
