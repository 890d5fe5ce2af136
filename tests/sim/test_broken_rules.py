"""Rules taken out of the code are noticed: each by the seed that the table names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.caught import CAUGHT

ROOT = Path(__file__).parents[2]


def simulate(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.sim", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


@pytest.mark.slow
def test_every_rule_of_the_table_is_noticed_when_it_is_taken_out() -> None:
    done = simulate("--rules")
    missed = [line for line in done.stdout.splitlines() if "NOT CAUGHT" in line]
    assert not missed, done.stdout
    assert done.stdout.count(": caught by seed") == len(CAUGHT), done.stdout + done.stderr
