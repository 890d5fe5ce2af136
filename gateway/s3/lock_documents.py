"""The XML bodies of object lock as values. Everything off raises MalformedXML."""

from typing import Final

from gateway.s3.elements import children_of, malformed, parse, texts_of
from gateway.s3.headers import parse_iso8601

_MODES: Final = ("GOVERNANCE", "COMPLIANCE")


def parse_lock(text: bytes) -> tuple[str, int, str] | None:
    """ObjectLockConfiguration: (mode, how many, Days or Years) of its rule, None without a rule."""
    found = children_of(parse(text, "ObjectLockConfiguration"), ("ObjectLockEnabled", "Rule"))
    enabled = found.get("ObjectLockEnabled")
    if enabled is None or len(enabled) or enabled.text != "Enabled":
        raise malformed("ObjectLockEnabled is not Enabled")
    rule = found.get("Rule")
    if rule is None:
        return None
    inner = children_of(rule, ("DefaultRetention",))
    if not inner:
        raise malformed("a Rule holds one DefaultRetention")
    fields = texts_of(inner["DefaultRetention"], ("Mode", "Days", "Years"))
    units = fields.keys() & {"Days", "Years"}
    if len(units) != 1 or fields.get("Mode") not in _MODES:
        raise malformed("a DefaultRetention has a Mode, and either Days or Years")
    (unit,) = units
    number = fields[unit].strip()
    if not number.removeprefix("-").isdigit() or not number.isascii() or len(number) > 9:
        raise malformed(f"{unit} is not a number")
    return fields["Mode"], int(number), unit


def parse_retention(text: bytes) -> tuple[str, int] | None:
    """Retention: (mode, until when in ms); None for an empty one, which ends retention."""
    fields = texts_of(parse(text, "Retention"), ("Mode", "RetainUntilDate"))
    if not fields:
        return None
    until_ms = parse_iso8601(fields.get("RetainUntilDate", ""))
    if fields.get("Mode") not in _MODES or until_ms is None:
        raise malformed("a Retention has a Mode and a RetainUntilDate")
    return fields["Mode"], until_ms


def parse_legal_hold(text: bytes) -> bool:
    """LegalHold: whether it is ON."""
    fields = texts_of(parse(text, "LegalHold"), ("Status",))
    if fields.get("Status") not in ("ON", "OFF"):
        raise malformed("Status is neither ON nor OFF")
    return fields["Status"] == "ON"
