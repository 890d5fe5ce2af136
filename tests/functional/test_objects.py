"""Objects through boto3 against a running store: bytes, headers, conditions, ranges, copies, errors."""

import base64
import hashlib
import io
import random
import threading
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from gateway.domain.newness import ENOUGH_WHERE_READS_ARE_CHEAP
from tests.functional.conftest import error_of
from tests.functional.store_process import StoreProcess

SIZES = [0, 1, 1024, 16 << 10, (16 << 10) + 1, 300_000, 700_001, (1 << 20) + 1, (9 << 20) + 77]


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", SIZES)
def test_an_object_reads_back_equal_with_its_etag_and_length(
    s3: Any, bucket: str, size: int
) -> None:
    data = noise(size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=data)
    assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == data
    assert got["ContentLength"] == size
    assert got["ContentType"] == "binary/octet-stream"
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ETag"], head["ContentLength"]) == (put["ETag"], size)
    assert abs(head["LastModified"] - datetime.now(UTC)) < timedelta(minutes=5)


def test_content_headers_and_metadata_come_back_as_sent(s3: Any, bucket: str) -> None:
    s3.put_object(
        Bucket=bucket,
        Key="k",
        Body=b"x",
        ContentType="text/plain",
        CacheControl="max-age=1",
        ContentDisposition="attachment",
        ContentEncoding="gzip",
        ContentLanguage="de",
        Metadata={"one": "1", "two": "zwei"},
    )
    head = s3.head_object(Bucket=bucket, Key="k")
    assert head["ContentType"] == "text/plain"
    assert head["CacheControl"] == "max-age=1"
    assert head["ContentDisposition"] == "attachment"
    assert head["ContentEncoding"] == "gzip"
    assert head["ContentLanguage"] == "de"
    assert head["Metadata"] == {"one": "1", "two": "zwei"}
    overridden = s3.get_object(
        Bucket=bucket, Key="k", ResponseContentType="a/b", ResponseCacheControl="no-store"
    )
    assert overridden["ContentType"] == "a/b"
    assert overridden["CacheControl"] == "no-store"


