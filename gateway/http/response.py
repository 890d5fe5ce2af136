"""The head of an HTTP response: an S3 response in, bytes out. No I/O."""

from email.utils import formatdate
from http import HTTPStatus

from gateway.s3.message import S3Response

RETRY_AFTER_SECONDS = 1

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus
}
_BODILESS = frozenset((204, 304))


class UnsafeHeaderError(Exception):
    """A response header holds a line break or NUL: a bug above, and never sent."""


def has_body(method: str, status: int) -> bool:
    """Whether the bytes of a body follow such a head (RFC 9110, 6.4.1)."""
    return method != "HEAD" and status not in _BODILESS


def fixed_headers(*, now_seconds: float, host_id: str) -> str:
    """The lines that are the same for all responses of a second."""
    date = formatdate(now_seconds, usegmt=True)
    return f"Date: {date}\r\nServer: Ostraka\r\nx-amz-id-2: {host_id}\r\n"


def encode_head(
    response: S3Response, *, fixed: str, request_id: str, length: int, keep_alive: bool
) -> bytes:
    """Status line and headers, blank line included; `length` is that of the body as it would be
    sent to a GET. UnsafeHeaderError when a header would end its line."""
    headers = response.headers
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise UnsafeHeaderError
    status = response.status
    start = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"
    # A 204 must not have a length; that of a 304 is optional and easily wrong.
    size = "" if status in _BODILESS else f"Content-Length: {length}\r\n"
    end = "\r\n" if keep_alive else "Connection: close\r\n\r\n"
    try:
        return f"{start}{fixed}x-amz-request-id: {request_id}\r\n{lines}{size}{end}".encode(
            "latin-1"
        )
    except UnicodeEncodeError:
        encoded = b"".join([_encode_line(name, value) for name, value in headers])
        before = f"{start}{fixed}x-amz-request-id: {request_id}\r\n".encode("latin-1")
        return before + encoded + f"{size}{end}".encode("latin-1")


def _encode_line(name: str, value: str) -> bytes:
    """Latin-1 where it fits, so that received bytes go back unchanged; UTF-8 otherwise."""
    line = f"{name}: {value}\r\n"
    try:
        return line.encode("latin-1")
    except UnicodeEncodeError:
        return line.encode("utf-8", "surrogateescape")
