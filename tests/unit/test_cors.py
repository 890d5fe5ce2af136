"""Cross-origin rules: which rule answers, what it says, and which documents are refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.cors import CorsRule, answer_headers, answering_rule, requested_headers
from gateway.metadata.cors import pack_cors, stored_cors
from gateway.s3.cors_documents import ID_LENGTH_MAX, RULES_MAX, parse_cors, rule_element
from gateway.s3.errors import S3Error

_RULE = (
    "<CORSRule><AllowedMethod>GET</AllowedMethod><AllowedOrigin>{origin}</AllowedOrigin>"
    "{more}</CORSRule>"
)


def _document(*rules: str) -> bytes:
    return f"<CORSConfiguration>{''.join(rules)}</CORSConfiguration>".encode()


def _rule(origin: str = "http://a", more: str = "") -> str:
    return _RULE.format(origin=origin, more=more)


@pytest.mark.parametrize(
    ("pattern", "origin", "allowed"),
    [
        ("*", "http://a", True),
        ("http://a", "http://a", True),
        ("http://a", "HTTP://a", False),
        ("http://*.a", "http://b.a", True),
        ("http://*.a", "http://.a", True),
        ("http://*.a", "http://a", False),
        ("*suffix", "a.suffix", True),
        ("*suffix", "suffix.a", False),
        ("ab*ba", "aba", False),
        ("ab*ba", "abba", True),
    ],
)
def test_an_origin_fits_a_pattern(pattern: str, origin: str, allowed: bool) -> None:
    rules = (CorsRule(origins=(pattern,), methods=("GET",)),)
    assert (answering_rule(rules, origin, "GET") is not None) is allowed


def test_the_first_rule_that_allows_everything_answers() -> None:
    rules = (
        CorsRule(origins=("http://a",), methods=("PUT",), id="no method"),
        CorsRule(origins=("http://a",), methods=("GET",), headers=("x-b",), id="no header"),
        CorsRule(origins=("http://a",), methods=("GET",), headers=("X-Amz-*",), id="this"),
        CorsRule(origins=("*",), methods=("GET",), headers=("*",), id="later"),
    )
    asked = requested_headers(" X-Amz-Date, x-amz-acl,")
    assert asked == ("x-amz-date", "x-amz-acl")
    found = answering_rule(rules, "http://a", "GET", asked)
    assert found is not None
    assert found.id == "this"
    assert answering_rule(rules[:2], "http://a", "GET", asked) is None


def test_a_rule_for_anybody_gives_no_credentials() -> None:
    anybody = dict(answer_headers(CorsRule(origins=("*",), methods=("GET", "PUT")), "http://a"))
    assert anybody["Access-Control-Allow-Origin"] == "*"
    assert anybody["Access-Control-Allow-Methods"] == "GET, PUT"
    assert "Access-Control-Allow-Credentials" not in anybody
    named = dict(answer_headers(CorsRule(origins=("http://*",), methods=("GET",)), "http://a"))
    assert named["Access-Control-Allow-Origin"] == "http://a"
    assert named["Access-Control-Allow-Credentials"] == "true"
    assert named["Vary"].startswith("Origin")


@pytest.mark.parametrize(
    ("document", "code", "words"),
    [
        (b"<CORSConfiguration/>", "MalformedXML", ""),
        (b"<Other/>", "MalformedXML", ""),
        (_document("<CORSRule/>"), "MalformedXML", ""),
        (_document(_rule(more="<Foo>1</Foo>")), "MalformedXML", ""),
        (_document(_rule(more="<ID>a</ID><ID>b</ID>")), "MalformedXML", ""),
        (_document(_rule(more="<MaxAgeSeconds>soon</MaxAgeSeconds>")), "MalformedXML", ""),
        (_document(_rule(more="<AllowedHeader><a/></AllowedHeader>")), "MalformedXML", ""),
        (_document(*[_rule()] * (RULES_MAX + 1)), "InvalidRequest", "100 rules"),
        (
            _document(_rule(more="<AllowedMethod>PATCH</AllowedMethod>")),
            "InvalidRequest",
            "Unsupported method is PATCH",
        ),
        (_document(_rule("*.a.*")), "InvalidRequest", "more than one wildcard"),
        (
            _document(_rule(more="<AllowedHeader>*-*</AllowedHeader>")),
            "InvalidRequest",
            "more than one wildcard",
        ),
        (
            _document(_rule(more="<ExposeHeader>x-*</ExposeHeader>")),
            "InvalidRequest",
            "contains wildcard",
        ),
        (_document(_rule(more="<ExposeHeader>a\nb: c</ExposeHeader>")), "InvalidRequest", ""),
        (_document(_rule(more=f"<ID>{'i' * (ID_LENGTH_MAX + 1)}</ID>")), "InvalidRequest", "255"),
    ],
)
def test_a_document_that_aws_refuses_is_refused(document: bytes, code: str, words: str) -> None:
    with pytest.raises(S3Error) as raised:
        parse_cors(document)
    assert raised.value.code.code == code
    assert words in raised.value.message


def test_rules_come_back_as_they_were_read_and_stored() -> None:
    more = (
        "<ID>i</ID><AllowedHeader>*</AllowedHeader><ExposeHeader>ETag</ExposeHeader>"
        "<MaxAgeSeconds>60</MaxAgeSeconds>"
    )
    read = parse_cors(_document(_rule(more=more), _rule("http://&lt;")))
    assert parse_cors(_document(*map(rule_element, read))) == read
    rules = tuple(CorsRule(**rule._asdict()) for rule in read)
    assert stored_cors(pack_cors(rules), "b") == rules


def test_stored_rules_that_are_damaged_allow_nothing() -> None:
    assert stored_cors(b"damaged", "b") == ()


@given(st.text(max_size=300), st.text(max_size=40))
def test_no_text_makes_the_reader_fail_otherwise_than_by_refusing(text: str, value: str) -> None:
    for document in (text.encode(), _document(_rule(value)), _document(_rule(more=text))):
        with contextlib.suppress(S3Error):
            parse_cors(document)
