"""For each rule who notices that it was taken out, scenario or seed, and the table of them."""

import multiprocessing
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.sim.broken import DRIVE, RULES
from tests.sim.broken.promises import PROMISES
from tests.sim.run import Verdict, run_drive_seed, run_scenario, run_seed
from tests.sim.scenarios import SCENARIOS
from tests.sim.tilt import TILTS

CAUGHT: dict[str, int] = {
    "commit_before_the_quorum": 10,
    "skip_one_flush": 9,
    "delete_before_a_move_is_verified": 16,
    "copies_leave_no_references": 32,
    "shards_are_discarded_after_unknown_outcomes": 3,
    "refusals_after_lost_answers_are_believed": 3,
    "lost_answers_count_as_refusals": 3,
    "commits_ignore_what_they_replace": 3,
    "absent_buckets_are_remembered": 4,
    "first_commits_ignore_claims": 1,
    "versions_are_ordered_by_the_clock": 8,
    "parts_ignore_the_upload": 5,
    "completions_are_not_kept": 5,
    "refused_completions_stay": 5,
    "cut_off_completions_block": 15,
    "put_out_in_twos": 7,
    "drives_are_not_proven": 1,
    "failed_flushes_are_retried": 2,
    "recovery_stops_at_bad_records": 2,
    "empty_folders_are_adopted": 1,
}
"""By rule. Any change of the code may change a seed's course: where the named one notices nothing any
more, the next of the same tilt are tried. Scenarios notice more rules, and whatever the course."""
TRIES = 5
SLIPS = ("TypeError", "AttributeError", "NameError", "ImportError", "KeyError", "RuntimeError")
"""What is raised when a rule was not taken out but the code broken: that is not noticing it."""


@dataclass(frozen=True, slots=True)
class Row:
    """What became of a rule, or of a `whole` scenario with all rules in place. `seconds` are the
    processor's."""

    rule: str
    who: str
    noticed: bool
    operations: int
    seconds: float
    seen: str


Work = tuple[str, str, int]
"""A rule ("": none), and the scenario, or else the seed."""


def run_broken(rule: str, seed: int) -> Verdict:
    """One seed without that rule. In a process of its own."""
    broken = RULES[rule]
    if broken.tilt == DRIVE:
        return run_drive_seed(seed, lambda: broken.take_out(None))
    return run_seed(seed, broken=broken.take_out)


def rows(workers: int, *, by_seeds: bool) -> Iterator[Row]:
    """Every scenario with all rules in place, then without each that it is written for; then the
    rules that seeds notice: those that no scenario does, or `by_seeds` all of them."""
    context = multiprocessing.get_context("fork")
    scripted = {rule for script in SCENARIOS.values() for rule in script.rules}
    works: list[Work] = [
        (rule, name, 0) for name, script in SCENARIOS.items() for rule in ("", *script.rules)
    ]
    left = {rule: seed for rule, seed in CAUGHT.items() if by_seeds or rule not in scripted}
    with context.Pool(workers, maxtasksperchild=1) as pool:
        yield from pool.imap(_row, works, chunksize=1)
        for _ in range(TRIES):
            for row in pool.imap(_row, [(r, "", s) for r, s in left.items()], chunksize=1):
                if row.noticed:
                    del left[row.rule]
                    yield row
                else:
                    left[row.rule] += 1 if RULES[row.rule].tilt == DRIVE else len(TILTS)
        yield from (Row(rule, f"seed {seed}", False, 0, 0.0, "") for rule, seed in left.items())


def _row(work: Work) -> Row:
    rule, script, seed = work
    began = time.process_time()
    if script:
        verdict = run_scenario(script, RULES[rule].take_out if rule else None)
    else:
        verdict = run_broken(rule, seed)
    seen = (verdict.error.strip().splitlines() or [""])[-1]
    seconds = time.process_time() - began
    noticed = bool(seen) and not seen.startswith(SLIPS)
    who = script or f"seed {seed} ({RULES[rule].tilt})"
    return Row(rule, who, noticed or (not rule and bool(seen)), verdict.operations, seconds, seen)


def tell_all(workers: int, *, by_seeds: bool = False) -> bool:
    """Print the table; whether every rule was noticed, or says why it is not, and nothing else."""
    seconds, noticed, well = 0.0, set[str](), True
    for row in rows(workers, by_seeds=by_seeds):
        seconds += row.seconds
        if not row.rule:
            if row.noticed:
                well = False
                print(f"{row.who}: FAILED with all rules in place: {row.seen}", flush=True)
            continue
        if row.noticed:
            noticed.add(row.rule)
        well = well and row.noticed
        word = "noticed" if row.noticed else "NOT NOTICED"
        print(f"{row.rule}: {word} by {row.who}")
        print(f"    the rule: {RULES[row.rule].promise}")
        print(f"    seen after {row.operations} operations, {row.seconds:.1f} s: {row.seen[:160]}")
        sys.stdout.flush()
    for promise in PROMISES:
        for name in promise.rules:
            if name not in noticed:
                well = False
                print(f"NOT NOTICED: {name} ({promise.sentence})")
        if promise.otherwise:
            print(f"not taken out: {promise.sentence}: {promise.otherwise}")
    for name in sorted(RULES.keys() - noticed):
        well = False
        print(f"NOT NOTICED: {name}")
    print(
        f"{len(noticed)} of {len(RULES)} rules were noticed when they were taken out;"
        f" {len(SCENARIOS)} scenarios, {seconds:.0f} s"
    )
    return well
