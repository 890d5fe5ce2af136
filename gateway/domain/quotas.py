"""Quotas: what buckets and accounts may hold, and whether a write still fits. Pure.

Bytes are those that clients see: of current objects, of versions that are not current, and of the
parts of unfinished uploads; a copy counts in full though it shares its bytes with its source.
Objects are current objects and versions; delete markers and parts are none.
"""

from typing import NamedTuple

QUOTA_MAX = (1 << 63) - 1


class Quota(NamedTuple):
    """The most that there may be; None: as much as one likes."""

    size_bytes_max: int | None = None
    objects_max: int | None = None


class Amount(NamedTuple):
    """So much is held, or is added (negative: taken away)."""

    size_bytes: int = 0
    objects: int = 0

    def plus(self, other: "Amount") -> "Amount":
        """Both together."""
        return Amount(self.size_bytes + other.size_bytes, self.objects + other.objects)

    def minus(self, other: "Amount") -> "Amount":
        """What is left of this without the other."""
        return Amount(self.size_bytes - other.size_bytes, self.objects - other.objects)

    @property
    def demand(self) -> "Amount":
        """What of it needs room: nothing of what shrinks."""
        return Amount(max(self.size_bytes, 0), max(self.objects, 0))


NOTHING = Amount()


def exceeded(quota: Quota, held: Amount, growth: Amount) -> str | None:
    """Which quota a write would break, in words; None when it fits. What does not grow always fits,
    also where more is held than may be."""
    if (
        quota.size_bytes_max is not None
        and growth.size_bytes > 0
        and held.size_bytes + growth.size_bytes > quota.size_bytes_max
    ):
        return f"{quota.size_bytes_max} bytes"
    if (
        quota.objects_max is not None
        and growth.objects > 0
        and held.objects + growth.objects > quota.objects_max
    ):
        return f"{quota.objects_max} objects"
    return None
