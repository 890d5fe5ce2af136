"""A small cluster of real processes: what clients see while nodes are killed, lost, added and drained."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from ops import cluster_admin
from ops.admin_cli import admin as admin_commands
from ops.clients import Clients as ClusterClients
from ops.cluster_admin import DriveView
from ops.cluster_settings import cluster_settings
from ops.local_cluster import ClusterFailed, LocalCluster, etcd_binary, free_ports
from ops.object_locate import ObjectShards
from placement.cluster_map import ClusterMap
from tests.waiting import eventually

T = TypeVar("T")

BUCKET = "cluster-bucket"
SIZES = (0, 1, 1000, 16 << 10, (16 << 10) + 1, 200_000, 3 << 20)


def _etcd_is_there() -> bool:
    try:
        etcd_binary()
    except ClusterFailed:
        return False
    return True


NEEDS_ETCD = pytest.mark.skipif(not _etcd_is_there(), reason="there is no etcd")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), NEEDS_ETCD]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One etcd, four nodes of two drives, a gateway, a keeper that waits six seconds for drives."""
    running = LocalCluster(
        tmp_path_factory.mktemp("cluster"),
        etcd_members=1,
        nodes=4,
        drives_per_node=2,
        gateways=1,
        scheme="4+2",
        grace_seconds=5,
        etcd_options=("--unsafe-no-fsync",),
        # As if each were a machine of its own.
        node_options=("--wire-only",),
    )
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def s3(cluster: LocalCluster) -> Any:
    """Root's client, and a bucket."""
    client = client_of(cluster)
    client.create_bucket(Bucket=BUCKET)
    return client


def client_of(cluster: LocalCluster) -> Any:
    """Root's client, without retries."""
    access_key, secret_key = cluster.credentials
    return boto3.session.Session().client(
        "s3",
        endpoint_url=cluster.endpoints[0],
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            max_pool_connections=16,
            read_timeout=60,
        ),
    )


def admin(cluster: LocalCluster, *arguments: str) -> Any:
    """`ostraka admin … --json` in this process: to start one takes longer than the command. Raises
    ClusterFailed."""
    environment = cluster._environment_of("admin") | cluster._root()
    done = CliRunner().invoke(admin_commands, [*arguments, "--json"], env=environment)
    if done.exit_code:
        raise ClusterFailed(done.output)
    return json.loads(done.stdout)


class Clients:
    """Writers and readers that go on while things happen, and remember what was acknowledged."""

    def __init__(self, s3: Any, prefix: str, threads: int = 3) -> None:
        self._s3 = s3
        self._prefix = prefix
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self.acknowledged: dict[str, str] = {}
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._work, args=(i,)) for i in range(threads)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self._stop.is_set():
            key = f"{self._prefix}/{next(self._numbers)}"
            # Mostly small ones: what is written here has to be moved, drained and read again.
            body = chance.randbytes(chance.choice((*SIZES[:-1], *SIZES[:-1], *SIZES)))
            time.sleep(0.02)
            try:
                self._s3.put_object(Bucket=BUCKET, Key=key, Body=body)
                self.acknowledged[key] = hashlib.sha256(body).hexdigest()
                known = chance.choice(list(self.acknowledged))
                check(self._s3, known, self.acknowledged[known])
            except (ClientError, OSError) as error:
                self.errors.append(f"{key} of {len(body)}: {error}")


def check(s3: Any, key: str, digest: str) -> None:
    """The object is what was stored."""
    body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    assert hashlib.sha256(body).hexdigest() == digest, key


def fetch(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def metric(cluster: LocalCluster, name: str) -> float:
    _, body = fetch(f"{cluster.admin_urls[0]}/metrics")
    for line in body.decode().splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise AssertionError(f"no {name}")


def test_objects_of_all_sizes_go_through_nodes_and_etcd(cluster: LocalCluster, s3: Any) -> None:
    for size in SIZES:
        body = random.Random(size).randbytes(size)
        s3.put_object(Bucket=BUCKET, Key=f"size/{size}", Body=body)
        assert s3.get_object(Bucket=BUCKET, Key=f"size/{size}")["Body"].read() == body
        if size > 1000:
            part = s3.get_object(Bucket=BUCKET, Key=f"size/{size}", Range="bytes=500-899")
            assert part["Body"].read() == body[500:900]
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix="size/")["Contents"]
    assert sorted(item["Size"] for item in listed) == sorted(SIZES)
    places = admin(cluster, "object", "locate", BUCKET, f"size/{3 << 20}")
    assert [place["tolerance"] for place in places] == [2]
    assert {shard["health"] for shard in places[0]["shards"]} == {"whole"}
    # Two shards at most on one host of four: losing a host loses no more than m.
    hosts = [shard["host"] for shard in places[0]["shards"]]
    assert max(map(hosts.count, hosts)) <= 2


