"""SigV2 against botocore's own signers, in the header and presigned."""

import hmac
import time
from base64 import b64encode
from email.utils import formatdate
from typing import Any

import pytest
from botocore.auth import HmacV1Auth, HmacV1QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.authentication import parse_claim
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import S3Request
from gateway.s3.signature import Verified
from tests.unit.s3_requests import request_of

ACCESS_KEY = "AKIAEXAMPLE"
SECRET = "secret/example+key"
CREDENTIALS = Credentials(ACCESS_KEY, SECRET)


def signed(
    method: str, url: str, headers: dict[str, str] | None = None, *, bucket_in_host: str = ""
) -> S3Request:
    request = AWSRequest(method=method, url=url, headers=headers or {}, data=b"")
    if bucket_in_host:
        path = url.split("/", 3)[3].split("?")[0]
        request.auth_path = f"/{bucket_in_host}/{path}"
    HmacV1Auth(CREDENTIALS, "s3", "us-east-1").add_auth(request)
    return request_of(
        method, url, {k: str(v) for k, v in request.headers.items()}, domains=("example.com",)
    )


def presigned(
    method: str, url: str, expires: int = 600, headers: dict[str, str] | None = None
) -> S3Request:
    request = AWSRequest(method=method, url=url, headers=headers or {})
    HmacV1QueryAuth(CREDENTIALS, expires=expires).add_auth(request)
    return request_of(method, str(request.url), {})


def verify(request: S3Request, *, secret: str = SECRET, now: float | None = None) -> Verified:
    claim = parse_claim(request, region="us-east-1")
    assert claim is not None
    assert claim.access_key == ACCESS_KEY
    return claim.verify(secret, time.time() if now is None else now)


def code_of(request: S3Request, **options: Any) -> ErrorCode:
    with pytest.raises(S3Error) as caught:
        verify(request, **options)
    return caught.value.code


