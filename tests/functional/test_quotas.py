"""Quotas over real sockets: what every way to write is answered, and what operators see of buckets."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from ops.admin_cli import admin, call
from tests.functional.conftest import empty_and_delete, error_of
from tests.functional.store_process import StoreProcess, served
from tests.functional.test_aws_cli import Aws, aws
from tests.waiting import eventually

__all__ = ["aws"]
KIB, MIB = 1 << 10, 1 << 20
REFUSED = ("QuotaExceeded", 403)
NOTICED_SECONDS = 20
"""Within a second or two, on a machine that has nothing else to do."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """A store with one worker: it knows all that it wrote, so what it refuses is certain."""
    with served(tmp_path_factory.mktemp("one-worker") / "data", ("--workers", "1")) as running:
        yield running


@pytest.fixture(scope="module")
def s3(store: StoreProcess) -> Any:
    """Root's boto3 client."""
    return store.client()


@pytest.fixture
def limited(store: StoreProcess, s3: Any, bucket: str) -> Iterator[str]:
    """A bucket that may hold 100 KiB in ten objects."""
    ask(store, "PUT", f"buckets/{bucket}/quota", {"max_bytes": 100 * KIB, "max_objects": 10})
    eventually(lambda: held(store, bucket) is not None, NOTICED_SECONDS)
    yield bucket
    ask(store, "DELETE", f"buckets/{bucket}/quota")
    empty_and_delete(s3, bucket)
    s3.create_bucket(Bucket=bucket)


def ask(store: StoreProcess, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
    """What the command line asks, without its start-up."""
    return call(store.admin_url, store.directory, method, f"/api/v1/{path}", document)


def held(store: StoreProcess, bucket: str) -> dict[str, Any] | None:
    """What the keeper counted."""
    found: dict[str, Any] | None = ask(store, "GET", f"buckets/{bucket}/quota")["held"]
    return found


def told(store: StoreProcess, *arguments: str) -> str:
    """What a command prints for people."""
    where = ("--url", store.admin_url, "--dir", str(store.directory))
    done = CliRunner().invoke(admin, [*arguments, *where])
    assert done.exit_code == 0, done.output
    return done.stdout


def is_held(store: StoreProcess, bucket: str, **wanted: int) -> bool:
    """Whether that is what is known now."""
    found = held(store, bucket)
    return found is not None and all(found[name] == value for name, value in wanted.items())


def settles(store: StoreProcess, bucket: str, **wanted: int) -> None:
    """Wait until it is."""
    try:
        eventually(lambda: is_held(store, bucket, **wanted), NOTICED_SECONDS)
    except AssertionError:
        raise AssertionError(f"{held(store, bucket)} instead of {wanted}") from None


def put(s3: Any, bucket: str, key: str, size_bytes: int) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=bytes(size_bytes))


def test_every_way_to_write_is_limited(store: StoreProcess, s3: Any, limited: str) -> None:
    put(s3, limited, "half", 60 * KIB)
    settles(store, limited, objects=1, size_bytes=60 * KIB)
    more = {"Bucket": limited, "Key": "more"}
    assert error_of(s3.put_object, **more, Body=bytes(50 * KIB)) == REFUSED
    assert error_of(s3.copy_object, **more, CopySource=f"{limited}/half") == REFUSED
    assert error_of(
        s3.copy_object, **more, CopySource=f"{limited}/half", ServerSideEncryption="AES256"
    ) == REFUSED  # fmt: skip
    post = s3.generate_presigned_post(limited, "more")
    answer = httpx.post(
        f"{store.endpoint}/{limited}", data=post["fields"], files={"file": bytes(50 * KIB)}
    )
    assert (answer.status_code, "<Code>QuotaExceeded</Code>" in answer.text) == (403, True)
    upload = s3.create_multipart_upload(**more)["UploadId"]
    part = {**more, "UploadId": upload, "PartNumber": 1}
    assert error_of(s3.upload_part, **part, Body=bytes(50 * KIB)) == REFUSED
    assert error_of(s3.upload_part_copy, **part, CopySource=f"{limited}/half") == REFUSED
    # What fits is taken, and parts count at once.
    etag = s3.upload_part(**part, Body=bytes(30 * KIB))["ETag"]
    settles(store, limited, objects=1, parts=1, parts_bytes=30 * KIB)
    assert error_of(s3.put_object, Bucket=limited, Key="third", Body=bytes(20 * KIB)) == REFUSED
    s3.upload_part(**part, Body=bytes(30 * KIB))  # in the place of the same part
    done = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    s3.complete_multipart_upload(**more, UploadId=upload, MultipartUpload=done)
    settles(store, limited, objects=2, size_bytes=90 * KIB, parts=0, parts_bytes=0)
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=limited)["Contents"]] == ["half", "more"]


