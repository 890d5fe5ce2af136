"""`aws s3 sync` and `rclone sync` through a load balancer while the cluster's processes are killed.

A short form runs with the tests. The long one, of 2,000 files with both clients:

    SYNC_FILES=2000 RCLONE=/path/to/rclone python -m pytest -s tests/probe/test_sync.py
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.load_balancers import balancer_of
from ops.local_cluster import LocalCluster, Member, free_ports
from tests.functional.store_process import CLEAN_ENVIRONMENT
from tests.functional.test_cluster import NEEDS_ETCD, answers, client_of, fetch
from tests.probe.faults import Killer, in_turn
from tests.waiting import eventually

FILES = int(os.environ.get("SYNC_FILES", "40"))
RCLONE = os.environ.get("RCLONE") or shutil.which("rclone")
SIZE_BYTES_MAX = 24 << 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300 + FILES),
    NEEDS_ETCD,
]


def real_tree(root: Path, count: int) -> Path:
    """So many of the files that Python and its packages consist of, evenly from all of them."""
    folders = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platlib")]
    found = sorted(
        (path, number)
        for number, folder in enumerate(folders)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= SIZE_BYTES_MAX
    )
    for path, number in found[:: max(len(found) // count, 1)][:count]:
        target = root / str(number) / path.relative_to(folders[number])
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return root


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Three members of etcd, six nodes, two gateways and a keeper; gateways tell every request."""
    running = LocalCluster(
        tmp_path / "cluster",
        scheme="4+2",
        grace_seconds=120,
        gateway_options=("--access-log", "-"),
    )
    try:
        yield running.start()
    finally:
        running.stop()


class Door:
    """What clients talk to: a load balancer, else the first gateway, which is not killed then."""

    def __init__(self, cluster: LocalCluster) -> None:
        port, counts = free_ports(2)
        self.url = cluster.endpoints[0]
        self.spared: tuple[str, ...] = ("gateway1",)
        self._counts_url = ""
        folder = cluster.directory
        balancer = balancer_of(folder, port, cluster.endpoints, cluster.admin_urls)
        if balancer is None:
            return
        command = balancer.command
        if balancer.name == "haproxy":
            (folder / "counts.cfg").write_text(
                f"frontend counts\n    mode http\n    timeout client 9s\n"
                f"    bind 127.0.0.1:{counts}\n    stats enable\n    stats uri /\n"
            )
            command = (*command, "-f", str(folder / "counts.cfg"))
            self._counts_url = f"http://127.0.0.1:{counts}/;csv"
        environment = {**CLEAN_ENVIRONMENT}
        log = folder / "log" / "balancer.log"
        member = Member(balancer.name, "balancer", command, log, environment)
        cluster.members[member.name] = member
        member.start()
        self.url, self.spared = balancer.url, ()
        eventually(lambda: answers(self.url), 30)

    def failures(self) -> str:
        """What clients got of a load balancer instead of a gateway's answer, and had to try again."""
        if not self._counts_url:
            return "not counted"
        lines = fetch(self._counts_url)[1].decode().splitlines()
        names = lines[0].removeprefix("# ").split(",")
        rows = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:]]
        (front,) = [r for r in rows if (r["pxname"], r["svname"]) == ("s3", "FRONTEND")]
        (back,) = [r for r in rows if (r["pxname"], r["svname"]) == ("gateways", "BACKEND")]
        return f"{front['hrsp_5xx']} with 5xx, {back['eresp']} whose gateway was gone"


def answers_of(cluster: LocalCluster) -> Counter[str]:
    """How many requests were answered with each status, by the gateways' access logs."""
    counts: Counter[str] = Counter()
    for member in cluster.members.values():
        if member.kind == "gateway":
            for line in member.log.read_text(errors="replace").splitlines():
                fields = line.split(" ", 13)
                if len(fields) == 14 and fields[0].endswith("Z"):
                    counts[fields[6]] += 1
    return counts


def differing(one: Path, other: Path) -> str:
    """What `diff -r` prints: nothing for equal trees."""
    done = subprocess.run(
        ["diff", "-r", "-q", str(one), str(other)], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def run(command: list[str], environment: dict[str, str], seconds: float) -> None:
    """It must succeed at the first try: its own retries are what a user would have."""
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=seconds, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def commands(client: str) -> list[str]:
    """`sync` of that client, up to its two folders."""
    if client == "aws":
        return [sys.executable, str(Path(sys.executable).with_name("aws")), "s3", "sync"]
    assert RCLONE is not None
    return [RCLONE, "sync", "--s3-no-check-bucket"]


@pytest.mark.parametrize("client", ["aws", "rclone"])
def test_a_tree_goes_up_and_comes_down_whole_while_processes_are_killed(
    client: str, cluster: LocalCluster, tmp_path: Path
) -> None:
    if client == "rclone" and RCLONE is None:
        pytest.skip("there is no rclone")
    door = Door(cluster)
    access_key, secret_key = cluster.credentials
    environment = {
        **CLEAN_ENVIRONMENT,
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": door.url,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_S3_TYPE": "s3",
        "RCLONE_CONFIG_S3_PROVIDER": "Other",
        "RCLONE_CONFIG_S3_ENV_AUTH": "true",
        "RCLONE_CONFIG_S3_ENDPOINT": door.url,
        "RCLONE_CONFIG_S3_REGION": "us-east-1",
        "HOME": str(tmp_path),
    }
    s3 = client_of(cluster)
    s3.create_bucket(Bucket="tree")
    tree = real_tree(tmp_path / "tree", FILES)
    files = [path for path in tree.rglob("*") if path.is_file()]
    size_bytes = sum(path.stat().st_size for path in files)
    remote = "s3://tree/t" if client == "aws" else "s3:tree/t"
    sync = commands(client)
    began = time.monotonic()
    with Killer(cluster, in_turn(cluster, door.spared)) as killer:
        rounds = 0
        # A quick machine is through before anything was killed: again then, in other folders.
        while rounds == 0 or len(killer.killed) < 4:
            down = tmp_path / f"down{rounds}"
            run([*sync, str(tree), f"{remote}{rounds}"], environment, 200 + FILES)
            run([*sync, f"{remote}{rounds}", str(down)], environment, 200 + FILES)
            assert differing(tree, down) == ""
            rounds += 1
    seconds = time.monotonic() - began
    listed = sum(
        page["KeyCount"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket="tree")
    )
    s3.close()
    statuses = answers_of(cluster)
    failures = sum(count for status, count in statuses.items() if status.startswith("5"))
    print(
        f"\n{client}: {rounds} x {len(files)} files, {size_bytes / 1e6:.0f} MB, up and down in"
        f" {seconds:.0f} s; {len(killer.killed)} kills: {dict(Counter(killer.killed))}"
        f"\nanswers that gateways logged: {dict(statuses.most_common())}; 5xx among them: {failures};"
        f" through the load balancer: {door.failures()}"
    )
    assert listed == rounds * len(files)
