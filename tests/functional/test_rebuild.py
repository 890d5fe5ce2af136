"""The metadata of a store is lost, and made anew from its drives."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from ops.config import SNAPSHOT_SECONDS
from ops.local_cluster import ClusterFailed, LocalCluster, etcd_binary
from tests.functional.every_kind import MIB, bytes_of, fill
from tests.functional.store_process import CLEAN_ENVIRONMENT, StoreProcess, served
from tests.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OFTEN = {SNAPSHOT_SECONDS: "10"}
"""Changes reach the drives within a second or two."""
SELDOM = {SNAPSHOT_SECONDS: str(366 * 86_400)}
"""Nothing of what happens in the first ten minutes does, before the keeper stops in order."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreProcess]:
    running = StoreProcess(tmp_path / "data", environment=OFTEN)
    try:
        yield running.start()
    finally:
        running.kill()


def rebuild(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-c", "from ops.cli import main; main()", "admin", "rebuild",
            *arguments, "--json",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env=CLEAN_ENVIRONMENT,
        check=False,
    )  # fmt: skip


def rebuilt(*arguments: str) -> list[dict[str, Any]]:
    """What the command printed, a document a line."""
    done = rebuild(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def await_snapshot(read: Callable[[], dict[str, float]]) -> None:
    """Until the drives tell all that was committed so far, as those metrics say."""
    began = time.monotonic()

    def told() -> bool:
        metrics = read()
        waited = time.monotonic() - began
        age = metrics.get("ostraka_snapshot_age_seconds", 1e9)
        return metrics.get("ostraka_snapshot_bytes", 0) > 0 and age < waited - 0.5

    eventually(told, 120)


def test_lost_metadata_is_rebuilt_from_the_drives(store: StoreProcess) -> None:
    check = fill(store.client())
    account = store.admin("account", "create", "alice")
    alice = (account["access_key"], account["secret_key"])
    store.client(*alice).create_bucket(Bucket="of-alice")
    store.client(*alice).put_object(Bucket="of-alice", Key="k", Body=b"alice's")
    await_snapshot(store.metrics)
    assert store.metrics()["ostraka_rebuild_unconfirmed"] == 0
    store.stop()
    # What comes now is not in the snapshot.
    store.environment = SELDOM
    s3 = store.start().client()
    s3.put_object(Bucket="plain", Key="later/small", Body=b"later")
    s3.put_object(Bucket="plain", Key="later/large", Body=bytes_of("later", 2 * MIB))
    s3.put_object(Bucket="plain", Key="size/1000", Body=b"newer than the snapshot")
    s3.create_bucket(Bucket="too-late")
    s3.put_object(Bucket="too-late", Key="nameless", Body=b"x")
    upload = s3.create_multipart_upload(Bucket="plain", Key="later/parts")
    s3.upload_part(
        Bucket="plain", Key="later/parts", UploadId=upload["UploadId"], PartNumber=7, Body=b"part"
    )
    store.kill()
    lost = store.directory / "lost"
    (store.directory / "metadata").rename(lost)

    status, output = store.run_to_end()
    assert status != 0
    assert "admin rebuild directory" in output
    shutil.rmtree(store.directory / "metadata")  # what the refused start made
    (told,) = rebuilt("directory", str(store.directory))
    assert (told["incarnation"], told["unreadable_parts"]) == (2, 0)
    # Once more: there is metadata now, and it is not thrown away.
    again = rebuild("directory", str(store.directory))
    assert again.returncode == 1
    assert "there is metadata already" in again.stderr

    s3 = store.start().client()
    check(s3)
    found = store.client(*alice).get_object(Bucket="of-alice", Key="k")["Body"].read()
    assert found == b"alice's"
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket="plain", Key="later/small")
    assert store.metrics()["ostraka_rebuild_unconfirmed"] == 1

    folder = ("--dir", str(store.directory))
    later = {(item["bucket"], item["key"]): item for item in rebuilt("later", *folder)}
    keys = {"later/small", "later/large", "size/1000", "later/parts"}
    assert set(later) == {*(("plain", key) for key in keys), ("", "nameless")}
    assert later["plain", "later/parts"]["part"] == 7
    assert all(item["readable"] for item in later.values())
    (one,) = rebuilt("later", *folder, "--put-back", "--only", "plain/later/small")
    assert (one["key"], one["refused"]) == ("later/small", "")
    assert s3.get_object(Bucket="plain", Key="later/small")["Body"].read() == b"later"
    refused = {item["key"]: item["refused"] for item in rebuilt("later", *folder, "--put-back")}
    assert refused.pop("nameless") == "its bucket is not known"
    assert set(refused.values()) == {""}
    assert s3.get_object(Bucket="plain", Key="later/large")["Body"].read() == bytes_of(
        "later", 2 * MIB
    )
    assert s3.get_object(Bucket="plain", Key="size/1000")["Body"].read().startswith(b"newer")
    (begun,) = s3.list_multipart_uploads(Bucket="plain")["Uploads"]
    (part,) = s3.list_parts(Bucket="plain", Key="later/parts", UploadId=begun["UploadId"])["Parts"]
    assert (begun["Key"], part["PartNumber"], part["Size"]) == ("later/parts", 7, 4)

    assert rebuilt("confirm", *folder) == [{"incarnation": 2}]
    eventually(lambda: store.metrics()["ostraka_rebuild_unconfirmed"] == 0, 30)
    assert rebuild("confirm", *folder).returncode == 1
    store.stop()
    # The metadata of before is refused by drives that have seen the new one.
    shutil.rmtree(store.directory / "metadata")
    lost.rename(store.directory / "metadata")
    status, output = store.run_to_end()
    assert status != 0
    assert "later incarnation" in output


