"""A cluster on loopback: one member of etcd, two nodes of three drives, a gateway of two workers.

The same scenarios as `store`, over TCP and etcd; CPU is that of all processes, etcd included. Run both
to compare: single figures depend on the machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.store import COLUMNS, EndToEnd, Row, print_row
from tests.functional.store_process import CLEAN_ENVIRONMENT, StoreProcess

COMMAND = ("--etcd", "1", "--nodes", "2", "--drives", "3", "--gateways", "1", "--workers", "2")


class ClusterProcess(StoreProcess):
    """Looks like one store: its processes are a tree below one root."""

    def start(self, timeout_seconds: float = 90) -> "ClusterProcess":
        """Start it and wait for its description."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "ops.local_cluster",
                str(self.directory),
                "--port",
                "0",
                *COMMAND,
            ],
            stdout=subprocess.PIPE,
            env=CLEAN_ENVIRONMENT,
            start_new_session=True,
        )
        description = self.directory / "cluster.json"
        end = time.monotonic() + timeout_seconds
        while not description.exists():
            assert time.monotonic() < end, "the cluster did not come up"
            assert self.process.poll() is None, "the cluster ended"
            time.sleep(0.1)
        self.endpoint = json.loads(description.read_text())["endpoints"][0]
        return self


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
        cluster = ClusterProcess(Path(folder) / "cluster")
        try:
            end_to_end = EndToEnd(cluster.start(), arguments.seconds, show)
            end_to_end.run()
        finally:
            cluster.stop()
    if arguments.json:
        print(
            json.dumps(
                [row | {"scenario": f"cluster {row['scenario']}"} for row in end_to_end.rows]
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
