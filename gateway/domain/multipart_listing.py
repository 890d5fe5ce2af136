"""The rules of ListMultipartUploads: order, markers, prefix and delimiter. Reading is handed in.

Uploads come in order of their keys, then of their ids (which begin with the time, so that is the
order of initiation). Source: S3 API Reference, ListMultipartUploads.
"""

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from gateway.domain.listing import common_prefix

UPLOADS_MAX = 1000
"""Uploads and common prefixes an answer holds at most."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AfterUpload:
    """Behind that upload of that key."""

    key: bytes
    upload_id: bytes


@dataclass(frozen=True, slots=True)
class AfterKey:
    """Behind all uploads of that key."""

    key: bytes


@dataclass(frozen=True, slots=True)
class PastPrefix:
    """Behind all keys that begin with it."""

    prefix: bytes


Position = AfterUpload | AfterKey | PastPrefix


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """An upload as stored. `value` is None for one that is not to be listed (it is completed)."""

    key: bytes
    upload_id: bytes
    value: T | None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Uploads in order; `more` when others with the prefix follow."""

    items: list[Item[T]]
    more: bool


class PageSource(Protocol[T]):
    """The reading that a listing needs."""

    async def page(self, prefix: bytes, after: Position | None, limit: int) -> Page[T]:
        """Up to `limit` uploads whose keys begin with the prefix, from the position on."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks; `uploads_max` 0 to 1,000."""

    prefix: bytes = b""
    delimiter: bytes = b""
    after: Position | None = None
    uploads_max: int = UPLOADS_MAX


@dataclass(slots=True)
class Listing(Generic[T]):
    """The answer; `next` is where to go on when it is truncated."""

    items: list[Item[T]] = field(default_factory=list)
    prefixes: list[bytes] = field(default_factory=list)
    next: AfterUpload | PastPrefix | None = None


def after_markers(
    key_marker: bytes, upload_id_marker: bytes, prefix: bytes, delimiter: bytes
) -> Position | None:
    """The position that the two markers mean; an upload id counts only beside a key.

    A key that rolls up into a common prefix stands behind all of it, as in `listing.after_marker`.
    """
    if not key_marker:
        return None
    rolled = common_prefix(key_marker, prefix, delimiter) if delimiter else None
    if rolled is not None:
        return PastPrefix(rolled)
    if upload_id_marker:
        return AfterUpload(key_marker, upload_id_marker)
    return AfterKey(key_marker)


async def list_uploads(source: PageSource[T], question: Question) -> Listing[T]:
    """Answer the question; pages that end inside a common prefix are followed by a seek past it."""
    assert 0 <= question.uploads_max <= UPLOADS_MAX
    listing: Listing[T] = Listing()
    if question.uploads_max == 0:
        return listing
    position = question.after
    last: AfterUpload | PastPrefix | None = None
    while True:
        page = await source.page(question.prefix, position, question.uploads_max + 1)
        for item in page.items:
            if isinstance(position, PastPrefix) and item.key.startswith(position.prefix):
                continue
            position = AfterUpload(item.key, item.upload_id)
            if item.value is None:
                continue
            if len(listing.items) + len(listing.prefixes) == question.uploads_max:
                listing.next = last
                return listing
            rolled = None
            if question.delimiter:
                rolled = common_prefix(item.key, question.prefix, question.delimiter)
            if rolled is None:
                listing.items.append(item)
                last = position
            else:
                listing.prefixes.append(rolled)
                last = position = PastPrefix(rolled)
        if not page.more:
            return listing
