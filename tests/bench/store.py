"""A whole store on six drives: what PUT, GET, HEAD and LIST cost, end to end.

Throughput, server CPU per operation (all processes), peak proportional memory, bytes on disk per
byte stored; and a metadata commit alone. Ratios within one run are what to compare: single figures
depend on the machine. With `--json` the rows are printed as JSON.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

from placement.clock import SystemClock
from tests.bench import _load as load
from tests.bench import _watch as watch
from tests.functional.store_process import StoreProcess

KIB, MIB = 1 << 10, 1 << 20
SCENARIOS = (("1k", KIB, 16), ("64k", 64 * KIB, 16), ("8m", 8 * MIB, 4), ("256m", 256 * MIB, 1))
LIST_KEYS = 2500

Row = dict[str, Any]


def bench_commits(folder: Path) -> list[Row]:
    """Durable metadata commits of one owner, alone and with 16 callers at once."""
    from placement.metastore.port import Put, Txn, absent
    from placement.metastore.sqlite import SqliteOwner

    async def run(callers: int) -> Row:
        owner = SqliteOwner(str(folder / f"bench{callers}.sqlite"), SystemClock())
        done = 0
        end = time.monotonic() + 1.0

        async def caller(number: int) -> None:
            nonlocal done
            while time.monotonic() < end:
                key = b"o/%d/%d" % (number, done)
                done += 1
                await owner.txn(Txn((absent(key),), (Put(key, bytes(200)),)))

        cpu, begun = time.process_time(), time.monotonic()
        await asyncio.gather(*(caller(n) for n in range(callers)))
        seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
        await owner.close()
        return {
            "scenario": f"metadata commit, {callers} callers",
            "ops_s": round(done / seconds),
            "cpu_ms_op": round(cpu / done * 1000, 4),
        }

    return [asyncio.run(run(1)), asyncio.run(run(16))]


class EndToEnd:
    """PUT, GET, HEAD, LIST and DELETE against one running store."""

    def __init__(self, store: StoreProcess, seconds: float, show: Callable[[Row], None]) -> None:
        assert store.process is not None
        self._store = store
        self._root = store.process.pid
        self._target = load.Target(store.endpoint, *store.credentials)
        self._seconds = seconds
        self._show = show
        self.rows: list[Row] = []

    def measure(self, name: str, size: int, result: load.Result, cpu: float, disk: float) -> None:
        """Add a row."""
        row: Row = {
            "scenario": name,
            "ops_s": round(result.operations / result.seconds, 1),
            "cpu_ms_op": round(cpu / result.operations * 1000, 4),
        }
        if size:
            row["mb_s"] = round(result.operations * size / result.seconds / 1e6, 1)
        if disk:
            row["disk_per_byte"] = round(disk, 3)
        self.rows.append(row)
        self._show(row)

    def run(self) -> None:
        """All scenarios, in an order in which later ones find the objects of earlier ones."""
        memory = watch.PeakMemory(self._root)
        memory.start()
        for name, size, connections in SCENARIOS:
            self._sized(name, size, connections)
        self._list()
        row = {"scenario": "peak memory", "pss_mib": round(memory.stop() / MIB)}
        self.rows.append(row)
        self._show(row)

    def _timed(self, connections: int, work: Any, limit: int | None = None) -> Any:
        cpu = watch.cpu_seconds(self._root)
        result = load.run(self._target, connections, self._seconds, work, limit)
        return result, watch.cpu_seconds(self._root) - cpu

    def _sized(self, name: str, size: int, connections: int) -> None:
        bucket = f"bench-{name}"
        with_signer = load.Signer(self._target)
        load.request(self._target.connect(), with_signer, "PUT", f"/{bucket}")
        body = bytes(range(256)) * (size // 256)
        written = [0] * connections

        def put(connection: HTTPConnection, signer: load.Signer, thread: int, turn: int) -> None:
            load.request(connection, signer, "PUT", f"/{bucket}/{thread}/{turn}", body)
            written[thread] = turn + 1

        def get(connection: HTTPConnection, signer: load.Signer, thread: int, turn: int) -> None:
            key = f"/{bucket}/{thread}/{turn % written[thread]}"
            assert len(load.request(connection, signer, "GET", key)) == size

        def head(connection: HTTPConnection, signer: load.Signer, thread: int, turn: int) -> None:
            load.request(connection, signer, "HEAD", f"/{bucket}/{thread}/{turn % written[thread]}")

        before = watch.disk_bytes(self._store.directory)
        limit = 3 if size >= 256 * MIB else None
        result, cpu = self._timed(connections, put, limit)
        disk = watch.disk_bytes(self._store.directory) - before
        self.measure(f"put-{name}", size, result, cpu, disk / (result.operations * size))
        result, cpu = self._timed(connections, get, limit)
        self.measure(f"get-{name}", size, result, cpu, 0)
        if size == KIB:
            result, cpu = self._timed(connections, head)
            self.measure("stat", 0, result, cpu, 0)

    def _list(self) -> None:
        signer = load.Signer(self._target)
        connection = self._target.connect()
        load.request(connection, signer, "PUT", "/bench-list")

        def put(connection: HTTPConnection, signer: load.Signer, thread: int, turn: int) -> None:
            load.request(connection, signer, "PUT", f"/bench-list/{thread}/{turn}", b"x")

        load.run(self._target, 4, 600, put, LIST_KEYS // 4)

        def walk(connection: HTTPConnection, signer: load.Signer, thread: int, turn: int) -> None:
            token = ""
            keys = 0
            while True:
                query = f"continuation-token={quote(token, safe='')}&" if token else ""
                page = load.request(
                    connection, signer, "GET", "/bench-list", query=f"{query}list-type=2"
                )
                keys += page.count(b"<Contents>")
                _, found, rest = page.partition(b"<NextContinuationToken>")
                if not found:
                    break
                token = rest.partition(b"<")[0].decode()
            assert keys == LIST_KEYS // 4 * 4

        result, cpu = self._timed(4, walk)
        self.measure(f"list of {LIST_KEYS} keys", 0, result, cpu, 0)


COLUMNS = ("ops_s", "mb_s", "cpu_ms_op", "disk_per_byte", "pss_mib")


def print_row(row: Row) -> None:
    """One line of the table."""
    cells = "".join(f"{row.get(column, ''):>15}" for column in COLUMNS)
    print(f"{row['scenario']:<30}{cells}", flush=True)


def main() -> int:
    """Run everything; 0 when it worked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one scenario")
    arguments = parser.parse_args()
    show: Callable[[Row], None] = (lambda _: None) if arguments.json else print_row
    if not arguments.json:
        print(f"{'scenario':<30}" + "".join(f"{column:>15}" for column in COLUMNS), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        rows = bench_commits(Path(folder))
        for row in rows:
            show(row)
        store = StoreProcess(Path(folder) / "data")
        try:
            end_to_end = EndToEnd(store.start(), arguments.seconds, show)
            end_to_end.run()
            rows += end_to_end.rows
        finally:
            store.kill()
    if arguments.json:
        print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
