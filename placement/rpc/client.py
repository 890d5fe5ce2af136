"""The calling side: one multiplexed connection to a peer, which comes back by itself."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress

import msgspec

from placement.clock import Randomness, SystemRandomness
from placement.errors import PeerUnavailable, ProtocolError
from placement.rpc.frames import (
    BACKGROUND,
    AnswerLost,
    Buffer,
    Hello,
    Kind,
    NotSent,
    decode_error,
)
from placement.rpc.framing import FramedProtocol
from placement.rpc.handshake import Handshake, Role, TcpEndpoint
from placement.rpc.sockets import watch_peer

_log = logging.getLogger(__name__)

CALLS_MAX = 16384
"""Calls that may be open on one connection."""
STREAM_ELEMENTS_MAX = 4096
STREAM_SIZE_BYTES_MAX = 64 << 20
_SWEEP_SECONDS = 0.05
_BACKOFF_SECONDS_MIN = 0.02
_BACKOFF_SECONDS_MAX = 2.0
DIAL_SECONDS = 5.0
"""From the first packet to both hellos."""
PING_SECONDS = 1.0
SILENCE_SECONDS_MAX = 6.0
"""A TCP peer that sends nothing for so long, though it was asked, is gone or stands still."""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """An answer, or one element of a stream."""

    header: memoryview
    payload: memoryview


class _Stream:
    """Elements received and not yet taken."""

    __slots__ = ("elements", "ended", "error", "size_bytes", "waiter")

    def __init__(self) -> None:
        self.elements: deque[Reply] = deque()
        self.size_bytes = 0
        self.ended = False
        self.error: Exception | None = None
        self.waiter: asyncio.Future[None] | None = None

    def add(self, reply: Reply) -> bool:
        """False when the consumer is too far behind."""
        size = len(reply.header) + len(reply.payload)
        if (
            len(self.elements) >= STREAM_ELEMENTS_MAX
            or self.size_bytes + size > STREAM_SIZE_BYTES_MAX
        ):
            return False
        self.elements.append(reply)
        self.size_bytes += size
        self._wake()
        return True

    def finish(self, error: Exception | None) -> None:
        self.ended = True
        self.error = self.error or error
        self._wake()

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class RpcClient:
    """One multiplexed connection to a peer; reconnects with back-off.

    While it is down, calls fail with `NotSent`; calls that were open when it broke, or whose time is
    up, fail with `AnswerLost`. Both are `PeerUnavailable`.
    """

    def __init__(
        self, target: str | TcpEndpoint, *, name: str, randomness: Randomness | None = None
    ) -> None:
        """Use `connect` or `dial`. `target`: the path of a Unix socket, or a TCP endpoint."""
        self.name = name
        self.on_connect: list[Callable[[], None]] = []
        self.on_disconnect: list[Callable[[], None]] = []
        self._target = target
        self._randomness = randomness or SystemRandomness()
        self._loop = asyncio.get_running_loop()
        self._protocol: FramedProtocol | None = None
        self._calls: dict[int, tuple[asyncio.Future[Reply], float]] = {}
        self._streams: dict[int, _Stream] = {}
        self._last_id = 0
        self._sweeping = False
        self._closed = False
        self._opening: asyncio.Future[None] | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._pinging: asyncio.TimerHandle | None = None
        self._silent_seconds = 0.0
        self._last_failure = ""

    @classmethod
    def dial(
        cls, target: str | TcpEndpoint, *, name: str, randomness: Randomness | None = None
    ) -> "RpcClient":
        """A client that connects as soon as the peer can be reached. Until then calls fail."""
        client = cls(target, name=name, randomness=randomness)
        client._reconnecting = client._loop.create_task(client._dial_until_open())
        return client

    @classmethod
    async def connect(
        cls,
        target: str | TcpEndpoint,
        *,
        name: str,
        timeout_seconds: float = 5,
        randomness: Randomness | None = None,
    ) -> "RpcClient":
        """Connect, waiting for the peer to appear. Raises PeerUnavailable."""
        client = cls(target, name=name, randomness=randomness)
        try:
            async with asyncio.timeout(timeout_seconds):
                await client._dial_until_open()
        except TimeoutError:
            await client.close()
            why = f": {client._last_failure}" if client._last_failure else ""
            raise PeerUnavailable(
                f"no answer on {target} within {timeout_seconds} s{why}"
            ) from None
        return client

    @property
    def connected(self) -> bool:
        """Whether calls can be sent now."""
        return self._protocol is not None

    def call(
        self,
        verb: int,
        header: Buffer,
        payload: Sequence[Buffer] = (),
        *,
        timeout_seconds: float = 30,
        background: bool = False,
    ) -> "asyncio.Future[Reply]":
        """Send one request. The future's errors: RemoteError, NotSent, AnswerLost.

        The buffers must not change before the answer. Cancelling the future tells the peer.
        Raises ValueError for a request beyond the frame limit.
        """
        future: asyncio.Future[Reply] = self._loop.create_future()
        protocol = self._protocol
        if protocol is None or len(self._calls) >= CALLS_MAX:
            future.set_exception(self._not_sent())
            return future
        self._last_id = request_id = self._last_id + 1
        flags = BACKGROUND if background else 0
        deadline_ms = min(int(timeout_seconds * 1000), 0xFFFFFFFF)
        if not protocol.send(Kind.CALL, request_id, verb, flags, deadline_ms, header, payload):
            future.set_exception(self._not_sent())
            return future
        self._calls[request_id] = (future, self._loop.time() + timeout_seconds)
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(_SWEEP_SECONDS, self._sweep)
        return future

    async def stream(
        self, verb: int, header: Buffer, payload: Sequence[Buffer] = ()
    ) -> AsyncGenerator[Reply, None]:
        """What the peer pushes, until it ends. Closing the iterator cancels it at the peer.

        Raises RemoteError, NotSent, and AnswerLost when the connection breaks or the consumer falls
        too far behind.
        """
        protocol = self._protocol
        if protocol is None:
            raise self._not_sent()
        self._last_id = request_id = self._last_id + 1
        stream = self._streams[request_id] = _Stream()
        try:
            if not protocol.send(Kind.CALL, request_id, verb, 0, 0, header, payload):
                raise self._not_sent()
            while True:
                while stream.elements:
                    reply = stream.elements.popleft()
                    stream.size_bytes -= len(reply.header) + len(reply.payload)
                    yield reply
                if stream.ended:
                    if stream.error is not None:
                        raise stream.error
                    return
                stream.waiter = self._loop.create_future()
                await stream.waiter
        finally:
            if self._streams.pop(request_id, None) is not None and not stream.ended:
                self._send_cancel(request_id)

    async def close(self) -> None:
        """Close the connection; what is open fails with AnswerLost."""
        self._closed = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            with suppress(asyncio.CancelledError):
                await self._reconnecting
        self._stop_pinging()
        protocol = self._protocol
        if protocol is not None:
            protocol.close()
            await asyncio.sleep(0)
            protocol.abort()
        self._fail_open(PeerUnavailable("closed"))
        await asyncio.sleep(0)

    # --- connecting ---

    async def _dial(self) -> None:
        """Connect and exchange hellos. Raises OSError, ProtocolError."""
        self._opening = opening = self._loop.create_future()
        protocols: list[FramedProtocol] = []

        target = self._target
        key = target.key if isinstance(target, TcpEndpoint) else None
        handshake = Handshake(self.name, Role.DIALS, key, self._randomness)

        def build() -> FramedProtocol:
            protocol = FramedProtocol(
                handshake=handshake,
                receive=self._receive,
                opened=lambda hello: self._opened(protocol, opening, hello),
                lost=lambda error: self._lost(protocol, opening, error),
            )
            protocols.append(protocol)
            return protocol

        try:
            if isinstance(target, TcpEndpoint):
                transport, _ = await self._loop.create_connection(
                    build, target.host, target.port, ssl=target.tls
                )
                watch_peer(transport)
            else:
                await self._loop.create_unix_connection(build, target)
            await opening
        except BaseException:
            # The future may hold a failure that nobody will ask for.
            if opening.done() and not opening.cancelled():
                opening.exception()
            opening.cancel()
            for protocol in protocols:
                protocol.abort()
            raise

    async def _dial_until_open(self) -> None:
        delay = _BACKOFF_SECONDS_MIN
        while True:
            try:
                async with asyncio.timeout(DIAL_SECONDS):
                    await self._dial()
                self._last_failure = ""
                return
            except (OSError, ProtocolError) as error:  # TimeoutError is an OSError
                self._failed_to_dial(error)
            await asyncio.sleep(delay * (0.5 + self._randomness.uniform()))
            delay = min(delay * 2, _BACKOFF_SECONDS_MAX)

    def _failed_to_dial(self, error: Exception) -> None:
        """A peer that may not or cannot speak to us is worth a line, once; an absent one is not."""
        words = str(error) or type(error).__name__
        if isinstance(error, ProtocolError) and words != self._last_failure:
            _log.warning("cannot connect to %s: %s", self._target, words)
        else:
            _log.debug("cannot connect to %s: %s", self._target, words)
        self._last_failure = words

    def _opened(
        self, protocol: FramedProtocol, opening: "asyncio.Future[None]", hello: Hello
    ) -> None:
        if self._closed or opening.done():
            protocol.abort()
            return
        self._protocol = protocol
        opening.set_result(None)
        if isinstance(self._target, TcpEndpoint):
            self._silent_seconds = 0.0
            self._stop_pinging()
            self._pinging = self._loop.call_later(PING_SECONDS, self._ping, protocol)
        for callback in self.on_connect:
            callback()

    def _lost(
        self, protocol: FramedProtocol, opening: "asyncio.Future[None]", error: Exception | None
    ) -> None:
        if not opening.done():
            opening.set_exception(error or ConnectionResetError("closed before its hello"))
        if self._protocol is not protocol:
            return
        self._protocol = None
        self._stop_pinging()
        if isinstance(error, ProtocolError):
            _log.warning("connection to %s closed: %s", self._target, error)
        self._fail_open(error)
        for callback in self.on_disconnect:
            callback()
        if not self._closed:
            self._reconnecting = self._loop.create_task(self._dial_until_open())

    def _ping(self, protocol: FramedProtocol) -> None:
        """Ask for a sign of life; without one for long enough, cut the connection."""
        if protocol.heard:
            protocol.heard, self._silent_seconds = False, 0.0
        else:
            self._silent_seconds += PING_SECONDS
        if self._silent_seconds > SILENCE_SECONDS_MAX:
            protocol.abort(PeerUnavailable(f"silent for {self._silent_seconds:.0f} s"))
            return
        protocol.send(Kind.PING, 0, 0, 0, 0, b"", ())
        self._pinging = self._loop.call_later(PING_SECONDS, self._ping, protocol)

    def _stop_pinging(self) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
            self._pinging = None

    def _fail_open(self, error: Exception | None) -> None:
        calls, self._calls = self._calls, {}
        for future, _ in calls.values():
            if not future.done():
                future.set_exception(self._answer_lost(error))
        for stream in self._streams.values():
            stream.finish(self._answer_lost(error))

    def _not_sent(self) -> NotSent:
        state = "busy" if self._protocol is not None else "not connected"
        return NotSent(f"{self._target}: {state}")

    def _answer_lost(self, error: Exception | None) -> AnswerLost:
        return AnswerLost(f"{self._target}: connection lost ({error or 'closed by the peer'})")

    # --- answers ---

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
        if kind == Kind.REPLY:
            call = self._calls.pop(request_id, None)
            if call is not None and not call[0].done():
                call[0].set_result(Reply(header, payload))
        elif kind == Kind.PUSH:
            stream = self._streams.get(request_id)
            if stream is not None and not stream.ended and not stream.add(Reply(header, payload)):
                stream.finish(AnswerLost("the consumer of a stream is too far behind"))
                self._send_cancel(request_id)
        elif kind == Kind.END:
            if (stream := self._streams.get(request_id)) is not None:
                stream.finish(None)
        elif kind == Kind.ERROR:
            error = decode_error(header)
            call = self._calls.pop(request_id, None)
            if call is not None and not call[0].done():
                call[0].set_exception(error)
            elif (stream := self._streams.get(request_id)) is not None:
                stream.finish(error)
        else:
            raise ProtocolError(f"the peer sent a frame of kind {kind}")

    def _send_cancel(self, request_id: int) -> None:
        if self._protocol is not None:
            self._protocol.send(Kind.CANCEL, request_id, 0, 0, 0, b"", ())

    def _sweep(self) -> None:
        """Give up calls whose time is up or that their caller cancelled."""
        now = self._loop.time()
        over = [
            (request_id, future)
            for request_id, (future, deadline) in self._calls.items()
            if deadline <= now or future.done()
        ]
        for request_id, future in over:
            del self._calls[request_id]
            if not future.done():
                future.set_exception(AnswerLost(f"{self._target}: no answer in time"))
            self._send_cancel(request_id)
        self._sweeping = bool(self._calls)
        if self._sweeping:
            self._loop.call_later(_SWEEP_SECONDS, self._sweep)
