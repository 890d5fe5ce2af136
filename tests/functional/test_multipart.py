"""Multipart uploads as boto3 makes them, against a running store."""

import hashlib
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig

from tests.functional.conftest import error_of
from tests.functional.store_process import StoreProcess

MIB = 1 << 20
PART = 5 * MIB


def body_of(seed: int, size_bytes: int) -> bytes:
    return hashlib.shake_128(seed.to_bytes(4, "big")).digest(size_bytes)


def begin(s3: Any, bucket: str, key: str, **arguments: Any) -> dict[str, Any]:
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key, **arguments)
    return {"Bucket": bucket, "Key": key, "UploadId": upload["UploadId"]}


def add(s3: Any, upload: dict[str, Any], number: int, body: bytes, **more: Any) -> dict[str, Any]:
    answer = s3.upload_part(**upload, PartNumber=number, Body=body, **more)
    part = {"PartNumber": number, "ETag": answer["ETag"]}
    part.update({name: answer[name] for name in answer if name.startswith("Checksum")})
    part.pop("ChecksumType", None)
    return part


def complete(s3: Any, upload: dict[str, Any], parts: list[dict[str, Any]], **more: Any) -> Any:
    return s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, **more)


def test_a_large_file_goes_up_in_threads_and_comes_back_equal(s3: Any, bucket: str) -> None:
    body = body_of(1, 23 * MIB + 17)
    config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(body), bucket, "file", Config=config)
    head = s3.head_object(Bucket=bucket, Key="file")
    assert head["ETag"].endswith('-5"')
    assert head["ContentLength"] == len(body)
    received = io.BytesIO()
    s3.download_fileobj(bucket, "file", received, Config=config)
    assert received.getvalue() == body
    span = s3.get_object(Bucket=bucket, Key="file", Range=f"bytes={PART - 3}-{PART + 3}")
    assert span["Body"].read() == body[PART - 3 : PART + 4]
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_parts_are_read_back_by_number(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket, "key", ChecksumAlgorithm="SHA256")
    bodies = [body_of(2, PART), body_of(3, 1000)]
    parts = [
        add(s3, upload, n, body, ChecksumAlgorithm="SHA256") for n, body in enumerate(bodies, 1)
    ]
    done = complete(s3, upload, parts)
    assert done["ChecksumType"] == "COMPOSITE"
    assert done["ChecksumSHA256"].endswith("-2")
    assert complete(s3, upload, parts)["ETag"] == done["ETag"]
    for number, body in enumerate(bodies, 1):
        answer = s3.get_object(Bucket=bucket, Key="key", PartNumber=number)
        assert answer["Body"].read() == body
        assert answer["PartsCount"] == 2
    told = s3.get_object_attributes(
        Bucket=bucket, Key="key", ObjectAttributes=["Checksum", "ObjectParts", "ObjectSize"]
    )
    assert told["ObjectParts"]["TotalPartsCount"] == 2
    assert told["ObjectSize"] == PART + 1000
    assert told["Checksum"]["ChecksumSHA256"] == done["ChecksumSHA256"]
    beyond = s3.get_object_attributes(
        Bucket=bucket, Key="key", ObjectAttributes=["ObjectParts"], PartNumberMarker=9
    )
    assert beyond["ObjectParts"]["NextPartNumberMarker"] == 0


