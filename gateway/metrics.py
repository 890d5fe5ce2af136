"""What a gateway process counts, as plain values cheap enough for every request.

The admin process collects one snapshot from each worker and adds them up (`ops/metrics.py`).
"""

from bisect import bisect_left

import msgspec

LATENCY_BOUNDS_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip


class Histogram(msgspec.Struct, array_like=True):
    """Counts by upper bound (the last one is +Inf) and the sum of what was observed."""

    counts: list[int]
    total: float = 0.0

    @classmethod
    def empty(cls) -> "Histogram":
        """All zero."""
        return cls([0] * (len(LATENCY_BOUNDS_SECONDS) + 1))

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(LATENCY_BOUNDS_SECONDS, value)] += 1
        self.total += value

    def add(self, other: "Histogram") -> None:
        """Add another process's counts."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class OperationCounts(msgspec.Struct, array_like=True):
    """One operation's totals. `codes` maps "200" or an S3 error code to requests."""

    codes: dict[str, int]
    latency: Histogram
    first_byte: Histogram
    received_bytes: int = 0
    sent_bytes: int = 0


class DriveReads(msgspec.Struct, array_like=True):
    """Shards that a process read from a drive by itself, without asking its owner."""

    reads: int = 0
    read_bytes: int = 0
    seconds: float = 0.0


class RequestCounts(msgspec.Struct, array_like=True):
    """A gateway process's snapshot. `drive_reads` by the drive's id in hexadecimal; `instance`
    differs for every process that ever ran."""

    operations: dict[str, OperationCounts] = {}
    inflight: int = 0
    internal_errors: int = 0
    degraded_reads: int = 0
    degraded_writes: int = 0
    drive_reads: dict[str, DriveReads] = {}
    lost_log_lines: int = 0
    instance: bytes = b""
    slowed_commits: int = 0
    refused_commits: int = 0
    """Because of the backlog of garbage."""

    def operation(self, name: str) -> OperationCounts:
        """The counts of an operation, made at its first request. Names come from the registry."""
        counts = self.operations.get(name)
        if counts is None:
            counts = OperationCounts({}, Histogram.empty(), Histogram.empty())
            self.operations[name] = counts
        return counts

    def add(self, other: "RequestCounts") -> None:
        """Add another process's snapshot."""
        for name, theirs in other.operations.items():
            ours = self.operation(name)
            for code, count in theirs.codes.items():
                ours.codes[code] = ours.codes.get(code, 0) + count
            ours.latency.add(theirs.latency)
            ours.first_byte.add(theirs.first_byte)
            ours.received_bytes += theirs.received_bytes
            ours.sent_bytes += theirs.sent_bytes
        self.inflight += other.inflight
        self.internal_errors += other.internal_errors
        self.degraded_reads += other.degraded_reads
        self.degraded_writes += other.degraded_writes
        for drive, read in other.drive_reads.items():
            own = self.drive_reads.setdefault(drive, DriveReads())
            own.reads += read.reads
            own.read_bytes += read.read_bytes
            own.seconds += read.seconds
        self.lost_log_lines += other.lost_log_lines
        self.slowed_commits += other.slowed_commits
        self.refused_commits += other.refused_commits
