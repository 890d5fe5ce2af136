"""What is asked of a policy: who, which action, which resource, and the facts of the request."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. The root of an account has `arn` "arn:aws:iam::<account>:root"; whoever did not sign
    has no account at all. `role_arn` is that of the role that a session plays: policies may mean
    either. `federated` is the provider of who comes with nothing but a provider's token."""

    account_id: str
    arn: str
    canonical_id: str = ""
    user_id: str = ""
    role_arn: str = ""
    federated: str = ""

    @property
    def is_anonymous(self) -> bool:
        """Nobody signed."""
        return not self.account_id

    @property
    def is_root(self) -> bool:
        """The account itself, not one of its users."""
        return self.arn.endswith(":root")


def root_arn(account_id: str) -> str:
    """The ARN of an account's root."""
    return f"arn:aws:iam::{account_id}:root"


ANYBODY = Caller("", "")
"""Whoever did not sign."""


class Facts(Protocol):
    """The condition keys of a request."""

    def values(self, key: str) -> Sequence[str] | None:
        """The values of a condition key (lower case; the part after "/" as written); None when the
        request has no such key."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """May this caller do this? `action` as "s3:GetObject", `resource` as an ARN."""

    caller: Caller
    action: str
    resource: str
    facts: Facts

    def variable(self, name: str) -> str | None:
        """The value of a policy variable: a key with exactly one value."""
        found = self.facts.values(name)
        return found[0] if found is not None and len(found) == 1 else None
