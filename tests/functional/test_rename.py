"""RenameObject over HTTP: what stays, what is refused, and on which conditions."""

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.functional.conftest import error_of


def _put(s3: Any, bucket: str, key: str, body: bytes = b"x") -> str:
    etag: str = s3.put_object(Bucket=bucket, Key=key, Body=body)["ETag"]
    return etag


def _keys(s3: Any, bucket: str) -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_all_that_is_known_of_an_object_stays(s3: Any, bucket: str) -> None:
    s3.put_object(
        Bucket=bucket,
        Key="old",
        Body=b"bytes" * 10_000,
        ContentType="text/plain",
        Metadata={"colour": "red"},
        Tagging="a=b",
        ChecksumAlgorithm="SHA256",
    )
    asked = {"Bucket": bucket, "ChecksumMode": "ENABLED"}
    before = s3.head_object(Key="old", **asked)
    s3.rename_object(Bucket=bucket, Key="new/é", RenameSource="old")
    after = s3.head_object(Key="new/é", **asked)
    for said in (before, after):
        del said["ResponseMetadata"]
    assert after == before
    assert s3.get_object(Bucket=bucket, Key="new/é")["Body"].read() == b"bytes" * 10_000
    assert s3.get_object_tagging(Bucket=bucket, Key="new/é")["TagSet"][0]["Key"] == "a"
    assert error_of(s3.head_object, Bucket=bucket, Key="old") == ("404", 404)
    s3.rename_object(Bucket=bucket, Key="back", RenameSource="/new/%C3%A9")
    assert _keys(s3, bucket) == ["back"]


