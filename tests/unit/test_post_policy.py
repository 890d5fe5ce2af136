"""POST policies: documents, conditions and signatures."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.operations.post_object import form_fields, header_fields, redirect_url
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.post_policy import parse_policy
from gateway.s3.post_signature import parse_post_claim, session_token_in
from tests.unit.post_forms import policy, signed_v2, signed_v4

LATER = "2999-01-01T00:00:00Z"
FIELDS = {"bucket": "b", "key": "user/eric/pic.jpg"}
NAMED = [{"bucket": "b"}, ["starts-with", "$key", "user/"]]


def encoded(document: object) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    return base64.b64encode(text.encode()).decode()


def demand(conditions: Sequence[object], fields: dict[str, str], now_ms: int = 0) -> None:
    parse_policy(encoded({"expiration": LATER, "conditions": conditions})).demand(fields, now_ms)


def refusal(conditions: Sequence[object], fields: dict[str, str]) -> str:
    with pytest.raises(S3Error) as raised:
        demand(conditions, fields)
    assert raised.value.code is ErrorCode.ACCESS_DENIED
    assert raised.value.message.startswith("Invalid according to Policy: ")
    return raised.value.message.partition(": ")[2]


def test_a_form_that_keeps_to_its_policy_passes() -> None:
    demand(NAMED, FIELDS)
    demand([{"bUcKeT": "b"}, ["StArTs-WiTh", "$KeY", ""]], FIELDS)
    demand([*NAMED, ["eq", "$acl", "private"]], {**FIELDS, "acl": "private"})


def test_a_condition_that_does_not_hold_is_named() -> None:
    assert refusal([{"bucket": "c"}, *NAMED], FIELDS) == (
        'Policy Condition failed: ["eq", "$bucket", "c"]'
    )
    assert "failed" in refusal([{"bucket": "b"}, ["starts-with", "$key", "home/"]], FIELDS)
    assert "failed" in refusal([*NAMED, ["starts-with", "$x-amz-meta-a", "v"]], FIELDS)
    assert "failed" in refusal([{"bucket": "b"}, ["starts-with", "$key", "User/"]], FIELDS)


def test_every_field_needs_a_condition_but_few() -> None:
    extra = {**FIELDS, "x-amz-meta-a": "1", "other": "2"}
    assert refusal(NAMED, extra) == "Extra input fields: x-amz-meta-a, other"
    assert refusal([{"key": FIELDS["key"]}], FIELDS) == "Extra input fields: bucket"
    free = {
        "x-ignore-this": "1",
        "policy": "p",
        "signature": "s",
        "awsaccesskeyid": "a",
        "x-amz-signature": "s",
        "x-amz-checksum-crc32": "AAAAAA==",
    }
    demand(NAMED, {**FIELDS, **free})
    assert "x-amz-date" in refusal(NAMED, {**FIELDS, "x-amz-date": "d"})


def test_a_list_of_content_types_must_all_begin_so() -> None:
    conditions = [*NAMED, ["starts-with", "$Content-Type", "image/"]]
    demand(conditions, {**FIELDS, "content-type": "image/jpg,image/png, image/gif"})
    assert refusal(conditions, {**FIELDS, "content-type": "image/jpg,text/html"})


def test_a_policy_ends_when_it_says() -> None:
    parsed = parse_policy(encoded({"expiration": "1970-01-01T00:00:10Z", "conditions": NAMED}))
    parsed.demand(FIELDS, 9_999)
    with pytest.raises(S3Error, match="Policy expired"):
        parsed.demand(FIELDS, 10_000)


def test_size_ranges_are_read_as_numbers_and_as_text_and_all_hold() -> None:
    conditions = [["content-length-range", 1, 100], ["Content-Length-Range", "5", "200"]]
    parsed = parse_policy(encoded({"expiration": LATER, "conditions": conditions}))
    assert parsed.size_range == (5, 100)
    assert parse_policy(encoded({"expiration": LATER, "conditions": []})).size_range is None


def test_the_dollar_may_be_escaped_though_json_knows_no_such_escape() -> None:
    text = r'{"expiration": "2999-01-01T00:00:00Z", "conditions": [["eq", "$key", "%s"]]}'
    assert parse_policy(encoded(text % r"\$a\v")).conditions[0].value == "$a\v"
    assert parse_policy(encoded(text % r"\\$a")).conditions[0].value == r"\$a"
    assert parse_policy(encoded(text % r"\\v\n")).conditions[0].value == "\\v\n"


@pytest.mark.parametrize(
    "document",
    [
        "",
        "no json",
        "[]",
        "null",
        '{"expiration": "2999-01-01T00:00:00Z", "conditions": [], "conditions": []}',
        "[" * 100_000,
        {},
        {"conditions": []},
        {"expiration": LATER},
        {"EXPIRATION": LATER, "conditions": []},
        {"expiration": LATER, "CONDITIONS": []},
        {"expiration": LATER, "conditions": {}},
        {"expiration": LATER, "conditions": None},
        {"expiration": LATER, "conditions": [], "more": 1},
        {"expiration": 5, "conditions": []},
        {"expiration": "2999-01-01 00:00:00+00:00", "conditions": []},
        {"expiration": "2999-01-01T00:00:00", "conditions": []},
        {"expiration": "2999-13-01T00:00:00Z", "conditions": []},
        *(
            {"expiration": LATER, "conditions": [condition]}
            for condition in (
                {},
                {"a": "1", "b": "2"},
                {"a": 1},
                "eq",
                [],
                [1, "$a", "b"],
                ["eq", "$a"],
                ["eq", "$a", 1],
                ["ne", "$a", "b"],
                ["content-length-range", 0],
                ["content-length-range", -1, 0],
                ["content-length-range", 0, 1.5],
                ["content-length-range", 0, True],
                ["content-length-range", 0, 10**40],
            )
        ),
    ],
    ids=lambda document: str(document)[:60],
)
def test_a_document_that_is_no_policy_is_refused(document: object) -> None:
    with pytest.raises(S3Error) as raised:
        parse_policy(encoded(document))
    assert raised.value.code is ErrorCode.INVALID_POLICY_DOCUMENT


@pytest.mark.parametrize(
    "condition", [["eq", "a", "b"], ["content-length-range", 0, "1e3"]], ids=str
)
def test_a_condition_that_names_no_field_or_no_size_is_never_satisfied(
    condition: list[object],
) -> None:
    with pytest.raises(S3Error) as raised:
        parse_policy(encoded({"expiration": LATER, "conditions": [condition]}))
    assert raised.value.code is ErrorCode.ACCESS_DENIED
    assert raised.value.message.endswith(f"Policy Condition failed: {json.dumps(condition)}")


@given(st.text(max_size=60))
def test_any_text_is_a_policy_or_refused(text: str) -> None:
    for value in (text, encoded(text.encode("utf-8", "replace").decode())):
        with pytest.raises(S3Error) as raised:
            parse_policy(value)
        assert raised.value.code is ErrorCode.INVALID_POLICY_DOCUMENT


@pytest.mark.parametrize("sign", [signed_v2, signed_v4])
def test_a_signature_proves_the_secret_and_covers_the_policy(sign: Any) -> None:
    fields = {name.lower(): value for name, value in sign("AK/1", "secret", [])}
    claim = parse_post_claim(fields, "us-east-1")
    assert claim is not None
    assert claim.access_key == "AK/1"
    claim.verify("secret")
    for other, secret in (
        (claim, "Secret"),
        (claim._replace(policy=policy([], seconds=601)), "secret"),
        (claim._replace(signature=claim.signature[::-1]), "secret"),
        (claim._replace(signature="\N{SNOWMAN}"), "secret"),
    ):
        with pytest.raises(S3Error) as raised:
            other.verify(secret)
        assert raised.value.code is ErrorCode.SIGNATURE_DOES_NOT_MATCH


@pytest.mark.parametrize("sign", [signed_v2, signed_v4])
def test_each_field_of_a_signature_is_demanded(sign: Any) -> None:
    fields = {name.lower(): value for name, value in sign("AK", "secret", [])}
    for name in fields:
        left = {other: value for other, value in fields.items() if other != name}
        with pytest.raises(S3Error) as raised:
            parse_post_claim(left, "us-east-1")
        assert raised.value.code is ErrorCode.INVALID_ARGUMENT
        assert name in raised.value.message.lower()


def test_a_form_without_any_is_anonymous_and_odd_claims_are_refused() -> None:
    assert parse_post_claim({"key": "k"}, "us-east-1") is None
    fields = {name.lower(): value for name, value in signed_v4("AK", "secret", [])}
    for change in (
        {"x-amz-algorithm": "AWS4-HMAC-SHA512"},
        {"x-amz-credential": "AK/20250101/us-east-1/s3"},
        {"x-amz-credential": fields["x-amz-credential"].replace("us-east-1", "eu-west-1")},
        {"x-amz-date": "20250101T000000Z"},
        {"x-amz-date": "today"},
        {"signature": "both"},
    ):
        with pytest.raises(S3Error) as raised:
            parse_post_claim({**fields, **change}, "us-east-1")
        assert raised.value.code is ErrorCode.INVALID_ARGUMENT, change
    with pytest.raises(S3Error) as raised:
        session_token_in({**fields, "x-amz-security-token": "t"}, "AK")
    assert raised.value.code is ErrorCode.INVALID_TOKEN


def test_the_file_name_is_put_in_without_its_folder_and_not_into_the_policy() -> None:
    fields = [
        ("key", b"u/${filename}"),
        ("policy", b"${filename}"),
        ("x-amz-meta-n", b"${filename}"),
    ]
    for path in ("a.txt", "/home/me/a.txt", r"C:\me\a.txt"):
        assert form_fields(fields, path) == {
            "key": "u/a.txt",
            "policy": "${filename}",
            "x-amz-meta-n": "a.txt",
        }


@pytest.mark.parametrize("fields", [[("a", b"1"), ("a", b"2")], [("a", b"\xff")]])
def test_fields_that_come_twice_or_are_no_text_are_refused(fields: list[tuple[str, bytes]]) -> None:
    with pytest.raises(S3Error) as raised:
        form_fields(fields, "")
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


def test_fields_become_headers_only_if_they_can_be() -> None:
    assert header_fields(
        {"acl": "private", "key": "k", "x-amz-meta-a": " é ", "policy": "p", "x-amz-date": "d"}
    ) == {"x-amz-acl": "private", "x-amz-meta-a": "Ã©"}
    for field, value in (
        ("x-amz-meta-a", "1\r\nSet-Cookie: x"),
        ("content-type", "a\nb"),
        ("x-amz-meta-a: b", "1"),
        ("x-amz-meta-é", "1"),
    ):
        with pytest.raises(S3Error) as raised:
            header_fields({field: value})
        assert raised.value.code is ErrorCode.INVALID_ARGUMENT


def test_the_redirect_tells_what_was_stored() -> None:
    told = "bucket=b&key=a%2F%20%26&etag=%22e%22"
    assert redirect_url("http://h/p", "b", "a/ &", '"e"') == f"http://h/p?{told}"
    assert redirect_url("https://h/p?x=1#f", "b", "a/ &", '"e"') == f"https://h/p?x=1&{told}#f"
    for target in (
        "",
        "p",
        "//h/p",
        "javascript:alert(1)",
        "http://h/\r\nX: y",
        "http://[",
        "http://é/",
    ):
        assert redirect_url(target, "b", "k", "e") is None
