"""The sending half of a connection: whole responses, streams, and waiting for the client."""

import asyncio
import fcntl
import logging
import sys
import termios
from collections.abc import Sequence

from gateway.http.message import HttpRequest
from gateway.http.refusals import INTERNAL_ERROR
from gateway.s3.errors import ClientDisconnected
from gateway.s3.message import Buffer, Stream

logger = logging.getLogger("ostraka.http")

_JOIN_BYTES_MAX = 64 * 1024
"""Larger bodies are not copied behind their head."""


class Outlet:
    """Writes to one transport; `pause`, `resume` and `lose` are what the transport tells its
    protocol."""

    __slots__ = ("_handed_bytes", "_loop", "_lost", "_paused", "_transport", "_waiter")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._paused = False
        self._lost = False
        self._waiter: asyncio.Future[None] | None = None
        self._handed_bytes = 0

    def limit(self, *, secure: bool) -> None:
        """Set the transport's buffer limits. It may tell its protocol at once that bytes wait: those
        that end a handshake of TLS."""
        # Buffers of a stream are reused once the transport is empty, so "drained" must mean that.
        # Under TLS bytes are copied when encrypted, and a high mark of 0 would pause for ever.
        self._transport.set_write_buffer_limits(high=1 if secure else 0, low=0)

    def pause(self) -> None:
        """Bytes wait in the transport."""
        self._paused = True

    def resume(self) -> None:
        """The transport is empty."""
        self._paused = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def lose(self) -> None:
        """The connection is gone, or given up: nothing more can be sent."""
        self._lost = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ClientDisconnected())

    def write(self, data: bytes) -> None:
        """Hand over bytes that are known to be few."""
        self._handed_bytes += len(data)
        self._transport.write(data)

    def write_whole(self, head: bytes, body: bytes) -> None:
        """Hand over a response, in one write."""
        self._handed_bytes += len(head) + len(body)
        if len(body) <= _JOIN_BYTES_MAX:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    @property
    def is_drained(self) -> bool:
        """Whether all that was written has left the transport."""
        return not self._paused

    async def drained(self) -> None:
        """Return when the transport is empty; ClientDisconnected when it will never be."""
        if not self._paused:
            return
        if self._lost:
            raise ClientDisconnected
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def write_stream(self, request: HttpRequest, head: bytes, stream: Stream) -> bool:
        """Hand over group by group, the next when the transport is empty; False when the stream
        broke off, after which the connection must be cut."""
        chunks = stream.chunks()
        try:
            async for group in chunks:
                if self._lost:
                    return False
                request.bytes_out += self._write_group(head, group)
                head = b""
                await self.drained()
        except ClientDisconnected:
            return False
        except Exception:
            logger.exception("request %s: the response broke off", request.request_id)
            request.error_code = INTERNAL_ERROR.code
            return False
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()
        if head:
            self.write(head)
        if request.bytes_out != stream.size_bytes:
            logger.error("request %s: the response has a wrong length", request.request_id)
            request.met_bug = True
            request.error_code = INTERNAL_ERROR.code
            return False
        return True

    def _write_group(self, head: bytes, group: Sequence[Buffer]) -> int:
        """The bytes of the group, without the head."""
        size = 0
        for buffer in group:
            size += memoryview(buffer).nbytes
        self._handed_bytes += len(head) + size
        self._transport.writelines([head, *group] if head else group)
        return size

    def unsent_bytes(self) -> int:
        """What the kernel did not take yet."""
        return self._transport.get_write_buffer_size()

    def accepted_bytes(self) -> int:
        """What the client's kernel acknowledged: ours takes new bytes only in large steps."""
        queued = bytearray(4)
        descriptor = self._transport.get_extra_info("socket").fileno()
        if descriptor >= 0:
            fcntl.ioctl(descriptor, termios.TIOCOUTQ, queued)
        return self._handed_bytes - self.unsent_bytes() - int.from_bytes(queued, sys.byteorder)
