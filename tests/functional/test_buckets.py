"""Buckets through boto3: making, finding, listing, deleting, owners and ACLs."""

import concurrent.futures
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.functional.conftest import error_of
from tests.functional.store_process import StoreProcess


def test_a_bucket_is_made_found_and_deleted(s3: Any) -> None:
    s3.create_bucket(Bucket="made-and-gone")
    head = s3.head_bucket(Bucket="made-and-gone")
    assert head["BucketRegion"] == "us-east-1"
    assert "made-and-gone" in [each["Name"] for each in s3.list_buckets()["Buckets"]]
    s3.delete_bucket(Bucket="made-and-gone")
    assert error_of(s3.head_bucket, Bucket="made-and-gone") == ("404", 404)
    assert error_of(s3.delete_bucket, Bucket="made-and-gone") == ("NoSuchBucket", 404)


def test_making_ones_own_bucket_again_succeeds_and_keeps_its_objects(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.create_bucket(Bucket=bucket)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


@pytest.mark.parametrize("name", ["UPPER", "ab", "192.168.5.4", "a..b", "xn--a", "a_b"])
def test_names_against_the_rules_are_refused(s3: Any, name: str) -> None:
    assert error_of(s3.create_bucket, Bucket=name) == ("InvalidBucketName", 400)


def test_a_location_elsewhere_is_refused(s3: Any) -> None:
    code, status = error_of(
        s3.create_bucket,
        Bucket="elsewhere",
        CreateBucketConfiguration={"LocationConstraint": "eu-west-1"},
    )
    assert (code, status) == ("InvalidLocationConstraint", 400)


def test_location_and_versioning_have_their_empty_answers(s3: Any, bucket: str) -> None:
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)


