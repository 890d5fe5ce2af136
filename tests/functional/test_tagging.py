"""Tags of objects and buckets through boto3."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.functional.conftest import error_of

Tags = list[dict[str, str]]


def tag_set(**tags: str) -> Tags:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def tags_of(s3: Any, bucket: str, key: str = "key") -> Tags:
    found: Tags = s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    return found


def test_tags_are_set_replaced_and_deleted(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"body", Metadata={"m": "1"})
    before = s3.head_object(Bucket=bucket, Key="key")
    assert tags_of(s3, bucket) == []
    assert "TagCount" not in s3.get_object(Bucket=bucket, Key="key")
    for tags in (tag_set(b="2", a="1"), tag_set(c="é + x")):
        s3.put_object_tagging(Bucket=bucket, Key="key", Tagging={"TagSet": tags})
        assert tags_of(s3, bucket) == tags
        assert s3.get_object(Bucket=bucket, Key="key")["TagCount"] == len(tags)
    after = s3.head_object(Bucket=bucket, Key="key")
    assert [after[name] for name in ("ETag", "LastModified", "Metadata")] == [
        before[name] for name in ("ETag", "LastModified", "Metadata")
    ]
    assert after["ResponseMetadata"]["HTTPHeaders"]["x-amz-tagging-count"] == "1"
    gone = s3.delete_object_tagging(Bucket=bucket, Key="key")
    assert gone["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert tags_of(s3, bucket) == []
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"body"


def test_an_object_is_made_with_tags_and_loses_them_when_overwritten(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"", Tagging="a=1&b=x%20y")
    assert tags_of(s3, bucket) == tag_set(a="1", b="x y")
    s3.put_object(Bucket=bucket, Key="key", Body=b"")
    assert tags_of(s3, bucket) == []


def test_a_completed_upload_has_the_tags_it_was_begun_with(s3: Any, bucket: str) -> None:
    named = {"Bucket": bucket, "Key": "key"}
    upload = s3.create_multipart_upload(**named, Tagging="a=1")
    named["UploadId"] = upload["UploadId"]
    part = s3.upload_part(**named, PartNumber=1, Body=b"part")
    parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
    s3.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
    assert tags_of(s3, bucket) == tag_set(a="1")


def test_copies_keep_or_replace_the_tags(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"body", Tagging="a=1")
    source = {"Bucket": bucket, "Key": "key"}
    s3.copy_object(Bucket=bucket, Key="kept", CopySource=source, Tagging="b=2")
    assert tags_of(s3, bucket, "kept") == tag_set(a="1")
    s3.copy_object(
        Bucket=bucket, Key="own", CopySource=source, Tagging="b=2", TaggingDirective="REPLACE"
    )
    assert tags_of(s3, bucket, "own") == tag_set(b="2")
    s3.copy_object(Bucket=bucket, Key="none", CopySource=source, TaggingDirective="REPLACE")
    assert tags_of(s3, bucket, "none") == []
    # The copies share the source's bytes: changing one's tags changes nothing of the others.
    s3.put_object_tagging(Bucket=bucket, Key="kept", Tagging={"TagSet": tag_set(z="9")})
    s3.delete_object(Bucket=bucket, Key="key")
    assert s3.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"body"
    assert tags_of(s3, bucket, "own") == tag_set(b="2")


def test_what_is_not_there_has_no_tags(s3: Any, bucket: str, other_s3: Any) -> None:
    tagging = {"TagSet": tag_set(a="1")}
    named = {"Bucket": bucket, "Key": "absent"}
    assert error_of(s3.get_object_tagging, **named) == ("NoSuchKey", 404)
    assert error_of(s3.put_object_tagging, **named, Tagging=tagging) == ("NoSuchKey", 404)
    assert error_of(s3.delete_object_tagging, **named) == ("NoSuchKey", 404)
    assert error_of(other_s3.get_object_tagging, **named) == ("AccessDenied", 403)
    assert error_of(other_s3.put_bucket_tagging, Bucket=bucket, Tagging=tagging) == (
        "AccessDenied",
        403,
    )


@pytest.mark.parametrize(
    "tags",
    [
        tag_set(**{f"k{number}": "v" for number in range(11)}),
        tag_set(**{"k" * 129: "v"}),
        tag_set(k="v" * 257),
        [*tag_set(k="1"), *tag_set(k="2")],
        tag_set(**{"aws:k": "v"}),
    ],
    ids=["eleven", "long key", "long value", "twice", "reserved"],
)
def test_refused_tags_change_nothing(s3: Any, bucket: str, tags: Tags) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"", Tagging="a=1")
    refused = error_of(s3.put_object_tagging, Bucket=bucket, Key="key", Tagging={"TagSet": tags})
    assert refused == ("InvalidTag", 400)
    assert tags_of(s3, bucket) == tag_set(a="1")


def test_a_tag_never_undoes_an_overwrite(s3: Any, bucket: str) -> None:
    """Tags set while the object is overwritten: the last body stays, whatever wins the race."""
    s3.put_object(Bucket=bucket, Key="key", Body=b"0")

    def tag(number: int) -> None:
        s3.put_object_tagging(Bucket=bucket, Key="key", Tagging={"TagSet": tag_set(n=str(number))})

    with ThreadPoolExecutor(4) as pool:
        for number in range(1, 25):
            pending = [pool.submit(tag, number) for _ in range(3)]
            s3.put_object(Bucket=bucket, Key="key", Body=b"%d" % number)
            for future in pending:
                future.result()
            assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"%d" % number


def test_bucket_tags_are_set_replaced_and_deleted(s3: Any, bucket: str) -> None:
    assert error_of(s3.get_bucket_tagging, Bucket=bucket) == ("NoSuchTagSet", 404)
    s3.put_object(Bucket=bucket, Key="key", Body=b"body")
    for tags in (tag_set(**{f"k{n}": "v" for n in range(50)}), tag_set(team="a b")):
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
        assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    too_many = {"TagSet": tag_set(**{f"k{n}": "v" for n in range(51)})}
    assert error_of(s3.put_bucket_tagging, Bucket=bucket, Tagging=too_many) == ("InvalidTag", 400)
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"body"
    assert bucket in [each["Name"] for each in s3.list_buckets()["Buckets"]]
    s3.delete_bucket_tagging(Bucket=bucket)
    assert error_of(s3.get_bucket_tagging, Bucket=bucket) == ("NoSuchTagSet", 404)
