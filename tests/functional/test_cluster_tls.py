"""Nodes that speak TLS: who knows their authority reaches them, others do not."""

from pathlib import Path

import pytest

from ops.local_cluster import LocalCluster
from tests.functional.test_cluster import _etcd_is_there
from tests.unit.certificates import certificate_for_loopback

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _etcd_is_there(), reason="there is no etcd"),
]


def test_the_wire_of_nodes_may_be_encrypted(tmp_path: Path) -> None:
    certificate, key = certificate_for_loopback(tmp_path)
    cluster = LocalCluster(
        tmp_path / "cluster",
        etcd_members=1,
        nodes=1,
        drives_per_node=3,
        gateways=0,
        etcd_options=("--unsafe-no-fsync",),
        node_options=("--tls-cert", str(certificate), "--tls-key", str(key)),
        environment={"OSTRAKA_NODE_CA": str(certificate)},
    )
    try:
        cluster.start()
        drives = cluster.admin("drive", "list")
        assert [drive["condition"] for drive in drives] == ["up"] * 3
        del cluster._environment["OSTRAKA_NODE_CA"]
        drives = cluster.admin("drive", "list")
        assert [drive["condition"] for drive in drives] == ["silent"] * 3
    finally:
        cluster.stop()