def test_operators_see_the_cluster(cluster: LocalCluster, s3: Any) -> None:
    drives = admin(cluster, "drive", "list")
    assert [drive["state"] for drive in drives] == ["up"] * 8
    assert {drive["condition"] for drive in drives} == {"up"}
    nodes = admin(cluster, "node", "list")
    assert [node["state"] for node in nodes] == ["live"] * 4
    shown = admin(cluster, "map", "show")
    assert (shown["epoch"], shown["scheme"], shown["warnings"]) == (1, "4+2", [])
    assert shown["balanced"]
    assert max(shown["above_share"], shown["below_share"]) <= 0.05
    with pytest.raises(ClusterFailed, match="balanced as it is"):
        admin(cluster, "map", "balance", "--dry-run")
    assert fetch(f"{cluster.admin_urls[0]}/health/ready")[0] == 200
    with pytest.raises(ClusterFailed, match="has a map already"):
        admin(cluster, "init")
    with pytest.raises(ClusterFailed, match="names no drive"):
        admin(cluster, "drive", "drain", "nonsense")
    with pytest.raises(ClusterFailed, match="no object nothing"):
        admin(cluster, "object", "locate", BUCKET, "nothing")
    document = json.loads((cluster.directory / "cluster.json").read_text())
    assert {p["kind"] for p in document["processes"]} == {"etcd", "node", "gateway", "keeper"}


def test_nodes_tell_their_health_and_what_their_drives_did(cluster: LocalCluster, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="told", Body=b"x" * 1000)
    for number, url in enumerate(cluster.node_urls, 1):
        assert fetch(f"{url}/health/live")[0] == 200
        assert fetch(f"{url}/health/ready")[0] == 200
        assert fetch(f"{url}/api/v1/status")[0] == 404
        status, body = fetch(f"{url}/metrics")
        page = body.decode()
        assert status == 200
        (up,) = [line for line in page.splitlines() if 'state="up"' in line]
        assert up.startswith("ostraka_node_drives{")
        assert up.endswith(" 2.0")
        for drive in (1, 2):
            path = cluster.directory / f"node{number}" / f"drive{drive}"
            assert f':{path}",operation="flush"' in page
        assert 'ostraka_process_open_files{process="node"}' in page
        assert "ostraka_drive_capacity_bytes" not in page  # gateways tell it: twice is wrong


