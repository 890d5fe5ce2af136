"""The README's table of S3 operations, written from the registry: `python -m ops.operations_table`
puts it between the marks in README.md; a test fails while the two differ."""

import sys
from collections.abc import Iterable
from pathlib import Path

from gateway.known import KNOWN
from gateway.operation import Resource
from gateway.operations.registry import OPERATIONS

BEGIN = "<!-- operations: written by python -m ops.operations_table -->"
END = "<!-- operations end -->"
_TITLES = {Resource.SERVICE: "Account", Resource.BUCKET: "Bucket", Resource.OBJECT: "Object"}


def operations_table() -> str:
    """The table in Markdown: by resource, what is offered and what answers NotImplemented."""
    lines = ["| on | offered | answers `NotImplemented` |", "|---|---|---|"]
    for resource, title in _TITLES.items():
        offered = {row.name for row in OPERATIONS if row.match.resource is resource}
        known = {row.name for row in KNOWN if row.match.resource is resource} - offered
        lines.append(f"| {title} | {_names(offered)} | {_names(known)} |")
    return "\n".join(lines)


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def with_table(text: str) -> str:
    """The page with the table as it should be. ValueError when the marks are missing."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks the marks {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{operations_table()}\n{END}{tail}"


def main(path: Path) -> None:
    """Bring the page up to date."""
    path.write_text(with_table(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "README.md"))
