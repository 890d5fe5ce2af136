"""The XML body of PutBucketLifecycleConfiguration, read and checked as AWS does, and its rendering
from the same fields. Which storage classes there are is not known here."""

import re
from datetime import UTC, datetime
from typing import Any, Final

from lxml import etree

from gateway.s3.elements import children_of, malformed, name_of, parse, text_of
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.xml import element

LIFECYCLE_DOCUMENT_LIMIT_BYTES: Final = 1024 * 1024
"""Bound of a document of 1,000 rules."""
RULES_MAX: Final = 1000
ID_LENGTH_MAX: Final = 255
KEPT_MAX: Final = 100
_DAYS_MAX: Final = 2**31 - 1
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")
_ACTIONS: Final = frozenset(
    {"Expiration", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"}
)
_RULE: Final = _ACTIONS | {"ID", "Status", "Filter", "Prefix"}
_TRANSITIONS: Final = {
    "Transition": "transitions",
    "NoncurrentVersionTransition": "noncurrent_transitions",
}
"""The actions that may come several times, and their fields."""
TRANSITIONS_MAX: Final = 64
"""Of a rule: a class may come only once, and no store has more."""
_FILTERS: Final = frozenset({"Prefix", "Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan"})

Fields = dict[str, Any]
"""Arguments of a `gateway.domain.lifecycle.LifecycleRule`; the id is "" where none was given.
Transitions are tuples of such arguments again."""


def _argument(message: str) -> S3Error:
    return S3Error(ErrorCode.INVALID_ARGUMENT, message)


def _number(node: "etree._Element") -> int:
    text = text_of(node).strip()
    if _WHOLE.fullmatch(text) is None:
        raise malformed(f"{name_of(node)} is a number")
    return int(text)


def _days(node: "etree._Element", action: str, *, least: int = 1) -> int:
    days = _number(node)
    if not least <= days <= _DAYS_MAX:
        kind = "positive" if least else "nonnegative"
        raise _argument(f"'{name_of(node)}' for {action} action must be a {kind} integer")
    return days


def parse_lifecycle(text: bytes) -> list[Fields]:
    """The rules of a LifecycleConfiguration. Raises MalformedXML, InvalidArgument,
    InvalidRequest."""
    nodes = list(parse(text, "LifecycleConfiguration"))
    if not 1 <= len(nodes) <= RULES_MAX or any(name_of(node) != "Rule" for node in nodes):
        raise malformed(f"a LifecycleConfiguration holds 1 to {RULES_MAX} rules")
    rules = [_rule(node) for node in nodes]
    ids = [rule["id"] for rule in rules if rule["id"]]
    if len(set(ids)) != len(ids):
        raise _argument("Rule ID must be unique. Found same ID for more than one rule")
    return rules


def _rule(node: "etree._Element") -> Fields:
    parts, moves = _parts(node)
    if "Status" not in parts or text_of(parts["Status"]) not in ("Enabled", "Disabled"):
        raise malformed("Status is Enabled or Disabled")
    if ("Filter" in parts) == ("Prefix" in parts):
        raise malformed("a rule has either a Filter or a Prefix")
    rule: Fields = {"id": text_of(parts["ID"]) if "ID" in parts else ""}
    if len(rule["id"]) > ID_LENGTH_MAX:
        raise _argument(f"ID length should not exceed allowed limit of {ID_LENGTH_MAX}")
    rule["enabled"] = text_of(parts["Status"]) == "Enabled"
    if "Filter" in parts:
        rule.update(_filter(parts["Filter"]))
    else:
        rule.update(prefix=text_of(parts["Prefix"]), bare_prefix=True)
    if not moves and parts.keys().isdisjoint(_ACTIONS):
        raise S3Error(
            ErrorCode.INVALID_REQUEST, "At least one action needs to be specified in a rule"
        )
    if "Expiration" in parts:
        rule.update(_expiration(parts["Expiration"]))
    if "NoncurrentVersionExpiration" in parts:
        rule.update(_noncurrent(parts["NoncurrentVersionExpiration"]))
    if "AbortIncompleteMultipartUpload" in parts:
        rule.update(_abort(parts["AbortIncompleteMultipartUpload"]))
    rule.update(moves)
    _refuse_combinations(rule)
    return rule


def _parts(node: "etree._Element") -> tuple[dict[str, "etree._Element"], Fields]:
    """What a rule holds once, by name, and its transitions, by field."""
    once: dict[str, etree._Element] = {}
    found: dict[str, list[Fields]] = {}
    for child in node:
        name = name_of(child)
        if name not in _TRANSITIONS:
            if name not in _RULE or name in once:
                raise malformed(f"{name} is not expected here")
            once[name] = child
            continue
        moves = found.setdefault(_TRANSITIONS[name], [])
        moves.append(_transition(child) if name == "Transition" else _noncurrent_move(child))
        if len(moves) > TRANSITIONS_MAX:
            raise malformed(f"a rule holds at most {TRANSITIONS_MAX} of {name}")
        if len({move["storage_class"] for move in moves}) != len(moves):
            raise S3Error(
                ErrorCode.INVALID_REQUEST,
                f"'StorageClass' must be different for '{name}' actions in same 'Rule'",
            )
    return once, {field: tuple(moves) for field, moves in found.items()}


def _transition(node: "etree._Element") -> Fields:
    parts = children_of(node, frozenset({"Days", "Date", "StorageClass"}))
    if "StorageClass" not in parts or len(parts) != 2:
        raise malformed("a Transition has a StorageClass and either Days or a Date")
    move: Fields = {"storage_class": _class(parts["StorageClass"])}
    if "Date" in parts:
        return {**move, "at_ms": _midnight_ms(text_of(parts["Date"]).strip())}
    return {**move, "days": _days(parts["Days"], "Transition", least=0)}


def _noncurrent_move(node: "etree._Element") -> Fields:
    action = "NoncurrentVersionTransition"
    parts = children_of(
        node, frozenset({"NoncurrentDays", "NewerNoncurrentVersions", "StorageClass"})
    )
    if not {"StorageClass", "NoncurrentDays"} <= parts.keys():
        raise malformed(f"a {action} has a StorageClass and NoncurrentDays")
    move: Fields = {
        "storage_class": _class(parts["StorageClass"]),
        "days": _days(parts["NoncurrentDays"], action, least=0),
    }
    if "NewerNoncurrentVersions" in parts:
        move["kept"] = _kept(parts["NewerNoncurrentVersions"])
    return move


def _class(node: "etree._Element") -> str:
    name = text_of(node).strip()
    if not name or name == "STANDARD":
        raise malformed("StorageClass is one that objects can be moved to")
    return name


def _refuse_combinations(rule: Fields) -> None:
    moves = rule.get("transitions", ())
    dated = {"at_ms" in move for move in moves}
    if moves and "expire_days" in rule:
        dated.add(False)
    if moves and "expire_at_ms" in rule:
        dated.add(True)
    if len(dated) > 1:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            "Found mixed 'Date' and 'Days' based Expiration and Transition actions in lifecycle "
            f"rule for prefix '{rule.get('prefix', '')}'",
        )
    sized = {"size_above_bytes", "size_below_bytes"} & rule.keys()
    for field, action in (
        ("expire_lone_markers", "ExpiredObjectDeleteMarker"),
        ("abort_days", "AbortIncompleteMultipartUpload"),
    ):
        if field in rule and rule.get("tags"):
            raise S3Error(ErrorCode.INVALID_REQUEST, f"{action} cannot be specified with Tags.")
        if field == "abort_days" and field in rule and sized:
            raise S3Error(
                ErrorCode.INVALID_REQUEST, f"{action} cannot be specified with Object Size."
            )


