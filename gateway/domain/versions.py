"""Version ids: what a versionId argument means, and how versions of a key are named and ordered.

An id is 24 bytes, which is 32 characters to clients: the version's order within its key, masked by
the first of the 16 random bytes that follow. So the id alone finds the record, without a scan, and
nobody can guess one. Source of the forms: S3 User Guide, "How S3 Versioning works" (opaque strings
of at most 1,024 bytes; the null version's id is "null").
"""

import re
from base64 import b64decode, b64encode
from enum import Enum
from typing import NamedTuple

NULL_VERSION = "null"
ENABLED = "Enabled"
SUSPENDED = "Suspended"
RANDOM_SIZE_BYTES = 16
_ORDER_SIZE_BYTES = 8
_WELL_FORMED = re.compile(r"[A-Za-z0-9._]{32}")
_ALPHABET = b"._"


class VersionAsked(Enum):
    """What a versionId argument means."""

    CURRENT = "current"
    """No version is named."""
    NAMED = "named"
    """A version id, or the null version's: a version that may or may not be there."""
    MALFORMED = "malformed"
    """Not a version id at all: InvalidArgument."""


def version_asked(version_id: str | None) -> VersionAsked:
    """Read a versionId argument; None when it was not given."""
    if version_id is None:
        return VersionAsked.CURRENT
    if version_id == NULL_VERSION or _WELL_FORMED.fullmatch(version_id):
        return VersionAsked.NAMED
    return VersionAsked.MALFORMED


class Stamp(NamedTuple):
    """What makes a record a version. A null one has the id b""."""

    version_id: bytes
    order: int


UNVERSIONED = Stamp(b"", 0)
"""The stamp of everything in a bucket that never had versioning."""


def new_stamp(versioning: str, *, above: int, now_ns: int, random: bytes) -> Stamp:
    """The stamp of a version newer than the one of order `above`, whatever the clock says.

    `versioning` is the bucket's state; suspended buckets get null versions.
    """
    if not versioning:
        return UNVERSIONED
    order = max(above + 1, now_ns)
    if versioning != ENABLED:
        return Stamp(b"", order)
    assert len(random) == RANDOM_SIZE_BYTES
    return Stamp(_masked(order, random).to_bytes(_ORDER_SIZE_BYTES, "big") + random, order)


def fits(stamp: Stamp, versioning: str, *, above: int) -> bool:
    """Whether a version stamped earlier may still become current over one of order `above`."""
    return bool(stamp.version_id) == (versioning == ENABLED) and stamp.order > above


def version_text(version_id: bytes) -> str:
    """A version id as clients see it."""
    return b64encode(version_id, _ALPHABET).decode() if version_id else NULL_VERSION


def version_bytes(text: str) -> bytes:
    """The id of a well-formed text (see `version_asked`); b"" for the null version's."""
    return b"" if text == NULL_VERSION else b64decode(text, _ALPHABET)


def order_of(version_id: bytes) -> int:
    """The order that an id (not the null version's) tells."""
    return _masked(int.from_bytes(version_id[:_ORDER_SIZE_BYTES], "big"), version_id[8:])


def _masked(order: int, random: bytes) -> int:
    return order ^ int.from_bytes(random[:_ORDER_SIZE_BYTES], "big")
