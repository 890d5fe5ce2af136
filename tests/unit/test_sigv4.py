"""SigV4 against botocore's own signers: what they sign verifies, what is changed does not."""

import hashlib
import hmac
import time
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3 import sigv4
from gateway.s3.authentication import parse_claim
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import S3Request
from gateway.s3.signature import Verified
from tests.unit.s3_requests import request_of

ACCESS_KEY = "AKIAEXAMPLE/WITH/SLASH"
SECRET = "secret/example+key"


def signed(
    method: str, url: str, headers: dict[str, str] | None = None, data: bytes = b""
) -> S3Request:
    request = AWSRequest(method=method, url=url, headers=headers or {}, data=data)
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET), "s3", "us-east-1").add_auth(request)
    return request_of(method, url, {k: str(v) for k, v in request.headers.items()})


def presigned(
    method: str, url: str, expires: int = 600, headers: dict[str, str] | None = None
) -> S3Request:
    request = AWSRequest(method=method, url=url, headers=headers or {})
    S3SigV4QueryAuth(Credentials(ACCESS_KEY, SECRET), "s3", "us-east-1", expires=expires).add_auth(
        request
    )
    return request_of(method, str(request.url), {k: str(v) for k, v in request.headers.items()})


def verify(
    request: S3Request, *, secret: str = SECRET, now: float | None = None, region: str = "us-east-1"
) -> Verified:
    claim = parse_claim(request, region=region)
    assert claim is not None
    assert claim.access_key == ACCESS_KEY
    return claim.verify(secret, time.time() if now is None else now)


def code_of(request: S3Request, **options: Any) -> ErrorCode:
    with pytest.raises(S3Error) as caught:
        verify(request, **options)
    return caught.value.code


URLS = [
    "http://localhost:9000/",
    "http://localhost/bucket?list-type=2&prefix=a%20b%2Fc&delimiter=%2F&a-b=1&a=2",
    "http://localhost:9000/bucket/key?uploads",
    "http://localhost:9000/bucket//a/../b/./c%20d%2B%C3%A9~",
    "http://localhost:9000/bucket/k?uploadId=abc%3D%3D&partNumber=3",
    "https://b.example.com/key?versionId=null&response-content-type=text%2Fplain",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_what_botocore_signs_in_the_header_verifies(method: str, url: str) -> None:
    result = verify(signed(method, url, {"x-amz-meta-a": "  two   words ", "Content-MD5": "x"}))
    assert len(result.seed_signature) == 64
    assert "secret" not in repr(result)


@pytest.mark.parametrize("url", URLS)
def test_what_botocore_presigns_verifies(url: str) -> None:
    assert verify(presigned("GET", url)).content_sha256 == "UNSIGNED-PAYLOAD"


@given(key=st.text(min_size=1, max_size=40), prefix=st.text(max_size=20))
def test_any_key_and_query_that_botocore_signs_verifies(key: str, prefix: str) -> None:
    from botocore.utils import percent_encode

    key, prefix = (t.encode("utf-8", "replace").decode() for t in (key, prefix))
    url = f"http://h/b/{percent_encode(key, safe='/~')}?prefix={percent_encode(prefix)}"
    request = signed("GET", url)
    assert request.key == key
    assert request.query["prefix"] == prefix
    verify(request)


def test_characters_that_need_no_escape_in_a_path_are_signed_escaped() -> None:
    request = signed("GET", "http://h/b/a%20%28b%29%2B%3D")
    request.raw_path = b"/b/a%20(b)+="
    verify(request)


def test_utf8_header_values_verify() -> None:
    request = AWSRequest(method="PUT", url="http://h/b/k", headers={"x-amz-meta-a": "é€"})
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET), "s3", "us-east-1").add_auth(request)
    headers = {k: str(v).encode().decode("latin-1") for k, v in request.headers.items()}
    verify(request_of("PUT", "http://h/b/k", headers))


def test_latin1_header_values_that_were_signed_as_utf8_verify() -> None:
    # What botocore signs is UTF-8; http.client then sends the text as latin-1.
    request = signed("PUT", "http://h/b/k", {"x-amz-meta-a": "Hello World\xe9"})
    request.headers["x-amz-meta-a"] = "Hello World\xe9"
    verify(request)
    request.headers["x-amz-meta-a"] = "Hello World\xe8"
    assert code_of(request) is ErrorCode.SIGNATURE_DOES_NOT_MATCH


