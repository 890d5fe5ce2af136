"""A real Prometheus scrapes a real store under load and faults: every panel and alert tells the truth."""

import base64
import contextlib
import json
import math
import os
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError

from ops.dashboards.pages import ALERTS, DASHBOARDS
from tests.contract.etcd_process import EtcdCluster, etcd_binary
from tests.functional.store_process import StoreProcess
from tests.functional.test_full_disk import DISK_SIZE_BYTES, fill, run
from tests.truth.expressions import hastened, panel_expressions, rules, without_thresholds
from tests.truth.picture import draw
from tests.truth.prometheus import Prometheus, PrometheusMissing, binary
from tests.truth.table import table

ETCD_QUOTA_BYTES = 36 << 20


@dataclass
class Scene:
    """A store of six drives with an etcd beside it, watched, and under load."""

    store: StoreProcess
    prometheus: Prometheus
    etcd_url: str
    disk: Path | None
    """A drive of the store with a small filesystem of its own, where one could be mounted."""
    began: float = field(default_factory=time.monotonic)
    fired: dict[str, float] = field(default_factory=dict)
    cleared: dict[str, float] = field(default_factory=dict)

    def wait_for(self, name: str, *, fires: bool, seconds: float = 30) -> None:
        """Until the alert fires, or does no more; what that took is kept for the table."""
        took = self.prometheus.wait_for(name, fires=fires, seconds=seconds)
        (self.fired if fires else self.cleared)[name] = took

    def take_away(self, *numbers: int) -> None:
        """As if the mounts of these drives were gone."""
        for number in numbers:
            drive = self.store.directory / f"drive{number}"
            drive.rename(drive.with_name(f"away{number}"))

    def bring_back(self, *numbers: int) -> None:
        """They are there again, as they were."""
        for number in numbers:
            drive = self.store.directory / f"drive{number}"
            with contextlib.suppress(OSError):
                drive.rmdir()
            drive.with_name(f"away{number}").rename(drive)


def load(store: StoreProcess, stop: threading.Event) -> None:
    """A few requests of all kinds, again and again, whatever the answers are."""
    s3, chance = store.client(), random.Random(7)
    s3.create_bucket(Bucket="load")
    small, large = chance.randbytes(2_000), chance.randbytes(1_500_000)
    number = 0
    while not stop.wait(0.02):
        number += 1
        key = f"k{number % 50}"
        with contextlib.suppress(ClientError, BotoCoreError):
            s3.put_object(Bucket="load", Key=key, Body=small)
            s3.get_object(Bucket="load", Key=key)["Body"].read()
            s3.list_objects_v2(Bucket="load", MaxKeys=10)
            s3.get_object(Bucket="load", Key="none")
        if number % 10 == 0:
            with contextlib.suppress(ClientError, BotoCoreError):
                s3.put_object(Bucket="load", Key="large", Body=large)
                s3.get_object(Bucket="load", Key="large")["Body"].read()
                s3.delete_object(Bucket="load", Key="large")
    s3.close()


def ask_etcd(url: str, verb: str, **document: Any) -> Any:
    """One call of etcd's JSON gateway."""
    body = json.dumps(document).encode()
    with urllib.request.urlopen(f"{url}/v3/{verb}", body, timeout=60) as answer:
        return json.load(answer)


