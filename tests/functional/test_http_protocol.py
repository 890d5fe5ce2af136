"""The HTTP port on real sockets under uvloop: TLS, Expect, stalls, streams, back-pressure, drain."""

import asyncio
import contextlib
import datetime
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.http.access_log import AccessLog
from gateway.http.message import Finished, HttpRequest
from gateway.http.server import serve_http
from gateway.http.settings import HttpSettings
from gateway.s3.errors import ClientDisconnected
from gateway.s3.message import Buffer, S3Response
from placement.clock import SystemClock, SystemRandomness

Application = Callable[[HttpRequest], Awaitable[S3Response]]

QUICK = HttpSettings(
    head_seconds=1,
    idle_seconds=1.5,
    body_stall_seconds=1,
    write_stall_seconds=1,
    drain_seconds=1,
    linger_seconds=1,
)
GET = b"GET /b/k HTTP/1.1\r\nHost: h\r\n\r\n"


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario)


class Server:
    """A running server: its port, and how to stop it."""

    def __init__(self, port: int, shutdown: asyncio.Event, task: asyncio.Task[None]) -> None:
        self.port, self.shutdown, self.task = port, shutdown, task

    async def connect(
        self, context: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = "localhost" if context else None
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname=name, limit=1 << 26
        )

    async def ask(self, data: bytes, context: ssl.SSLContext | None = None) -> bytes:
        """Send, read until the server closes."""
        reader, writer = await self.connect(context)
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 10)
        await close(writer)
        return answer


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(
    application: Application,
    *,
    settings: HttpSettings = QUICK,
    tls: tuple[Path, Path] | None = None,
    finished: Finished | None = None,
    drain_seconds: float = 1,
) -> AsyncIterator[Server]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    shutdown, started = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(
        serve_http(
            [listener],
            application,
            tls_cert=str(tls[0]) if tls else None,
            tls_key=str(tls[1]) if tls else None,
            shutdown=shutdown,
            drain_seconds=drain_seconds,
            settings=settings,
            clock=SystemClock(),
            randomness=SystemRandomness(),
            finished=finished,
            started=started,
        )
    )
    await asyncio.wait_for(started.wait(), 5)
    try:
        yield Server(port, shutdown, task)
    finally:
        shutdown.set()
        await asyncio.wait_for(task, 10)


async def whole(request: HttpRequest) -> S3Response:
    return S3Response(200, body=await request.body.read_all(1 << 26))


async def hello(request: HttpRequest) -> S3Response:
    return S3Response(200, [("ETag", '"e"')], body=b"hello")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    signed = builder.sign(key, hashes.SHA256())
    cert_path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_path, key_path


