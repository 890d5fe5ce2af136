"""The Dockerfile: linted, and its steps run one by one in an empty folder, without an engine.

Paths of the image are paths below that folder; nothing but what the file copies gets there.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.functional.store_process import CLEAN_ENVIRONMENT, StoreProcess
from tests.helm.toolbox import ToolsMissing, toolbox

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
PLACES = ("/opt/ostraka", "/opt/data", "/src")


@dataclass(frozen=True)
class Step:
    """One instruction and its words."""

    name: str
    words: str


def stages() -> list[list[Step]]:
    """Instructions of each stage, continued lines joined, comments left out."""
    lines = [
        line for line in DOCKERFILE.read_text().splitlines() if line and not line.startswith("#")
    ]
    text = "\n".join(lines).replace("\\\n", " ")
    found: list[list[Step]] = []
    for line in text.splitlines():
        name, _, words = line.partition(" ")
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append(Step(name, re.sub(r" +", " ", words.strip())))
    return found


def words_of(name: str) -> list[str]:
    """The words of every such instruction of the last stage."""
    return [step.words for step in stages()[-1] if step.name == name]


@pytest.mark.timeout(900)  # the tools may have to be fetched first
def test_the_linter_has_no_complaint() -> None:
    try:
        hadolint = toolbox() / "hadolint"
    except ToolsMissing as reason:
        pytest.skip(str(reason))
    done = subprocess.run(
        [str(hadolint), "--no-color", str(DOCKERFILE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_runs_without_root_and_heals_itself_by_liveness() -> None:
    (user,) = words_of("USER")
    assert int(user.partition(":")[0]) > 0
    (check,) = words_of("HEALTHCHECK")
    assert "/health/live" in check
    assert "RUN" not in {step.name for step in stages()[-1]}, "nothing is made in the last stage"


def test_only_what_is_copied_may_reach_the_builder() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for step in stages()[0]
        if step.name == "COPY"
        for source in step.words.split(" ")[:-1]
    }
    assert copied == allowed
    assert "\n*\n" in (ROOT / ".dockerignore").read_text()


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """The folder in which the steps of the first stage have run."""
    folder = Path(tempfile.mkdtemp(prefix="ostraka-image-"))  # pytest's own are closed to others
    folder.chmod(0o755)
    work = folder / "src"
    work.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
    if "PIP_INDEX_URL" in os.environ:
        environment["PIP_INDEX_URL"] = os.environ["PIP_INDEX_URL"]
    python = folder / "python"
    python.mkdir()
    (python / "python").symlink_to(interpreter())
    environment["PATH"] = f"{python}:{environment['PATH']}"
    for step in stages()[0]:
        if step.name == "COPY":
            *sources, target = step.words.split(" ")
            for source in sources:
                _copy(ROOT / source, work / target, into=target == "./")
        elif step.name == "RUN":
            command = step.words
            for place in PLACES:
                command = command.replace(place, str(folder) + place)
            if os.getuid() != 0:
                command = command.replace("-o 10001 -g 10001", "")
            done = subprocess.run(
                ["/bin/sh", "-ec", command],
                cwd=work,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=600,
            )
            assert done.returncode == 0, f"{step.words}\n{done.stdout}{done.stderr}"
        else:
            assert step.name in ("FROM", "WORKDIR", "ENV"), step
    yield folder
    shutil.rmtree(folder)


def interpreter() -> str:
    """One that every user may run, if there is one that Ostraka runs on; else the one we are."""
    for path in (sys.executable, "/usr/bin/python3"):
        wanted = "import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))"
        usable = subprocess.run([path, "-c", wanted], capture_output=True, check=False)
        if usable.returncode == 0 and open_to_all(path):
            return path
    return sys.executable


def open_to_all(path: str) -> bool:
    """May every user reach it? Root's own folder is closed, and pyenv may live there."""
    real = Path(os.path.realpath(path))
    return all(parent.stat().st_mode & 0o001 for parent in (real, *real.parents))


def _copy(source: Path, target: Path, *, into: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    else:
        shutil.copy(source, target / source.name if into else target)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_steps_make_a_program_that_serves(image: Path) -> None:
    """From the image's own files only, as its user where we are root; then its health check."""
    shutil.rmtree(image / "src")
    program = [str(image / "opt" / "ostraka" / "bin" / "ostraka")]
    other = os.getuid() == 0 and open_to_all(str(image / "python" / "python"))
    if other:
        user = words_of("USER")[0].split(":")
        program = [
            "setpriv", f"--reuid={user[0]}", f"--regid={user[1]}", "--clear-groups", *program,
        ]  # fmt: skip
    data = image / "opt" / "data"
    command, directory, *options = json.loads(words_of("CMD")[0])
    assert (command, directory) == ("serve", "/var/lib/ostraka")
    store = StoreProcess(data, options=("--workers", "1"))
    store.process = subprocess.Popen(
        [*program, "serve", str(data), *options, "--port", "0", "--admin-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={**CLEAN_ENVIRONMENT, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"},
        start_new_session=True,
    )
    try:
        for _ in range(150):
            store.read(0.2)
            if "my-bucket" in store.output or store.process.poll() is not None:
                break
        assert "my-bucket" in store.output, store.output
        found = re.search(r"^admin http://\S+:(\d+)", store.output, re.MULTILINE)
        assert found is not None
        check = json.loads(words_of("HEALTHCHECK")[0].partition("CMD ")[2])
        check = [word.replace(":9001", f":{found[1]}") for word in check]
        assert subprocess.run([sys.executable, *check[1:]], check=False).returncode == 0
        with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/health/ready", timeout=5):
            pass
        assert (data / "credentials.json").stat().st_uid == (10001 if other else os.getuid())
    finally:
        store.kill()
    assert shlex.split(words_of("ENTRYPOINT")[0].strip("[]")) == ["ostraka"]
