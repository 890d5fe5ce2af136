"""HTTP/1.1 on one connection: bytes to requests, responses to bytes, in order and bounded.

One request is served at a time. A response that cannot be finished cuts the connection. Deadlines
are kept by `sweep`, which compares what it sees with what it saw before, so that the hot path
sets no timer.
"""

import asyncio
import logging
from collections.abc import Awaitable
from enum import Enum
from typing import Any, Protocol, cast

from gateway.http import refusals
from gateway.http.body import RequestBody
from gateway.http.deadlines import Deadline
from gateway.http.head import END_OF_HEAD, RequestHead, cannot_become_head
from gateway.http.message import HttpRequest
from gateway.http.outlet import Outlet
from gateway.http.refusals import Refusal, RefusedError
from gateway.http.response import UnsafeHeaderError, encode_head, has_body
from gateway.http.service import HttpService
from gateway.s3.errors import ClientDisconnected
from gateway.s3.message import S3Response

logger = logging.getLogger("ostraka.http")

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Phase(Enum):
    """What a connection is doing."""

    HEAD = "waiting for a request or for the rest of its head"
    SERVING = "a request is with the application or its response is being sent"
    QUEUED = "the next request, or its start, is here and waits for its turn of the loop"
    DRAINING = "swallowing the rest of a body that nobody read"
    LINGERING = "answered for the last time; swallowing what the client still sends"
    CLOSED = "closed, or closing once the last bytes are out"


class ServerState(Protocol):
    """What uvicorn keeps of its protocols: it asks `connections` to shut down and waits for both
    sets to empty, then cancels `tasks`."""

    connections: set[Any]
    tasks: set[asyncio.Task[None]]


