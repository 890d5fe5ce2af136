"""Helm, Kubernetes' schemas and linters for the chart's tests, kept in a cache outside the repository.

They are large (250 MB unpacked) and only these tests want them, so they are no dependency of the
project: a virtual environment of their own is made at first use, from pinned and hashed packages.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PINNED = Path(__file__).parent / "tools.txt"
INSTALL_SECONDS_MAX = 300


class ToolsMissing(Exception):
    """The tools could not be fetched; the message says why."""


def toolbox() -> Path:
    """The `bin` folder of the tools' environment, made if need be. Raises ToolsMissing."""
    state = hashlib.sha256(PINNED.read_bytes() + sys.version.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ostraka-chart-tools"
    folder = cache / state
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / f"{state}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "complete").exists():
                _install(folder)
                (folder / "complete").touch()
    except OSError as error:
        raise ToolsMissing(f"the cache {cache} cannot be written: {error}") from error
    return folder / "bin"


def _install(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        subprocess.run(
            [sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, timeout=60
        )
        subprocess.run(
            [
                str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--no-input",
                "--disable-pip-version-check", "--no-compile", "--require-hashes", "-r", str(PINNED),
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS_MAX,
        )  # fmt: skip
    except subprocess.SubprocessError as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()
        raise ToolsMissing(f"pip could not fetch the chart tools: {said[-1]}") from error


def run_helm(request: dict[str, Any]) -> Any:
    """One run of `helm_driver.py`, which see for the request and its answer."""
    return _run("helm_driver.py", request)


def run_live(request: dict[str, Any]) -> Any:
    """One run of `live_driver.py`, likewise."""
    return _run("live_driver.py", request)


def _run(driver: str, request: dict[str, Any]) -> Any:
    done = subprocess.run(
        [str(toolbox() / "python"), str(Path(__file__).parent / driver)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
