"""kill -9 of the whole store under load: every acknowledged object is there and equal afterwards."""

import hashlib
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.functional.store_process import StoreProcess

WRITERS = 64
KILLS = int(os.environ.get("KILLS", "2"))
SIZES = (0, 1, 1000, 16_384, 16_385, 65_536, 300_000, 1_048_576, 3_000_001)


class Load:
    """Writers that note what was acknowledged; several keep overwriting the same keys."""

    def __init__(self, store: StoreProcess, bucket: str, round_number: int) -> None:
        self._store = store
        self._bucket = bucket
        self._round = round_number
        self._stop = threading.Event()
        self._s3 = store.client(read_timeout=20)
        self._lock = threading.Lock()
        self.acknowledged: dict[str, str] = {}
        self.attempted: dict[str, set[str]] = {}

    def run_until_killed(self, seconds: float) -> None:
        """Start the writers, kill the store after a while, and wait for the writers."""
        threads = [threading.Thread(target=self._write, args=(n,)) for n in range(WRITERS)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 30
        while not self.acknowledged and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(seconds)
        self._store.kill()
        self._stop.set()
        for thread in threads:
            thread.join()

    def _write(self, number: int) -> None:
        chance = random.Random(self._round * 1000 + number)
        turn = 0
        while not self._stop.is_set():
            # One in four keys is written again and again by the same writer.
            key = f"w{number}/{'same' if turn % 4 == 0 else f'{self._round}-{turn}'}"
            body = chance.randbytes(chance.choice(SIZES))
            digest = hashlib.sha256(body).hexdigest()
            with self._lock:
                self.attempted.setdefault(key, set()).add(digest)
            try:
                self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)
            except (BotoCoreError, ClientError):
                return
            with self._lock:
                self.acknowledged[key] = digest
                self.attempted[key] = {digest}
            turn += 1


@pytest.mark.slow
@pytest.mark.timeout(600 + 90 * KILLS)
def test_acknowledged_objects_survive_kills_of_the_process_group(tmp_path: Path) -> None:
    store = StoreProcess(tmp_path / "data")
    expected: dict[str, str] = {}
    possible: dict[str, set[str]] = {}
    try:
        store.start()
        store.client().create_bucket(Bucket="kill")
        for round_number in range(KILLS):
            load = Load(store, "kill", round_number)
            load.run_until_killed(1.0 + 0.3 * (round_number % 5))
            assert load.acknowledged, store.output
            expected |= load.acknowledged
            for key, digests in load.attempted.items():
                possible[key] = digests | ({expected[key]} if key in expected else set())
            store.start()
            _check(store, expected, possible)
            store.stop()
            store.start()
        _check_no_orphans(store)
    finally:
        store.kill()


def _check(store: StoreProcess, expected: dict[str, str], possible: dict[str, set[str]]) -> None:
    """Acknowledged ones read back equal; unacknowledged ones are absent or whole."""
    s3 = store.client()
    listed = {
        item["Key"]: item
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket="kill")
        for item in page.get("Contents", [])
    }
    assert expected.keys() <= listed.keys()
    for key in listed:
        body = s3.get_object(Bucket="kill", Key=key)["Body"].read()
        digest = hashlib.sha256(body).hexdigest()
        assert digest in possible[key], f"{key} is neither the acknowledged nor the last attempt"
        assert len(body) == listed[key]["Size"]
        # What a kill left undecided is decided now.
        expected[key] = digest
        possible[key] = {digest}


def _check_no_orphans(store: StoreProcess) -> None:
    """After the grace times the sweep has nothing left."""
    end = time.monotonic() + 240
    while True:
        status: dict[str, Any] = store.command("status")
        if status["orphan_shards"] == 0 and status["repairs_pending"] == 0:
            break
        assert time.monotonic() < end, status
        time.sleep(2)
    assert status["state"] == "ok"
