"""Lifecycle rules of a bucket: which versions end, and which uploads are given up, and when. What moves
between storage classes is in `transitions`.

Source: Amazon S3 User Guide, "Lifecycle configuration elements" and "Expiring objects": an object of
N days ends at the first midnight UTC that is N days or more after it was made; a version that is not
current counts its days from when its successor was made.
"""

from typing import Final, NamedTuple

import msgspec

from gateway.domain.tags import Tags

DAY_MS: Final = 24 * 60 * 60 * 1000


class Transition(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A move to a storage class: by age in days, or, of current objects, from a date on. `kept`
    newest noncurrent versions stay. Stored: fields are only appended."""

    storage_class: str
    days: int = 0
    at_ms: int | None = None
    kept: int = 0


class LifecycleRule(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """One rule; None is what it does not say. Stored: fields are only appended."""

    id: str
    enabled: bool
    prefix: str = ""
    tags: Tags = ()
    size_above_bytes: int | None = None
    size_below_bytes: int | None = None
    expire_days: int | None = None
    expire_at_ms: int | None = None
    expire_lone_markers: bool = False
    noncurrent_days: int | None = None
    noncurrent_kept: int = 0
    abort_days: int | None = None
    bare_prefix: bool = False  # said in the old form, without a Filter
    joined: bool = False  # the filter was an And
    transitions: tuple[Transition, ...] = ()
    noncurrent_transitions: tuple[Transition, ...] = ()
    transition_minimum: str = ""  # the configuration's default minimum size, as it was said


LifecycleRules = tuple[LifecycleRule, ...]


class Due(NamedTuple):
    """When something comes to its end, and by which rule."""

    at_ms: int
    rule_id: str


def due_ms(since_ms: int, days: int, day_ms: int = DAY_MS) -> int:
    """When something of that age in days ends. Days of another length are not rounded."""
    due = since_ms + days * day_ms
    return due if day_ms != DAY_MS else -(-due // day_ms) * day_ms


def concerns(rule: LifecycleRule, key: str, tags: Tags, size_bytes: int) -> bool:
    """Whether a rule is enabled, and its filter lets the object through."""
    return (
        rule.enabled
        and key.startswith(rule.prefix)
        and (rule.size_above_bytes is None or size_bytes > rule.size_above_bytes)
        and (rule.size_below_bytes is None or size_bytes < rule.size_below_bytes)
        and set(rule.tags) <= set(tags)
    )


def current_due(
    rules: LifecycleRules,
    key: str,
    *,
    tags: Tags,
    size_bytes: int,
    modified_ms: int,
    day_ms: int = DAY_MS,
) -> Due | None:
    """When a current object comes to its end: by the rule that ends it first."""
    first: Due | None = None
    for rule in rules:
        if not concerns(rule, key, tags, size_bytes):
            continue
        if rule.expire_at_ms is not None:
            at_ms = rule.expire_at_ms
        elif rule.expire_days is not None:
            at_ms = due_ms(modified_ms, rule.expire_days, day_ms)
        else:
            continue
        if first is None or at_ms < first.at_ms:
            first = Due(at_ms, rule.id)
    return first


def lone_marker_ends(
    rules: LifecycleRules, key: str, *, modified_ms: int, now_ms: int, day_ms: int = DAY_MS
) -> bool:
    """Whether a delete marker goes that has no version behind it: at once where a rule says so, with
    the age of objects where a rule ends them by days. Markers have no tags and no size."""
    for rule in rules:
        bounded = rule.size_above_bytes is not None or rule.size_below_bytes is not None
        if bounded or not concerns(rule, key, (), 0):
            continue
        if rule.expire_lone_markers:
            return True
        if rule.expire_days is not None and due_ms(modified_ms, rule.expire_days, day_ms) <= now_ms:
            return True
    return False


def noncurrent_ends(
    rules: LifecycleRules,
    key: str,
    *,
    tags: Tags,
    size_bytes: int,
    succeeded_ms: int,
    newer: int,
    now_ms: int,
    day_ms: int = DAY_MS,
) -> bool:
    """Whether a version that is not current ends. `succeeded_ms`: when its successor was made;
    `newer`: how many newer versions of the key are not current either."""
    for rule in rules:
        if rule.noncurrent_days is None or newer < rule.noncurrent_kept:
            continue
        due = due_ms(succeeded_ms, rule.noncurrent_days, day_ms)
        if due <= now_ms and concerns(rule, key, tags, size_bytes):
            return True
    return False


def upload_ends(
    rules: LifecycleRules, key: str, *, begun_ms: int, now_ms: int, day_ms: int = DAY_MS
) -> bool:
    """Whether a multipart upload is given up."""
    return any(
        rule.enabled
        and rule.abort_days is not None
        and key.startswith(rule.prefix)
        and due_ms(begun_ms, rule.abort_days, day_ms) <= now_ms
        for rule in rules
    )
