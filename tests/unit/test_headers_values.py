"""Dates, entity tags, ranges, metadata and content headers."""

import datetime
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.headers import (
    ETags,
    content_headers,
    format_http_date,
    format_iso8601,
    parse_copy_range,
    parse_etags,
    parse_http_date,
    parse_iso8601,
    parse_range,
    response_overrides,
    user_metadata,
)
from gateway.s3.known import refuse_unoffered

LAST = 253402300799


@given(st.integers(0, LAST))
def test_http_dates_both_ways(seconds: int) -> None:
    text = format_http_date(seconds)
    assert text == formatdate(seconds, usegmt=True)
    assert parse_http_date(text) == seconds


def test_older_date_forms() -> None:
    for text in (
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 09:49:37 +0100",
        "6 Nov 1994 08:49:37 GMT",
        "Mon, 06 Nov 1994 08:49:37 UTC",
    ):
        assert parse_http_date(text) == 784111777
    for text in ("", "x", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1950 08:49:37 GMT"):
        assert parse_http_date(text) is None


@given(st.text(max_size=40))
def test_random_values_never_crash(text: str) -> None:
    parse_http_date(text)
    parse_iso8601(text)
    parse_etags(text)
    parse_range(text)
    parse_range("bytes=" + text)


@given(st.integers(0, LAST * 1000))
def test_iso_dates_both_ways(milliseconds: int) -> None:
    text = format_iso8601(milliseconds)
    assert len(text) == 24
    assert parse_iso8601(text) == milliseconds
    expected = datetime.datetime.fromtimestamp(milliseconds // 1000, datetime.UTC)
    assert text.startswith(expected.strftime("%Y-%m-%dT%H:%M:%S.").zfill(20))


def test_iso_dates_need_a_zone() -> None:
    assert parse_iso8601("2024-01-01T00:00:00") is None
    assert parse_iso8601("0001-01-01T00:00:00+23:00") is None


def test_entity_tags() -> None:
    assert parse_etags("*") == ETags(any=True)
    assert parse_etags('"a"') == ETags(False, ("a",))
    assert parse_etags("a") == ETags(False, ("a",))
    assert parse_etags('"a", b ,"c,d"') == ETags(False, ("a", "b", "c,d"))
    assert parse_etags('W/"a", "b"') == ETags(False, ("b",))
    assert parse_etags('W/"a", "b"', weak=True) == ETags(False, ("a", "b"))
    assert parse_etags("") == ETags(False, ())
    assert parse_etags('"a').match("a") is False
    assert parse_etags("*").match("anything")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-", (0, 10)),
        ("bytes=3-100", (3, 7)),
        ("bytes=-3", (7, 3)),
        ("bytes=-30", (0, 10)),
        ("Bytes=9-9", (9, 1)),
    ],
)
def test_ranges(text: str, expected: tuple[int, int]) -> None:
    found = parse_range(text)
    assert found is not None
    assert found.resolve(10) == expected


@pytest.mark.parametrize(
    "text", ["bytes=0-1,3-4", "bytes=-", "bytes=5-3", "items=0-1", "0-1", "bytes=a-b", "bytes"]
)
def test_other_ranges_mean_the_whole_object(text: str) -> None:
    assert parse_range(text) is None


@pytest.mark.parametrize(
    ("text", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-5", 0)]
)
def test_ranges_that_hold_nothing(text: str, size: int) -> None:
    found = parse_range(text)
    assert found is not None
    with pytest.raises(S3Error) as caught:
        found.resolve(size)
    assert caught.value.code is ErrorCode.INVALID_RANGE
    assert caught.value.details == {"RangeRequested": text, "ActualObjectSize": str(size)}


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 20))
def test_a_range_is_python_slicing(first: int, last: int, size: int) -> None:
    data = bytes(range(size))
    found = parse_range(f"bytes={first}-{last}")
    if first > last:
        assert found is None
        return
    assert found is not None
    if first >= size:
        with pytest.raises(S3Error):
            found.resolve(size)
        return
    offset, length = found.resolve(size)
    assert data[offset : offset + length] == data[first : last + 1]


