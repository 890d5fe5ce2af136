"""Fuzz the parsers: `python -m tests.fuzz [TARGET …] --seconds 600`.

Each target runs in a process of its own, guided by coverage (atheris, which is not among the pinned
packages: `pip install atheris`). A finding is printed with its input and ends that target; a hang
is an input that takes more than five seconds.
"""

import argparse
import importlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def _fuzz(name: str, seconds: int, folder: str) -> None:
    """In the process of one target: does not return."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["gateway"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    corpus = Path(folder)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", "-timeout=5", "-max_len=8192", "-rss_limit_mb=2048"]
    atheris.Setup(
        [sys.argv[0], *options, f"-artifact_prefix={folder}/", "-print_final_stats=1", folder],
        target.feed,
    )
    atheris.Fuzz()


def main() -> int:
    """Run the targets one after another; 1 when any has a finding."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--in", dest="folder", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder:
        _fuzz(asked.targets[0], asked.seconds, asked.folder)
    from tests.fuzz.targets import TARGETS

    unknown = set(asked.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"no such target: {min(unknown)} (there are {', '.join(TARGETS)})")
    failed = False
    for name in asked.targets or TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            failed |= not _run(name, asked.seconds, Path(folder))
    return int(failed)


def _run(name: str, seconds: int, folder: Path) -> bool:
    """One target in its process; whether it found nothing. Prints what it did."""
    command = [sys.executable, "-m", "tests.fuzz", name, "--in", str(folder)]
    command += ["--seconds", str(seconds)]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    count = re.search(r"number_of_executed_units: *(\d+)", ended.stderr)
    clean = ended.returncode == 0
    print(
        f"{name}: {count[1] if count else '?'} inputs, {'clean' if clean else 'a finding'}",
        flush=True,
    )
    if not clean:
        print(ended.stderr[-6000:])
        for kind in ("crash", "timeout", "oom"):
            for found in folder.glob(f"{kind}-*"):
                print(f"  {found.name}: {found.read_bytes()!r}")
    return clean


if __name__ == "__main__":
    sys.exit(main())
