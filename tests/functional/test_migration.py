"""A store of one machine becomes the first node of a cluster, with kill -9 on the way."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from ops.local_cluster import ClusterFailed, LocalCluster, etcd_binary, free_ports
from tests.functional.every_kind import fill
from tests.functional.store_process import CLEAN_ENVIRONMENT, StoreProcess
from tests.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DYING = """
import os, signal
import ops.migration as migration
from ops.cli import main
migration.BATCH_KEYS = 20
put, finish = migration._Migration._put, migration._Migration._finish

async def dying_put(self, before, after, puts):
    await put(self, before, after, puts)
    if {at} <= after.keys:
        os.kill(os.getpid(), signal.SIGKILL)

async def dying_finish(self, now):
    await finish(self, now)
    os.kill(os.getpid(), signal.SIGKILL)

migration._Migration._put = dying_put
migration._Migration._finish = dying_finish
main()
"""
"""The command as it is, which a power cut meets: once so many keys are copied, or all of them."""
PLAIN = "from ops.cli import main; main()"


@pytest.fixture
def store(own_store: StoreProcess) -> StoreProcess:
    return own_store


@pytest.fixture
def cluster(tmp_path: Path, store: StoreProcess) -> Iterator[LocalCluster]:
    """An etcd, and nothing else yet; key and credentials are those of the store."""
    try:
        etcd_binary()
    except ClusterFailed:
        pytest.skip("there is no etcd")
    running = LocalCluster(
        tmp_path / "cluster",
        etcd_members=1,
        nodes=0,
        gateways=1,
        etcd_options=("--unsafe-no-fsync",),
    )
    running.key_file = store.directory / "cluster.key"
    running.credentials_file = store.directory / "credentials.json"
    (running.directory / "log").mkdir(parents=True)
    try:
        running._start_etcd(1)
        yield running
    finally:
        running.stop()


def migrate(
    cluster: LocalCluster, store: StoreProcess, *options: str, program: str = PLAIN
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-c", program, "admin", "migrate", str(store.directory),
            "--host-label", "first", "--zone", "here", *options, "--json",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env={**CLEAN_ENVIRONMENT, "OSTRAKA_ETCD": cluster.etcd_urls[0]},
        check=False,
    )  # fmt: skip


def start_the_rest(cluster: LocalCluster, store: StoreProcess) -> None:
    """A node with the store's drives, a gateway, a keeper."""
    drives = sorted(store.directory.glob("drive*"))
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    node = cluster._member(
        "node1",
        "node",
        [
            sys.executable, "-c", PLAIN, "node", "--listen", listen, "--admin-port", "0",
            "--host-label", "first", "--zone", "here",
            *[word for drive in drives for word in ("--drive", str(drive))],
        ],
    )  # fmt: skip
    node.start()
    node.await_words("ready ")
    cluster._start_gateways(1)
    cluster._start_keeper()
    cluster._await_ready(cluster.admin_urls[0])
    store.endpoint, store.admin_url = cluster.endpoints[0], cluster.admin_urls[0]


def test_a_store_moves_to_a_cluster_whatever_kills_the_move(
    store: StoreProcess, cluster: LocalCluster
) -> None:
    s3 = store.client()
    check = fill(s3)
    s3.create_bucket(Bucket="many")
    for number in range(120):
        s3.put_object(Bucket="many", Key=f"{number:04}", Body=b"%d" % number)
    account = store.admin("account", "create", "alice")
    alice = (account["access_key"], account["secret_key"])
    store.client(*alice).create_bucket(Bucket="of-alice")
    store.client(*alice).put_object(Bucket="of-alice", Key="k", Body=b"alice's")

    running = migrate(cluster, store)
    assert running.returncode == 1
    assert "in use" in running.stderr
    assert store.stop() == 0
    killed = migrate(cluster, store, program=DYING.format(at=60))
    assert killed.returncode == -9
    status, output = store.run_to_end()
    assert status != 0
    assert "being moved to a cluster" in output
    # All is copied and compared now, and the folder does not know it yet.
    killed = migrate(cluster, store, program=DYING.format(at=10**9))
    assert killed.returncode == -9
    assert "going on after" in killed.stderr
    refused = migrate(cluster, store, "--cancel")
    assert refused.returncode == 1
    assert "no way back" in refused.stderr
    done = migrate(cluster, store)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["resumed"]
    assert len(told["drives"]) == 6
    status, output = store.run_to_end()
    assert "has moved to a cluster" in output

    start_the_rest(cluster, store)
    s3 = store.client()
    check(s3)
    for number in range(0, 120, 7):
        found = s3.get_object(Bucket="many", Key=f"{number:04}")["Body"].read()
        assert found == b"%d" % number
    found = store.client(*alice).get_object(Bucket="of-alice", Key="k")["Body"].read()
    assert found == b"alice's"
    with pytest.raises(ClientError, match="AccessDenied"):
        store.client(*alice).get_object(Bucket="many", Key="0000")
    # It is a cluster as any: it takes writes, and one more node.
    s3.put_object(Bucket="many", Key="new", Body=b"new")
    assert s3.get_object(Bucket="many", Key="new")["Body"].read() == b"new"
    assert {drive["state"] for drive in cluster.admin("drive", "list")} == {"up"}
    cluster.add_node(2).await_words("ready ")
    added = cluster.admin("drive", "add", "--all")
    assert added["done"]
    shown = cluster.admin("map", "show")
    assert [drive["host"] for drive in shown["drives"]] == ["first"] * 6 + ["host2"]
    # All lie on one filesystem: a new drive's share is that of the old ones.
    weights = [drive["weight"] for drive in shown["drives"]]
    assert weights == pytest.approx([weights[-1]] * 7, rel=1e-4)
    eventually(lambda: not cluster.admin("map", "show")["open_epochs"], 120)
    check(s3)


def test_a_move_that_is_given_up_leaves_the_store_as_it_was(
    store: StoreProcess, cluster: LocalCluster
) -> None:
    check = fill(store.client())
    store.stop()
    killed = migrate(cluster, store, program=DYING.format(at=20))
    assert killed.returncode == -9
    given_up = migrate(cluster, store, "--cancel")
    assert given_up.returncode == 0, given_up.stderr
    check(store.start().client())
    store.stop()
    # Nothing is left in etcd: the next attempt is a first one.
    done = migrate(cluster, store)
    assert done.returncode == 0, done.stderr
    assert not json.loads(done.stdout)["resumed"]
    # The drives have seen the cluster's life once a node served them: the copy here is history.
    start_the_rest(cluster, store)
    check(store.client())
    cluster.stop()
    os.rename(store.directory / "ostraka.moved.json", store.directory / "ostraka.json")
    status, output = store.run_to_end()
    assert status != 0
    assert "later incarnation" in output


def test_an_etcd_that_is_in_use_takes_no_store(store: StoreProcess, cluster: LocalCluster) -> None:
    fill(store.client())
    store.stop()
    cluster.add_node(1).await_words("ready ")
    refused = migrate(cluster, store)
    assert refused.returncode == 1
    assert "etcd is not empty" in refused.stderr
    store.endpoint = store.admin_url = ""
    store.start()  # nothing has happened to it
