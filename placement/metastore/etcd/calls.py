"""Unary gRPC calls over one HTTP/2 connection: a fifth of grpcio's cost a call.

Only what is called all the time goes this way; streams, leases and passwords go by grpcio. A call is
one joined write; the answer is put together from its frames. What HTTP/2 asks of a client is here:
both windows of flow control, settings, pings, GOAWAY, resets.
"""

import asyncio
import contextlib
import os
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast

import grpc

from placement.metastore.etcd import frames
from placement.metastore.etcd.answers import NOT_SENT, CallFailed, status_code
from placement.metastore.etcd.frames import Frame, FrameError

Metadata = tuple[tuple[str, str], ...]

_WINDOW = 1 << 30
_BLOCKS_MAX = 64
_STREAM_MAX = (1 << 31) - 1
_TIMEOUT_GRAIN_SECONDS = 0.1
_CONNECT_SECONDS = 2.0
_POSTPONED_SECONDS = 0.02


class Http2Calls:
    """The calls to one member; connects when there is something to ask."""

    def __init__(self, address: str, tls: ssl.SSLContext | None) -> None:
        self.address = address
        self._tls = tls
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._blocks: dict[tuple[str, int, Metadata], bytes] = {}

    async def call(
        self, path: str, message: bytes, *, timeout_seconds: float, metadata: Metadata
    ) -> bytes:
        """The answer's message. Raises CallFailed."""
        connection = self._connection
        if connection is None or not connection.usable:
            connection = await self._connect(timeout_seconds)
        grains = int(timeout_seconds / _TIMEOUT_GRAIN_SECONDS) + 1
        key = (path, grains, metadata)
        block = self._blocks.get(key)
        if block is None:
            deadline = ("grpc-timeout", f"{round(grains * _TIMEOUT_GRAIN_SECONDS * 1000)}m")
            block = frames.request_block(
                path, self.address, tls=self._tls is not None, more=(deadline, *metadata)
            )
            if len(self._blocks) >= _BLOCKS_MAX:
                self._blocks.clear()
            self._blocks[key] = block
        return await connection.call(block, message, timeout_seconds)

    def close(self) -> None:
        """End the connection; calls under way fail."""
        if self._connection is not None:
            self._connection.abort("closed")

    async def _connect(self, timeout_seconds: float) -> "_Connection":
        host, _, port = self.address.rpartition(":")
        host = host.strip("[]")
        loop = asyncio.get_running_loop()
        async with self._connecting:
            if self._connection is not None and self._connection.usable:
                return self._connection
            try:
                async with asyncio.timeout(min(timeout_seconds, _CONNECT_SECONDS)):
                    transport, connection = await loop.create_connection(
                        _Connection,
                        host,
                        int(port),
                        ssl=self._tls,
                        server_hostname=host if self._tls is not None else None,
                    )
                    await connection.ready
            except (OSError, TimeoutError, CallFailed) as error:
                with contextlib.suppress(UnboundLocalError):
                    transport.abort()
                raise CallFailed(grpc.StatusCode.UNAVAILABLE, f"{NOT_SENT}; {error!r}") from error
            self._connection = connection
            return connection


class _Call:
    """One stream."""

    __slots__ = ("body", "future", "headers", "heard", "number", "unsent", "window")

    def __init__(self, number: int, future: asyncio.Future[bytes], window: int) -> None:
        self.number = number
        self.future = future
        self.window = window
        self.unsent: memoryview | None = None
        self.body: list[bytes] = []
        self.headers: dict[str, str] = {}
        self.heard = 0


