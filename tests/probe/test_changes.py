"""Nodes that are lost, replaced, added and drained, real ones: what is moved, and that nothing is lost.

A short form runs with the tests; a longer one: CHANGES_OBJECTS=3000 python -m pytest -s
tests/probe/test_changes.py
"""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.local_cluster import LocalCluster
from tests.functional.test_cluster import (
    BUCKET,
    NEEDS_ETCD,
    Clients,
    check,
    client_of,
    look,
    moved_bytes,
    settled,
    stored_bytes,
    whole,
)
from tests.waiting import eventually

OBJECTS = int(os.environ.get("CHANGES_OBJECTS", "90"))
SIZES = (100, 5_000, 20_000, 60_000, 150_000, 300_000)
SETTLED_SECONDS = 120 + OBJECTS / 5

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600 + 3 * OBJECTS),
    NEEDS_ETCD,
]


@pytest.fixture
def six(tmp_path: Path) -> Iterator[LocalCluster]:
    """Six nodes of two drives; a node that is away for five seconds is out."""
    running = LocalCluster(
        tmp_path / "cluster",
        etcd_members=1,
        nodes=6,
        drives_per_node=2,
        gateways=1,
        scheme="4+2",
        grace_seconds=5,
        etcd_options=("--unsafe-no-fsync",),
        node_options=("--wire-only",),
    )
    try:
        yield running.start()
    finally:
        running.stop()


def fill(s3: Any) -> list[str]:
    s3.create_bucket(Bucket=BUCKET)
    chance = random.Random(7)
    keys = [f"filled/{number}" for number in range(OBJECTS)]
    for number, key in enumerate(keys):
        s3.put_object(Bucket=BUCKET, Key=key, Body=chance.randbytes(SIZES[number % len(SIZES)]))
    return keys


def states_of(cluster: LocalCluster) -> dict[str, Counter[str]]:
    """How many drives of each host are in which state."""
    states: dict[str, Counter[str]] = {}
    for drive in look(cluster)[1]:
        states.setdefault(drive.host, Counter())[drive.state] += 1
    return states