def _filter(node: "etree._Element") -> Fields:
    parts = children_of(node, _FILTERS | {"And"})
    if len(parts) > 1:
        raise malformed("a Filter holds one condition; an And holds several")
    if "And" not in parts:
        return _conditions(list(parts.values()))
    conditions = list(parts["And"])
    if len(conditions) < 2:
        raise malformed("an And holds two conditions or more")
    return {**_conditions(conditions), "joined": True}


def _conditions(nodes: list["etree._Element"]) -> Fields:
    found: Fields = {}
    tags: list[tuple[str, str]] = []
    for node in nodes:
        name = name_of(node)
        if name == "Tag":
            parts = children_of(node, frozenset({"Key", "Value"}))
            if len(parts) != 2 or not text_of(parts["Key"]):
                raise malformed("a Tag has a Key and a Value")
            tags.append((text_of(parts["Key"]), text_of(parts["Value"])))
            continue
        field, value = _condition(name, node)
        if field in found:
            raise malformed(f"{name} is said twice")
        found[field] = value
    if len({key for key, _ in tags}) != len(tags):
        raise S3Error(ErrorCode.INVALID_REQUEST, "Duplicate Tag Keys are not allowed.")
    least, bound = found.get("size_above_bytes"), found.get("size_below_bytes")
    if least is not None and bound is not None and least >= bound:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            "'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'.",
        )
    return {**found, "tags": tuple(tags)}


def _condition(name: str, node: "etree._Element") -> tuple[str, str | int]:
    if name == "Prefix":
        return "prefix", text_of(node)
    if name not in _FILTERS:
        raise malformed(f"{name} is not expected in a Filter")
    size = _number(node)
    if size < 0:
        raise _argument(f"'{name}' must not be negative")
    return ("size_above_bytes" if name == "ObjectSizeGreaterThan" else "size_below_bytes"), size