def text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def write_to_etcd(url: str, stop: threading.Event) -> None:
    """Ten small writes a second."""
    while not stop.wait(0.1):
        try:
            ask_etcd(url, "kv/put", key=text(b"key"), value=text(b"value"))
        except urllib.error.HTTPError as refused:
            # What etcd says while it is being defragmented and has got behind.
            if refused.code != HTTPStatus.TOO_MANY_REQUESTS:
                raise


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Everything running; the load has been on for a while when the first test begins."""
    try:
        binary("prometheus")
    except PrometheusMissing as reason:
        pytest.skip(str(reason))
    if etcd_binary() is None:
        pytest.skip("no etcd binary")
    folder = tmp_path_factory.mktemp("truth")
    quick = folder / "rules.yml"
    quick.write_text(yaml.safe_dump(hastened(yaml.safe_load(ALERTS.read_text()))))
    store = StoreProcess(folder / "data", options=("--workers", "2"))
    disk = folder / "data" / "drive6"
    disk.mkdir(parents=True)
    mounted = run("mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE_BYTES}", "tmpfs", str(disk))
    stop = threading.Event()
    client = threading.Thread(target=load, args=(store, stop))
    etcd = EtcdCluster(1, fsync=True, arguments=("--quota-backend-bytes", str(ETCD_QUOTA_BYTES)))
    writer = threading.Thread(target=write_to_etcd, args=(etcd.endpoints[0], stop))
    prometheus: Prometheus | None = None
    try:
        store.start()
        client.start()
        writer.start()
        targets = [
            store.admin_url.removeprefix("http://"),
            f"127.0.0.1:{etcd.members[0].metrics_port}",
        ]
        prometheus = Prometheus(folder, targets, quick).start()
        prometheus.wait_until("min(ostraka_remaining_tolerance) == 2")
        store.admin("settings", "set", "--bucket-metrics", "5")
        store.admin("bucket", "quota", "load", "--max-bytes", "1GiB", "--max-objects", "1000")
        prometheus.wait_until("max(ostraka_bucket_quota_bytes) == 2^30")
        yield Scene(store, prometheus, etcd.endpoints[0], disk if mounted else None)
    finally:
        stop.set()
        for thread in (client, writer):
            if thread.ident is not None:
                thread.join()
        if prometheus is not None:
            prometheus.stop()
        etcd.close()
        store.kill()
        if mounted:
            run("umount", "-l", str(disk))


def values(found: list[tuple[dict[str, str], float]]) -> list[float]:
    return [value for _, value in found if not math.isnan(value)]


def test_alerts_fire_and_clear(scene: Scene) -> None:
    """Two drives die, then all but two: dead drives, low tolerance, no quorum, errors. All come back."""
    prometheus = scene.prometheus
    for name in ("OstrakaDriveDead", "OstrakaNoWriteQuorum", "OstrakaToleranceReduced"):
        prometheus.wait_for(name, fires=False)
    scene.take_away(1)
    for name in ("OstrakaDriveDead", "OstrakaToleranceReduced"):
        scene.wait_for(name, fires=True)
    assert "OstrakaNoWriteQuorum" not in prometheus.firing()
    scene.take_away(2, 3, 4)
    for name in ("OstrakaToleranceGone", "OstrakaNoWriteQuorum", "OstrakaErrorRateHigh"):
        scene.wait_for(name, fires=True)
    scene.bring_back(1, 2, 3, 4)
    for name in (
        "OstrakaNoWriteQuorum", "OstrakaErrorRateHigh", "OstrakaDriveDead",
        "OstrakaToleranceGone", "OstrakaToleranceReduced",
    ):  # fmt: skip
        scene.wait_for(name, fires=False, seconds=60)


def test_a_full_drive_is_noticed_and_so_is_its_relief(scene: Scene) -> None:
    """Somebody else's file takes the last byte of it, and goes; clients notice nothing."""
    if scene.disk is None:
        pytest.skip("a filesystem cannot be mounted here")
    assert "OstrakaDriveFull" not in scene.prometheus.firing()
    others = fill(scene.disk)
    scene.wait_for("OstrakaDriveFull", fires=True)
    assert not {"OstrakaNoWriteQuorum", "OstrakaErrorRateHigh"} & scene.prometheus.firing()
    others.unlink()
    scene.wait_for("OstrakaDriveFull", fires=False, seconds=90)


