"""A node's own counters as metrics: what its drives did, and its group commits."""

from collections.abc import Mapping, Sequence
from typing import Any

from ops.collected import Growing
from ops.metrics import CommitCounts, DriveCounts
from ops.process_counts import CommitFacts
from storage_node.port import DriveReport

SHARD_OPERATIONS = {
    "put": ("puts", "put_seconds", "written_bytes"),
    "get": ("gets", "get_seconds", "read_bytes"),
    "commit": ("commits", "commit_seconds", "commit_bytes"),
    "delete": ("deletes", "delete_seconds", ""),
    "flush": ("flushes", "flush_seconds", ""),
}
"""Operations on shards, and the node's counters of how many, how long and how much."""


def drive_counts(
    reports: Sequence[DriveReport], stats: Mapping[str, Any], grown: Growing
) -> list[DriveCounts]:
    """One of each reported drive, from what `Node.stats` tells. A drive that is opened anew counts
    from 0 again, which `grown` hides."""
    drives = []
    for report in reports:
        drive = report.drive.hex()
        counted = stats["drives"].get(drive, {})
        shown = DriveCounts(drive=report.path)
        for operation, names in SHARD_OPERATIONS.items():
            tables = (shown.operations, shown.seconds, shown.bytes)
            for table, name in zip(tables, names, strict=True):
                value = counted.get(name, 0)
                table[operation] = grown.take(value, drive, name) if name else 0.0
        drives.append(shown)
    return drives


def shard_commits(stats: Mapping[str, Any], grown: Growing) -> CommitCounts:
    """The node's group commits."""
    return commit_counts(
        "shards", stats["groups"], stats["group_parts"], stats["flush_seconds"], grown
    )


def commit_counts(
    kind: str, commits: float, members: float, seconds: float, grown: Growing, source: str = ""
) -> CommitCounts:
    """Commits of one kind; `source` is which of several processes counted them."""
    return CommitCounts(
        kind,
        int(grown.take(commits, kind, source, "commits")),
        int(grown.take(members, kind, source, "members")),
        grown.take(seconds, kind, source, "seconds"),
    )


class CommitTotals:
    """Commits of several processes added up, those that another took the place of included."""

    def __init__(self) -> None:
        self._grown = Growing()
        self._newest: dict[tuple[str, str], CommitCounts] = {}

    def take(self, process: str, facts: Mapping[str, CommitFacts]) -> None:
        """What a process counted, by kind."""
        for kind, fact in facts.items():
            counted = (fact.commits, fact.members, fact.seconds)
            self._newest[process, kind] = commit_counts(kind, *counted, self._grown, process)

    def total(self, kind: str) -> CommitCounts:
        """Of all processes; one that does not answer counts with what it told last."""
        total = CommitCounts(kind)
        for (_, known), counts in self._newest.items():
            if known == kind:
                total.commits += counts.commits
                total.members += counts.members
                total.seconds += counts.seconds
        return total
