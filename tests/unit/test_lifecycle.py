"""Lifecycle rules: what ends and when, and which documents are refused."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.lifecycle import (
    DAY_MS,
    LifecycleRule,
    current_due,
    due_ms,
    lone_marker_ends,
    noncurrent_ends,
    upload_ends,
)
from gateway.s3.errors import S3Error
from gateway.s3.lifecycle_documents import parse_lifecycle, rule_element

EXPIRE = "<Expiration><Days>1</Days></Expiration>"
STATUS = "<Status>Enabled</Status>"
FILTER = "<Filter><Prefix>a/</Prefix></Filter>"


def _document(*rules: str) -> bytes:
    text = "".join(f"<Rule>{rule}</Rule>" for rule in rules)
    return f"<LifecycleConfiguration>{text}</LifecycleConfiguration>".encode()


def _rule(**said: Any) -> LifecycleRule:
    return LifecycleRule(**{"id": "r", "enabled": True, **said})


def test_an_object_ends_at_the_midnight_after_its_days() -> None:
    assert due_ms(0, 1) == DAY_MS
    assert due_ms(1, 1) == 2 * DAY_MS
    assert due_ms(1, 3, day_ms=10) == 31


def test_of_several_rules_the_one_that_ends_an_object_first_is_told() -> None:
    rules = (
        _rule(id="late", expire_days=3),
        _rule(id="first", expire_days=1),
        _rule(id="off", expire_days=1, enabled=False),
        _rule(id="dated", expire_at_ms=2 * DAY_MS),
        _rule(id="elsewhere", expire_at_ms=1, prefix="b/"),
    )
    due = current_due(rules, "a/k", tags=(), size_bytes=1, modified_ms=0)
    assert due == (DAY_MS, "first")


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        ({"expire_days": 1}, True),
        ({"expire_days": 2}, False),
        ({"expire_days": 1, "enabled": False}, False),
        ({"expire_days": 1, "prefix": "a/"}, True),
        ({"expire_days": 1, "prefix": "b/"}, False),
        ({"expire_days": 1, "tags": (("t", "1"),)}, True),
        ({"expire_days": 1, "tags": (("t", "1"), ("u", "1"))}, False),
        ({"expire_days": 1, "size_above_bytes": 9}, True),
        ({"expire_days": 1, "size_above_bytes": 10}, False),
        ({"expire_days": 1, "size_below_bytes": 10}, False),
        ({"expire_days": 1, "size_below_bytes": 11}, True),
        ({"expire_at_ms": DAY_MS}, True),
        ({"expire_at_ms": 2 * DAY_MS}, False),
        ({"noncurrent_days": 1}, False),
        ({"abort_days": 1}, False),
        ({"expire_lone_markers": True}, False),
    ],
)
def test_a_current_object_ends_by_the_rules_that_concern_it(
    said: dict[str, Any], ends: bool
) -> None:
    asked: dict[str, Any] = {
        "tags": (("t", "1"),),
        "size_bytes": 10,
        "modified_ms": 0,
    }
    due = current_due((_rule(**said),), "a/k", **asked)
    assert (due is not None and due.at_ms <= DAY_MS) is ends


@pytest.mark.parametrize(
    ("newer", "now_ms", "ends"), [(1, DAY_MS, False), (2, DAY_MS, True), (2, DAY_MS - 1, False)]
)
def test_a_noncurrent_version_ends_beyond_the_kept_ones(
    newer: int, now_ms: int, ends: bool
) -> None:
    rules = (_rule(noncurrent_days=1, noncurrent_kept=2),)
    asked: dict[str, Any] = {
        "tags": (),
        "size_bytes": 1,
        "succeeded_ms": 0,
        "newer": newer,
        "now_ms": now_ms,
    }
    assert noncurrent_ends(rules, "k", **asked) is ends


def test_a_lone_marker_ends_at_once_or_by_age() -> None:
    at_once, by_age = _rule(expire_lone_markers=True), _rule(expire_days=1)
    assert lone_marker_ends((at_once,), "k", modified_ms=0, now_ms=0)
    assert not lone_marker_ends((by_age,), "k", modified_ms=0, now_ms=DAY_MS - 1)
    assert lone_marker_ends((by_age,), "k", modified_ms=0, now_ms=DAY_MS)
    tagged = _rule(expire_days=1, tags=(("t", "1"),))
    assert not lone_marker_ends((tagged,), "k", modified_ms=0, now_ms=DAY_MS)


def test_an_upload_is_given_up_after_its_days() -> None:
    rules = (_rule(abort_days=1, prefix="a"),)
    assert upload_ends(rules, "a", begun_ms=0, now_ms=DAY_MS)
    assert not upload_ends(rules, "a", begun_ms=0, now_ms=DAY_MS - 1)
    assert not upload_ends(rules, "b", begun_ms=0, now_ms=DAY_MS)


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (FILTER + EXPIRE, "MalformedXML"),
        (STATUS + EXPIRE, "MalformedXML"),
        ("<Status>enabled</Status>" + FILTER + EXPIRE, "MalformedXML"),
        (STATUS + FILTER + "<Prefix/>" + EXPIRE, "MalformedXML"),
        (STATUS + FILTER, "InvalidRequest"),
        (STATUS + FILTER + "<Expiration/>", "MalformedXML"),
        (STATUS + FILTER + "<Expiration><Days>0</Days></Expiration>", "InvalidArgument"),
        (STATUS + FILTER + "<Expiration><Days>x</Days></Expiration>", "MalformedXML"),
        (STATUS + FILTER + "<Expiration><Date>20200101</Date></Expiration>", "MalformedXML"),
        (
            STATUS + FILTER + "<Expiration><Date>2020-01-01T01:00:00Z</Date></Expiration>",
            "InvalidArgument",
        ),
        (
            STATUS + FILTER + "<NoncurrentVersionExpiration/>",
            "MalformedXML",
        ),
        (STATUS + FILTER + "<Transition/>", "MalformedXML"),
        (STATUS + FILTER + EXPIRE + f"<ID>{'i' * 256}</ID>", "InvalidArgument"),
        (STATUS + "<Filter><And><Prefix>a</Prefix></And></Filter>" + EXPIRE, "MalformedXML"),
        (
            STATUS
            + "<Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>"
            + "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>",
            "InvalidRequest",
        ),
    ],
)
def test_a_rule_that_aws_refuses_is_refused(rule: str, code: str) -> None:
    with pytest.raises(S3Error) as raised:
        parse_lifecycle(_document(rule))
    assert raised.value.code.code == code


def test_two_rules_of_one_id_are_refused() -> None:
    rule = STATUS + FILTER + EXPIRE + "<ID>same</ID>"
    with pytest.raises(S3Error) as raised:
        parse_lifecycle(_document(rule, rule))
    assert raised.value.code.code == "InvalidArgument"


def test_rules_come_back_as_they_were_read() -> None:
    everything = (
        "<ID>i</ID><Filter><And><Prefix>a</Prefix><Tag><Key>t</Key><Value/></Tag>"
        "<ObjectSizeGreaterThan>0</ObjectSizeGreaterThan></And></Filter>" + STATUS + EXPIRE
    )
    dated = (
        "<ID>d</ID><Prefix>b</Prefix><Status>Disabled</Status>"
        "<Expiration><Date>2030-01-01T00:00:00Z</Date></Expiration>"
        "<NoncurrentVersionExpiration><NoncurrentDays>3</NoncurrentDays><NewerNoncurrentVersions>2"
        "</NewerNoncurrentVersions></NoncurrentVersionExpiration><AbortIncompleteMultipartUpload>"
        "<DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
    )
    read = parse_lifecycle(_document(everything, dated))
    rules = [msgspec.structs.asdict(LifecycleRule(**fields)) for fields in read]
    shown = "".join(map(rule_element, rules))
    again = parse_lifecycle(f"<LifecycleConfiguration>{shown}</LifecycleConfiguration>".encode())
    assert [msgspec.structs.asdict(LifecycleRule(**fields)) for fields in again] == rules


@given(st.text(max_size=200), st.text(max_size=30))
def test_no_text_makes_the_reader_fail_otherwise_than_by_refusing(text: str, value: str) -> None:
    dated = f"{STATUS}{FILTER}<Expiration><Date>{value}</Date></Expiration>"
    for document in (text.encode(), _document(text), _document(dated)):
        with contextlib.suppress(S3Error):
            parse_lifecycle(document)
