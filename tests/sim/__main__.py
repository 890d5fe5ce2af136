"""`python -m tests.sim`: runs seeds, prints what each did, and the sums."""

import argparse
import multiprocessing
import os
import sys
import time

from tests.sim.broken import RULES
from tests.sim.caught import run_broken, tell_all
from tests.sim.run import OPERATIONS, Verdict, run_seed
from tests.sim.tilt import tilt_of


def main() -> int:
    """0 when every seed passed."""
    parser = argparse.ArgumentParser(prog="tests.sim")
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument(
        "--seed", type=int, default=None, help="the first one; default: by the time"
    )
    parser.add_argument("--operations", type=int, default=OPERATIONS)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--broken",
        default="",
        choices=["", *RULES],
        metavar="RULE",
        help="a rule to take out, see tests/sim/broken",
    )
    parser.add_argument("--until-caught", action="store_true", help="stop at the first failure")
    parser.add_argument("--journal", action="store_true", help="print what happened")
    parser.add_argument(
        "--rules", action="store_true", help="take out every rule in turn; print who noticed"
    )
    parser.add_argument(
        "--by-seeds", action="store_true", help="with --rules: by seeds too, where one is known"
    )
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of bytes must have one order
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]])
    if options.rules:
        return 0 if tell_all(options.workers, by_seeds=options.by_seeds) else 1
    first = options.seed if options.seed is not None else int(time.time()) % 1_000_000 * 1000
    seeds = range(first, first + options.seeds)
    operations = faults = failed = 0
    context = multiprocessing.get_context("fork")
    with context.Pool(min(options.workers, len(seeds)), maxtasksperchild=1) as pool:
        work = [(seed, options.operations, options.broken) for seed in seeds]
        for verdict in pool.imap(_one, work, chunksize=1):
            operations += verdict.operations
            faults += verdict.faults
            failed += bool(verdict.error)
            tell(verdict, journal=options.journal)
            if verdict.error and options.until_caught:
                break
    print(
        f"{len(seeds)} seeds from {first}: {operations} operations, {faults} faults, {failed} failed"
    )
    return 1 if failed else 0


def _one(work: tuple[int, int, str]) -> Verdict:
    seed, operations, broken = work
    return run_broken(broken, seed) if broken else run_seed(seed, operations)


def tell(verdict: Verdict, *, journal: bool) -> None:
    """One line, and more when it failed."""
    word = "FAILED" if verdict.error else "ok"
    print(
        f"seed {verdict.seed}: {verdict.operations} operations, {verdict.faults} faults,"
        f" {verdict.seconds:.0f} s simulated, {verdict.digest}: {word}"
        f" ({tilt_of(verdict.seed).name})",
        flush=True,
    )
    if journal or verdict.error:
        print("  faults:", verdict.counts, " answers:", verdict.answers)
    if journal:
        print("\n".join(verdict.journal))
    if verdict.error:
        print(verdict.error)
        print(f"  again: make sim SEEDS=1 SEED={verdict.seed}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