def test_etcd_that_fills_up_is_noticed_and_so_is_its_relief(scene: Scene) -> None:
    """Its file, which grows in large steps, nears the quota; then it is compacted and defragmented."""
    prometheus, url = scene.prometheus, scene.etcd_url
    assert "OstrakaEtcdHeadroom" not in prometheus.firing()
    large = text(bytes(1 << 20))
    for number in range(40):
        if int(ask_etcd(url, "maintenance/status")["dbSize"]) > 0.85 * ETCD_QUOTA_BYTES:
            break
        ask_etcd(url, "kv/put", key=text(b"large%d" % number), value=large)
    scene.wait_for("OstrakaEtcdHeadroom", fires=True)
    gone = ask_etcd(url, "kv/deleterange", key=text(b"large"), range_end=text(b"larg\xff"))
    ask_etcd(url, "kv/compaction", revision=gone["header"]["revision"], physical=True)
    ask_etcd(url, "maintenance/defragment")
    scene.wait_for("OstrakaEtcdHeadroom", fires=False)
    assert "OstrakaEtcdNoLeader" not in prometheus.firing()


def test_every_expression_of_every_panel_returns_series(scene: Scene) -> None:
    """After the faults above, so that errors and repairs have happened."""
    silent = [
        (dashboard, panel, expression)
        for dashboard, panel, expression in panel_expressions()
        if not values(scene.prometheus.query(expression))
    ]
    assert silent == []


def test_every_alert_returns_series_without_its_threshold(scene: Scene) -> None:
    for rule in rules():
        if rule.name == "OstrakaNodeDead":
            continue  # a store on one machine has no nodes: the cluster's test sees it
        for side in without_thresholds(rule.expression):
            assert values(scene.prometheus.query(side)), (rule.name, side)


def test_panels_agree_with_the_store(scene: Scene) -> None:
    """Numbers that are known by other means."""
    query = scene.prometheus.query
    status = scene.store.admin("status")
    assert values(query('max(ostraka_scheme_shards{kind="parity"})')) == [2]
    assert values(query('count(ostraka_drive_state{state="up"})')) == [len(status["drives"])] == [6]
    capacity = sum(drive["capacity_bytes"] for drive in status["drives"])
    assert values(query("sum(ostraka_drive_capacity_bytes)")) == [capacity]
    assert values(query('sum(ostraka_requests_total{operation="CreateBucket"})')) == [1]
    scene.prometheus.wait_until('max(ostraka_bucket_objects{bucket="load"}) >= 50')
    held = scene.store.admin("bucket", "quota", "show", "load")["held"]
    # 50 small objects under load, and a large one that comes and goes; all were there for long.
    (objects,) = values(query('max(ostraka_bucket_objects{bucket="load"})'))
    assert 50 <= objects <= 51
    assert 50 <= held["objects"] <= 51
    (size_bytes,) = values(query('max(ostraka_bucket_size_bytes{bucket="load"})'))
    assert size_bytes in (100_000, 1_600_000)


def test_the_store_shows_no_metric_that_the_reference_lacks(scene: Scene) -> None:
    from ops.reference.metrics import LABELS, families

    known = {name for family in families() for name in family.samples}
    seen = {name.partition("{")[0] for name in scene.store.metrics()}
    assert seen <= known
    assert {family.name for family in families() if family.kind == "gauge"} <= seen
    labels = {
        label
        for name in scene.store.metrics()
        for label in (part.partition("=")[0] for part in name.partition("{")[2].split(","))
        if label
    }
    assert labels <= set(LABELS)


def test_the_truth_is_told_in_a_table(scene: Scene, tmp_path: Path) -> None:
    """And the dashboards drawn; PICTURES names a folder where a person wants to see them."""
    folder = Path(os.environ.get("PICTURES") or tmp_path)
    told = table(scene.prometheus, scene.fired, scene.cleared)
    (folder / "store.md").write_text(told)
    for name in scene.fired:
        assert re.search(rf"^\| {name} \| \d+ \| [\d.]+ s \| [\d.]+ s \|$", told, re.MULTILINE), (
            told
        )
    for dashboard in DASHBOARDS:
        picture = draw(dashboard, scene.prometheus, time.monotonic() - scene.began)
        assert "no data" not in picture
        (folder / f"{dashboard.name}.svg").write_text(picture)
