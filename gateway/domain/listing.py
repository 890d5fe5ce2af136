"""The rules of listing: prefix, delimiter, markers and how much is a page. Reading is handed in.

Works on keys as UTF-8 bytes, whose byte order is S3's listing order. Source: S3 API Reference,
ListObjectsV2 and ListObjects ("All of the keys that roll up into a common prefix count as a single
return when calculating the number of returns").
"""

from bisect import bisect_left
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

KEYS_MAX = 1000
"""Keys and common prefixes an answer holds at most."""
_FIRST_PAGE_WITH_DELIMITER = 128
_SMALLEST_PAGE = 16


class From(Enum):
    """How a position relates to its key."""

    AT = "at"
    """The key and what comes after it."""
    AFTER = "after"
    """What comes after the key."""
    PAST = "past"
    """What comes after all keys that begin with it."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a listing begins or goes on."""

    origin: From
    key: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Keys in order with their values, at most as many as asked for; `more` when there are others
    with the prefix after them."""

    keys: list[bytes]
    values: list[bytes]
    more: bool


class PageSource(Protocol):
    """The reading that a listing needs."""

    async def page(self, prefix: bytes, start: Position, limit: int) -> Page:
        """Up to `limit` (≥ 1) keys that begin with the prefix, from the position on."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks. `after` is its marker, start-after or token; `keys_max` 0 to 1,000."""

    prefix: bytes = b""
    delimiter: bytes = b""
    after: Position | None = None
    keys_max: int = KEYS_MAX


@dataclass(slots=True)
class Listing:
    """The answer: keys with values, common prefixes, and where to go on when it is truncated."""

    keys: list[bytes]
    values: list[bytes]
    prefixes: list[bytes]
    next: Position | None


def after_marker(marker: bytes, prefix: bytes, delimiter: bytes) -> Position | None:
    """The position that a marker means; None for an empty one.

    A marker that is a common prefix (what NextMarker may be), or that rolls up into one, stands
    behind all its keys: S3 then shows what comes after the prefix.
    """
    rolled = common_prefix(marker, prefix, delimiter) if delimiter else None
    if rolled is not None:
        return Position(From.PAST, rolled)
    return Position(From.AFTER, marker) if marker else None


def after_start(start: bytes, prefix: bytes, delimiter: bytes) -> Position | None:
    """The position that start-after of ListObjectsV2 means; None for an empty one.

    Behind the key alone, so that a common prefix which it lies in is shown for the rest of it; but
    a common prefix itself stands behind all its keys.
    """
    if not start:
        return None
    if delimiter and common_prefix(start, prefix, delimiter) == start:
        return Position(From.PAST, start)
    return Position(From.AFTER, start)


def common_prefix(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    """What a key rolls up into: up to the first delimiter behind the prefix; None when it has none."""
    if not key.startswith(prefix):
        return None
    found = key.find(delimiter, len(prefix))
    return None if found < 0 else key[: found + len(delimiter)]


async def list_keys(source: PageSource, question: Question) -> Listing:
    """Answer the question. Reads about as many keys as the answer holds, however many keys its
    common prefixes cover: it seeks past each."""
    assert 0 <= question.keys_max <= KEYS_MAX
    if question.keys_max == 0:
        return Listing([], [], [], None)
    start = question.after or Position(From.AT, question.prefix)
    if question.delimiter:
        return await _list_rolled_up(source, question, start)
    page = await source.page(question.prefix, start, question.keys_max)
    more = Position(From.AFTER, page.keys[-1]) if page.more else None
    return Listing(page.keys, page.values, [], more)


async def _list_rolled_up(source: PageSource, question: Question, start: Position) -> Listing:
    prefix, delimiter, keys_max = question.prefix, question.delimiter, question.keys_max
    listing = Listing([], [], [], None)
    keys, values, prefixes = listing.keys, listing.values, listing.prefixes
    limit = min(keys_max + 1, _FIRST_PAGE_WITH_DELIMITER)
    skip, size_delimiter = len(prefix), len(delimiter)
    while True:
        page = await source.page(prefix, start, limit)
        found_keys, found_values = page.keys, page.values
        index, end, sought = 0, len(found_keys), False
        room = keys_max - len(keys) - len(prefixes)
        while index < end:
            if room == 0:
                listing.next = _last(keys, prefixes)
                return listing
            room -= 1
            key = found_keys[index]
            cut = key.find(delimiter, skip)
            if cut < 0:
                keys.append(key)
                values.append(found_values[index])
                index += 1
                continue
            rolled = key[: cut + size_delimiter]
            prefixes.append(rolled)
            index += 1
            if index < end and found_keys[index].startswith(rolled):
                index = _first_beyond(found_keys, rolled, index)
                sought = index == end
        if not page.more:
            return listing
        start = _last(keys, prefixes)
        # A page that ended inside a common prefix was read for little: ask for less next time.
        limit = max(limit // 4, _SMALLEST_PAGE) if sought else limit * 4
        limit = min(limit, room + 1)


def _first_beyond(keys: list[bytes], prefix: bytes, start: int) -> int:
    """Index of the first key from `start` on that does not begin with the prefix."""
    return bisect_left(keys, 1, start, key=lambda key: not key.startswith(prefix))


def _last(keys: list[bytes], prefixes: list[bytes]) -> Position:
    """Behind the last thing listed."""
    if prefixes and (not keys or prefixes[-1] > keys[-1]):
        return Position(From.PAST, prefixes[-1])
    return Position(From.AFTER, keys[-1])
