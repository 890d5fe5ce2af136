"""Metadata in etcd: CPU of commits and reads, alone and shared, and etcd's bytes an object.

`python tests/bench/etcd.py [--json]`. One member without fsync: the disk's wait is left out, its CPU
is not. An object's commit is what the gateway sends for a plain PUT: four compares, the record, the
counter of its blob.
"""

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

from placement.metastore.etcd import EtcdMetastore, EtcdOptions, open_etcd
from placement.metastore.port import Put, Range, Txn, absent, exists, unchanged
from tests.contract.etcd_process import EtcdCluster, etcd_binary

CALLS = {1: 1500, 16: 12_000, 64: 20_000}
"""Concurrency → calls."""
OBJECTS = 50_000
Row = dict[str, object]


def _record_key(number: int) -> bytes:
    return b"object/b0000001/some/folder/name-%016x" % (number * 0x9E3779B97F4A7C15 % (1 << 64))


def _commit(number: int) -> Txn:
    key = _record_key(number)
    return Txn(
        (exists(b"bucket"), unchanged(b"map/current", 0), absent(key), absent(b"garbage/" + key)),
        (Put(key, bytes(260)),),
        (Range(key), Range(b"bucket")),
    )


async def _measure(
    name: str,
    cluster: EtcdCluster,
    store: EtcdMetastore,
    concurrency: int,
    call: Callable[[int], Awaitable[object]],
) -> Row:
    calls = CALLS[concurrency]
    numbers = iter(range(calls))

    async def worker() -> None:
        for number in numbers:
            await call(number)

    member = cluster.members[0]
    shared = store.shared
    etcd_before, before, started = member.cpu_seconds(), _cpu_seconds(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
    elapsed = time.perf_counter() - started
    batches = sum(store.shared[1:4:2]) - sum(shared[1:4:2])
    return {
        "case": name,
        "concurrency": concurrency,
        "calls_per_second": round(calls / elapsed),
        "client_us": round((_cpu_seconds() - before) / calls * 1e6, 1),
        "etcd_us": round((member.cpu_seconds() - etcd_before) / calls * 1e6, 1),
        "shared_by": round(calls / batches, 1),
    }


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _costs(cluster: EtcdCluster) -> list[Row]:
    store = await open_etcd(EtcdOptions(cluster.endpoints))
    await store.txn(Txn(success=(Put(b"bucket", b"settings"),)))
    rows = []
    base = 0
    for concurrency, calls in CALLS.items():
        first = base

        async def commit(number: int, first: int = first) -> None:
            assert (await store.txn(_commit(first + number))).succeeded

        rows.append(await _measure("commit", cluster, store, concurrency, commit))
        base += calls
    for concurrency in CALLS:

        async def lookup(number: int) -> None:
            assert (await store.get_many((b"bucket", _record_key(number))))[1] is not None

        rows.append(await _measure("lookup", cluster, store, concurrency, lookup))
    await store.close()
    return rows


async def _bytes_per_object(cluster: EtcdCluster) -> Row:
    """Once written, its history compacted: what etcd's file holds, and what it had to be."""
    store = await open_etcd(EtcdOptions(cluster.endpoints))
    await store.txn(Txn(success=(Put(b"bucket", b"settings"),)))
    before = await store.status()
    numbers = iter(range(10_000_000, 10_000_000 + OBJECTS))

    async def worker() -> None:
        for number in numbers:
            await store.txn(_commit(number))

    async with asyncio.TaskGroup() as group:
        for _ in range(64):
            group.create_task(worker())
    written = await store.status()
    await store.compact(written.revision)
    await asyncio.sleep(2)
    after = await store.status()
    await store.close()
    in_use = (after.in_use_bytes - before.in_use_bytes) / OBJECTS
    return {
        "case": "bytes",
        "objects": OBJECTS,
        "record_bytes": 260 + len(_record_key(0)),
        "in_use_bytes_per_object": round(in_use),
        "file_bytes_per_object": round((after.size_bytes - before.size_bytes) / OBJECTS),
        "objects_in_8_gib_million": round((8 << 30) / in_use / 1e6, 1),
    }


def main() -> None:
    """A fresh etcd for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.parse_args()
    if etcd_binary() is None:
        raise SystemExit("no etcd: install the test dependencies, or name one in TEST_ETCD")
    rows: list[Row] = []
    cluster = EtcdCluster(fsync=True)
    try:
        rows += uvloop.run(_costs(cluster))
        rows.append(uvloop.run(_bytes_per_object(cluster)))
    finally:
        cluster.close()
    sys.stdout.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
