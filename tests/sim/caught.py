"""For each rule a seed that notices that it was taken out, and the table of them for the record."""

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.sim.broken import DRIVE, RULES
from tests.sim.run import Verdict, run_drive_seed, run_seed
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
"""By rule. `python -m tests.sim --rules` proves it. Any change of the code may change a seed's course:
where the named one notices nothing any more, the next of the same tilt are tried."""
TRIES = 5


@dataclass(frozen=True, slots=True)
class Row:
    """What became of a rule's seed. `seconds` are the processor's."""

    rule: str
    seed: int
    caught: bool
    operations: int
    seconds: float
    seen: str


def run_broken(rule: str, seed: int) -> Verdict:
    """One seed without that rule. In a process of its own."""
    broken = RULES[rule]
    if broken.tilt == DRIVE:
        return run_drive_seed(seed, lambda: broken.take_out(None))
    return run_seed(seed, broken=broken.take_out)


def rows(workers: int) -> Iterator[Row]:
    """Every rule with the seed that noticed, or the last one tried."""
    context = multiprocessing.get_context("fork")
    left = dict(CAUGHT)
    with context.Pool(workers, maxtasksperchild=1) as pool:
        for _ in range(TRIES):
            for row in pool.imap(_row, list(left.items()), chunksize=1):
                if row.caught:
                    del left[row.rule]
                    yield row
                else:
                    left[row.rule] += 1 if RULES[row.rule].tilt == DRIVE else len(TILTS)
        yield from (Row(rule, seed, False, 0, 0.0, "nothing") for rule, seed in left.items())


def _row(work: tuple[str, int]) -> Row:
    rule, seed = work
    began = time.process_time()
    verdict = run_broken(rule, seed)
    seen = verdict.error.strip().splitlines()
    seconds = time.process_time() - began
    return Row(rule, seed, bool(seen), verdict.operations, seconds, seen[-1] if seen else "")


def tell_all(workers: int) -> bool:
    """Print the table; whether every rule was caught."""
    caught, seconds = 0, 0.0
    for row in rows(workers):
        rule = RULES[row.rule]
        word = "caught" if row.caught else "NOT CAUGHT"
        print(f"{row.rule}: {word} by seed {row.seed} ({rule.tilt})")
        print(f"    the rule: {rule.promise}")
        print(f"    seen after {row.operations} operations, {row.seconds:.1f} s: {row.seen[:160]}")
        caught += row.caught
        seconds += row.seconds
    for name in sorted(RULES.keys() - CAUGHT.keys()):
        print(f"no seed is known for {name}")
    print(f"{caught} of {len(RULES)} rules were caught when they were taken out, {seconds:.0f} s")
    return caught == len(RULES)