class HttpProtocol(asyncio.BufferedProtocol):
    """One connection. uvicorn calls the factory with its own keyword arguments."""

    __slots__ = (
        "_body",
        "_close_after",
        "_continue_due",
        "_deadline",
        "_direct",
        "_ended",
        "_loop",
        "_outlet",
        "_pending",
        "_phase",
        "_reading_paused",
        "_received_bytes",
        "_refused",
        "_remote",
        "_request",
        "_responding",
        "_scratch",
        "_secure",
        "_serial",
        "_server_state",
        "_service",
        "_task",
        "_transport",
    )

    _transport: asyncio.Transport
    _outlet: Outlet

    def __init__(
        self,
        service: HttpService,
        *,
        server_state: ServerState,
        config: object = None,
        app_state: object = None,
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._service = service
        self._server_state = server_state
        self._loop = _loop or asyncio.get_running_loop()
        self._scratch = service.scratch
        self._phase = Phase.HEAD
        self._remote = ""
        self._secure = False
        self._pending = b""
        self._body: RequestBody | None = None
        self._request: HttpRequest | None = None
        self._task: asyncio.Task[None] | None = None
        self._direct = False
        self._continue_due = False
        self._close_after = False
        self._ended = False
        self._responding = False
        self._refused = False
        self._reading_paused = False
        self._serial = 0
        self._received_bytes = 0
        self._deadline = Deadline(service.settings.progress_bytes_min)

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        # Neither uvloop's transports nor its TLS ones derive from asyncio.Transport.
        self._transport = transport = cast("asyncio.Transport", transport)
        self._secure = transport.get_extra_info("sslcontext") is not None
        self._outlet = Outlet(transport, self._loop)
        self._outlet.limit(secure=self._secure)
        peer = transport.get_extra_info("peername")
        self._remote = peer[0] if isinstance(peer, tuple) else ""
        service = self._service
        service.connections.add(self)
        self._server_state.connections.add(self)
        if len(service.connections) > service.settings.connections_max:
            self._refuse(refusals.SLOW_DOWN)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport shall put the next bytes: the waiting reader's buffer if possible."""
        body = self._body
        if body is not None:
            buffer = body.direct_buffer()
            if buffer is not None:
                self._direct = True
                return buffer
        self._direct = False
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes arrived in the buffer."""
        self._received_bytes += nbytes
        body = self._body
        if self._direct:
            assert body is not None
            body.received_directly(nbytes)
            return
        phase = self._phase
        if phase is Phase.LINGERING:
            if self._received_bytes > self._service.settings.linger_bytes_max:
                self._abort()
            return
        if phase is Phase.CLOSED:
            return
        data = bytes(self._scratch[:nbytes])
        if body is not None and not body.complete:
            try:
                data = body.feed(data)
            except RefusedError as error:
                self._fail_body(error.refusal)
                return
        if data:
            self._pending = self._pending + data if self._pending else data
        if phase is Phase.HEAD:
            self._advance()
        elif phase is Phase.DRAINING:
            if body is None or body.complete:
                self._next()
        else:
            waiting = len(self._pending) + (body.buffered_bytes if body is not None else 0)
            if waiting >= self._service.settings.receive_buffer_bytes:
                self._pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more. Whole requests are still answered, except under TLS, where a
        connection cannot be half open."""
        while self._phase is Phase.QUEUED:
            self._go_on()
        if self._phase is not Phase.SERVING:
            return False
        if self._body is not None and not self._body.complete:
            self._fail_body(refusals.INCOMPLETE_BODY)
            return False
        self._ended = True
        self._close_after = self._close_after or self._secure or not self._pending
        return not self._secure

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; whoever waits for it learns so. The application is not
        cancelled: what it began to commit is decided by it."""
        self._phase = Phase.CLOSED
        self._service.connections.discard(self)
        self._server_state.connections.discard(self)
        self._pending = b""
        if self._body is not None:
            self._body.fail()
        self._outlet.lose()

    def pause_writing(self) -> None:
        """Bytes wait in the transport."""
        self._outlet.pause()

    def resume_writing(self) -> None:
        """The transport is empty."""
        self._outlet.resume()

    # Called by the server.

    def shutdown(self) -> None:
        """Close after the request at hand, at once when there is none."""
        self._close_after = True
        if self._task is not None:
            # uvicorn cancels what is in this set when its patience ends.
            self._server_state.tasks.add(self._task)
            self._task.add_done_callback(self._server_state.tasks.discard)
        elif self._phase is Phase.HEAD and not self._pending:
            self._close()

    def abort(self) -> asyncio.Task[None] | None:
        """Cut the connection; the task that still runs for it, if any."""
        self._abort()
        return self._task

    def sweep(self, now: float) -> None:
        """Close the connection if its client stalled; called about once a second."""
        settings = self._service.settings
        unsent = self._outlet.unsent_bytes()
        body = self._body
        if unsent:
            limit, progress = settings.write_stall_seconds, self._outlet.accepted_bytes()
        elif self._phase is Phase.HEAD:
            limit, progress = (settings.head_seconds if self._pending else settings.idle_seconds), 0
        elif self._phase is Phase.DRAINING:
            limit, progress = settings.drain_seconds, 0
        elif self._phase in (Phase.SERVING, Phase.QUEUED):
            if body is None or not body.waiting:
                self._deadline.rest()
                return
            limit, progress = settings.body_stall_seconds, self._received_bytes
        else:
            limit, progress = settings.linger_seconds, 0
        state = (self._phase, self._serial, bool(unsent), bool(self._pending))
        if self._deadline.passed(now, state, progress, limit):
            self._expire(unsent=bool(unsent))

    # Called by the body.

    def body_wanted(self) -> None:
        """A reader waits for the client."""
        if self._continue_due:
            self._continue_due = False
            self._outlet.write(_CONTINUE)
        self._resume_reading()

    # Requests.

    def _advance(self) -> None:
        """Start the next request if its head is complete."""
        data = self._pending
        while data[:2] == b"\r\n":
            # RFC 9112, 2.2: empty lines before a request are ignored.
            data = self._pending = data[2:]
        head_bytes_max = self._service.settings.head_bytes_max
        end = data.find(END_OF_HEAD, 0, head_bytes_max)
        if end < 0:
            if len(data) >= head_bytes_max:
                self._refuse(refusals.HEAD_TOO_LARGE)
            elif data and data != b"\r" and cannot_become_head(data):
                self._refuse(refusals.BAD_REQUEST)
            elif self._ended:
                self._close()
            return
        end += len(END_OF_HEAD)
        try:
            head = self._service.heads.parse(data[:end])
        except RefusedError as error:
            self._refuse(error.refusal)
            return
        self._pending = data[end:]
        self._begin(head)

    def _begin(self, head: RequestHead) -> None:
        service = self._service
        self._phase = Phase.SERVING
        self._serial += 1
        self._responding = False
        self._continue_due = False
        self._close_after = self._close_after or service.draining or not head.keep_alive
        body = None
        if head.chunked or head.content_length:
            self._body = body = RequestBody(self, head.content_length, self._loop)
            if self._pending:
                received, self._pending = self._pending, b""
                try:
                    self._pending = body.feed(received)
                except RefusedError as error:
                    self._refuse(error.refusal)
                    return
            self._continue_due = head.expects_continue and not body.complete
        elif head.expects_continue:
            self._continue_due = True
        self._request = request = HttpRequest(
            head.method,
            head.target,
            head.headers,
            service.no_body if body is None else body,
            self._secure,
            self._remote,
            service.clock.monotonic(),
            service.new_request_id(),
            service.host_id,
        )
        if self._ended and body is not None and not body.complete:
            self._fail_body(refusals.INCOMPLETE_BODY)
            self._note(request)
            return
        admission = service.admission
        cost_bytes = 0 if body is None else admission.cost_bytes(body.size_bytes)
        if not admission.enter(cost_bytes):
            self._answer_at_once(request, body, service.overloaded(request), None)
            return
        try:
            answer = service.application(request)
        except Exception:
            answer = self._not_answered(request)
        if isinstance(answer, S3Response) and isinstance(answer.body, bytes):
            self._answer_at_once(request, body, answer, cost_bytes)
        else:
            self._task = self._loop.create_task(self._serve(request, body, answer, cost_bytes))

    def _answer_at_once(
        self,
        request: HttpRequest,
        body: RequestBody | None,
        response: S3Response,
        cost_bytes: int | None,
    ) -> None:
        """Send an answer that needed no waiting; without a task, unless the client is slow. The
        request stays admitted until then, for its answer is held in memory; `cost_bytes` None: it
        was not admitted."""
        self._write_whole(request, response)
        if self._outlet.is_drained:
            if cost_bytes is not None:
                self._service.admission.leave(cost_bytes)
            self._end(request, body, sent=True)
        else:
            self._task = self._loop.create_task(self._finish(request, body, cost_bytes))

    async def _finish(
        self, request: HttpRequest, body: RequestBody | None, cost_bytes: int | None
    ) -> None:
        """Go on to the next request when the client took the answer."""
        sent = False
        try:
            await self._outlet.drained()
            sent = True
        except ClientDisconnected:
            pass
        finally:
            if cost_bytes is not None:
                self._service.admission.leave(cost_bytes)
            self._end(request, body, sent=sent)

    async def _serve(
        self,
        request: HttpRequest,
        body: RequestBody | None,
        answer: S3Response | Awaitable[S3Response],
        cost_bytes: int,
    ) -> None:
        """Wait for the answer to an admitted request, send it, go on to the next request."""
        sent = False
        try:
            try:
                response = answer if isinstance(answer, S3Response) else await answer
            except ClientDisconnected:
                return
            except Exception:
                response = self._not_answered(request)
            if self._phase is Phase.SERVING:
                sent = await self._send(request, response)
        except ClientDisconnected:
            pass
        finally:
            self._service.admission.leave(cost_bytes)
            self._end(request, body, sent=sent)

    def _not_answered(self, request: HttpRequest) -> S3Response:
        """The application let an exception out, which is being handled."""
        logger.exception("request %s was not answered", request.request_id)  # noqa: LOG004
        return self._bug(request)

    def _end(self, request: HttpRequest, body: RequestBody | None, *, sent: bool) -> None:
        """The request is over: note it, and keep or cut the connection."""
        self._task = self._request = None
        if body is not None:
            request.bytes_in = body.received_bytes
        if not sent and not request.error_code:
            request.error_code = "ClientDisconnected"
        self._note(request)
        if self._phase is not Phase.SERVING:
            return
        if not sent:
            self._abort()
        elif self._close_after:
            self._close_after_answer()
        elif body is not None and not body.complete:
            self._phase = Phase.DRAINING
            body.discard()
            self._resume_reading()
        else:
            self._next()

    def _next(self) -> None:
        self._phase = Phase.HEAD
        self._body = None
        if self._reading_paused:
            self._resume_reading()
        if self._pending:
            # Other connections come first, and a row of pipelined requests is no recursion.
            self._phase = Phase.QUEUED
            self._loop.call_soon(self._go_on)
        elif self._ended:
            self._close()

    def _go_on(self) -> None:
        """The next request's turn."""
        if self._phase is Phase.QUEUED:
            self._phase = Phase.HEAD
            self._advance()

    def _note(self, request: HttpRequest) -> None:
        request.total_seconds = self._service.clock.monotonic() - request.received_monotonic
        if self._service.finished is None:
            return
        try:
            self._service.finished(request)
        except Exception:
            # The connection has to go on, or to be closed, in any case.
            logger.exception("request %s was not logged", request.request_id)

    # Responses.

    async def _send(self, request: HttpRequest, response: S3Response) -> bool:
        """Write the response and wait until the client took it; whether it is whole."""
        body = response.body
        if not isinstance(body, bytes) and has_body(request.method, response.status):
            head = self._head_of(request, response)
            if head is not None:
                return await self._outlet.write_stream(request, head, body)
            response = self._unsafe(request)
        self._write_whole(request, response)
        if not self._outlet.is_drained:
            await self._outlet.drained()
        return True

    def _write_whole(self, request: HttpRequest, response: S3Response) -> None:
        """Write a response that is all there, or whose body is not sent."""
        head = self._head_of(request, response)
        if head is None:
            response = self._unsafe(request)
            head = self._head_of(request, response)
            assert head is not None
        if not has_body(request.method, response.status):
            self._outlet.write(head)
            return
        body = response.body
        assert isinstance(body, bytes)
        request.bytes_out = len(body)
        self._outlet.write_whole(head, body)

    def _head_of(self, request: HttpRequest, response: S3Response) -> bytes | None:
        """The head to write now; None when a header is unsafe."""
        length = response.content_length
        if length is None:
            body = response.body
            length = len(body) if isinstance(body, bytes) else body.size_bytes
        if self._body is not None and not self._close_after and not self._rest_is_drainable():
            self._close_after = True
        if self._continue_due and self._body is None:
            self._settle_expectation(response.status)
        try:
            head = self._encode_head(request, response, length)
        except UnsafeHeaderError:
            return None
        request.status = response.status
        request.first_byte_seconds = self._service.clock.monotonic() - request.received_monotonic
        self._responding = True
        return head

    def _unsafe(self, request: HttpRequest) -> S3Response:
        """A header would end its line: that is our mistake."""
        logger.error("request %s: unsafe response header", request.request_id)
        return self._bug(request)

    def _bug(self, request: HttpRequest) -> S3Response:
        request.met_bug = True
        request.error_code = refusals.INTERNAL_ERROR.code
        return self._service.refusal(refusals.INTERNAL_ERROR, request.request_id)

    def _encode_head(self, request: HttpRequest, response: S3Response, length: int) -> bytes:
        return encode_head(
            response,
            fixed=self._service.fixed_headers,
            request_id=request.request_id,
            length=length,
            keep_alive=not self._close_after,
        )

    def _settle_expectation(self, status: int) -> None:
        """The client expects 100 for a body of no bytes. RFC 9110 lets a server leave it out, but
        the AWS SDK for Python then misreads the next answer on the connection: so the interim
        answer precedes a success, and a refusal ends the connection."""
        self._continue_due = False
        if status < 300:
            self._outlet.write(_CONTINUE)
        else:
            self._close_after = True

    def _rest_is_drainable(self) -> bool:
        """Whether so little of the body is missing that swallowing it keeps the connection."""
        body = self._body
        if body is None or body.complete:
            return True
        missing = body.missing_bytes
        # A client that was not told to continue may or may not send the body: nobody knows.
        return (
            not self._continue_due
            and missing is not None
            and missing <= self._service.settings.drain_bytes_max
        )

    # Ends.

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what never became a request, for the last time."""
        request = HttpRequest(
            "-", b"-", {}, self._service.no_body, self._secure, self._remote,
            self._service.clock.monotonic(), self._service.new_request_id(), self._service.host_id,
        )  # fmt: skip
        self._write_refusal(request, refusal)
        self._note(request)

    def _fail_body(self, refusal: Refusal) -> None:
        """The body will not be whole: answer in the application's place, if it did not yet."""
        if self._body is not None:
            self._body.fail()
        if self._phase is not Phase.SERVING or self._responding:
            self._abort()
            return
        assert self._request is not None
        self._write_refusal(self._request, refusal)

    def _write_refusal(self, request: HttpRequest, refusal: Refusal) -> None:
        self._close_after = True
        response = self._service.refusal(refusal, request.request_id)
        assert isinstance(response.body, bytes)
        request.status = refusal.status
        request.error_code = refusal.code
        request.bytes_out = len(response.body)
        head = self._encode_head(request, response, len(response.body))
        self._outlet.write_whole(head, response.body)
        self._close_after_answer(unread=True)

    def _close_after_answer(self, *, unread: bool = False) -> None:
        """Close so that the client can read the answer: bytes that it still sends would turn the
        close into a reset, so they are swallowed for a while."""
        body = self._body
        unread = unread or bool(self._pending) or (body is not None and not body.complete)
        self._pending = b""
        if not unread or self._secure or self._ended:
            self._close()
            return
        self._phase = Phase.LINGERING
        self._body = None
        self._received_bytes = 0
        self._transport.write_eof()
        self._resume_reading()

    def _expire(self, *, unsent: bool) -> None:
        """The client stalled."""
        if unsent or self._phase in (Phase.LINGERING, Phase.CLOSED, Phase.DRAINING):
            self._abort()
        elif self._phase is Phase.HEAD and not self._pending:
            self._close()
        elif self._phase is Phase.HEAD:
            self._refuse(refusals.REQUEST_TIMEOUT)
        else:
            self._fail_body(refusals.REQUEST_TIMEOUT)

    def _close(self) -> None:
        self._phase = Phase.CLOSED
        self._transport.close()

    def _abort(self) -> None:
        self._phase = Phase.CLOSED
        self._outlet.lose()
        self._transport.abort()

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()