def test_everything_that_was_signed_matters() -> None:
    def fresh() -> S3Request:
        return signed("PUT", "http://h/b/k?partNumber=1&uploadId=2", {"x-amz-meta-a": "1"})

    verify(fresh())
    changed = fresh()
    changed.method = "GET"
    assert code_of(changed) is ErrorCode.SIGNATURE_DOES_NOT_MATCH
    changed = fresh()
    changed.raw_path = b"/b/K"
    assert code_of(changed) is ErrorCode.SIGNATURE_DOES_NOT_MATCH
    changed = fresh()
    changed.raw_query = b"partNumber=2&uploadId=2"
    assert code_of(changed) is ErrorCode.SIGNATURE_DOES_NOT_MATCH
    changed = fresh()
    changed.headers["x-amz-meta-a"] = "2"
    assert code_of(changed) is ErrorCode.SIGNATURE_DOES_NOT_MATCH
    changed = fresh()
    changed.headers["host"] = "other"
    assert code_of(changed) is ErrorCode.SIGNATURE_DOES_NOT_MATCH
    changed = fresh()
    changed.headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
    assert code_of(changed) is ErrorCode.SIGNATURE_DOES_NOT_MATCH
    assert code_of(fresh(), secret="other") is ErrorCode.SIGNATURE_DOES_NOT_MATCH
    changed = fresh()
    changed.headers["authorization"] = changed.headers["authorization"][:-64] + "é" * 64
    assert code_of(changed) is ErrorCode.SIGNATURE_DOES_NOT_MATCH


def test_an_unsigned_amz_header_is_refused() -> None:
    request = signed("PUT", "http://h/b/k")
    request.headers["x-amz-acl"] = "public-read"
    assert code_of(request) is ErrorCode.HEADERS_NOT_SIGNED
    request = presigned("PUT", "http://h/b/k")
    request.headers["x-amz-acl"] = "public-read"
    assert code_of(request) is ErrorCode.HEADERS_NOT_SIGNED


def test_headers_in_a_presigned_query_count_once_it_is_verified() -> None:
    request = presigned(
        "PUT",
        "http://h/b/k?x-amz-meta-a=%C3%A9&x-amz-acl=public-read&prefix=p&x-amz-checksum-crc32=AAAAAA%3D%3D"
        "&x-amz-sdk-checksum-algorithm=CRC32&x-amz-checksum-algorithm=SHA1",
    )
    before = dict(request.headers)
    with pytest.raises(S3Error):
        verify(request, secret="other")
    assert request.headers == before
    verify(request)
    added = {k: v for k, v in request.headers.items() if k not in before}
    assert added == {
        "x-amz-meta-a": "é".encode().decode("latin-1"),
        "x-amz-acl": "public-read",
        "x-amz-checksum-algorithm": "SHA1",
    }


def test_conditions_in_a_presigned_query_count() -> None:
    request = presigned("PUT", "http://h/b/k?If-None-Match=%2A&If-Match=%22aa%22")
    verify(request)
    assert (request.headers["if-none-match"], request.headers["if-match"]) == ("*", '"aa"')


def test_a_presigned_url_may_come_with_a_payload_hash_that_it_does_not_sign() -> None:
    request = presigned("PUT", "http://h/b/k")
    request.headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
    verify(request)
    request = signed("PUT", "http://h/b/k")
    names = request.headers["authorization"]
    request.headers["authorization"] = names.replace("x-amz-content-sha256;", "")
    assert code_of(request) is ErrorCode.HEADERS_NOT_SIGNED


def signed_at(request: S3Request) -> int:
    stamp = request.headers.get("x-amz-date") or request.query["X-Amz-Date"]
    seconds = sigv4.timestamp_seconds(stamp)
    assert seconds is not None
    return seconds


