"""Checksums: known values, sums over parts, headers; and what a payload verifies."""

import asyncio
import base64
import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.checksums import (
    ChecksumAlgorithm,
    ChecksumType,
    Digests,
    checksum_of,
    composite,
    format_checksum,
    full_object,
    upload_checksum,
)
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.payload import BytesBody, gather_unsized, make_payload
from gateway.s3.signature import STREAMING_SIGNED, Verified

CHECK = b"123456789"
KNOWN = {
    ChecksumAlgorithm.CRC32: "cbf43926",
    ChecksumAlgorithm.CRC32C: "e3069283",
    ChecksumAlgorithm.CRC64NVME: "ae8b14860a799888",
    ChecksumAlgorithm.SHA1: hashlib.sha1(CHECK).hexdigest(),
    ChecksumAlgorithm.SHA256: hashlib.sha256(CHECK).hexdigest(),
    ChecksumAlgorithm.SHA512: hashlib.sha512(CHECK).hexdigest(),
    ChecksumAlgorithm.MD5: hashlib.md5(CHECK).hexdigest(),
    ChecksumAlgorithm.XXHASH64: "8cb841db40e6ae83",
    ChecksumAlgorithm.XXHASH3: "72dcb18b67a17dff",
    ChecksumAlgorithm.XXHASH128: "33119477ede5dcd5e9716427681d5860",
}
CRCS = [algorithm for algorithm in ChecksumAlgorithm if algorithm.is_crc]


@pytest.mark.parametrize("algorithm", list(ChecksumAlgorithm))
def test_check_values(algorithm: ChecksumAlgorithm) -> None:
    value = checksum_of(algorithm, CHECK)
    assert value.hex() == KNOWN[algorithm]
    assert algorithm.decode(format_checksum(value)) == value
    for text in ("", "!", format_checksum(value[1:]), format_checksum(value) + "=", "é"):
        with pytest.raises(S3Error, match=f"Value for {algorithm.header} header is invalid"):
            algorithm.decode(text)


@given(st.lists(st.binary(max_size=100), max_size=6), st.sampled_from(list(ChecksumAlgorithm)))
def test_both_halves_see_everything(pieces: list[bytes], algorithm: ChecksumAlgorithm) -> None:
    digests = Digests(algorithm, payload_sha256=True)
    for piece in pieces:
        digests.update_md5(memoryview(piece))
        digests.update_rest(memoryview(piece))
    whole = b"".join(pieces)
    assert digests.md5 == hashlib.md5(whole).digest()
    assert digests.payload_sha256 == hashlib.sha256(whole).digest()
    assert digests.checksum == checksum_of(algorithm, whole)


@given(st.lists(st.binary(max_size=100), max_size=6), st.sampled_from(CRCS))
def test_full_object_checksums_add_up(parts: list[bytes], algorithm: ChecksumAlgorithm) -> None:
    sums = [(checksum_of(algorithm, part), len(part)) for part in parts]
    assert full_object(algorithm, sums) == checksum_of(algorithm, b"".join(parts))


def test_composite_checksums() -> None:
    parts = [checksum_of(ChecksumAlgorithm.CRC32, part) for part in (b"a", b"b")]
    expected = zlib.crc32(b"".join(parts)).to_bytes(4, "big")
    assert composite(ChecksumAlgorithm.CRC32, parts) == expected
    assert format_checksum(expected, 2).endswith("-2")


def test_upload_checksums() -> None:
    algorithm, kind = "x-amz-checksum-algorithm", "x-amz-checksum-type"
    assert upload_checksum({}) is None
    assert upload_checksum({algorithm: "crc32"}) == (
        ChecksumAlgorithm.CRC32,
        ChecksumType.COMPOSITE,
    )
    assert upload_checksum({algorithm: "CRC64NVME"}) == (
        ChecksumAlgorithm.CRC64NVME,
        ChecksumType.FULL_OBJECT,
    )
    assert upload_checksum({algorithm: "XXHASH3"}) == (
        ChecksumAlgorithm.XXHASH3,
        ChecksumType.COMPOSITE,
    )
    for headers, code in (
        ({kind: "COMPOSITE"}, ErrorCode.INVALID_REQUEST),
        ({algorithm: "MD4"}, ErrorCode.INVALID_REQUEST),
        ({algorithm: "XXHASH64", kind: "FULL_OBJECT"}, ErrorCode.INVALID_REQUEST),
        ({algorithm: "CRC64NVME", kind: "COMPOSITE"}, ErrorCode.INVALID_REQUEST),
        ({algorithm: "SHA1", kind: "FULL_OBJECT"}, ErrorCode.INVALID_REQUEST),
        ({algorithm: "CRC32", kind: "HALF"}, ErrorCode.INVALID_REQUEST),
    ):
        with pytest.raises(S3Error) as caught:
            upload_checksum(headers)
        assert caught.value.code is code


