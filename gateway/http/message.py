"""HTTP requests as values, and what the HTTP layer and the application ask of each other."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from gateway.s3.message import S3Response


class BodyTooLargeError(Exception):
    """The body is longer than the reader's limit: answer with EntityTooLarge or the like."""


class RawBody(Protocol):
    """A request body as framed by HTTP (Content-Length or chunked), before aws-chunked.

    Every read raises `ClientDisconnected` once the client left, stalled past its deadline or broke
    the framing; the protocol has then answered already, and what the application returns is
    dropped. One reader at a time.
    """

    size_bytes: int | None
    """Content-Length; 0 without a body, None when chunked."""

    async def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer; fewer bytes than its length only at the body's end, 0 after it.

        The buffer belongs to the socket until this returns or is cancelled.
        """
        ...

    async def read_all(self, limit_bytes: int) -> bytes:
        """The rest of the body; BodyTooLargeError when it is longer than the limit."""
        ...

    def take_now(self) -> bytes | None:
        """The rest of the body if all of it was received already, else None (nothing is taken)."""
        ...


class HttpRequest(msgspec.Struct, eq=False):
    """One request, and the notes from which its access log line and its metrics are made.

    `target` is the raw path and query as received. `headers` has lower-case names and values
    decoded as latin-1 (so every byte survives), repeated ones joined with ",". `remote` is the
    client's address without port ("" on a Unix socket). `request_id` and `host_id` go out as
    x-amz-request-id and x-amz-id-2, and belong into error documents.
    """

    method: str
    target: bytes
    headers: dict[str, str]
    body: RawBody
    secure: bool
    remote: str
    received_monotonic: float
    request_id: str
    host_id: str = ""
    # Noted by the application on its way, for the log line.
    operation: str = ""
    bucket: str = ""
    key: str = ""
    access_key: str = ""
    error_code: str = ""
    met_bug: bool = False
    # Noted by the protocol; complete when `Finished` is called. Status 0: no answer was sent.
    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    first_byte_seconds: float = 0.0
    total_seconds: float = 0.0


Application = Callable[[HttpRequest], S3Response | Awaitable[S3Response]]
"""Answers a request: at once when nothing has to be waited for, which saves a task. Errors are
answers; an exception it lets out is a bug, logged, and a 500. `ClientDisconnected` may pass through.
"""

Finished = Callable[[HttpRequest], None]
"""Called once for each request, also refused and broken ones, after its last byte went out."""

Overloaded = Callable[[HttpRequest], S3Response]
"""Makes the answer to a request that admission control turned away."""
