"""Tag sets: the rules, the document, the header."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.tags import BUCKET_TAGS_MAX, OBJECT_TAGS_MAX, TagRefused, Tags, check_tags
from gateway.operations.tag_headers import copy_tags, request_tags
from gateway.s3.documents import parse_tagging
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import S3Request
from gateway.s3.xml import document, element
from tests.unit.s3_requests import request_of

LETTERS = st.text(st.sampled_from("abcXYZ019 +-=._:/@é中"), min_size=1, max_size=20)


def made(query: str = "", **headers: str) -> S3Request:
    """A PUT with x-amz-* headers, given without their prefix."""
    named = {f"x-amz-{name.replace('_', '-')}": text for name, text in headers.items()}
    return request_of("PUT", f"http://localhost/bucket/key?{query}", named)


def numbered(count: int) -> Tags:
    return tuple((f"key-{number}", "value") for number in range(count))


@pytest.mark.parametrize("count_max", [OBJECT_TAGS_MAX, BUCKET_TAGS_MAX])
def test_a_set_may_be_full_but_not_fuller(count_max: int) -> None:
    assert check_tags(numbered(count_max), count_max=count_max) == tuple(
        sorted(numbered(count_max))
    )
    with pytest.raises(TagRefused, match=f"greater than {count_max}"):
        check_tags(numbered(count_max + 1), count_max=count_max)


@pytest.mark.parametrize(
    "tag",
    [
        ("k" * 128, "v" * 256),
        ("k", ""),
        ("\U00010400" * 64, "\U00010400" * 128),
        ("Über straße/प्रजाति:a.b_c-d=e+f@g", "中文"),
        ("awsome", "aws:value"),
    ],
)
def test_longest_and_widest_tags_are_taken(tag: tuple[str, str]) -> None:
    assert check_tags([tag], count_max=10) == (tag,)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ([("", "v")], "TagKey"),
        ([("k" * 129, "v")], "TagKey"),
        ([("\U00010400" * 65, "v")], "TagKey"),
        ([("k", "v" * 257)], "TagValue"),
        ([("k", "\U00010400" * 129)], "TagValue"),
        ([("a;b", "v")], "TagKey"),
        ([("k", "<v>")], "TagValue"),
        ([("k", "a\x00b")], "TagValue"),
        ([("aws:k", "v")], "System tags"),
        ([("AWS:k", "v")], "System tags"),
        ([("k", "1"), ("k", "2")], "same key"),
    ],
)
def test_tags_that_break_a_rule_are_refused(tags: list[tuple[str, str]], reason: str) -> None:
    with pytest.raises(TagRefused, match=reason):
        check_tags(tags, count_max=10)


@given(st.lists(st.tuples(LETTERS, LETTERS), max_size=10))
def test_a_document_is_read_as_it_was_written(tags: list[tuple[str, str]]) -> None:
    lines = [f"<Tag>{element('Key', key)}{element('Value', value)}</Tag>" for key, value in tags]
    text = document("Tagging", ["<TagSet>", *lines, "</TagSet>"])
    assert parse_tagging(text) == tuple(tags)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<Tagging><TagSet/><TagSet/></Tagging>",
        b"<Tagging><Other/></Tagging>",
        b"<TagSet/>",
        b"<Tagging><TagSet><Other/></TagSet></Tagging>",
        b"<Tagging><TagSet><Tag/></TagSet></Tagging>",
        b"<Tagging><TagSet><Tag><Key>k</Key></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet><Tag><Key>k</Key><Key>k</Key><Value/></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet><Tag><Key><a/></Key><Value/></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet></TagSet></Tagging>trailing",
    ],
)
def test_other_documents_are_malformed(text: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        parse_tagging(text)
    assert caught.value.code is ErrorCode.MALFORMED_XML


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("", ()),
        ("k=v", (("k", "v"),)),
        ("k", (("k", ""),)),
        ("&", ()),
        ("a=1&&b=2&", (("a", "1"), ("b", "2"))),
        ("a=b=c&d=%2B+%20", (("a", "b=c"), ("d", "+  "))),
        ("%C3%A9=\xc3\xa9", (("é", "é"),)),
    ],
)
def test_the_header_is_read_as_a_query(text: str, tags: Tags) -> None:
    assert request_tags(made(tagging=text)) == tags


def test_a_presigned_query_may_carry_the_header() -> None:
    request = made("x-amz-tagging=k%3Dv&x-amz-tagging-directive=REPLACE")
    assert request_tags(request) == (("k", "v"),)
    assert copy_tags(request) == (("k", "v"),)


@pytest.mark.parametrize("text", ["k=1&k=2", "k=%", "k=%zz", "%ff=1", "k=\xff"])
def test_a_misspelt_header_is_an_invalid_argument(text: str) -> None:
    with pytest.raises(S3Error) as caught:
        request_tags(made(tagging=text))
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize("text", ["a=1&=", "=v", "aws:k=v"])
def test_the_rules_hold_for_the_header_too(text: str) -> None:
    with pytest.raises(TagRefused):
        request_tags(made(tagging=text))


def test_a_copy_takes_its_own_tags_only_when_told_to() -> None:
    assert copy_tags(made(tagging="k=v")) is None
    assert copy_tags(made(tagging="k=v", tagging_directive="COPY")) is None
    assert copy_tags(made(tagging="k=v", tagging_directive="REPLACE")) == (("k", "v"),)
    assert copy_tags(made(tagging_directive="REPLACE")) == ()
    with pytest.raises(S3Error) as caught:
        copy_tags(made(tagging_directive="replace"))
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