def test_a_multipart_object_is_renamed_over_another(s3: Any, bucket: str) -> None:
    named = {"Bucket": bucket, "Key": "parts"}
    upload = s3.create_multipart_upload(**named)["UploadId"]
    part = s3.upload_part(**named, UploadId=upload, PartNumber=1, Body=b"part")
    s3.complete_multipart_upload(
        **named,
        UploadId=upload,
        MultipartUpload={"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]},
    )
    _put(s3, bucket, "other")
    s3.rename_object(Bucket=bucket, Key="other", RenameSource="parts")
    assert _keys(s3, bucket) == ["other"]
    assert s3.get_object(Bucket=bucket, Key="other")["Body"].read() == b"part"


def test_conditions_on_both_ends_decide(s3: Any, bucket: str) -> None:
    etag, other = _put(s3, bucket, "a", b"1"), _put(s3, bucket, "b", b"2")
    at = s3.head_object(Bucket=bucket, Key="a")["LastModified"]
    before, after = at - timedelta(hours=1), at + timedelta(hours=1)
    failed = ("PreconditionFailed", 412)
    for condition in (
        {"DestinationIfNoneMatch": "*"},
        {"DestinationIfMatch": etag},
        {"DestinationIfModifiedSince": after},
        {"DestinationIfUnmodifiedSince": before},
        {"SourceIfMatch": other},
        {"SourceIfNoneMatch": etag},
        {"SourceIfNoneMatch": "*"},
        {"SourceIfModifiedSince": after},
        {"SourceIfUnmodifiedSince": before},
    ):
        asked = {"Bucket": bucket, "Key": "b", "RenameSource": "a", **condition}
        assert error_of(s3.rename_object, **asked) == failed, condition
    asked = {"Bucket": bucket, "Key": "c", "RenameSource": "a"}
    assert error_of(s3.rename_object, **asked, DestinationIfMatch=etag) == ("NoSuchKey", 404)
    assert error_of(s3.rename_object, **asked, DestinationIfModifiedSince=before) == failed
    assert _keys(s3, bucket) == ["a", "b"]
    s3.rename_object(
        Bucket=bucket,
        Key="b",
        RenameSource="a",
        DestinationIfMatch=other,
        DestinationIfUnmodifiedSince=after,
        SourceIfMatch=etag,
        SourceIfModifiedSince=before,
    )
    s3.rename_object(Bucket=bucket, Key="c", RenameSource="b", DestinationIfNoneMatch="*")
    assert _keys(s3, bucket) == ["c"]


@pytest.mark.parametrize(
    ("source", "key", "more", "answer"),
    [
        ("nothing", "k", {}, ("NoSuchKey", 404)),
        ("a", "a", {}, ("InvalidRequest", 400)),
        ("a", "folder/", {}, ("InvalidRequest", 400)),
        ("a/", "k", {}, ("InvalidRequest", 400)),
        ("/", "k", {}, ("InvalidArgument", 400)),
        ("%FF", "k", {}, ("InvalidArgument", 400)),
        ("a", "k", {"ClientToken": "x" * 65}, ("InvalidArgument", 400)),
    ],
)
def test_what_cannot_be_renamed_is_refused(
    s3: Any, bucket: str, source: str, key: str, more: dict[str, str], answer: tuple[str, int]
) -> None:
    _put(s3, bucket, "a")
    asked = {"Bucket": bucket, "Key": key, "RenameSource": source, **more}
    assert error_of(s3.rename_object, **asked) == answer
    assert _keys(s3, bucket) == ["a"]


def test_a_retry_with_the_same_token_does_nothing_more(s3: Any, bucket: str) -> None:
    asked = {"Bucket": bucket, "Key": "b", "RenameSource": "a", "ClientToken": "once"}
    _put(s3, bucket, "a", b"1")
    for _ in range(2):
        s3.rename_object(**asked)
    assert error_of(s3.rename_object, **{**asked, "ClientToken": "two"}) == ("NoSuchKey", 404)
    assert _keys(s3, bucket) == ["b"]


def test_with_versioning_the_old_key_keeps_its_versions_under_a_marker(
    s3: Any, bucket: str
) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    _put(s3, bucket, "a", b"1")
    _put(s3, bucket, "b", b"2")
    answer = s3.rename_object(Bucket=bucket, Key="b", RenameSource="a")
    version = answer["ResponseMetadata"]["HTTPHeaders"]["x-amz-version-id"]
    found = s3.list_object_versions(Bucket=bucket)
    assert [(v["Key"], v["IsLatest"]) for v in found["Versions"]] == [
        ("a", False),
        ("b", True),
        ("b", False),
    ]
    assert [marker["Key"] for marker in found["DeleteMarkers"]] == ["a"]
    assert s3.get_object(Bucket=bucket, Key="b", VersionId=version)["Body"].read() == b"1"


def test_both_keys_have_to_be_permitted(s3: Any, other_s3: Any, bucket: str) -> None:
    _put(s3, bucket, "a")
    asked = {"Bucket": bucket, "Key": "b", "RenameSource": "a"}
    assert error_of(other_s3.rename_object, **asked) == ("AccessDenied", 403)
    arn = f"arn:aws:s3:::{bucket}"
    needed = [
        ("s3:PutObject", f"{arn}/b"),
        ("s3:GetObject", f"{arn}/a"),
        ("s3:DeleteObject", f"{arn}/a"),
    ]

    def permit(*what: tuple[str, str]) -> None:
        statements = [
            {"Effect": "Allow", "Principal": "*", "Action": action, "Resource": resource}
            for action, resource in (*what, ("s3:ListBucket", arn))
        ]
        policy = {"Version": "2012-10-17", "Statement": statements}
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))

    for lacking in needed:
        permit(*(each for each in needed if each != lacking))
        assert error_of(other_s3.rename_object, **asked) == ("AccessDenied", 403)
    permit(*needed)
    other_s3.rename_object(**asked)
    assert _keys(s3, bucket) == ["b"]


def test_a_put_that_names_a_source_without_the_subresource_overwrites_nothing(
    s3: Any, bucket: str
) -> None:
    _put(s3, bucket, "a")

    def name_a_source(request: Any, **_: Any) -> None:
        request.headers["x-amz-rename-source"] = "a"

    s3.meta.events.register("before-sign.s3.PutObject", name_a_source)
    try:
        refused = error_of(s3.put_object, Bucket=bucket, Key="b", Body=b"")
    finally:
        s3.meta.events.unregister("before-sign.s3.PutObject", name_a_source)
    assert refused == ("NotImplemented", 501)
    assert _keys(s3, bucket) == ["a"]
