"""Users, groups, roles, managed policies and identity providers: names, paths, ARNs, limits and what is refused.

Sources: IAM API Reference (the members' patterns and "Common errors"); IAM User Guide, "IAM and STS
quotas".
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gateway.domain.policy.document import Policy, read_policy
from gateway.domain.policy.errors import LEGACY, MalformedPolicy
from gateway.domain.policy.principals import refuse_nobody

ACCESS_KEYS_MAX: Final = 2
"""Of one user, or of an account's root: enough to exchange one for another."""
GROUPS_OF_USER_MAX: Final = 10
ATTACHED_MAX: Final = 10
MANAGED_POLICY_SIZE_MAX: Final = 6144
"""Characters, blanks not counted, as for all sizes of policies."""
TRUST_POLICY_SIZE_MAX: Final = 2048
SESSION_POLICY_SIZE_MAX: Final = 2048
SESSION_SECONDS_MIN: Final = 900
ROLE_SESSION_SECONDS_MIN: Final = 3600
ROLE_SESSION_SECONDS_MAX: Final = 43_200

NAME: Final = re.compile(r"[A-Za-z0-9_+=,.@-]+")
PATH: Final = re.compile(r"/|/[\x21-\x7e]+/")
PATH_PREFIX: Final = re.compile(r"/[\x21-\x7e]*")
PATH_LENGTH_MAX: Final = 512
POLICY_NAME_LENGTH_MAX: Final = 128


_COLONS_OF_ARN: Final = 5
_SID: Final = re.compile(r"[0-9A-Za-z]*")


class Refusal(Enum):
    """Why IAM refuses: its code and HTTP status."""

    NO_SUCH_ENTITY = ("NoSuchEntity", 404)
    ENTITY_ALREADY_EXISTS = ("EntityAlreadyExists", 409)
    DELETE_CONFLICT = ("DeleteConflict", 409)
    LIMIT_EXCEEDED = ("LimitExceeded", 409)
    CONCURRENT_MODIFICATION = ("ConcurrentModification", 409)
    MALFORMED_POLICY = ("MalformedPolicyDocument", 400)
    VALIDATION = ("ValidationError", 400)
    INVALID_INPUT = ("InvalidInput", 400)
    INVALID_ACTION = ("InvalidAction", 400)
    ACCESS_DENIED = ("AccessDenied", 403)
    EXPIRED_TOKEN = ("ExpiredTokenException", 400)
    INVALID_IDENTITY_TOKEN = ("InvalidIdentityToken", 400)
    PROVIDER_UNREACHABLE = ("IDPCommunicationError", 400)
    MISSING_TOKEN = ("MissingAuthenticationToken", 403)
    PACKED_POLICY_TOO_LARGE = ("PackedPolicyTooLarge", 400)
    NOT_POSSIBLE = ("UnmodifiableEntity", 400)


class IamRefused(Exception):
    """Nothing was changed. `refusal` is why; the text is for the client."""

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.message = message


@dataclass(frozen=True, slots=True)
class Kind:
    """What IAM keeps. `letter` stands for it in keys and records, `word` in ARNs, `title` in names
    of actions and elements."""

    letter: str
    word: str
    title: str
    id_prefix: str
    name_length_max: int
    inline_size_max: int
    """Of all inline policies together; 0 where there are none."""
    quota: int
    """How many an account has at most."""


USER: Final = Kind("u", "user", "User", "AIDA", 64, 2048, 5000)
GROUP: Final = Kind("g", "group", "Group", "AGPA", 128, 5120, 300)
ROLE: Final = Kind("r", "role", "Role", "AROA", 64, 10_240, 1000)
POLICY: Final = Kind("p", "policy", "Policy", "ANPA", 128, 0, 1500)
PROVIDER: Final = Kind("o", "oidc-provider", "OpenIDConnectProvider", "OIDC", 255, 0, 100)
KINDS: Final = {kind.letter: kind for kind in (USER, GROUP, ROLE, POLICY, PROVIDER)}
CLIENTS_MAX: Final = 100
"""Client ids of one provider."""
THUMBPRINTS_MAX: Final = 5


def arn(account_id: str, kind: Kind, path: str, name: str) -> str:
    """The ARN of one of an account's entities."""
    return f"arn:aws:iam::{account_id}:{kind.word}{path}{name}"


def session_arn(account_id: str, role_name: str, session_name: str) -> str:
    """The ARN of whoever assumed a role."""
    return f"arn:aws:sts::{account_id}:assumed-role/{role_name}/{session_name}"


PROVIDER_URL: Final = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.:-]*(?:/[A-Za-z0-9._~/-]*)?")


def provider_name(url: str) -> str:
    """What a provider is called after its URL: host and path."""
    return url.partition("://")[2].rstrip("/")


_ROLE_ARN: Final = re.compile(r"arn:aws:iam::([0-9]{12}):role/(?:[\x21-\x7e]*/)?([\w+=,.@-]{1,64})")