def test_objects_are_limited_at_completion_too(store: StoreProcess, s3: Any, limited: str) -> None:
    upload = s3.create_multipart_upload(Bucket=limited, Key="upload")["UploadId"]
    named = {"Bucket": limited, "Key": "upload", "UploadId": upload}
    etag = s3.upload_part(**named, PartNumber=1, Body=b"part")["ETag"]
    for number in range(10):
        put(s3, limited, f"k{number}", 1)
    settles(store, limited, objects=10, parts=1)
    done = {"MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": etag}]}}
    assert error_of(s3.complete_multipart_upload, **named, **done) == REFUSED
    assert error_of(s3.put_object, Bucket=limited, Key="k10", Body=b"") == REFUSED
    s3.delete_object(Bucket=limited, Key="k0")

    def completes() -> bool:
        try:
            s3.complete_multipart_upload(**named, **done)
        except ClientError as error:
            if error.response["Error"]["Code"] != "QuotaExceeded":
                raise
            return False
        return True

    # The upload is open still, and room is noticed.
    eventually(completes, NOTICED_SECONDS)


def test_what_was_overwritten_and_deleted_makes_room(
    store: StoreProcess, s3: Any, limited: str
) -> None:
    for _ in range(5):
        put(s3, limited, "k", 100 * KIB)
    assert error_of(s3.put_object, Bucket=limited, Key="other", Body=b"1") == REFUSED
    put(s3, limited, "k", 50 * KIB)
    settles(store, limited, objects=1, size_bytes=50 * KIB)
    put(s3, limited, "other", 50 * KIB)
    s3.delete_object(Bucket=limited, Key="other")
    third = {"Bucket": limited, "Key": "third", "Body": bytes(50 * KIB)}
    eventually(lambda: accepted(s3, third), NOTICED_SECONDS)


def test_versions_count_and_delete_markers_do_not(
    store: StoreProcess, s3: Any, limited: str
) -> None:
    s3.put_bucket_versioning(Bucket=limited, VersioningConfiguration={"Status": "Enabled"})
    put(s3, limited, "k", 40 * KIB)
    put(s3, limited, "k", 40 * KIB)
    s3.delete_object(Bucket=limited, Key="k")
    settles(store, limited, objects=0, noncurrent=2, noncurrent_bytes=80 * KIB)
    assert error_of(s3.put_object, Bucket=limited, Key="k", Body=bytes(40 * KIB)) == REFUSED
    found = s3.list_object_versions(Bucket=limited)["Versions"]
    s3.delete_object(Bucket=limited, Key="k", VersionId=found[0]["VersionId"])
    again = {"Bucket": limited, "Key": "k", "Body": bytes(40 * KIB)}
    eventually(lambda: accepted(s3, again), NOTICED_SECONDS)
    settles(store, limited, objects=1, noncurrent=1, noncurrent_bytes=40 * KIB)
    s3.put_bucket_versioning(Bucket=limited, VersioningConfiguration={"Status": "Suspended"})


def test_many_writers_through_several_workers_exceed_it_by_no_more_than_was_free(
    directory: Path,
) -> None:
    several = StoreProcess(directory, ("--workers", "3"))
    try:
        s3 = several.start().client()
        s3.create_bucket(Bucket="full")
        put(s3, "full", "before", 60 * KIB)
        ask(several, "PUT", "buckets/full/quota", {"max_bytes": 100 * KIB})
        settles(several, "full", size_bytes=60 * KIB)

        clients = [several.client() for _ in range(4)]

        def one(number: int) -> bool:
            arguments = {"Bucket": "full", "Key": f"k{number}", "Body": bytes(10 * KIB)}
            return accepted(clients[number % 4], arguments)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(40)))
        objects = s3.list_objects_v2(Bucket="full")["Contents"]
        total = sum(each["Size"] for each in objects)
        # Each worker knows of 100 KiB at most that are free (40, once it has heard), and fills no
        # more, as is documented; and it is not refused too early either.
        assert 100 * KIB <= total <= (60 + 3 * 100) * KIB
        settles(several, "full", objects=len(objects), size_bytes=total)
        # All of them hear of it.
        probe = {"Bucket": "full", "Key": "before", "Body": bytes(61 * KIB)}
        eventually(lambda: not any(accepted(client, probe) for client in clients), 20)
    finally:
        several.kill()


