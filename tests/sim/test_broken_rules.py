"""Rules taken out of the code are noticed: each by one of the first seeds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEDS = 8


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [
        "skip_one_flush",
        "commits_ignore_what_they_replace",
    ],
)
def test_a_rule_taken_out_is_noticed(rule: str) -> None:
    arguments = ["--seeds", str(SEEDS), "--seed", "1", "--until-caught", "--broken", rule]
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED" in done.stdout
