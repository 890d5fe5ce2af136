"""The rules of object lock: when a version may end, and how its retention may change.

Source: S3 User Guide, "Locking objects with Object Lock": governance mode yields to whoever may
bypass it and says so, compliance mode to nobody until its date, a legal hold to nobody until it is
lifted; retention may always be extended. A year of a default retention is 365 days.
"""

from typing import NamedTuple

GOVERNANCE = "GOVERNANCE"
COMPLIANCE = "COMPLIANCE"
MODES = frozenset({GOVERNANCE, COMPLIANCE})
DAYS = "Days"
YEARS = "Years"
PERIOD_MAX = {DAYS: 36_500, YEARS: 100}
"""Longest default retention by unit. Source: S3 API Reference, DefaultRetention."""
_DAY_MS = 24 * 60 * 60 * 1000
_DAYS_A_UNIT = {DAYS: 1, YEARS: 365}

Retention = tuple[str, int]
"""(mode, until when in ms since the epoch)."""
DefaultRetention = tuple[str, int, str]
"""(mode, how many, Days or Years): what a bucket gives to new versions."""


class Lock(NamedTuple):
    """What protects a version. A legal hold is on, off, or (None) was never set."""

    retention: Retention | None = None
    legal_hold: bool | None = None

    @property
    def is_held(self) -> bool:
        """By a legal hold."""
        return self.legal_hold is True

    @property
    def is_lifted(self) -> bool:
        """A legal hold was set, and is off."""
        return self.legal_hold is False


UNLOCKED = Lock()


def is_locked(lock: Lock, *, now_ms: int, bypass: bool) -> bool:
    """Whether the version must stay. `bypass`: governance mode is to be passed over."""
    if lock.is_held:
        return True
    if lock.retention is None:
        return False
    mode, until_ms = lock.retention
    return until_ms > now_ms and not (bypass and mode == GOVERNANCE)


def may_change_retention(
    current: Retention | None, wanted: Retention | None, *, now_ms: int, bypass: bool
) -> bool:
    """Whether a version's retention may become `wanted` (None: end)."""
    if current is None or current[1] <= now_ms:
        return True
    if bypass and current[0] == GOVERNANCE:
        return True
    return wanted is not None and wanted[0] == current[0] and wanted[1] >= current[1]


def default_retention(rule: DefaultRetention | None, now_ms: int) -> Retention | None:
    """The retention that a bucket's rule gives to a version made now."""
    if rule is None:
        return None
    mode, count, unit = rule
    return mode, now_ms + count * _DAYS_A_UNIT[unit] * _DAY_MS
