"""A request body between the socket that fills it and the reader that drains it."""

import asyncio
from typing import Protocol

from gateway.http.chunked import ChunkedDecoder
from gateway.http.message import BodyTooLargeError
from gateway.s3.errors import ClientDisconnected

_PIECE_BYTES = 64 * 1024


class Source(Protocol):
    """The connection, as its body sees it."""

    def body_wanted(self) -> None:
        """A reader waits: let the client send, and read."""
        ...


class NoBody:
    """The body of a request that has none; one serves all."""

    size_bytes: int | None = 0

    async def read_into(self, buffer: memoryview) -> int:
        """Nothing, ever."""
        return 0

    async def read_all(self, limit_bytes: int) -> bytes:
        """Nothing, ever."""
        return b""

    def take_now(self) -> bytes | None:
        """Nothing, at once."""
        return b""


class RequestBody:
    """Implements `RawBody` for the application; the protocol feeds it.

    While a reader waits for a body of known length, the socket writes straight into the reader's
    buffer (`direct_buffer`, `received_directly`). Otherwise bytes pass through `feed` and wait.
    """

    __slots__ = (
        "_buffered",
        "_decoder",
        "_discarding",
        "_failed",
        "_filled_bytes",
        "_loop",
        "_missing_bytes",
        "_source",
        "_target",
        "_waiter",
        "complete",
        "received_bytes",
        "size_bytes",
    )

    def __init__(
        self, source: Source, size_bytes: int | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.size_bytes = size_bytes
        self.complete = size_bytes == 0
        """All of it left the socket, though perhaps not this object."""
        self.received_bytes = 0
        self._source = source
        self._loop = loop
        self._decoder = ChunkedDecoder() if size_bytes is None else None
        self._missing_bytes = size_bytes or 0
        self._buffered = b""
        self._target: memoryview | None = None
        self._filled_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._failed = False
        self._discarding = False

    # For the application.

    async def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer; fewer bytes than its length only at the body's end, 0 after it."""
        assert self._waiter is None, "a body has one reader at a time"
        buffered = self._buffered
        count = min(len(buffered), len(buffer))
        if count:
            buffer[:count] = buffered[:count]
            self._buffered = buffered[count:]
        if count == len(buffer) or self.complete:
            return count
        if self._failed:
            raise ClientDisconnected
        self._target = buffer
        self._filled_bytes = count
        self._waiter = self._loop.create_future()
        self._source.body_wanted()
        try:
            await self._waiter
        finally:
            # Also when cancelled: from here on nothing may be written into the buffer.
            self._target = self._waiter = None
        return self._filled_bytes

    async def read_all(self, limit_bytes: int) -> bytes:
        """The rest of the body; BodyTooLargeError when it is longer than the limit."""
        if self.size_bytes is not None and self.size_bytes > limit_bytes:
            raise BodyTooLargeError
        now = self.take_now()
        if now is not None:
            if len(now) > limit_bytes:
                raise BodyTooLargeError
            return now
        if self.size_bytes is not None:
            whole = bytearray(len(self._buffered) + self._missing_bytes)
            await self.read_into(memoryview(whole))
            return bytes(whole)
        pieces = bytearray()
        piece = bytearray(min(_PIECE_BYTES, limit_bytes + 1))
        while count := await self.read_into(memoryview(piece)):
            pieces += memoryview(piece)[:count]
            if len(pieces) > limit_bytes:
                raise BodyTooLargeError
        return bytes(pieces)

    def take_now(self) -> bytes | None:
        """The rest of the body if all of it was received already, else None."""
        if not self.complete:
            return None
        buffered, self._buffered = self._buffered, b""
        return buffered

    # For the protocol.

    @property
    def waiting(self) -> bool:
        """Whether a reader waits for the client."""
        return self._waiter is not None

    @property
    def buffered_bytes(self) -> int:
        """Received and not yet read."""
        return len(self._buffered)

    @property
    def missing_bytes(self) -> int | None:
        """Not yet received; None when that is not known."""
        return None if self._decoder is not None else self._missing_bytes

    def direct_buffer(self) -> memoryview | None:
        """Where the socket may write the next bytes of the body, if a reader waits for them."""
        if self._target is None or self._decoder is not None:
            return None
        start = self._filled_bytes
        return self._target[start : start + self._missing_bytes]

    def received_directly(self, count: int) -> None:
        """The socket wrote that many bytes into `direct_buffer`."""
        assert self._target is not None
        self.received_bytes += count
        self._filled_bytes += count
        self._missing_bytes -= count
        self.complete = not self._missing_bytes
        self._wake_when_served()

    def feed(self, data: bytes) -> bytes:
        """Bytes from the connection; what lies behind the body is returned.

        RefusedError when the chunked coding is not valid.
        """
        decoder = self._decoder
        surplus = b""
        if decoder is None:
            missing = self._missing_bytes
            if len(data) > missing:
                data, surplus = data[:missing], data[missing:]
            self._missing_bytes = missing - len(data)
            self.complete = not self._missing_bytes
        else:
            data = decoder.decode(data)
            if decoder.finished:
                self.complete = True
                surplus, decoder.surplus = decoder.surplus, b""
        self.received_bytes += len(data)
        if self._discarding:
            return surplus
        if self._target is None:
            self._buffered = self._buffered + data if self._buffered else data
            return surplus
        start = self._filled_bytes
        count = min(len(data), len(self._target) - start)
        self._target[start : start + count] = data[:count]
        self._buffered = data[count:]
        self._filled_bytes = start + count
        self._wake_when_served()
        return surplus

    def discard(self) -> None:
        """Nobody will read the rest."""
        self._discarding = True
        self._buffered = b""

    def fail(self) -> None:
        """The rest will not come: the reader, now or later, gets ClientDisconnected."""
        if self.complete:
            return
        self._failed = True
        self._buffered = b""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ClientDisconnected())

    def _wake_when_served(self) -> None:
        assert self._target is not None
        if self._filled_bytes < len(self._target) and not self.complete:
            return
        # Taken at once: later bytes wait in `_buffered`, not in a buffer that is spoken for.
        self._target = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
