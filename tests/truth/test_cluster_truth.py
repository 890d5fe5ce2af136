"""The same on a cluster: panels return series there too, and a dead node is seen to go and to come."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml  # type: ignore[import-untyped]
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ops.dashboards.pages import ALERTS
from ops.local_cluster import ClusterFailed, LocalCluster, etcd_binary
from tests.truth.expressions import hastened, panel_expressions, rules, without_thresholds
from tests.truth.prometheus import Prometheus, PrometheusMissing, binary
from tests.truth.table import table
from tests.truth.test_truth import values
from tests.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def load(cluster: LocalCluster, stop: threading.Event) -> None:
    """Writes, reads, listings and a miss, again and again."""
    access_key, secret_key = cluster.credentials
    s3: Any = boto3.session.Session().client(
        "s3",
        endpoint_url=cluster.endpoints[0],
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )
    s3.create_bucket(Bucket="load")
    number = 0
    while not stop.wait(0.05):
        number += 1
        with contextlib.suppress(ClientError, BotoCoreError):
            s3.put_object(Bucket="load", Key=f"k{number % 20}", Body=b"x" * 3000)
            s3.get_object(Bucket="load", Key=f"k{number % 20}")["Body"].read()
            s3.get_object(Bucket="load", Key="none")
    s3.close()


def succeeds(cluster: LocalCluster, *arguments: str) -> bool:
    """Whether a command is carried out now: the load makes its bucket at its own time."""
    try:
        cluster.admin(*arguments)
    except ClusterFailed:
        return False
    return True


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One etcd, three nodes of two drives, one gateway, a keeper that puts nobody out."""
    try:
        binary("prometheus")
        etcd_binary()
    except (PrometheusMissing, ClusterFailed) as reason:
        pytest.skip(str(reason))
    running = LocalCluster(
        tmp_path_factory.mktemp("cluster"),
        etcd_members=1,
        nodes=3,
        drives_per_node=2,
        gateways=1,
        scheme="4+2",
        grace_seconds=600,
    )
    stop = threading.Event()
    client = threading.Thread(target=load, args=(running, stop))
    try:
        running.start()
        client.start()
        url = ("--url", running.admin_urls[0])
        running.admin("settings", "set", "--bucket-metrics", "5", *url)
        limit = ("--max-bytes", "1GiB", "--max-objects", "1000")
        eventually(lambda: succeeds(running, "bucket", "quota", "load", *limit, *url), 30)
        yield running
    finally:
        stop.set()
        if client.ident is not None:
            client.join()
        running.stop()


