"""Buckets with versioning, as boto3 sees them: versions, markers, null versions, listings."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.functional.conftest import empty_and_delete, error_of

PART = b"p" * (5 << 20)
_numbers = itertools.count(1)


@pytest.fixture
def versioned(s3: Any) -> Iterator[str]:
    name = f"versioned-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    set_state(s3, name, "Enabled")
    yield name
    empty_and_delete(s3, name)


def set_state(s3: Any, bucket: str, state: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": state})


def put(s3: Any, bucket: str, body: bytes, key: str = "key", **more: Any) -> str:
    version: str = s3.put_object(Bucket=bucket, Key=key, Body=body, **more).get("VersionId", "")
    return version


def body_of(s3: Any, bucket: str, key: str = "key", **which: str) -> bytes:
    body: bytes = s3.get_object(Bucket=bucket, Key=key, **which)["Body"].read()
    return body


def listed(s3: Any, bucket: str, **asked: Any) -> list[tuple[str, str, bool, bool]]:
    """(key, version, is it the latest, is it a marker) in the order of the answer's two lists."""
    page = s3.list_object_versions(Bucket=bucket, **asked)
    return [
        (item["Key"], item["VersionId"], item["IsLatest"], marker)
        for marker, name in ((False, "Versions"), (True, "DeleteMarkers"))
        for item in page.get(name, [])
    ]


def refusal(call: Any, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    return dict(raised.value.response)


# The bucket's state


def test_the_state_is_told_and_is_never_unset_again(s3: Any, bucket: str) -> None:
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    for state in ("Suspended", "Enabled", "Suspended"):
        set_state(s3, bucket, state)
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == state


def test_settings_that_are_not_offered_or_not_known_are_refused(s3: Any, bucket: str) -> None:
    def call(**settings: str) -> tuple[str, int]:
        return error_of(s3.put_bucket_versioning, Bucket=bucket, VersioningConfiguration=settings)

    assert call(Status="Enabled", MFADelete="Enabled") == ("NotImplemented", 501)
    assert call(Status="On") == ("MalformedXML", 400)
    for settings in ({}, {"MFADelete": "Enabled"}):
        assert call(**settings) == ("IllegalVersioningConfigurationException", 400)
    s3.put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Enabled", "MFADelete": "Disabled"}
    )


# Versions


def test_every_put_makes_a_version_that_stays_readable(s3: Any, versioned: str) -> None:
    versions = [put(s3, versioned, b"body %d" % number) for number in range(4)]
    assert len(set(versions)) == 4
    assert all(len(version) == 32 for version in versions)
    assert body_of(s3, versioned) == b"body 3"
    for number, version in enumerate(versions):
        where = {"Bucket": versioned, "Key": "key", "VersionId": version}
        found = s3.get_object(**where)
        assert (found["Body"].read(), found["VersionId"]) == (b"body %d" % number, version)
        assert s3.head_object(**where)["VersionId"] == version
    assert listed(s3, versioned) == [
        ("key", version, version == versions[-1], False) for version in reversed(versions)
    ]
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=versioned)["Contents"]] == ["key"]


def test_deleting_versions_from_the_top_brings_back_the_ones_before(
    s3: Any, versioned: str
) -> None:
    versions = [put(s3, versioned, b"%d" % number) for number in range(3)]
    marker = s3.delete_object(Bucket=versioned, Key="key")
    assert marker["DeleteMarker"] is True
    answer = s3.delete_object(Bucket=versioned, Key="key", VersionId=marker["VersionId"])
    assert answer["DeleteMarker"] is True
    assert answer["VersionId"] == marker["VersionId"]
    for number in (2, 1, 0):
        assert body_of(s3, versioned) == b"%d" % number
        answer = s3.delete_object(Bucket=versioned, Key="key", VersionId=versions[number])
        assert answer["VersionId"] == versions[number]
        assert "DeleteMarker" not in answer
    assert error_of(s3.get_object, Bucket=versioned, Key="key") == ("NoSuchKey", 404)
    assert listed(s3, versioned) == []
    # Again: nothing is there, which is success.
    answer = s3.delete_object(Bucket=versioned, Key="key", VersionId=versions[0])
    assert answer["VersionId"] == versions[0]


