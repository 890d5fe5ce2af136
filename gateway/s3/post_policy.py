"""POST policies: what the signer of a browser upload allows, and whether a form keeps to it.

Source: S3 API Reference, "Browser-Based Uploads Using POST", "POST Policy". No I/O, no clock.
"""

import json
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.s3.checksums import ALGORITHM_BY_HEADER, decode_base64
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.headers import parse_iso8601

BUCKET_FIELD: Final = "bucket"
IGNORED_PREFIX: Final = "x-ignore-"
_FREE_FIELDS: Final = frozenset(
    {"awsaccesskeyid", "file", "policy", "signature", "x-amz-signature", *ALGORITHM_BY_HEADER}
)
"""Fields that no condition has to name: the signature itself, what it cannot cover, and checksums of
the file: the signer did not know it, and they can only make an upload fail."""
_SIZE_DIGITS_MAX: Final = 15


class Condition(NamedTuple):
    """The field (lower case) must be equal to the value or start with it."""

    prefix: bool
    field: str
    value: str
    text: str
    """As the document has it, for error messages."""

    def holds(self, given: str) -> bool:
        """Whether a field's value satisfies it; a field that is not there counts as empty.

        A prefix must fit every one of a comma-separated list of content types.
        """
        if not self.prefix:
            return given == self.value
        if self.field == "content-type":
            return all(part.strip().startswith(self.value) for part in given.split(","))
        return given.startswith(self.value)


class Policy(NamedTuple):
    """A document that parsed. `size_range` in bytes, inclusive; None: as S3 allows."""

    expires_ms: int
    conditions: tuple[Condition, ...]
    size_range: tuple[int, int] | None

    def demand(self, fields: Mapping[str, str], now_ms: int) -> None:
        """AccessDenied unless the form is in time, satisfies all conditions, and has no field that
        no condition names. `fields` by lower-case name, the bucket of the URL among them."""
        if now_ms >= self.expires_ms:
            raise _denied("Policy expired.")
        for condition in self.conditions:
            if not condition.holds(fields.get(condition.field, "")):
                raise _failed(condition.text)
        named = {condition.field for condition in self.conditions}
        extra = [
            name
            for name in fields
            if name not in named
            and name not in _FREE_FIELDS
            and not name.startswith(IGNORED_PREFIX)
        ]
        if extra:
            raise _denied(f"Extra input fields: {', '.join(extra)}")


def parse_policy(encoded: str) -> Policy:
    """The policy of a form's `policy` field (base64 of JSON). Raises InvalidPolicyDocument."""
    raw = decode_base64(encoded) if encoded.isascii() else None
    if not raw:
        raise _invalid("it is not base64")
    try:
        document = json.loads(_plain_json(raw.decode("utf-8")), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise _invalid("it is not JSON in UTF-8") from None
    if not isinstance(document, dict):
        raise _invalid("it is not an object")
    for name in document:
        if name not in ("expiration", "conditions"):  # in this case only
            raise _invalid(f"Unexpected: '{name}'")
    return Policy(_expiration(document), *_conditions(document))


_JSON_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def _plain_json(text: str) -> str:
    r"""Without the two escapes that POST policies have and JSON has not: `\$` and `\v`."""

    def plain(match: re.Match[str]) -> str:
        return {"$": "$", "v": r"\u000b"}.get(match[1], match[0])

    return _JSON_ESCAPE.sub(plain, text)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _expiration(document: Mapping[str, object]) -> int:
    text = document.get("expiration")
    if text is None:
        raise _invalid("Policy missing expiration.")
    # Only the full form of ISO 8601: a lenient reading could extend what the signer meant.
    expires_ms = parse_iso8601(text) if isinstance(text, str) and _ISO8601.fullmatch(text) else None
    if expires_ms is None:
        raise _invalid(f"Invalid 'expiration' value: '{text}'")
    return expires_ms


_ISO8601: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)", re.ASCII
)


def _conditions(
    document: Mapping[str, object],
) -> tuple[tuple[Condition, ...], tuple[int, int] | None]:
    items = document.get("conditions")
    if items is None:
        raise _invalid("Policy missing conditions.")
    if not isinstance(items, list):
        raise _invalid("Invalid 'conditions' value: must be a List.")
    conditions: list[Condition] = []
    size_range: tuple[int, int] | None = None
    for item in items:
        if isinstance(item, dict):
            conditions.append(_simple(item))
        elif not isinstance(item, list) or not item or not isinstance(item[0], str):
            raise _invalid("a condition is neither an object nor a list with an operator")
        elif item[0].lower() == "content-length-range":
            least, most = _range(item)
            # Several ranges must all hold.
            size_range = (
                (least, most)
                if size_range is None
                else (max(size_range[0], least), min(size_range[1], most))
            )
        else:
            conditions.append(_compound(item))
    return tuple(conditions), size_range


def _simple(item: dict[str, object]) -> Condition:
    if len(item) != 1:
        raise _invalid(
            "Invalid Simple-Condition: Simple-Conditions must have exactly one property specified."
        )
    ((name, value),) = item.items()
    if not isinstance(value, str):
        raise _invalid("Invalid Simple-Condition: value must be a string.")
    return Condition(False, name.lower(), value, json.dumps(["eq", f"${name}", value]))


def _compound(item: list[object]) -> Condition:
    operator = str(item[0]).lower()
    if operator not in ("eq", "starts-with"):
        raise _invalid(f"Invalid operator: '{item[0]}'")
    if len(item) != 3:
        raise _invalid(f"Invalid {operator}: it takes a field and a value.")
    name, value = item[1], item[2]
    if not isinstance(name, str) or not isinstance(value, str):
        raise _invalid(f"Invalid {operator}: field and value are strings.")
    if name[:1] != "$":  # names no field: to S3 a condition that nothing satisfies
        raise _failed(json.dumps(item))
    return Condition(operator == "starts-with", name[1:].lower(), value, json.dumps(item))


def _range(item: list[object]) -> tuple[int, int]:
    if len(item) != 3:
        raise _invalid("Invalid content-length-range: it takes two sizes.")
    if any(isinstance(each, str) and not _is_size(each) for each in item[1:]):
        raise _failed(json.dumps(item))  # to S3 a condition that nothing satisfies
    return _size(item[1]), _size(item[2])


def _size(value: object) -> int:
    """Documents hold them as numbers or as strings of digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _is_size(value):
        raise _invalid(f"Invalid content-length-range: '{value}' is no size.")
    return int(value)


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _SIZE_DIGITS_MAX


def _invalid(reason: str) -> S3Error:
    return S3Error(ErrorCode.INVALID_POLICY_DOCUMENT, f"Invalid Policy: {reason}")


def _failed(condition: str) -> S3Error:
    return _denied(f"Policy Condition failed: {condition}")


def _denied(reason: str) -> S3Error:
    return S3Error(ErrorCode.ACCESS_DENIED, f"Invalid according to Policy: {reason}")
