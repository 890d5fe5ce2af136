"""`ostraka admin object lost`: exactly what cannot be read is listed, and what would bring it back."""

import random
import shutil
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from ops.admin_cli import admin
from tests.functional.store_process import StoreProcess

GONE = (1, 3, 6)


def fill(s3: Any) -> None:
    """Two buckets: copies on three drives each and coded objects on all six, versions of a key, one
    in parts, one of nothing, a delete marker."""
    chance = random.Random(7)
    s3.create_bucket(Bucket="pots")
    s3.create_bucket(Bucket="sherds")
    for number in range(40):
        s3.put_object(Bucket="pots", Key=f"small/{number}", Body=chance.randbytes(2_000))
    for number in range(5):
        s3.put_object(Bucket="pots", Key=f"large/{number}", Body=chance.randbytes(200_000))
    s3.put_object(Bucket="pots", Key="nothing", Body=b"")
    s3.put_bucket_versioning(Bucket="sherds", VersioningConfiguration={"Status": "Enabled"})
    for _ in range(6):
        s3.put_object(Bucket="sherds", Key="a/versioned \x07", Body=chance.randbytes(1_000))
    s3.put_object(Bucket="sherds", Key="a/deleted", Body=chance.randbytes(300_000))
    s3.delete_object(Bucket="sherds", Key="a/deleted")
    upload = s3.create_multipart_upload(Bucket="sherds", Key="parts")["UploadId"]
    parts = [chance.randbytes(5 << 20), chance.randbytes(70_000)]
    done = [
        s3.upload_part(Bucket="sherds", Key="parts", UploadId=upload, PartNumber=n, Body=part)
        for n, part in enumerate(parts, 1)
    ]
    s3.complete_multipart_upload(
        Bucket="sherds", Key="parts", UploadId=upload,
        MultipartUpload={
            "Parts": [{"PartNumber": n, "ETag": d["ETag"]} for n, d in enumerate(done, 1)]
        },
    )  # fmt: skip


def unreadable(s3: Any) -> set[tuple[str, str, str]]:
    """What GET refuses: bucket, key, version."""
    refused = set()
    for bucket in ("pots", "sherds"):
        for each in s3.list_object_versions(Bucket=bucket)["Versions"]:
            name = (bucket, each["Key"], each["VersionId"])
            try:
                s3.get_object(Bucket=bucket, Key=name[1], VersionId=name[2])["Body"].read()
            except ClientError:
                refused.add(name)
    return refused


def names(listed: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(each["bucket"], each["key"], each["version_id"]) for each in listed["objects"]]


def agreed(store: StoreProcess) -> dict[str, Any]:
    """What is listed, once GET refuses just that: a gateway may still read files that it has open, and
    sees a second later than others that a drive is back."""
    end = time.monotonic() + 60
    while True:
        listed: dict[str, Any] = store.command("object", "lost")
        refused = unreadable(store.client())
        if set(names(listed)) == refused:
            assert len(names(listed)) == len(refused) == listed["lost"]
            return listed
        assert time.monotonic() < end, set(names(listed)) ^ refused
        time.sleep(0.5)


def wait_up(store: StoreProcess, drives: int) -> None:
    end = time.monotonic() + 60
    while sum(d["state"] == "up" for d in store.command("status")["drives"]) != drives:
        assert time.monotonic() < end, store.command("status")
        time.sleep(0.2)


def told(store: StoreProcess, *arguments: str) -> str:
    where = ("--url", store.admin_url, "--dir", str(store.directory))
    done = CliRunner().invoke(admin, ["object", "lost", *arguments, *where])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.timeout(180)
def test_exactly_what_cannot_be_read_is_listed_until_a_drive_comes_back(
    own_store: StoreProcess,
) -> None:
    store = own_store
    s3 = store.client()
    fill(s3)
    every = 40 + 5 + 1 + 6 + 1 + 1
    assert store.command("object", "lost") == {
        "objects": [], "examined": every, "lost": 0, "silent": [],
    }  # fmt: skip
    assert told(store).strip().endswith(f"{every} objects and versions looked at, 0 lost")
    for number in GONE:
        (store.directory / f"drive{number}").rename(store.directory / f"away{number}")
    wait_up(store, 3)

    listed = agreed(store)
    assert listed["examined"] == every
    keys = {key for _, key, _ in names(listed)}
    assert {"large/0", "a/deleted", "parts"} <= keys
    # Copies lie on three drives that chance picks: one object in twenty, on the average, on these.
    assert sum(key.startswith("small/") for key in keys) < 40
    assert names(listed) == sorted(names(listed), key=lambda name: name[:2])
    reports = {d["path"]: d["id"] for d in store.command("status")["drives"]}
    gone = {str(store.directory / f"drive{n}") for n in GONE}
    for each in listed["objects"]:
        assert {drive["path"] for drive in each["drives"]} == gone, each
        assert all(reports[drive["path"]] == drive["id"] for drive in each["drives"])
        assert each["shards_left"] < each["shards_needed"]
        if each["key"].startswith("large/"):
            assert (each["shards_left"], each["shards_needed"]) == (3, 4)
            assert each["size_bytes"] == 200_000
            assert each["is_latest"]
        if each["key"].startswith(("small/", "a/versioned")):
            assert (each["shards_left"], each["shards_needed"]) == (0, 1)
        if each["key"] == "a/deleted":
            assert not each["is_latest"]

    ours = store.command("object", "lost", "pots", "--prefix", "large/")
    assert ours["examined"] == 5
    assert {key for _, key, _ in names(ours)} == {f"large/{n}" for n in range(5)}
    assert "NoSuchBucket" in store.refused("object", "lost", "nowhere")
    for_people = told(store, "pots", "--prefix", "large/")
    assert "pots/large/0, version null, 195.3 KiB, 3 of 4 shards needed are left" in for_people
    assert "5 objects and versions looked at, 5 lost" in for_people
    assert "\x07" not in told(store, "sherds")
    assert store.command("object", "lost", "sherds", "--prefix", "a/versioned ")["examined"] == 6

    # One of the three: everything but the copies can be read again; all: everything.
    (store.directory / "away3").rename(store.directory / "drive3")
    wait_up(store, 4)
    assert store.command("object", "lost")["objects"] == []
    for number in (1, 6):
        (store.directory / f"away{number}").rename(store.directory / f"drive{number}")
    wait_up(store, 6)
    assert agreed(store)["lost"] == 0


@pytest.mark.timeout(180)
def test_what_is_lost_for_good_stays_listed_until_it_is_deleted(own_store: StoreProcess) -> None:
    store = own_store
    s3 = store.client()
    fill(s3)
    for number in GONE:
        shutil.rmtree(store.directory / f"drive{number}")
    wait_up(store, 3)
    before = agreed(store)
    assert before["lost"] > 6
    for number in GONE:
        (store.directory / f"drive{number}").mkdir()
    wait_up(store, 6)
    listed = store.command("object", "lost")
    assert names(listed) == names(before)
    assert all(each["drives"] == [] for each in listed["objects"])
    assert "no drive that is away would hold the others" in told(store)
    for bucket, key, version in names(listed):
        s3.delete_object(Bucket=bucket, Key=key, VersionId=version)
    assert store.command("object", "lost")["objects"] == []
