"""Tags of users, roles, managed policies and identity providers: which may be set, and how sets change.

Source: IAM User Guide, "Tags for IAM resources": keys of users' and roles' tags are the same whatever
their case, which is kept; those of others are not.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from gateway.domain import iam
from gateway.domain.iam import ROLE, USER, IamRefused, Kind, Refusal

Tags = tuple[tuple[str, str], ...]
"""Key and value of each tag."""

TAGS_MAX: Final = 50
TAG_KEY_LENGTH_MAX: Final = 128
TAG_VALUE_LENGTH_MAX: Final = 256
TAG_PATTERN: Final = re.compile(r"(?:[\w.:/=+@-]|(?![\t-\r\x1c-\x1f\x85])\s)*")
"""Letters, numbers, separators (of which control characters are none) and a little punctuation."""
_RESERVED_PREFIX: Final = "aws:"


def checked(kind: Kind, tags: Sequence[tuple[str, str]]) -> Tags:
    """Tags that one request sets. Raises IamRefused (InvalidInput)."""
    if len({_folded(kind, key) for key, _ in tags}) < len(tags):
        raise IamRefused(
            Refusal.INVALID_INPUT,
            "Duplicate tag keys found. Please note that Tag keys of users and roles are case "
            "insensitive.",
        )
    for key, _ in tags:
        if key.lower().startswith(_RESERVED_PREFIX):
            raise IamRefused(
                Refusal.INVALID_INPUT,
                "Tag keys that begin with aws: are reserved, and can be neither added nor changed.",
            )
    return tuple(tags)


def merged(kind: Kind, present: Tags, new: Tags) -> Tags:
    """The set with further tags, which take the place of those of the same keys; in order of key.
    Raises IamRefused (LimitExceeded)."""
    tags = (*without(kind, present, (key for key, _ in new)), *new)
    if len(tags) > TAGS_MAX:
        raise iam.over_quota(f"TagsPer{kind.title}", TAGS_MAX)
    return tuple(sorted(tags))


def without(kind: Kind, present: Tags, keys: Iterable[str]) -> Tags:
    """The set without tags of these keys, which need not be there."""
    gone = {_folded(kind, key) for key in keys}
    return tuple(tag for tag in present if _folded(kind, tag[0]) not in gone)


def of_key(tags: Tags, key: str) -> tuple[str, ...] | None:
    """What a condition finds that asks for the tag `key`, whose case does not matter there; None when
    there is no such tag."""
    return tuple(value for each, value in tags if each.lower() == key.lower()) or None


def _folded(kind: Kind, key: str) -> str:
    return key.lower() if kind in (USER, ROLE) else key
