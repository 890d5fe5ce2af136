"""Whether a bucket's policy makes it public.

Source: S3 User Guide, "Blocking public access", "The meaning of public".
"""

import ipaddress
from typing import Final

from gateway.domain.policy.conditions import Condition
from gateway.domain.policy.document import Policy, Statement
from gateway.domain.policy.globs import Pattern
from gateway.domain.policy.operators import network

_NARROWING_KEYS: Final = frozenset(
    {
        *("aws:principalorgid", "aws:principalorgpaths", "aws:principalaccount"),
        *("aws:principalarn", "aws:sourcearn", "aws:sourcevpc", "aws:sourcevpce"),
        *("aws:sourceowner", "aws:sourceaccount", "aws:userid", "aws:username"),
        *("s3:x-amz-server-side-encryption-aws-kms-key-id", "s3:dataaccesspointarn"),
        *("s3:dataaccesspointaccount",),
    }
)
_NARROWING_OPERATORS: Final = frozenset(
    {
        *("stringequals", "stringequalsignorecase", "stringlike", "arnequals", "arnlike"),
        *("numericequals",),
    }
)
_PREFIX_IPV4_MIN: Final = 8
_PREFIX_IPV6_MIN: Final = 32


def is_public(policy: Policy) -> bool:
    """Whether it lets in people it does not name."""
    return any(_is_public(statement) for statement in policy.statements)


def _is_public(statement: Statement) -> bool:
    principals = statement.principals
    if not statement.allows or principals is None:
        return False
    if not principals.anybody and not principals.negated:
        return False
    return not any(_narrows(condition) for condition in statement.conditions)


def _narrows(condition: Condition) -> bool:
    """Whether the condition lets in a fixed set only."""
    if condition.every or condition.if_exists or not condition.values:
        return False
    operator = condition.operator.rpartition(":")[2].lower()
    if condition.key == "aws:sourceip":
        return operator == "ipaddress" and all(map(_is_narrow_range, condition.values))
    if condition.key not in _NARROWING_KEYS or operator not in _NARROWING_OPERATORS:
        return False
    wildcards = operator.endswith("like") or operator.startswith("arn")
    return all(
        Pattern(value, variables=True, wildcards=wildcards).is_fixed for value in condition.values
    )


def _is_narrow_range(text: str) -> bool:
    found = network(text)
    if isinstance(found, ipaddress.IPv4Network):
        return found.prefixlen >= _PREFIX_IPV4_MIN
    return found.prefixlen >= _PREFIX_IPV6_MIN
