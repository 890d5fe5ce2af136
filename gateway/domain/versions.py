"""Version ids on buckets that never had versioning: there is one version, "null"."""

import re
from enum import Enum

NULL_VERSION = "null"
_WELL_FORMED = re.compile(r"[A-Za-z0-9._]{32}")


class VersionAsked(Enum):
    """What a versionId argument means."""

    CURRENT = "current"
    """The object as it is now: no version named, or the null one."""
    ABSENT = "absent"
    """A well-formed version id, but no such version: NoSuchVersion."""
    MALFORMED = "malformed"
    """Not a version id at all: InvalidArgument."""


def version_asked(version_id: str | None) -> VersionAsked:
    """Read a versionId argument; None when it was not given."""
    if version_id is None or version_id == NULL_VERSION:
        return VersionAsked.CURRENT
    if _WELL_FORMED.fullmatch(version_id):
        return VersionAsked.ABSENT
    return VersionAsked.MALFORMED