def test_a_version_under_others_can_be_deleted(s3: Any, versioned: str) -> None:
    first, second, third = (put(s3, versioned, text) for text in (b"1", b"2", b"3"))
    s3.delete_object(Bucket=versioned, Key="key", VersionId=second)
    assert [version for _, version, _, _ in listed(s3, versioned)] == [third, first]
    gone = {"Bucket": versioned, "Key": "key", "VersionId": second}
    for call in (s3.get_object, s3.get_object_tagging, s3.get_object_acl):
        assert error_of(call, **gone) == ("NoSuchVersion", 404)
    assert error_of(s3.head_object, **gone) == ("404", 404)
    assert body_of(s3, versioned, VersionId=first) == b"1"


def test_a_version_id_that_is_none_is_an_invalid_argument(s3: Any, versioned: str) -> None:
    put(s3, versioned, b"x")
    for call in (s3.get_object, s3.delete_object, s3.get_object_tagging):
        refused = error_of(call, Bucket=versioned, Key="key", VersionId="nonsense")
        assert refused == ("InvalidArgument", 400)


# Delete markers


def test_a_delete_marker_hides_the_object_and_says_so(s3: Any, versioned: str) -> None:
    version = put(s3, versioned, b"x")
    marker = s3.delete_object(Bucket=versioned, Key="key")["VersionId"]
    for call, code in ((s3.get_object, "NoSuchKey"), (s3.head_object, "404")):
        answer = refusal(call, Bucket=versioned, Key="key")
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        assert (answer["Error"]["Code"], headers["x-amz-delete-marker"]) == (code, "true")
        assert headers["x-amz-version-id"] == marker
        answer = refusal(call, Bucket=versioned, Key="key", VersionId=marker)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 405
        assert (headers["x-amz-delete-marker"], headers["allow"]) == ("true", "DELETE")
        assert "last-modified" in headers
    assert "Contents" not in s3.list_objects_v2(Bucket=versioned)
    assert listed(s3, versioned) == [("key", version, False, False), ("key", marker, True, True)]
    assert body_of(s3, versioned, VersionId=version) == b"x"


def test_deleting_what_is_not_there_leaves_a_marker(s3: Any, versioned: str) -> None:
    first = s3.delete_object(Bucket=versioned, Key="never")
    second = s3.delete_object(Bucket=versioned, Key="never")
    assert listed(s3, versioned) == [
        ("never", second["VersionId"], True, True),
        ("never", first["VersionId"], False, True),
    ]
    put(s3, versioned, b"now", "never")
    assert body_of(s3, versioned, "never") == b"now"


def test_a_bucket_with_nothing_but_a_marker_is_not_empty(s3: Any, bucket: str) -> None:
    set_state(s3, bucket, "Enabled")
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    assert error_of(s3.delete_bucket, Bucket=bucket) == ("BucketNotEmpty", 409)
    s3.delete_object(Bucket=bucket, Key="k", VersionId=marker)
    s3.delete_bucket(Bucket=bucket)


# Null versions, suspended buckets


def test_what_was_there_before_versioning_becomes_the_null_version(s3: Any, bucket: str) -> None:
    assert put(s3, bucket, b"old") == ""
    set_state(s3, bucket, "Enabled")
    assert s3.head_object(Bucket=bucket, Key="key")["VersionId"] == "null"
    version = put(s3, bucket, b"new")
    assert body_of(s3, bucket, VersionId="null") == b"old"
    assert listed(s3, bucket) == [("key", version, True, False), ("key", "null", False, False)]
    s3.delete_object(Bucket=bucket, Key="key", VersionId="null")
    assert listed(s3, bucket) == [("key", version, True, False)]
    assert error_of(s3.get_object, Bucket=bucket, Key="key", VersionId="null") == (
        "NoSuchVersion",
        404,
    )


