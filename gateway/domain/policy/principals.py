"""Principal and NotPrincipal: whom a statement is about.

Source: IAM User Guide, "AWS JSON policy elements: Principal".
"""

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from gateway.domain.policy.errors import MalformedPolicy
from gateway.domain.policy.question import Caller, root_arn

INVALID: Final = "Invalid principal in policy"
_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_IAM_ARN: Final = re.compile(
    r"arn:aws[a-z-]*:(iam|sts)::([A-Za-z0-9_+=,.@-]*):"
    r"(root|(?:user|role|assumed-role|federated-user)/[^*?\s]{1,512})"
)
_SERVICE: Final = re.compile(
    r"(?:[a-z0-9-]+\.)+(?:amazonaws\.com(?:\.cn)?|aws\.internal|amazon\.com)"
)
_PROVIDER: Final = re.compile(
    r"arn:aws[a-z-]*:iam::[0-9]{12}:(?:oidc|saml)-provider/\S+|(?:[a-z0-9-]+\.)+[a-z]+"
)
_CANONICAL: Final = re.compile(r"[0-9a-fA-F]{32,64}")


class Match(IntEnum):
    """How a caller is meant: not at all, as one of an account's, in person (or as anybody), or as this
    one session of a role."""

    NONE = 0
    ACCOUNT = 1
    DIRECT = 2
    SESSION = 3


@dataclass(frozen=True, slots=True)
class Principals:
    """A set of principals. `negated` (NotPrincipal): everybody else. `services` sign nothing here."""

    anybody: bool
    arns: frozenset[str]
    canonical_ids: frozenset[str]
    negated: bool = False
    federated: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()

    def match(self, caller: Caller) -> Match:
        """How the caller is meant. An account among those excepted excepts its root only."""
        found = self._match(caller)
        if not self.negated:
            return found
        return Match.NONE if found >= Match.DIRECT else Match.DIRECT

    def _match(self, caller: Caller) -> Match:
        if caller.federated:
            return Match.DIRECT if caller.federated in self.federated else Match.NONE
        if caller.role_arn and caller.arn in self.arns:
            return Match.SESSION
        if self.anybody:
            return Match.DIRECT
        if caller.is_anonymous:
            return Match.NONE
        if caller.arn in self.arns or (caller.role_arn and caller.role_arn in self.arns):
            return Match.DIRECT
        if caller.canonical_id in self.canonical_ids:
            return Match.DIRECT if caller.is_root else Match.ACCOUNT
        return Match.ACCOUNT if root_arn(caller.account_id) in self.arns else Match.NONE


def read_principals(value: object, *, negated: bool) -> Principals:
    """Raises MalformedPolicy."""
    if value == "*":
        return Principals(True, frozenset(), frozenset(), negated)
    if not isinstance(value, dict) or not value:
        raise MalformedPolicy(INVALID)
    anybody = False
    arns: set[str] = set()
    canonical: set[str] = set()
    federated: set[str] = set()
    services: set[str] = set()
    for kind, given in value.items():
        listed = given if isinstance(given, list) else [given]
        if not listed or not all(isinstance(each, str) for each in listed):
            raise MalformedPolicy(INVALID)
        for each in listed:
            if kind == "AWS" and each == "*":
                anybody = True
            elif kind == "AWS":
                arns.add(_arn(each))
            elif kind == "CanonicalUser" and _CANONICAL.fullmatch(each):
                canonical.add(each.lower())
            elif kind == "Federated" and each:
                federated.add(each)
            elif kind == "Service" and each:
                # Services never sign here: such a principal is nobody.
                services.add(each)
            else:
                raise MalformedPolicy(INVALID)
    return Principals(
        anybody,
        frozenset(arns),
        frozenset(canonical),
        negated,
        frozenset(federated),
        frozenset(services),
    )


def refuse_nobody(principals: Principals) -> None:
    """Raises MalformedPolicy for a service or provider whose name cannot be one.

    Only for documents that come from a client: those stored already keep their meaning.
    """
    if not all(map(_SERVICE.fullmatch, principals.services)):
        raise MalformedPolicy(INVALID)
    if not all(map(_PROVIDER.fullmatch, principals.federated)):
        raise MalformedPolicy(INVALID)


def _arn(text: str) -> str:
    if _ACCOUNT.fullmatch(text):
        return root_arn(text)
    if _CANONICAL.fullmatch(text) and len(text) == 64:
        raise MalformedPolicy(INVALID)
    if _IAM_ARN.fullmatch(text) is None:
        raise MalformedPolicy(INVALID)
    return text
