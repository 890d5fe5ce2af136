"""Listing rules against a plain model, and continuation across pages."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.listing import (
    From,
    Listing,
    Page,
    Position,
    Question,
    after_marker,
    after_start,
    list_keys,
)


class Keys:
    """A page source over a list, which counts what it hands out."""

    def __init__(self, keys: list[bytes]) -> None:
        self.keys = sorted(keys)
        self.read = 0

    async def page(self, prefix: bytes, start: Position, limit: int) -> Page:
        assert limit >= 1
        found = [key for key in self.keys if key.startswith(prefix) and follows(key, start)]
        self.read += min(len(found), limit)
        return Page(found[:limit], [b"v" + key for key in found[:limit]], len(found) > limit)


def follows(key: bytes, start: Position) -> bool:
    match start.origin:
        case From.AT:
            return key >= start.key
        case From.AFTER:
            return key > start.key
        case From.PAST:
            return key > start.key and not key.startswith(start.key)


def model(keys: list[bytes], question: Question) -> tuple[list[bytes], list[bytes], bool]:
    """The rule in its plainest form: roll everything up, then cut."""
    things: list[tuple[bytes, bool]] = []
    for key in sorted(keys):
        if not key.startswith(question.prefix):
            continue
        if question.after is not None and not follows(key, question.after):
            continue
        cut = key.find(question.delimiter, len(question.prefix)) if question.delimiter else -1
        thing = (key, False) if cut < 0 else (key[: cut + len(question.delimiter)], True)
        if thing not in things:
            things.append(thing)
    if question.keys_max == 0:
        return [], [], False
    kept = things[: question.keys_max]
    return (
        [name for name, rolled in kept if not rolled],
        [name for name, rolled in kept if rolled],
        len(things) > question.keys_max,
    )


def ask(source: Keys, question: Question) -> Listing:
    return asyncio.run(list_keys(source, question))


text = st.text(alphabet="ab/\x00é", max_size=5).map(str.encode)
names = st.lists(text.filter(bool), max_size=40, unique=True)
delimiters = st.sampled_from([b"", b"/", b"ab", b"//", b"\x00", "é".encode()])


@given(names, text, delimiters, text, st.integers(0, 12))
def test_a_listing_is_what_the_model_says(
    keys: list[bytes], prefix: bytes, delimiter: bytes, marker: bytes, keys_max: int
) -> None:
    after = after_marker(marker, prefix, delimiter)
    question = Question(prefix, delimiter, after, keys_max)
    listing = ask(Keys(keys), question)
    expected_keys, expected_prefixes, truncated = model(keys, question)
    assert listing.keys == expected_keys
    assert listing.values == [b"v" + key for key in expected_keys]
    assert listing.prefixes == expected_prefixes
    assert (listing.next is not None) == truncated


@given(names, text, delimiters, st.integers(1, 5))
def test_pages_put_together_are_the_whole(
    keys: list[bytes], prefix: bytes, delimiter: bytes, keys_max: int
) -> None:
    source = Keys(keys)
    whole = ask(source, Question(prefix, delimiter))
    got_keys: list[bytes] = []
    got_prefixes: list[bytes] = []
    after: Position | None = None
    for _ in range(len(keys) + 1):
        page = ask(source, Question(prefix, delimiter, after, keys_max))
        assert len(page.keys) + len(page.prefixes) <= keys_max
        got_keys += page.keys
        got_prefixes += page.prefixes
        after = page.next
        if after is None:
            break
    assert after is None
    assert (got_keys, got_prefixes) == (whole.keys, whole.prefixes)


@given(names, delimiters, st.integers(1, 5))
def test_a_marker_of_version_one_goes_on_like_a_position(
    keys: list[bytes], delimiter: bytes, keys_max: int
) -> None:
    """ListObjects' NextMarker is only a string."""
    source = Keys(keys)
    after: Position | None = None
    for _ in range(len(keys) + 1):
        page = ask(source, Question(b"", delimiter, after, keys_max))
        if page.next is None:
            return
        after = after_marker(page.next.key, b"", delimiter)
        follow = ask(source, Question(b"", delimiter, after))
        assert (follow.keys, follow.prefixes) == (
            ask(source, Question(b"", delimiter, page.next)).keys,
            ask(source, Question(b"", delimiter, page.next)).prefixes,
        )
    pytest.fail("the listing does not end")


def test_common_prefixes_are_sought_past_not_read_through() -> None:
    keys = [b"%03d/%05d" % (folder, number) for folder in range(10) for number in range(3000)]
    source = Keys(keys)
    listing = ask(source, Question(b"", b"/"))
    assert len(listing.prefixes) == 10
    assert source.read < 1000


def test_a_flat_listing_reads_no_more_than_it_shows() -> None:
    source = Keys([b"%05d" % number for number in range(3000)])
    listing = ask(source, Question(keys_max=1000))
    assert len(listing.keys) == source.read == 1000
    assert listing.next == Position(From.AFTER, b"00999")


@pytest.mark.parametrize("marker", [b"a/", b"a/1", b"a/2"])
def test_a_marker_in_a_common_prefix_stands_behind_all_of_it(marker: bytes) -> None:
    source = Keys([b"a/1", b"a/2", b"b"])
    behind = ask(source, Question(b"", b"/", after_marker(marker, b"", b"/")))
    assert (behind.prefixes, behind.keys) == ([], [b"b"])


def test_start_after_inside_a_common_prefix_still_shows_the_rest_of_it() -> None:
    source = Keys([b"a/1", b"a/2", b"b"])
    inside = ask(source, Question(b"", b"/", after_start(b"a/1", b"", b"/")))
    assert inside.prefixes == [b"a/"]
    behind = ask(source, Question(b"", b"/", after_start(b"a/", b"", b"/")))
    assert (behind.prefixes, behind.keys) == ([], [b"b"])
    assert after_start(b"", b"", b"/") is None