def test_a_suspended_bucket_keeps_one_null_version_beside_the_others(
    s3: Any, versioned: str
) -> None:
    kept = put(s3, versioned, b"kept")
    set_state(s3, versioned, "Suspended")
    for body in (b"null 1", b"null 2"):
        assert put(s3, versioned, body) == ""  # S3 tells no version id then
        assert body_of(s3, versioned) == body
    assert listed(s3, versioned) == [("key", "null", True, False), ("key", kept, False, False)]
    copied = s3.copy_object(Bucket=versioned, Key="copy", CopySource=f"{versioned}/key")
    assert copied["VersionId"] == "null"  # as it does of a copy, but not of its source
    assert "CopySourceVersionId" not in copied
    s3.delete_object(Bucket=versioned, Key="copy", VersionId="null")
    set_state(s3, versioned, "Enabled")
    newer = put(s3, versioned, b"newer")
    assert body_of(s3, versioned, VersionId="null") == b"null 2"
    set_state(s3, versioned, "Suspended")
    put(s3, versioned, b"null 3")
    assert [version for _, version, _, _ in listed(s3, versioned)] == ["null", newer, kept]
    assert body_of(s3, versioned, VersionId="null") == b"null 3"


def test_a_delete_in_a_suspended_bucket_replaces_the_null_version_by_a_marker(
    s3: Any, versioned: str
) -> None:
    kept = put(s3, versioned, b"kept")
    set_state(s3, versioned, "Suspended")
    put(s3, versioned, b"null")
    answer = s3.delete_object(Bucket=versioned, Key="key")
    assert (answer["DeleteMarker"], answer["VersionId"]) == (True, "null")
    s3.delete_object(Bucket=versioned, Key="key")
    assert listed(s3, versioned) == [("key", kept, False, False), ("key", "null", True, True)]
    assert error_of(s3.get_object, Bucket=versioned, Key="key") == ("NoSuchKey", 404)
    s3.delete_object(Bucket=versioned, Key="key", VersionId="null")
    assert body_of(s3, versioned) == b"kept"


# Copies, uploads, forms


def test_versions_are_copied_and_restored(s3: Any, versioned: str, bucket: str) -> None:
    first = put(s3, versioned, b"first", Metadata={"m": "1"})
    put(s3, versioned, b"second")
    source = {"Bucket": versioned, "Key": "key", "VersionId": first}
    made = s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    assert made["CopySourceVersionId"] == first
    assert "VersionId" not in made
    assert body_of(s3, bucket, "copy") == b"first"
    # Onto its own key: the old version is the newest again.
    made = s3.copy_object(Bucket=versioned, Key="key", CopySource=source)
    assert made["VersionId"] not in (first, "null")
    assert s3.get_object(Bucket=versioned, Key="key")["Metadata"] == {"m": "1"}
    assert len(listed(s3, versioned)) == 3
    for version in (first, made["VersionId"]):
        s3.delete_object(Bucket=versioned, Key="key", VersionId=version)
    assert body_of(s3, versioned) == b"second"
    assert body_of(s3, bucket, "copy") == b"first"


def test_a_marker_or_a_missing_version_is_no_source(s3: Any, versioned: str) -> None:
    version = put(s3, versioned, b"x")
    marker = s3.delete_object(Bucket=versioned, Key="key")["VersionId"]

    def copy(**which: str) -> tuple[str, int]:
        source = {"Bucket": versioned, "Key": "key", **which}
        return error_of(s3.copy_object, Bucket=versioned, Key="copy", CopySource=source)

    assert copy() == ("NoSuchKey", 404)
    assert copy(VersionId=marker) == ("InvalidRequest", 400)
    s3.delete_object(Bucket=versioned, Key="key", VersionId=version)
    assert copy(VersionId=version) == ("NoSuchVersion", 404)