def test_time_windows() -> None:
    request = signed("GET", "http://h/b/k")
    at = signed_at(request)
    verify(request, now=at + 899)
    assert code_of(request, now=at + 901) is ErrorCode.REQUEST_TIME_TOO_SKEWED
    assert code_of(request, now=at - 901) is ErrorCode.REQUEST_TIME_TOO_SKEWED
    request = presigned("GET", "http://h/b/k", 5000)
    at = signed_at(request)
    verify(request, now=at + 4999)
    assert code_of(request, now=at + 5001) is ErrorCode.REQUEST_EXPIRED
    assert code_of(request, now=at - 901) is ErrorCode.REQUEST_NOT_YET_VALID


def test_another_region_is_named_with_ours() -> None:
    with pytest.raises(S3Error) as caught:
        verify(signed("GET", "http://h/b/k"), region="eu-west-1")
    assert caught.value.code is ErrorCode.AUTHORIZATION_HEADER_MALFORMED
    assert caught.value.details["Region"] == "eu-west-1"
    verify(signed("GET", "http://h/b?location"), region="eu-west-1")


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("AWS4-HMAC-SHA256", ErrorCode.AUTHORIZATION_HEADER_MALFORMED),
        ("AWS4-HMAC-SHA256 Credential=a/20250101/us-east-1/s3/aws4_request", None),
        ("AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=b", None),
        (
            "AWS4-HMAC-SHA256 Credential=a/x/us-east-1/s3/aws4_request,SignedHeaders=host,Signature=b",
            None,
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a/20250101/us-east-1/sts/aws4_request,SignedHeaders=host,Signature=b",
            None,
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a/20250101/us-east-1/s3/aws5,SignedHeaders=host,Signature=b",
            None,
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a/20250101/us-east-1/s3/aws4_request,SignedHeaders=host,Signature=b",
            None,
        ),
        ("AWS4-HMAC-SHA256 " + "," * 5000, None),
        ("AWS4-ECDSA-P256-SHA256 Credential=a", ErrorCode.NOT_IMPLEMENTED),
        ("Bearer x", ErrorCode.INVALID_ARGUMENT),
        ("AWS HAHAHA", ErrorCode.INVALID_ARGUMENT),
    ],
)
def test_malformed_authorization(authorization: str, code: ErrorCode | None) -> None:
    request = signed("GET", "http://h/b/k")
    request.headers["authorization"] = authorization
    with pytest.raises(S3Error) as caught:
        parse_claim(request, region="us-east-1")
    assert caught.value.code is (code or ErrorCode.AUTHORIZATION_HEADER_MALFORMED)


@given(st.text(max_size=200), st.text(max_size=30))
def test_random_authorization_never_crashes(text: str, date: str) -> None:
    request = signed("GET", "http://h/b/k")
    request.headers["authorization"] = "AWS4-HMAC-SHA256 " + text
    request.headers["x-amz-date"] = date
    with pytest.raises(S3Error):
        parse_claim(request, region="us-east-1")


def test_no_signature_is_anonymous_and_two_are_refused() -> None:
    request = signed("GET", "http://h/b/k")
    request.query["X-Amz-Algorithm"] = "AWS4-HMAC-SHA256"
    assert code_of(request) is ErrorCode.INVALID_ARGUMENT
    assert parse_claim(request_of("GET", "http://h/b", {}), region="us-east-1") is None
    anonymous = request_of("GET", "http://h/b", {"Authorization": ""})
    assert parse_claim(anonymous, region="us-east-1") is None


def test_missing_pieces() -> None:
    request = signed("GET", "http://h/b/k")
    del request.headers["x-amz-date"]
    assert code_of(request) is ErrorCode.DATE_MISSING
    request = signed("GET", "http://h/b/k")
    del request.headers["x-amz-content-sha256"]
    assert code_of(request) is ErrorCode.INVALID_REQUEST
    request = signed("GET", "http://h/b/k")
    request.headers["x-amz-content-sha256"] = "nonsense"
    assert code_of(request) is ErrorCode.INVALID_ARGUMENT
    request = signed("GET", "http://h/b/k")
    request.headers["x-amz-security-token"] = "t"
    assert code_of(request) is ErrorCode.HEADERS_NOT_SIGNED
    request = presigned("GET", "http://h/b/k")
    request.query["X-Amz-Security-Token"] = "t"
    assert code_of(request) is ErrorCode.INVALID_TOKEN
    for name in ("X-Amz-Date", "X-Amz-Expires", "X-Amz-Credential", "X-Amz-Signature"):
        request = presigned("GET", "http://h/b/k")
        del request.query[name]
        assert code_of(request) is ErrorCode.AUTHORIZATION_QUERY_PARAMETERS_ERROR
    for expires in ("604801", "-1", "x", ""):
        request = presigned("GET", "http://h/b/k")
        request.query["X-Amz-Expires"] = expires
        assert code_of(request) is ErrorCode.AUTHORIZATION_QUERY_PARAMETERS_ERROR


