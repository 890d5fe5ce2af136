"""The answering side: a listening socket, its connections, and the requests on them."""

import asyncio
import inspect
import logging
import math
import os
import socket
import ssl
import stat
from collections import deque
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
from placement.rpc.handshake import ClusterKey, Handshake, Role

_log = logging.getLogger(__name__)

REQUESTS_MAX = 4096
"""Requests a connection may have open; beyond, nothing more is read from it until some are answered."""
REQUESTS_SIZE_BYTES_MAX = 64 << 20
"""Bytes of a connection's open requests; beyond, the same."""
STRANGERS_MAX = 256
"""Connections that may be opening at once; further ones are closed."""
BACKGROUND_MAX = 16
"""Background requests at work at once in a server; the others wait."""
BACKGROUND_BUSY_MAX = 2
"""The same while clients wait for more than `BUSY_REQUESTS` answers."""
BUSY_REQUESTS = 8


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
        "size_bytes",
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
        self.size_bytes = len(header) + len(payload)
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
            flags = BACKGROUND if self.background else 0
            self.connection.finish(kind, self._id, self.verb, header, payload, flags)


Handler = Callable[[Request], Awaitable[None] | None]
"""Returns None and answers now or later, or returns an awaitable that the server runs as a Task."""


class Connection:
    """One peer. `state` is the handlers' own; `on_close` is called once when the peer is gone."""

    def __init__(self, server: "RpcServer", key: ClusterKey | None = None) -> None:
        self.state: dict[str, object] = {}
        self.on_close: list[Callable[[], None]] = []
        self.peer_name = ""
        self._server = server
        self._requests: dict[int, Request] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests_size_bytes = 0
        self._congested = False
        self._reading = True
        self.known = False
        self.protocol = FramedProtocol(
            handshake=Handshake(server.name, Role.LISTENS, key),
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
        self,
        kind: Kind,
        request_id: int,
        verb: int,
        header: Buffer,
        payload: Sequence[Buffer],
        flags: int = 0,
    ) -> None:
        """Queue a frame; a peer that lets too much pile up is cut off."""
        try:
            sent = self.protocol.send(kind, request_id, verb, flags, 0, header, payload)
        except ValueError as error:
            failure = encode_error(ErrorCode.REPLY_TOO_LARGE, str(error))
            sent = self.protocol.send(Kind.ERROR, request_id, verb, 0, 0, failure, ())
        if not sent:
            self.protocol.abort(ProtocolError("the peer does not read its answers"))

    def finish(
        self,
        kind: Kind,
        request_id: int,
        verb: int,
        header: Buffer,
        payload: Sequence[Buffer],
        flags: int,
    ) -> None:
        """Send the last frame of a request."""
        request = self._requests.pop(request_id, None)
        self.send(kind, request_id, verb, header, payload, flags)
        if request is not None:
            self._requests_size_bytes -= request.size_bytes
            if request.background:
                self._server.background_over(request)
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
        self.known = True
        self.peer_name = hello.name
        self.protocol.watch_peer()

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
            self._requests_size_bytes += request.size_bytes
            if request.background:
                self._server.dispatch_later(request)
            else:
                self._server.dispatch(request)
            if (
                len(self._requests) >= REQUESTS_MAX
                or self._requests_size_bytes >= REQUESTS_SIZE_BYTES_MAX
            ):
                self._pace()
        elif kind == Kind.CANCEL:
            cancelled = self._requests.pop(request_id, None)
            if cancelled is not None:
                self._requests_size_bytes -= cancelled.size_bytes
                cancelled.cancel()
                if cancelled.background:
                    self._server.background_over(cancelled)
                self._pace()
        else:
            raise ProtocolError(f"the peer sent a frame of kind {kind}")

    def _set_congested(self, congested: bool) -> None:
        self._congested = congested
        self._pace()

    def _pace(self) -> None:
        """Read only from a peer that reads, and that has not too many requests open."""
        wanted = (
            not self._congested
            and len(self._requests) < REQUESTS_MAX
            and self._requests_size_bytes < REQUESTS_SIZE_BYTES_MAX
        )
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self.protocol.resume_reading()
            else:
                self.protocol.pause_reading()

    def _lost(self, error: Exception | None) -> None:
        if isinstance(error, ProtocolError):
            _log.warning("connection of %s closed: %s", self.peer_name or "a stranger", error)
        requests, self._requests = self._requests, {}
        for request in requests.values():
            request.cancel()
            if request.background:
                self._server.background_over(request)
        self._server.forget(self)
        for callback in self.on_close:
            callback()


class RpcServer:
    """Calls the handler of each request's verb."""

    def __init__(self, handlers: Mapping[int, Handler], *, name: str) -> None:
        self.name = name
        self._handlers = dict(handlers)
        self._connections: set[Connection] = set()
        self._listeners: list[asyncio.Server] = []
        self._paths: list[str] = []
        self._closing = False
        self._background: set[Request] = set()
        self._waiting: deque[tuple[Request, float]] = deque()
        self._starting = False

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
            self._listeners.append(
                await asyncio.get_running_loop().create_unix_server(
                    self._accept, sock=listener, backlog=128
                )
            )
        except BaseException:
            listener.close()
            raise
        self._paths.append(path)

    async def listen_tcp(
        self, host: str, port: int, key: ClusterKey, tls: ssl.SSLContext | None = None
    ) -> int:
        """Accept peers that hold the cluster key; the port (that the kernel chose, for 0). Raises
        OSError."""
        listener = await asyncio.get_running_loop().create_server(
            lambda: self._accept(key), host, port, ssl=tls, backlog=128
        )
        self._listeners.append(listener)
        chosen: int = listener.sockets[0].getsockname()[1]
        return chosen

    async def close(self, *, drain_seconds: float = 5) -> None:
        """Accept no more, let open calls end for a while, then cut the rest."""
        self._closing = True
        for listener in self._listeners:
            listener.close()
        for path in self._paths:
            with suppress(OSError):
                os.unlink(path)
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

    def dispatch_later(self, request: Request) -> None:
        """Start a background request when clients leave room for it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + request.deadline_ms / 1000 if request.deadline_ms else math.inf
        if len(self._waiting) >= REQUESTS_MAX:
            self._waiting = deque(waiting for waiting in self._waiting if waiting[0].open)
        self._waiting.append((request, end))
        self._start_background()

    def background_over(self, request: Request) -> None:
        """One was answered or given up: the next may start."""
        self._background.discard(request)
        self._start_background()

    def _start_background(self) -> None:
        if self._starting:  # from a handler that answered at once: the loop below goes on
            return
        self._starting = True
        now = asyncio.get_running_loop().time()
        while self._waiting:
            busy = sum(c.open_requests for c in self._connections)
            busy -= len(self._background) + len(self._waiting)
            limit = BACKGROUND_BUSY_MAX if busy > BUSY_REQUESTS else BACKGROUND_MAX
            if len(self._background) >= limit:
                break
            request, end = self._waiting.popleft()
            if now >= end:
                request.fail(ErrorCode.CANCELLED, "its time was up before it could begin")
            elif request.open:
                self._background.add(request)
                self.dispatch(request)
        self._starting = False

    def forget(self, connection: Connection) -> None:
        """A peer is gone."""
        self._connections.discard(connection)

    def _accept(self, key: ClusterKey | None = None) -> asyncio.BaseProtocol:
        if sum(not connection.known for connection in self._connections) >= STRANGERS_MAX:
            return _Closed()
        connection = Connection(self, key)
        self._connections.add(connection)
        return connection.protocol


class _Closed(asyncio.Protocol):
    """For a connection beyond the bound."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


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
