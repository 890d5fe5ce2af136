"""The answering side: a listening socket, its connections, and the requests on them."""

import asyncio
import inspect
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from placement.errors import ProtocolError
from placement.rpc.frames import (
    BACKGROUND,
    Buffer,
    ErrorCode,
    Hello,
    Kind,
    RemoteError,
    encode_error,
)
from placement.rpc.framing import FramedProtocol

_log = logging.getLogger(__name__)

REQUESTS_MAX = 4096
"""Requests a connection may have open; beyond, nothing more is read from it until some are answered."""


class Request:
    """One call. Answer it once with `reply` or `fail`, or many times with `push` and then `end`.

    All methods belong to the loop's thread. After the peer cancelled or left, answers go nowhere.
    """

    __slots__ = (
        "_id",
        "_open",
        "_task",
        "background",
        "connection",
        "deadline_ms",
        "header",
        "on_cancel",
        "payload",
        "verb",
    )

    def __init__(
        self,
        connection: "Connection",
        request_id: int,
        verb: int,
        flags: int,
        deadline_ms: int,
        header: memoryview,
        payload: memoryview,
    ) -> None:
        self.connection = connection
        self.verb = verb
        self.header = header
        self.payload = payload
        self.background = bool(flags & BACKGROUND)
        self.deadline_ms = deadline_ms
        """Milliseconds the caller waits, counted from when it sent; 0: no limit."""
        self.on_cancel: Callable[[], None] | None = None
        """Called once when the caller no longer waits."""
        self._id = request_id
        self._open = True
        self._task: asyncio.Task[None] | None = None

    @property
    def open(self) -> bool:
        """Whether an answer is still wanted."""
        return self._open

    def reply(self, header: Buffer = b"", payload: Sequence[Buffer] = ()) -> None:
        """The answer. The buffers must not change afterwards."""
        self._finish(Kind.REPLY, header, payload)

    def fail(self, code: int, message: str) -> None:
        """The answer is an error; the caller gets `RemoteError`."""
        self._finish(Kind.ERROR, encode_error(code, message), ())

    def push(self, header: Buffer, payload: Sequence[Buffer] = ()) -> None:
        """One element of a stream."""
        if self._open:
            self.connection.send(Kind.PUSH, self._id, self.verb, header, payload)

    def end(self) -> None:
        """The stream is over."""
        self._finish(Kind.END, b"", ())

    def cancel(self) -> None:
        """The caller no longer waits: stop the work and forget the request."""
        if not self._open:
            return
        self._open = False
        if self._task is not None:
            self._task.cancel()
        if self.on_cancel is not None:
            self.on_cancel()

    def run(self, work: Awaitable[None]) -> None:
        """Own a handler's coroutine until it ends."""
        if inspect.iscoroutine(work):
            coroutine: Coroutine[Any, Any, None] = work
        else:
            coroutine = _await(work)
        self._task = asyncio.get_running_loop().create_task(coroutine)
        self.connection.own(self._task)
        self._task.add_done_callback(self._ran)

    def failed(self, error: BaseException) -> None:
        """Answer with what a handler raised."""
        if isinstance(error, RemoteError):
            self.fail(error.code, error.message)
        elif isinstance(error, asyncio.CancelledError):
            self.fail(ErrorCode.CANCELLED, "cancelled")
        else:
            _log.error("a handler failed", extra={"verb": self.verb}, exc_info=error)
            self.fail(ErrorCode.INTERNAL, f"{type(error).__name__}: {error}")

    def _ran(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            self.failed(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.failed(error)

    def _finish(self, kind: Kind, header: Buffer, payload: Sequence[Buffer]) -> None:
        if self._open:
            self._open = False
            self.connection.finish(kind, self._id, self.verb, header, payload)


Handler = Callable[[Request], Awaitable[None] | None]
"""Returns None and answers now or later, or returns an awaitable that the server runs as a Task."""


class Connection:
    """One peer. `state` is the handlers' own; `on_close` is called once when the peer is gone."""

    def __init__(self, server: "RpcServer") -> None:
        self.state: dict[str, object] = {}
        self.on_close: list[Callable[[], None]] = []
        self.peer_name = ""
        self._server = server
        self._requests: dict[int, Request] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._congested = False
        self._reading = True
        self.protocol = FramedProtocol(
            name=server.name,
            receive=self._receive,
            opened=self._opened,
            lost=self._lost,
            congested=self._set_congested,
        )

    @property
    def open_requests(self) -> int:
        """Requests without an answer so far."""
        return len(self._requests)

    def send(
        self, kind: Kind, request_id: int, verb: int, header: Buffer, payload: Sequence[Buffer]
    ) -> None:
        """Queue a frame; a peer that lets too much pile up is cut off."""
        try:
            sent = self.protocol.send(kind, request_id, verb, 0, 0, header, payload)
        except ValueError as error:
            failure = encode_error(ErrorCode.REPLY_TOO_LARGE, str(error))
            sent = self.protocol.send(Kind.ERROR, request_id, verb, 0, 0, failure, ())
        if not sent:
            self.protocol.abort(ProtocolError("the peer does not read its answers"))

    def finish(
        self, kind: Kind, request_id: int, verb: int, header: Buffer, payload: Sequence[Buffer]
    ) -> None:
        """Send the last frame of a request."""
        self._requests.pop(request_id, None)
        self.send(kind, request_id, verb, header, payload)
        if not self._reading:
            self._pace()

    def own(self, task: "asyncio.Task[None]") -> None:
        """Keep a task until it ends."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def tasks(self) -> tuple["asyncio.Task[None]", ...]:
        """Handlers still running."""
        return tuple(self._tasks)

    def _opened(self, hello: Hello) -> None:
        self.peer_name = hello.name

    def _receive(
        self,
        kind: int,
        request_id: int,
        verb: int,
        flags: int,
        deadline_ms: int,
        header: memoryview,
        payload: memoryview,
    ) -> None:
        if kind == Kind.CALL:
            if request_id in self._requests:
                raise ProtocolError("the peer used a request id twice")
            request = Request(self, request_id, verb, flags, deadline_ms, header, payload)
            self._requests[request_id] = request
            self._server.dispatch(request)
            if len(self._requests) >= REQUESTS_MAX:
                self._pace()
        elif kind == Kind.CANCEL:
            cancelled = self._requests.pop(request_id, None)
            if cancelled is not None:
                cancelled.cancel()
                self._pace()
        else:
            raise ProtocolError(f"the peer sent a frame of kind {kind}")

    def _set_congested(self, congested: bool) -> None:
        self._congested = congested
        self._pace()

    def _pace(self) -> None:
        """Read only from a peer that reads, and that has not too many requests open."""
        wanted = not self._congested and len(self._requests) < REQUESTS_MAX
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self.protocol.resume_reading()
            else:
                self.protocol.pause_reading()

    def _lost(self, error: Exception | None) -> None:
        if isinstance(error, ProtocolError):
            _log.warning("connection closed: %s", error, extra={"peer": self.peer_name})
        requests, self._requests = self._requests, {}
        for request in requests.values():
            request.cancel()
        self._server.forget(self)
        for callback in self.on_close:
            callback()


class RpcServer:
    """Calls the handler of each request's verb."""

    def __init__(self, handlers: Mapping[int, Handler], *, name: str) -> None:
        self.name = name
        self._handlers = dict(handlers)
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._path = ""
        self._closing = False

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The peers at this moment."""
        return tuple(self._connections)

    async def listen_unix(self, path: str) -> None:
        """Accept on a Unix socket of mode 0600; a stale socket file is replaced.

        Raises OSError, also when another process answers there.
        """
        _remove_stale_socket(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            mask = os.umask(0o177)
            try:
                listener.bind(path)
            finally:
                os.umask(mask)
            listener.setblocking(False)
            self._listener = await asyncio.get_running_loop().create_unix_server(
                self._accept, sock=listener, backlog=128
            )
        except BaseException:
            listener.close()
            raise
        self._path = path

    async def close(self, *, drain_seconds: float = 5) -> None:
        """Accept no more, let open calls end for a while, then cut the rest."""
        self._closing = True
        if self._listener is not None:
            self._listener.close()
            with suppress(OSError):
                os.unlink(self._path)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + drain_seconds
        while loop.time() < deadline and any(c.open_requests for c in self._connections):  # noqa: ASYNC110 — a stop may poll
            await asyncio.sleep(0.01)
        tasks = [task for connection in self._connections for task in connection.tasks]
        for connection in tuple(self._connections):
            connection.protocol.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=drain_seconds)
        for _ in range(3):
            await asyncio.sleep(0)
        for connection in tuple(self._connections):
            connection.protocol.abort()

    def dispatch(self, request: Request) -> None:
        """Start the handler of a request."""
        handler = self._handlers.get(request.verb)
        if handler is None:
            request.fail(ErrorCode.UNKNOWN_VERB, f"unknown verb {request.verb}")
            return
        if self._closing:
            request.fail(ErrorCode.CLOSING, "the server is stopping")
            return
        try:
            work = handler(request)
        except Exception as error:  # the edge: whatever a handler raises is its caller's answer
            request.failed(error)
            return
        if work is not None:
            request.run(work)

    def forget(self, connection: Connection) -> None:
        """A peer is gone."""
        self._connections.discard(connection)

    def _accept(self) -> FramedProtocol:
        connection = Connection(self)
        self._connections.add(connection)
        return connection.protocol


async def _await(work: Awaitable[None]) -> None:
    await work


def _remove_stale_socket(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(f"{path} is in the way and no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
    raise OSError(f"another process answers on {path}")
