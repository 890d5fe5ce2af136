"""Counts of many processes, added up and shown: sums never fall, and labels form closed sets."""

import asyncio
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import DriveReads, RequestCounts
from ops.collected import Growing, RequestTotals
from ops.drive_counts import CommitTotals
from ops.metrics import CommitCounts, DriveCounts, StoreCounts, render
from ops.process_counts import CommitFacts, MetadataFacts, ProcessWatch
from placement.ids import DriveId
from storage_node.port import DriveCondition, DriveReport


def counts_of(instance: bytes, requests: int, *, inflight: int = 0) -> RequestCounts:
    counts = RequestCounts(instance=instance, inflight=inflight)
    counts.operation("GetObject").codes["200"] = requests
    counts.operation("GetObject").latency.observe(0.002)
    counts.drive_reads["d1"] = DriveReads(requests, requests * 10, 0.5)
    return counts


@pytest.mark.parametrize(
    ("in_use", "quota", "left"),
    [(2_000_000, 10_000_000, 20_000), (10_000_000, 9_000_000, 0), (2_000_000, 0, None)],
)
def test_how_many_objects_still_fit_is_told_where_the_quota_is_known(
    in_use: int, quota: int, left: int | None
) -> None:
    counts = StoreCounts(
        counts_of(b"a", 0), metadata=MetadataFacts(in_use + 1000, in_use, quota, full=False)
    )
    shown = {
        sample.name: sample.value
        for family in text_string_to_metric_families(render(counts).decode())
        for sample in family.samples
    }
    assert shown.get("ostraka_metadata_objects_left") == left


def test_workers_are_added_up() -> None:
    totals = RequestTotals()
    totals.take(0, counts_of(b"a", 3, inflight=1))
    totals.take(1, counts_of(b"b", 4, inflight=2))
    for _ in range(2):  # asking changes nothing
        total = totals.total()
        assert total.operations["GetObject"].codes == {"200": 7}
        assert sum(total.operations["GetObject"].latency.counts) == 2
        assert total.drive_reads["d1"] == DriveReads(7, 70, 1.0)
        assert total.inflight == 3


def test_what_a_replaced_worker_had_counted_is_kept() -> None:
    totals = RequestTotals()
    totals.take(0, counts_of(b"a", 3, inflight=1))
    totals.take(0, None)  # it does not answer: dead, or only busy
    assert totals.total().operations["GetObject"].codes == {"200": 3}
    assert totals.total().inflight == 0
    totals.take(0, counts_of(b"c", 2, inflight=1))
    assert totals.total().operations["GetObject"].codes == {"200": 5}
    assert totals.total().inflight == 1
    totals.take(0, counts_of(b"c", 4))
    assert totals.total().operations["GetObject"].codes == {"200": 7}


def test_counters_of_sources_that_restart_only_grow() -> None:
    growing = Growing()
    seen = [growing.take(value, "drive", "puts") for value in (5, 9, 2, 2, 3, 0, 1)]
    assert seen == [5, 9, 11, 11, 12, 12, 13]
    assert growing.take(1, "other", "puts") == 1


def test_commits_of_several_processes_are_added_up_and_only_grow() -> None:
    totals = CommitTotals()
    totals.take("worker-0", {"metadata": CommitFacts(2, 5, 0.5), "reads": CommitFacts(1, 1, 0.1)})
    totals.take("worker-1", {"metadata": CommitFacts(10, 20, 1.0)})
    assert totals.total("metadata") == CommitCounts("metadata", 12, 25, 1.5)
    totals.take("worker-0", {"metadata": CommitFacts(1, 1, 0.25)})  # another took its place
    assert totals.total("metadata") == CommitCounts("metadata", 13, 26, 1.75)
    assert totals.total("reads") == CommitCounts("reads", 1, 1, 0.1)


def test_the_exposition_is_parsed_and_its_labels_are_closed_sets() -> None:
    report = DriveReport(DriveId(bytes(16)), "/d1", DriveCondition.FULL, 100, 10, 7, 1, 2)
    counts = StoreCounts(
        requests=counts_of(b"a", 3),
        drives=(report,),
        drive_counts=(DriveCounts("/d1", {"put": 4.0}, {"put": 0.5}, {"put": 400.0}),),
        commits=(CommitCounts("metadata", 2, 8, 0.25), CommitCounts("shards", 1, 3, 0.5)),
        processes=(ProcessWatch("storage").counts(), ProcessWatch("worker-0").counts()),
    )
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(render(counts).decode())
        for sample in family.samples
    }
    put = (("drive", "/d1"), ("operation", "put"))
    assert samples["ostraka_shard_operation_seconds_total", *put] == 0.5
    assert samples["ostraka_commits_total", ("kind", "metadata")] == 2
    assert samples["ostraka_commit_members_total", ("kind", "metadata")] == 8
    assert samples["ostraka_drive_shards", ("drive", "/d1")] == 7
    states = [key for key in samples if key[0] == "ostraka_drive_state"]
    assert len(states) == len(DriveCondition)
    assert samples["ostraka_process_memory_bytes", ("kind", "resident"), ("process", "storage")] > 1
    assert samples["ostraka_process_cpu_seconds_total", ("process", "worker-0")] > 0
    assert samples["ostraka_event_loop_lag_seconds", ("process", "worker-0")] == 0


def test_the_lag_of_the_loop_is_the_worst_of_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.process_counts.LAG_SAMPLE_SECONDS", 0.02)
    monkeypatch.setattr("ops.process_counts.LAG_WINDOW_SAMPLES", 5)

    async def scenario() -> None:
        watch = ProcessWatch("test").start()
        await asyncio.sleep(0.03)
        time.sleep(0.15)  # noqa: ASYNC251 - the very thing to be seen
        await asyncio.sleep(0.03)
        assert watch.loop_lag_seconds > 0.1
        async with asyncio.timeout(10):
            while watch.loop_lag_seconds > 0.1:  # noqa: ASYNC110 - it is forgotten in time
                await asyncio.sleep(0.02)
        watch.stop()

    asyncio.run(scenario())
