"""What a plain object of 1 KiB takes in etcd, and how many an etcd of 8 GiB holds.

A short form runs with the tests; a longer one: SIZED_OBJECTS=50000 python -m pytest -s
tests/probe/test_metadata_size.py
"""

import os
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ops.local_cluster import LocalCluster
from ops.metadata_headroom import OBJECT_SIZE_BYTES
from tests.functional.test_cluster import NEEDS_ETCD, client_of

OBJECTS = int(os.environ.get("SIZED_OBJECTS", "1000"))
QUOTA_BYTES = 8 << 30

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300 + OBJECTS / 10),
    NEEDS_ETCD,
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """As small as it can be: what is counted is in etcd."""
    running = LocalCluster(
        tmp_path / "cluster",
        etcd_members=1,
        nodes=1,
        drives_per_node=3,
        gateways=1,
        etcd_options=("--unsafe-no-fsync",),
    )
    try:
        yield running.start()
    finally:
        running.stop()


def in_use_bytes(cluster: LocalCluster) -> float:
    """Of etcd's file, as etcd tells it."""
    with urllib.request.urlopen(f"{cluster.etcd_urls[0]}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("etcd_mvcc_db_total_size_in_use_in_bytes "):
                return float(line.split()[1])
    raise AssertionError("etcd does not tell its size")


def test_an_object_takes_in_etcd_what_operators_are_told(cluster: LocalCluster) -> None:
    s3 = client_of(cluster)
    s3.create_bucket(Bucket="sized")

    def put(number: int) -> None:
        s3.put_object(Bucket="sized", Key=f"folder/object-{number:09}", Body=b"x" * 1024)

    before = in_use_bytes(cluster)
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(put, range(OBJECTS)):
            pass
    each = (in_use_bytes(cluster) - before) / OBJECTS
    print(
        f"\n{each:.0f} bytes an object of {OBJECTS}; 8 GiB hold"
        f" {QUOTA_BYTES / each / 1e6:.1f} million; told: {OBJECT_SIZE_BYTES} bytes"
    )
    # What operators are told is on the safe side, and not by much.
    assert OBJECT_SIZE_BYTES / 2 < each < OBJECT_SIZE_BYTES