def test_a_completed_upload_is_a_version_and_answers_the_same_again(
    s3: Any, versioned: str
) -> None:
    first = put(s3, versioned, b"before")
    where = {"Bucket": versioned, "Key": "key"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    source = {"Bucket": versioned, "Key": "key", "VersionId": first}
    part = s3.upload_part_copy(**where, UploadId=upload, PartNumber=1, CopySource=source)
    assert part["CopySourceVersionId"] == first
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]}
    done = s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload=parts)
    again = s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload=parts)
    assert done["VersionId"] == again["VersionId"] != first
    assert [version for _, version, _, _ in listed(s3, versioned)] == [done["VersionId"], first]
    put(s3, versioned, b"after")
    assert body_of(s3, versioned, VersionId=done["VersionId"]) == b"before"


# Tags, attributes, conditions


def test_tags_and_attributes_are_of_the_version_named(s3: Any, versioned: str) -> None:
    first = put(s3, versioned, b"one")
    second = put(s3, versioned, b"three")
    where = {"Bucket": versioned, "Key": "key"}
    tags = {"TagSet": [{"Key": "a", "Value": "b"}]}
    answer = s3.put_object_tagging(**where, VersionId=first, Tagging=tags)
    assert answer["VersionId"] == first
    assert s3.get_object_tagging(**where, VersionId=first)["TagSet"] == tags["TagSet"]
    current = s3.get_object_tagging(**where)
    assert (current["TagSet"], current["VersionId"]) == ([], second)
    assert s3.head_object(**where, VersionId=first)["ContentLength"] == 3
    for version, size in ((first, 3), (second, 5)):
        found = s3.get_object_attributes(
            **where, VersionId=version, ObjectAttributes=["ObjectSize"]
        )
        assert (found["ObjectSize"], found["VersionId"]) == (size, version)
    s3.delete_object_tagging(**where, VersionId=first)
    assert s3.get_object_tagging(**where, VersionId=first)["TagSet"] == []
    assert len(listed(s3, versioned)) == 2
    marker = s3.delete_object(**where)["VersionId"]
    assert error_of(s3.get_object_tagging, **where) == ("MethodNotAllowed", 405)
    assert error_of(s3.put_object_tagging, **where, VersionId=marker, Tagging=tags) == (
        "MethodNotAllowed",
        405,
    )


def test_a_current_delete_marker_may_not_be_changed(s3: Any, versioned: str) -> None:
    where = {"Bucket": versioned, "Key": "key"}
    put(s3, versioned, b"x")
    marker = s3.delete_object(**where)["VersionId"]
    tags = {"TagSet": [{"Key": "a", "Value": "b"}]}
    for method, answer in (
        ("PUT", refusal(s3.put_object_acl, **where, ACL="public-read")),
        ("PUT", refusal(s3.put_object_tagging, **where, Tagging=tags)),
        ("DELETE", refusal(s3.delete_object_tagging, **where)),
        ("GET", refusal(s3.get_object_tagging, **where)),  # alone of all reads, as at AWS
    ):
        assert answer["Error"]["Code"] == "MethodNotAllowed"
        assert (answer["Error"]["Method"], answer["Error"]["ResourceType"]) == (
            method,
            "DeleteMarker",
        )
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        assert (headers["x-amz-version-id"], headers["allow"]) == (marker, "DELETE")
    assert error_of(s3.get_object_acl, **where) == ("NoSuchKey", 404)


def test_lists_tell_which_version_they_are_of(s3: Any, versioned: str) -> None:
    def told(answer: dict[str, Any]) -> str | None:
        header: str | None = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-version-id")
        return header

    first, second = put(s3, versioned, b"one"), put(s3, versioned, b"two")
    where = {"Bucket": versioned, "Key": "key"}
    for named, version in (({}, second), ({"VersionId": first}, first)):
        assert told(s3.put_object_acl(**where, **named, ACL="public-read")) == version
        assert told(s3.get_object_acl(**where, **named)) == version


@pytest.mark.parametrize("marker", ["a/", "a/1", "a/2"])
def test_a_key_marker_in_a_common_prefix_stands_behind_it(
    s3: Any, versioned: str, marker: str
) -> None:
    ids = {key: put(s3, versioned, b"x", key) for key in ("a/1", "a/2", "b")}
    for extra in ({}, {"VersionIdMarker": ids[marker]} if marker in ids else {}):
        page = s3.list_object_versions(Bucket=versioned, Delimiter="/", KeyMarker=marker, **extra)
        assert "CommonPrefixes" not in page
        assert [each["Key"] for each in page["Versions"]] == ["b"]


