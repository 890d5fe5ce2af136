"""Uploads by HTML form against a running store, with forms of our own making and boto3's."""

import http.client
import random
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest

from tests.functional.store_process import StoreProcess
from tests.unit.post_forms import FORM_TYPE, form, signed_v2, signed_v4

Answer = tuple[int, dict[str, str], bytes]


def post(
    store: StoreProcess, bucket: str, body: bytes, content_type: str = FORM_TYPE, **headers: str
) -> Answer:
    parts = urlsplit(store.endpoint)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        connection.request("POST", f"/{bucket}", body, {"Content-Type": content_type, **headers})
        response = connection.getresponse()
        answered = {name.lower(): value for name, value in response.getheaders()}
        return response.status, answered, response.read()
    finally:
        connection.close()


def code_of(answer: Answer) -> str:
    return ElementTree.fromstring(answer[2]).findtext("Code") or ""


def keys_of(s3: Any) -> tuple[str, str]:
    credentials = s3._request_signer._credentials
    return credentials.access_key, credentials.secret_key


def conditions_of(bucket: str, fields: Sequence[tuple[str, str]]) -> list[Any]:
    return [{"bucket": bucket}, *(["starts-with", f"${name}", ""] for name, _ in fields)]


def upload(
    store: StoreProcess,
    s3: Any,
    bucket: str,
    fields: Sequence[tuple[str, str]],
    data: bytes,
    *more: Any,
    sign: Any = signed_v4,
    **options: Any,
) -> Answer:
    signature = sign(*keys_of(s3), [*conditions_of(bucket, fields), *more])
    return post(store, bucket, form([*fields, *signature], data, **options))


@pytest.mark.parametrize("sign", [signed_v2, signed_v4])
@pytest.mark.parametrize("size", [0, 5, 300_000, (9 << 20) + 77])
def test_a_file_is_stored_under_the_form_s_key(
    store: StoreProcess, s3: Any, bucket: str, size: int, sign: Any
) -> None:
    data = random.Random(size).randbytes(size)
    fields = [
        ("key", "user/${filename}"),
        ("Content-Type", "image/jpeg"),
        ("Cache-Control", "no-store"),
        ("x-amz-meta-name", "${filename} é"),
        ("acl", "private"),
        ("x-ignore-me", "whatever"),
    ]
    submit = [("submit", "Upload to the store")]
    status, headers, body = upload(store, s3, bucket, fields, data, sign=sign, after=submit)
    assert (status, body) == (204, b"")
    got = s3.get_object(Bucket=bucket, Key="user/photo.jpg")
    assert got["Body"].read() == data
    assert headers["etag"] == got["ETag"]
    assert headers["location"] == f"{store.endpoint}/{bucket}/user/photo.jpg"
    assert (got["ContentType"], got["CacheControl"]) == ("image/jpeg", "no-store")
    name = got["ResponseMetadata"]["HTTPHeaders"]["x-amz-meta-name"]
    assert name.encode("latin-1").decode() == "photo.jpg é"


def test_the_answer_is_what_the_form_asks_for(store: StoreProcess, s3: Any, bucket: str) -> None:
    def answer(*fields: tuple[str, str]) -> Answer:
        return upload(store, s3, bucket, [("key", "a b/é"), *fields], b"x")

    status, headers, body = answer(("success_action_status", "201"))
    assert (status, headers["content-type"]) == (201, "application/xml")
    tree = ElementTree.fromstring(body)
    assert tree.tag == "PostResponse"
    assert [tree.findtext(name) for name in ("Location", "Bucket", "Key", "ETag")] == [
        headers["location"],
        bucket,
        "a b/é",
        headers["etag"],
    ]
    assert answer(("success_action_status", "200"))[0] == 200
    assert answer(("success_action_status", "404"))[0] == 204
    for field in ("success_action_redirect", "redirect"):
        status, headers, _ = answer((field, "http://example.com/done?x=1"))
        assert status == 303
        etag = headers["etag"].strip('"')
        assert headers["location"] == (
            f"http://example.com/done?x=1&bucket={bucket}&key=a%20b%2F%C3%A9&etag=%22{etag}%22"
        )
    assert answer(("success_action_redirect", "javascript:alert(1)"))[0] == 204


def test_boto3_forms_are_taken(store: StoreProcess, s3: Any, bucket: str) -> None:
    made = s3.generate_presigned_post(
        bucket,
        "docs/${filename}",
        Fields={"x-amz-meta-a": "1"},
        Conditions=[{"x-amz-meta-a": "1"}, ["content-length-range", 1, 10]],
        ExpiresIn=60,
    )
    fields = list(made["fields"].items())
    assert post(store, bucket, form(fields, b"0123456789"))[0] == 204
    assert s3.head_object(Bucket=bucket, Key="docs/photo.jpg")["Metadata"] == {"a": "1"}
    assert code_of(post(store, bucket, form(fields, b"0123456789a"))) == "EntityTooLarge"
    assert code_of(post(store, bucket, form(fields, b""))) == "EntityTooSmall"
    changed = [(name, "2" if name == "x-amz-meta-a" else value) for name, value in fields]
    assert code_of(post(store, bucket, form(changed, b"x"))) == "AccessDenied"


def test_files_outside_the_range_are_refused_and_leave_nothing(
    store: StoreProcess, s3: Any, bucket: str
) -> None:
    fields = [("key", "k")]
    for size, least, most, code in (
        (3 << 20, 0, (3 << 20) - 1, "EntityTooLarge"),
        (3 << 20, (3 << 20) + 1, 9 << 20, "EntityTooSmall"),
        (10, 0, 9, "EntityTooLarge"),
        (10, 11, 20, "EntityTooSmall"),
    ):
        limit = ["content-length-range", least, most]
        assert code_of(upload(store, s3, bucket, fields, bytes(size), limit)) == code
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    exact = ["content-length-range", 3 << 20, 3 << 20]
    assert upload(store, s3, bucket, fields, bytes(3 << 20), exact)[0] == 204


