"""Policy documents as values: bounded reading of the JSON, and the grammar's rules.

Source: IAM User Guide, "Grammar of the IAM JSON policy language"; S3 User Guide, "Bucket policies".
"""

import json
import re
from dataclasses import dataclass
from typing import Final

from gateway.domain.policy.conditions import WITHOUT_VENDOR, Condition, read_conditions
from gateway.domain.policy.errors import LEGACY, SYNTAX, MalformedPolicy
from gateway.domain.policy.globs import Pattern
from gateway.domain.policy.principals import Principals, read_principals

BUCKET_POLICY_SIZE_BYTES_MAX = 20 * 1024
"""Source: S3 User Guide, "Bucket policies": 20 KB."""
DEPTH_MAX = 10
VERSIONS: Final = ("2012-10-17", "2008-10-17")
_FIELDS: Final = frozenset({"Version", "Id", "Statement"})
_STATEMENT_FIELDS: Final = frozenset(
    {
        *("Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction"),
        *("Resource", "NotResource", "Condition"),
    }
)
_SAME_SID: Final = "Statement IDs (SID) in a single policy must be unique."
_WITH_PRINCIPAL: Final = "Policy document should not specify a principal."
_NO_ACTIONS: Final = "Policy statement must contain actions."
_NO_RESOURCES: Final = "Policy statement must contain resources."
_ACTION: Final = re.compile(r"\*|[A-Za-z0-9-]{1,64}:[A-Za-z0-9*?]{1,128}")
_VENDOR: Final = re.compile(r"[A-Za-z0-9.-]+")
_S3_ARN: Final = re.compile(r"arn:[a-z*?-]{1,16}:s3:[^:]{0,64}:[^:]{0,64}:(.{1,2048})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Statement:
    """One rule. `principals` None in policies of identities, where it is whom they are attached to."""

    sid: str
    allows: bool
    principals: Principals | None
    actions: tuple[Pattern, ...]
    other_actions: bool
    """NotAction: all but these."""
    resources: tuple[Pattern, ...]
    other_resources: bool
    """NotResource: all but these."""
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A valid document."""

    statements: tuple[Statement, ...]


def read_bucket_policy(text: bytes, bucket: str) -> Policy:
    """The policy of that bucket. Raises MalformedPolicy."""
    if len(text) > BUCKET_POLICY_SIZE_BYTES_MAX:
        raise MalformedPolicy("Policy exceeds the maximum allowed document size.")
    policy = read_policy(text, with_principals=True)
    for statement in policy.statements:
        for resource in statement.resources:
            if not _is_of_bucket(resource.text, bucket):
                raise MalformedPolicy("Policy has invalid resource")
    return policy


def _is_of_bucket(resource: str, bucket: str) -> bool:
    """A bucket's policy speaks of that bucket and of what is in it."""
    if resource == "*":
        return True
    found = _S3_ARN.fullmatch(resource)
    if found is None:
        return False
    name = found[1].partition("/")[0]
    return Pattern(name, variables=True).matches(bucket, lambda _: bucket)


def read_policy(text: bytes, *, with_principals: bool, with_resources: bool = True) -> Policy:
    """A document's statements. Raises MalformedPolicy.

    `with_principals`: the policy of a resource, where every statement names whom it is about; in an
    identity's policy none may. Without `with_resources`: a role's trust policy, which is about that
    role and may name no resource.
    """
    document = _parse(text)
    unknown = document.keys() - _FIELDS
    if unknown:
        raise MalformedPolicy(f"Unknown field {min(unknown)}")
    version = document.get("Version", VERSIONS[1])
    if version not in VERSIONS:
        raise MalformedPolicy("The policy must contain a valid version string")
    if not isinstance(document.get("Id", ""), str):
        raise MalformedPolicy("Invalid policy syntax.")
    if "Statement" not in document:
        raise MalformedPolicy("Missing required field Statement")
    listed = document["Statement"]
    if isinstance(listed, dict):
        listed = [listed]
    if not isinstance(listed, list) or not listed:
        raise MalformedPolicy("Could not parse the policy: Statement is empty!")
    statements = tuple(
        _statement(
            each,
            with_principals=with_principals,
            with_resources=with_resources,
            variables=version == VERSIONS[0],
        )
        for each in listed
    )
    sids = [each.sid for each in statements if each.sid]
    if len(sids) != len(set(sids)):
        raise MalformedPolicy(_SAME_SID, _SAME_SID)
    return Policy(statements)


def _parse(text: bytes) -> dict[str, object]:
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedPolicy("This policy contains invalid Json") from None
    if not decoded.lstrip().startswith("{"):
        raise MalformedPolicy("Policies must be valid JSON and the first byte must be '{'")
    try:
        document = json.loads(decoded, object_pairs_hook=_distinct, parse_constant=_no_constant)
    except MalformedPolicy:
        raise
    except (ValueError, RecursionError):
        raise MalformedPolicy("This policy contains invalid Json") from None
    assert isinstance(document, dict)
    _bound_depth(document)
    return document


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedPolicy("This policy contains invalid Json: duplicate keys")
    return found


def _no_constant(name: str) -> object:
    raise MalformedPolicy("This policy contains invalid Json")


def _bound_depth(document: object) -> None:
    level: list[object] = [document]
    for _ in range(DEPTH_MAX):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        if not below:
            return
        level = below
    raise MalformedPolicy("Invalid policy syntax.")


def _statement(
    given: object, *, with_principals: bool, with_resources: bool, variables: bool
) -> Statement:
    if not isinstance(given, dict):
        raise MalformedPolicy("Invalid policy syntax.")
    unknown = given.keys() - _STATEMENT_FIELDS
    if unknown:
        raise MalformedPolicy(f"Unknown field {min(unknown)}")
    sid = given.get("Sid", "")
    if not isinstance(sid, str):
        raise MalformedPolicy("Invalid policy syntax.")
    if "Effect" not in given:
        raise MalformedPolicy("Missing required field Effect")
    effect = given["Effect"]
    if effect not in ("Allow", "Deny"):
        misspelt = isinstance(effect, str) and effect.lower() in ("allow", "deny")
        raise MalformedPolicy(f"Invalid effect : {effect}", LEGACY if misspelt else SYNTAX)
    other_actions = _which(given, "Action", "NotAction", _NO_ACTIONS)
    resources, other_resources = _resources_of(given, with_resources, variables=variables)
    return Statement(
        sid=sid,
        allows=effect == "Allow",
        principals=_principals(
            given,
            effect == "Allow",
            with_principals=with_principals,
            with_resources=with_resources,
        ),
        actions=_actions(given["NotAction" if other_actions else "Action"]),
        other_actions=other_actions,
        resources=resources,
        other_resources=other_resources,
        conditions=read_conditions(
            given.get("Condition", {}),
            variables=variables,
            foreign=not (with_principals and with_resources),
        ),
    )


def _which(
    given: dict[str, object], name: str, negation: str, of_identity: str, *, more: str = ""
) -> bool:
    """Exactly one of the two; whether it is the negation. `of_identity` is what IAM says of neither,
    `more` what S3 adds."""
    if name in given and negation in given:
        raise MalformedPolicy(f"Statement has both {name} and {negation}")
    if name not in given and negation not in given:
        raise MalformedPolicy(f"Missing required field {name}{more}", of_identity)
    return negation in given


def _principals(
    given: dict[str, object], allows: bool, *, with_principals: bool, with_resources: bool
) -> Principals | None:
    if not with_principals:
        if "Principal" in given or "NotPrincipal" in given:
            raise MalformedPolicy(_WITH_PRINCIPAL, _WITH_PRINCIPAL)
        return None
    more = " cannot be empty!" if with_resources else ""
    negated = _which(given, "Principal", "NotPrincipal", SYNTAX, more=more)
    if negated and allows:
        raise MalformedPolicy("Allow with NotPrincipal is not allowed.")
    return read_principals(given["NotPrincipal" if negated else "Principal"], negated=negated)


def _strings(value: object, complaint: str, missing: str) -> list[str]:
    listed = value if isinstance(value, list) else [value]
    found = [each for each in listed if isinstance(each, str)]
    if not found or len(found) != len(listed):
        raise MalformedPolicy(complaint, SYNTAX if listed else missing)
    return found


def _actions(value: object) -> tuple[Pattern, ...]:
    patterns: list[Pattern] = []
    for action in _strings(value, "Policy has invalid action", _NO_ACTIONS):
        if _ACTION.fullmatch(action) is None:
            raise MalformedPolicy("Policy has invalid action", _fault_of_action(action))
        patterns.append(Pattern(action, variables=False, ignore_case=True))
    return tuple(patterns)


def _fault_of_action(action: str) -> str:
    """What IAM says of an action that is none."""
    if ":" not in action:
        return WITHOUT_VENDOR
    if action.count(":") > 1:
        return "Actions/Condition can contain only one colon."
    vendor = action.partition(":")[0]
    return SYNTAX if _VENDOR.fullmatch(vendor) else f"Vendor {vendor} is not valid"


def _resources_of(
    given: dict[str, object], expected: bool, *, variables: bool
) -> tuple[tuple[Pattern, ...], bool]:
    """The patterns, and whether all but these are meant: without any, everything is."""
    if not expected:
        if "Resource" in given or "NotResource" in given:
            raise MalformedPolicy("Has prohibited field Resource")
        return (), True
    negated = _which(given, "Resource", "NotResource", _NO_RESOURCES)
    return _resources(given["NotResource" if negated else "Resource"], variables=variables), negated


def _resources(value: object, *, variables: bool) -> tuple[Pattern, ...]:
    patterns: list[Pattern] = []
    for resource in _strings(value, "Policy has invalid resource", _NO_RESOURCES):
        if resource != "*" and not resource.startswith("arn:"):
            raise MalformedPolicy(
                "Policy has invalid resource",
                f'Resource {resource} must be in ARN format or "*".',
            )
        patterns.append(Pattern(resource, variables=variables))
    return tuple(patterns)


DENY_ALL: Final = read_policy(
    b'{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"*",'
    b'"Resource":"*"}]}',
    with_principals=True,
)
"""What stands for a policy that cannot be read."""
DENY_ALL_OF_IDENTITY: Final = read_policy(
    b'{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}',
    with_principals=False,
)
"""The same for a policy of an identity."""
