"""Operators' documents: their commands are understood, their links lead somewhere, their tables add up."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.config import _KNOWN_VARIABLES
from ops.reference.options import commands, variables

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "ops" / "docs"
UNITS = sorted((DOCS / "systemd").glob("ostraka*.service"))
PAGES = sorted(
    [*DOCS.glob("*.md"), *(ROOT / "ops" / "runbooks").glob("*.md"), ROOT / "helm/ostraka/README.md"]
)
COMMANDS = dict(commands())


def test_the_reference_lists_every_variable_that_is_known() -> None:
    """What it does not list is refused, it says."""
    assert set(variables()) == _KNOWN_VARIABLES


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The longest command that these words begin with, and the rest of them."""
    for length in (4, 3, 2):
        if found := COMMANDS.get(" ".join(words[:length])):
            return found, words[length:]
    raise AssertionError(f"there is no command {' '.join(words[:4])}")


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OSTRAKA_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_start_what_the_program_understands(unit: Path) -> None:
    (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    program, *words = shlex.split(line)
    command, arguments = command_of([Path(program).name, *words])
    assert command.make_context(words[0], arguments).params
    text = unit.read_text()
    for setting in ("User=ostraka", "NoNewPrivileges=yes", "ProtectSystem=strict", "Restart="):
        assert setting in text
    for path in re.findall(r"--drive (\S+)", line):
        assert path in re.findall(r"^ReadWritePaths=(.*)$", text, re.MULTILINE)[0].split()


def blocks(page: str, word: str) -> list[str]:
    """The shell blocks of a page in which a word occurs."""
    found = re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return [block for block in found if word in block]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
def test_systemd_has_no_complaint_about_the_units(tmp_path: Path) -> None:
    """Save that the program lies where a test can put it."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in (DOCS / "systemd").glob("*.service"):
        text = re.sub(
            r"^ExecStart=\S+", f"ExecStart={program}", unit.read_text(), flags=re.MULTILINE
        )
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *sorted(map(str, tmp_path.glob("*.service")))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("program", "wanted"),
    [("haproxy", "    server m2 m2:9000 port 9001\n"), ("nginx", "        server m2:9000;\n")],
)
def test_what_fills_in_the_load_balancers_files_leaves_nothing_open(
    tmp_path: Path, program: str, wanted: str
) -> None:
    (block,) = blocks("three-machines.md", f"ops/load_balancing/{program}")
    command = block.partition(" > ")[0]
    made = subprocess.run(
        ["bash", "-euc", command], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert wanted in made
    assert "@" not in made
    if program == "haproxy" and shutil.which(program):
        (tmp_path / "made.cfg").write_text(re.sub(r"\bm\d:", "127.0.0.1:", made))
        check = ["haproxy", "-c", "-f", str(tmp_path / "made.cfg")]
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def spoken() -> Iterator[tuple[str, str]]:
    """Every `ostraka …` that a page tells to type, in blocks and in backquotes."""
    for page in PAGES:
        text = page.read_text()
        if page.name == "configuration.md":
            continue  # made from the same source
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if at := re.search(
                    r"(?:^|-- |\s)(ostraka (?:node|gateway|keeper|serve|admin) .*)", line
                ):
                    yield page.name, at[1].partition(" #")[0].strip()
        for words in re.findall(r"`(ostraka (?:admin|serve|node|gateway|keeper) [^`]+)`", text):
            yield page.name, words


@pytest.mark.parametrize(("page", "line"), list(spoken()))
def test_commands_that_pages_name_exist(page: str, line: str) -> None:
    words = shlex.split(line.replace("…", " "))
    command, rest = command_of(words)
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known | {"--help"}, (page, line)


def test_there_are_commands_to_look_at() -> None:
    assert len(list(spoken())) > 15
    with pytest.raises(AssertionError):
        command_of(["ostraka", "admin", "drive", "paint"])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_that_pages_name_exist(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"\b((?:ops|helm|tests)/[\w./-]*\w)", text):
        assert (ROOT / name).exists() or list(ROOT.glob(f"{name}*")), (page.name, name)
    for name in re.findall(r"`([\w-]+\.md)`", text):
        places = (page.parent / name, DOCS / name, ROOT / "ops/runbooks" / name, ROOT / name)
        assert any(place.exists() for place in places), (page.name, name)


def test_the_table_of_failure_domains_adds_up() -> None:
    text = (DOCS / "sizing.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert len(rows) >= 5
    for row in rows:
        hosts, *borne = map(int, row)
        for (k, m), shown in zip(((2, 1), (4, 2), (8, 3), (10, 4)), borne, strict=True):
            assert shown == m // -(-(k + m) // hosts), (hosts, k, m)
