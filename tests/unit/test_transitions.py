"""Transitions of lifecycle rules: what is moved where and when, and which documents are refused."""

from typing import Any

import msgspec
import pytest

from gateway.domain.lifecycle import DAY_MS, LifecycleRule, Transition
from gateway.domain.transitions import (
    ALL_CLASSES,
    BY_CLASS,
    current_class,
    noncurrent_class,
    why_refused,
)
from gateway.metadata.lifecycle import pack_lifecycle, stored_lifecycle
from gateway.operations.lifecycle import lifecycle_fields, lifecycle_rule
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.lifecycle_documents import parse_lifecycle, rule_element

LARGE = 128 << 10


def _rule(*moves: Transition, **fields: Any) -> LifecycleRule:
    return LifecycleRule(id="r", enabled=True, **{"transitions": moves, **fields})


def _after(days: int, storage_class: str, **fields: Any) -> Transition:
    return Transition(storage_class=storage_class, days=days, **fields)


def _at(day: int, *rules: LifecycleRule, present: str = "", size_bytes: int = LARGE) -> str | None:
    return current_class(
        rules,
        "logs/1",
        tags=(),
        size_bytes=size_bytes,
        modified_ms=0,
        storage_class=present,
        now_ms=day * DAY_MS,
    )


def test_an_object_moves_on_the_day_and_only_once() -> None:
    rule = _rule(_after(3, "COLD"), _after(6, "COLDER"))
    assert _at(2, rule) is None
    assert _at(3, rule) == "COLD"
    assert _at(3, rule, present="COLD") is None
    assert _at(6, rule, present="COLD") == "COLDER"
    assert _at(9, rule) == "COLDER"
    assert _at(9, rule, present="COLDER") is None


def test_a_date_moves_what_is_there_then() -> None:
    rule = _rule(Transition(storage_class="COLD", at_ms=5 * DAY_MS))
    assert _at(4, rule) is None
    assert _at(5, rule) == "COLD"


def test_only_what_a_rule_concerns_moves() -> None:
    for fields in ({"prefix": "other/"}, {"tags": (("a", "1"),)}, {"size_above_bytes": LARGE}):
        assert _at(9, _rule(_after(1, "COLD"), **fields)) is None
    assert _at(9, msgspec.structs.replace(_rule(_after(1, "COLD")), enabled=False)) is None


def test_of_the_classes_of_s3_none_is_moved_up_the_waterfall() -> None:
    infrequent, instant = _rule(_after(60, "STANDARD_IA")), _rule(_after(1, "GLACIER_IR"))
    assert _at(99, infrequent, instant) == "GLACIER_IR"
    assert _at(99, infrequent, present="GLACIER_IR") is None
    assert _at(99, infrequent, present="COLD") == "STANDARD_IA"
    assert _at(99, _rule(_after(1, "COLD")), present="GLACIER_IR") == "COLD"


@pytest.mark.parametrize(
    ("minimum", "storage_class", "fields", "moves"),
    [
        ("", "GLACIER_IR", {}, False),
        ("", "COLD", {}, True),
        (ALL_CLASSES, "GLACIER_IR", {}, False),
        (ALL_CLASSES, "COLD", {}, False),
        (BY_CLASS, "GLACIER_IR", {}, False),
        (BY_CLASS, "COLD", {}, True),
        (ALL_CLASSES, "GLACIER_IR", {"size_above_bytes": 1}, True),
    ],
)
def test_small_objects_stay_unless_something_else_is_said(
    minimum: str, storage_class: str, fields: dict[str, int], moves: bool
) -> None:
    rule = _rule(_after(1, storage_class), transition_minimum=minimum, **fields)
    assert _at(2, rule, size_bytes=LARGE - 1) == (storage_class if moves else None)
    assert _at(2, rule, size_bytes=LARGE) == storage_class


def test_versions_move_by_the_age_of_their_successor_and_the_newest_may_stay() -> None:
    rule = _rule(noncurrent_transitions=(_after(2, "COLD", kept=1),), transitions=())

    def at(day: int, newer: int, present: str = "") -> str | None:
        return noncurrent_class(
            (rule,),
            "k",
            tags=(),
            size_bytes=LARGE,
            succeeded_ms=0,
            newer=newer,
            storage_class=present,
            now_ms=day * DAY_MS,
        )

    assert at(2, newer=0) is None
    assert at(1, newer=1) is None
    assert at(2, newer=1) == "COLD"
    assert at(2, newer=1, present="COLD") is None
    assert _at(9, rule) is None


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        (_rule(_after(29, "STANDARD_IA")), "greater than or equal to 30"),
        (_rule(noncurrent_transitions=(_after(1, "ONEZONE_IA"),)), "NoncurrentDays"),
        (_rule(_after(30, "STANDARD_IA"), _after(59, "GLACIER_IR")), "30 days more"),
        (_rule(_after(30, "STANDARD_IA"), _after(60, "ONEZONE_IA")), None),
        (_rule(_after(5, "GLACIER_IR"), _after(5, "INTELLIGENT_TIERING")), "greater than"),
        (_rule(_after(5, "COLD"), expire_days=5), "Expiration"),
        (_rule(_after(5, "COLD"), expire_days=6), None),
        (_rule(noncurrent_transitions=(_after(5, "COLD"),), noncurrent_days=5), "Noncurrent"),
        (_rule(_after(0, "COLD"), _after(0, "COLDER")), None),
        (_rule(Transition(storage_class="COLD", at_ms=DAY_MS), expire_at_ms=DAY_MS), "Date"),
    ],
)
def test_rules_that_contradict_themselves_are_refused(
    rule: LifecycleRule, word: str | None
) -> None:
    reason = why_refused(rule)
    assert (reason is None) if word is None else (reason is not None and word in reason)


