"""Object lock, as boto3 sees it: what is locked survives, and says why."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.functional.conftest import empty_and_delete, error_of

FAR = datetime(2140, 1, 1, tzinfo=UTC)
FARTHER = datetime(2141, 1, 1, tzinfo=UTC)
DENIED = ("AccessDenied", 403)
_numbers = itertools.count(1)


@pytest.fixture
def locking(s3: Any) -> Iterator[str]:
    """A bucket with object lock; holds and governance are lifted afterwards. What a test locks in
    compliance mode stays, as it must, with its bucket."""
    name = f"locking-{next(_numbers)}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    yield name
    kept = False
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
        for item in page.get("Versions", []):
            where = {"Bucket": name, "Key": item["Key"], "VersionId": item["VersionId"]}
            s3.put_object_legal_hold(**where, LegalHold={"Status": "OFF"})
            kept |= s3.head_object(**where).get("ObjectLockMode") == "COMPLIANCE"
            if not kept:
                s3.delete_object(**where, BypassGovernanceRetention=True)
    if not kept:
        empty_and_delete(s3, name)


def put(s3: Any, bucket: str, **more: Any) -> dict[str, str]:
    """Write a version; how it is named."""
    made = s3.put_object(Bucket=bucket, Key="key", Body=b"x", **more)
    return {"Bucket": bucket, "Key": "key", "VersionId": made["VersionId"]}


def retain(s3: Any, where: dict[str, str], mode: str, until: datetime, **more: Any) -> None:
    s3.put_object_retention(**where, Retention={"Mode": mode, "RetainUntilDate": until}, **more)


def test_a_bucket_made_with_object_lock_has_versioning_for_good(s3: Any, locking: str) -> None:
    assert s3.get_bucket_versioning(Bucket=locking)["Status"] == "Enabled"
    found = s3.get_object_lock_configuration(Bucket=locking)["ObjectLockConfiguration"]
    assert found == {"ObjectLockEnabled": "Enabled"}
    suspended = {"Status": "Suspended"}
    assert error_of(
        s3.put_bucket_versioning, Bucket=locking, VersioningConfiguration=suspended
    ) == ("InvalidBucketState", 409)


def test_a_bucket_without_object_lock_refuses_what_needs_it(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    where = {"Bucket": bucket, "Key": "key"}
    invalid = ("InvalidRequest", 400)
    assert error_of(s3.get_object_lock_configuration, Bucket=bucket) == (
        "ObjectLockConfigurationNotFoundError",
        404,
    )
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": FAR}
    assert error_of(s3.put_object_retention, **where, Retention=retention) == invalid
    assert error_of(s3.get_object_retention, **where) == invalid
    assert error_of(s3.put_object_legal_hold, **where, LegalHold={"Status": "ON"}) == invalid
    assert error_of(s3.put_object, **where, ObjectLockLegalHoldStatus="ON") == invalid
    assert error_of(s3.create_multipart_upload, **where, ObjectLockLegalHoldStatus="ON") == invalid
    enable = {"ObjectLockEnabled": "Enabled"}
    assert error_of(
        s3.put_object_lock_configuration, Bucket=bucket, ObjectLockConfiguration=enable
    ) == ("InvalidBucketState", 409)


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ({"Mode": "GOVERNANCE", "Days": 1, "Years": 1}, "MalformedXML"),
        ({"Mode": "GOVERNANCE"}, "MalformedXML"),
        ({"Mode": "governance", "Days": 1}, "MalformedXML"),
        ({"Mode": "GOVERNANCE", "Days": 0}, "InvalidRetentionPeriod"),
        ({"Mode": "COMPLIANCE", "Years": -1}, "InvalidRetentionPeriod"),
        ({"Mode": "COMPLIANCE", "Years": 101}, "InvalidRetentionPeriod"),
    ],
)
def test_bad_default_retention_is_refused(
    s3: Any, locking: str, rule: dict[str, Any], code: str
) -> None:
    configuration = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": rule}}
    assert error_of(
        s3.put_object_lock_configuration,
        Bucket=locking,
        ObjectLockConfiguration=configuration,
    ) == (code, 400)
    del configuration["ObjectLockEnabled"]
    assert error_of(
        s3.put_object_lock_configuration,
        Bucket=locking,
        ObjectLockConfiguration=configuration,
    ) == ("MalformedXML", 400)


def test_the_default_retention_is_given_to_what_is_written_from_then_on(
    s3: Any, bucket: str
) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    before = put(s3, bucket)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 2}}
    configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=configuration)
    found = s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    assert found == configuration
    assert error_of(s3.get_object_retention, **before) == ("NoSuchObjectLockConfiguration", 404)
    source = {"Bucket": bucket, "Key": "key"}
    made = s3.copy_object(Bucket=bucket, Key="key", CopySource=before)
    for version in (put(s3, bucket)["VersionId"], made["VersionId"]):
        found = s3.head_object(**source, VersionId=version)
        assert found["ObjectLockMode"] == "GOVERNANCE"
        left = found["ObjectLockRetainUntilDate"] - datetime.now(UTC)
        assert timedelta(days=1, hours=23) < left <= timedelta(days=2)
        assert error_of(s3.delete_object, **source, VersionId=version) == DENIED
        s3.delete_object(**source, VersionId=version, BypassGovernanceRetention=True)
    s3.delete_object(**before)


def test_governance_yields_only_to_whoever_bypasses_it(s3: Any, locking: str) -> None:
    where = put(s3, locking, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=FAR)
    assert error_of(s3.delete_object, **where) == DENIED
    retain(s3, where, "GOVERNANCE", FARTHER)
    found = s3.get_object_retention(**where)["Retention"]
    assert found == {"Mode": "GOVERNANCE", "RetainUntilDate": FARTHER}
    for mode, until in (("GOVERNANCE", FAR), ("COMPLIANCE", FARTHER)):
        retention = {"Mode": mode, "RetainUntilDate": until}
        assert error_of(s3.put_object_retention, **where, Retention=retention) == DENIED
    assert error_of(s3.put_object_retention, **where, Retention={}) == DENIED
    retain(s3, where, "GOVERNANCE", FAR, BypassGovernanceRetention=True)
    s3.put_object_retention(**where, Retention={}, BypassGovernanceRetention=True)
    s3.delete_object(**where)


def test_compliance_yields_to_nobody(s3: Any, locking: str) -> None:
    where = put(s3, locking, ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=FAR)
    assert error_of(s3.delete_object, **where, BypassGovernanceRetention=True) == DENIED
    for mode, until in (("GOVERNANCE", FARTHER), ("COMPLIANCE", FAR - timedelta(days=1))):
        retention = {"Mode": mode, "RetainUntilDate": until}
        assert (
            error_of(
                s3.put_object_retention,
                **where,
                Retention=retention,
                BypassGovernanceRetention=True,
            )
            == DENIED
        )
    retain(s3, where, "COMPLIANCE", FARTHER)
    # Whatever is done to the key, the version stays.
    put(s3, locking)
    s3.delete_object(Bucket=locking, Key="key")
    answer = s3.delete_objects(
        Bucket=locking,
        Delete={"Objects": [{"Key": "key", "VersionId": where["VersionId"]}]},
        BypassGovernanceRetention=True,
    )
    assert [error["Code"] for error in answer["Errors"]] == ["AccessDenied"]
    assert error_of(s3.delete_bucket, Bucket=locking) == ("BucketNotEmpty", 409)
    assert s3.get_object(**where)["Body"].read() == b"x"


def test_retention_that_is_over_holds_nothing(s3: Any, locking: str) -> None:
    until = datetime.now(UTC) + timedelta(seconds=3)
    where = put(s3, locking, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until)
    assert error_of(s3.delete_object, **where) == DENIED
    while datetime.now(UTC) <= until:
        s3.head_object(**where)
    s3.delete_object(**where)


NO_LOCK = ("NoSuchObjectLockConfiguration", 404)


def test_a_version_on_which_no_hold_was_ever_set_has_none(s3: Any, locking: str) -> None:
    where = put(s3, locking)
    assert "ObjectLockLegalHoldStatus" not in s3.head_object(**where)
    assert error_of(s3.get_object_legal_hold, **where) == NO_LOCK
    s3.put_object_tagging(**where, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    retain(s3, where, "GOVERNANCE", FAR)
    assert error_of(s3.get_object_legal_hold, **where) == NO_LOCK
    for status in ("OFF", "ON", "OFF"):
        s3.put_object_legal_hold(**where, LegalHold={"Status": status})
        assert s3.get_object_legal_hold(**where)["LegalHold"] == {"Status": status}
        assert s3.head_object(**where)["ObjectLockLegalHoldStatus"] == status
        assert s3.get_object(**where)["ObjectLockLegalHoldStatus"] == status
    copy = s3.copy_object(Bucket=locking, Key="copy", CopySource=f"{locking}/key")
    copied = {"Bucket": locking, "Key": "copy", "VersionId": copy["VersionId"]}
    assert error_of(s3.get_object_legal_hold, **copied) == NO_LOCK


@pytest.mark.parametrize("status", [None, "OFF", "ON"])
def test_every_kind_of_write_tells_the_hold_that_it_asked_for(
    s3: Any, locking: str, status: str | None
) -> None:
    asked = {} if status is None else {"ObjectLockLegalHoldStatus": status}
    put(s3, locking, **asked)
    s3.copy_object(Bucket=locking, Key="copy", CopySource=f"{locking}/key", **asked)
    upload = s3.create_multipart_upload(Bucket=locking, Key="parts", **asked)["UploadId"]
    where = {"Bucket": locking, "Key": "parts", "UploadId": upload}
    tag = s3.upload_part(**where, PartNumber=1, Body=b"x")["ETag"]
    s3.complete_multipart_upload(
        **where, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]}
    )
    for key in ("key", "copy", "parts"):
        assert s3.head_object(Bucket=locking, Key=key).get("ObjectLockLegalHoldStatus") == status
        if status is None:
            assert error_of(s3.get_object_legal_hold, Bucket=locking, Key=key) == NO_LOCK
        else:
            told = s3.get_object_legal_hold(Bucket=locking, Key=key)["LegalHold"]
            assert told == {"Status": status}


def test_a_legal_hold_stays_until_it_is_lifted(s3: Any, locking: str) -> None:
    where = put(s3, locking, ObjectLockLegalHoldStatus="ON")
    assert s3.head_object(**where)["ObjectLockLegalHoldStatus"] == "ON"
    assert error_of(s3.delete_object, **where, BypassGovernanceRetention=True) == DENIED
    s3.put_object_legal_hold(**where, LegalHold={"Status": "OFF"})
    assert s3.get_object_legal_hold(**where)["LegalHold"] == {"Status": "OFF"}
    s3.put_object_legal_hold(**where, LegalHold={"Status": "ON"})
    assert s3.get_object_legal_hold(**where)["LegalHold"] == {"Status": "ON"}
    marker = s3.delete_object(Bucket=locking, Key="key")  # hides it, and takes nothing away
    s3.delete_object(Bucket=locking, Key="key", VersionId=marker["VersionId"])
    assert s3.get_object(Bucket=locking, Key="key")["Body"].read() == b"x"
    assert error_of(s3.put_object_legal_hold, **where, LegalHold={"Status": "on"}) == (
        "MalformedXML",
        400,
    )


def test_an_upload_gives_its_lock_to_the_version(s3: Any, locking: str) -> None:
    where = {"Bucket": locking, "Key": "key"}
    upload = s3.create_multipart_upload(
        **where,
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate=FAR,
        ObjectLockLegalHoldStatus="ON",
    )["UploadId"]
    part = s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    done = s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload=parts)
    found = s3.head_object(**where, VersionId=done["VersionId"])
    assert (found["ObjectLockMode"], found["ObjectLockLegalHoldStatus"]) == ("GOVERNANCE", "ON")
    assert found["ObjectLockRetainUntilDate"] == FAR


def test_lock_headers_that_make_no_sense_are_refused(s3: Any, locking: str) -> None:
    where = {"Bucket": locking, "Key": "key", "Body": b"x"}
    past = datetime(2020, 1, 1, tzinfo=UTC)
    for wrong in (
        {"ObjectLockMode": "GOVERNANCE"},
        {"ObjectLockRetainUntilDate": FAR},
        {"ObjectLockMode": "NEVER", "ObjectLockRetainUntilDate": FAR},
        {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": past},
        {"ObjectLockLegalHoldStatus": "MAYBE"},
    ):
        assert error_of(s3.put_object, **where, **wrong) == ("InvalidArgument", 400), wrong
    version = put(s3, locking)
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": past}
    assert error_of(s3.put_object_retention, **version, Retention=retention) == (
        "InvalidArgument",
        400,
    )