@pytest.mark.parametrize("key", ["a/b//c", "ü/ß €", "a+b&c=d?#%", "../x", " ", "x" * 1024, "\x01"])
def test_keys_of_any_kind(s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    s3.delete_object(Bucket=bucket, Key=key)
    # The error names the key; botocore's parser knows no control characters and falls back.
    assert error_of(s3.get_object, Bucket=bucket, Key=key) in (("NoSuchKey", 404), ("404", 404))


@pytest.mark.parametrize("size", [1000, 100_000, (3 << 20) + 5])
@pytest.mark.parametrize("text", ["bytes=0-0", "bytes=7-", "bytes=-9", "bytes=100-9999999"])
def test_ranges_are_cut_right(s3: Any, bucket: str, size: int, text: str) -> None:
    data = noise(size)
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    got = s3.get_object(Bucket=bucket, Key="k", Range=text)
    low, high = text.removeprefix("bytes=").split("-")
    last = int(high) + 1 if high else size
    expected = data[int(low) : last] if low else data[-int(high) :]
    assert got["Body"].read() == expected
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    start = data.index(expected) if len(expected) > 4 else int(low or size - int(high))
    assert got["ContentRange"] == f"bytes {start}-{start + len(expected) - 1}/{size}"


def test_a_range_beyond_the_end_is_refused(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"12345")
    refused = error_of(s3.get_object, Bucket=bucket, Key="k", Range="bytes=5-")
    assert refused == ("InvalidRange", 416)


def test_conditional_reads(s3: Any, bucket: str) -> None:
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    etag = put["ETag"]
    past, future = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    for call in (s3.get_object, s3.head_object):
        where = {"Bucket": bucket, "Key": "k"}
        call(**where, IfMatch=etag, IfModifiedSince=past, IfUnmodifiedSince=future)
        assert error_of(call, **where, IfMatch='"other"')[1] == 412
        assert error_of(call, **where, IfNoneMatch=etag)[1] == 304
        call(**where, IfModifiedSince=future)  # no date that can be
        assert error_of(call, **where, IfModifiedSince=datetime.now(UTC))[1] == 304
        assert error_of(call, **where, IfUnmodifiedSince=past)[1] == 412
        call(**where, IfNoneMatch='"other"', IfModifiedSince=future)


def test_conditional_writes_and_deletes(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "k"}
    assert error_of(s3.put_object, **where, Body=b"x", IfMatch='"e"') == ("NoSuchKey", 404)
    etag = s3.put_object(**where, Body=b"x", IfNoneMatch="*")["ETag"]
    failed = ("PreconditionFailed", 412)
    assert error_of(s3.put_object, **where, Body=b"y", IfNoneMatch="*") == failed
    assert error_of(s3.put_object, **where, Body=b"y", IfMatch='"e"') == failed
    s3.put_object(**where, Body=b"y", IfMatch=etag)
    assert error_of(s3.delete_object, **where, IfMatch=etag) == failed
    s3.delete_object(**where, IfMatch="*")
    assert error_of(s3.head_object, **where)[1] == 404


def test_of_racing_creators_exactly_one_wins(s3: Any, bucket: str) -> None:
    outcomes: list[str] = []

    def attempt(number: int) -> None:
        try:
            body = bytes([number]) * (100 if number % 2 else 2_000_000)
            s3.put_object(Bucket=bucket, Key="k", Body=body, IfNoneMatch="*")
        except ClientError as error:
            outcomes.append(error.response["Error"]["Code"])
        else:
            outcomes.append("won")

    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("won") == 1
    assert set(outcomes) <= {"won", "PreconditionFailed", "ConditionalRequestConflict"}


def test_checksums_are_verified_stored_and_returned(s3: Any, bucket: str) -> None:
    for size in (100, 2_000_000):
        data = noise(size)
        values = {
            "ChecksumCRC32": zlib.crc32(data).to_bytes(4, "big"),
            "ChecksumSHA1": hashlib.sha1(data).digest(),
            "ChecksumSHA256": hashlib.sha256(data).digest(),
        }
        for name, value in values.items():
            text = base64.b64encode(value).decode()
            put = s3.put_object(Bucket=bucket, Key="k", Body=data, **{name: text})
            assert put[name] == text
            head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
            assert head[name] == text
            assert head["ChecksumType"] == "FULL_OBJECT"
            wrong = base64.b64encode(bytes(len(value))).decode()
            refused = error_of(s3.put_object, Bucket=bucket, Key="k", Body=data, **{name: wrong})
            assert refused == ("BadDigest", 400)


def test_a_wrong_content_md5_is_refused_and_changes_nothing(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    wrong = base64.b64encode(bytes(16)).decode()
    for body in (b"new", bytes(3_000_000)):
        refused = error_of(s3.put_object, Bucket=bucket, Key="k", Body=body, ContentMD5=wrong)
        assert refused == ("BadDigest", 400)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old"


def test_a_copy_keeps_or_replaces_headers_and_outlives_its_source(s3: Any, bucket: str) -> None:
    data = noise(1_500_000)
    s3.put_object(Bucket=bucket, Key="from/ü +", Body=data, Metadata={"m": "1"}, ContentType="a/b")
    source = {"Bucket": bucket, "Key": "from/ü +"}
    copied = s3.copy_object(Bucket=bucket, Key="kept", CopySource=source)
    assert copied["CopyObjectResult"]["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    s3.copy_object(
        Bucket=bucket,
        Key="replaced",
        CopySource=source,
        MetadataDirective="REPLACE",
        Metadata={"n": "2"},
        ContentType="c/d",
    )
    s3.delete_object(Bucket=bucket, Key="from/ü +")
    kept = s3.get_object(Bucket=bucket, Key="kept")
    assert (kept["Metadata"], kept["ContentType"]) == ({"m": "1"}, "a/b")
    assert kept["Body"].read() == data
    replaced = s3.get_object(Bucket=bucket, Key="replaced")
    assert (replaced["Metadata"], replaced["ContentType"]) == ({"n": "2"}, "c/d")
    assert replaced["Body"].read() == data


def test_copies_are_refused_as_on_aws(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    itself = {"Bucket": bucket, "Key": "k"}
    refused = error_of(s3.copy_object, Bucket=bucket, Key="k", CopySource=itself)
    assert refused == ("InvalidRequest", 400)
    missing = {"Bucket": bucket, "Key": "none"}
    refused = error_of(s3.copy_object, Bucket=bucket, Key="to", CopySource=missing)
    assert refused == ("NoSuchKey", 404)
    refused = error_of(
        s3.copy_object, Bucket=bucket, Key="to", CopySource=itself, CopySourceIfMatch='"no"'
    )
    assert refused == ("PreconditionFailed", 412)


def test_delete_many(s3: Any, bucket: str) -> None:
    names = [f"k{number}" for number in range(250)]
    for name in names[::10]:
        s3.put_object(Bucket=bucket, Key=name, Body=b"x")
    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": name} for name in names]})
    assert sorted(item["Key"] for item in done["Deleted"]) == sorted(names)
    assert "Errors" not in done
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_attributes(s3: Any, bucket: str) -> None:
    data = noise(1000)
    s3.put_object(Bucket=bucket, Key="k", Body=data, ChecksumAlgorithm="SHA256")
    told = s3.get_object_attributes(
        Bucket=bucket,
        Key="k",
        ObjectAttributes=["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"],
    )
    assert told["ETag"] == hashlib.md5(data).hexdigest()
    assert told["ObjectSize"] == 1000
    assert told["StorageClass"] == "STANDARD"
    expected = base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert told["Checksum"]["ChecksumSHA256"] == expected
    assert "ObjectParts" not in told


def test_what_is_missing_and_whose_it_is(s3: Any, other_s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert error_of(s3.get_object, Bucket=bucket, Key="none") == ("NoSuchKey", 404)
    assert error_of(s3.get_object, Bucket="no-such-bucket", Key="k") == ("NoSuchBucket", 404)
    assert error_of(other_s3.get_object, Bucket=bucket, Key="k") == ("AccessDenied", 403)
    refused = error_of(other_s3.put_object, Bucket=bucket, Key="k", Body=b"y")
    assert refused == ("AccessDenied", 403)
    source = {"Bucket": bucket, "Key": "k"}
    other_s3.create_bucket(Bucket=f"other-{bucket}")
    refused = error_of(other_s3.copy_object, Bucket=f"other-{bucket}", Key="to", CopySource=source)
    assert refused == ("AccessDenied", 403)
    other_s3.delete_bucket(Bucket=f"other-{bucket}")


def test_the_null_version_is_the_object_and_no_other_exists(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    where = {"Bucket": bucket, "Key": "k"}
    assert s3.get_object(**where, VersionId="null")["Body"].read() == b"x"
    assert error_of(s3.get_object, **where, VersionId="a" * 32) == ("NoSuchVersion", 404)
    assert error_of(s3.get_object, **where, VersionId="?") == ("InvalidArgument", 400)


def test_overwrites_under_concurrent_reads_are_never_torn(s3: Any, bucket: str) -> None:
    """A reader sees one version or the next, whole, though the old one's shards go."""
    bodies = [bytes([value]) * 1_200_000 for value in range(6)]
    s3.put_object(Bucket=bucket, Key="k", Body=bodies[0])
    torn: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            got = s3.get_object(Bucket=bucket, Key="k")["Body"].read()
            if got not in bodies:
                torn.append(f"{len(got)} bytes, {len(set(got))} values")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for body in bodies[1:]:
        s3.put_object(Bucket=bucket, Key="k", Body=body)
    done.set()
    for reader in readers:
        reader.join()
    assert not torn


def test_a_stream_of_unknown_shape_uploads_through_the_transfer_manager(
    s3: Any, bucket: str
) -> None:
    data = noise(6 << 20)
    s3.upload_fileobj(io.BytesIO(data), bucket, "k")
    target = io.BytesIO()
    s3.download_fileobj(bucket, "k", target)
    assert target.getvalue() == data


def test_user_metadata_outside_ascii_comes_back_byte_for_byte(
    store: StoreProcess, bucket: str
) -> None:
    # boto3 refuses such text itself: it goes into the request behind its back, as UTF-8.
    s3 = store.client()

    def add(params: dict[str, Any], **_: Any) -> None:
        params["headers"]["x-amz-meta-meta1"] = "Hello World\xe9\u20ac"

    s3.meta.events.register("before-call.s3.PutObject", add)
    s3.put_object(Bucket=bucket, Key="foo", Body=b"bar")
    for found in (s3.get_object, s3.head_object):
        value = found(Bucket=bucket, Key="foo")["Metadata"]["meta1"]
        # Python shows header bytes as latin-1.
        assert value.encode("latin-1").decode() == "Hello World\xe9\u20ac"


def test_an_overwrite_after_many_new_keys_is_as_any_other(s3: Any, bucket: str) -> None:
    # Enough for every worker to presume that the next key is new, too.
    for number in range(3 * ENOUGH_WHERE_READS_ARE_CHEAP):
        s3.put_object(Bucket=bucket, Key=f"key-{number}", Body=b"first")
    for number in range(8):
        s3.put_object(Bucket=bucket, Key=f"key-{number}", Body=b"second", Metadata={"n": "2"})
        got = s3.get_object(Bucket=bucket, Key=f"key-{number}")
        assert (got["Body"].read(), got["Metadata"]) == (b"second", {"n": "2"})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for number in range(8, 16):
        answer = s3.put_object(Bucket=bucket, Key=f"key-{number}", Body=b"third")
        assert answer["VersionId"] not in ("", "null")
        first = s3.get_object(Bucket=bucket, Key=f"key-{number}", VersionId="null")
        assert first["Body"].read() == b"first"
