"""Runs the benchmarks one after the other: `python -m tests.bench [NAME …] [--json FILE]`.

Each benchmark is a script beside this file. Called with `--json` it prints one JSON object, or a
list of them, one a case, on its standard output. Here they become a table, and one JSON file.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TIMEOUT_SECONDS = 1800
Row = dict[str, object]


def scripts() -> dict[str, Path]:
    """Name → script."""
    return {
        path.stem.removeprefix("bench_"): path
        for path in sorted(HERE.glob("*.py"))
        if not path.stem.startswith("_")
    }


def run(path: Path) -> list[Row]:
    """The rows of one benchmark; CalledProcessError or TimeoutExpired when it fails."""
    done = subprocess.run(
        [sys.executable, str(path), "--json"],
        check=True,
        stdout=subprocess.PIPE,
        timeout=TIMEOUT_SECONDS,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    found = json.loads(done.stdout)
    return found if isinstance(found, list) else [found]


def table(rows: list[Row]) -> str:
    """Columns as wide as they need to be; numbers to the right."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns, *([str(row.get(name, "")) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [any(isinstance(row.get(name), int | float) for row in rows) for name in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    )


def main() -> int:
    """Every benchmark named, or all; 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(scripts()))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    options = parser.parse_args()
    if unknown := set(options.names) - set(scripts()):
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}")
    results: dict[str, list[Row]] = {}
    failed = []
    for name, path in scripts().items():
        if options.names and name not in options.names:
            continue
        try:
            results[name] = run(path)
        except (subprocess.SubprocessError, ValueError) as error:
            failed.append(name)
            print(f"{name}: {error}\n", file=sys.stderr)
            continue
        print(f"{name}\n{table(results[name])}\n", flush=True)
    if options.json:
        machine = {"python": platform.python_version(), "cores": os.cpu_count()}
        options.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