def test_a_full_object_checksum_is_that_of_the_bytes(s3: Any, bucket: str) -> None:
    bodies = [body_of(4, PART), body_of(5, 77)]
    plain = s3.put_object(
        Bucket=bucket, Key="plain", Body=b"".join(bodies), ChecksumAlgorithm="CRC32"
    )
    upload = begin(s3, bucket, "key", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    parts = [
        add(s3, upload, n, body, ChecksumAlgorithm="CRC32") for n, body in enumerate(bodies, 1)
    ]
    wrong = {"ChecksumCRC32": "AAAAAA==", "ChecksumType": "FULL_OBJECT"}
    assert error_of(lambda: complete(s3, upload, parts, **wrong)) == ("BadDigest", 400)
    right = {"ChecksumCRC32": plain["ChecksumCRC32"], "ChecksumType": "FULL_OBJECT"}
    assert complete(s3, upload, parts, **right)["ChecksumCRC32"] == plain["ChecksumCRC32"]


def test_bad_completions_get_the_errors_of_s3(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket, "key")
    first, second = add(s3, upload, 1, b"small"), add(s3, upload, 2, b"last")
    for parts, error in (
        ([second, first], ("InvalidPartOrder", 400)),
        ([first, second], ("EntityTooSmall", 400)),
        ([{**first, "ETag": second["ETag"]}], ("InvalidPart", 400)),
        ([{"PartNumber": 3, "ETag": first["ETag"]}], ("InvalidPart", 400)),
    ):
        assert error_of(lambda given=parts: complete(s3, upload, given)) == error
    assert error_of(s3.complete_multipart_upload, **upload) == ("MalformedXML", 400)
    assert error_of(lambda: complete(s3, upload, [])) == ("MalformedXML", 400)
    complete(s3, upload, [first])
    assert error_of(s3.abort_multipart_upload, **upload) == ("NoSuchUpload", 404)


def test_an_aborted_upload_is_gone_and_its_bytes_are_reclaimed(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket, "key")
    part = add(s3, upload, 1, body_of(6, MIB))
    listed = s3.list_parts(**upload)
    assert [(p["PartNumber"], p["Size"]) for p in listed["Parts"]] == [(1, MIB)]
    pending = s3.list_multipart_uploads(Bucket=bucket)
    assert pending["Uploads"][0]["UploadId"] == upload["UploadId"]
    assert not pending["IsTruncated"]
    assert (pending["NextKeyMarker"], pending["NextUploadIdMarker"]) == ("key", upload["UploadId"])
    s3.abort_multipart_upload(**upload)
    assert error_of(s3.list_parts, **upload) == ("NoSuchUpload", 404)
    assert error_of(lambda: complete(s3, upload, [part])) == ("NoSuchUpload", 404)
    assert error_of(lambda: add(s3, upload, 2, b"x")) == ("NoSuchUpload", 404)


def test_of_completions_with_if_none_match_exactly_one_wins(s3: Any, bucket: str) -> None:
    uploads = [begin(s3, bucket, "key") for _ in range(6)]
    parts = [add(s3, upload, 1, bytes([n])) for n, upload in enumerate(uploads)]
    barrier = threading.Barrier(len(uploads))

    def race(index: int) -> str:
        barrier.wait()
        try:
            complete(s3, uploads[index], [parts[index]], IfNoneMatch="*")
        except s3.exceptions.ClientError as error:
            return str(error.response["Error"]["Code"])
        return "won"

    with ThreadPoolExecutor(len(uploads)) as threads:
        outcomes = list(threads.map(race, range(len(uploads))))
    assert outcomes.count("won") == 1
    assert set(outcomes) <= {"won", "PreconditionFailed", "ConditionalRequestConflict"}
    winner = outcomes.index("won")
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == bytes([winner])


def test_parts_are_copied_from_objects(s3: Any, bucket: str) -> None:
    body = body_of(7, 2 * PART)
    s3.put_object(Bucket=bucket, Key="source é", Body=body)
    upload = begin(s3, bucket, "key")
    source = {"Bucket": bucket, "Key": "source é"}
    parts = []
    for number, span in ((1, f"bytes=0-{PART - 1}"), (2, f"bytes={PART}-{2 * PART - 1}")):
        answer = s3.upload_part_copy(
            **upload, PartNumber=number, CopySource=source, CopySourceRange=span
        )
        parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
    complete(s3, upload, parts)
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == body


def test_another_account_sees_nothing_of_an_upload(s3: Any, other_s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket, "key")
    for call, arguments in (
        (other_s3.list_parts, upload),
        (other_s3.abort_multipart_upload, upload),
        (other_s3.list_multipart_uploads, {"Bucket": bucket}),
        (other_s3.create_multipart_upload, {"Bucket": bucket, "Key": "key"}),
        (other_s3.upload_part, {**upload, "PartNumber": 1, "Body": b"x"}),
    ):
        assert error_of(call, **arguments) == ("AccessDenied", 403)


@pytest.mark.slow
def test_thousands_of_parts_are_listed_in_pages_and_those_unused_reclaimed(
    s3: Any, bucket: str
) -> None:
    upload = begin(s3, bucket, "key")
    with ThreadPoolExecutor(8) as threads:
        parts = list(threads.map(lambda n: add(s3, upload, n, b"part"), range(1, 2001)))
    pages = list(s3.get_paginator("list_parts").paginate(**upload))
    assert [len(page["Parts"]) for page in pages] == [1000, 1000]
    assert error_of(lambda: complete(s3, upload, parts)) == ("EntityTooSmall", 400)
    complete(s3, upload, parts[-1:])
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"part"


@pytest.mark.slow
def test_an_upload_survives_the_death_of_the_store(directory: Path) -> None:
    store = StoreProcess(directory).start()
    try:
        s3 = store.client()
        s3.create_bucket(Bucket="bucket")
        upload = begin(s3, "bucket", "key")
        bodies = [body_of(8, PART), body_of(9, 100)]
        parts = [add(s3, upload, 1, bodies[0])]
        store.kill()
        s3 = store.start().client()
        parts.append(add(s3, upload, 2, bodies[1]))
        done = complete(s3, upload, parts)
        store.kill()
        s3 = store.start().client()
        assert complete(s3, upload, parts)["ETag"] == done["ETag"]
        assert s3.get_object(Bucket="bucket", Key="key")["Body"].read() == b"".join(bodies)
    finally:
        store.kill()
