"""CPU of one small call, both sides in processes of their own: `python tests/bench/bench_rpc.py`."""

import asyncio
import json
import os
import resource
import sys
import tempfile

import uvloop

from placement.rpc.client import RpcClient
from placement.rpc.server import Request, RpcServer

CALLS = 60_000
CONCURRENCY = 16


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _serve(path: str) -> None:
    ended = asyncio.Event()
    used: list[float] = []

    def echo(request: Request) -> None:
        request.reply(b"ok", ())

    def report(request: Request) -> None:
        used.append(_cpu_seconds())
        request.reply(repr(used[-1]).encode())
        if len(used) == 2:
            ended.set()

    server = RpcServer({1: echo, 2: report}, name="bench")
    await server.listen_unix(path)
    await ended.wait()
    await server.close(drain_seconds=1)


async def _call(path: str) -> dict[str, float]:
    client = await RpcClient.connect(path, name="bench")
    header = b"h" * 40
    payload = (b"p" * 1100,)

    async def caller(count: int) -> None:
        for _ in range(count):
            await client.call(1, header, payload)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(caller(200))
    server_before = float(bytes((await client.call(2, b"")).header))
    before = _cpu_seconds()
    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(caller(CALLS // CONCURRENCY))
    client_used = _cpu_seconds() - before
    server_used = float(bytes((await client.call(2, b"")).header)) - server_before
    await client.close()
    return {
        "client_us": round(client_used / CALLS * 1e6, 2),
        "server_us": round(server_used / CALLS * 1e6, 2),
    }


def main() -> None:
    """Fork the server, call it, print a JSON line."""
    with tempfile.TemporaryDirectory(prefix="rpc") as folder:
        path = os.path.join(folder, "s")
        child = os.fork()
        if child == 0:
            uvloop.run(_serve(path))
            os._exit(0)
        sys.stdout.write(json.dumps({"bench": "rpc", **uvloop.run(_call(path))}) + "\n")
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
