"""The condition operators, each as: read the policy's value, compare it with the request's.

Source: IAM User Guide, "IAM JSON policy elements: Condition operators".
"""

import binascii
import ipaddress
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Protocol

from gateway.domain.policy.globs import Lookup, Pattern


class Wanted(Protocol):
    """One value of a policy's condition, ready to compare."""

    def matches(self, text: str, lookup: Lookup) -> bool:
        """Whether the request's value agrees with it."""
        ...


class _Fixed:
    """Compares parsed values; what cannot be parsed agrees with nothing."""

    __slots__ = ("_compare", "_parse", "_value")

    def __init__(
        self,
        text: str,
        parse: Callable[[str], object],
        compare: Callable[[object, object], bool],
    ) -> None:
        self._parse, self._compare = parse, compare
        self._value = parse(text)

    def matches(self, text: str, lookup: Lookup) -> bool:
        """Whether the request's value stands in the relation."""
        try:
            return self._compare(self._parse(text), self._value)
        except (ValueError, OverflowError):
            return False


TEXT_LENGTH_MAX = 64
"""Longest number, date or network that is read: what is kept of them stays small."""


def _bounded(text: str) -> str:
    if len(text) > TEXT_LENGTH_MAX:
        raise ValueError("too long")
    return text


def number(text: str) -> float:
    """A finite number. Raises ValueError."""
    return _number(_bounded(text))


@lru_cache(maxsize=1024)
def _number(text: str) -> float:
    value = float(text)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"not a number: {text}")
    return value


def moment(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 date, or of such a number. Raises ValueError."""
    return _moment(_bounded(text))


@lru_cache(maxsize=1024)
def _moment(text: str) -> float:
    try:
        return number(text)
    except ValueError:
        parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return parsed.timestamp()


def boolean(text: str) -> bool:
    """True or false. Raises ValueError."""
    lowered = text.lower()
    if lowered not in ("true", "false"):
        raise ValueError(f"not a boolean: {text}")
    return lowered == "true"


def _binary(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network(text: str) -> Network:
    """An address or a range of them; IPv4 in IPv6 clothes is IPv4. Raises ValueError."""
    return _network(_bounded(text))


@lru_cache(maxsize=4096)
def _network(text: str) -> Network:
    found = ipaddress.ip_network(text.strip(), strict=False)
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen == 128:
        mapped = found.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network(mapped)
    return found


def _within(given: object, wanted: object) -> bool:
    assert isinstance(given, Network)
    assert isinstance(wanted, Network)
    if isinstance(given, ipaddress.IPv4Network):
        return isinstance(wanted, ipaddress.IPv4Network) and given.subnet_of(wanted)
    return isinstance(wanted, ipaddress.IPv6Network) and given.subnet_of(wanted)


class _Arn:
    """An ARN pattern, compared part by part: a wildcard does not reach over a colon, but in the last."""

    __slots__ = ("_parts",)

    def __init__(self, text: str, *, variables: bool) -> None:
        parts = text.split(":", 5)
        if text != "*" and (len(parts) < 6 or parts[0] != "arn"):
            raise ValueError(f"not an ARN: {text}")
        if text == "*":
            parts = ["*"] * 6
        self._parts = tuple(Pattern(part, variables=variables) for part in parts)

    def matches(self, text: str, lookup: Lookup) -> bool:
        """Whether the request's ARN fits."""
        parts = text.split(":", 5)
        return len(parts) == len(self._parts) and all(
            pattern.matches(part, lookup) for pattern, part in zip(self._parts, parts, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Operator:
    """How one operator reads the policy's values; `negated` ones hold when no value matches."""

    read: Callable[[str, bool], Wanted]
    """From text and whether variables count. Raises ValueError."""
    negated: bool = False


def _string(*, wildcards: bool = False, ignore_case: bool = False) -> Callable[[str, bool], Wanted]:
    def read(text: str, variables: bool) -> Wanted:
        return Pattern(text, variables=variables, wildcards=wildcards, ignore_case=ignore_case)

    return read


def _fixed(
    parse: Callable[[str], object], compare: Callable[[object, object], bool]
) -> Callable[[str, bool], Wanted]:
    return lambda text, variables: _Fixed(text, parse, compare)


def _relations(prefix: str, parse: Callable[[str], float]) -> dict[str, Operator]:
    def relation(compare: Callable[[float, float], bool]) -> Callable[[str, bool], Wanted]:
        def compared(given: object, wanted: object) -> bool:
            assert isinstance(given, float)
            assert isinstance(wanted, float)
            return compare(given, wanted)

        return _fixed(parse, compared)

    return {
        f"{prefix}Equals": Operator(relation(lambda given, wanted: given == wanted)),
        f"{prefix}NotEquals": Operator(relation(lambda given, wanted: given == wanted), True),
        f"{prefix}LessThan": Operator(relation(lambda given, wanted: given < wanted)),
        f"{prefix}LessThanEquals": Operator(relation(lambda given, wanted: given <= wanted)),
        f"{prefix}GreaterThan": Operator(relation(lambda given, wanted: given > wanted)),
        f"{prefix}GreaterThanEquals": Operator(relation(lambda given, wanted: given >= wanted)),
    }


def _read_arn(text: str, variables: bool) -> Wanted:
    return _Arn(text, variables=variables)


OPERATORS: Final[dict[str, Operator]] = {
    "StringEquals": Operator(_string()),
    "StringNotEquals": Operator(_string(), True),
    "StringEqualsIgnoreCase": Operator(_string(ignore_case=True)),
    "StringNotEqualsIgnoreCase": Operator(_string(ignore_case=True), True),
    "StringLike": Operator(_string(wildcards=True)),
    "StringNotLike": Operator(_string(wildcards=True), True),
    **_relations("Numeric", number),
    **_relations("Date", moment),
    "Bool": Operator(_fixed(boolean, lambda given, wanted: given == wanted)),
    "BinaryEquals": Operator(_fixed(_binary, lambda given, wanted: given == wanted)),
    "IpAddress": Operator(_fixed(network, _within)),
    "NotIpAddress": Operator(_fixed(network, _within), True),
    "ArnEquals": Operator(_read_arn),
    "ArnLike": Operator(_read_arn),
    "ArnNotEquals": Operator(_read_arn, True),
    "ArnNotLike": Operator(_read_arn, True),
}
"""All but Null, which asks whether there is a value at all."""
