"""`ostraka admin object locate` on one machine: every shard by its drive, and which of them are whole."""

import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ops.admin_cli import admin
from tests.functional.store_process import StoreProcess
from tests.functional.test_lost_objects import fill, wait_up


def located(store: StoreProcess, key: str, *options: str, bucket: str = "pots") -> Any:
    return store.command("object", "locate", bucket, key, *options)


def healths(blob: dict[str, Any]) -> dict[str, str]:
    """Of each shard by its drive's folder."""
    return {Path(shard["path"]).name: shard["health"] for shard in blob["shards"]}


def flip(store: StoreProcess, drive: str, wanted: bytes) -> None:
    """One bit of those bytes, wherever the drive keeps them."""
    for file in (store.directory / drive).rglob("*"):
        if file.is_file() and (place := file.read_bytes().find(wanted)) >= 0:
            with file.open("r+b") as opened:
                opened.seek(place)
                opened.write(bytes([wanted[0] ^ 1]))
            return
    raise AssertionError(f"{drive} does not have them")


@pytest.mark.timeout(180)
def test_every_shard_is_read_and_told_with_its_drive(own_store: StoreProcess) -> None:
    store = own_store
    s3 = store.client()
    fill(s3)
    body = random.Random(8).randbytes(100_000)
    s3.put_object(Bucket="pots", Key="mine", Body=body)
    every = {f"drive{number}" for number in range(1, 7)}

    (blob,) = located(store, "mine")
    assert (blob["scheme"], blob["size_bytes"], blob["tolerance"]) == ("4+2", 100_000, 2)
    assert healths(blob) == dict.fromkeys(every, "whole")
    assert [shard["index"] for shard in blob["shards"]] == list(range(6))
    assert all(shard["home"] for shard in blob["shards"])
    reports = {d["path"]: d["id"] for d in store.command("status")["drives"]}
    assert {shard["path"]: shard["drive"] for shard in blob["shards"]} == reports

    first = Path(blob["shards"][0]["path"]).name  # the first data shard begins with the body
    flip(store, first, body[:64])
    (blob,) = located(store, "mine")
    assert blob["tolerance"] == 1
    assert healths(blob) == dict.fromkeys(every, "whole") | {first: "damaged"}

    parts = located(store, "parts", bucket="sherds")
    assert sorted(part["size_bytes"] for part in parts) == [70_000, 5 << 20]
    (empty,) = located(store, "nothing")
    assert (empty["size_bytes"], empty["tolerance"]) == (0, 2)
    versions = [
        each["VersionId"]
        for each in s3.list_object_versions(Bucket="sherds", Prefix="a/v")["Versions"]
    ]
    blobs = {
        located(store, "a/versioned \x07", "--version-id", version, bucket="sherds")[0]["blob"]
        for version in versions
    }
    assert len(blobs) == len(versions) == 6

    (store.directory / "drive5").rename(store.directory / "away5")
    wait_up(store, 5)
    (blob,) = located(store, "large/1")
    assert blob["tolerance"] == 1
    assert healths(blob)["drive5"] == "unreachable"
    shown = CliRunner().invoke(
        admin,
        ["object", "locate", "pots", "large/1", "--url", store.admin_url, "--dir", str(store.directory)],
    )  # fmt: skip
    assert "4+2, 200000 bytes, tolerance 1" in shown.output
    (store.directory / "away5").rename(store.directory / "drive5")


@pytest.mark.timeout(120)
def test_what_is_not_there_is_said_in_one_sentence(own_store: StoreProcess) -> None:
    store = own_store
    s3 = store.client()
    s3.create_bucket(Bucket="pots")
    s3.put_bucket_versioning(Bucket="pots", VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket="pots", Key="gone", Body=b"1")
    marker = s3.delete_object(Bucket="pots", Key="gone")["VersionId"]
    for arguments, words in (
        (("nowhere", "k"), "NoSuchBucket: There is no bucket nowhere."),
        (("pots", "k"), "NoSuchKey: There is no object k in pots."),
        (("pots", "gone"), "NoSuchKey: There is no object gone in pots."),
        (("pots", "gone", "--version-id", marker), f"NoSuchVersion: Version {marker} of gone in pots is a delete marker."),
        (("pots", "gone", "--version-id", "null"), "NoSuchVersion: Version null of gone in pots is not there."),
        (("pots", "gone", "--version-id", "x"), "InvalidArgument: x is not a version id."),
    ):  # fmt: skip
        assert words in store.refused("object", "locate", *arguments)
