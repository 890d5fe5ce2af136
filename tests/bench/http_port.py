"""CPU and rate of the HTTP layer alone, with an application that answers at once.

Run as `python tests/bench/http_port.py`; it serves in a child process and drives it over loopback.
"""

import asyncio
import json
import multiprocessing
import resource
import socket
import sys
import time
from typing import cast

import uvloop

from gateway.http.message import HttpRequest
from gateway.http.server import serve_http
from gateway.http.settings import HttpSettings
from gateway.s3.message import S3Response
from placement.clock import SystemClock, SystemRandomness

REQUESTS = 40_000
CONNECTIONS = 16
BODY = b"x" * 1024
HEADERS = (
    b"Host: 127.0.0.1:9000\r\nUser-Agent: MinIO (linux; amd64) minio-go/v7.0.90 warp/1.1.3\r\n"
    b"Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260701/us-east-1/s3/"
    b"aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature="
    + b"0123456789abcdef" * 4
    + b"\r\nX-Amz-Content-Sha256: UNSIGNED-PAYLOAD\r\nX-Amz-Date: 20260701T000000Z\r\n"
)
CASES = {
    "get-1k": b"GET /bucket/some/key-00001 HTTP/1.1\r\n" + HEADERS + b"\r\n",
    "head": b"HEAD /bucket/some/key-00001 HTTP/1.1\r\n" + HEADERS + b"\r\n",
    "put-1k": b"PUT /bucket/some/key-00001 HTTP/1.1\r\n"
    + HEADERS
    + b"Content-Length: 1024\r\n\r\n"
    + BODY,
}


async def answer(request: HttpRequest) -> S3Response:
    """Take the body, give headers like those of an object."""
    data = request.body.take_now()
    if data is None:
        data = await request.body.read_all(1 << 20)
    headers = [
        ("ETag", '"0123456789abcdef0123456789abcdef"'),
        ("Last-Modified", "Wed, 01 Jul 2026 00:00:00 GMT"),
        ("Content-Type", "application/octet-stream"),
        ("Accept-Ranges", "bytes"),
    ]
    return S3Response(200, headers, b"" if data else BODY)


def serve(listener: socket.socket, pipe: "multiprocessing.connection.Connection") -> None:
    """The server process: reports its CPU seconds whenever it is asked."""

    async def main() -> None:
        shutdown = asyncio.Event()

        def report() -> None:
            if pipe.recv() == "stop":
                shutdown.set()
                return
            usage = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send(usage.ru_utime + usage.ru_stime)

        asyncio.get_running_loop().add_reader(pipe.fileno(), report)
        await serve_http(
            [listener],
            answer,
            tls_cert=None,
            tls_key=None,
            shutdown=shutdown,
            drain_seconds=1,
            settings=HttpSettings(),
            clock=SystemClock(),
            randomness=SystemRandomness(),
        )

    uvloop.run(main())


class Client(asyncio.Protocol):
    """Sends the request again for each answer, until the budget is spent."""

    def __init__(self, request: bytes, budget: list[int], done: asyncio.Event) -> None:
        self.request, self.budget, self.done = request, budget, done
        self.missing = 0
        self.head = request.startswith(b"HEAD")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if not self.missing:
            end = data.index(b"\r\n\r\n") + 4
            start = data.index(b"Content-Length: ") + 16
            length = 0 if self.head else int(data[start : data.index(b"\r", start)])
            self.missing = length - (len(data) - end)
        else:
            self.missing -= len(data)
        if self.missing:
            return
        self.budget[0] -= 1
        if self.budget[0] >= CONNECTIONS:
            self.transport.write(self.request)
        elif self.budget[0] <= 0:
            self.done.set()


async def drive(port: int, request: bytes, count: int) -> float:
    """Send that many requests; the seconds it took."""
    loop = asyncio.get_running_loop()
    budget, done = [count], asyncio.Event()
    started = time.perf_counter()
    transports = [
        (await loop.create_connection(lambda: Client(request, budget, done), "127.0.0.1", port))[0]
        for _ in range(CONNECTIONS)
    ]
    await done.wait()
    seconds = time.perf_counter() - started
    for transport in transports:
        transport.close()
    return seconds


def main() -> None:
    """Print a table, and JSON with --json."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=serve, args=(listener, theirs))
    process.start()
    results = []
    for name, request in CASES.items():
        uvloop.run(drive(port, request, REQUESTS // 10))
        ours.send("cpu")
        before = ours.recv()
        seconds = uvloop.run(drive(port, request, REQUESTS))
        ours.send("cpu")
        cpu = ours.recv() - before
        results.append(
            {
                "case": name,
                "requests_per_second": round(REQUESTS / seconds),
                "cpu_microseconds": round(cpu / REQUESTS * 1e6, 1),
            }
        )
    ours.send("stop")
    process.join()
    if "--json" in sys.argv:
        print(json.dumps(results))
    else:
        for row in results:
            print(
                f"{row['case']:8} {row['requests_per_second']:>8}/s {row['cpu_microseconds']:>7} µs"
            )


if __name__ == "__main__":
    main()
