"""/metrics of a store with several workers, before and after some of its processes are replaced."""

import os
import signal
from functools import partial
from pathlib import Path

from tests.functional.store_process import StoreProcess
from tests.functional.test_serve import processes_of
from tests.waiting import eventually


def _are_counted(store: StoreProcess, count: int) -> bool:
    shown = store.metrics()
    names = [
        f'ostraka_requests_total{{code="200",operation="{operation}"}}'
        for operation in ("PutObject", "GetObject")
    ]
    return [shown.get(name) for name in names] == [count, count]


def test_counts_are_true_with_several_workers_and_survive_their_end(tmp_path: Path) -> None:
    store = StoreProcess(tmp_path / "data", options=("--workers", "3", "--drives", "3"))
    try:
        store.start()
        s3 = store.client()
        s3.create_bucket(Bucket="counted")
        for turn in range(3):
            for number in range(10):
                client = store.client()
                client.put_object(Bucket="counted", Key=f"{number}", Body=b"x" * 1000)
                assert client.get_object(Bucket="counted", Key=f"{number}")["Body"].read()
                client.close()
            # A request is counted once its last byte is out: a client may have it a moment before.
            eventually(partial(_are_counted, store, 10 * (turn + 1)), 5)
            shown = store.metrics()
            assert _are_counted(store, 10 * (turn + 1))
            (victim, *_) = processes_of(store, "worker")
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: len(processes_of(store, "worker")) == 3, 10)
        _check_drives(store, shown)
        assert shown['ostraka_commits_total{kind="metadata"}'] > 0
        assert (
            shown['ostraka_commit_members_total{kind="metadata"}']
            >= shown['ostraka_commits_total{kind="metadata"}']
        )
        assert shown['ostraka_commit_seconds_total{kind="metadata"}'] > 0
        for process in ("storage", "keeper", "worker-0", "worker-1", "worker-2"):
            label = f'kind="resident",process="{process}"'
            assert shown[f"ostraka_process_memory_bytes{{{label}}}"] > 1 << 20
            assert shown[f'ostraka_event_loop_lag_seconds{{process="{process}"}}'] < 5
    finally:
        store.kill()


def _check_drives(store: StoreProcess, shown: dict[str, float]) -> None:
    for number in (1, 2, 3):
        drive = store.directory / f"drive{number}"
        for operation in ("put", "flush"):
            label = f'drive="{drive}",operation="{operation}"'
            assert shown[f"ostraka_shard_operations_total{{{label}}}"] > 0
            assert shown[f"ostraka_shard_operation_seconds_total{{{label}}}"] > 0
    reads = sum(
        value
        for name, value in shown.items()
        if name.startswith("ostraka_shard_operations_total") and 'operation="get"' in name
    )
    assert reads >= 30


def test_degraded_reads_and_writes_are_counted(tmp_path: Path) -> None:
    store = StoreProcess(tmp_path / "data", options=("--workers", "1"))
    try:
        store.start()
        s3 = store.client()
        s3.create_bucket(Bucket="degraded")
        keys = [f"k{number}" for number in range(8)]
        for key in keys:
            s3.put_object(Bucket="degraded", Key=key, Body=os.urandom(1 << 20))
            s3.get_object(Bucket="degraded", Key=key)["Body"].read()
        shown = store.metrics()
        assert shown["ostraka_degraded_reads_total"] == 0
        assert shown["ostraka_degraded_writes_total"] == 0
        for number in (1, 2):
            (store.directory / f"drive{number}").rename(store.directory / f"away{number}")

        def counted() -> bool:
            # A worker reads on by open files until the next report says that the drives are gone.
            for key in keys:
                s3.get_object(Bucket="degraded", Key=key)["Body"].read()
            s3.put_object(Bucket="degraded", Key="new", Body=os.urandom(1 << 20))
            now = store.metrics()
            both = now["ostraka_degraded_reads_total"], now["ostraka_degraded_writes_total"]
            return all(both)

        eventually(counted, 40)
    finally:
        store.kill()


def test_what_is_stored_by_tolerance_follows_the_drives(tmp_path: Path) -> None:
    store = StoreProcess(tmp_path / "data", options=("--workers", "1"))

    def blobs() -> dict[str, float]:
        shown = store.metrics()
        names = {left: f'ostraka_stored_blobs{{tolerance="{left}"}}' for left in "012"}
        names["lost"] = 'ostraka_stored_blobs{tolerance="lost"}'
        return {left: shown.get(name, -1) for left, name in names.items()}

    try:
        store.start()
        s3 = store.client()
        s3.create_bucket(Bucket="held")
        for number in range(5):
            s3.put_object(Bucket="held", Key=f"{number}", Body=os.urandom(100_000))
        store.stop()
        store.start()  # and an inventory is taken
        # The copies of the metadata come to the five.
        eventually(lambda: blobs()["2"] >= 5, 30)
        whole = blobs()
        assert whole["lost"] == whole["0"] == whole["1"] == 0
        size = store.metrics()['ostraka_stored_blob_bytes{tolerance="2"}']
        assert 500_000 <= size < 600_000
        for number in (1, 2, 3):
            (store.directory / f"drive{number}").rename(store.directory / f"away{number}")
        eventually(lambda: blobs()["lost"] >= 5, 30)
        for number in (1, 2, 3):
            drive = store.directory / f"drive{number}"
            if drive.exists():
                drive.rmdir()
            (store.directory / f"away{number}").rename(drive)
        eventually(lambda: blobs()["2"] >= 5 and blobs()["lost"] == 0, 60)
        assert store.metrics()["ostraka_map_epoch"] >= 1
        assert store.metrics()["ostraka_map_open_epochs"] == 0
        eventually(lambda: store.metrics().get("ostraka_misplaced_shards") == 0, 30)
    finally:
        store.kill()
