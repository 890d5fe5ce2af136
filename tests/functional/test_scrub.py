"""The scrub of a real store: decay that nobody reads is found and repaired."""

import hashlib
import random
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.store_process import StoreProcess, served

SMALL = random.Random(1).randbytes(60_000)
LARGE = random.Random(2).randbytes(3_000_000)


@pytest.fixture
def scrubbed(tmp_path: Path) -> Iterator[StoreProcess]:
    """A store whose scrub goes round in a few seconds."""
    environment = {"OSTRAKA_SCRUB_PASS_SECONDS": "3"}
    with served(tmp_path / "data", environment=environment) as store:
        yield store


def _metric(store: StoreProcess, name: str) -> float:
    with urllib.request.urlopen(f"{store.admin_url}/metrics", timeout=10) as answer:
        found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def _until(holds: Callable[[], bool], what: str, seconds: float = 45) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def _scrub(store: StoreProcess) -> dict[str, Any]:
    told: dict[str, Any] = store.admin("status")["duties"]["scrub"]
    return told


def _flip(folder: Path, piece: bytes) -> int:
    """Change a byte in the middle of each place where a file holds these bytes; how many there are."""
    count = 0
    for path in folder.rglob("*"):
        if not path.is_file() or "index" in path.name:
            continue
        at = path.read_bytes().find(piece)
        if at >= 0:
            with path.open("r+b") as file:
                file.seek(at + len(piece) // 2)
                byte = file.read(1)[0]
                file.seek(-1, 1)
                file.write(bytes([byte ^ 1]))
            count += 1
    return count


@pytest.mark.timeout(200)
def test_decay_that_nobody_reads_is_found_and_repaired_and_a_pass_survives_a_restart(
    scrubbed: StoreProcess,
) -> None:
    s3 = scrubbed.client()
    s3.create_bucket(Bucket="cold")
    s3.put_object(Bucket="cold", Key="small", Body=SMALL)
    s3.put_object(Bucket="cold", Key="large", Body=LARGE)
    for number in range(1, 60):
        s3.put_object(Bucket="cold", Key=f"{number}", Body=SMALL[-number:])
    pieces: tuple[bytes, ...] = (SMALL[:200], LARGE[:200])
    flipped = 0
    for drive in sorted(scrubbed.directory.glob("drive*")):
        for piece in pieces:
            if flipped < 2:
                found = _flip(drive, piece)
                flipped += found
                pieces = tuple(p for p in pieces if not found or p != piece)
    assert flipped == 2  # one shard of each object
    _until(lambda: _scrub(scrubbed)["damaged"] >= 2, f"not found: {_scrub(scrubbed)}")
    _until(lambda: _metric(scrubbed, "ostraka_repairs_total") >= 2, "not repaired")
    _until(lambda: scrubbed.admin("status")["repairs_pending"] == 0, "not settled")
    reads = _metric(scrubbed, "ostraka_degraded_reads_total")
    for key, body in (("small", SMALL), ("large", LARGE)):
        got = s3.get_object(Bucket="cold", Key=key)["Body"].read()
        assert hashlib.md5(got).digest() == hashlib.md5(body).digest()
    assert _metric(scrubbed, "ostraka_degraded_reads_total") == reads
    assert _metric(scrubbed, "ostraka_scrub_damaged_shards_total") == 2
    assert _metric(scrubbed, "ostraka_scrub_bytes_total") > len(SMALL) + len(LARGE)
    assert _metric(scrubbed, "ostraka_scrub_different_blobs_total") == 0
    assert _scrub(scrubbed)["per_second"] > 0
    # Between two passes nothing is left.
    _until(lambda: bool(0 < _scrub(scrubbed)["eta_seconds"] <= 3.0), "no pass tells its end")
    _until(
        lambda: bool(scrubbed.admin("status")["duties"]["repair"]["eta_seconds"] == 0.0),
        "the repair does not say that it is done",
    )
    number = _scrub(scrubbed)["number"]
    scrubbed.stop()
    scrubbed.start()
    _until(lambda: bool(_scrub(scrubbed)["number"] > number), "it does not go on")
    _until(lambda: _metric(scrubbed, "ostraka_scrub_decoded_blobs_total") > 0, "nothing is decoded")
    told = _scrub(scrubbed)
    assert told["oldest_age_seconds"] < 60
    assert (told["damaged"], told["different"]) == (0, 0)
