"""The alert rules, run by promtool against made-up series: each fires when it should, and clears."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from ops.dashboards.pages import ALERTS
from tests.truth.expressions import rules
from tests.truth.prometheus import PrometheusMissing, binary

TESTS = ALERTS.with_name("tests.yaml")


@pytest.fixture(scope="module")
def promtool() -> str:
    try:
        return binary("promtool")
    except PrometheusMissing as reason:
        pytest.skip(str(reason))


def test_the_rules_are_valid(promtool: str) -> None:
    done = subprocess.run(
        [promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_and_clears(promtool: str) -> None:
    done = subprocess.run(
        [promtool, "test", "rules", TESTS.name],
        capture_output=True,
        text=True,
        check=False,
        cwd=TESTS.parent,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_seen_both_firing_and_silent() -> None:
    fired: set[str] = set()
    silent: set[str] = set()
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        for expected in test["alert_rule_test"]:
            (fired if expected.get("exp_alerts") else silent).add(expected["alertname"])
    names = {rule.name for rule in rules()}
    assert fired == names
    assert silent == names


def test_a_rule_that_is_broken_on_purpose_is_noticed(promtool: str, tmp_path: Path) -> None:
    """The tests can fail: with every threshold moved away, they do."""
    broken = re.sub(r"([<>]) ([\d.]+)", r"\1 1\2e9", ALERTS.read_text())
    (tmp_path / ALERTS.name).write_text(broken)
    (tmp_path / TESTS.name).write_text(TESTS.read_text())
    done = subprocess.run(
        [promtool, "test", "rules", TESTS.name],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode != 0
