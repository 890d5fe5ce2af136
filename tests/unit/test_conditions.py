"""Conditional requests: precedence, times in whole seconds, and absent objects."""

import itertools

import pytest

from gateway.domain.conditions import (
    PROCEED,
    DeleteConditions,
    Judgement,
    ReadConditions,
    Verdict,
    WriteConditions,
    judge_copy_source,
    judge_delete,
    judge_read,
    judge_write,
)
from gateway.s3.headers import parse_etags

SAME, OTHER, ANY = parse_etags('"aa"'), parse_etags('"bb"'), parse_etags("*")
MODIFIED_MS = 1_700_000_000_900
BEFORE, AT, AFTER = 1_699_999_999, 1_700_000_000, 1_700_000_001


def read(**conditions: object) -> Judgement:
    return judge_read(ReadConditions(**conditions), etag="aa", modified_ms=MODIFIED_MS)  # type: ignore[arg-type]


def test_without_conditions_everything_proceeds() -> None:
    assert read() is PROCEED
    assert judge_write(WriteConditions(), None) is PROCEED
    assert not ReadConditions().any


@pytest.mark.parametrize(
    ("conditions", "verdict"),
    [
        ({"if_match": SAME}, Verdict.PROCEED),
        ({"if_match": ANY}, Verdict.PROCEED),
        ({"if_match": OTHER}, Verdict.FAILED),
        ({"if_none_match": SAME}, Verdict.NOT_MODIFIED),
        ({"if_none_match": ANY}, Verdict.NOT_MODIFIED),
        ({"if_none_match": OTHER}, Verdict.PROCEED),
        ({"if_modified_since": BEFORE}, Verdict.PROCEED),
        ({"if_modified_since": AT}, Verdict.NOT_MODIFIED),
        ({"if_modified_since": AFTER}, Verdict.NOT_MODIFIED),
        ({"if_unmodified_since": BEFORE}, Verdict.FAILED),
        ({"if_unmodified_since": AT}, Verdict.PROCEED),
        ({"if_match": SAME, "if_unmodified_since": BEFORE}, Verdict.PROCEED),
        ({"if_none_match": OTHER, "if_modified_since": AFTER}, Verdict.PROCEED),
        ({"if_none_match": SAME, "if_modified_since": BEFORE}, Verdict.NOT_MODIFIED),
        ({"if_match": OTHER, "if_none_match": SAME}, Verdict.FAILED),
    ],
)
def test_reads_follow_the_precedence_of_http(
    conditions: dict[str, object], verdict: Verdict
) -> None:
    assert read(**conditions).verdict is verdict


def test_a_date_in_the_future_is_no_if_modified_since() -> None:
    conditions = ReadConditions(if_modified_since=AFTER, if_unmodified_since=AFTER)
    assert conditions.at(AFTER * 1000) is conditions
    assert conditions.at(AT * 1000) == ReadConditions(if_unmodified_since=AFTER)


def test_a_copy_fails_exactly_where_a_read_would_not_proceed() -> None:
    etags, times = (None, SAME, OTHER), (None, BEFORE, AT, AFTER)
    for match, none, since, unmodified in itertools.product(etags, etags, times, times):
        conditions = ReadConditions(match, none, since, unmodified)
        as_read = judge_read(conditions, etag="aa", modified_ms=MODIFIED_MS).verdict
        as_copy = judge_copy_source(conditions, etag="aa", modified_ms=MODIFIED_MS)
        assert as_copy.verdict in (Verdict.PROCEED, Verdict.FAILED)
        assert (as_copy.verdict is Verdict.PROCEED) == (as_read is Verdict.PROCEED)
        assert as_copy.header == "" or as_copy.header.startswith("x-amz-copy-source-If-")


@pytest.mark.parametrize(
    ("conditions", "etag", "verdict"),
    [
        (WriteConditions(if_none_match=ANY), None, Verdict.PROCEED),
        (WriteConditions(if_none_match=ANY), "aa", Verdict.FAILED),
        (WriteConditions(if_none_match=SAME), "aa", Verdict.FAILED),
        (WriteConditions(if_none_match=OTHER), "aa", Verdict.PROCEED),
        (WriteConditions(if_match=SAME), "aa", Verdict.PROCEED),
        (WriteConditions(if_match=OTHER), "aa", Verdict.FAILED),
        (WriteConditions(if_match=SAME), None, Verdict.NO_SUCH_KEY),
        (WriteConditions(if_match=ANY), None, Verdict.NO_SUCH_KEY),
    ],
)
def test_writes(conditions: WriteConditions, etag: str | None, verdict: Verdict) -> None:
    assert judge_write(conditions, etag).verdict is verdict


@pytest.mark.parametrize(
    ("conditions", "header"),
    [
        (DeleteConditions(if_match=ANY), ""),
        (DeleteConditions(if_match=OTHER), "If-Match"),
        (DeleteConditions(if_match_size_bytes=7), ""),
        (DeleteConditions(if_match_size_bytes=8), "x-amz-if-match-size"),
        (DeleteConditions(if_match_last_modified=AT), ""),
        (DeleteConditions(if_match_last_modified=AFTER), "x-amz-if-match-last-modified-time"),
        (DeleteConditions(SAME, 7, AT), ""),
    ],
)
def test_deletes_name_the_condition_that_failed(conditions: DeleteConditions, header: str) -> None:
    judgement = judge_delete(conditions, etag="aa", size_bytes=7, modified_ms=MODIFIED_MS)
    assert judgement.header == header
    assert (judgement.verdict is Verdict.PROCEED) == (header == "")
