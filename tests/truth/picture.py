"""Draws a dashboard from what a real Prometheus answers, as SVG: the committed expressions, no Grafana."""

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ops.dashboards.model import COLUMNS, Dashboard, Kind, Panel
from tests.truth.expressions import ready
from tests.truth.prometheus import Prometheus

CELL_PIXELS = 50
LINE_PIXELS = 24
COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#b877d9", "#e02f44", "#8ab8ff", "#96d98d")
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ"))
SUFFIXES = {"s": "s", "bytes": "B", "Bps": "B/s", "reqps": "/s", "ops": "/s"}


@dataclass(frozen=True)
class Series:
    """A line: its name, and (seconds, value) pairs."""

    name: str
    points: tuple[tuple[float, float], ...]


def shown(value: float, unit: str) -> str:
    """A number as people read it."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    for size, prefix in PREFIXES:
        if abs(value) >= size * 0.9995 and (size >= 1 or unit != "short"):
            return f"{value / size:.3g} {prefix}{SUFFIXES.get(unit, '')}".strip()
    return f"{value:.3g} {SUFFIXES.get(unit, '')}".strip()


def legend(template: str, labels: dict[str, str]) -> str:
    """`{{label}}` replaced by its value; drives by their last part only."""
    if not template:
        return ", ".join(f"{k}={v}" for k, v in labels.items() if k != "__name__") or "value"
    for name, value in labels.items():
        template = template.replace("{{" + name + "}}", value.rpartition("/")[2] or value)
    return template


def draw(dashboard: Dashboard, prometheus: Prometheus, seconds: float) -> str:
    """The whole page."""
    parts: list[str] = []
    bottom = 0.0
    for placed, panel in zip(_places(dashboard), dashboard.panels(), strict=True):
        x, y = placed["x"] * CELL_PIXELS, placed["y"] * LINE_PIXELS
        w, h = placed["w"] * CELL_PIXELS - 8, placed["h"] * LINE_PIXELS - 8
        bottom = max(bottom, y + h)
        parts += [
            f'<g transform="translate({x},{y})">',
            f'<rect width="{w}" height="{h}" rx="3" fill="#181b1f" stroke="#2c3235"/>',
            f'<text x="8" y="18" font-weight="bold">{html.escape(panel.title)}</text>',
            *_content(panel, _series(panel, prometheus, seconds), w, h),
            "</g>",
        ]
    for row in _rows(dashboard):
        y = row["gridPos"]["y"] * LINE_PIXELS + 17
        parts.append(f'<text x="2" y="{y}" font-size="14">{html.escape(row["title"])}</text>')
    width = COLUMNS * CELL_PIXELS
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 -40 {width + 8} {bottom + 48:.0f}"'
            ' font-family="sans-serif" font-size="12" fill="#ccccdc">',
            f'<rect x="-8" y="-40" width="{width + 8}" height="{bottom + 48:.0f}" fill="#111217"/>',
            f'<text x="0" y="-16" font-size="18">Ostraka / {html.escape(dashboard.title)}</text>',
            *parts,
            "</svg>\n",
        ]
    )


def _rows(dashboard: Dashboard) -> list[dict[str, Any]]:
    return [p for p in dashboard.document()["panels"] if p["type"] == "row"]


def _places(dashboard: Dashboard) -> list[dict[str, int]]:
    return [p["gridPos"] for p in dashboard.document()["panels"] if p["type"] != "row"]


def _series(panel: Panel, prometheus: Prometheus, seconds: float) -> list[Series]:
    found = []
    for query in panel.queries:
        if panel.kind is Kind.BARS:
            now = prometheus.query(ready(query.expression))
            found += [
                Series(legend(query.legend, labels), ((0.0, value),)) for labels, value in now
            ]
            continue
        for labels, pairs in prometheus.history(ready(query.expression), seconds):
            points = tuple(
                (float(at), float(value)) for at, value in pairs if not math.isnan(float(value))
            )
            if points:
                found.append(Series(legend(query.legend, labels), points))
    return found


def _content(panel: Panel, series: Sequence[Series], w: int, h: int) -> Iterator[str]:
    if not series:
        yield f'<text x="{w / 2}" y="{h / 2}" text-anchor="middle">no data</text>'
    elif panel.kind is Kind.NUMBER and len(series) > 1:
        step = w / len(series)
        for number, one in enumerate(series):
            x, amount = (number + 0.5) * step, shown(one.points[-1][1], panel.unit)
            yield f'<text x="{x}" y="{h / 2 + 10}" font-size="20" text-anchor="middle">{amount}</text>'
            yield f'<text x="{x}" y="{h / 2 + 34}" text-anchor="middle">{html.escape(one.name)}</text>'
    elif panel.kind is Kind.NUMBER:
        value = series[0].points[-1][1]
        colour = next(
            (t.colour for t in reversed(panel.thresholds) if t.value is None or value >= t.value),
            "green",
        )
        colour = {"green": COLOURS[0], "orange": COLOURS[3], "red": COLOURS[5]}[colour]
        yield (
            f'<text x="{w / 2}" y="{h / 2 + 22}" font-size="36" text-anchor="middle"'
            f' fill="{colour}">{shown(value, panel.unit)}</text>'
        )
    elif panel.kind is Kind.BARS:
        yield from _bars(panel, series, w, h)
    else:
        yield from _lines(panel, series, w, h)


def _bars(panel: Panel, series: Sequence[Series], w: int, h: int) -> Iterator[str]:
    most = panel.most or max(one.points[-1][1] for one in series) or 1
    step = (h - 30) / len(series)
    for number, one in enumerate(series):
        y, value = 28 + number * step, one.points[-1][1]
        length = (w - 150) * min(1, value / most)
        yield f'<text x="8" y="{y + step / 2 + 4:.0f}">{html.escape(one.name)}</text>'
        yield (
            f'<rect x="70" y="{y + 3:.0f}" width="{length:.0f}" height="{max(2, step - 6):.0f}"'
            f' fill="{COLOURS[0]}"/>'
        )
        words = shown(value, panel.unit)
        yield f'<text x="{w - 8}" y="{y + step / 2 + 4:.0f}" text-anchor="end">{words}</text>'


def _lines(panel: Panel, series: Sequence[Series], w: int, h: int) -> Iterator[str]:
    tops = [max(value for _, value in one.points) for one in series]
    top = (sum(tops) if panel.stacked else max(tops)) * 1.1 or 1
    first = min(one.points[0][0] for one in series)
    last = max(one.points[-1][0] for one in series)
    left, right, high, low = 62, w - 8, 28, h - 26
    for share in (0, 0.5, 1):
        y = low - (low - high) * share
        yield f'<path d="M{left} {y:.0f}H{right}" stroke="#2c3235"/>'
        yield f'<text x="{left - 4}" y="{y + 4:.0f}" text-anchor="end" font-size="10">{shown(top * share, panel.unit)}</text>'
    below: dict[float, float] = {}
    for number, one in enumerate(series):
        path = []
        for at, value in one.points:
            if panel.stacked:
                value = below[at] = below.get(at, 0) + value
            x = left + (right - left) * (at - first) / ((last - first) or 1)
            path.append(f"{x:.1f} {low - (low - high) * max(0, value) / top:.1f}")
        colour = COLOURS[number % len(COLOURS)]
        yield f'<path d="M{"L".join(path)}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    x = float(left)
    for number, one in enumerate(series[:8]):
        colour = COLOURS[number % len(COLOURS)]
        if x + 14 + 7 * len(one.name) > w:
            break
        yield f'<rect x="{x:.0f}" y="{h - 14}" width="8" height="3" fill="{colour}"/>'
        yield f'<text x="{x + 11:.0f}" y="{h - 9}" font-size="10">{html.escape(one.name)}</text>'
        x += 22 + 6.2 * len(one.name)