def test_a_rebuild_does_without_drives_only_when_told(tmp_path: Path) -> None:
    """The newest copy may lie on those that are away: an older one would look just as whole."""
    with served(tmp_path / "data", environment=SELDOM) as store:
        check = fill(store.client())
    # The copy was made when the store stopped.
    shutil.rmtree(store.directory / "metadata")
    identity = store.directory / "drive2" / "ostraka.drive"
    away = store.directory / "away"
    (store.directory / "drive5").rename(away)
    refused = rebuild("directory", str(store.directory))
    assert refused.returncode == 1
    assert "1 of the store's 6 drives" in refused.stderr
    assert "drive5" in refused.stderr
    text = identity.read_bytes()
    identity.unlink()  # such a drive is nobody's
    refused = rebuild("directory", str(store.directory), "--missing", "1")
    assert "2 of the store's 6 drives" in refused.stderr
    identity.write_bytes(text)
    # Neither try left anything behind that stands in the way.
    (told,) = rebuilt("directory", str(store.directory), "--missing", "1")
    assert told["unreadable_parts"] == 0
    shutil.rmtree(store.directory / "drive5", ignore_errors=True)
    away.rename(store.directory / "drive5")
    try:
        check(store.start().client())
    finally:
        store.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_root_makes_in_the_folder_of_another_belongs_to_that_one() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        folder = Path(place) / "store"
        folder.mkdir(mode=0o700)
        os.chown(folder, 12345, 12346)
        program = (
            "import os, pathlib, sys; from ops.folder_owner import act_as_owner;"
            "folder = pathlib.Path(sys.argv[1]); act_as_owner(folder);"
            "(folder / 'made').touch(); print(os.getuid(), os.getgid(), os.getgroups())"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(folder)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.split() == ["12345", "12346", "[12346]"]
        assert (folder / "made").stat().st_uid == 12345


def test_a_rebuild_needs_a_store_that_does_not_run(store: StoreProcess, tmp_path: Path) -> None:
    refused = rebuild("directory", str(store.directory))
    assert refused.returncode == 1
    assert "in use" in refused.stderr
    refused = rebuild("directory", str(tmp_path / "nothing"))
    assert "no store" in refused.stderr
    assert not (tmp_path / "nothing").exists()
    refused = rebuild("confirm", "--dir", str(store.directory))
    assert "no rebuild waits" in refused.stderr


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    try:
        etcd_binary()
    except ClusterFailed:
        pytest.skip("there is no etcd")
    running = LocalCluster(
        tmp_path / "cluster",
        etcd_members=1,
        nodes=3,
        drives_per_node=2,
        gateways=1,
        etcd_options=("--unsafe-no-fsync",),
        node_options=("--wire-only",),
        environment=SELDOM,
    )
    try:
        yield running.start()
    finally:
        running.stop()


def client_of(cluster: LocalCluster) -> Any:
    access_key, secret_key = cluster.credentials
    return boto3.session.Session().client(
        "s3",
        endpoint_url=cluster.endpoints[0],
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, read_timeout=60),
    )


