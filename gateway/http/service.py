"""What the connections of one worker share: the application, limits, ids, dates and the sweep."""

import asyncio
import base64
import logging
from typing import TYPE_CHECKING

from gateway.http.admission import Admission
from gateway.http.body import NoBody
from gateway.http.head import HeadParser
from gateway.http.message import Application, Finished, HttpRequest, Overloaded
from gateway.http.refusals import SLOW_DOWN, Refusal
from gateway.http.response import RETRY_AFTER_SECONDS, fixed_headers
from gateway.http.settings import HttpSettings
from gateway.s3.message import S3Response
from placement.clock import Clock, Randomness

if TYPE_CHECKING:
    from gateway.http.protocol import HttpProtocol

logger = logging.getLogger("ostraka.http")

_SWEEP_SECONDS = 1.0
_SCRATCH_BYTES = 64 * 1024
_ID_STEP = 0x9E3779B97F4A7C15
_ID_MASK = (1 << 64) - 1


class HttpService:
    """One a worker. `start` before the first connection, `stop` after the last."""

    def __init__(
        self,
        application: Application,
        *,
        settings: HttpSettings,
        clock: Clock,
        randomness: Randomness,
        finished: Finished | None = None,
        overloaded: Overloaded | None = None,
    ) -> None:
        self.application = application
        self.settings = settings
        self.clock = clock
        self.finished = finished
        self.admission = Admission(
            requests_max=settings.requests_max,
            body_bytes_max=settings.body_memory_bytes_max,
            body_request_bytes_max=settings.body_memory_request_bytes_max,
            body_stream_bytes=settings.body_memory_stream_bytes,
        )
        self.heads = HeadParser(settings.headers_max)
        self.no_body = NoBody()
        # Connections read into it in turn: a read and its handling are one step of the loop.
        self.scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self.connections: set[HttpProtocol] = set()
        self.draining = False
        """Every answer from now on is the last of its connection."""
        self.host_id = base64.b64encode(randomness.token(48)).decode()
        self.fixed_headers = ""
        self._overloaded = overloaded
        self._id = int.from_bytes(randomness.token(8), "big")
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin the sweep, on the running loop."""
        assert self._timer is None
        self._sweep()

    def stop(self) -> None:
        """End the sweep."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def new_request_id(self) -> str:
        """16 hexadecimal digits, as AWS writes them; unique in this worker, random between them."""
        self._id = (self._id + _ID_STEP) & _ID_MASK
        return f"{self._id:016X}"

    def refusal(self, refusal: Refusal, request_id: str) -> S3Response:
        """The refusal as a response."""
        response = S3Response(
            status=refusal.status,
            headers=[("Content-Type", "application/xml")],
            body=refusal.document(request_id, self.host_id),
        )
        if refusal.status == 503:
            response.headers.append(("Retry-After", str(RETRY_AFTER_SECONDS)))
        return response

    def overloaded(self, request: HttpRequest) -> S3Response:
        """The answer to a request that was not admitted."""
        request.error_code = SLOW_DOWN.code
        if self._overloaded is None:
            return self.refusal(SLOW_DOWN, request.request_id)
        response = self._overloaded(request)
        if not any(name.lower() == "retry-after" for name, _ in response.headers):
            response.headers.append(("Retry-After", str(RETRY_AFTER_SECONDS)))
        return response

    def _sweep(self) -> None:
        """Once a second: the date, and the deadlines of all connections."""
        self._timer = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)
        self.fixed_headers = fixed_headers(
            now_seconds=self.clock.now_ns() // 1_000_000_000, host_id=self.host_id
        )
        now = self.clock.monotonic()
        for connection in list(self.connections):
            connection.sweep(now)
