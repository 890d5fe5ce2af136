"""Run by `make` under each Python that is at hand: prints how many microseconds a fixed piece of work
takes, so that the fastest interpreter is set up. Exits with 1 where Ostraka cannot run.

Needs nothing but the standard library, and runs on old versions far enough to refuse.
"""

import sys
from time import perf_counter

REPETITIONS = 9
SECONDS = 0.4
"""Of repeating at least: others may hold a processor for longer than a few runs take."""


def work() -> int:
    """Calls, attributes, dictionaries, text and bytes in about a request's proportions."""
    total = 0
    for number in range(4000):
        header = f"x-amz-meta-{number % 97}: value {number}"
        name, _, value = header.partition(":")
        table = {name: value.strip(" "), "host": "localhost"}
        for key, text in table.items():
            total += len(key.encode()) + len(text)
    return total


def best_microseconds() -> int:
    """The shortest of a few runs: what disturbs a run only makes it longer."""
    best = float("inf")
    end = perf_counter() + SECONDS
    runs = 0
    while runs < REPETITIONS or perf_counter() < end:
        started = perf_counter()
        work()
        best = min(best, perf_counter() - started)
        runs += 1
    return round(best * 1e6)


def usable() -> bool:
    """Whether this is a Python that Ostraka runs on, with what a virtual environment needs."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return False
    try:
        import ensurepip  # noqa: F401
        import sqlite3  # noqa: F401
        import ssl  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    if not usable():
        sys.exit(1)
    print(best_microseconds())  # noqa: T201