def test_a_cluster_whose_etcd_is_lost_is_rebuilt_from_its_drives(cluster: LocalCluster) -> None:
    check = fill(client_of(cluster))
    keepers = [member for member in cluster.members.values() if member.kind == "keeper"]
    for keeper in keepers:
        keeper.stop()  # in order, and so the drives are told all of this
        keeper.environment.update(OFTEN)
    client_of(cluster).put_object(Bucket="plain", Key="soon/told", Body=b"soon")
    for member in cluster.members.values():
        member.kill()
    shutil.rmtree(cluster.directory / "etcd1")
    cluster.members["etcd1"].start()
    command = [
        sys.executable, "-c", "from ops.cli import main; main()", "admin", "rebuild", "cluster",
        "--drive", str(cluster.directory / "node1" / "drive1"), "--drives", "6", "--json",
    ]  # fmt: skip
    environment = cluster.members["node1"].environment
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as rebuilding:
        assert rebuilding.stderr is not None
        assert "0 of 6 drives" in rebuilding.stderr.readline()
        for member in cluster.members.values():
            if member.kind == "node":
                member.start()
        answer, complaints = rebuilding.communicate(timeout=300)
    assert rebuilding.returncode == 0, complaints
    told = json.loads(answer)
    assert (told["incarnation"], told["unreadable_parts"]) == (2, 0)
    for member in cluster.members.values():
        if member.kind in ("gateway", "keeper"):
            member.start()
    s3 = client_of(cluster)
    eventually(lambda: fetch(f"{cluster.admin_urls[0]}/health/ready"), 60)
    # That came later, and only its shards tell of it.
    assert "Contents" not in s3.list_objects_v2(Bucket="plain", Prefix="soon/")
    arguments = (sys.executable, "-c", "from ops.cli import main; main()", "admin", "rebuild")
    later = subprocess.run(
        [*arguments, "later", "--put-back", "--json"],
        capture_output=True, text=True, env=environment, timeout=300, check=True,
    )  # fmt: skip
    assert [json.loads(line)["key"] for line in later.stdout.splitlines()] == ["soon/told"]
    assert s3.get_object(Bucket="plain", Key="soon/told")["Body"].read() == b"soon"
    s3.delete_object(Bucket="plain", Key="soon/told")
    check(s3)
    eventually(lambda: metrics_of(cluster.keeper_url).get("ostraka_rebuild_unconfirmed") == 1, 60)
    assert cluster.admin("rebuild", "confirm") == {"incarnation": 2}
    eventually(lambda: metrics_of(cluster.keeper_url).get("ostraka_rebuild_unconfirmed") == 0, 60)
    # The new life's snapshots follow.
    await_snapshot(lambda: metrics_of(cluster.keeper_url))


def fetch(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def metrics_of(admin_url: str) -> dict[str, float]:
    """Every sample by its name and labels as printed; none while the process is not there."""
    try:
        with urllib.request.urlopen(f"{admin_url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return {}
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}