def test_an_account_has_a_quota_for_all_its_buckets(store: StoreProcess, s3: Any) -> None:
    made = store.command("account", "create", "tenant")
    tenant = store.client(made["access_key"], made["secret_key"])
    shown = store.command("account", "quota", "tenant", "--max-bytes", "50kB")
    assert shown["quota"] == {"max_bytes": 50_000, "max_objects": None}
    for name in ("tenant-one", "tenant-two"):
        tenant.create_bucket(Bucket=name)
    put(tenant, "tenant-one", "k", 30_000)

    def known() -> int:
        return int(ask(store, "GET", "accounts/tenant/quota")["size_bytes"])

    eventually(lambda: known() == 30_000, NOTICED_SECONDS)
    arguments = {"Bucket": "tenant-two", "Key": "k", "Body": bytes(30_000)}
    assert error_of(tenant.put_object, **arguments) == REFUSED
    store.command("account", "quota", "clear", "tenant")
    assert store.command("account", "quota", "show", "tenant")["quota"] is None
    eventually(lambda: accepted(tenant, arguments), NOTICED_SECONDS)
    for name in ("tenant-one", "tenant-two"):
        empty_and_delete(tenant, name)
    store.command("account", "delete", "tenant")


def accepted(s3: Any, arguments: dict[str, Any]) -> bool:
    """Whether a PUT is let in now."""
    try:
        s3.put_object(**arguments)
    except ClientError:
        return False
    return True


def test_buckets_are_shown_with_what_they_hold(
    store: StoreProcess, s3: Any, bucket: str, limited: str
) -> None:
    del bucket
    unlimited = "shown-without-quota"
    s3.create_bucket(Bucket=unlimited)
    put(s3, unlimited, "k", 5)
    s3.create_multipart_upload(Bucket=unlimited, Key="upload")
    shown = store.command("bucket", "show", unlimited)
    assert shown["quota"] is None
    assert (shown["held"]["source"], shown["held"]["objects"]) == ("counted", 1)
    assert shown["held"]["size_bytes"] == 5
    shown = store.command(
        "bucket", "quota", limited, "--max-bytes", "100KiB", "--max-objects", "10"
    )
    assert shown["quota"] == {"max_bytes": 100 * KIB, "max_objects": 10}
    put(s3, limited, "k", 7)
    settles(store, limited, objects=1, size_bytes=7)
    listed = {each["name"]: each for each in store.command("bucket", "list")}
    assert listed[unlimited]["held"] is None, "nobody counts it"
    assert listed[limited]["held"]["source"] == "followed"
    assert listed[limited]["quota"] == {"max_bytes": 100 * KIB, "max_objects": 10}
    assert list(listed) == sorted(listed)
    words = told(store, "bucket", "list")
    assert all(word in words for word in (unlimited, limited, "100.0 KiB, 10 objects", "7 B"))
    words = told(store, "bucket", "show", limited)
    assert "quota       100.0 KiB, 10 objects" in words
    assert "objects     1, 7 B" in words
    assert "quota       none" in told(store, "bucket", "show", unlimited)
    assert "quota    none" in told(store, "account", "quota", "show", "root")
    assert "bucket metrics      none" in told(store, "settings", "show")
    empty_and_delete(s3, unlimited)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bucket", "show", "no-such-bucket"), "no bucket 'no-such-bucket'"),
        (("bucket", "quota", "no-such-bucket", "--max-bytes", "1"), "no bucket"),
        (("bucket", "quota", "show", "no-such-bucket"), "no bucket"),
        (("account", "quota", "nobody", "--max-objects", "1"), "no account nobody"),
        (("bucket", "quota", "b", "--max-bytes", "ten"), "'ten' is no size"),
        (("bucket", "quota", "b", "--max-bytes", "1XB"), "no size"),
        (("bucket", "quota", "b", "--max-objects", "-1"), "a number from 0"),
        (("bucket", "quota", "b"), "give --max-bytes"),
        (("settings", "set"), "give --default-encryption"),
        (("settings", "set", "--default-encryption", "rot13"), "AES256 or none"),
        (("settings", "set", "--bucket-metrics", "-1"), "0 to 1000"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    store: StoreProcess, arguments: tuple[str, ...], words: str
) -> None:
    where = ("--url", store.admin_url, "--dir", str(store.directory))
    done = CliRunner().invoke(admin, [*arguments, *where])
    assert done.exit_code in (1, 2), done.stdout
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_aws_cli_says_why(aws: Aws, limited: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(101 * KIB))
    with pytest.raises(AssertionError, match="QuotaExceeded"):
        aws("s3", "cp", str(file), f"s3://{limited}/file")
    file.write_bytes(bytes(99 * KIB))
    aws("s3", "cp", str(file), f"s3://{limited}/file")
