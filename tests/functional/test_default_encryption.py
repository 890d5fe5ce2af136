"""Encryption of everything as a setting of the store: answers are those of AWS's own default."""

import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.functional.conftest import error_of
from tests.functional.store_process import StoreProcess, served
from tests.functional.test_aws_cli import Aws, aws
from tests.waiting import eventually

__all__ = ["aws"]
SSE = "ServerSideEncryption"
RULE = {
    "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"},
    "BucketKeyEnabled": False,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """A store whose setting is turned on while it runs."""
    with served(tmp_path_factory.mktemp("encrypted") / "data", ("--workers", "1")) as running:
        yield running


@pytest.fixture(scope="module")
def s3(store: StoreProcess) -> Any:
    """Root's boto3 client; a bucket with a plain object, then the setting."""
    client = store.client()
    client.create_bucket(Bucket="data")
    assert SSE not in client.put_object(Bucket="data", Key="before", Body=b"plain")
    code = error_of(client.get_bucket_encryption, Bucket="data")[0]
    assert code == "ServerSideEncryptionConfigurationNotFoundError"
    set_to(store, client, "AES256")
    return client


def set_to(store: StoreProcess, s3: Any, algorithm: str) -> None:
    """Change the setting and wait until the worker has heard of it."""
    answer = store.command("settings", "set", "--default-encryption", algorithm)
    assert answer["default_encryption"] == algorithm
    probe = {"Bucket": "data", "Key": "probe", "Body": b""}
    eventually(lambda: (SSE in s3.put_object(**probe)) == (algorithm != "none"), 20)


def rule_of(s3: Any, bucket: str) -> Any:
    """The bucket's one rule, as it is answered."""
    found = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
    (rule,) = found["Rules"]
    return rule


def test_every_way_to_write_encrypts_and_says_so(store: StoreProcess, s3: Any) -> None:
    body = b"encrypted without being asked"
    put = s3.put_object(Bucket="data", Key="put", Body=body)
    assert put[SSE] == "AES256"
    copied = s3.copy_object(Bucket="data", Key="copy", CopySource="data/before")
    assert copied[SSE] == "AES256"
    upload = s3.create_multipart_upload(Bucket="data", Key="parts")
    named = {"Bucket": "data", "Key": "parts", "UploadId": upload["UploadId"]}
    part = s3.upload_part(**named, PartNumber=1, Body=body)
    done = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    completed = s3.complete_multipart_upload(**named, MultipartUpload=done)
    assert (upload[SSE], part[SSE], completed[SSE]) == ("AES256",) * 3
    post = s3.generate_presigned_post("data", "posted")
    answer = httpx.post(f"{store.endpoint}/data", data=post["fields"], files={"file": body})
    assert answer.headers["x-amz-server-side-encryption"] == "AES256"
    s3.upload_fileobj(io.BytesIO(body), "data", "managed")
    for key, expected in (("put", body), ("copy", b"plain"), ("parts", body), ("managed", body)):
        assert s3.head_object(Bucket="data", Key=key)[SSE] == "AES256"
        got = s3.get_object(Bucket="data", Key=key)
        assert (got[SSE], got["Body"].read()) == ("AES256", expected)
    # What was written before stays as it was, until it is copied to itself.
    assert SSE not in s3.head_object(Bucket="data", Key="before")
    s3.put_object(Bucket="data", Key="again", Body=b"again")
    assert s3.copy_object(Bucket="data", Key="again", CopySource="data/again")[SSE] == "AES256"
    # No drive holds the bytes in the clear.
    segments = [p for p in store.directory.glob("drive*/**/*") if p.is_file()]
    assert segments
    assert not any(body in path.read_bytes() for path in segments)
    assert any(b"plain" in path.read_bytes() for path in segments), "and this would find them"


def test_buckets_show_the_default_and_may_have_a_rule_of_their_own(
    store: StoreProcess, s3: Any
) -> None:
    assert rule_of(s3, "data") == RULE
    s3.create_bucket(Bucket="own")
    store.command("kms-key", "create", "own/key")
    kms = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "own/key"}
    own = {"ApplyServerSideEncryptionByDefault": kms, "BucketKeyEnabled": True}
    s3.put_bucket_encryption(Bucket="own", ServerSideEncryptionConfiguration={"Rules": [own]})
    assert rule_of(s3, "own") == own
    assert s3.put_object(Bucket="own", Key="k", Body=b"")[SSE] == "aws:kms"
    s3.delete_bucket_encryption(Bucket="own")
    assert rule_of(s3, "own") == RULE
    assert s3.put_object(Bucket="own", Key="k", Body=b"")[SSE] == "AES256"


def test_what_requests_ask_for_themselves_comes_first(s3: Any) -> None:
    key = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
    put = s3.put_object(Bucket="data", Key="customer", Body=b"c", **key)
    assert (put.get(SSE), put["SSECustomerAlgorithm"]) == (None, "AES256")
    assert s3.get_object(Bucket="data", Key="customer", **key)["Body"].read() == b"c"


def test_two_layers_are_not_offered_and_not_made_one(s3: Any) -> None:
    refused = ("NotImplemented", 501)
    arguments = {"Bucket": "data", "Key": "dual", SSE: "aws:kms:dsse"}
    assert error_of(s3.put_object, **arguments, Body=b"") == refused
    assert error_of(s3.copy_object, **arguments, CopySource="data/before") == refused
    assert error_of(s3.create_multipart_upload, **arguments) == refused
    dual = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms:dsse"}}
    assert error_of(
        s3.put_bucket_encryption,
        Bucket="data",
        ServerSideEncryptionConfiguration={"Rules": [dual]},
    ) == refused  # fmt: skip
    assert error_of(s3.head_object, Bucket="data", Key="dual") == ("404", 404)


def test_the_aws_cli_sees_it(aws: Aws, s3: Any) -> None:
    del s3
    assert '"SSEAlgorithm": "AES256"' in aws("s3api", "get-bucket-encryption", "--bucket", "data")


def test_it_outlives_a_restart_and_can_be_taken_back(store: StoreProcess, s3: Any) -> None:
    assert store.stop() == 0
    store.start()
    client = store.client()
    # From the first request on: no worker serves before it knows the settings.
    assert client.put_object(Bucket="data", Key="first", Body=b"")[SSE] == "AES256"
    assert store.command("settings", "show")["default_encryption"] == "AES256"
    set_to(store, client, "none")
    assert SSE not in client.put_object(Bucket="data", Key="after", Body=b"")
    assert client.get_object(Bucket="data", Key="put")["Body"].read().startswith(b"encrypted")
    del s3
