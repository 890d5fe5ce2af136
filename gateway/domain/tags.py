"""Rules of tag sets: how many, how long, which characters. Reading them from XML or a header is not
done here."""

import unicodedata
from collections.abc import Sequence
from typing import Final

Tags = tuple[tuple[str, str], ...]
"""Key and value of each tag."""

OBJECT_TAGS_MAX: Final = 10
BUCKET_TAGS_MAX: Final = 50
KEY_LENGTH_MAX: Final = 128
VALUE_LENGTH_MAX: Final = 256
"""Lengths in UTF-16 units. Source of all four: S3 User Guide, "Categorizing your objects using tags"
and "Using cost allocation S3 bucket tags"."""
_PUNCTUATION: Final = frozenset("+-=._:/@")
_RESERVED_PREFIX: Final = "aws:"


class TagRefused(Exception):
    """A tag set breaks a rule. `reason` is for the client, `key` the tag's that broke it."""

    def __init__(self, reason: str, key: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.key = key


def check_tags(tags: Sequence[tuple[str, str]], *, count_max: int) -> Tags:
    """The tags in order of key, if S3 takes them as a set. Raises TagRefused."""
    if len(tags) > count_max:
        kind = "Object" if count_max == OBJECT_TAGS_MAX else "Bucket"
        raise TagRefused(f"{kind} tags cannot be greater than {count_max}")
    seen: set[str] = set()
    for key, value in tags:
        if not 1 <= _length(key) <= KEY_LENGTH_MAX or not _is_plain(key):
            raise TagRefused("The TagKey you have provided is invalid", key)
        if _length(value) > VALUE_LENGTH_MAX or not _is_plain(value):
            raise TagRefused("The TagValue you have provided is invalid", key)
        if key.lower().startswith(_RESERVED_PREFIX):
            raise TagRefused("System tags cannot be added/updated by requester", key)
        if key in seen:
            raise TagRefused("Cannot provide multiple Tags with the same key", key)
        seen.add(key)
    return tuple(sorted(tags))


def _length(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text)


def _is_plain(text: str) -> bool:
    """Letters, marks that belong to them, numbers, blanks and a little punctuation."""
    return all(
        character.isalnum()
        or character in _PUNCTUATION
        or character.isspace()
        or unicodedata.category(character)[0] == "M"
        for character in text
    )
