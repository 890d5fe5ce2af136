"""A policy statement's Condition block: read, checked and judged.

Source: IAM User Guide, "IAM JSON policy elements: Condition", and the Service Authorization
Reference's condition keys for Amazon S3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.domain.policy.errors import LEGACY, SYNTAX, MalformedPolicy
from gateway.domain.policy.operators import OPERATORS, Operator, Wanted, boolean
from gateway.domain.policy.question import Question

_INVALID_KEY: Final = "Policy has an invalid condition key"
WITHOUT_VENDOR: Final = "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
"""What IAM says of an action or a condition key that names no service."""
VALUES_MAX = 1000
"""Values of one condition: more do not fit into a document anyway."""

S3_KEYS: Final = frozenset(
    {
        *("accessgrantscope", "accessgrantsinstancearn", "accessgrantslocationscope"),
        *("accesspointnetworkorigin", "accesspointtag", "authtype", "dataaccesspointaccount"),
        *("dataaccesspointarn", "delimiter", "destinationregion", "existingjoboperation"),
        *("existingjobpriority", "existingobjecttag", "if-match", "if-none-match"),
        *("inventoryaccessibleoptionalfields", "isreplicationpauserequest", "jobsuspendedcause"),
        *("locationconstraint", "max-keys", "object-lock-legal-hold", "object-lock-mode"),
        *("object-lock-remaining-retention-days", "object-lock-retain-until-date"),
        *("objectcreationoperation", "prefix", "requestjoboperation", "requestjobpriority"),
        *("requestobjecttag", "requestobjecttagkeys"),
        *("resourceaccount", "signatureage", "signatureversion", "tlsversion", "versionid"),
        *("buckettag", "storageclass"),
        *("x-amz-acl", "x-amz-bucket-namespace", "x-amz-content-sha256", "x-amz-copy-source"),
        *("x-amz-grant-full-control", "x-amz-grant-read", "x-amz-grant-read-acp"),
        *("x-amz-grant-write", "x-amz-grant-write-acp", "x-amz-metadata-directive"),
        *("x-amz-object-ownership", "x-amz-server-side-encryption"),
        "x-amz-server-side-encryption-aws-kms-key-id",
        "x-amz-server-side-encryption-customer-algorithm",
        *("x-amz-storage-class", "x-amz-website-redirect-location"),
    }
)
"""The condition keys that S3 documents, without "s3:", in lower case."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one key. `presence` for Null; `every` and `some` are ForAllValues and
    ForAnyValue."""

    operator: str
    key: str
    values: tuple[str, ...]
    wanted: tuple[Wanted, ...] = ()
    negated: bool = False
    if_exists: bool = False
    every: bool = False
    some: bool = False
    presence: bool | None = None

    def holds(self, question: Question) -> bool:
        """Whether the request satisfies it."""
        found = question.facts.values(self.key)
        if self.presence is not None:
            return (not found) is self.presence
        if not found:
            if self.if_exists or self.every:
                return True
            return self.negated and not self.some
        lookup = question.variable
        agree = (any(each.matches(value, lookup) for each in self.wanted) for value in found)
        if self.every:
            return all(matched is not self.negated for matched in agree)
        if self.some:
            return any(matched is not self.negated for matched in agree)
        return any(agree) is not self.negated


def read_conditions(
    block: object, *, variables: bool, foreign: bool = False
) -> tuple[Condition, ...]:
    """The conditions of a statement, all of which must hold. `foreign`: keys of other services and
    of identity providers are taken as well. Raises MalformedPolicy."""
    if not isinstance(block, dict):
        raise MalformedPolicy("Invalid policy syntax.")
    conditions: list[Condition] = []
    for operator, keys in block.items():
        if not isinstance(keys, dict):
            raise MalformedPolicy("Invalid policy syntax.")
        for key, values in keys.items():
            of_s3 = key.lower().startswith("s3:")
            name = condition_key(key) if foreign and not of_s3 else _known_key(key)
            conditions.append(_read(operator, name, texts(values), variables=variables))
    return tuple(conditions)


def texts(values: object) -> tuple[str, ...]:
    """One or several scalars as text. Raises MalformedPolicy."""
    listed: Sequence[object] = values if isinstance(values, list) else (values,)
    if len(listed) > VALUES_MAX:
        raise MalformedPolicy("Policy has too many condition values")
    found: list[str] = []
    for value in listed:
        if isinstance(value, bool):
            found.append("true" if value else "false")
        elif isinstance(value, str):
            found.append(value)
        elif isinstance(value, int | float):
            found.append(str(value))
        else:
            raise MalformedPolicy("Invalid policy syntax.")
    return tuple(found)


def _read(operator: str, key: str, values: tuple[str, ...], *, variables: bool) -> Condition:
    name = operator
    every, some = name.startswith("ForAllValues:"), name.startswith("ForAnyValue:")
    if every or some:
        name = name.partition(":")[2]
    if name == "Null":
        try:
            (presence,) = {boolean(value) for value in values}
        except ValueError:
            raise MalformedPolicy("Invalid condition value for operator Null") from None
        return Condition(operator, key, values, presence=presence)
    if_exists = name.endswith("IfExists")
    rule: Operator | None = _OPERATORS.get(name.removesuffix("IfExists").lower())
    if rule is None:
        raise MalformedPolicy(f"Invalid Condition type : {operator}")
    try:
        wanted = tuple(rule.read(value, variables) for value in values)
    except (ValueError, OverflowError):
        if name.lower().removesuffix("ifexists").endswith("ipaddress"):
            raise MalformedPolicy("Invalid IP address in Conditions") from None
        of_identity = LEGACY if name.lower().startswith("date") else SYNTAX
        raise MalformedPolicy(
            f"Invalid condition value for operator {operator}", of_identity
        ) from None
    return Condition(
        operator,
        key,
        values,
        wanted,
        negated=rule.negated,
        if_exists=if_exists,
        every=every,
        some=some,
    )


_OPERATORS: Final[Mapping[str, Operator]] = {name.lower(): rule for name, rule in OPERATORS.items()}


def condition_key(key: str) -> str:
    """The key in lower case but for what follows a slash: a tag's key keeps its case, and so does
    the path of a provider. Raises MalformedPolicy."""
    name, slash, rest = key.partition("/")
    service, colon, plain = key.rpartition(":") if slash else name.partition(":")
    if not colon or not plain or not service:
        raise MalformedPolicy(_INVALID_KEY, WITHOUT_VENDOR)
    return name.lower() + slash + rest


def _known_key(key: str) -> str:
    name, slash, rest = key.partition("/")
    name = name.lower()
    service, colon, plain = name.partition(":")
    if not colon or not plain:
        raise MalformedPolicy(_INVALID_KEY)
    if service == "s3" and plain not in S3_KEYS:
        raise MalformedPolicy(_INVALID_KEY, _INVALID_KEY)
    if service not in ("s3", "aws", "sts", "iam", "kms"):
        raise MalformedPolicy(_INVALID_KEY)
    return f"{name}{slash}{rest}"
