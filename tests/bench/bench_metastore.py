"""CPU of metadata commits and reads, the disk's flush left out: `python tests/bench/bench_metastore.py`."""

import asyncio
import gc
import json
import os
import resource
import sys
import tempfile
import time

import uvloop

from placement.clock import SystemClock
from placement.metastore.port import Put, Range, Txn, absent, exists, unchanged
from placement.metastore.remote import EmbeddedMetastore
from placement.metastore.serve import serve_metastore
from placement.metastore.sqlite import SqliteOwner
from placement.rpc.client import RpcClient
from placement.rpc.server import RpcServer

TXNS = 20_000
CONCURRENCY = 16


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _txn(number: int) -> Txn:
    key = b"object/%016x/%d" % (number * 0x9E3779B97F4A7C15 % (1 << 64), number)
    return Txn(
        (exists(b"bucket"), unchanged(b"map/current", 0), absent(key), absent(b"garbage/" + key)),
        (Put(key, bytes(260)), Put(b"stats/" + key, bytes(20))),
        (Range(key),),
    )


async def _owner(folder: str, ready: int) -> None:
    gc.set_threshold(100_000, 50, 100)  # as the storage process does
    path = os.path.join(folder, "metadata.sqlite")
    owner = SqliteOwner(path, SystemClock())
    await owner.txn(Txn(success=(Put(b"bucket", b"settings"),)))
    server = RpcServer(serve_metastore(owner), name="owner")
    await server.listen_unix(os.path.join(folder, "s"))
    os.write(ready, b"1")
    ended = asyncio.Event()
    while not ended.is_set():
        await asyncio.sleep(0.05)
        if os.path.exists(os.path.join(folder, "stop")):  # noqa: ASYNC240 — a bench may poll
            ended.set()
    await server.close(drain_seconds=1)
    await owner.close()


def _process_cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _client(folder: str, owner_pid: int) -> dict[str, float]:
    client = await RpcClient.connect(os.path.join(folder, "s"), name="bench")
    store = EmbeddedMetastore(os.path.join(folder, "metadata.sqlite"), client)
    numbers = iter(range(TXNS))

    async def writer() -> None:
        for number in numbers:
            await store.txn(_txn(number))

    owner_before, before, started = (
        _process_cpu_seconds(owner_pid),
        _cpu_seconds(),
        time.perf_counter(),
    )
    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(writer())
    elapsed = time.perf_counter() - started
    result = {
        "txn_per_second": round(TXNS / elapsed),
        "owner_us": (_process_cpu_seconds(owner_pid) - owner_before) / TXNS * 1e6,
        "client_us": (_cpu_seconds() - before) / TXNS * 1e6,
    }
    keys = (b"bucket", _txn(77).success[0].key)  # type: ignore[union-attr]
    before = _cpu_seconds()
    for _ in range(20_000):
        await store.get_many(keys)
    result["get_two_us"] = (_cpu_seconds() - before) / 20_000 * 1e6
    before = _cpu_seconds()
    for _ in range(50):
        await store.range(Range(b"object/", b"object0", limit=1000))
    result["list_1000_us"] = (_cpu_seconds() - before) / 50 * 1e6
    await store.close()
    await client.close()
    return {name: round(value, 1) for name, value in result.items()}


def main() -> None:
    """Fork the owner, use it, print a JSON line."""
    with tempfile.TemporaryDirectory(prefix="meta", dir=os.environ.get("BENCH_DIR")) as folder:
        ready_read, ready_write = os.pipe()
        child = os.fork()
        if child == 0:
            uvloop.run(_owner(folder, ready_write))
            os._exit(0)
        os.read(ready_read, 1)
        try:
            result = uvloop.run(_client(folder, child))
        finally:
            with open(os.path.join(folder, "stop"), "w"):
                pass
            os.waitpid(child, 0)
        sys.stdout.write(json.dumps({"bench": "metastore", **result}) + "\n")


if __name__ == "__main__":
    main()
