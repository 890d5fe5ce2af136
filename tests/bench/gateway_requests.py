"""CPU of a gateway worker per request: the real protocol class, gateway and clients, without a socket.

A real store on six drives runs beside it; this process joins it as a worker would and feeds request
bytes to `HttpProtocol` on a transport made of a list. Printed is this process's CPU alone (best of
several rounds); what the storage process and the kernel's sockets cost comes on top.
"""

import argparse
import asyncio
import gc
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvloop

from gateway.app import Gateway
from gateway.context import Context
from gateway.http.access_log import AccessLog
from gateway.http.message import HttpRequest
from gateway.http.protocol import HttpProtocol
from gateway.http.service import HttpService
from gateway.http.settings import HttpSettings
from gateway.metrics import RequestCounts
from gateway.operations.registry import OPERATIONS
from ops.clients import connect
from ops.process import GC_THRESHOLD
from ops.settings import ProcessSettings
from placement.allocator import tune_allocator
from tests.bench import _load as load
from tests.functional.store_process import StoreProcess

KIB, MIB = 1 << 10, 1 << 20
BUCKET = "bench"
LIST_KEYS = 2500
DELETE_KEYS = 100
ROUNDS = 5
CONNECTIONS = 16
"""For writes: those that are under way together share messages and flushes."""

Row = dict[str, Any]


class ListTransport:
    """Takes every byte at once; keeps the start of each answer."""

    def __init__(self) -> None:
        self.answer = b""
        self.sent_bytes = 0
        self.bodiless = False
        self.expected_bytes = 0
        self.answered: asyncio.Future[None] | None = None

    def write(self, data: bytes) -> None:
        """Count, and tell when all that the head announces has come."""
        if not self.answer:
            self.answer = bytes(data[:4096])
            head, _, _ = self.answer.partition(b"\r\n\r\n")
            self.expected_bytes = len(head) + 4
            if not self.bodiless:
                _, _, length = head.partition(b"Content-Length: ")
                self.expected_bytes += int(length.partition(b"\r\n")[0])
        self.sent_bytes += len(data)
        if self.sent_bytes == self.expected_bytes:
            assert self.answered is not None
            self.answered.set_result(None)

    def writelines(self, buffers: Iterable[bytes]) -> None:
        """As `write`."""
        for buffer in buffers:
            self.write(buffer)

    def get_extra_info(self, name: str) -> Any:
        """A TCP peer."""
        return ("127.0.0.1", 1) if name == "peername" else None

    def get_write_buffer_size(self) -> int:
        """Never anything."""
        return 0

    def is_closing(self) -> bool:
        """Never."""
        return False

    def set_write_buffer_limits(self, **_limits: int) -> None:
        """No limits."""

    def pause_reading(self) -> None:
        """The feeder does not listen."""

    def resume_reading(self) -> None:
        """Likewise."""

    def close(self) -> None:
        """Nothing to close."""

    abort = write_eof = close


class ServerState:
    """What uvicorn keeps of its protocols."""

    def __init__(self) -> None:
        self.connections: set[Any] = set()
        self.tasks: set[asyncio.Task[None]] = set()


class Worker:
    """One connection to a gateway that lives in this process."""

    def __init__(self, service: HttpService, target: load.Target) -> None:
        self._signer = load.Signer(target)
        self._host = target.endpoint.partition("//")[2]
        self._transport = ListTransport()
        self._protocol = HttpProtocol(service, server_state=ServerState())
        self._protocol.connection_made(self._transport)  # type: ignore[arg-type]

    def request(
        self, method: str, path: str, body: bytes = b"", query: str = "", headers: str = ""
    ) -> bytes:
        """The bytes of a signed request."""
        path = quote(path)
        return self._encoded(
            method, path, body, query, headers, self._signer.headers(method, path, query)
        )

    def chunked(self, path: str, body: bytes) -> bytes:
        """The bytes of a PUT whose body is one signed chunk, as minio-go sends small ones."""
        path = quote(path)
        signed, framed = self._signer.chunked("PUT", path, body)
        return self._encoded("PUT", path, framed, "", "", signed)

    def _encoded(
        self, method: str, path: str, body: bytes, query: str, headers: str, signed: dict[str, str]
    ) -> bytes:
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        if body:
            lines += f"Content-Length: {len(body)}\r\n"
        url = f"{path}?{query}" if query else path
        head = (
            f"{method} {url} HTTP/1.1\r\nHost: {self._host}\r\n"
            f"User-Agent: MinIO (linux; amd64) minio-go/v7.0.90 warp/1.1.3\r\n{headers}{lines}\r\n"
        )
        return head.encode() + body

    async def send(self, request: bytes) -> int:
        """Feed a request and wait for its end; the number of bytes answered."""
        transport, protocol = self._transport, self._protocol
        transport.answer = b""
        transport.bodiless = request.startswith(b"HEAD")
        transport.sent_bytes = 0
        transport.answered = answered = asyncio.get_running_loop().create_future()
        view = memoryview(request)
        while view:
            buffer = protocol.get_buffer(-1)
            count = min(len(buffer), len(view), 256 * KIB)
            buffer[:count] = view[:count]
            protocol.buffer_updated(count)
            view = view[count:]
            if view and len(request) > 256 * KIB:
                await asyncio.sleep(0)
        await answered
        # The protocol notes the request and goes on before the loop comes back here.
        assert transport.answer[9:12] in (b"200", b"204"), transport.answer
        return transport.sent_bytes


