"""Expressions of panels and alerts, made ready for a test that lasts seconds instead of weeks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml  # type: ignore[import-untyped]

from ops.dashboards.pages import ALERTS, DASHBOARDS

RATE_SECONDS = 10


@dataclass(frozen=True)
class Rule:
    """One alert."""

    group: str
    name: str
    expression: str
    annotations: dict[str, str]
    severity: str


def rules() -> list[Rule]:
    """Every alert there is."""
    document = yaml.safe_load(ALERTS.read_text())
    return [
        Rule(group["name"], rule["alert"], rule["expr"], rule["annotations"], rule["labels"]["severity"])
        for group in document["groups"]
        for rule in group["rules"]
    ]  # fmt: skip


def panel_expressions() -> list[tuple[str, str, str]]:
    """Dashboard, panel and expression as Grafana would send it with everything chosen."""
    return [
        (dashboard.name, panel.title, ready(query.expression))
        for dashboard in DASHBOARDS
        for panel in dashboard.panels()
        for query in panel.queries
    ]


def ready(expression: str) -> str:
    """A panel's expression with everything chosen and a short interval."""
    expression = expression.replace("$__rate_interval", f"{RATE_SECONDS}s")
    expression = re.sub(r"=~\"\$\w+\"", '=~".*"', expression)
    assert "$" not in expression, expression
    return expression


def without_thresholds(expression: str) -> Iterator[str]:
    """Both sides of every comparison, which must each return series."""
    for part in re.split(r" and on \(job\) | and | unless ", expression):
        yield from (
            side for side in re.split(r" [<>] ", part) if not re.fullmatch(r"[\d.]+", side.strip())
        )


def hastened(document: dict[str, Any], range_seconds: int = RATE_SECONDS) -> dict[str, Any]:
    """The rules with short windows and no waiting, for a test to see them fire and clear."""
    groups = []
    for group in document["groups"]:
        made = []
        for rule in group["rules"]:
            # A week stays a week: it only says what the best of the past was.
            shorter = re.sub(r"\[(?:\d+[mh])\]", f"[{range_seconds}s]", rule["expr"])
            made.append({**rule, "expr": shorter, "for": "0s"})
        groups.append({"name": group["name"], "rules": made})
    return {"groups": groups}