def test_the_documented_signing_key() -> None:
    """The example of "Authenticating Requests: Using the Authorization Header"."""
    key = sigv4.signing_key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1")
    assert key.hex() == "dbb893acc010964918f1fd433add87c70e8b0db6be30c1fbeafefa5ec6ba8378"


@pytest.mark.parametrize("value", ["à", "\u0645a\u0645", "a  à", "x\u00a0 y", "\u00a0x"])
def test_bytes_of_utf8_are_not_blanks(value: str) -> None:
    """Clients that send UTF-8 sign those bytes; read as latin-1, 85 and A0 would be white space."""
    day = time.strftime("%Y%m%d", time.gmtime())
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = f"{day}/us-east-1/s3/aws4_request"
    names = "host;x-amz-content-sha256;x-amz-date;x-amz-meta-a"
    collapsed = " ".join(word for word in value.split(" ") if word)
    canonical = (
        f"PUT\n/b/k\n\nhost:h\nx-amz-content-sha256:UNSIGNED-PAYLOAD\nx-amz-date:{moment}\n"
        f"x-amz-meta-a:{collapsed}\n\n{names}\nUNSIGNED-PAYLOAD"
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
    key = sigv4.signing_key(SECRET, day, "us-east-1")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers = {
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        "x-amz-date": moment,
        "x-amz-meta-a": value.encode().decode("latin-1"),
        "Authorization": f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}",
    }
    verify(request_of("PUT", "http://h/b/k", headers))


def presigned_as(canonical: str, url: str, names: str) -> S3Request:
    """A URL (with the arguments of authentication still to come) whose client signed `canonical`
    after the lines of method, path and query, with the header `names` as signed ones."""
    request = AWSRequest(method="PUT", url=url)
    signer = S3SigV4QueryAuth(Credentials(ACCESS_KEY, SECRET), "s3", "us-east-1", expires=600)
    signer.headers_to_sign = lambda _: dict.fromkeys(names.split(";"), "")
    signer.signed_headers = lambda _: names
    signer.canonical_headers = lambda _: canonical
    signer.add_auth(request)
    return request_of("PUT", str(request.url), {})


def test_a_signed_header_that_only_the_query_carries_counts() -> None:
    """As version 2 of the JavaScript SDK presigns."""
    names = "content-type;host;x-amz-acl;x-amz-checksum-crc32"
    lines = "content-type:text/plain\nhost:h\nx-amz-acl:public-read\nx-amz-checksum-crc32:AAAAAA=="
    query = "Content-Type=text%2Fplain&x-amz-acl=public-read&x-amz-checksum-crc32=AAAAAA%3D%3D"
    request = presigned_as(lines, f"http://h/b/k?{query}", names)
    verify(request)
    assert request.headers["x-amz-acl"] == "public-read"
    assert request.headers["content-type"] == "text/plain"
    assert request.headers["x-amz-checksum-crc32"] == "AAAAAA=="
    request = presigned_as(lines, f"http://h/b/k?{query}", names)
    request.headers["x-amz-acl"] = "private"  # what is sent as a header wins, and was not signed
    assert code_of(request) is ErrorCode.SIGNATURE_DOES_NOT_MATCH


@pytest.mark.parametrize("argument", ["x-amz-meta-a=a%0D%0AX-B%3Ac", "x-amz-meta-%0D%0A=a"])
def test_an_argument_that_could_be_no_header_is_refused(argument: str) -> None:
    request = presigned("PUT", f"http://h/b/k?{argument}")
    assert code_of(request) is ErrorCode.INVALID_ARGUMENT
