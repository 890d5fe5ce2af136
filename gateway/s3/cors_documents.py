"""The XML body of PutBucketCors, read and checked: MalformedXML for its form, InvalidRequest for
what a rule may not say, with AWS's messages; and its rendering."""

import re
from typing import Final, NamedTuple

from lxml import etree

from gateway.s3.elements import malformed, name_of, parse, text_of
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.xml import element

CORS_DOCUMENT_LIMIT_BYTES: Final = 64 * 1024
"""Source: S3 User Guide, "Using cross-origin resource sharing": at most 64 KB."""
RULES_MAX: Final = 100
ID_LENGTH_MAX: Final = 255
METHODS: Final = ("GET", "PUT", "HEAD", "POST", "DELETE")
_LISTS: Final = frozenset({"AllowedOrigin", "AllowedMethod", "AllowedHeader", "ExposeHeader"})
_SINGLES: Final = frozenset({"ID", "MaxAgeSeconds"})
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SECONDS: Final = re.compile(r"[0-9]{1,10}")
_SECONDS_MAX: Final = 2**31 - 1


class WantedRule(NamedTuple):
    """A rule as the document says it."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...]
    expose: tuple[str, ...]
    max_age_seconds: int | None
    id: str


def _refused(message: str) -> S3Error:
    return S3Error(ErrorCode.INVALID_REQUEST, message)


def parse_cors(text: bytes) -> tuple[WantedRule, ...]:
    """The rules of a CORSConfiguration. Raises MalformedXML, InvalidRequest."""
    nodes = list(parse(text, "CORSConfiguration"))
    if not nodes or any(name_of(node) != "CORSRule" for node in nodes):
        raise malformed("a CORSConfiguration holds one CORSRule or more")
    if len(nodes) > RULES_MAX:
        raise _refused(
            f"The number of CORS rules should not exceed allowed limit of {RULES_MAX} rules."
        )
    return tuple(_rule(node) for node in nodes)


def _rule(node: "etree._Element") -> WantedRule:
    lists: dict[str, list[str]] = {name: [] for name in _LISTS}
    singles: dict[str, str] = {}
    for child in node:
        name = name_of(child)
        value = text_of(child).strip()
        if name in _LISTS:
            lists[name].append(value)
        elif name in _SINGLES and name not in singles:
            singles[name] = value
        else:
            raise malformed(f"{name} is not expected here")
    if not lists["AllowedOrigin"] or not lists["AllowedMethod"]:
        raise malformed("a CORSRule needs AllowedOrigin and AllowedMethod")
    _check(lists)
    if len(singles.get("ID", "")) > ID_LENGTH_MAX:
        raise _refused(f"ID length should not exceed allowed limit of {ID_LENGTH_MAX}")
    return WantedRule(
        tuple(lists["AllowedOrigin"]),
        tuple(lists["AllowedMethod"]),
        tuple(lists["AllowedHeader"]),
        tuple(lists["ExposeHeader"]),
        _seconds(singles.get("MaxAgeSeconds")),
        singles.get("ID", ""),
    )


def _check(lists: dict[str, list[str]]) -> None:
    for method in lists["AllowedMethod"]:
        if method not in METHODS:
            raise _refused(
                f"Found unsupported HTTP method in CORS config. Unsupported method is {method}"
            )
    for name in ("AllowedOrigin", "AllowedHeader"):
        for value in lists[name]:
            if value.count("*") > 1:
                raise _refused(f'{name} "{value}" can not have more than one wildcard.')
    for value in lists["ExposeHeader"]:
        if "*" in value:
            raise _refused(
                f'ExposeHeader "{value}" contains wildcard. '
                "We currently do not support wildcard for ExposeHeader."
            )
        if _TOKEN.fullmatch(value) is None:  # it will stand in a header of answers
            raise _refused(f'ExposeHeader "{value}" contains invalid character.')


def _seconds(text: str | None) -> int | None:
    if text is None:
        return None
    if _SECONDS.fullmatch(text) is None or int(text) > _SECONDS_MAX:
        raise malformed("MaxAgeSeconds is a number of seconds")
    return int(text)


def rule_element(rule: WantedRule) -> str:
    """A rule as a child of CORSConfiguration."""
    parts = [element("ID", rule.id)] if rule.id else []
    parts += [element("AllowedHeader", value) for value in rule.headers]
    parts += [element("AllowedMethod", value) for value in rule.methods]
    parts += [element("AllowedOrigin", value) for value in rule.origins]
    parts += [element("ExposeHeader", value) for value in rule.expose]
    if rule.max_age_seconds is not None:
        parts.append(element("MaxAgeSeconds", str(rule.max_age_seconds)))
    return f"<CORSRule>{''.join(parts)}</CORSRule>"
