"""The truth as a table: how many series each panel and alert returns, and which alerts fired and cleared."""

from collections.abc import Iterator, Mapping, Sequence

from tests.truth.expressions import panel_expressions, rules, without_thresholds
from tests.truth.prometheus import Prometheus

Seconds = Mapping[str, float]
"""Name of an alert → how long it took."""


def rows(prometheus: Prometheus, fired: Seconds, cleared: Seconds) -> Iterator[Sequence[str]]:
    """A panel's series are those of all its expressions; an alert's those without its threshold."""
    series: dict[str, int] = {}
    for dashboard, panel, expression in panel_expressions():
        name = f"{dashboard}: {panel}"
        series[name] = series.get(name, 0) + len(prometheus.query(expression))
    for name, number in series.items():
        yield name, str(number), "", ""
    for rule in rules():
        sides = [len(prometheus.query(side)) for side in without_thresholds(rule.expression)]
        times = [
            f"{when[rule.name]:.1f} s" if rule.name in when else "" for when in (fired, cleared)
        ]
        yield rule.name, str(sum(sides)), *times


def table(prometheus: Prometheus, fired: Seconds, cleared: Seconds) -> str:
    """Markdown."""
    head = [("panel or alert", "series", "fired after", "cleared after"), ("---",) * 4]
    lines = [*head, *rows(prometheus, fired, cleared)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