class Bench:
    """The cases, against one worker."""

    def __init__(
        self, workers: Sequence[Worker], show: Callable[[Row], None], names: Sequence[str]
    ) -> None:
        self._workers = workers
        self._worker = workers[0]
        self._show = show
        self._names = names
        self.rows: list[Row] = []

    async def case(
        self, name: str, requests: Sequence[bytes], rounds: int = ROUNDS, connections: int = 1
    ) -> None:
        """Send all requests in each round, over some connections; report the cheapest round."""
        if self._names and name not in self._names:
            return

        async def share(number: int) -> None:
            send = self._workers[number].send
            for request in requests[number::connections]:
                await send(request)

        best = wall = float("inf")
        for _ in range(rounds):
            begun, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(share(number) for number in range(connections)))
            best = min(best, (time.process_time() - cpu) / len(requests))
            wall = min(wall, (time.perf_counter() - begun) / len(requests))
        row = {
            "case": name,
            "worker_cpu_us": round(best * 1e6, 1),
            "wall_us": round(wall * 1e6, 1),
        }
        self.rows.append(row)
        self._show(row)

    async def run(self) -> None:
        """All cases; later ones read what earlier ones wrote."""
        worker = self._worker
        make = worker.request
        await worker.send(make("PUT", f"/{BUCKET}"))
        for size, name in ((KIB, "1k"), (64 * KIB, "64k"), (8 * MIB, "8m")):
            await worker.send(make("PUT", f"/{BUCKET}/{name}", _body(size)))
        await self.case("head", [make("HEAD", f"/{BUCKET}/1k")] * 2000)
        await self.case("get 1k", [make("GET", f"/{BUCKET}/1k")] * 2000)
        await self.case("get 64k", [make("GET", f"/{BUCKET}/64k")] * 500)
        await self.case("get 8m", [make("GET", f"/{BUCKET}/8m")] * 8)
        puts = [make("PUT", f"/{BUCKET}/put/{n}", _body(KIB)) for n in range(1600)]
        await self.case("put 1k", puts, connections=CONNECTIONS)
        puts = [worker.chunked(f"/{BUCKET}/chunked/{n}", _body(KIB)) for n in range(1600)]
        await self.case("put 1k chunked", puts, connections=CONNECTIONS)
        await self.case("put 8m", [make("PUT", f"/{BUCKET}/8m", _body(8 * MIB))] * 3)
        await self._list()
        await self._delete()

    async def _list(self) -> None:
        if self._names and "list 1000" not in self._names:
            return
        make = self._worker.request
        for number in range(LIST_KEYS):
            await self._worker.send(make("PUT", f"/{BUCKET}/list/{number:05}", b"x"))
        query = "list-type=2&max-keys=1000&prefix=list%2F"
        await self.case("list 1000", [make("GET", f"/{BUCKET}", query=query)] * 5)

    async def _delete(self) -> None:
        make = self._worker.request
        entries = "".join(
            f"<Object><Key>put/{number}</Key></Object>" for number in range(DELETE_KEYS)
        )
        body = f"<Delete><Quiet>true</Quiet>{entries}</Delete>".encode()
        digest = _base64(hashlib.md5(body, usedforsecurity=False).digest())
        request = make("POST", f"/{BUCKET}", body, "delete=", f"Content-MD5: {digest}\r\n")
        await self.case("delete 100", [request], 1)


def _body(size: int) -> bytes:
    return bytes(range(256)) * (size // 256)


def _base64(data: bytes) -> str:
    from base64 import b64encode

    return b64encode(data).decode()


def _settings(store: StoreProcess) -> ProcessSettings:
    directory = store.directory.resolve()
    access_key, secret_key = store.credentials
    return ProcessSettings(
        role="bench",
        number=0,
        directory=str(directory),
        run=str(directory / "run"),
        cluster_id=b"",
        cluster_key=(directory / "cluster.key").read_bytes(),
        is_new=False,
        drives=[],
        scheme=None,
        region=load.REGION,
        domains=[],
        bind="",
        root_access_key=access_key,
        root_secret_key=secret_key,
        workers=1,
    )


async def measure(
    store: StoreProcess, show: Callable[[Row], None], names: Sequence[str], log: Path
) -> list[Row]:
    """Join the store as a worker and run the cases."""
    clients = await connect(_settings(store), buffers=12)
    context = Context(
        metadata=clients.metadata,
        objects=clients.objects,
        clock=clients.clock,
        randomness=clients.randomness,
        region=load.REGION,
    )
    gateway = Gateway(context, OPERATIONS, domains=(), counts=RequestCounts())
    access_log = AccessLog(log, clock=clients.clock)

    def finished(request: HttpRequest) -> None:
        gateway.finished(request)
        access_log.write(request)

    service = HttpService(
        gateway,
        settings=HttpSettings(),
        clock=clients.clock,
        randomness=clients.randomness,
        finished=finished,
    )
    service.start()
    target = load.Target(store.endpoint, *store.credentials)
    bench = Bench([Worker(service, target) for _ in range(CONNECTIONS)], show, names)
    try:
        await bench.run()
    finally:
        service.stop()
        await access_log.close()
        await clients.close()
    return bench.rows


def main() -> int:
    """Start a store, measure, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--json", action="store_true", help="print JSON rows")
    parser.add_argument("--profile", metavar="FILE", help="write a cProfile of the cases there")
    options = parser.parse_args()

    def show(row: Row) -> None:
        if not options.json:
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)

    tune_allocator()
    gc.set_threshold(GC_THRESHOLD, 50, 100)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        store = StoreProcess(Path(folder, "data"), ("--workers", "1"))
        try:
            store.start()
            work = measure(store, show, options.cases, Path(folder, "access.log"))
            if options.profile:
                import cProfile

                profile = cProfile.Profile()
                rows = profile.runcall(uvloop.run, work)
                profile.dump_stats(options.profile)
            else:
                rows = uvloop.run(work)
            store.stop()
        finally:
            store.kill()
    if options.json:
        print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
