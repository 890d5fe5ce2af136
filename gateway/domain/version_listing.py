"""The rules of ListObjectVersions: as `listing`, but a key has versions, newest first.

Source: S3 API Reference, ListObjectVersions (key-marker, version-id-marker, common prefixes).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from gateway.domain.listing import KEYS_MAX, From, after_marker, common_prefix

T = TypeVar("T")


class VersionPosition(NamedTuple):
    """Where a listing begins or goes on. With `below` (and AT): at the versions of that key whose
    order is smaller, then at the keys after it."""

    origin: From
    key: bytes
    below: int | None = None


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """One version or delete marker; `order` orders those of a key."""

    key: bytes
    order: int
    value: T
    latest: bool


@dataclass(frozen=True, slots=True)
class VersionPage(Generic[T]):
    """Versions in order; `after` is where there may be more, None at the end. It may come with no
    versions at all, and then still has moved on."""

    items: Sequence[Item[T]]
    after: VersionPosition | None


class VersionSource(Protocol[T]):
    """The reading that a listing needs."""

    async def page(self, prefix: bytes, start: VersionPosition, limit: int) -> VersionPage[T]:
        """About `limit` (≥ 1) versions of keys that begin with the prefix, from the position on."""
        ...


@dataclass(frozen=True, slots=True)
class VersionQuestion:
    """What a client asks. `keys_max` 0 to 1,000 counts versions, markers and common prefixes."""

    prefix: bytes = b""
    delimiter: bytes = b""
    after: VersionPosition | None = None
    keys_max: int = KEYS_MAX


@dataclass(slots=True)
class VersionListing(Generic[T]):
    """The answer. When it is truncated, `last` is the last thing listed: a version, or a common
    prefix."""

    items: list[Item[T]]
    prefixes: list[bytes]
    last: Item[T] | bytes | None = None


def after_key_marker(marker: bytes, prefix: bytes, delimiter: bytes) -> VersionPosition | None:
    """The position that a key-marker without a version means: behind all versions of the key."""
    position = after_marker(marker, prefix, delimiter)
    return None if position is None else VersionPosition(position.origin, position.key)


async def list_versions(source: VersionSource[T], question: VersionQuestion) -> VersionListing[T]:
    """Answer the question. Seeks past each common prefix, however many versions it covers."""
    prefix, keys_max = question.prefix, question.keys_max
    listing: VersionListing[T] = VersionListing([], [])
    if keys_max == 0:
        return listing
    last: Item[T] | bytes | None = None
    start: VersionPosition | None = question.after or VersionPosition(From.AT, prefix)
    while start is not None:
        room = keys_max - len(listing.items) - len(listing.prefixes)
        page = await source.page(prefix, start, room + 1)
        start = page.after
        for item in page.items:
            rolled = None
            if question.delimiter:
                rolled = common_prefix(item.key, prefix, question.delimiter)
            if rolled is not None and rolled == last:
                continue
            if room == 0:
                listing.last = last
                return listing
            room -= 1
            if rolled is None:
                listing.items.append(item)
                last = item
            else:
                listing.prefixes.append(rolled)
                last = rolled
        if start is not None and isinstance(last, bytes) and start.key.startswith(last):
            start = VersionPosition(From.PAST, last)
    return listing
