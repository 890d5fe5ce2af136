"""Names of metrics, and everything that is generated: fresh, complete, and pointing at what exists."""

import re
from pathlib import Path

import pytest

from ops.dashboards import pages as dashboards
from ops.reference import metrics, pages
from tests.truth.expressions import panel_expressions, rules

RUNBOOKS = Path(__file__).parents[2] / "ops" / "runbooks"
FAMILIES = {family.name: family for family in metrics.families()}
UNITS = ("seconds", "bytes")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_metric_follows_the_conventions_of_prometheus(name: str) -> None:
    family = FAMILIES[name]
    assert re.fullmatch(r"ostraka(_[a-z]+)+", name)
    assert name.endswith("_total") == (family.kind == "counter")
    if family.kind == "histogram":
        assert name.endswith("_seconds")
    for word in ("milliseconds", "ms", "kilobytes", "mb", "percent", "minutes"):
        assert word not in name.split("_"), "base units only"
    for unit in UNITS:
        if unit in name.split("_"):
            assert name.removesuffix("_total").endswith(unit), "the unit comes last"
    assert family.meaning.endswith(".")
    assert len(family.meaning) > 10


def test_labels_are_a_closed_set() -> None:
    assert {label for family in FAMILIES.values() for label in family.labels} == set(metrics.LABELS)


@pytest.mark.parametrize(
    ("path", "content", "how"),
    [
        *((path, content, "ops.reference") for path, content in pages.generated().items()),
        *((path, content, "ops.dashboards") for path, content in dashboards.generated().items()),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_what_is_generated_is_fresh(path: Path, content: str, how: str) -> None:
    assert path.read_text() == content, f"run `python -m {how}`"


def test_no_dashboard_is_left_over() -> None:
    wanted = set(dashboards.generated())
    for folder in (dashboards.OPS / "dashboards" / "json", dashboards.CHART_FILES / "dashboards"):
        assert set(folder.glob("*")) <= wanted


def test_expressions_name_only_metrics_that_exist() -> None:
    """Those of etcd are checked against a real one by the truth test."""
    series = {name for family in FAMILIES.values() for name in family.samples}
    expressions = [expression for _, _, expression in panel_expressions()]
    expressions += [rule.expression for rule in rules()]
    for expression in expressions:
        for name in re.findall(r"\bostraka_\w+", expression):
            assert name in series, expression


def test_every_metric_is_shown_somewhere() -> None:
    text = " ".join(expression for _, _, expression in panel_expressions())
    assert [name for name in FAMILIES if name not in text] == []


def test_panels_have_titles_and_explain_themselves() -> None:
    for dashboard in dashboards.DASHBOARDS:
        titles = [panel.title for panel in dashboard.panels()]
        assert len(titles) == len(set(titles))
        assert all(len(panel.meaning) > 5 for panel in dashboard.panels())
        document = dashboard.document()
        places = [panel["gridPos"] for panel in document["panels"]]
        cells = [
            (x, y)
            for place in places
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert len(cells) == len(set(cells)), "panels overlap"
        assert all(x < 24 for x, _ in cells)


def test_bars_show_what_is_now() -> None:
    """Asked for a range, Grafana would show the last value of what has left the largest five."""
    bars = [
        panel
        for dashboard in dashboards.DASHBOARDS
        for panel in dashboard.document()["panels"]
        if panel["type"] == "bargauge"
    ]
    assert len(bars) >= 2
    for panel in bars:
        assert all(t["instant"] and not t["range"] for t in panel["targets"]), panel["title"]


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    named = {rule.name: rule.annotations["runbook_url"] for rule in rules()}
    assert named == {name: f"ops/runbooks/{name}.md" for name in named}
    assert {path.stem for path in RUNBOOKS.glob("Ostraka*.md")} == set(named)
    for rule in rules():
        text = (RUNBOOKS / f"{rule.name}.md").read_text()
        assert text.startswith(f"# {rule.name}\n")
        for heading in ("## What it means", "## What to do", "## When it clears"):
            assert heading in text, rule.name
        assert rule.severity in ("warning", "critical")
        assert f"Severity: {rule.severity}." in text


def test_metrics_that_runbooks_and_documents_name_exist() -> None:
    series = {name for family in FAMILIES.values() for name in family.samples} | set(FAMILIES)
    for path in [*RUNBOOKS.glob("*.md"), *pages.DOCS.glob("*.md")]:
        for name in re.findall(r"\bostraka_[a-z_]+[a-z]", path.read_text()):
            assert name in series, (path.name, name)
