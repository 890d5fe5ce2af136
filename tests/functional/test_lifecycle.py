"""Lifecycle of buckets: the configuration as it is kept, and the keeper that acts on it."""

import re
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conftest import error_of
from tests.functional.store_process import served

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
    environment = {"OSTRAKA_LIFECYCLE_DAY_SECONDS": "1"}
    with served(tmp_path / "data", environment=environment) as running:
        yield running.client()


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


def test_answers_foretell_the_end_of_an_object(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="old/0", Body=b"x")
    assert "Expiration" not in s3.head_object(Bucket=bucket, Key="old/0")
    _put(s3, bucket, {**RULE, "ID": "a rule"})
    put = s3.put_object(Bucket=bucket, Key="old/1", Body=b"x")
    copied = s3.copy_object(Bucket=bucket, Key="old/2", CopySource=f"{bucket}/old/1")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="old/3")["UploadId"]
    named = {"Bucket": bucket, "Key": "old/3", "UploadId": upload}
    part = s3.upload_part(**named, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    completed = s3.complete_multipart_upload(**named, MultipartUpload=parts)
    answers = [put, copied, completed]
    answers += [s3.head_object(Bucket=bucket, Key=f"old/{number}") for number in range(4)]
    answers.append(s3.get_object(Bucket=bucket, Key="old/1"))
    assert "Expiration" not in s3.head_object(Bucket=bucket, Key="old/1", VersionId="null")
    for answer in answers:
        told = re.fullmatch(
            r'expiry-date="(\w{3}, [^"]* 00:00:00 GMT)", rule-id="a%20rule"', answer["Expiration"]
        )
        assert told is not None
        left_seconds = parsedate_to_datetime(told[1]).timestamp() - time.time()
        assert 24 * 3600 - 60 < left_seconds <= 2 * 24 * 3600
    for key in ("kept", "old"):
        assert "Expiration" not in s3.put_object(Bucket=bucket, Key=key, Body=b"x")
        assert "Expiration" not in s3.get_object(Bucket=bucket, Key=key)


def test_only_the_current_version_has_its_end_foretold(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    _put(s3, bucket, RULE)
    first, second = (
        s3.put_object(Bucket=bucket, Key="old/1", Body=b"x")["VersionId"] for _ in range(2)
    )
    assert "Expiration" not in s3.head_object(Bucket=bucket, Key="old/1", VersionId=first)
    # Of a version that is named S3 does not tell, be it the current one.
    assert "Expiration" not in s3.head_object(Bucket=bucket, Key="old/1", VersionId=second)
    assert s3.head_object(Bucket=bucket, Key="old/1")["VersionId"] == second
    assert "Expiration" in s3.head_object(Bucket=bucket, Key="old/1")
