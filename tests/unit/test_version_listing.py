"""ListObjectVersions against a model that knows everything at once."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.listing import From
from gateway.domain.version_listing import (
    Item,
    VersionPage,
    VersionPosition,
    VersionQuestion,
    after_key_marker,
    list_versions,
)

Stored = list[tuple[bytes, int]]
"""(key, order), in listing order."""


class Source:
    """Pages of at most `limit` versions, and now and then fewer."""

    def __init__(self, stored: Stored, stingy: bool) -> None:
        self._stored = stored
        self._stingy = stingy
        self.reads = 0

    async def page(self, prefix: bytes, start: VersionPosition, limit: int) -> VersionPage[str]:
        self.reads += 1
        assert limit >= 1
        rest = [
            each for each in self._stored if each[0].startswith(prefix) and follows(each, start)
        ]
        count = max(1, limit // 2) if self._stingy else limit
        items = [Item(key, order, "", latest=False) for key, order in rest[:count]]
        after = None
        if len(rest) > count:
            after = VersionPosition(From.AT, items[-1].key, items[-1].order)
        return VersionPage(items, after)


def follows(version: tuple[bytes, int], start: VersionPosition) -> bool:
    key, order = version
    if start.origin is From.PAST:
        return key > start.key and not key.startswith(start.key)
    if start.origin is From.AFTER:
        return key > start.key
    if key == start.key and start.below is not None:
        return order < start.below
    return key >= start.key


def model(stored: Stored, prefix: bytes, delimiter: bytes) -> list[bytes | tuple[bytes, int]]:
    """Everything in one answer: versions, and common prefixes where they come."""
    answer: list[bytes | tuple[bytes, int]] = []
    for key, order in stored:
        if not key.startswith(prefix):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        if cut < 0:
            answer.append((key, order))
        elif (rolled := key[: cut + len(delimiter)]) not in answer:
            answer.append(rolled)
    return answer


names = st.text(alphabet="ab/", min_size=1, max_size=4).map(str.encode)


@settings(max_examples=200)
@given(
    st.dictionaries(names, st.integers(1, 4), max_size=8),
    st.sampled_from([b"", b"a", b"a/"]),
    st.sampled_from([b"", b"/", b"b"]),
    st.integers(1, 5),
    st.booleans(),
)
def test_pages_joined_are_the_whole(
    counts: dict[bytes, int], prefix: bytes, delimiter: bytes, size: int, stingy: bool
) -> None:
    stored = [(key, order) for key in sorted(counts) for order in range(10 * counts[key], 0, -10)]
    whole = model(stored, prefix, delimiter)
    joined: list[bytes | tuple[bytes, int]] = []
    after: VersionPosition | None = None
    while True:
        listing = asyncio.run(
            list_versions(Source(stored, stingy), VersionQuestion(prefix, delimiter, after, size))
        )
        found = in_order(listing.items, listing.prefixes)
        joined += found
        if listing.last is None:
            assert len(found) <= size
            break
        assert len(found) == size
        if isinstance(listing.last, bytes):
            after = after_key_marker(listing.last, prefix, delimiter)
        else:
            after = VersionPosition(From.AT, listing.last.key, listing.last.order)
    assert joined == whole


def in_order(
    items: Sequence[Item[str]], prefixes: Sequence[bytes]
) -> list[bytes | tuple[bytes, int]]:
    found: list[tuple[bytes, int, bytes | tuple[bytes, int]]] = [
        (item.key, -item.order, (item.key, item.order)) for item in items
    ]
    found += [(prefix, 0, prefix) for prefix in prefixes]
    return [each for _, _, each in sorted(found, key=lambda one: one[:2])]


def test_nothing_is_read_when_nothing_may_be_listed() -> None:
    source = Source([(b"a", 1)], stingy=False)
    listing = asyncio.run(list_versions(source, VersionQuestion(keys_max=0)))
    assert (listing.items, listing.last, source.reads) == ([], None, 0)


def test_a_common_prefix_is_sought_past_however_much_it_covers() -> None:
    stored = [(b"a/%05d" % number, 1) for number in range(10_000)] + [(b"b", 1)]
    source = Source(stored, stingy=False)
    listing = asyncio.run(list_versions(source, VersionQuestion(b"", b"/", None, 5)))
    assert (listing.prefixes, [item.key for item in listing.items]) == ([b"a/"], [b"b"])
    assert source.reads <= 3
