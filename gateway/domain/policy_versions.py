"""Versions of a managed policy: at most five, of which one counts; their numbers are never given again.

Source: IAM User Guide, "Versioning IAM policies"; IAM API Reference, CreatePolicyVersion and
DeletePolicyVersion.
"""

import re
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from gateway.domain.iam import IamRefused, Refusal

VERSIONS_MAX: Final = 5
VERSION_ID: Final = re.compile(r"v[1-9][0-9]*(\.[A-Za-z0-9-]*)?")
"""What may be asked for; those that are given have no dot."""
_NUMBERED: Final = re.compile(r"v([1-9][0-9]{0,17})")


class PolicyVersion(NamedTuple):
    """One version. `document` is in its stored form."""

    number: int
    created_ms: int
    document: bytes

    @property
    def version_id(self) -> str:
        """As clients name it."""
        return f"v{self.number}"


def number_of(version_id: str) -> int:
    """The number in a version's id; 0, which no version has, for other texts."""
    found = _NUMBERED.fullmatch(version_id)
    return 0 if found is None else int(found[1])


@dataclass(frozen=True, slots=True)
class PolicyVersions:
    """All that a policy has. `default` is the one that counts; `made` the highest number ever given."""

    default: PolicyVersion
    others: tuple[PolicyVersion, ...] = ()
    made: int = 1

    @property
    def newest_first(self) -> tuple[PolicyVersion, ...]:
        """All of them."""
        return tuple(sorted((self.default, *self.others), reverse=True))

    def find(self, number: int) -> PolicyVersion | None:
        """The version of that number; None when there is none."""
        return next((each for each in self.newest_first if each.number == number), None)

    def with_new(self, document: bytes, now_ms: int, *, as_default: bool) -> "PolicyVersions":
        """With one more, of the next number. Raises IamRefused (LimitExceeded)."""
        if 1 + len(self.others) >= VERSIONS_MAX:
            raise IamRefused(
                Refusal.LIMIT_EXCEEDED,
                f"A managed policy can have up to {VERSIONS_MAX} versions. Before you create a new "
                "version, you must delete an existing version.",
            )
        new = PolicyVersion(self.made + 1, now_ms, document)
        if as_default:
            return PolicyVersions(new, (*self.others, self.default), new.number)
        return replace(self, others=(*self.others, new), made=new.number)

    def with_default(self, chosen: PolicyVersion) -> "PolicyVersions":
        """With another one of them counting."""
        if chosen == self.default:
            return self
        left = tuple(each for each in self.others if each != chosen)
        return replace(self, default=chosen, others=(*left, self.default))

    def without(self, version: PolicyVersion) -> "PolicyVersions":
        """With one less. Raises IamRefused (DeleteConflict) for the one that counts."""
        if version == self.default:
            raise IamRefused(
                Refusal.DELETE_CONFLICT, "Cannot delete the default version of a policy."
            )
        return replace(self, others=tuple(each for each in self.others if each != version))
