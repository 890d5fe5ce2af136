"""Drives that go away while the store runs or between two starts, and come back empty.

A few pairs of drives go with the tests; all fifteen of six: EVERY_PAIR=1 python -m pytest -s
"""

import hashlib
import itertools
import os
import random
import shutil
import threading
import time
from typing import Any

import pytest

from tests.functional.conftest import error_of
from tests.functional.store_process import StoreProcess

PAIRS = [(1, 2), (3, 6), (4, 5), (2, 4)]
"""Every drive goes once, two of them again after they came back."""
if os.environ.get("EVERY_PAIR"):
    PAIRS = list(itertools.combinations(range(1, 7), 2))
SIZES = (0, 1, 5_000, 16_384, 16_385, 200_000, 1_048_577, 6_000_000)


def fill_singly(s3: Any, bucket: str, seed: int) -> dict[str, str]:
    """Objects of all sizes, each put at once; their digests."""
    chance = random.Random(seed)
    digests = {}
    for number, size in enumerate(SIZES):
        body = chance.randbytes(size)
        s3.put_object(Bucket=bucket, Key=f"{seed}/{number}", Body=body)
        digests[f"{seed}/{number}"] = hashlib.sha256(body).hexdigest()
    return digests


def fill(s3: Any, bucket: str, seed: int) -> dict[str, str]:
    """The same, and one in parts."""
    digests = fill_singly(s3, bucket, seed)
    chance = random.Random(-seed)
    parts = [chance.randbytes(5 << 20), chance.randbytes(70_000)]
    upload = s3.create_multipart_upload(Bucket=bucket, Key=f"{seed}/parts")["UploadId"]
    done = [
        {
            "PartNumber": n,
            "ETag": s3.upload_part(
                Bucket=bucket, Key=f"{seed}/parts", UploadId=upload, PartNumber=n, Body=part
            )["ETag"],
        }
        for n, part in enumerate(parts, 1)
    ]
    s3.complete_multipart_upload(
        Bucket=bucket, Key=f"{seed}/parts", UploadId=upload, MultipartUpload={"Parts": done}
    )
    digests[f"{seed}/parts"] = hashlib.sha256(b"".join(parts)).hexdigest()
    return digests


def check(s3: Any, bucket: str, digests: dict[str, str]) -> None:
    """Every object reads back equal."""
    for key, digest in digests.items():
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        assert hashlib.sha256(body).hexdigest() == digest, key


def wait_whole(store: StoreProcess, seconds: float = 90) -> None:
    """Wait until nothing is pending and every drive is up."""
    end = time.monotonic() + seconds
    while True:
        status = store.command("status")
        if status["state"] == "ok" and status["repairs_pending"] == 0:
            return
        assert time.monotonic() < end, status
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.timeout(60 + 60 * len(PAIRS))
def test_pairs_of_drives_may_go_and_come_back_empty(own_store: StoreProcess) -> None:
    store = own_store
    store.client().create_bucket(Bucket="pairs")
    digests = fill(store.client(), "pairs", 0)
    for seed, pair in enumerate(PAIRS, 1):
        store.stop()
        for number in pair:
            shutil.rmtree(store.directory / f"drive{number}")
        store.start()
        check(store.client(), "pairs", digests)
        write = fill if seed == 1 else fill_singly
        more = write(store.client(), "pairs", seed)
        check(store.client(), "pairs", more)
        digests |= more
        for number in pair:
            (store.directory / f"drive{number}").mkdir()
        # What repair made of it is read once the next pair is away.
        wait_whole(store)
    check(store.client(), "pairs", digests)


@pytest.mark.timeout(180)
def test_two_drives_vanish_under_load_and_no_request_fails(own_store: StoreProcess) -> None:
    store = own_store
    store.client().create_bucket(Bucket="load")
    digests = fill(store.client(), "load", 1)
    failures: list[BaseException] = []
    stop = threading.Event()

    def work(number: int) -> None:
        s3 = store.client()
        chance = random.Random(number)
        turn = 0
        while not stop.is_set():
            turn += 1
            try:
                body = chance.randbytes(chance.choice(SIZES[:-1]))
                s3.put_object(Bucket="load", Key=f"t{number}/{turn}", Body=body)
                got = s3.get_object(Bucket="load", Key=f"t{number}/{turn}")["Body"].read()
                assert got == body
                key = chance.choice(sorted(digests))
                got = s3.get_object(Bucket="load", Key=key)["Body"].read()
                assert hashlib.sha256(got).hexdigest() == digests[key]
            except BaseException as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    for number in (2, 5):
        shutil.rmtree(store.directory / f"drive{number}", ignore_errors=True)
        time.sleep(1.5)
    time.sleep(2)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    for number in (2, 5):
        shutil.rmtree(store.directory / f"drive{number}", ignore_errors=True)
        (store.directory / f"drive{number}").mkdir()
    wait_whole(store)
    check(store.client(), "load", digests)


def test_flipped_bytes_cost_no_request_and_are_rebuilt(own_store: StoreProcess) -> None:
    store = own_store
    s3 = store.client()
    s3.create_bucket(Bucket="flip")
    digests = fill(s3, "flip", 3)
    chance = random.Random(11)
    damaged = 0
    for drive in (1, 4):
        for file in sorted((store.directory / f"drive{drive}").rglob("*")):
            if file.is_file() and ("files" in file.parts or "segments" in file.parts):
                with file.open("r+b") as handle:
                    size = file.stat().st_size
                    for _ in range(64):
                        position = chance.randrange(min(size, 2 << 20))
                        handle.seek(position)
                        byte = handle.read(1)
                        handle.seek(position)
                        handle.write(bytes([byte[0] ^ 0x40]))
                damaged += 1
    assert damaged
    for _ in range(2):
        check(s3, "flip", digests)
    # What a read finds is told to the keeper soon, not before its answer.
    end = time.monotonic() + 60
    while not store.metrics()["ostraka_repairs_total"]:
        assert time.monotonic() < end, "nothing was rebuilt"
        time.sleep(0.2)
    wait_whole(store)
    check(s3, "flip", digests)
    assert store.metrics()["ostraka_internal_errors_total"] == 0


def test_more_drives_away_than_tolerated_is_a_503_until_they_return(
    own_store: StoreProcess,
) -> None:
    store = own_store
    s3 = store.client()
    s3.create_bucket(Bucket="away")
    digests = fill(s3, "away", 5)
    for number in (1, 3, 6):
        (store.directory / f"drive{number}").rename(store.directory / f"away{number}")
    refused = []
    for key in digests:
        try:
            s3.get_object(Bucket="away", Key=key)["Body"].read()
        except s3.exceptions.ClientError as error:
            refused.append(error.response)
        assert s3.head_object(Bucket="away", Key=key)["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert len(refused) >= 4
    for answer in refused:
        assert answer["Error"]["Code"] == "ServiceUnavailable"
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 503
    copied = error_of(
        s3.upload_part_copy,
        Bucket="away",
        Key="copy",
        PartNumber=1,
        UploadId=s3.create_multipart_upload(Bucket="away", Key="copy")["UploadId"],
        CopySource={"Bucket": "away", "Key": "5/7"},
    )
    assert copied == ("ServiceUnavailable", 503)
    for number in (1, 3, 6):
        (store.directory / f"away{number}").rename(store.directory / f"drive{number}")
    wait_whole(store)
    check(s3, "away", digests)
    assert store.metrics()["ostraka_internal_errors_total"] == 0
