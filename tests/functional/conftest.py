"""Fixtures of the functional tests: one store for all of them, boto3 clients, fresh buckets."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.functional.store_process import StoreProcess, served

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """A running store of six drives."""
    with served(tmp_path_factory.mktemp("store") / "data") as running:
        yield running


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[StoreProcess]:
    """A store that this test may damage."""
    store = StoreProcess(tmp_path / "data")
    try:
        yield store.start()
    finally:
        store.kill()


@pytest.fixture(scope="session")
def s3(store: StoreProcess) -> Any:
    """Root's boto3 client."""
    return store.client()


@pytest.fixture
def bucket(s3: Any) -> Iterator[str]:
    """A fresh bucket, emptied and deleted afterwards."""
    name = f"bucket-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    yield name
    empty_and_delete(s3, name)


def empty_and_delete(s3: Any, name: str) -> None:
    """Remove a bucket with all that is in it."""
    with contextlib.suppress(s3.exceptions.NoSuchBucket):
        for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=name):
            for upload in page.get("Uploads", []):
                s3.abort_multipart_upload(
                    Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"]
                )
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
            found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            if keys := [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found]:
                s3.delete_objects(Bucket=name, Delete={"Objects": keys, "Quiet": True})
        s3.delete_bucket(Bucket=name)


@pytest.fixture(scope="session")
def other_account(store: StoreProcess) -> dict[str, str]:
    """A second account, as `ostraka admin account create --json` prints it."""
    made: dict[str, str] = store.admin("account", "create", "other", "--email", "other@example.com")
    return made


@pytest.fixture(scope="session")
def other_s3(store: StoreProcess, other_account: dict[str, str]) -> Any:
    """The second account's boto3 client."""
    return store.client(other_account["access_key"], other_account["secret_key"])


def error_of(call: Any, **arguments: Any) -> tuple[str, int]:
    """S3 error code and HTTP status that a boto3 call is refused with."""
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    response = raised.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a test may put a store of its own."""
    return tmp_path / "data"