def test_a_node_is_lost_replaced_added_and_drained(six: LocalCluster) -> None:
    s3 = client_of(six)
    keys = fill(s3)
    some = keys[:: max(len(keys) // 60, 1)]

    began = time.monotonic()
    with Clients(s3, "lost", threads=1) as lost:
        six.members["node3"].kill()
        eventually(lambda: states_of(six)["host3"] == Counter(out=2), 60)
        out_after = time.monotonic() - began
    eventually(lambda: settled(six), SETTLED_SECONDS)
    status = six.admin("status", "--url", six.admin_urls[0])
    assert status["repairs_pending"] == 0
    assert whole(six, some)
    print(
        f"\nlost: out after {out_after:.1f} s (grace 5 s), repaired after"
        f" {time.monotonic() - began:.1f} s; {len(lost.acknowledged)} writes meanwhile,"
        f" {len(lost.errors)} failed; status {status['state']}, {len(some)} objects whole"
    )

    gone = [d.drive.hex() for d in look(six)[1] if d.host == "host3"]
    six.add_node(7, drives=2).await_words("ready ")
    eventually(lambda: states_of(six).get("host7") == Counter(new=2), 30)
    fresh = [d.drive.hex() for d in look(six)[1] if d.host == "host7"]
    for old, new in zip(gone, fresh, strict=True):
        six.admin("drive", "replace", old, new)
    eventually(lambda: settled(six), SETTLED_SECONDS)
    assert states_of(six) == {f"host{n}": Counter(up=2) for n in (1, 2, 4, 5, 6, 7)}
    assert whole(six, some)
    print("replaced: every shard is back in its place")

    stored, before = stored_bytes(s3), moved_bytes(six)
    six.add_node(8, drives=2).await_words("ready ")
    eventually(lambda: states_of(six).get("host8") == Counter(new=2), 30)
    planned = six.admin("drive", "add", "--all")["moved_share"]
    eventually(lambda: settled(six), SETTLED_SECONDS)
    moved = moved_bytes(six) - before
    share = moved / stored
    print(
        f"added a seventh: moved {moved / 1e6:.1f} of {stored / 1e6:.1f} MB, {share:.4f};"
        f" planned {planned:.4f}; 1/7 is {1 / 7:.4f}, 1.3/7 {1.3 / 7:.4f}"
    )
    # A seventh of these objects is what few objects of mixed sizes make of it by chance.
    slack = 4 * 0.58 / OBJECTS**0.5
    assert (1 - slack) / 7 < share < max(1.3, 1 + slack) / 7
    assert whole(six, some)

    leaving = [d.drive.hex() for d in look(six)[1] if d.host == "host1"]
    with Clients(s3, "drained", threads=1) as drained:
        six.admin("drive", "drain", *leaving)
        eventually(lambda: settled(six), SETTLED_SECONDS)
        eventually(lambda: not any(d.shards for d in look(six)[1] if d.host == "host1"), 60)
        six.admin("drive", "remove", *leaving)
        six.members["node1"].stop()
        written = len(drained.acknowledged)
        eventually(lambda: len(drained.acknowledged) > written + 5, 30)
    assert "host1" not in states_of(six)
    assert whole(six, some)
    assert (lost.errors, drained.errors) == ([], [])
    for key, digest in (lost.acknowledged | drained.acknowledged).items():
        check(s3, key, digest)
    print(f"drained and removed: {len(drained.acknowledged)} writes meanwhile, none failed")


@pytest.fixture
def three(tmp_path: Path) -> Iterator[LocalCluster]:
    """Three hosts of two drives each at 4+2."""
    running = LocalCluster(
        tmp_path / "cluster",
        etcd_members=1,
        nodes=3,
        drives_per_node=2,
        gateways=1,
        scheme="4+2",
        etcd_options=("--unsafe-no-fsync",),
    )
    try:
        yield running.start()
    finally:
        running.stop()


def drive_at(cluster: LocalCluster, path: Path) -> list[str]:
    """The conditions of what is registered from that folder."""
    return [drive.condition for drive in look(cluster)[1] if drive.path == str(path)]


def test_three_hosts_survive_a_failed_mount_a_dead_drive_and_the_loss_of_a_host(
    three: LocalCluster,
) -> None:
    s3 = client_of(three)
    s3.create_bucket(Bucket=BUCKET)
    body = random.Random(3).randbytes(300_000)
    s3.put_object(Bucket=BUCKET, Key="before", Body=body)
    node = three.members["node2"]
    mount = three.directory / "node2" / "drive2"

    # The mount fails: its folder is there, and empty.
    (old,) = [d.drive.hex() for d in look(three)[1] if d.path == str(mount)]
    node.stop()
    mount.rename(mount.with_name("unmounted"))
    mount.mkdir()
    node.start()
    node.await_words("ready ")
    assert f"drive {mount} is refused: it is empty" in node.output
    assert f"ostraka admin drive replace {old[:12]}" in node.output
    assert list(mount.iterdir()) == []
    eventually(lambda: drive_at(three, mount) == ["missing"], 30)
    assert drive_at(three, mount.with_name("drive1")) == ["up"]
    s3.put_object(Bucket=BUCKET, Key="unmounted", Body=body)
    # Mounted after all: it is taken back as it was.
    mount.rmdir()
    mount.with_name("unmounted").rename(mount)
    eventually(lambda: drive_at(three, mount) == ["up"], 30)
    eventually(lambda: settled(three), 60)
    assert whole(three, ["before", "unmounted"])

    # The drive is dead: an operator says so, and a new one takes over its place.
    node.stop()
    mount.rename(mount.with_name("dead"))
    mount.mkdir()
    warnings = three.admin("drive", "out", old)["warnings"]
    assert any("5 drives are left" in warning for warning in warnings)
    node.start()
    node.await_words("ready ")
    assert "is refused" not in node.output
    eventually(lambda: drive_at(three, mount) == ["up"], 30)
    (new,) = [d.drive.hex() for d in look(three)[1] if d.path == str(mount)]
    assert new != old
    three.admin("drive", "replace", old, new)
    eventually(lambda: settled(three), 60)
    assert whole(three, ["before", "unmounted"])

    # A whole host goes: two drives of six.
    with Clients(s3, "without", threads=2) as clients:
        three.members["node3"].kill()
        written = len(clients.acknowledged)
        eventually(lambda: len(clients.acknowledged) > written + 30, 60)
    assert clients.errors == []
    for key, digest in clients.acknowledged.items():
        check(s3, key, digest)
    assert s3.get_object(Bucket=BUCKET, Key="before")["Body"].read() == body
    print(f"\none host of three lost: {len(clients.acknowledged)} writes, none failed")
