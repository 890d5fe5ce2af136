"""Lifecycle of buckets: the configuration as it is kept, and the keeper that acts on it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conftest import error_of
from tests.functional.store_process import StoreProcess

RULE = {
    "ID": "r",
    "Filter": {"Prefix": "old/"},
    "Status": "Enabled",
    "Expiration": {"Days": 1},
    "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
}


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Any]:
    """A client of a store whose lifecycle days last a second."""
    running = StoreProcess(tmp_path / "data", environment={"OSTRAKA_LIFECYCLE_DAY_SECONDS": "1"})
    try:
        yield running.start().client()
        assert running.stop() == 0, running.output
    finally:
        running.kill()


def _put(s3: Any, bucket: str, *rules: dict[str, Any]) -> None:
    s3.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)}
    )


def _until(holds: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "did not come about in time"
        time.sleep(0.1)


def test_a_configuration_is_kept_until_it_is_deleted(s3: Any, bucket: str) -> None:
    _put(s3, bucket, RULE)
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == [RULE]
    s3.delete_bucket_lifecycle(Bucket=bucket)
    refused = error_of(s3.get_bucket_lifecycle_configuration, Bucket=bucket)
    assert refused == ("NoSuchLifecycleConfiguration", 404)


def test_what_is_not_offered_or_wrong_is_refused(s3: Any, bucket: str) -> None:
    moved = {**RULE, "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}
    for rules, answer in (
        ([moved], ("NotImplemented", 501)),
        ([RULE, RULE], ("InvalidArgument", 400)),
        ([{**RULE, "Status": "enabled"}], ("MalformedXML", 400)),
    ):
        refused = error_of(
            s3.put_bucket_lifecycle_configuration,
            Bucket=bucket,
            LifecycleConfiguration={"Rules": rules},
        )
        assert refused == answer


def test_what_has_come_to_its_end_goes_and_the_rest_stays(quick: Any) -> None:
    quick.create_bucket(Bucket="plain")
    for key in ("old/1", "old/2", "kept"):
        quick.put_object(Bucket="plain", Key=key, Body=b"x")
    quick.create_multipart_upload(Bucket="plain", Key="old/upload")
    quick.create_multipart_upload(Bucket="plain", Key="kept")
    quick.create_bucket(Bucket="versioned")
    quick.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    for key in ("old/1", "old/1", "old/1", "kept", "kept"):
        quick.put_object(Bucket="versioned", Key=key, Body=b"x")
    for bucket in ("plain", "versioned"):
        _put(quick, bucket, RULE)

    def keys_of(bucket: str) -> list[str]:
        found = quick.list_object_versions(Bucket=bucket)
        return [
            item["Key"] for kind in ("Versions", "DeleteMarkers") for item in found.get(kind, [])
        ]

    # Marked first; then the versions go, and at last the marker that is alone.
    _until(lambda: keys_of("versioned") == ["kept", "kept"])
    _until(lambda: keys_of("plain") == ["kept"])
    uploads = quick.list_multipart_uploads(Bucket="plain")["Uploads"]
    assert [upload["Key"] for upload in uploads] == ["kept"]