def _document(actions: str) -> bytes:
    text = f"<Rule><ID>r</ID><Filter/><Status>Enabled</Status>{actions}</Rule>"
    return f"<LifecycleConfiguration>{text}</LifecycleConfiguration>".encode()


def _move(*, name: str = "Transition", since: str = "<Days>1</Days>", to: str = "COLD") -> str:
    return f"<{name}>{since}<StorageClass>{to}</StorageClass></{name}>"


NONCURRENT = "NoncurrentVersionTransition"


def test_a_document_is_read_and_shown_as_it_was() -> None:
    actions = (
        _move(since="<Days>0</Days>")
        + _move(since="<Days>9</Days>", to="COLDER")
        + f"<{NONCURRENT}><NoncurrentDays>1</NoncurrentDays><StorageClass>COLD</StorageClass>"
        f"<NewerNoncurrentVersions>2</NewerNoncurrentVersions></{NONCURRENT}>"
    )
    (fields,) = parse_lifecycle(_document(actions))
    assert fields["transitions"] == (
        {"storage_class": "COLD", "days": 0},
        {"storage_class": "COLDER", "days": 9},
    )
    assert fields["noncurrent_transitions"] == ({"storage_class": "COLD", "days": 1, "kept": 2},)
    rule = lifecycle_rule(fields)
    (kept,) = stored_lifecycle(pack_lifecycle((rule,)), "bucket")
    assert kept == rule
    shown = rule_element(lifecycle_fields(kept))
    for part in (
        "<Transition><Days>0</Days><StorageClass>COLD</StorageClass></Transition>",
        "<Transition><Days>9</Days><StorageClass>COLDER</StorageClass></Transition>",
        "<NewerNoncurrentVersions>2</NewerNoncurrentVersions>",
    ):
        assert part in shown


def test_rules_that_were_stored_before_there_were_transitions_are_read() -> None:
    rule = LifecycleRule(id="r", enabled=True, expire_days=1)
    older = list(msgspec.structs.astuple(rule))[:14]
    decoded = msgspec.msgpack.decode(
        msgspec.msgpack.encode([older]), type=tuple[LifecycleRule, ...]
    )
    assert decoded == (rule,)


@pytest.mark.parametrize(
    ("actions", "code"),
    [
        (_move(since=""), ErrorCode.MALFORMED_XML),
        (_move(since="<Days>1</Days><Date>2030-01-01T00:00:00Z</Date>"), ErrorCode.MALFORMED_XML),
        (_move(to=""), ErrorCode.MALFORMED_XML),
        (_move(to="STANDARD"), ErrorCode.MALFORMED_XML),
        ("<Transition><Days>1</Days></Transition>", ErrorCode.MALFORMED_XML),
        (_move(since="<Days>-1</Days>"), ErrorCode.INVALID_ARGUMENT),
        (_move(since="<Days>x</Days>"), ErrorCode.MALFORMED_XML),
        (_move(since="<Date>2030-01-01T01:00:00Z</Date>"), ErrorCode.INVALID_ARGUMENT),
        (_move(since="<Date>soon</Date>"), ErrorCode.MALFORMED_XML),
        (_move() + _move(since="<Days>2</Days>"), ErrorCode.INVALID_REQUEST),
        (_move() + "<Expiration><Date>2030-01-01T00:00:00Z</Date></Expiration>",
         ErrorCode.INVALID_REQUEST),
        (_move() + _move(since="<Date>2030-01-01T00:00:00Z</Date>", to="B"),
         ErrorCode.INVALID_REQUEST),
        (_move(name=NONCURRENT), ErrorCode.MALFORMED_XML),
        (_move(name=NONCURRENT, since="<NoncurrentDays>1</NoncurrentDays>"
               "<NewerNoncurrentVersions>101</NewerNoncurrentVersions>"),
         ErrorCode.INVALID_ARGUMENT),
    ],
)  # fmt: skip
def test_documents_that_are_no_good(actions: str, code: ErrorCode) -> None:
    with pytest.raises(S3Error) as caught:
        parse_lifecycle(_document(actions))
    assert caught.value.code is code
