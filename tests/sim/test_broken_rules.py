"""Rules taken out of the code are noticed, each by a scenario or a seed; all sentences are accounted for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.broken import RULES
from tests.sim.broken.promises import PROMISES
from tests.sim.caught import CAUGHT
from tests.sim.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a minute and a half of one processor
def test_every_rule_is_noticed_when_it_is_taken_out() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--rules"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    noticed = set(re.findall(r"^(\w+): noticed by ", done.stdout, re.MULTILINE))
    assert noticed == RULES.keys(), done.stdout


def test_sentences_and_scenarios_name_rules_and_no_sentence_is_passed_over() -> None:
    for promise in PROMISES:
        assert promise.rules or promise.otherwise, promise.sentence
        assert set(promise.rules) <= RULES.keys(), promise.sentence
    for script in SCENARIOS.values():
        assert script.rules, script.name
        assert set(script.rules) <= RULES.keys(), script.name
    assert CAUGHT.keys() <= RULES.keys()
