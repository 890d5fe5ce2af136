"""A fixed set of seeds of the simulated cluster; `make sim` runs fresh ones."""

import os
import re
import subprocess
import sys
from pathlib import Path

SEEDS = 3
ROOT = Path(__file__).parents[2]


def simulate(*arguments: str) -> str:
    """What the simulator prints. Its own process: it replaces the loop, threads and logging."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_cluster_keeps_its_promises_under_faults() -> None:
    said = simulate("--seeds", str(SEEDS), "--seed", "1")
    counts = re.findall(r"^seed \d+: (\d+) operations, (\d+) faults", said, re.MULTILINE)
    assert len(counts) == SEEDS, said
    assert all(int(done) >= 500 and int(faults) >= 20 for done, faults in counts), said


def test_a_seed_takes_the_same_course_again() -> None:
    courses = {simulate("--seeds", "1", "--seed", "7", "--operations", "120") for _ in range(2)}
    assert len(courses) == 1