def test_checksums_of_the_file_are_compared(store: StoreProcess, s3: Any, bucket: str) -> None:
    def code(name: str, value: str) -> str:
        answer = upload(store, s3, bucket, [("key", "k"), (name, value)], b"123456789")
        return "" if answer[0] == 204 else code_of(answer)

    assert code("x-amz-checksum-crc32", "AAAAAA==") == "BadDigest"
    assert code("x-amz-checksum-crc32", "nonsense") == "InvalidRequest"
    assert code("Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA==") == "BadDigest"
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    assert code("x-amz-checksum-crc32", "y/Q5Jg==") == ""
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head["ChecksumCRC32"] == "y/Q5Jg=="
    assert code("Content-MD5", "JfnnlDI7RTiF9RgfG2JNCw==") == ""


def test_tags_come_with_the_form(store: StoreProcess, s3: Any, bucket: str) -> None:
    text = "<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>"
    assert upload(store, s3, bucket, [("key", "k"), ("tagging", text)], b"x")[0] == 204
    tags = s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]
    assert tags == [{"Key": "a", "Value": "1"}]
    broken = upload(store, s3, bucket, [("key", "k"), ("tagging", "<Tagging>")], b"x")
    assert code_of(broken) == "MalformedXML"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("acl", "nonsense", "InvalidArgument"),
        ("x-amz-storage-class", "GLACIER", "NotImplemented"),
        ("x-amz-website-redirect-location", "elsewhere", "InvalidRedirectLocation"),
        ("x-amz-meta-a", "1\r\nX: y", "InvalidArgument"),
        ("x-amz-meta-a", "v" * 3000, "MetadataTooLarge"),
        ("If-Match", '"0"', "NoSuchKey"),
    ],
)
def test_fields_that_ask_too_much_are_refused(
    store: StoreProcess, s3: Any, bucket: str, field: str, value: str, code: str
) -> None:
    assert code_of(upload(store, s3, bucket, [("key", "k"), (field, value)], b"x")) == code


def test_nobody_writes_without_a_valid_signature(
    store: StoreProcess, s3: Any, other_s3: Any, bucket: str
) -> None:
    access_key, secret = keys_of(s3)
    fields = [("key", "k")]
    conditions = conditions_of(bucket, fields)

    def code(signature: Sequence[tuple[str, str]], to: str = bucket) -> str:
        return code_of(post(store, to, form([*fields, *signature], b"x")))

    assert code([]) == "AccessDenied"
    assert code(signed_v4(access_key, secret + "x", conditions)) == "SignatureDoesNotMatch"
    assert code(signed_v2(access_key, secret + "x", conditions)) == "SignatureDoesNotMatch"
    assert code(signed_v4("nobody", secret, conditions)) == "InvalidAccessKeyId"
    assert code(signed_v4(access_key, secret, conditions, seconds=-5)) == "AccessDenied"
    assert code(signed_v4(access_key, secret, conditions, more=1)) == "InvalidPolicyDocument"
    assert code(signed_v4(access_key, secret, conditions[:1])) == "AccessDenied"
    assert code(signed_v4(*keys_of(other_s3), conditions)) == "AccessDenied"
    assert code(signed_v2(access_key, secret, conditions)[:2]) == "InvalidArgument"
    assert code(signed_v4(access_key, secret, conditions), "no-such-bucket") == "AccessDenied"
    elsewhere = conditions_of("no-such-bucket", fields)
    assert code(signed_v4(access_key, secret, elsewhere), "no-such-bucket") == "NoSuchBucket"
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_posts_that_are_no_upload_are_refused(store: StoreProcess, s3: Any, bucket: str) -> None:
    assert code_of(post(store, bucket, b"a=b", "application/x-www-form-urlencoded")) == (
        "PreconditionFailed"
    )
    assert code_of(post(store, bucket, b"x", "multipart/form-data")) == "MalformedPOSTRequest"
    assert code_of(post(store, bucket, b"x")) == "MalformedPOSTRequest"
    signature = signed_v4(*keys_of(s3), [{"bucket": bucket}])
    assert code_of(post(store, bucket, form(signature, None))) == (
        "IncorrectNumberOfFilesInPostRequest"
    )
    assert code_of(post(store, bucket, form(signature, b"x"))) == "InvalidArgument"
    cut = form([("key", "k"), *signed_v4(*keys_of(s3), conditions_of(bucket, [("key", "")]))], b"x")
    assert code_of(post(store, bucket, cut[:-6])) == "MalformedPOSTRequest"
    assert code_of(post(store, bucket, form([("a", "v" * 20_480)], b"x"))) == (
        "MaxPostPreDataLengthExceededError"
    )
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_the_answer_foretells_the_end_that_the_bucket_s_rules_bring(
    store: StoreProcess, s3: Any, bucket: str
) -> None:
    rule = {"ID": "r", "Filter": {}, "Status": "Enabled", "Expiration": {"Days": 1}}
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    fields = [("key", "a"), ("x-amz-website-redirect-location", "/b")]
    status, headers, _ = upload(store, s3, bucket, fields, b"x")
    assert status == 204
    assert headers["x-amz-expiration"].endswith('rule-id="r"')
    assert s3.head_object(Bucket=bucket, Key="a")["WebsiteRedirectLocation"] == "/b"
