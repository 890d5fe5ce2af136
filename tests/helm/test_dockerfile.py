"""The Dockerfile: linted, and its steps run one by one in an empty folder, without an engine.

Paths of the image are paths below that folder; nothing but what the file copies gets there.
"""

import hashlib
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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.functional.store_process import CLEAN_ENVIRONMENT, StoreProcess
from tests.helm.certificate import make_certificate
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
    assert "ops.liveness" in check
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
    python = folder / "python"
    python.mkdir()
    (python / "python").symlink_to(interpreter())
    build(folder)
    yield folder
    shutil.rmtree(folder)


def build(folder: Path) -> None:
    """Run the steps of the first stage; the sources are gone afterwards, as they are in the image."""
    work = folder / "src"
    work.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
    if "PIP_INDEX_URL" in os.environ:
        environment["PIP_INDEX_URL"] = os.environ["PIP_INDEX_URL"]
    environment["PATH"] = f"{folder / 'python'}:{environment['PATH']}"
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
    shutil.rmtree(work)


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


def as_its_user(image: Path) -> list[str]:
    """Words before a command that run it as the image's user; none where we may not."""
    if os.getuid() != 0 or not open_to_all(str(image / "python" / "python")):
        return []
    user, group = words_of("USER")[0].split(":")
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]


READ_ONLY = """
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
for folder in "$2" "$3"; do
    mount --bind "$folder" "$folder"
    mount -o remount,bind,rw "$folder"
done
mount -o remount,bind,ro /
for folder in "$1" / /usr; do
    if touch "$folder/written" 2>/dev/null; then exit 1; fi
done
shift 3
exec "$@"
"""
"""In a mount namespace of its own: all is read-only but the data and a folder for temporary files."""


def in_a_read_only_root(image: Path, data: Path) -> list[str]:
    """Words before a command that run it with nothing writable but its data and /tmp; none where
    we may not make namespaces."""
    temporary = image / "tmp"
    temporary.mkdir(exist_ok=True)
    temporary.chmod(0o1777)
    names = [str(image), str(data), str(temporary)]
    prefix = ["unshare", "--mount", "/bin/sh", "-ec", READ_ONLY, "sh", *names]
    usable = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    return prefix if usable.returncode == 0 else []


@contextmanager
def serving(
    image: Path, data: Path, before: list[str], *more: str
) -> Iterator[tuple[StoreProcess, int]]:
    """The image's command over that folder: the store and its admin port."""
    command, directory, *options = json.loads(words_of("CMD")[0])
    assert (command, directory) == ("serve", "/var/lib/ostraka")
    program = [*before, *as_its_user(image), str(image / "opt" / "ostraka" / "bin" / "ostraka")]
    store = StoreProcess(data)
    store.process = subprocess.Popen(
        [
            *program, "serve", str(data), *options, "--port", "0", "--admin-port", "0",
            "--workers", "1", *more,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={
            **CLEAN_ENVIRONMENT,
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": "/nonexistent",
            "TMPDIR": str(image / "tmp"),
        },
        start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(150):
            store.read(0.2)
            if "my-bucket" in store.output or store.process.poll() is not None:
                break
        assert "my-bucket" in store.output, store.output
        found = re.search(r"^ready (\S+)\nadmin https?://\S+:(\d+)", store.output, re.MULTILINE)
        assert found is not None
        store.endpoint = found[1]
        yield store, int(found[2])
    finally:
        store.kill()


def is_healthy(image: Path, port: int) -> bool:
    """What the image's health check finds, asked of that port."""
    check = json.loads(words_of("HEALTHCHECK")[0].partition("CMD ")[2])
    python = str(image / "opt" / "ostraka" / "bin" / check[0])
    words = [word.replace("9001", str(port)) for word in check[1:]]
    return subprocess.run([python, *words], check=False, cwd="/").returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_steps_make_a_program_that_serves_and_writes_nothing_but_its_data(image: Path) -> None:
    """From the image's own files only, as its user where we are root; then its health check."""
    data = image / "opt" / "data"
    before = in_a_read_only_root(image, data)
    with serving(image, data, before) as (store, port):
        assert is_healthy(image, port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5):
            pass
        owner = 10001 if as_its_user(image) else os.getuid()
        assert (data / "credentials.json").stat().st_uid == owner
        s3 = store.client()
        s3.create_bucket(Bucket="of-clay")
        s3.put_object(Bucket="of-clay", Key="k", Body=b"x" * 3_000_000)
        assert s3.get_object(Bucket="of-clay", Key="k")["Body"].read() == b"x" * 3_000_000
    assert not is_healthy(image, port), "nobody listens there any more"
    assert shlex.split(words_of("ENTRYPOINT")[0].strip("[]")) == ["ostraka"]
    if not before:
        pytest.skip("a read-only root needs a mount namespace; all else was tested")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_health_check_understands_tls(image: Path) -> None:
    """Whatever name the certificate is for."""
    data = image / "opt" / "secured"
    certificate, key = make_certificate(image, "DNS:s3.example.org")
    key.chmod(0o644)  # made for this test alone
    data.mkdir(mode=0o777)
    data.chmod(0o777)
    tls = ("--tls-cert", str(certificate), "--tls-key", str(key))
    (image / "tmp").mkdir(exist_ok=True)
    with serving(image, data, [], *tls) as (store, port):
        assert is_healthy(image, port)
        assert "admin https://" in store.output
        store.read(0.5)
        assert "Traceback" not in store.output


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not os.environ.get("BUILD_TWICE"), reason="long; asked for by BUILD_TWICE=1")
def test_the_same_sources_give_the_same_files(image: Path) -> None:
    """Compiled ones too."""
    first = digests(image / "opt" / "ostraka")
    shutil.rmtree(image / "opt" / "ostraka")
    build(image)
    second = digests(image / "opt" / "ostraka")
    assert any(name.endswith(".pyc") for name in first)
    assert {name for name in first | second if first.get(name) != second.get(name)} == set()


def digests(folder: Path) -> dict[str, str]:
    """Every file below it, by its name there."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
