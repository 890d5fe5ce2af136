"""Cross-origin rules of a bucket: which rule answers a browser's request, and with which headers.

Source: Amazon S3 User Guide, "Elements of a CORS configuration", and the CORS protocol of the Fetch
standard.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

VARY: Final = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"


class CorsRule(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """One rule. Origins and headers may hold one "*" each. Stored: fields are only appended."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    max_age_seconds: int | None = None
    id: str = ""


CorsRules = tuple[CorsRule, ...]


def _fits(pattern: str, text: str) -> bool:
    head, star, tail = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(head) + len(tail) and text.startswith(head) and text.endswith(tail)


def _fits_any(patterns: Iterable[str], text: str) -> bool:
    return any(_fits(pattern, text) for pattern in patterns)


def requested_headers(value: str) -> tuple[str, ...]:
    """The names in an Access-Control-Request-Headers header, in lower case."""
    return tuple(name for part in value.split(",") if (name := part.strip().lower()))


def answering_rule(
    rules: CorsRules, origin: str, method: str, headers: tuple[str, ...] = ()
) -> CorsRule | None:
    """The first rule that allows the origin, the method and all headers (in lower case)."""
    for rule in rules:
        if method not in rule.methods or not _fits_any(rule.origins, origin):
            continue
        allowed = [pattern.lower() for pattern in rule.headers]
        if all(_fits_any(allowed, name) for name in headers):
            return rule
    return None


def answer_headers(
    rule: CorsRule, origin: str, headers: tuple[str, ...] = ()
) -> list[tuple[str, str]]:
    """What the rule puts into the answer to an allowed request; `headers` those that a preflight
    asked for. A rule for any origin says "*", without credentials; others name the origin."""
    anybody = "*" in rule.origins
    found = [
        ("Access-Control-Allow-Origin", "*" if anybody else origin),
        ("Access-Control-Allow-Methods", ", ".join(rule.methods)),
    ]
    if headers:
        found.append(("Access-Control-Allow-Headers", ", ".join(headers)))
    if rule.expose:
        found.append(("Access-Control-Expose-Headers", ", ".join(rule.expose)))
    if rule.max_age_seconds is not None:
        found.append(("Access-Control-Max-Age", str(rule.max_age_seconds)))
    if not anybody:
        found.append(("Access-Control-Allow-Credentials", "true"))
    found.append(("Vary", VARY))
    return found