URLS = [
    "http://localhost:9000/",
    "http://localhost:9000/bucket?acl",
    "http://localhost:9000/bucket/k%20y?uploadId=a%2Bb%3D&partNumber=3&x=y",
    "http://localhost:9000/bucket/k?response-content-type=text%2Fplain&versionId=null",
    "http://localhost:9000/bucket?delete&prefix=z",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_what_botocore_signs_verifies(method: str, url: str) -> None:
    headers = {"Content-Type": "text/plain", "Content-MD5": "abc", "x-amz-meta-b": " x  y "}
    headers["x-amz-meta-a"] = "1"
    request = signed(method, url, {**headers, "x-amz-meta-b": "x y"})
    assert verify(request).content_sha256 == "UNSIGNED-PAYLOAD"
    request.headers["content-type"] = "text/html"
    assert code_of(request) is ErrorCode.SIGNATURE_DOES_NOT_MATCH


@pytest.mark.parametrize("url", URLS)
def test_what_botocore_presigns_verifies(url: str) -> None:
    verify(presigned("GET", url))
    assert code_of(presigned("GET", url), now=time.time() + 700) is ErrorCode.REQUEST_EXPIRED
    request = presigned("GET", url)
    request.method = "PUT"
    assert code_of(request) is ErrorCode.SIGNATURE_DOES_NOT_MATCH


def test_the_bucket_of_a_virtual_host_is_signed() -> None:
    for url in ("http://b.example.com/", "http://b.example.com/key?acl"):
        request = signed("GET", url, bucket_in_host="b")
        assert request.virtual_host
        verify(request)


@given(st.text(min_size=1, max_size=30))
def test_any_key_that_botocore_presigns_verifies(key: str) -> None:
    from botocore.utils import percent_encode

    key = key.encode("utf-8", "replace").decode()
    request = presigned("GET", f"http://h/b/{percent_encode(key, safe='/~')}")
    assert request.key == key
    verify(request)


@pytest.mark.parametrize(
    ("date", "code"),
    [
        ("Bad Date", ErrorCode.DATE_MISSING),
        ("", ErrorCode.DATE_MISSING),
        ("Tue, 07 Jul 1950 21:53:04 GMT", ErrorCode.DATE_MISSING),
        ("Tue, 07 Jul 2010 21:53:04 GMT", ErrorCode.REQUEST_TIME_TOO_SKEWED),
        ("Tue, 07 Jul 9999 21:53:04 GMT", ErrorCode.REQUEST_TIME_TOO_SKEWED),
    ],
)
def test_dates(date: str, code: ErrorCode) -> None:
    request = signed("PUT", "http://h/b/k")
    request.headers["x-amz-date"] = date
    assert code_of(request) is code


def test_malformed_claims() -> None:
    for text in ("AWS HAHAHA", "AWS :x", "AWS x:", "AWS "):
        request = signed("GET", "http://h/b")
        request.headers["authorization"] = text
        assert code_of(request) is ErrorCode.INVALID_ARGUMENT
    for name in ("Expires", "AWSAccessKeyId", "Signature"):
        request = presigned("GET", "http://h/b")
        del request.query[name]
        assert code_of(request) is ErrorCode.ACCESS_DENIED
    request = presigned("GET", "http://h/b")
    request.query["Expires"] = "soon"
    assert code_of(request) is ErrorCode.ACCESS_DENIED
    assert code_of(signed("GET", "http://h/b"), secret="x") is ErrorCode.SIGNATURE_DOES_NOT_MATCH


def test_a_buckets_path_may_be_signed_with_a_slash_that_is_not_sent() -> None:
    """As boto3 does; a key's path may not, and a slash that is sent is always signed."""

    def signed_as(path: str, sent: str) -> S3Request:
        request = AWSRequest(method="PUT", url=f"http://localhost:9000{sent}", data=b"")
        request.auth_path = path
        HmacV1Auth(CREDENTIALS, "s3", "us-east-1").add_auth(request)
        headers = {name: str(value) for name, value in request.headers.items()}
        return request_of("PUT", f"http://localhost:9000{sent}", headers)

    for path, sent in (("/bucket/", "/bucket"), ("/bucket/", "/bucket/"), ("/bucket", "/bucket")):
        verify(signed_as(path, sent))
    verify(signed_as("/bucket/", "/bucket?acl"))
    for path, sent in (("/bucket", "/bucket/"), ("/bucket/key/", "/bucket/key")):
        assert code_of(signed_as(path, sent)) is ErrorCode.SIGNATURE_DOES_NOT_MATCH


def signed_text(text: bytes, method: str, url: str, headers: dict[str, str]) -> S3Request:
    """A request whose client signed `text` for it."""
    signature = b64encode(hmac.digest(SECRET.encode(), text, "sha1")).decode()
    headers = {**headers, "Authorization": f"AWS {ACCESS_KEY}:{signature}"}
    return request_of(method, url, headers)


def test_an_argument_sent_with_an_empty_value_may_be_signed_without_it() -> None:
    """As minio-go does: it sends `policy=` and signs `policy`."""
    date = formatdate(usegmt=True)
    for signed_as, path, arguments in (
        ("/b/?policy", "/b/", "policy="),
        ("/b/?policy", "/b", "policy="),
        ("/b?policy", "/b", "policy="),
        ("/b/?policy=", "/b", "policy="),
        ("/b/k?uploads", "/b/k", "uploads="),
        ("/b/k?uploadId=a&uploads", "/b/k", "uploads=&uploadId=a"),
    ):
        text = f"PUT\n\n\n{date}\n{signed_as}".encode()
        url = f"http://h{path}?{arguments}"
        verify(signed_text(text, "PUT", url, {"Date": date}))
        other = url.replace("=", "=x", 1)
        assert code_of(signed_text(text, "PUT", other, {"Date": date})) is (
            ErrorCode.SIGNATURE_DOES_NOT_MATCH
        )


def test_bytes_of_utf8_are_not_blanks() -> None:
    """Header values are bytes read as latin-1, where 85 and A0 would be white space."""
    date = formatdate(usegmt=True)
    for value in ("à", "\u0645a\u0645", "a à", "x\u00a0 y"):
        raw = value.encode().decode("latin-1")
        text = f"PUT\n\n\n{date}\nx-amz-meta-a:{value}\n/b/k".encode()
        verify(signed_text(text, "PUT", "http://h/b/k", {"Date": date, "x-amz-meta-a": raw}))


def test_headers_that_a_presigned_url_carries_in_its_query_are_signed_and_count() -> None:
    """botocore and the JavaScript SDK put them there."""
    headers = {
        "x-amz-acl": "public-read",
        "x-amz-meta-a": "é".encode().decode("latin-1"),
        "Content-Type": "text/plain",
    }
    request = presigned("PUT", "http://h/b/k", headers=headers)
    assert "x-amz-acl=public-read" in request.raw_query.decode()
    assert request.headers.keys() == {"host"}
    verify(request)
    assert request.headers["x-amz-acl"] == "public-read"
    assert request.headers["content-type"] == "text/plain"
    request = presigned("PUT", "http://h/b/k", headers=headers)
    request.query["x-amz-acl"] = "private"
    assert code_of(request) is ErrorCode.SIGNATURE_DOES_NOT_MATCH


def test_nothing_may_be_added_to_the_query_that_stands_for_a_header() -> None:
    request = presigned("PUT", "http://h/b/k")
    request.query["x-amz-acl"] = "public-read"
    assert code_of(request) is ErrorCode.SIGNATURE_DOES_NOT_MATCH
    request = signed("PUT", "http://h/b/k?x-amz-acl=public-read")
    verify(request)
    assert "x-amz-acl" not in request.headers  # only presigned URLs carry headers there


@pytest.mark.parametrize("query", ["x-amz-meta-a=a%0d%0aX-B:c", "x-amz-meta-%0d%0a=a"])
def test_what_could_be_no_header_is_refused(query: str) -> None:
    text = {"x-amz-meta-a=a%0d%0aX-B:c": "x-amz-meta-a:a\r\nX-B:c"}.get(query, "x-amz-meta-\r\n:a")
    string_to_sign = f"GET\n\n\n9999999999\n{text}\n/b/k".encode()
    signature = b64encode(hmac.digest(SECRET.encode(), string_to_sign, "sha1")).decode()
    url = f"http://h/b/k?AWSAccessKeyId={ACCESS_KEY}&Expires=9999999999&{query}"
    request = request_of("GET", url, {})
    request.query["Signature"] = signature
    assert code_of(request) is ErrorCode.INVALID_ARGUMENT