def test_conditional_writes_see_the_current_version_only(s3: Any, versioned: str) -> None:
    where = {"Bucket": versioned, "Key": "key", "Body": b"x"}
    etag = s3.put_object(**where, IfNoneMatch="*")["ETag"]
    assert error_of(s3.put_object, **where, IfNoneMatch="*") == ("PreconditionFailed", 412)
    s3.put_object(**where, IfMatch=etag)
    s3.delete_object(Bucket=versioned, Key="key")
    assert error_of(s3.put_object, **where, IfMatch=etag) == ("NoSuchKey", 404)
    s3.put_object(**where, IfNoneMatch="*")
    assert len(listed(s3, versioned)) == 4


def test_a_conditional_delete_judges_what_it_deletes(s3: Any, versioned: str) -> None:
    where = {"Bucket": versioned, "Key": "key"}
    first = s3.put_object(**where, Body=b"1")
    second = s3.put_object(**where, Body=b"2")
    failed = ("PreconditionFailed", 412)
    assert error_of(s3.delete_object, **where, IfMatch=first["ETag"]) == failed
    named = {**where, "VersionId": first["VersionId"]}
    assert error_of(s3.delete_object, **named, IfMatch=second["ETag"]) == failed
    s3.delete_object(**named, IfMatch=first["ETag"])
    s3.delete_object(**where, IfMatch=second["ETag"])
    assert [marker for _, _, _, marker in listed(s3, versioned)] == [False, True]
    # A marker has no entity tag; where nothing is, nothing is to be done.
    assert error_of(s3.delete_object, **where, IfMatch=second["ETag"]) == failed
    s3.delete_object(Bucket=versioned, Key="never", IfMatch=second["ETag"])
    assert listed(s3, versioned, Prefix="never") == []


def test_many_deletes_take_versions_markers_and_keys(s3: Any, versioned: str) -> None:
    first, second = put(s3, versioned, b"1"), put(s3, versioned, b"2")
    marker = s3.delete_object(Bucket=versioned, Key="other")["VersionId"]
    asked = [
        {"Key": "key", "VersionId": first},
        {"Key": "key"},
        {"Key": "other", "VersionId": marker},
        {"Key": "key", "VersionId": first},
    ]
    answer = s3.delete_objects(Bucket=versioned, Delete={"Objects": asked})
    assert "Errors" not in answer
    gone, made, ended, again = answer["Deleted"]
    assert gone == again == {"Key": "key", "VersionId": first}
    assert made["DeleteMarker"] is True
    assert ended == {
        "Key": "other",
        "VersionId": marker,
        "DeleteMarker": True,
        "DeleteMarkerVersionId": marker,
    }
    assert listed(s3, versioned) == [
        ("key", second, False, False),
        ("key", made["DeleteMarkerVersionId"], True, True),
    ]
    bad = s3.delete_objects(
        Bucket=versioned, Delete={"Objects": [{"Key": "key", "VersionId": "nonsense"}]}
    )
    assert bad["Errors"][0]["Code"] == "NoSuchVersion"


# Listings


def test_versions_are_listed_page_by_page_without_gap_or_repetition(
    s3: Any, versioned: str
) -> None:
    for round_number in range(3):
        for key in ("a", "b/1", "b/2", "c"):
            put(s3, versioned, b"%d" % round_number, key)
    s3.delete_object(Bucket=versioned, Key="c")
    whole = [entry[:2] for entry in listed(s3, versioned)]
    assert len(whole) == 13
    for size in (1, 2, 5, 13):
        paged = []
        marker: dict[str, str] = {}
        while True:
            page = s3.list_object_versions(Bucket=versioned, MaxKeys=size, **marker)
            found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            assert len(found) <= size
            paged += [(item["Key"], item["VersionId"]) for item in found]
            if not page["IsTruncated"]:
                break
            marker = {
                "KeyMarker": page["NextKeyMarker"],
                "VersionIdMarker": page["NextVersionIdMarker"],
            }
        assert sorted(paged) == sorted(whole)
        assert len(paged) == len(set(paged))


