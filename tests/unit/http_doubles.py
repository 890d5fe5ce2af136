"""A connection on a transport made of lists, and applications for it: doubles for tests of the protocol."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from gateway.http.message import HttpRequest
from gateway.http.protocol import HttpProtocol
from gateway.http.service import HttpService
from gateway.http.settings import HttpSettings
from gateway.s3.message import Buffer, S3Response


class FakeClock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def now_ns(self) -> int:
        return 0

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        raise AssertionError


class FakeRandomness:
    def token(self, size_bytes: int) -> bytes:
        return bytes(size_bytes)

    def uniform(self) -> float:
        return 0.0


class ServerState:
    def __init__(self) -> None:
        self.connections: set[Any] = set()
        self.tasks: set[asyncio.Task[None]] = set()


class FakeTransport:
    """Takes everything at once unless `stuck`; tells its protocol what a transport would."""

    def __init__(self, protocol: HttpProtocol) -> None:
        self.protocol = protocol
        self.sent = bytearray()
        self.reading = True
        self.closed = False
        self.aborted = False
        self.eof_written = False
        self.stuck = False
        self.unsent = 0
        self.ends_a_handshake = False

    def get_extra_info(self, name: str) -> object:
        return {"peername": ("192.0.2.7", 5)}.get(name)

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        assert (high, low) == (0, 0)
        if self.ends_a_handshake:
            self.stuck = True
            self.protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: bytes) -> None:
        assert not self.eof_written
        assert not self.closed
        self.sent += data
        if self.stuck:
            self.unsent += len(data)
            self.protocol.pause_writing()

    def writelines(self, buffers: Iterable[Buffer]) -> None:
        self.write(b"".join(buffers))

    def unstick(self) -> None:
        self.stuck = False
        self.unsent = 0
        self.protocol.resume_writing()

    def write_eof(self) -> None:
        self.eof_written = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()


Application = Callable[[HttpRequest], S3Response | Awaitable[S3Response]]


class Connection:
    """The protocol under test with everything around it."""

    def __init__(
        self,
        application: Application,
        options: HttpSettings | None = None,
        *,
        ends_a_handshake: bool = False,
    ) -> None:
        self.clock = FakeClock()
        self.log: list[HttpRequest] = []
        self.service = HttpService(
            application,
            settings=options or HttpSettings(),
            clock=self.clock,
            randomness=FakeRandomness(),
            finished=self.log.append,
        )
        self.state = ServerState()
        self.protocol = HttpProtocol(self.service, server_state=self.state)
        self.transport = FakeTransport(self.protocol)
        self.transport.ends_a_handshake = ends_a_handshake
        self.protocol.connection_made(self.transport)  # type: ignore[arg-type]

    async def feed(self, data: bytes, *, piece: int = 1 << 20) -> None:
        """Deliver bytes as a transport would: into the protocol's buffers, not while paused."""
        start = 0
        while start < len(data) and not self.transport.closed:
            for _ in range(50):
                if self.transport.reading:
                    break
                await asyncio.sleep(0)
            if not self.transport.reading:
                return
            buffer = self.protocol.get_buffer(65536)
            part = data[start : start + min(piece, len(buffer))]
            buffer[: len(part)] = part
            self.protocol.buffer_updated(len(part))
            start += len(part)
            await asyncio.sleep(0)
        await settle()

    def sweep_after(self, seconds: float) -> None:
        self.protocol.sweep(self.clock.seconds)
        self.clock.seconds += seconds
        self.protocol.sweep(self.clock.seconds)

    def statuses(self) -> list[int]:
        return [request.status for request in self.log]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


async def echo(request: HttpRequest) -> S3Response:
    """Answer with the method, the target and the body, the body read in odd portions."""
    body = b""
    buffer = memoryview(bytearray(7))
    while count := await request.body.read_into(buffer):
        body += buffer[:count]
    return S3Response(200, body=request.method.encode() + request.target + b" " + body)


async def whole(request: HttpRequest) -> S3Response:
    return S3Response(200, body=await request.body.read_all(1 << 20))


async def ignore(request: HttpRequest) -> S3Response:
    return S3Response(403, body=b"no")