def test_a_node_is_alive_but_not_ready_before_the_cluster_answers(tmp_path: Path) -> None:
    """Kubernetes must not restart what waits for etcd, nor count on it."""
    key = tmp_path / "key"
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    (tmp_path / "drive").mkdir()
    port, nobody = free_ports(2)
    command = [
        sys.executable, "-c", "from ops.cli import main; main()", "node",
        "--listen", "127.0.0.1:0", "--drive", str(tmp_path / "drive"),
        "--admin-port", str(port), "--etcd", f"http://127.0.0.1:{nobody}",
        "--cluster-key-file", str(key),
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as node:
        try:
            eventually(lambda: answers(f"http://127.0.0.1:{port}/health/live"), 30)
            assert fetch(f"http://127.0.0.1:{port}/health/ready")[0] == 503
            assert fetch(f"http://127.0.0.1:{port}/metrics")[0] == 200
        finally:
            node.terminate()
            assert node.wait(20) == 0


def answers(url: str) -> bool:
    try:
        return fetch(url)[0] == 200
    except OSError:
        return False


def test_a_node_is_killed_and_comes_back_while_clients_go_on(
    cluster: LocalCluster, s3: Any
) -> None:
    node = cluster.members["node2"]
    with Clients(s3, "killed") as clients:
        time.sleep(1.5)
        node.kill()
        time.sleep(3)
        node.start()
        node.await_words("ready ")
        time.sleep(1.5)
    assert clients.errors == []
    assert len(clients.acknowledged) > 20
    for key, digest in clients.acknowledged.items():
        check(s3, key, digest)
    assert admin(cluster, "map", "show")["epoch"] == 1
    eventually(lambda: metric(cluster, "ostraka_repairs_pending") == 0, 60)


def test_a_node_that_stands_still_holds_nobody_up_for_long(cluster: LocalCluster, s3: Any) -> None:
    node = cluster.members["node3"]
    with Clients(s3, "stopped") as clients:
        time.sleep(1)
        node.signal(signal.SIGSTOP)
        time.sleep(4)
        node.signal(signal.SIGCONT)
        time.sleep(1)
    assert clients.errors == []
    for key, digest in clients.acknowledged.items():
        check(s3, key, digest)


def test_without_etcd_requests_are_refused_and_nobody_is_put_out(
    cluster: LocalCluster, s3: Any
) -> None:
    body = b"before"
    s3.put_object(Bucket=BUCKET, Key="etcd/before", Body=body)
    cluster.members["etcd1"].kill()
    for call, more in ((s3.put_object, {"Body": body}), (s3.get_object, {})):
        with pytest.raises(ClientError) as refused:
            call(Bucket=BUCKET, Key="etcd/before", **more)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    eventually(lambda: fetch(f"{cluster.admin_urls[0]}/health/ready")[0] == 503, 10)
    assert fetch(f"{cluster.admin_urls[0]}/health/live")[0] == 200
    time.sleep(8)  # longer than the grace time
    cluster.members["etcd1"].start()
    eventually(lambda: fetch(f"{cluster.admin_urls[0]}/health/ready")[0] == 200, 30)

    def writes() -> bool:
        with contextlib.suppress(ClientError):
            s3.put_object(Bucket=BUCKET, Key="etcd/after", Body=body)
            return True
        return False

    eventually(writes, 30)
    assert s3.get_object(Bucket=BUCKET, Key="etcd/before")["Body"].read() == body
    assert [node["state"] for node in admin(cluster, "node", "list")] == ["live"] * 4
    assert admin(cluster, "map", "show")["epoch"] == 1


def test_a_gateway_keeps_nothing_and_drains(cluster: LocalCluster, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="gateway/kept", Body=b"kept")
    gateway = cluster.members["gateway1"]
    gateway.kill()
    gateway.start()
    gateway.await_words("ready http")
    assert s3.get_object(Bucket=BUCKET, Key="gateway/kept")["Body"].read() == b"kept"
    size = 24 << 20
    done: list[int] = []

    def slowly() -> Iterator[bytes]:
        for _ in range(24):
            time.sleep(0.1)
            yield bytes(1 << 20)

    def put() -> None:
        answer = urllib.request.urlopen(
            urllib.request.Request(
                s3.generate_presigned_url(
                    "put_object", Params={"Bucket": BUCKET, "Key": "gateway/slow"}
                ),
                data=slowly(),
                method="PUT",
                headers={"content-length": str(size), "content-type": ""},
            ),
            timeout=60,
        )
        with answer:
            done.append(answer.status)

    writer = threading.Thread(target=put)
    writer.start()
    time.sleep(0.8)
    gateway.stop()  # SIGTERM: what is under way is finished first
    writer.join()
    assert done == [200]
    gateway.start()
    gateway.await_words("ready http")
    assert s3.head_object(Bucket=BUCKET, Key="gateway/slow")["ContentLength"] == size


def test_strangers_are_refused_in_one_sentence(cluster: LocalCluster, tmp_path: Path) -> None:
    def refused(*options: str, key: Path) -> str:
        done = subprocess.run(
            [
                sys.executable, "-c", "from ops.cli import main; main()", "node",
                "--listen", "127.0.0.1:0", "--etcd", cluster.etcd_urls[0],
                "--cluster-key-file", str(key), *options,
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )  # fmt: skip
        assert done.returncode in (1, 2), done.stdout + done.stderr
        return done.stderr.splitlines()[-1]

    other_key = tmp_path / "other.key"
    other_key.write_bytes(bytes(32))
    other_key.chmod(0o600)
    (tmp_path / "drive").mkdir()
    drive = ("--drive", str(tmp_path / "drive"))
    assert "not the one of this cluster" in refused(*drive, key=other_key)
    other_key.chmod(0o644)
    assert "may be read by others" in refused(*drive, key=other_key)
    assert "none of the drives is there" in refused(
        "--drive", str(tmp_path / "nothing"), key=cluster.key_file
    )
    identity = next((cluster.directory / "node1").glob("*/ostraka.drive")).read_text()
    foreign = json.loads(identity) | {"cluster_id": "00" * 16}
    (tmp_path / "drive" / "ostraka.drive").write_text(json.dumps(foreign))
    assert "belongs to another cluster" in refused(*drive, key=cluster.key_file)
    with contextlib.suppress(FileExistsError):
        (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "ostraka.drive").write_text(identity)
    (tmp_path / "drive" / "ostraka.drive").write_text(identity)
    assert "bear one identity" in refused(
        *drive, "--drive", str(tmp_path / "copy"), key=cluster.key_file
    )


async def _inside(cluster: LocalCluster, work: Callable[[ClusterClients], Awaitable[T]]) -> T:
    settings = cluster_settings(cluster.etcd_urls, None, None, None, cluster.key_file)
    async with cluster_admin.session(settings) as clients:
        return await work(clients)


def look(cluster: LocalCluster) -> tuple[ClusterMap, list[DriveView]]:
    """The newest map and all drives, without the start of a process."""

    async def work(clients: ClusterClients) -> tuple[ClusterMap, list[DriveView]]:
        return clients.topology.map, await cluster_admin.drives_of(clients)

    return asyncio.run(_inside(cluster, work))


def whole(cluster: LocalCluster, keys: Sequence[str]) -> bool:
    """Every shard of these objects is at home, and healthy."""

    async def work(clients: ClusterClients) -> bool:
        shards = ObjectShards(clients, lambda: cluster_admin.named_reports(clients))
        pages = [await shards.page(BUCKET, key) for key in keys]
        assert not any(page.after for page in pages)
        places = [place for page in pages for place in page.blobs]
        return all(
            place.tolerance == 2 and all(s.health == "whole" and s.home for s in place.shards)
            for place in places
        )

    return asyncio.run(_inside(cluster, work))


def settled(cluster: LocalCluster) -> bool:
    """No shard is missing and none has to move."""
    if metric(cluster, "ostraka_repairs_pending"):
        return False
    return not look(cluster)[0].open_epochs


def test_a_node_lost_for_good_is_out_after_the_grace_time_and_its_shards_are_rebuilt(
    cluster: LocalCluster, s3: Any
) -> None:
    with Clients(s3, "lost", threads=1) as clients:
        time.sleep(2)
        cluster.members["node4"].kill()
        eventually(lambda: look(cluster)[0].epoch > 1, 60)
        time.sleep(1)
    assert clients.errors == []
    eventually(lambda: settled(cluster), 90)
    states = {drive.host: drive.state for drive in look(cluster)[1]}
    assert states["host4"] == "out"
    assert {state for host, state in states.items() if host != "host4"} == {"up"}
    for key, digest in clients.acknowledged.items():
        check(s3, key, digest)
    assert whole(cluster, ["size/1000", f"size/{3 << 20}"])


def test_a_new_node_takes_its_share_and_no_more(cluster: LocalCluster, s3: Any) -> None:
    before = stored_bytes(s3)
    moved_before = moved_bytes(cluster)
    cluster.add_node(5, drives=1).await_words("ready ")
    eventually(lambda: len(look(cluster)[1]) == 9, 60)
    plan = admin(cluster, "drive", "add", "--all", "--dry-run")
    with Clients(s3, "added", threads=1) as clients:
        assert admin(cluster, "drive", "add", "--all")["done"] is True
        time.sleep(2)
    eventually(lambda: settled(cluster), 90)
    assert clients.errors == []
    moved = moved_bytes(cluster) - moved_before
    print(f"moved {moved} of {before}: {moved / before:.3f}; planned {plan['moved_share']:.3f}")
    assert 0.5 / 7 < moved / before < 2.0 / 7
    assert whole(cluster, ["size/1000", f"size/{3 << 20}"])
    for key, digest in clients.acknowledged.items():
        check(s3, key, digest)


def test_a_node_is_drained_and_removed_while_clients_write(cluster: LocalCluster, s3: Any) -> None:
    (drained,) = [d for d in look(cluster)[1] if d.host == "host5"]
    with Clients(s3, "drained", threads=1) as clients:
        keeper = cluster.members["keeper"]
        keeper.signal(signal.SIGSTOP)  # so that nothing has moved yet
        try:
            admin(cluster, "drive", "drain", drained.drive.hex())
            with pytest.raises(ClusterFailed, match="still"):
                admin(cluster, "drive", "remove", drained.drive.hex())
        finally:
            keeper.signal(signal.SIGCONT)
        time.sleep(2)
        eventually(lambda: settled(cluster), 90)
        eventually(lambda: not any(d.shards for d in look(cluster)[1] if d.host == "host5"), 60)
        admin(cluster, "drive", "remove", drained.drive.hex())
        cluster.members["node5"].stop()
        time.sleep(1)
    assert clients.errors == []
    assert not [d for d in look(cluster)[1] if d.host == "host5"]
    assert whole(cluster, ["size/1000", f"size/{3 << 20}"])
    for key, digest in clients.acknowledged.items():
        check(s3, key, digest)


def test_a_storage_class_and_a_bucket_have_schemes_of_their_own(
    cluster: LocalCluster, s3: Any
) -> None:
    root = ("--url", cluster.admin_urls[0], "--dir", str(cluster.directory))
    body = random.Random(2).randbytes(300_000)

    def stored_under(key: str, scheme: str, **options: str) -> bool:
        try:
            s3.put_object(Bucket=BUCKET, Key=key, Body=body, **options)
        except ClientError:
            return False  # the gateway has not followed yet
        return shown(key) == (scheme, int(scheme[-1]), {"whole"})

    def shown(key: str) -> tuple[str, int, set[str]]:
        (place,) = admin(cluster, "object", "locate", BUCKET, key)
        healths = {shard["health"] for shard in place["shards"]}
        return place["scheme"], place["tolerance"], healths

    told = admin(cluster, "scheme", "class", "set", "COLD", "2+1", *root)
    assert told["classes"] == {"COLD": "2+1"}
    assert admin(cluster, "map", "show")["classes"] == {"COLD": "2+1"}
    eventually(lambda: stored_under("cold", "2+1", StorageClass="COLD"), 30)
    assert admin(cluster, "bucket", "scheme", BUCKET, "3+2", *root)["scheme"] == "3+2"
    eventually(lambda: stored_under("wide", "3+2"), 30)
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/cold", StorageClass="COLD")
    assert shown("copy") == ("2+1", 1, {"whole"})
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix="c")["Contents"]
    assert {(item["Key"], item["StorageClass"]) for item in listed} >= {
        ("cold", "COLD"),
        ("copy", "COLD"),
    }
    with pytest.raises(ClusterFailed, match="needs 40 drives"):
        admin(cluster, "scheme", "class", "set", "COLD", "32+8", *root)


def test_what_nodes_that_are_away_make_unreadable_is_listed_with_their_drives(
    cluster: LocalCluster, s3: Any
) -> None:
    root = ("--url", cluster.admin_urls[0], "--dir", str(cluster.directory))
    bucket = "away"  # of the default scheme, whatever others set
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="kept/1", Body=bytes(300_000))
    nodes = [cluster.members[f"node{number}"] for number in (1, 2)]
    for node in nodes:
        node.stop()
    hosts = {d.drive.hex(): d.host for d in look(cluster)[1] if d.host in ("host1", "host2")}

    def listed() -> Any:
        return admin(cluster, "object", "lost", bucket, "--prefix", "kept/", *root)

    eventually(lambda: listed()["lost"] == 1, 30)
    told = listed()
    (lost,) = told["objects"]
    assert (told["examined"], lost["key"], lost["shards_needed"]) == (1, "kept/1", 4)
    assert {drive["id"]: drive["host"] for drive in lost["drives"]}.items() <= hosts.items()
    assert len(lost["drives"]) == 6 - lost["shards_left"]
    for node in nodes:
        node.start()
    eventually(lambda: listed()["lost"] == 0, 30)


def moved_bytes(cluster: LocalCluster) -> int:
    """What the leader of repairs has moved so far. It tells every other second, or later where etcd is
    slow: what counts is what it tells when it has looked at all shards under the newest map."""

    async def work(clients: ClusterClients) -> dict[str, Any]:
        return (await cluster_admin.progress_of(clients))["repair"]

    def is_whole() -> bool:
        told.update(asyncio.run(_inside(cluster, work)))
        return not told["due"] and told["epoch"] == look(cluster)[0].epoch

    told: dict[str, Any] = {}
    eventually(is_whole, 60)
    return int(told["moved_bytes"])


def stored_bytes(s3: Any) -> int:
    """Bytes of all shards: every object's size times what its scheme makes of it."""
    total = 0.0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page["Contents"]:
            total += item["Size"] * (3 if item["Size"] <= 16 << 10 else 1.5)
    return int(total)
