"""Policy documents: what is refused and how, operators one by one, patterns, publicity, random input."""

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.policy.document import (
    BUCKET_POLICY_SIZE_BYTES_MAX,
    DENY_ALL,
    read_bucket_policy,
    read_policy,
)
from gateway.domain.policy.errors import MalformedPolicy
from gateway.domain.policy.globs import Pattern
from gateway.domain.policy.publicity import is_public
from gateway.domain.policy.question import ANYBODY, Question
from gateway.domain.policy.verdict import opinion
from gateway.metadata.policies import pack_policy, stored_policy, unpack_policy

STATEMENT: dict[str, Any] = {
    "Effect": "Allow",
    "Principal": "*",
    "Action": "s3:GetObject",
    "Resource": "arn:aws:s3:::b/*",
}


class Keys(dict[str, tuple[str, ...]]):
    def values(self, key: str) -> Any:  # type: ignore[override]
        return self.get(key)


def document(**changes: Any) -> bytes:
    statement = {name: value for name, value in (STATEMENT | changes).items() if value is not None}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]}).encode()


REFUSED = [
    (b"", "Policies must be valid JSON and the first byte must be '{'"),
    (b"[]", "Policies must be valid JSON and the first byte must be '{'"),
    (b"{", "This policy contains invalid Json"),
    (b"\xff\xfe", "This policy contains invalid Json"),
    (b'{"a":' * 4000, "This policy contains invalid Json"),
    (b'{"Version":"2012-10-17","Version":"2012-10-17"}', "duplicate"),
    (b"{}", "Missing required field Statement"),
    (b'{"Statement":[]}', "Statement is empty"),
    (b'{"Statement":[1]}', "Invalid policy syntax."),
    (b'{"Version":"2020-01-01","Statement":[]}', "valid version string"),
    (b'{"Color":1,"Statement":[]}', "Unknown field Color"),
    (document(Effect=None), "Missing required field Effect"),
    (document(Effect="allow"), "Invalid effect : allow"),
    (document(Principal=None), "Missing required field Principal cannot be empty!"),
    (document(Action=None), "Missing required field Action"),
    (document(Resource=None), "Missing required field Resource"),
    (document(NotAction="s3:*"), "both Action and NotAction"),
    (document(Colour="red"), "Unknown field Colour"),
    (document(Action=[]), "Policy has invalid action"),
    (document(Action="GetObject"), "Policy has invalid action"),
    (document(Resource="b/*"), "Policy has invalid resource"),
    (document(Resource="arn:aws:s3:::other/*"), "Policy has invalid resource"),
    (document(Resource=["arn:aws:s3:::b", "arn:aws:s3:::bb/*"]), "Policy has invalid resource"),
    (document(Principal="someone"), "Invalid principal in policy"),
    (document(Principal={"AWS": []}), "Invalid principal in policy"),
    (document(Principal={"AWS": "arn:aws:iam::1:group/x"}), "Invalid principal in policy"),
    (document(Principal={"AWS": "arn:aws:iam::111111111111:user/*"}), "Invalid principal"),
    (document(Principal={"CanonicalUser": "x"}), "Invalid principal in policy"),
    (document(Principal=None, NotPrincipal={"AWS": "111111111111"}), "NotPrincipal"),
    (document(Condition=[]), "Invalid policy syntax."),
    (document(Condition={"StringIs": {"aws:Referer": "x"}}), "Invalid Condition type : StringIs"),
    (document(Condition={"StringEquals": {"s3:colour": "x"}}), "invalid condition key"),
    (document(Condition={"StringEquals": {"prefix": "x"}}), "invalid condition key"),
    (document(Condition={"StringEquals": {"s3:prefix": {}}}), "Invalid policy syntax."),
    (document(Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/99"}}), "Invalid IP address"),
    (document(Condition={"NumericEquals": {"s3:max-keys": "ten"}}), "Invalid condition value"),
    (document(Condition={"Null": {"aws:Referer": "maybe"}}), "Invalid condition value"),
    (document(Sid="x" * BUCKET_POLICY_SIZE_BYTES_MAX), "maximum allowed document size"),
    (
        json.dumps({"Statement": [{**STATEMENT, "Sid": "a"}] * 2}).encode(),
        "Statement IDs (SID)",
    ),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_what_breaks_a_rule_is_refused_in_aws_words(text: bytes, message: str) -> None:
    with pytest.raises(MalformedPolicy) as caught:
        read_bucket_policy(text, "b")
    assert message in str(caught.value)


def test_identities_policies_name_no_principal() -> None:
    with pytest.raises(MalformedPolicy):
        read_policy(document(), with_principals=False)
    assert read_policy(document(Principal=None), with_principals=False).statements


OPERATORS = [
    # operator, policy's values, request's values (None: no such key), holds
    ("StringEquals", "a", ("a",), True),
    ("StringEquals", "a", ("A",), False),
    ("StringEquals", ["b", "a"], ("a",), True),
    ("StringEquals", "a*", ("ab",), False),
    ("StringEquals", "a", None, False),
    ("StringNotEquals", "a", ("b",), True),
    ("StringNotEquals", ["a", "b"], ("b",), False),
    ("StringNotEquals", "a", None, True),
    ("StringEqualsIgnoreCase", "Ab", ("aB",), True),
    ("StringNotEqualsIgnoreCase", "Ab", ("aB",), False),
    ("StringLike", "a*c?", ("abbcd",), True),
    ("StringLike", "a*c?", ("abbc",), False),
    ("StringNotLike", "a*", ("abc",), False),
    ("StringEqualsIfExists", "a", None, True),
    ("StringEqualsIfExists", "a", ("b",), False),
    ("NumericEquals", "10", ("10.0",), True),
    ("NumericNotEquals", "10", ("11",), True),
    ("NumericLessThan", 10, ("9",), True),
    ("NumericLessThan", 10, ("10",), False),
    ("NumericLessThanEquals", 10, ("10",), True),
    ("NumericGreaterThan", 10, ("11",), True),
    ("NumericGreaterThanEquals", 10, ("9",), False),
    ("NumericLessThan", 10, ("many",), False),
    ("DateEquals", "2030-01-01T00:00:00Z", ("2030-01-01T01:00:00+01:00",), True),
    ("DateLessThan", "2030-01-01T00:00:00Z", ("1000",), True),
    ("DateGreaterThan", "2030-01-01", ("2031-01-01T00:00:00Z",), True),
    ("DateNotEquals", "2030-01-01", ("2030-01-01T00:00:00Z",), False),
    ("Bool", "true", ("true",), True),
    ("Bool", True, ("false",), False),
    ("Bool", "true", None, False),
    ("BinaryEquals", "YWI=", ("YWI=",), True),
    ("BinaryEquals", "YWI=", ("YWM=",), False),
    ("IpAddress", "10.0.0.0/8", ("10.1.2.3",), True),
    ("IpAddress", ["192.168.0.0/16", "2001:db8::/32"], ("2001:db8::1",), True),
    ("IpAddress", "10.0.0.0/8", ("::ffff:10.0.0.1",), True),
    ("IpAddress", "10.0.0.0/8", ("elsewhere",), False),
    ("NotIpAddress", "10.0.0.0/8", ("10.1.2.3",), False),
    ("NotIpAddress", "10.0.0.0/8", ("11.1.2.3",), True),
    ("ArnEquals", "arn:aws:iam::1:user/a*", ("arn:aws:iam::1:user/ab",), True),
    ("ArnLike", "arn:aws:iam::*:user/a", ("arn:aws:iam::1:user/a",), True),
    ("ArnLike", "arn:aws:*:user/a", None, "Invalid condition value"),
    ("ArnNotLike", "arn:aws:iam::1:*", ("arn:aws:iam::2:root",), True),
    ("ArnNotEquals", "arn:aws:iam::1:root", ("arn:aws:iam::1:root",), False),
    ("Null", "true", None, True),
    ("Null", "true", ("x",), False),
    ("Null", False, ("x",), True),
    ("ForAllValues:StringEquals", ["a", "b"], ("a", "b"), True),
    ("ForAllValues:StringEquals", ["a", "b"], ("a", "c"), False),
    ("ForAllValues:StringEquals", "a", None, True),
    ("ForAllValues:StringNotEquals", "a", ("b", "c"), True),
    ("ForAnyValue:StringEquals", "a", ("c", "a"), True),
    ("ForAnyValue:StringEquals", "a", None, False),
    ("ForAnyValue:StringNotEquals", "a", ("a",), False),
    ("ForAnyValue:StringLike", "a*", ("b", "ab"), True),
]


@pytest.mark.parametrize(("operator", "wanted", "given_values", "holds"), OPERATORS)
def test_operators_compare_as_documented(
    operator: str, wanted: Any, given_values: tuple[str, ...] | None, holds: bool | str
) -> None:
    text = document(Condition={operator: {"aws:Referer": wanted}})
    if isinstance(holds, str):
        with pytest.raises(MalformedPolicy, match=holds):
            read_bucket_policy(text, "b")
        return
    policy = read_bucket_policy(text, "b")
    keys = Keys() if given_values is None else Keys({"aws:referer": given_values})
    question = Question(ANYBODY, "s3:GetObject", "arn:aws:s3:::b/k", keys)
    assert bool(opinion((policy,), question).allowed) is holds


PATTERNS = [
    ("a*b*c", "aXbYc", True),
    ("a*b*c", "acb", False),
    ("*a", "aa", True),
    ("ab*ba", "aba", False),
    ("?", "", False),
    ("a\nb*", "a\nbc", True),
    ("${*}", "*", True),
    ("${*}", "x", False),
    ("${?}${$}", "?$", True),
    ("x/${aws:username}/*", "x/j*e/k", True),
    ("x/${aws:username}/*", "x/joe/k", False),  # a value is no pattern
    ("${aws:nothing, 'all'}", "all", True),
    ("${aws:nothing}", "", False),
]


@pytest.mark.parametrize(("pattern", "text", "matches"), PATTERNS)
def test_patterns_match_as_documented(pattern: str, text: str, matches: bool) -> None:
    lookup = {"aws:username": "j*e"}.get
    assert Pattern(pattern, variables=True).matches(text, lookup) is matches


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    pattern = Pattern("*a" * 500 + "b", variables=False)
    begun = time.monotonic()
    assert not pattern.matches("a" * 2000, lambda _: None)
    assert time.monotonic() - begun < 1


PUBLICITY = [
    ({}, True),
    ({"Effect": "Deny"}, False),
    ({"Principal": {"AWS": "*"}}, True),
    ({"Principal": {"AWS": "111111111111"}}, False),
    ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/32"}}}, False),
    ({"Condition": {"IpAddress": {"aws:SourceIp": "0.0.0.0/1"}}}, True),
    ({"Condition": {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/32"}}}, True),
    ({"Condition": {"StringEquals": {"aws:PrincipalAccount": "111111111111"}}}, False),
    ({"Condition": {"StringLike": {"aws:PrincipalAccount": "1*"}}}, True),
    ({"Condition": {"StringNotEquals": {"aws:PrincipalAccount": "111111111111"}}}, True),
    ({"Condition": {"StringEquals": {"aws:Referer": "x"}}}, True),
]


@pytest.mark.parametrize(("changes", "public"), PUBLICITY)
def test_what_makes_a_policy_public(changes: dict[str, Any], public: bool) -> None:
    assert is_public(read_bucket_policy(document(**changes), "b")) is public


def test_a_stored_policy_comes_back_as_it_was_sent() -> None:
    text = document() + b" \n"
    assert unpack_policy(pack_policy(text)) == text
    assert len(pack_policy(document(Resource=["arn:aws:s3:::b/*"] * 400))) < 1000


@pytest.mark.parametrize("stored", [b"junk", pack_policy(b"{}"), pack_policy(document())[:-6]])
def test_a_policy_that_cannot_be_read_lets_nobody_in(stored: bytes) -> None:
    assert stored_policy(stored, "b") is DENY_ALL


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_in_order(data: bytes) -> None:
    with contextlib.suppress(MalformedPolicy):
        read_bucket_policy(data, "b")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*STATEMENT, "Condition", "NotAction", "AWS", "Null", "aws:Referer"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(VALUES, st.sampled_from([*STATEMENT, "Condition", "NotPrincipal", "NotResource"]))
def test_random_statements_are_refused_in_order(value: Any, field: str) -> None:
    text = json.dumps({"Statement": [STATEMENT | {field: value}]}).encode()
    with contextlib.suppress(MalformedPolicy):
        read_bucket_policy(text, "b")