class _Connection(asyncio.Protocol):
    """One connection and the calls under way on it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.usable = False
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._calls: dict[int, _Call] = {}
        self._unsent: deque[_Call] = deque()
        self._next_stream = 1
        self._window = frames.WINDOW_DEFAULT
        self._stream_window = frames.WINDOW_DEFAULT
        self._frame_size = frames.FRAME_SIZE_BYTES_DEFAULT
        self._consumed = 0
        self._postponed = b""
        self._timer_runs = False
        self._reader = frames.HeaderReader()
        self._block: tuple[int, int, bytes] | None = None
        self._heard = 0
        self._kinds: dict[int, Callable[[Frame], None]] = {
            frames.DATA: self._on_data,
            frames.HEADERS: self._on_headers,
            frames.CONTINUATION: self._on_headers,
            frames.RST_STREAM: self._on_reset,
            frames.SETTINGS: self._on_settings,
            frames.PING: self._on_ping,
            frames.GOAWAY: self._on_goaway,
            frames.WINDOW_UPDATE: self._on_window,
        }

    # --- asking ---

    async def call(self, block: bytes, message: bytes, timeout_seconds: float) -> bytes:
        """One call. Raises CallFailed."""
        call = _Call(self._next_stream, self._loop.create_future(), self._stream_window)
        call.heard = self._heard
        self._next_stream += 2
        if self._next_stream >= _STREAM_MAX:
            self.usable = False
        self._calls[call.number] = call
        body = frames.message_frame(message)
        head = frames.frame(frames.HEADERS, frames.END_HEADERS, call.number, block)
        size = len(body)
        if size <= self._frame_size and size <= min(call.window, self._window) and not self._unsent:
            self._window -= size
            call.window -= size
            self._write(head + frames.frame(frames.DATA, frames.END_STREAM, call.number, body))
        else:
            call.unsent = memoryview(body)
            self._unsent.append(call)
            self._write(head)
            self._send_more()
        timer = self._loop.call_later(timeout_seconds, self._expire, call)
        try:
            return await call.future
        except asyncio.CancelledError:
            self._abandon(call)
            raise
        finally:
            timer.cancel()

    def abort(self, why: str) -> None:
        """Close at once."""
        self._fail_all(CallFailed(grpc.StatusCode.UNAVAILABLE, why))
        if self._transport is not None:
            self._transport.abort()

    def _expire(self, call: _Call) -> None:
        if call.future.done():
            return
        call.future.set_exception(
            CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time")
        )
        self._abandon(call)
        if self._heard == call.heard:  # nothing at all came: is anybody there?
            self.abort("the connection is silent")

    def _abandon(self, call: _Call) -> None:
        if self._calls.pop(call.number, None) is not None:
            self._write(frames.frame(frames.RST_STREAM, 0, call.number, frames.CANCEL.to_bytes(4)))
            with contextlib.suppress(ValueError):
                self._unsent.remove(call)

    def _send_more(self) -> None:
        """What the windows allow of what waits, in order."""
        while self._unsent and self._window > 0:
            call = self._unsent[0]
            rest = call.unsent
            assert rest is not None
            size = min(len(rest), self._frame_size, self._window, call.window)
            if size <= 0:
                if len(self._unsent) == 1 or all(one.window <= 0 for one in self._unsent):
                    return
                self._unsent.rotate(-1)  # its own window is shut, another's is open
                continue
            last = size == len(rest)
            self._window -= size
            call.window -= size
            flags = frames.END_STREAM if last else 0
            self._write(frames.frame(frames.DATA, flags, call.number, bytes(rest[:size])))
            call.unsent = rest[size:]
            if last:
                self._unsent.popleft()

    def _write(self, data: bytes) -> None:
        if self._postponed:
            data, self._postponed = self._postponed + data, b""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _write_soon(self, data: bytes) -> None:
        """With the next call, or shortly."""
        self._postponed += data
        if not self._timer_runs:
            self._timer_runs = True
            self._loop.call_later(_POSTPONED_SECONDS, self._write_postponed)

    def _write_postponed(self) -> None:
        self._timer_runs = False
        if self._postponed:
            self._write(b"")

    # --- hearing ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast("asyncio.Transport", transport)
        self._write(
            frames.PREFACE
            + frames.settings({frames.ENABLE_PUSH: 0, frames.INITIAL_WINDOW_SIZE: _WINDOW})
            + frames.window_update(0, _WINDOW)
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits is told."""
        self._fail_all(CallFailed(grpc.StatusCode.UNAVAILABLE, f"the connection was lost: {exc}"))

    def data_received(self, data: bytes) -> None:
        """Frames, whole or in pieces."""
        self._heard += 1
        self._buffer += data
        try:
            for got in frames.take_frames(self._buffer):
                handle = self._kinds.get(got.kind)
                if self._block is not None and got.kind != frames.CONTINUATION:
                    raise FrameError("headers that another frame interrupts")
                if handle is not None:
                    handle(got)
                elif got.kind == frames.PUSH_PROMISE:
                    raise FrameError("a push that nobody asked for")
        except FrameError as error:
            self.abort(f"the peer broke the protocol: {error}")

    def _on_data(self, got: Frame) -> None:
        self._consumed += len(got.payload)
        if self._consumed >= _WINDOW // 2:
            self._write(frames.window_update(0, self._consumed))
            self._consumed = 0
        call = self._calls.get(got.stream)
        if call is None:
            return  # abandoned
        call.body.append(frames.content(got))
        if got.flags & frames.END_STREAM:
            raise FrameError("an answer without trailers")

    def _on_headers(self, got: Frame) -> None:
        if got.kind == frames.HEADERS:
            if self._block is not None:
                raise FrameError("headers within headers")
            number, flags, block = got.stream, got.flags, frames.content(got)
        elif self._block is None or self._block[0] != got.stream:
            raise FrameError("a continuation of nothing")
        else:
            number, flags = self._block[0], self._block[1]
            block = self._block[2] + got.payload
        if not got.flags & frames.END_HEADERS:
            if len(block) > frames.FRAME_SIZE_BYTES_DEFAULT * 4:
                raise FrameError("headers without end")
            self._block = (number, flags, block)
            return
        self._block = None
        headers = self._reader.read(block)
        call = self._calls.get(number)
        if call is None:
            return
        if not flags & frames.END_STREAM:
            call.headers = headers
            return
        del self._calls[number]
        if call.unsent is not None:
            with contextlib.suppress(ValueError):  # it may be answered before it is wholly sent
                self._unsent.remove(call)
        if not call.future.done():
            self._answer(call, headers)

    def _answer(self, call: _Call, trailers: dict[str, str]) -> None:
        code, said = frames.status_of({**call.headers, **trailers} if call.headers else trailers)
        if code:
            call.future.set_exception(CallFailed(status_code(code), said))
            return
        try:
            body = call.body[0] if len(call.body) == 1 else b"".join(call.body)
            call.future.set_result(frames.the_message(body))
        except FrameError as error:
            call.future.set_exception(CallFailed(grpc.StatusCode.INTERNAL, str(error)))

    def _on_reset(self, got: Frame) -> None:
        call = self._calls.pop(got.stream, None)
        if call is None:
            return
        with contextlib.suppress(ValueError):
            self._unsent.remove(call)
        reason = frames.read_number(got.payload)
        said = f"{NOT_SENT}; refused" if reason == frames.REFUSED_STREAM else f"reset, {reason}"
        if not call.future.done():
            call.future.set_exception(CallFailed(grpc.StatusCode.UNAVAILABLE, said))

    def _on_settings(self, got: Frame) -> None:
        if got.flags & frames.ACK:
            return
        values = frames.read_settings(got.payload)
        window = values.get(frames.INITIAL_WINDOW_SIZE, self._stream_window)
        size = values.get(frames.MAX_FRAME_SIZE, self._frame_size)
        if window > frames.WINDOW_MAX or not (
            frames.FRAME_SIZE_BYTES_DEFAULT <= size <= frames.FRAME_SIZE_BYTES_MAX
        ):
            raise FrameError("settings out of bounds")
        for call in self._calls.values():
            call.window += window - self._stream_window
        self._stream_window, self._frame_size = window, size
        self._write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if not self.ready.done():
            self.usable = True
            self.ready.set_result(None)
        self._send_more()

    def _on_ping(self, got: Frame) -> None:
        """Go's gRPC pings with each request to guess the bandwidth: an answer need not be at once."""
        if not got.flags & frames.ACK:
            self._write_soon(frames.frame(frames.PING, frames.ACK, 0, got.payload))

    def _on_goaway(self, got: Frame) -> None:
        """No new calls; those that the peer has not begun surely had no effect."""
        self.usable = False
        last = frames.read_number(got.payload)
        for number in [number for number in self._calls if number > last]:
            call = self._calls.pop(number)
            if not call.future.done():
                call.future.set_exception(
                    CallFailed(grpc.StatusCode.UNAVAILABLE, f"{NOT_SENT}; the member goes away")
                )
        self._unsent = deque(call for call in self._unsent if call.number <= last)
        if not self._calls and self._transport is not None:
            self._transport.close()

    def _on_window(self, got: Frame) -> None:
        increment = frames.read_number(got.payload)
        if not got.stream:
            self._window += increment
            if self._window > frames.WINDOW_MAX:
                raise FrameError("a window beyond all bounds")
        elif (call := self._calls.get(got.stream)) is not None:
            call.window += increment
        self._send_more()

    def _fail_all(self, error: CallFailed) -> None:
        self.usable = False
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # whoever connects may have given up already
        calls, self._calls = self._calls, {}
        self._unsent.clear()
        for call in calls.values():
            if not call.future.done():
                call.future.set_exception(CallFailed(error.status, error.details))


def tls_context(ca: bytes | None, certificate: bytes | None, key: bytes | None) -> ssl.SSLContext:
    """Trusts `ca` (None: the system's) and shows the certificate. Raises ssl.SSLError."""
    context = ssl.create_default_context(cadata=None if ca is None else ca.decode("ascii"))
    context.set_alpn_protocols(["h2"])
    if certificate is not None and key is not None:
        # The library takes files only: this one has no name and is gone with its descriptor.
        with os.fdopen(os.memfd_create("etcd-client"), "wb") as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return context