def test_http_1_0_gets_an_answer_and_the_connection_closes() -> None:
    async def scenario() -> None:
        async with serving(hello) as server:
            answer = await server.ask(b"GET / HTTP/1.0\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nConnection: close\r\n" in answer
            assert answer.endswith(b"\r\n\r\nhello")

    run(scenario())


def test_head_has_the_headers_of_get_without_the_body() -> None:
    async def scenario() -> None:
        async with serving(hello) as server:
            close_after = b"Host: h\r\nConnection: close\r\n\r\n"
            answer = await server.ask(b"HEAD / HTTP/1.1\r\n" + close_after)
            assert b"Content-Length: 5\r\n" in answer
            assert answer.endswith(b"\r\n\r\n")
            for name in (b"x-amz-request-id: ", b"x-amz-id-2: ", b"Date: ", b"Server: Ostraka"):
                assert name in answer

    run(scenario())


def test_expect_is_answered_when_the_body_is_read() -> None:
    async def scenario() -> None:
        async with serving(whole) as server:
            reader, writer = await server.connect()
            writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n")
            writer.write(b"Content-Length: 5\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"hello")
            await reader.readuntil(b"\r\n\r\nhello")
            await close(writer)

    run(scenario())


def test_a_large_body_arrives_whole_plain_and_chunked() -> None:
    async def scenario() -> None:
        body = os.urandom(5_000_001)
        async with serving(whole) as server:
            reader, writer = await server.connect()
            writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(len(body)) == body
            writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
            for start in range(0, len(body), 70_000):
                piece = body[start : start + 70_000]
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            writer.write(b"0\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(len(body)) == body
            await close(writer)

    run(scenario())


def test_stalled_clients_are_let_go() -> None:
    async def scenario() -> None:
        async with serving(whole) as server:
            idle, head, body = await asyncio.gather(
                server.ask(b""),
                server.ask(b"GET / HT"),
                server.ask(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"),
            )
            assert idle == b""
            assert b"<Code>RequestTimeout</Code>" in head
            assert b"<Code>RequestTimeout</Code>" in body

    run(scenario())


def test_an_early_answer_reaches_a_client_that_sends_a_large_body() -> None:
    async def scenario() -> None:
        async def refuse(request: HttpRequest) -> S3Response:
            return S3Response(403, body=b"denied")

        async with serving(refuse) as server:
            head = b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n"
            answer = await server.ask(head + bytes(4_000_000))
            assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
            assert answer.endswith(b"\r\nConnection: close\r\n\r\ndenied")

    run(scenario())


class Reused:
    """A stream whose groups share one buffer, as pooled buffers do."""

    def __init__(self, groups: int, group_bytes: int) -> None:
        self.size_bytes = groups * group_bytes
        self.groups, self.group_bytes = groups, group_bytes
        self.asked = 0

    async def chunks(self) -> AsyncIterator[Sequence[Buffer]]:
        buffer = bytearray(self.group_bytes)
        for index in range(self.groups):
            self.asked += 1
            buffer[:] = bytes([index % 251]) * self.group_bytes
            yield [memoryview(buffer)[:1000], memoryview(buffer)[1000:]]


async def read_reused(reader: asyncio.StreamReader, stream: Reused) -> None:
    await reader.readuntil(b"\r\n\r\n")
    for index in range(stream.groups):
        group = await reader.readexactly(stream.group_bytes)
        assert group == bytes([index % 251]) * stream.group_bytes


def test_buffers_of_a_stream_may_be_reused_also_under_tls(certificate: tuple[Path, Path]) -> None:
    async def scenario() -> None:
        for tls in (None, certificate):
            stream = Reused(40, 1 << 20)

            async def answer(_: HttpRequest, stream: Reused = stream) -> S3Response:
                return S3Response(200, body=stream)

            context = ssl.create_default_context(cafile=str(certificate[0])) if tls else None
            async with serving(answer, tls=tls) as server:
                reader, writer = await server.connect(context)
                writer.write(GET)
                await asyncio.wait_for(read_reused(reader, stream), 20)
                await close(writer)

    run(scenario())


def test_a_slow_reader_does_not_grow_memory_and_is_let_go() -> None:
    async def scenario() -> None:
        stream = Reused(2000, 1 << 20)
        log: list[HttpRequest] = []

        async def answer(_: HttpRequest) -> S3Response:
            return S3Response(200, body=stream)

        async with serving(answer, finished=log.append) as server:
            client = socket.create_connection(("127.0.0.1", server.port))
            client.sendall(GET)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for _ in range(100):
                await asyncio.sleep(0.1)
                if log:
                    break
            grown_kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            client.close()
            assert stream.asked < 30, "the kernel's buffers, no more"
            assert grown_kibibytes < 32 * 1024
            assert log[0].error_code == "ClientDisconnected"

    run(scenario())


def test_a_slow_reader_that_goes_on_reading_gets_everything() -> None:
    async def scenario() -> None:
        stream = Reused(12, 1 << 20)
        loop = asyncio.get_running_loop()

        async def answer(_: HttpRequest) -> S3Response:
            return S3Response(200, body=stream)

        async with serving(answer) as server:
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            client.connect(("127.0.0.1", server.port))
            client.setblocking(False)
            await loop.sock_sendall(client, GET)
            received = 0
            for _ in range(16):
                received += len(await loop.sock_recv(client, 20_000))
                await asyncio.sleep(0.2)
            while received < stream.size_bytes:
                piece = await loop.sock_recv(client, 1 << 20)
                assert piece, "cut although it went on reading"
                received += len(piece)
            client.close()

    run(scenario())


def test_tls_serves_and_keeps_the_connection(certificate: tuple[Path, Path]) -> None:
    async def scenario() -> None:
        seen: list[bool] = []

        async def secure(request: HttpRequest) -> S3Response:
            seen.append(request.secure)
            return await whole(request)

        context = ssl.create_default_context(cafile=str(certificate[0]))
        body = os.urandom(1_000_000)
        async with serving(secure, tls=certificate) as server:
            reader, writer = await server.connect(context)
            for _ in range(3):
                writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + body)
                await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(len(body)) == body
            await close(writer)
            answer = await server.ask(b"GET / HTTP/1.0\r\n\r\n", context)
            assert answer.endswith(b"Connection: close\r\n\r\n")
        assert seen == [True] * 4

    run(scenario())


def test_plain_http_on_the_tls_port_and_tls_on_the_plain_port_fail_cleanly(
    certificate: tuple[Path, Path],
) -> None:
    async def scenario() -> None:
        async with serving(hello, tls=certificate) as server:
            assert b"HTTP" not in await server.ask(GET)
        async with serving(hello) as server:
            with pytest.raises((ssl.SSLError, OSError)):
                await server.connect(ssl.create_default_context(cafile=str(certificate[0])))

    run(scenario())


def test_a_client_that_leaves_mid_body_is_told_to_the_reader() -> None:
    async def scenario() -> None:
        told = asyncio.Event()

        async def read(request: HttpRequest) -> S3Response:
            try:
                return await whole(request)
            except ClientDisconnected:
                told.set()
                raise

        async with serving(read) as server:
            _, writer = await server.connect()
            writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc")
            await asyncio.sleep(0.1)
            writer.transport.abort()
            await asyncio.wait_for(told.wait(), 5)

    run(scenario())


def test_shutdown_finishes_requests_and_cuts_those_that_take_too_long() -> None:
    async def scenario() -> None:
        cancelled: list[bytes] = []

        async def slow(request: HttpRequest) -> S3Response:
            try:
                await asyncio.sleep(30 if request.target == b"/never" else 0.3)
            except asyncio.CancelledError:
                cancelled.append(request.target)
                raise
            return S3Response(200, body=b"done")

        async with serving(slow) as server:
            soon = asyncio.create_task(server.ask(GET))
            never = asyncio.create_task(server.ask(b"GET /never HTTP/1.1\r\nHost: h\r\n\r\n"))
            await asyncio.sleep(0.1)
            server.shutdown.set()
            assert (await soon).endswith(b"Connection: close\r\n\r\ndone")
            with contextlib.suppress(ConnectionError):
                assert await never == b""
            with pytest.raises(OSError, match=r".*"):
                await server.connect()
        assert cancelled == [b"/never"]

    run(scenario())


def test_the_access_log_has_a_line_for_each_request_and_no_secrets(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "access.log"
        log = AccessLog(path, clock=SystemClock())

        async def noted(request: HttpRequest) -> S3Response:
            request.operation, request.bucket = "PutObject", "b"
            request.key, request.access_key = 'a "key"\n é', "AKIA"
            return await whole(request)

        async with serving(noted, finished=log.write) as server:
            answer = await server.ask(
                b"PUT /b/k?X-Amz-Signature=secret HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
                b'User-Agent: a "b"\r\nContent-Length: 5\r\n\r\nhello'
            )
            await server.ask(b"nonsense")
        log.reopen()
        await log.close()
        first, second = path.read_text().splitlines()
        fields = first.split(" ")
        assert fields[1] == "127.0.0.1"
        assert f"x-amz-request-id: {fields[2]}".encode() in answer
        assert fields[3:10] == [
            "PutObject", "b", "a%20%22key%22%0A%20%C3%A9", "200", "-", "5", "5",
        ]  # fmt: skip
        assert float(fields[10]) >= float(fields[11]) > 0
        assert " ".join(fields[12:]) == 'AKIA "a %22b%22"'
        assert "secret" not in first
        assert second.split(" ")[3:8] == ["-", "-", "-", "400", "BadRequest"]

    run(scenario())


def test_a_rotated_access_log_is_opened_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "access.log"
        log = AccessLog(path, clock=SystemClock())
        async with serving(hello, finished=log.write) as server:
            await server.ask(b"GET / HTTP/1.0\r\n\r\n")
            path.rename(tmp_path / "access.log.1")
            log.reopen()
            async with asyncio.timeout(5):
                while not path.exists():  # noqa: ASYNC110 - at once, without another request
                    await asyncio.sleep(0.01)
            await server.ask(b"GET / HTTP/1.0\r\n\r\n")
        await log.close()
        assert len((tmp_path / "access.log.1").read_text().splitlines()) == 1
        assert len(path.read_text().splitlines()) == 1

    run(scenario())
