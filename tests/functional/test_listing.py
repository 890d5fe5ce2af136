"""Listings through boto3: order, delimiters, pages, encodings, versions."""

import concurrent.futures
from typing import Any

import httpx
import pytest

from tests.functional.conftest import error_of
from tests.functional.store_process import StoreProcess

KEYS = ["a/1", "a/2", "a+b", "b c/é/1", "b c/é/2", "d", "d/", "d//x", "zz%20", "~"]


@pytest.fixture
def filled(s3: Any, bucket: str) -> str:
    """A bucket with awkward names."""
    for key in KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    return bucket


def names(page: dict[str, Any]) -> tuple[list[str], list[str]]:
    return (
        [each["Key"] for each in page.get("Contents", [])],
        [each["Prefix"] for each in page.get("CommonPrefixes", [])],
    )


@pytest.mark.parametrize("call", ["list_objects", "list_objects_v2"])
def test_keys_come_in_the_order_of_their_bytes(s3: Any, filled: str, call: str) -> None:
    page = getattr(s3, call)(Bucket=filled)
    assert names(page) == (sorted(KEYS, key=str.encode), [])
    sizes = {each["Key"]: each["Size"] for each in page["Contents"]}
    assert sizes == {key: len(key.encode()) for key in KEYS}
    head = s3.head_object(Bucket=filled, Key="d")
    listed = next(each for each in page["Contents"] if each["Key"] == "d")
    assert listed["ETag"] == head["ETag"]
    assert listed["LastModified"] == head["LastModified"]
    assert listed["StorageClass"] == "STANDARD"


@pytest.mark.parametrize("call", ["list_objects", "list_objects_v2"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_delimiter_rolls_up_over_all_pages(s3: Any, filled: str, call: str, size: int) -> None:
    keys: list[str] = []
    prefixes: list[str] = []
    for page in s3.get_paginator(call).paginate(
        Bucket=filled, Delimiter="/", PaginationConfig={"PageSize": size}
    ):
        found_keys, found_prefixes = names(page)
        assert len(found_keys) + len(found_prefixes) <= size
        keys += found_keys
        prefixes += found_prefixes
    assert keys == ["a+b", "d", "zz%20", "~"]
    assert prefixes == ["a/", "b c/", "d/"]


def test_prefix_and_start_after(s3: Any, filled: str) -> None:
    below = s3.list_objects_v2(Bucket=filled, Prefix="b c/", Delimiter="é/")
    assert names(below) == ([], ["b c/é/"])
    after = s3.list_objects_v2(Bucket=filled, StartAfter="d/")
    assert names(after) == (["d//x", "zz%20", "~"], [])
    assert after["StartAfter"] == "d/"


def test_a_marker_within_a_common_prefix_stands_behind_it(s3: Any, filled: str) -> None:
    for call, name in ((s3.list_objects, "Marker"), (s3.list_object_versions, "KeyMarker")):
        page = call(Bucket=filled, Delimiter="/", **{name: "a/1"})
        assert [each["Prefix"] for each in page["CommonPrefixes"]] == ["b c/", "d/"]


def test_a_token_outlives_the_objects_it_was_made_of(s3: Any, filled: str) -> None:
    page = s3.list_objects_v2(Bucket=filled, MaxKeys=2)
    assert page["IsTruncated"]
    for key in ("a/1", "a/2", "a+b"):
        s3.delete_object(Bucket=filled, Key=key)
    rest = s3.list_objects_v2(Bucket=filled, ContinuationToken=page["NextContinuationToken"])
    assert set(names(rest)[0]) == set(KEYS) - {"a/1", "a/2", "a+b"}


def test_owners_are_told_when_asked(store: StoreProcess, s3: Any, filled: str) -> None:
    assert "Owner" not in s3.list_objects_v2(Bucket=filled)["Contents"][0]
    owner = s3.list_objects_v2(Bucket=filled, FetchOwner=True)["Contents"][0]["Owner"]
    assert owner == s3.list_objects(Bucket=filled)["Contents"][0]["Owner"]
    assert owner["ID"] == s3.get_bucket_acl(Bucket=filled)["Owner"]["ID"]
    s3.put_bucket_acl(Bucket=filled, ACL="public-read")
    of_nobody = httpx.get(f"{store.endpoint}/{filled}")
    assert (of_nobody.status_code, "<Owner>" in of_nobody.text) == (200, False)


def test_names_are_encoded_when_asked(s3: Any, filled: str) -> None:
    page = s3.list_objects_v2(Bucket=filled, Delimiter="/", EncodingType="url")
    assert names(page) == (["a%2Bb", "d", "zz%2520", "~"], ["a/", "b%20c/", "d/"])


def test_bad_arguments_are_refused(s3: Any, filled: str) -> None:
    wrong = ("InvalidArgument", 400)
    assert error_of(s3.list_objects_v2, Bucket=filled, MaxKeys=-1) == wrong
    assert error_of(s3.list_objects_v2, Bucket=filled, ContinuationToken="nonsense") == wrong
    assert error_of(s3.list_objects_v2, Bucket="no-such") == ("NoSuchBucket", 404)
    assert error_of(s3.list_object_versions, Bucket=filled, VersionIdMarker="null") == wrong


def test_no_keys_asked_none_given(s3: Any, filled: str) -> None:
    page = s3.list_objects_v2(Bucket=filled, MaxKeys=0)
    assert (names(page), page["IsTruncated"]) == (([], []), False)


def test_every_object_is_its_own_null_version(s3: Any, filled: str) -> None:
    versions: list[dict[str, Any]] = []
    for page in s3.get_paginator("list_object_versions").paginate(
        Bucket=filled, PaginationConfig={"PageSize": 3}
    ):
        versions += page["Versions"]
    assert [each["Key"] for each in versions] == sorted(KEYS, key=str.encode)
    assert {(each["VersionId"], each["IsLatest"]) for each in versions} == {("null", True)}


def test_more_than_a_page_is_listed_whole_and_deleted_in_batches(s3: Any, bucket: str) -> None:
    keys = [f"{number // 100}/{number:05}" for number in range(1050)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=b"x"), keys))
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket=bucket))
    assert [page["KeyCount"] for page in pages] == [1000, 50]
    assert sorted(key for page in pages for key in names(page)[0]) == sorted(keys)
    folders = s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert sorted(names(folders)[1]) == sorted(f"{number}/" for number in range(11))


def test_a_listing_shows_every_acknowledged_write_at_once(s3: Any, bucket: str) -> None:
    for number in range(20):
        s3.put_object(Bucket=bucket, Key=f"k{number}", Body=b"")
        assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == number + 1
    for number in range(20):
        s3.delete_object(Bucket=bucket, Key=f"k{number}")
        assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 19 - number


@pytest.mark.parametrize("marker", ["b c/", "b c/é/1", "b c/é/2"])
def test_a_marker_in_a_common_prefix_stands_behind_it(s3: Any, filled: str, marker: str) -> None:
    page = s3.list_objects(Bucket=filled, Delimiter="/", Marker=marker)
    assert names(page) == (["d", "zz%20", "~"], ["d/"])
