"""Which part lists complete an upload, and in what order uploads are listed."""

import asyncio
import hashlib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.multipart import (
    PART_SIZE_BYTES_MIN,
    KnownPart,
    ListedPart,
    NotAscending,
    PartNotFound,
    PartTooSmall,
    completion_token,
    etag_of_parts,
    judge_parts,
)
from gateway.domain.multipart_listing import (
    AfterKey,
    AfterUpload,
    Item,
    Page,
    PastPrefix,
    Position,
    Question,
    after_markers,
    list_uploads,
)

KNOWN = {
    number: KnownPart(bytes([number]) * 16, PART_SIZE_BYTES_MIN if number < 9 else 1)
    for number in (1, 2, 5, 9)
}


def listed(*numbers: int) -> list[ListedPart]:
    return [ListedPart(number, (bytes([number]) * 16).hex()) for number in numbers]


@pytest.mark.parametrize("numbers", [(1,), (9,), (1, 2), (2, 9), (1, 2, 5, 9)])
def test_ascending_lists_of_known_parts_complete_an_upload(numbers: tuple[int, ...]) -> None:
    assert judge_parts(listed(*numbers), KNOWN) is None


@pytest.mark.parametrize("numbers", [(2, 1), (1, 1), (1, 5, 2, 9), (7, 6)])
def test_order_is_judged_before_presence(numbers: tuple[int, ...]) -> None:
    assert judge_parts(listed(*numbers), KNOWN) == NotAscending()


def test_a_part_that_was_not_uploaded_or_has_another_etag_is_not_found() -> None:
    assert judge_parts(listed(1, 3), KNOWN) == PartNotFound(listed(3)[0])
    wrong = ListedPart(2, "00" * 16)
    assert judge_parts([*listed(1), wrong], KNOWN) == PartNotFound(wrong)


def test_etags_are_compared_without_regard_to_case() -> None:
    known = {1: KnownPart(b"\xab" * 16, 1)}
    assert judge_parts([ListedPart(1, "AB" * 16)], known) is None


def test_only_the_last_part_may_be_small() -> None:
    known = {1: KnownPart(b"a" * 16, PART_SIZE_BYTES_MIN - 1), 2: KnownPart(b"b" * 16, 0)}
    first, second = ListedPart(1, (b"a" * 16).hex()), ListedPart(2, (b"b" * 16).hex())
    assert judge_parts([first], known) is None
    assert judge_parts([first, second], known) == PartTooSmall(first, PART_SIZE_BYTES_MIN - 1)


def test_the_etag_is_the_md5_of_md5s() -> None:
    assert etag_of_parts([b"a" * 16, b"b" * 16]) == hashlib.md5(b"a" * 16 + b"b" * 16).digest()


def test_tokens_tell_part_lists_apart() -> None:
    lists = [listed(1), listed(2), listed(1, 2), [ListedPart(1, "00" * 16)]]
    assert len({completion_token(parts) for parts in lists}) == len(lists)
    assert completion_token([ListedPart(1, "AB")]) == completion_token([ListedPart(1, "ab")])


# Listing


@dataclass
class Stored:
    """A page source over a sorted list, as the metadata keeps it."""

    uploads: list[tuple[bytes, bytes, bool]]
    pages: int = 0

    async def page(self, prefix: bytes, after: Position | None, limit: int) -> Page[str]:
        self.pages += 1
        found = []
        for key, upload_id, is_open in sorted(self.uploads):
            match after:
                case AfterUpload(marker, marker_id):
                    behind = (key, upload_id) > (marker, marker_id)
                case AfterKey(marker):
                    behind = key > marker
                case PastPrefix(past):
                    behind = key > past and not key.startswith(past)
                case None:
                    behind = True
            if behind and key.startswith(prefix):
                found.append(Item(key, upload_id, "open" if is_open else None))
        return Page(found[:limit], len(found) > limit)


def expected(
    uploads: list[tuple[bytes, bytes, bool]], prefix: bytes, delimiter: bytes
) -> list[tuple[bytes, bytes]]:
    """The dumb way: everything, in order; common prefixes have no id."""
    lines: list[tuple[bytes, bytes]] = []
    for key, upload_id, is_open in sorted(uploads):
        if not is_open or not key.startswith(prefix):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        line = (key, upload_id) if cut < 0 else (key[: cut + len(delimiter)], b"")
        if line not in lines:
            lines.append(line)
    return lines


KEYS = st.text("ab/", min_size=1, max_size=5).map(str.encode)
UPLOADS = st.lists(
    st.tuples(KEYS, st.binary(min_size=1, max_size=2), st.booleans()),
    unique_by=lambda upload: upload[:2],
    max_size=30,
)


@given(
    uploads=UPLOADS,
    prefix=st.text("ab/", max_size=2).map(str.encode),
    delimiter=st.sampled_from([b"", b"/", b"b", b"//"]),
    step=st.integers(1, 7),
)
def test_pages_of_any_size_add_up_to_the_whole(
    uploads: list[tuple[bytes, bytes, bool]], prefix: bytes, delimiter: bytes, step: int
) -> None:
    source = Stored(uploads)
    seen: list[tuple[bytes, bytes]] = []
    after: Position | None = None
    for _ in range(len(uploads) + 1):
        listing = asyncio.run(list_uploads(source, Question(prefix, delimiter, after, step)))
        lines = [(item.key, item.upload_id) for item in listing.items]
        lines += [(rolled, b"") for rolled in listing.prefixes]
        seen += sorted(lines)
        match listing.next:
            case None:
                break
            case AfterUpload(key, upload_id):
                assert len(lines) == step
                after = after_markers(key, upload_id, prefix, delimiter)
            case PastPrefix(rolled):
                assert len(lines) == step
                after = after_markers(rolled, b"", prefix, delimiter)
    assert seen == expected(uploads, prefix, delimiter)


def test_a_key_marker_alone_skips_all_uploads_of_the_key() -> None:
    source = Stored([(b"a", b"1", True), (b"a", b"2", True), (b"b", b"1", True)])
    question = Question(after=after_markers(b"a", b"", b"", b""))
    listing = asyncio.run(list_uploads(source, question))
    assert [item.key for item in listing.items] == [b"b"]
    question = Question(after=after_markers(b"a", b"1", b"", b""))
    listing = asyncio.run(list_uploads(source, question))
    assert [(item.key, item.upload_id) for item in listing.items] == [(b"a", b"2"), (b"b", b"1")]


def test_a_key_marker_in_a_common_prefix_stands_behind_all_of_it() -> None:
    source = Stored([(b"a/1", b"1", True), (b"a/2", b"1", True), (b"b", b"1", True)])
    for key, upload_id in ((b"a/", b""), (b"a/1", b""), (b"a/1", b"1")):
        question = Question(b"", b"/", after_markers(key, upload_id, b"", b"/"))
        listing = asyncio.run(list_uploads(source, question))
        assert ([item.key for item in listing.items], listing.prefixes) == ([b"b"], [])


def test_an_upload_id_marker_without_a_key_marker_means_nothing() -> None:
    assert after_markers(b"", b"1", b"", b"/") is None


def test_no_uploads_asked_for_is_not_a_truncated_answer() -> None:
    source = Stored([(b"a", b"1", True)])
    listing = asyncio.run(list_uploads(source, Question(uploads_max=0)))
    assert (listing.items, listing.prefixes, listing.next) == ([], [], None)
    assert source.pages == 0