def test_copy_ranges_are_strict() -> None:
    assert parse_copy_range("bytes=0-9").resolve(20) == (0, 10)
    for text in ("bytes=0-", "bytes=-1", "0-9", "bytes=9-0", "bytes=0-9,1-2", " bytes=0-1"):
        with pytest.raises(S3Error) as caught:
            parse_copy_range(text)
        assert caught.value.code is ErrorCode.INVALID_ARGUMENT


def test_user_metadata_has_two_kibibytes() -> None:
    headers = {"x-amz-meta-a": "b", "host": "h", "x-amz-meta-b": "é"}
    assert user_metadata(headers) == (("a", "b"), ("b", "é"))
    user_metadata({"x-amz-meta-a": "b" * 2047})
    with pytest.raises(S3Error) as caught:
        user_metadata({"x-amz-meta-a": "b" * 2048})
    assert caught.value.code is ErrorCode.METADATA_TOO_LARGE


def test_content_headers() -> None:
    assert content_headers({}) == ("", ())
    assert content_headers({"content-type": "binary/octet-stream"}) == ("", ())
    headers = {"content-type": "a/b", "content-encoding": "gzip, aws-chunked", "expires": "x"}
    assert content_headers(headers) == ("a/b", (("content-encoding", "gzip"), ("expires", "x")))
    for value in ("aws-chunked", "aws-chunked,aws-chunked"):
        assert content_headers({"content-encoding": value}) == ("", ())


def test_response_overrides() -> None:
    assert response_overrides({"response-expires": "x", "prefix": "y"}) == {"expires": "x"}
    with pytest.raises(S3Error):
        response_overrides({"response-content-type": "a\r\nb: c"})


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("x-amz-bucket-object-lock-token", "t", ErrorCode.NOT_IMPLEMENTED),
        ("x-amz-acl", "private", None),
        ("x-amz-storage-class", "STANDARD", None),
        ("x-amz-request-payer", "requester", None),
        ("x-amz-meta-tagging", "x", None),
        ("x-amz-bucket-object-lock-enabled", "true", None),
    ],
)
def test_headers_that_ask_for_what_is_not_offered(
    name: str, value: str, code: ErrorCode | None
) -> None:
    if code is None:
        refuse_unoffered("PutObject", {"host": "h", name: value}, {})
        return
    with pytest.raises(S3Error) as caught:
        refuse_unoffered("PutObject", {"host": "h", name: value}, {})
    assert caught.value.code is code


def test_what_an_operation_takes_as_a_header_it_does_not_take_from_the_query() -> None:
    asked = {"x-amz-storage-class": "COLD"}
    refuse_unoffered("PutObject", asked, {})
    for operation, headers, query in (("PutObject", {}, asked), ("GetObject", asked, {})):
        with pytest.raises(S3Error) as caught:
            refuse_unoffered(operation, headers, query)
        assert caught.value.code is ErrorCode.NOT_IMPLEMENTED


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("bytes=5-99999999999999999999999", (5, 95)),
        ("bytes=-" + "9" * 5000, (0, 100)),
        ("bytes=0-" + "9" * 5000, (0, 100)),
        ("bytes=" + "0" * 5000 + "7-0000000009", (7, 3)),
    ],
)
def test_a_range_may_end_beyond_any_number(text: str, window: tuple[int, int]) -> None:
    found = parse_range(text)
    assert found is not None
    assert found.resolve(100) == window


def test_a_range_that_begins_beyond_any_number_holds_nothing() -> None:
    found = parse_range("bytes=" + "9" * 5000 + "-")
    assert found is not None
    with pytest.raises(S3Error) as refused:
        found.resolve(100)
    assert refused.value.code is ErrorCode.INVALID_RANGE
