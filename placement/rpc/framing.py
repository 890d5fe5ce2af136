"""One connection's two directions: cuts received bytes into frames, joins sent frames into writes.

Not for what frames mean: `client` and `server` give it their callbacks.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from placement.errors import ProtocolError
from placement.rpc.frames import (
    BACKGROUND,
    FRAME_HEADER,
    FRAME_HEADER_SIZE_BYTES,
    FRAME_SIZE_BYTES_MAX,
    HANDSHAKE_FRAME_SIZE_BYTES_MAX,
    Buffer,
    Hello,
    Kind,
)
from placement.rpc.handshake import Handshake
from placement.rpc.sockets import watch_peer

_RECEIVE_SIZE_BYTES = 64 << 10
_DIRECT_SIZE_BYTES_MIN = 16 << 10
"""A frame of this size that is not complete yet is received into memory of its own, uncopied."""
_JOIN_SIZE_BYTES_MAX = 256 << 10
_OUTGOING_SIZE_BYTES_MAX = 64 << 20
"""Bytes that may wait for a peer that does not read."""
_TRANSPORT_HIGH_WATER_BYTES = 1 << 20
HANDSHAKE_SECONDS = 10.0

_unpack = FRAME_HEADER.unpack_from
_pack = FRAME_HEADER.pack

FrameReceiver = Callable[[int, int, int, int, int, memoryview, memoryview], None]
"""Called with kind, request id, verb, flags, deadline in ms, header, payload."""


class FramedProtocol(asyncio.BufferedProtocol):
    """Both directions of one connection. Sent frames leave in one write a loop turn.

    Header and payload handed out are views of memory that belongs to that frame alone.
    """

    def __init__(
        self,
        *,
        handshake: Handshake,
        receive: FrameReceiver,
        opened: Callable[[Hello], None],
        lost: Callable[[Exception | None], None],
        congested: Callable[[bool], None] | None = None,
    ) -> None:
        self._handshake = handshake
        self._receive = receive
        self._opened = opened
        self._lost = lost
        self._congested = congested
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._error: Exception | None = None
        self._greeted = False
        self._frame_size_bytes_max = HANDSHAKE_FRAME_SIZE_BYTES_MAX
        self._patience: asyncio.TimerHandle | None = None
        self.heard = False
        """Set whenever bytes arrive; whoever watches the peer's health clears it."""
        self._buffer = bytearray(_RECEIVE_SIZE_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._large: memoryview | None = None
        self._large_header: tuple[int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0)
        self._large_filled = 0
        self._outgoing: list[Buffer] = []
        self._outgoing_later: list[Buffer] = []
        self._outgoing_size_bytes = 0
        self._flush_scheduled = False
        self._writable = True

    # --- the transport's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves."""
        # uvloop's transports do not derive from asyncio's classes.
        self._transport = stream = cast("asyncio.Transport", transport)
        stream.set_write_buffer_limits(high=_TRANSPORT_HIGH_WATER_BYTES)
        header, payload = self._handshake.hello
        self._patience = self._loop.call_later(HANDSHAKE_SECONDS, self._too_slow)
        self.send(Kind.HELLO, 0, 0, 0, 0, header, (payload,))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, with the reason if it was ours."""
        self._transport = None
        self._outgoing.clear()
        self._outgoing_later.clear()
        if self._patience is not None:
            self._patience.cancel()
        self._lost(self._error or exc)

    def pause_writing(self) -> None:
        """The peer does not keep up."""
        self._writable = False
        if self._congested is not None:
            self._congested(True)

    def resume_writing(self) -> None:
        """The peer caught up."""
        self._writable = True
        self.flush()
        if self._writable and self._congested is not None:
            self._congested(False)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: a large frame's own memory, or the shared buffer."""
        if self._large is not None:
            return self._large[self._large_filled :]
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Hand out every frame that is complete."""
        self.heard = True
        try:
            if self._large is None:
                self._filled += nbytes
                self._cut_frames()
            else:
                self._large_filled += nbytes
                if self._large_filled == len(self._large):
                    frame, self._large = self._large.toreadonly(), None
                    self._deliver(*self._large_header, frame)
        except ProtocolError as error:
            if self._greeted:
                self.abort(error)
            else:
                # What we said first must still arrive: it tells the peer what is wrong.
                self._error = self._error or error
                self.close()

    def eof_received(self) -> bool:
        """Close: half-open connections are not used."""
        return False

    # --- the owner's side ---

    def send(
        self,
        kind: int,
        request_id: int,
        verb: int,
        flags: int,
        deadline_ms: int,
        header: Buffer,
        payload: Sequence[Buffer],
    ) -> bool:
        """Queue one frame. False when the connection is gone or too much waits already.

        Raises ValueError for a frame beyond the limit.
        """
        header_size = size = len(header)
        for part in payload:
            size += len(part)
        if size > FRAME_SIZE_BYTES_MAX:
            raise ValueError(f"a frame of {size} bytes is beyond {FRAME_SIZE_BYTES_MAX}")
        if self._transport is None or self._outgoing_size_bytes > _OUTGOING_SIZE_BYTES_MAX:
            return False
        outgoing = self._outgoing_later if flags & BACKGROUND else self._outgoing
        outgoing.append(_pack(size, request_id, verb, kind, flags, header_size, deadline_ms))
        outgoing.append(header)
        if payload:
            outgoing.extend(payload)
        self._outgoing_size_bytes += FRAME_HEADER_SIZE_BYTES + size
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_turn)
        return True

    def flush(self) -> None:
        """Write now what was queued, unless the peer is behind; background frames last."""
        transport = self._transport
        if not self._writable or transport is None:
            return
        parts, size = self._outgoing, self._outgoing_size_bytes
        if self._outgoing_later:
            parts += self._outgoing_later
            self._outgoing_later = []
        elif not parts:
            return
        self._outgoing, self._outgoing_size_bytes = [], 0
        if size <= _JOIN_SIZE_BYTES_MAX:
            transport.write(b"".join(parts))
        else:
            transport.writelines(parts)

    def watch_peer(self) -> None:
        """Notice a TCP peer that vanished."""
        if self._transport is not None:
            watch_peer(self._transport)

    def pause_reading(self) -> None:
        """Take no more frames for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take frames again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Send what is queued, then close."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self, error: Exception | None = None) -> None:
        """Close at once; what is queued is lost."""
        self._error = self._error or error
        if self._transport is not None:
            self._transport.abort()

    # --- frames ---

    def _flush_turn(self) -> None:
        self._flush_scheduled = False
        self.flush()

    def _cut_frames(self) -> None:
        view, filled, start = self._view, self._filled, 0
        while filled - start >= FRAME_HEADER_SIZE_BYTES:
            size, request_id, verb, kind, flags, header_size, deadline_ms = _unpack(view, start)
            if size > self._frame_size_bytes_max or header_size > size:
                if not self._greeted:
                    raise ProtocolError("the peer does not speak this protocol")
                raise ProtocolError(f"the peer sent a frame of {size} bytes")
            begin = start + FRAME_HEADER_SIZE_BYTES
            end = begin + size
            if end > filled:
                if size >= _DIRECT_SIZE_BYTES_MIN:
                    self._large_header = (request_id, verb, kind, flags, header_size, deadline_ms)
                    self._large = memoryview(bytearray(size))
                    self._large_filled = filled - begin
                    self._large[: self._large_filled] = view[begin:filled]
                    start = filled
                break
            frame = memoryview(bytes(view[begin:end]))
            start = end
            self._deliver(request_id, verb, kind, flags, header_size, deadline_ms, frame)
        rest = filled - start
        if rest and start:
            self._buffer[:rest] = self._buffer[start:filled]
        self._filled = rest

    def _deliver(
        self,
        request_id: int,
        verb: int,
        kind: int,
        flags: int,
        header_size: int,
        deadline_ms: int,
        frame: memoryview,
    ) -> None:
        header, payload = frame[:header_size], frame[header_size:]
        if not self._greeted:
            self._shake_hands(kind, header, payload)
        elif kind == Kind.PING:
            self.send(Kind.PONG, 0, 0, 0, 0, b"", ())
        elif kind != Kind.PONG and self._transport is not None:
            self._receive(kind, request_id, verb, flags, deadline_ms, header, payload)

    def _shake_hands(self, kind: int, header: memoryview, payload: memoryview) -> None:
        if self._error is not None:
            return
        if kind == Kind.PROOF:
            self._open(self._handshake.proved(header))
            return
        if kind != Kind.HELLO:
            raise ProtocolError("the peer's first frame is no hello")
        hello, proof = self._handshake.greeted(header, payload)
        if proof is None:
            self._open(hello)
        else:
            self.send(Kind.PROOF, 0, 0, 0, 0, proof, ())

    def _open(self, hello: Hello) -> None:
        self._greeted = True
        self._frame_size_bytes_max = FRAME_SIZE_BYTES_MAX
        if self._patience is not None:
            self._patience.cancel()
        self._opened(hello)

    def _too_slow(self) -> None:
        if not self._greeted:
            self.abort(ProtocolError(f"the peer did not introduce itself in {HANDSHAKE_SECONDS} s"))
