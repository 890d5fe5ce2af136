"""TLS in a cluster: to nodes and to etcd; who has the certificates is served, others are not."""

import random
import re
import ssl
import subprocess
import urllib.request
from pathlib import Path

import pytest

from ops.local_cluster import LocalCluster
from tests.contract.etcd_process import EtcdCluster
from tests.functional.test_cluster import BUCKET, NEEDS_ETCD, SIZES, client_of
from tests.unit.certificates import certificate_for_loopback

pytestmark = [
    pytest.mark.slow,
    NEEDS_ETCD,
]
THREE_MACHINES = Path(__file__).parents[2] / "ops" / "docs" / "three-machines.md"


def small_cluster(folder: Path, environment: dict[str, str], *, etcd_members: int) -> LocalCluster:
    return LocalCluster(
        folder / "cluster",
        etcd_members=etcd_members,
        nodes=1,
        drives_per_node=3,
        gateways=1,
        etcd_options=("--unsafe-no-fsync",),
        environment=environment,
    )


def keeps_objects(cluster: LocalCluster) -> None:
    s3 = client_of(cluster)
    s3.create_bucket(Bucket=BUCKET)
    for size in SIZES:
        body = random.Random(size).randbytes(size)
        s3.put_object(Bucket=BUCKET, Key=str(size), Body=body)
        assert s3.get_object(Bucket=BUCKET, Key=str(size))["Body"].read() == body
    s3.close()


def test_the_wire_may_be_encrypted_and_files_on_the_same_host_are_reached_directly(
    tmp_path: Path,
) -> None:
    certificate, key = certificate_for_loopback(tmp_path)
    environment = {
        "OSTRAKA_NODE_CA": str(certificate),
        "OSTRAKA_NODE_CERT": str(certificate),
        "OSTRAKA_NODE_KEY": str(key),
    }
    cluster = small_cluster(tmp_path, environment, etcd_members=1)
    try:
        cluster.start()
        drives = cluster.admin("drive", "list")
        assert [drive["condition"] for drive in drives] == ["up"] * 3
        keeps_objects(cluster)
        del cluster._environment["OSTRAKA_NODE_CA"]
        drives = cluster.admin("drive", "list")
        assert [drive["condition"] for drive in drives] == ["silent"] * 3
    finally:
        cluster.stop()


def documented_certificates(folder: Path) -> None:
    """Made by the very commands of the page, for a machine that is called localhost."""
    blocks = re.findall(r"```sh\n(.*?)```", THREE_MACHINES.read_text(), re.DOTALL)
    (commands,) = [block for block in blocks if "openssl req -x509" in block]
    commands = commands.replace("HOST:IP", "localhost:127.0.0.1")
    subprocess.run(["bash", "-euc", commands], cwd=folder, check=True, capture_output=True)


def test_etcd_may_ask_every_client_for_its_certificate(tmp_path: Path) -> None:
    documented_certificates(tmp_path)
    for made, wanted in (("ca.crt", "ca.pem"), ("localhost.crt", "server.pem")):
        (tmp_path / made).rename(tmp_path / wanted)
    (tmp_path / "localhost.key").rename(tmp_path / "server.key")
    etcd = EtcdCluster(1, tls=tmp_path)
    environment = {
        "OSTRAKA_ETCD": " ".join(etcd.endpoints),
        "OSTRAKA_ETCD_CA": str(tmp_path / "ca.pem"),
        "OSTRAKA_ETCD_CERT": str(tmp_path / "server.pem"),
        "OSTRAKA_ETCD_KEY": str(tmp_path / "server.key"),
        "OSTRAKA_NODE_CA": str(tmp_path / "ca.pem"),
        "OSTRAKA_NODE_CERT": str(tmp_path / "server.pem"),
        "OSTRAKA_NODE_KEY": str(tmp_path / "server.key"),
    }
    cluster = small_cluster(tmp_path, environment, etcd_members=0)
    try:
        cluster.start()
        keeps_objects(cluster)
        stranger = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        with pytest.raises(OSError, match="certificate"):
            urllib.request.urlopen(f"{etcd.endpoints[0]}/health", timeout=10, context=stranger)
    finally:
        cluster.stop()
        etcd.close()