BODY = b"hello"
MD5 = base64.b64encode(hashlib.md5(BODY).digest()).decode()
CRC = base64.b64encode(zlib.crc32(BODY).to_bytes(4, "big")).decode()
SHA = hashlib.sha256(BODY).hexdigest()


def read(headers: dict[str, str], form: str = "UNSIGNED-PAYLOAD") -> bytes:
    payload = make_payload(headers, BytesBody(BODY), Verified(form))
    return asyncio.run(payload.read_document(100))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-md5": MD5},
        {"x-amz-checksum-crc32": CRC},
        {"x-amz-checksum-crc32": CRC, "x-amz-sdk-checksum-algorithm": "CRC32"},
    ],
)
def test_right_announcements_pass(headers: dict[str, str]) -> None:
    assert read(headers) == BODY
    assert read(headers, SHA) == BODY
    assert read(headers, SHA.upper()) == BODY


@pytest.mark.parametrize(
    ("headers", "form", "code"),
    [
        ({}, "0" * 64, ErrorCode.X_AMZ_CONTENT_SHA256_MISMATCH),
        ({"content-md5": ""}, "", ErrorCode.INVALID_DIGEST),
        ({"content-md5": "YWJyYWNhZGFicmE="}, "", ErrorCode.INVALID_DIGEST),
        ({"content-md5": "AWS HAHAHA"}, "", ErrorCode.INVALID_DIGEST),
        ({"content-md5": "rL0Y20xC+Fzt72VPzMSk2A=="}, "", ErrorCode.BAD_DIGEST),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, "", ErrorCode.BAD_DIGEST),
        ({"x-amz-checksum-crc32": "AAAA"}, "", ErrorCode.INVALID_REQUEST),
        ({"x-amz-checksum-crc33": "AAAA"}, "", ErrorCode.INVALID_REQUEST),
        ({"x-amz-checksum-sha512": "AAAA"}, "", ErrorCode.INVALID_REQUEST),
        ({"x-amz-checksum-xxhash64": "AAAAAAAAAAA="}, "", ErrorCode.BAD_DIGEST),
        (
            {"x-amz-checksum-crc32": CRC, "x-amz-checksum-crc32c": CRC},
            "",
            ErrorCode.INVALID_REQUEST,
        ),
        ({"x-amz-sdk-checksum-algorithm": "CRC32"}, "", ErrorCode.INVALID_REQUEST),
        (
            {"x-amz-checksum-crc32": CRC, "x-amz-sdk-checksum-algorithm": "SHA1"},
            "",
            ErrorCode.INVALID_REQUEST,
        ),
        ({"x-amz-trailer": "x-amz-checksum-crc32"}, "", ErrorCode.INVALID_REQUEST),
        ({"x-amz-trailer": "x-other"}, "", ErrorCode.INVALID_REQUEST),
        ({}, STREAMING_SIGNED, ErrorCode.MISSING_CONTENT_LENGTH),
        ({"x-amz-decoded-content-length": "-1"}, STREAMING_SIGNED, ErrorCode.INVALID_ARGUMENT),
        ({"x-amz-decoded-content-length": "5"}, STREAMING_SIGNED, ErrorCode.INVALID_ARGUMENT),
    ],
)
def test_wrong_announcements(headers: dict[str, str], form: str, code: ErrorCode) -> None:
    with pytest.raises(S3Error) as caught:
        read(headers, form or "UNSIGNED-PAYLOAD")
    assert caught.value.code is code


def test_checksums_of_something_else_than_the_body() -> None:
    payload = make_payload(
        {"x-amz-checksum-crc32": "AAAAAA=="},
        BytesBody(BODY),
        Verified("UNSIGNED-PAYLOAD"),
        body_checksums=False,
    )
    assert asyncio.run(payload.read_document(100)) == BODY


def test_limits_and_lengths() -> None:
    payload = make_payload({}, BytesBody(BODY), Verified("UNSIGNED-PAYLOAD"))
    with pytest.raises(S3Error) as caught:
        asyncio.run(payload.read_document(4))
    assert caught.value.code is ErrorCode.MAX_MESSAGE_LENGTH_EXCEEDED
    with pytest.raises(S3Error) as caught:
        make_payload({}, BytesBody(b""), Verified("UNSIGNED-PAYLOAD"), length_required=True)
    assert caught.value.code is ErrorCode.MISSING_CONTENT_LENGTH


def test_a_body_of_unknown_length_is_gathered_up_to_a_bound() -> None:
    raw = BytesBody(BODY)
    raw.size_bytes = None
    assert asyncio.run(gather_unsized(raw)).size_bytes == 5
    raw = BytesBody(b"x" * (1024 * 1024 + 1))
    raw.size_bytes = None
    with pytest.raises(S3Error) as caught:
        asyncio.run(gather_unsized(raw))
    assert caught.value.code is ErrorCode.MISSING_CONTENT_LENGTH
