"""Transitions of lifecycle rules: which storage class an object is to be moved to, and which rules are
no good.

Source: Amazon S3 User Guide, "Transitioning objects using Amazon S3 Lifecycle" and "Lifecycle
configuration elements". Classes with names of the operator's own are moved to and from in any order.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from gateway.domain.lifecycle import (
    DAY_MS,
    LifecycleRule,
    LifecycleRules,
    Transition,
    concerns,
    due_ms,
)
from gateway.domain.storage_classes import ARCHIVES, WATERFALL
from gateway.domain.tags import Tags

ALL_CLASSES: Final = "all_storage_classes_128K"
BY_CLASS: Final = "varies_by_storage_class"
MINIMUMS: Final = frozenset({ALL_CLASSES, BY_CLASS})
"""Values of x-amz-transition-default-minimum-object-size."""
SIZE_BYTES_MIN: Final = 128 << 10
"""Smaller objects stay where they are, unless a rule's filter says something of sizes."""
INFREQUENT_DAYS_MIN: Final = 30
_INFREQUENT: Final = frozenset({"STANDARD_IA", "ONEZONE_IA"})
_RANK: Final = {name: rank for rank, name in enumerate(WATERFALL)}


def has_transitions(rules: LifecycleRules) -> bool:
    """Whether any rule moves anything."""
    return any(rule.transitions or rule.noncurrent_transitions for rule in rules)


def current_class(
    rules: LifecycleRules,
    key: str,
    *,
    tags: Tags,
    size_bytes: int,
    modified_ms: int,
    storage_class: str,
    now_ms: int,
    day_ms: int = DAY_MS,
) -> str | None:
    """The class that a current object is to be moved to; None when it stays. `storage_class` as
    records say it, "" for STANDARD."""
    due: list[tuple[int, str]] = []
    for rule, moves in _moves(rules, key, tags, size_bytes):
        for move in moves:
            at_ms = move.at_ms
            if at_ms is None:
                at_ms = due_ms(modified_ms, move.days, day_ms)
            if at_ms <= now_ms and _is_large_enough(rule, move.storage_class, size_bytes):
                due.append((at_ms, move.storage_class))
    return _chosen(due, storage_class)


def noncurrent_class(
    rules: LifecycleRules,
    key: str,
    *,
    tags: Tags,
    size_bytes: int,
    succeeded_ms: int,
    newer: int,
    storage_class: str,
    now_ms: int,
    day_ms: int = DAY_MS,
) -> str | None:
    """The same of a version that is not current; `succeeded_ms` and `newer` as in
    `lifecycle.noncurrent_ends`."""
    due: list[tuple[int, str]] = []
    for rule, moves in _moves(rules, key, tags, size_bytes, noncurrent=True):
        for move in moves:
            at_ms = due_ms(succeeded_ms, move.days, day_ms)
            if (
                at_ms <= now_ms
                and newer >= move.kept
                and _is_large_enough(rule, move.storage_class, size_bytes)
            ):
                due.append((at_ms, move.storage_class))
    return _chosen(due, storage_class)


def _moves(
    rules: LifecycleRules, key: str, tags: Tags, size_bytes: int, *, noncurrent: bool = False
) -> Iterator[tuple[LifecycleRule, tuple[Transition, ...]]]:
    for rule in rules:
        moves = rule.noncurrent_transitions if noncurrent else rule.transitions
        if moves and concerns(rule, key, tags, size_bytes):
            yield rule, moves


def _is_large_enough(rule: LifecycleRule, target: str, size_bytes: int) -> bool:
    """By the default minimum. A class of the operator's own has none unless the configuration
    itself says that all have: it exists for what S3 bills."""
    if rule.size_above_bytes is not None or rule.size_below_bytes is not None:
        return True
    exempt = target not in _RANK or (rule.transition_minimum == BY_CLASS and target in ARCHIVES)
    if exempt and rule.transition_minimum != ALL_CLASSES:
        return True
    return size_bytes >= SIZE_BYTES_MIN


def _chosen(due: list[tuple[int, str]], present: str) -> str | None:
    """Of the classes of S3 the last in the waterfall, of others what fell due last."""
    highest = max((_RANK.get(name, -1) for _, name in due), default=-1)
    left = [(at, name) for at, name in due if _RANK.get(name, highest) == highest]
    if not left:
        return None
    target = max(left)[1]
    if target == present:
        return None
    if target in _RANK and present in _RANK and _RANK[target] < _RANK[present]:
        return None
    return target


def why_refused(rule: LifecycleRule) -> str | None:
    """What is wrong with a rule's transitions, in S3's words; None if nothing is."""
    for move in (*rule.transitions, *rule.noncurrent_transitions):
        if move.at_ms is None and move.storage_class in _INFREQUENT:
            noncurrent = move in rule.noncurrent_transitions
            name, action = _names(noncurrent=noncurrent)
            if move.days < INFREQUENT_DAYS_MIN:
                return (
                    f"'{name}' in {action} action must be greater than or equal to"
                    f" {INFREQUENT_DAYS_MIN} for storageClass '{move.storage_class}'"
                )
    return _order_refused(rule, noncurrent=False) or _order_refused(rule, noncurrent=True)


def _names(*, noncurrent: bool) -> tuple[str, str]:
    if noncurrent:
        return "NoncurrentDays", "NoncurrentVersionTransition"
    return "Days", "Transition"


def _order_refused(rule: LifecycleRule, *, noncurrent: bool) -> str | None:
    name, action = _names(noncurrent=noncurrent)
    moves = rule.noncurrent_transitions if noncurrent else rule.transitions
    expiration = "NoncurrentVersionExpiration" if noncurrent else "Expiration"
    ends = rule.noncurrent_days if noncurrent else rule.expire_days
    dated = rule.expire_at_ms
    for move in moves:
        if ends is not None and move.at_ms is None and move.days >= ends:
            return (
                f"'{name}' in the {expiration} action for prefix '{rule.prefix}' must be greater"
                f" than '{name}' in the {action} action"
            )
        if not noncurrent and None not in (dated, move.at_ms) and move.at_ms >= dated:  # type: ignore[operator]
            return (
                f"'Date' in the Expiration action for prefix '{rule.prefix}' must be later than"
                " 'Date' in the Transition action"
            )
    ranked = sorted((m for m in moves if m.storage_class in _RANK), key=_rank_of)
    for before, after in pairwise(ranked):
        if before.at_ms is not None or after.at_ms is not None:
            if (after.at_ms or 0) <= (before.at_ms or 0):
                return _too_early(rule, "Date", action, after, before, "later than")
            continue
        rest = INFREQUENT_DAYS_MIN if before.storage_class in _INFREQUENT else 1
        if after.days < before.days + rest:
            words = "30 days more than" if rest > 1 else "greater than"
            return _too_early(rule, name, action, after, before, words)
    return None


def _rank_of(move: Transition) -> int:
    return _RANK[move.storage_class]


def _too_early(
    rule: LifecycleRule, name: str, action: str, after: Transition, before: Transition, words: str
) -> str:
    return (
        f"'{name}' in the '{action}' action for StorageClass '{after.storage_class}' for prefix"
        f" '{rule.prefix}' must be {words} '{name}' in the '{action}' action for StorageClass"
        f" '{before.storage_class}'"
    )
