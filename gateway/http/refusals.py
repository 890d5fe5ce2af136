"""What the HTTP layer answers by itself, before or instead of the application."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """An S3 error whose text holds nothing of the request, so that nothing needs escaping."""

    status: int
    code: str
    message: str

    def document(self, request_id: str, host_id: str) -> bytes:
        """The XML that S3 clients expect."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{self.code}</Code><Message>{self.message}</Message>"
            f"<RequestId>{request_id}</RequestId><HostId>{host_id}</HostId></Error>"
        ).encode()


class RefusedError(Exception):
    """The bytes on the connection cannot be served: answer with the refusal, then close."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


# Codes and messages: Amazon S3 API Reference, "Error responses", where it has one.
BAD_REQUEST = Refusal(400, "BadRequest", "An error occurred when parsing the HTTP request.")
BAD_CONTENT_LENGTH = Refusal(400, "BadRequest", "The Content-Length header is not valid.")
TWO_FRAMINGS = Refusal(
    400, "BadRequest", "A request must not have both Content-Length and Transfer-Encoding."
)
BAD_HOST = Refusal(400, "BadRequest", "The Host header is missing, repeated or not valid.")
BAD_TARGET = Refusal(400, "InvalidURI", "Couldn't parse the specified URI.")
BAD_CHUNK = Refusal(400, "BadRequest", "The chunked transfer coding of the body is not valid.")
HEAD_TOO_LARGE = Refusal(
    400,
    "RequestHeaderSectionTooLarge",
    "Your request header section exceeds the maximum allowed size.",
)
INCOMPLETE_BODY = Refusal(
    400,
    "IncompleteBody",
    "You did not provide the number of bytes specified by the Content-Length HTTP header.",
)
REQUEST_TIMEOUT = Refusal(
    400,
    "RequestTimeout",
    "Your socket connection to the server was not read from or written to within the timeout"
    " period. Idle connections will be closed.",
)
TRANSFER_ENCODING = Refusal(
    501,
    "NotImplemented",
    "A header you provided implies functionality that is not implemented: Transfer-Encoding.",
)
HTTP_VERSION = Refusal(
    505, "HttpVersionNotSupported", "The HTTP version is not supported; use HTTP/1.1."
)
SLOW_DOWN = Refusal(503, "SlowDown", "Please reduce your request rate.")
INTERNAL_ERROR = Refusal(
    500, "InternalError", "We encountered an internal error. Please try again."
)
