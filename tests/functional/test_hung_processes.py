"""Processes of `serve` that are stopped, as when they hang: they are replaced, and nothing is lost."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from ops.config import HUNG_SECONDS
from tests.functional.store_process import StoreProcess
from tests.functional.test_serve import processes_of
from tests.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

OPTIONS = ("--workers", "1", "--drives", "3")
SOON = {HUNG_SECONDS: "6"}
"""Instead of half a minute; the storage process has twice as long."""


def is_replaced(store: StoreProcess, role: str, stopped: int) -> bool:
    found = processes_of(store, role)
    return stopped not in found and bool(found)


def test_a_worker_and_a_keeper_that_stand_still_are_replaced(tmp_path: Path) -> None:
    store = StoreProcess(tmp_path / "data", OPTIONS, SOON)
    try:
        store.start()
        s3 = store.client()
        s3.create_bucket(Bucket="hung")
        s3.put_object(Bucket="hung", Key="before", Body=b"before")
        (worker,), (keeper,) = processes_of(store, "worker"), processes_of(store, "keeper")
        for process in (worker, keeper):
            os.kill(process, signal.SIGSTOP)
        for role, process in (("worker", worker), ("keeper", keeper)):
            eventually(partial(is_replaced, store, role, process), 120)

        def serves() -> bool:
            client = store.client()
            try:
                return bool(client.get_object(Bucket="hung", Key="before")["Body"].read())
            except (ClientError, BotoCoreError):
                return False
            finally:
                client.close()

        eventually(serves, 60)
        eventually(lambda: bool(store.metrics()), 60)
        store.read(0.2)
        assert "worker 0 has stood still" in store.output
        assert "keeper has stood still" in store.output
        s3.close()
    finally:
        store.kill()


def test_a_storage_process_that_stands_still_is_killed_before_another_takes_over(
    tmp_path: Path,
) -> None:
    store = StoreProcess(tmp_path / "data", OPTIONS, SOON)
    try:
        store.start()
        s3 = store.client()
        s3.create_bucket(Bucket="hung")
        s3.put_object(Bucket="hung", Key="before", Body=b"before")
        (storage,) = processes_of(store, "storage")
        os.kill(storage, signal.SIGSTOP)
        eventually(partial(is_replaced, store, "storage", storage), 180)
        with pytest.raises(ProcessLookupError):
            os.kill(storage, signal.SIGCONT)  # it cannot wake and write beside the new one

        def writes() -> bool:
            try:
                s3.put_object(Bucket="hung", Key="after", Body=b"after")
            except (ClientError, BotoCoreError):
                return False
            return True

        eventually(writes, 90)
        for key in ("before", "after"):
            assert s3.get_object(Bucket="hung", Key=key)["Body"].read() == key.encode()
        s3.close()
    finally:
        store.kill()