def _expiration(node: "etree._Element") -> Fields:
    parts = children_of(node, frozenset({"Days", "Date", "ExpiredObjectDeleteMarker"}))
    if len(parts) != 1:
        raise malformed("an Expiration says one thing")
    if "Days" in parts:
        return {"expire_days": _days(parts["Days"], "Expiration")}
    if "Date" in parts:
        return {"expire_at_ms": _midnight_ms(text_of(parts["Date"]).strip())}
    said = text_of(parts["ExpiredObjectDeleteMarker"]).strip()
    if said not in ("true", "false"):
        raise malformed("ExpiredObjectDeleteMarker is true or false")
    return {"expire_lone_markers": said == "true"}


def _midnight_ms(text: str) -> int:
    if "-" not in text:
        raise malformed("Date is in ISO 8601")
    try:
        date = datetime.fromisoformat(text.replace("Z", "+00:00"))
        at = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = at.timestamp()
    except (ValueError, OverflowError) as error:
        raise malformed("Date is in ISO 8601") from error
    if seconds % 86_400:
        raise _argument("'Date' must be at midnight GMT")
    return int(seconds) * 1000


def _noncurrent(node: "etree._Element") -> Fields:
    parts = children_of(node, frozenset({"NoncurrentDays", "NewerNoncurrentVersions"}))
    if "NoncurrentDays" not in parts:
        raise malformed("a NoncurrentVersionExpiration has NoncurrentDays")
    found = {"noncurrent_days": _days(parts["NoncurrentDays"], "NoncurrentVersionExpiration")}
    if "NewerNoncurrentVersions" in parts:
        found["noncurrent_kept"] = _kept(parts["NewerNoncurrentVersions"])
    return found


def _kept(node: "etree._Element") -> int:
    kept = _number(node)
    if not 0 < kept <= KEPT_MAX:
        raise _argument(
            f"'NewerNoncurrentVersions' must be a positive integer of at most {KEPT_MAX}"
        )
    return kept


def _abort(node: "etree._Element") -> Fields:
    parts = children_of(node, frozenset({"DaysAfterInitiation"}))
    if not parts:
        raise malformed("AbortIncompleteMultipartUpload has DaysAfterInitiation")
    days = _days(parts["DaysAfterInitiation"], "AbortIncompleteMultipartUpload")
    return {"abort_days": days}


def _optional(name: str, value: int | None) -> str:
    return "" if value is None else f"<{name}>{value}</{name}>"


def _date(at_ms: int) -> str:
    date = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"<Date>{date.strftime('%Y-%m-%dT%H:%M:%S.000Z')}</Date>"


def _class_element(move: Fields) -> str:
    return element("StorageClass", move["storage_class"])


def rule_element(rule: Fields) -> str:
    """A rule as a child of LifecycleConfiguration, from all its fields."""
    parts = [element("ID", rule["id"])]
    if rule["bare_prefix"]:
        parts.append(element("Prefix", rule["prefix"]))
    else:
        parts.append(f"<Filter>{_filter_text(rule)}</Filter>")
    parts.append(f"<Status>{'Enabled' if rule['enabled'] else 'Disabled'}</Status>")
    if rule["expire_days"] is not None:
        parts.append(f"<Expiration><Days>{rule['expire_days']}</Days></Expiration>")
    elif rule["expire_at_ms"] is not None:
        parts.append(f"<Expiration>{_date(rule['expire_at_ms'])}</Expiration>")
    elif rule["expire_lone_markers"]:
        marker = "<ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker>"
        parts.append(f"<Expiration>{marker}</Expiration>")
    for move in rule["transitions"]:
        since = _optional("Days", move["days"])
        if move["at_ms"] is not None:
            since = _date(move["at_ms"])
        parts.append(f"<Transition>{since}{_class_element(move)}</Transition>")
    if rule["noncurrent_days"] is not None:
        days = _optional("NoncurrentDays", rule["noncurrent_days"])
        kept = _optional("NewerNoncurrentVersions", rule["noncurrent_kept"] or None)
        parts.append(f"<NoncurrentVersionExpiration>{days}{kept}</NoncurrentVersionExpiration>")
    for move in rule["noncurrent_transitions"]:
        action = "NoncurrentVersionTransition"
        said = _optional("NoncurrentDays", move["days"]) + _class_element(move)
        said += _optional("NewerNoncurrentVersions", move["kept"] or None)
        parts.append(f"<{action}>{said}</{action}>")
    if rule["abort_days"] is not None:
        days = _optional("DaysAfterInitiation", rule["abort_days"])
        parts.append(f"<AbortIncompleteMultipartUpload>{days}</AbortIncompleteMultipartUpload>")
    return f"<Rule>{''.join(parts)}</Rule>"


def _filter_text(rule: Fields) -> str:
    text = "".join(
        f"<Tag>{element('Key', key)}{element('Value', value)}</Tag>" for key, value in rule["tags"]
    )
    text += _optional("ObjectSizeGreaterThan", rule["size_above_bytes"])
    text += _optional("ObjectSizeLessThan", rule["size_below_bytes"])
    if rule["prefix"] or not text:
        text = element("Prefix", rule["prefix"]) + text
    return f"<And>{text}</And>" if rule["joined"] else text