def test_listings_of_versions_roll_up_and_start_where_asked(s3: Any, versioned: str) -> None:
    for key in ("a", "b/1", "b/1", "b/2", "c", "c d"):
        put(s3, versioned, b"x", key)
    page = s3.list_object_versions(Bucket=versioned, Delimiter="/")
    assert [item["Key"] for item in page["Versions"]] == ["a", "c", "c d"]
    assert [each["Prefix"] for each in page["CommonPrefixes"]] == ["b/"]
    page = s3.list_object_versions(Bucket=versioned, Delimiter="/", MaxKeys=2)
    assert (page["IsTruncated"], page["NextKeyMarker"]) == (True, "b/")
    page = s3.list_object_versions(Bucket=versioned, Delimiter="/", KeyMarker="b/")
    assert [item["Key"] for item in page["Versions"]] == ["c", "c d"]
    page = s3.list_object_versions(Bucket=versioned, Prefix="b/")
    assert [item["Key"] for item in page["Versions"]] == ["b/1", "b/1", "b/2"]
    page = s3.list_object_versions(Bucket=versioned, KeyMarker="b/1")
    assert [item["Key"] for item in page["Versions"]] == ["b/2", "c", "c d"]
    newest = s3.head_object(Bucket=versioned, Key="b/1")["VersionId"]
    page = s3.list_object_versions(
        Bucket=versioned, KeyMarker="b/1", VersionIdMarker=newest, MaxKeys=1
    )
    assert [item["Key"] for item in page["Versions"]] == ["b/1"]
    assert s3.list_object_versions(Bucket=versioned, MaxKeys=0)["IsTruncated"] is False
    refused = error_of(
        s3.list_object_versions, Bucket=versioned, KeyMarker="a", VersionIdMarker="nonsense"
    )
    assert refused == ("InvalidArgument", 400)


def test_a_null_version_deleted_between_two_pages_loses_no_other(s3: Any, bucket: str) -> None:
    set_state(s3, bucket, "Enabled")
    older = put(s3, bucket, b"1")
    set_state(s3, bucket, "Suspended")
    put(s3, bucket, b"2")
    page = s3.list_object_versions(Bucket=bucket, MaxKeys=1)
    assert page["NextVersionIdMarker"] == "null"
    s3.delete_object(Bucket=bucket, Key="key", VersionId="null")
    rest = listed(s3, bucket, KeyMarker="key", VersionIdMarker="null")
    assert rest == [("key", older, True, False)]


def test_another_account_deletes_and_copies_nothing(
    s3: Any, other_s3: Any, versioned: str, bucket: str
) -> None:
    version = put(s3, versioned, b"x")
    put(s3, bucket, b"x")
    for name, named in ((versioned, {"VersionId": version}), (versioned, {}), (bucket, {})):
        asked = {"Objects": [{"Key": "key", **named}]}
        answer = refusal_or_answer(other_s3.delete_objects, Bucket=name, Delete=asked)
        assert answer.get("Deleted", []) == []
        errors = answer["Errors"] if "Errors" in answer else [answer["Error"]]
        assert [error["Code"] for error in errors] == ["AccessDenied"]
        assert body_of(s3, name) == b"x"
    other_s3.create_bucket(Bucket="versions-of-others")
    for named in ({"VersionId": version}, {}):
        source = {"Bucket": versioned, "Key": "key", **named}
        assert error_of(
            other_s3.copy_object, Bucket="versions-of-others", Key="k", CopySource=source
        ) == ("AccessDenied", 403)
    empty_and_delete(other_s3, "versions-of-others")


def refusal_or_answer(call: Any, **arguments: Any) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = call(**arguments)
    except ClientError as error:
        answer = dict(error.response)
    return answer
