"""Nodes that speak TLS: who knows their authority reaches them, others do not."""

import random
from pathlib import Path

import pytest

from ops.local_cluster import LocalCluster
from tests.functional.test_cluster import BUCKET, SIZES, _etcd_is_there, client_of
from tests.unit.certificates import certificate_for_loopback

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _etcd_is_there(), reason="there is no etcd"),
]


def test_the_wire_may_be_encrypted_and_files_on_the_same_host_are_reached_directly(
    tmp_path: Path,
) -> None:
    certificate, key = certificate_for_loopback(tmp_path)
    cluster = LocalCluster(
        tmp_path / "cluster",
        etcd_members=1,
        nodes=1,
        drives_per_node=3,
        gateways=1,
        etcd_options=("--unsafe-no-fsync",),
        node_options=("--tls-cert", str(certificate), "--tls-key", str(key)),
        environment={"OSTRAKA_NODE_CA": str(certificate)},
    )
    try:
        cluster.start()
        drives = cluster.admin("drive", "list")
        assert [drive["condition"] for drive in drives] == ["up"] * 3
        s3 = client_of(cluster)
        s3.create_bucket(Bucket=BUCKET)
        for size in SIZES:
            body = random.Random(size).randbytes(size)
            s3.put_object(Bucket=BUCKET, Key=str(size), Body=body)
            assert s3.get_object(Bucket=BUCKET, Key=str(size))["Body"].read() == body
        del cluster._environment["OSTRAKA_NODE_CA"]
        drives = cluster.admin("drive", "list")
        assert [drive["condition"] for drive in drives] == ["silent"] * 3
    finally:
        cluster.stop()