def test_a_bucket_with_an_object_is_not_deleted(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    assert error_of(s3.delete_bucket, Bucket=bucket) == ("BucketNotEmpty", 409)


def test_a_bucket_with_an_open_upload_is_deleted_with_it(s3: Any) -> None:
    s3.create_bucket(Bucket="with-upload")
    upload = s3.create_multipart_upload(Bucket="with-upload", Key="k")
    s3.delete_bucket(Bucket="with-upload")
    arguments = {"Bucket": "with-upload", "Key": "k", "UploadId": upload["UploadId"]}
    code, status = error_of(s3.upload_part, PartNumber=1, Body=b"x", **arguments)
    assert (code, status) == ("NoSuchBucket", 404)


def test_buckets_are_listed_in_pages_and_by_prefix(s3: Any) -> None:
    names = [f"paged-{number}" for number in range(5)]
    for name in names:
        s3.create_bucket(Bucket=name)
    pages = s3.get_paginator("list_buckets").paginate(
        Prefix="paged-", PaginationConfig={"PageSize": 2}
    )
    found = [[each["Name"] for each in page["Buckets"]] for page in pages]
    assert found == [names[:2], names[2:4], names[4:]]
    first = s3.list_buckets(Prefix="paged-", ContinuationToken="")["Buckets"][0]
    assert (first["Name"], first["BucketArn"]) == ("paged-0", "arn:aws:s3:::paged-0")
    for name in names:
        s3.delete_bucket(Bucket=name)


def test_another_account_is_kept_out(s3: Any, other_s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    denied = ("AccessDenied", 403)
    assert error_of(other_s3.list_objects_v2, Bucket=bucket) == denied
    assert error_of(other_s3.get_object, Bucket=bucket, Key="k") == denied
    assert error_of(other_s3.put_object, Bucket=bucket, Key="k", Body=b"y") == denied
    assert error_of(other_s3.delete_bucket, Bucket=bucket) == denied
    assert error_of(other_s3.get_bucket_acl, Bucket=bucket) == denied
    assert error_of(other_s3.create_bucket, Bucket=bucket) == ("BucketAlreadyExists", 409)
    assert bucket not in [each["Name"] for each in other_s3.list_buckets()["Buckets"]]


def test_each_account_owns_what_it_makes(
    s3: Any, other_s3: Any, other_account: dict[str, str]
) -> None:
    other_s3.create_bucket(Bucket="of-the-other")
    try:
        owner = other_s3.list_buckets()["Owner"]
        assert owner["ID"] == other_account["canonical_id"]
        assert error_of(s3.list_objects_v2, Bucket="of-the-other") == ("AccessDenied", 403)
    finally:
        other_s3.delete_bucket(Bucket="of-the-other")


def test_acls_are_the_owners_full_control_and_may_be_put_back(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    for get, put, extra in (
        (s3.get_bucket_acl, s3.put_bucket_acl, {}),
        (s3.get_object_acl, s3.put_object_acl, {"Key": "k"}),
    ):
        found = get(Bucket=bucket, **extra)
        (grant,) = found["Grants"]
        assert grant["Permission"] == "FULL_CONTROL"
        assert grant["Grantee"]["ID"] == found["Owner"]["ID"]
        policy = {"Owner": found["Owner"], "Grants": found["Grants"]}
        put(Bucket=bucket, AccessControlPolicy=policy, **extra)
        put(Bucket=bucket, ACL="private", **extra)
        put(Bucket=bucket, ACL="public-read", **extra)
        assert len(get(Bucket=bucket, **extra)["Grants"]) == 2
    assert error_of(s3.get_object_acl, Bucket=bucket, Key="none") == ("NoSuchKey", 404)


def test_of_racing_creations_by_two_accounts_one_wins(s3: Any, other_s3: Any) -> None:
    def attempt(client: Any) -> Any | None:
        try:
            client.create_bucket(Bucket="contested")
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyExists":
                raise
            return None
        return client

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        winners = {id(each): each for each in pool.map(attempt, [s3, other_s3] * 4) if each}
    assert len(winners) == 1
    next(iter(winners.values())).delete_bucket(Bucket="contested")


def test_a_bucket_made_again_is_empty_at_once_through_every_worker(s3: Any) -> None:
    for _ in range(5):
        s3.create_bucket(Bucket="again-and-again")
        s3.put_object(Bucket="again-and-again", Key="k", Body=b"x")
        assert s3.list_objects_v2(Bucket="again-and-again")["KeyCount"] == 1
        s3.delete_object(Bucket="again-and-again", Key="k")
        s3.delete_bucket(Bucket="again-and-again")
        gone = error_of(s3.get_object, Bucket="again-and-again", Key="k")
        assert gone == ("NoSuchBucket", 404)


def test_a_bucket_is_made_with_tags(s3: Any) -> None:
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}]
    s3.create_bucket(Bucket="with-tags", CreateBucketConfiguration={"Tags": tags})
    assert s3.get_bucket_tagging(Bucket="with-tags")["TagSet"] == tags
    s3.create_bucket(Bucket="with-tags")
    s3.create_bucket(Bucket="with-tags", CreateBucketConfiguration={"Tags": []})
    for again in (tags, tags[:1]):
        code, _ = error_of(
            s3.create_bucket, Bucket="with-tags", CreateBucketConfiguration={"Tags": again}
        )
        assert code == "BucketAlreadyOwnedByYou"
    assert s3.get_bucket_tagging(Bucket="with-tags")["TagSet"] == tags
    s3.delete_bucket(Bucket="with-tags")
    for wrong in ([{"Key": "aws:a", "Value": ""}], [tags[0], tags[0]]):
        code, _ = error_of(
            s3.create_bucket, Bucket="with-tags", CreateBucketConfiguration={"Tags": wrong}
        )
        assert code == "InvalidTag"
    assert error_of(s3.head_bucket, Bucket="with-tags") == ("404", 404)


def test_clients_learn_a_buckets_region_from_refusals(
    store: StoreProcess, s3: Any, other_s3: Any, bucket: str
) -> None:
    """SDKs ask without permission, or in the name of another region, and go by a header."""

    def told(call: Any, name: str) -> str | None:
        with pytest.raises(ClientError) as refused:
            call(Bucket=name)
        headers = refused.value.response["ResponseMetadata"]["HTTPHeaders"]
        region: str | None = headers.get("x-amz-bucket-region")
        return region

    assert told(other_s3.head_bucket, bucket) == "us-east-1"
    assert told(other_s3.head_bucket, "none-of-this-name") is None
    elsewhere = boto3.session.Session().client(
        "s3",
        endpoint_url=store.endpoint,
        region_name="eu-west-1",
        aws_access_key_id=store.credentials[0],
        aws_secret_access_key=store.credentials[1],
        config=Config(s3={"addressing_style": "path"}),
    )
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert elsewhere.head_bucket(Bucket=bucket)["BucketRegion"] == "us-east-1"
    assert elsewhere.head_object(Bucket=bucket, Key="k")["ContentLength"] == 1