@pytest.fixture(scope="module")
def prometheus(
    cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    folder: Path = tmp_path_factory.mktemp("prometheus")
    quick = folder / "rules.yml"
    quick.write_text(yaml.safe_dump(hastened(yaml.safe_load(ALERTS.read_text()))))
    urls = [*cluster.admin_urls, cluster.keeper_url, *cluster.node_urls, *cluster.etcd_urls]
    server = Prometheus(folder, [url.removeprefix("http://") for url in urls], quick)
    try:
        server.start()
        server.wait_until("min(ostraka_remaining_tolerance) == 2")
        server.wait_until('sum(ostraka_drive_state{state="up"}) > 0')
        # The keeper looks for the first time seconds after it started.
        server.wait_until("min(ostraka_snapshot_age_seconds) >= 0", seconds=90)
        yield server
    finally:
        server.stop()


def test_a_dead_node_is_seen_to_go_and_to_come(
    cluster: LocalCluster, prometheus: Prometheus, tmp_path: Path
) -> None:
    """And every one of its drives is told apart: no two series have one name."""
    for name in ("OstrakaNodeDead", "OstrakaDriveDead", "OstrakaToleranceGone"):
        prometheus.wait_for(name, fires=False)
    # What was written since the keeper's first inventory is counted within little more than a minute.
    prometheus.wait_until("min(sum by (instance) (ostraka_stored_blobs)) > 0", seconds=120)
    cluster.members["node3"].kill()
    fired = {
        name: prometheus.wait_for(name, fires=True)
        for name in ("OstrakaNodeDead", "OstrakaDriveDead", "OstrakaToleranceGone")
    }
    missing = prometheus.query('max by (drive) (ostraka_drive_state{state="missing"}) == 1')
    assert len(missing) == 2
    for name in ("OstrakaNoWriteQuorum", "OstrakaSilent", "OstrakaEtcdNoLeader"):
        assert name not in prometheus.firing()
    assert values(prometheus.query(without_range("OstrakaNodeDead"))) == [1.0]
    prometheus.wait_until('min(ostraka_stored_blobs{tolerance="0"}) > 0')
    cluster.members["node3"].start()
    prometheus.wait_until('max(ostraka_stored_blobs{tolerance=~"lost|0|1"}) == 0', seconds=60)
    cleared = {name: prometheus.wait_for(name, fires=False, seconds=60) for name in fired}
    told = table(prometheus, fired, cleared)
    (Path(os.environ.get("PICTURES") or tmp_path) / "cluster.md").write_text(told)
    assert "| OstrakaNodeDead |" in told


def without_range(name: str) -> str:
    """The expression of an alert, its threshold taken off."""
    (rule,) = [rule for rule in rules() if rule.name == name]
    (expression,) = without_thresholds(rule.expression)
    return expression


def test_panels_return_series_on_a_cluster_too(prometheus: Prometheus) -> None:
    silent = [
        (dashboard, panel)
        for dashboard, panel, expression in panel_expressions()
        if not values(prometheus.query(expression))
    ]
    assert silent == []


def test_a_keeper_counts_what_buckets_hold(prometheus: Prometheus) -> None:
    """Twenty keys, overwritten again and again."""
    for metric, value in (("objects", 20), ("size_bytes", 20 * 3000), ("quota_objects", 1000)):
        told = f'ostraka_bucket_{metric}{{bucket="load"}}'
        prometheus.wait_until(f"min({told}) == {value} and max({told}) == {value}")


def test_alerts_return_series_on_a_cluster_too(prometheus: Prometheus) -> None:
    """Save for what has not happened: no node is away any more, and no request has failed."""
    for rule in rules():
        if rule.name in ("OstrakaNodeDead", "OstrakaErrorRateHigh"):
            continue
        for side in without_thresholds(rule.expression):
            assert values(prometheus.query(side)), (rule.name, side)


def test_nodes_tell_of_their_drives_under_the_names_that_gateways_use(
    cluster: LocalCluster, prometheus: Prometheus
) -> None:
    states = prometheus.query('sum by (node) (ostraka_node_drives{state="up"})')
    assert values(states) == [2.0, 2.0, 2.0]
    known = {labels["drive"] for labels, _ in prometheus.query("ostraka_drive_capacity_bytes")}
    flushed = (
        'ostraka_shard_operations_total{operation="flush"} > 0 and on (drive)'
        " group by (drive) (ostraka_shard_operation_seconds_total > 0)"
    )
    # A node that was away before is written to again, soon.
    prometheus.wait_until(f"count({flushed}) == 6", seconds=60)
    assert {labels["drive"] for labels, _ in prometheus.query(flushed)} <= known
    assert min(values(prometheus.query('ostraka_commits_total{kind="shards"}'))) > 0


def test_etcd_is_told_of_as_the_gateways_see_it(prometheus: Prometheus) -> None:
    (full,) = values(prometheus.query("max(ostraka_metadata_full)"))
    assert full == 0.0

    def sizes() -> set[float]:
        gateways = prometheus.query('max(ostraka_metadata_size_bytes{kind="file"})')
        return {
            *values(gateways),
            *values(prometheus.query("max(etcd_mvcc_db_total_size_in_bytes)")),
        }

    # Its file may grow by a page between two scrapes.
    eventually(lambda: len(sizes()) == 1, 60)
    for metric in ("ostraka_metadata_reads_total", "ostraka_metadata_read_seconds_total"):
        assert max(values(prometheus.query(metric))) > 0, metric
    written = prometheus.query('sum(ostraka_commit_members_total{kind="metadata"})')
    assert values(written)[0] > 10


def test_gauges_of_the_whole_are_told_alike_by_gateway_and_keeper(prometheus: Prometheus) -> None:
    for metric in (
        "ostraka_scheme_shards",
        "ostraka_write_quorum",
        "ostraka_drive_capacity_bytes",
        "ostraka_stored_blobs",
        "ostraka_map_epoch",
    ):
        told = prometheus.query(f"count by (instance) ({metric})")
        assert len(told) == 2, metric
        assert len(set(values(told))) == 1, metric
