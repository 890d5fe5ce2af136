"""The source itself: names, lengths, first lines, time and randomness, the packages and their reasons."""

import ast
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.conftest import LONGEST_FIRST, TESTS

ROOT = Path(__file__).parents[2]
PACKAGES = ("placement", "storage_node", "gateway", "ops")
LINES_MAX = 700
"""A ratchet: it may only go down. Aim at 400."""
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "base", "misc"}
CLOCKS = {
    "time": {"time", "time_ns"},
    "random": None,
    "secrets": None,
    "uuid": {"uuid1", "uuid4"},
    "os": {"urandom"},
}
"""Modules and names (None: all) through which time of day and chance come in."""
CLOCK_DOOR = Path("placement/clock.py")
BROUGHT_BY_FASTAPI = {"pydantic", "starlette"}
"""Part of FastAPI's own interface: its versions fit them."""


def source_files(*roots: str) -> list[Path]:
    return sorted(
        path.relative_to(ROOT)
        for root in roots
        for path in (ROOT / root).rglob("*.py")
        if "__pycache__" not in path.parts
    )


FILES = source_files(*PACKAGES)
ALL_FILES = source_files(*PACKAGES, "tests")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_bytes(), str(path))


@cache
def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def uses_of_clocks(module: ast.Module) -> Iterator[str]:
    """Calls like `time.time()`, and imports that would hide them."""
    for node in ast.walk(module):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in CLOCKS:
                allowed = CLOCKS[owner]
                if allowed is None or name in allowed:
                    yield f"{owner}.{name} in line {node.lineno}"
            case ast.Attribute(value=ast.Name(id="datetime"), attr=("now" | "utcnow" | "today")):
                yield f"datetime.{node.attr} in line {node.lineno}"
            case ast.ImportFrom(module=owner) if owner in CLOCKS:
                allowed = CLOCKS[owner]
                for alias in node.names:
                    if allowed is None or alias.name in allowed:
                        yield f"{owner}.{alias.name} in line {node.lineno}"


def test_there_is_something_to_read() -> None:
    assert Path("placement/codec.py") in FILES
    assert Path("tests/tidy/test_source.py") in ALL_FILES


@pytest.mark.parametrize("path", ALL_FILES, ids=str)
def test_a_file_is_short_and_says_what_it_is_for(path: Path) -> None:
    text = (ROOT / path).read_text()
    assert text.count("\n") <= LINES_MAX
    assert text.startswith(('"""', 'r"""'))
    assert ast.get_docstring(tree(path))


@pytest.mark.parametrize("path", ALL_FILES, ids=str)
def test_no_file_or_folder_has_a_name_that_says_nothing(path: Path) -> None:
    words = {word for part in path.with_suffix("").parts for word in part.split("_")}
    assert not words & VAGUE_NAMES


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_class_has_a_name_that_says_nothing(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef):
            words = {word.lower() for word in re.findall("[A-Z]+[a-z0-9]*", node.name)}
            assert not words & VAGUE_NAMES, f"line {node.lineno}: {node.name}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_time_and_chance_come_through_the_clock_module(path: Path) -> None:
    if path != CLOCK_DOOR:
        assert list(uses_of_clocks(tree(path))) == []


def test_uses_of_clocks_are_recognised() -> None:
    seen = list(
        uses_of_clocks(
            ast.parse(
                "import time, random, os, datetime\n"
                "from time import time_ns, monotonic\nfrom random import shuffle\n"
                "time.time(); time.monotonic(); random.random(); os.urandom(4); os.getpid()\n"
                "datetime.now(); datetime.datetime.now()\n"
            )
        )
    )
    assert len(seen) == 6


@pytest.mark.parametrize("path", ALL_FILES, ids=str)
def test_nothing_is_left_for_later(path: Path) -> None:
    """Comments only: what is not offered answers NotImplemented, it is not sketched."""
    with (ROOT / path).open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", token.string), token.start


def test_the_packages_named_are_the_packages_there() -> None:
    tool = project()["tool"]
    assert isinstance(tool, dict)
    there = {".".join(path.parent.parts) for path in source_files(*PACKAGES)}
    assert sorted(tool["setuptools"]["packages"]) == sorted(there)


def test_every_package_is_typed_and_begins_with_a_docstring() -> None:
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").is_file()
    for folder in {path.parent for path in FILES}:
        assert (ROOT / folder / "__init__.py").is_file(), folder


def test_every_dependency_gives_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    names = re.findall(r'^    "([A-Za-z0-9_-]+)[><=~!]=[^"]*",(.*)$', text, re.MULTILINE)
    declared = project()["project"]
    assert isinstance(declared, dict)
    optional = declared["optional-dependencies"].values()
    everything = [*declared["dependencies"], *(item for group in optional for item in group)]
    assert len(names) == len(everything)
    for name, rest in names:
        assert re.fullmatch(r" +# \S.{5,}", rest), f"{name} has no reason"


@pytest.mark.parametrize("name", ["run.txt", "test.txt"])
def test_pinned_requirements_have_hashes_and_name_no_host(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert "://" not in text
    assert "index" not in text
    entries = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 20
    assert all(re.match(r"[\w.-]+==\S", entry) and "--hash=sha256:" in entry for entry in entries)


def test_every_dependency_is_pinned() -> None:
    declared = project()["project"]
    assert isinstance(declared, dict)
    optional = declared["optional-dependencies"]
    for name, wanted in (
        ("run.txt", [*declared["dependencies"], *optional["build"]]),
        ("test.txt", [*declared["dependencies"], *optional["build"], *optional["test"]]),
    ):
        pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements" / name).read_text(), re.M))
        for item in wanted:
            distribution = re.match(r"[\w.-]+", item)
            assert distribution
            assert distribution[0].lower() in pinned, item


def imported_distributions() -> dict[str, set[str]]:
    """Distribution → files of the packages that import from it."""
    of_module = packages_distributions()
    found: dict[str, set[str]] = {}
    for path in FILES:
        for node in ast.walk(tree(path)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in PACKAGES and top not in sys.stdlib_module_names:
                    distribution = of_module.get(top, [top])[0]
                    found.setdefault(normal(distribution), set()).add(str(path))
    return found


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_every_library_that_is_imported_is_a_dependency() -> None:
    """`make serve` installs no test tools: an import that only they bring fails for users."""
    declared = project()["project"]
    assert isinstance(declared, dict)
    dependencies = set()
    for item in declared["dependencies"]:
        distribution = re.match(r"[\w.-]+", item)
        assert distribution
        dependencies.add(normal(distribution[0]))
    missing = imported_distributions()
    for name in dependencies | BROUGHT_BY_FASTAPI:
        missing.pop(name, None)
    assert missing == {}


def test_the_files_that_are_begun_first_exist() -> None:
    assert [name for name in LONGEST_FIRST if not (TESTS / name).is_file()] == []
