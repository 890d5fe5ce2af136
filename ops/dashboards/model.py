"""What a dashboard consists of, and its JSON as Grafana imports it."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

COLUMNS = 24
JOB = "ostraka_write_quorum"
"""A metric that every gateway shows: the choice of stores is read from its job label."""


class Kind(Enum):
    """How a panel is drawn."""

    LINES = "timeseries"
    NUMBER = "stat"
    BARS = "bargauge"


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and how its series are called. `{{label}}` takes a label's value."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Threshold:
    """From this value upwards the number has this colour."""

    value: float | None
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture. `unit` is one of Grafana's (`s`, `bytes`, `reqps`, `percentunit`, `short`)."""

    title: str
    meaning: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = Kind.LINES
    width: int = 8
    height: int = 8
    least: float | None = 0
    most: float | None = None
    thresholds: tuple[Threshold, ...] = ()
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels under it, from left to right and on."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """A list at the top of the dashboard, filled with the values of a metric's label."""

    name: str
    metric: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """A page. Its identity in Grafana is `ostraka-<name>`."""

    name: str
    title: str
    meaning: str
    rows: tuple[Row, ...]
    choices: tuple[Choice, ...] = ()

    def panels(self) -> tuple[Panel, ...]:
        """All of them, in order."""
        return tuple(panel for row in self.rows for panel in row.panels)

    def document(self) -> dict[str, Any]:
        """The JSON model."""
        choices = (Choice("job", JOB, "job"), *self.choices)
        return {
            "uid": f"ostraka-{self.name}",
            "title": f"Ostraka / {self.title}",
            "description": self.meaning,
            "tags": ["ostraka"],
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "schemaVersion": 39,
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "links": [
                {
                    "title": "Ostraka",
                    "type": "dashboards",
                    "tags": ["ostraka"],
                    "asDropdown": True,
                    "includeVars": True,
                    "keepTime": True,
                }
            ],
            "templating": {"list": [_SOURCE, *(_choice(choice) for choice in choices)]},
            "panels": _placed(self.rows),
        }


_SOURCE = {"name": "datasource", "label": "Source", "type": "datasource", "query": "prometheus"}
_FROM = {"type": "prometheus", "uid": "${datasource}"}


def _choice(choice: Choice) -> dict[str, Any]:
    where = "" if choice.name == "job" else '{job=~"$job"}'
    query = f"label_values({choice.metric}{where}, {choice.label})"
    return {
        "name": choice.name,
        "label": choice.name.capitalize(),
        "type": "query",
        "datasource": _FROM,
        "query": {"query": query, "refId": choice.name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _placed(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    placed: list[dict[str, Any]] = []
    top = 0
    for row in rows:
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        placed.append(
            {"id": len(placed) + 1, "type": "row", "title": row.title, "gridPos": place,
             "collapsed": False, "panels": []}
        )  # fmt: skip
        left, top, tallest = 0, top + 1, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                left, top, tallest = 0, top + tallest, 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            placed.append({"id": len(placed) + 1, "gridPos": place, **_panel(panel)})
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest
    return placed


def _panel(panel: Panel) -> dict[str, Any]:
    steps = [{"value": step.value, "color": step.colour} for step in panel.thresholds]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps or [{"value": None, "color": "green"}]},
    }
    if panel.least is not None:
        defaults["min"] = panel.least
    if panel.most is not None:
        defaults["max"] = panel.most
    options: dict[str, Any] = {}
    if panel.kind is Kind.LINES:
        defaults["custom"] = {
            "fillOpacity": 20 if panel.stacked else 5,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
        options = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    else:
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}}
    return {
        "type": panel.kind.value,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": _FROM,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _FROM,
                "expr": query.expression,
                "legendFormat": query.legend or "__auto",
                # Bars are of now: what was among the fullest an hour ago has no place there.
                **({"instant": True, "range": False} if panel.kind is Kind.BARS else {}),
            }
            for number, query in enumerate(panel.queries)
        ],
    }
