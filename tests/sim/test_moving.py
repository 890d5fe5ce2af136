"""Objects move between storage classes under faults, and no promise is broken: seeds of `tests.sim.moving`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ops.keeper.recoding import LEASE_SECONDS
from ops.keeper.sweep import GRACE_SECONDS as SWEEP_GRACE_SECONDS
from tests.sim.run import QUIET_SECONDS
from tests.sim.tilt import TILTS

ROOT = Path(__file__).parents[2]


def simulate(*arguments: str) -> tuple[int, str]:
    """Exit status and output of some seeds."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim.moving", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.timeout(900)
def test_objects_that_move_are_neither_lost_nor_brought_back() -> None:
    status, said = simulate("--seeds", "2", "--seed", "1")
    assert status == 0, said
    counts = [int(count) for count in re.findall(r"^  (\d+) moves$", said, re.MULTILINE)]
    assert len(counts) == 2, said
    assert min(counts) > 0, said


def test_rest_is_waited_for_longer_than_a_copy_of_a_keeper_that_died_holds_the_sweep_off() -> None:
    assert LEASE_SECONDS + SWEEP_GRACE_SECONDS + max(t.sweep_seconds for t in TILTS) < QUIET_SECONDS


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rule", ["moves_ignore_what_they_replace"])
def test_a_rule_of_moves_taken_out_is_noticed(rule: str) -> None:
    status, said = simulate("--seeds", "4", "--seed", "207", "--rule", rule)
    assert status == 1, said
    assert "FAILED" in said
