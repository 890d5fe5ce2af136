"""Bodies as other SDKs send them: aws-chunked inside HTTP's chunked coding, without a length."""

import base64
import http.client
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.functional.store_process import StoreProcess


def put(store: StoreProcess, path: str, data: bytes, checksum: str) -> tuple[int, bytes]:
    """PUT with trailing CRC32; status and body."""
    pieces = [data[start : start + 65_536] for start in range(0, len(data), 65_536)]

    def body() -> Iterator[bytes]:
        for piece in pieces:
            yield b"%x\r\n%s\r\n" % (len(piece), piece)
        yield b"0\r\nx-amz-checksum-crc32:%s\r\n\r\n" % checksum.encode()

    request = AWSRequest(
        "PUT",
        store.endpoint + path,
        headers={
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": str(len(data)),
            "x-amz-trailer": "x-amz-checksum-crc32",
        },
        data=b"",
    )
    # Makes botocore sign STREAMING-UNSIGNED-PAYLOAD-TRAILER as the payload.
    request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
    S3SigV4Auth(Credentials(*store.credentials), "s3", "us-east-1").add_auth(request)
    connection = http.client.HTTPConnection(urlsplit(store.endpoint).netloc, timeout=30)
    try:
        headers = {name: str(value) for name, value in request.headers.items()}
        connection.request("PUT", path, body(), headers, encode_chunked=True)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_body_without_length_is_stored_and_its_trailer_verified(
    store: StoreProcess, s3: Any, bucket: str
) -> None:
    data = bytes(range(256)) * 8192  # 2 MiB
    right = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    status, answer = put(store, f"/{bucket}/chunked", data, right)
    assert status == 200, answer
    assert s3.get_object(Bucket=bucket, Key="chunked")["Body"].read() == data
    wrong = base64.b64encode(bytes(4)).decode()
    status, answer = put(store, f"/{bucket}/other", data, wrong)
    assert status == 400
    assert b"BadDigest" in answer
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