def role_in_arn(text: str) -> tuple[str, str] | None:
    """(account id, role's name); None for what is no role's ARN."""
    found = _ROLE_ARN.fullmatch(text)
    return None if found is None else (found[1], found[2])


def provider_in_arn(text: str, account_id: str) -> str | None:
    """The name of a provider in an ARN of that account; None for any other text."""
    head = f"arn:aws:iam::{account_id}:{PROVIDER.word}/"
    return text.removeprefix(head) if text.startswith(head) else None


def name_in_arn(text: str, account_id: str, kind: Kind) -> str | None:
    """The entity's name in an ARN of that account and kind; None for any other text."""
    head = f"arn:aws:iam::{account_id}:{kind.word}/"
    return text.rpartition("/")[2] if text.startswith(head) else None


def missing(kind: Kind, name: str) -> IamRefused:
    """NoSuchEntity in AWS's words."""
    return IamRefused(Refusal.NO_SUCH_ENTITY, f"The {kind.word} with name {name} cannot be found.")


def exists_already(kind: Kind, name: str) -> IamRefused:
    """EntityAlreadyExists in AWS's words."""
    return IamRefused(
        Refusal.ENTITY_ALREADY_EXISTS, f"{kind.title} with name {name} already exists."
    )


def not_authorized(caller_arn: str, permission: str, resource: str) -> IamRefused:
    """AccessDenied in AWS's words."""
    return IamRefused(
        Refusal.ACCESS_DENIED,
        f"User: {caller_arn} is not authorized to perform: {permission} on resource: {resource}",
    )


def over_quota(what: str, quota: int) -> IamRefused:
    """LimitExceeded in AWS's words."""
    return IamRefused(Refusal.LIMIT_EXCEEDED, f"Cannot exceed quota for {what}: {quota}")


def demand_removable(
    kind: Kind,
    *,
    access_keys: int,
    inline: int,
    attached: int,
    groups: int,
    members: int,
    other_versions: int,
) -> None:
    """DeleteConflict while something still hangs on the entity, which AWS never takes along."""
    for count, what in (
        (access_keys, "must delete access keys first"),
        (inline, "must delete policies first"),
        (attached, "must detach all policies first"),
        (groups, "must remove users from group first"),
        (members, _OF_MEMBERS.get(kind.letter, "")),
    ):
        if count:
            raise IamRefused(Refusal.DELETE_CONFLICT, f"Cannot delete entity, {what}.")
    if other_versions:
        raise IamRefused(
            Refusal.DELETE_CONFLICT,
            "This policy has more than one version. Before you delete a policy, you must delete the "
            "policy's versions. The default version is deleted with the policy.",
        )


_OF_MEMBERS: Final = {
    GROUP.letter: "must remove users from group first",
    POLICY.letter: "must detach from all entities first",
}


def policy_size(document: str) -> int:
    """The size that limits speak of: without blanks."""
    return len("".join(document.split()))


def check_inline(kind: Kind, sizes: int) -> None:
    """LimitExceeded when an entity's inline policies are too long together."""
    if sizes > kind.inline_size_max:
        raise IamRefused(
            Refusal.LIMIT_EXCEEDED,
            f"Maximum policy size of {kind.inline_size_max} bytes exceeded for {kind.word}",
        )


def read_identity_policy(document: str) -> Policy:
    """A policy of a user, group, role or session. Raises IamRefused (MalformedPolicyDocument)."""
    try:
        policy = read_policy(document.encode(), with_principals=False)
    except MalformedPolicy as error:
        raise IamRefused(Refusal.MALFORMED_POLICY, error.of_identity) from error
    for statement in policy.statements:
        if _SID.fullmatch(statement.sid) is None:
            raise IamRefused(
                Refusal.MALFORMED_POLICY,
                "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the"
                " regular expression [0-9A-Za-z]*",
            )
        for resource in statement.resources:
            if resource.text != "*" and resource.text.count(":") < _COLONS_OF_ARN:
                raise IamRefused(Refusal.MALFORMED_POLICY, LEGACY)
    return policy


def read_trust_policy(document: str) -> Policy:
    """Who may assume a role. Raises IamRefused (MalformedPolicyDocument)."""
    if policy_size(document) > TRUST_POLICY_SIZE_MAX:
        raise over_quota("ACLSizePerRole", TRUST_POLICY_SIZE_MAX)
    try:
        policy = read_policy(document.encode(), with_principals=True, with_resources=False)
    except MalformedPolicy as error:
        raise IamRefused(Refusal.MALFORMED_POLICY, str(error)) from error
    for statement in policy.statements:
        if statement.principals is not None:
            try:
                refuse_nobody(statement.principals)
            except MalformedPolicy as error:
                raise IamRefused(Refusal.MALFORMED_POLICY, str(error)) from error
        for action in statement.actions:
            if not action.text.lower().startswith("sts:"):
                raise IamRefused(
                    Refusal.MALFORMED_POLICY,
                    "AssumeRole policy may only specify STS AssumeRole actions.",
                )
    return policy
