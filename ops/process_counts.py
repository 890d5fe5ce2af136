"""What every process of the store tells of itself: time, memory, and how late its event loop runs."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from placement.rpc.server import Request

PROCESS_VERB = 97
LAG_SAMPLE_SECONDS = 0.5
LAG_WINDOW_SAMPLES = 120
"""The lag that is shown is the worst of the last one to two windows of so many samples."""


class CommitFacts(msgspec.Struct, array_like=True, frozen=True):
    """Group commits since the process began, their members in all, and the time spent in them."""

    commits: int
    members: int
    seconds: float


class MetadataFacts(msgspec.Struct, array_like=True, frozen=True):
    """Room of the metadata store. `quota_bytes`: what its file may grow to, 0 where nobody knows;
    `full`: it refuses what needs room."""

    size_bytes: int
    in_use_bytes: int
    quota_bytes: int
    full: bool


class ProcessCounts(msgspec.Struct, array_like=True, frozen=True):
    """A snapshot of one process."""

    name: str
    cpu_seconds: float
    resident_bytes: int
    proportional_bytes: int
    open_files: int
    loop_lag_seconds: float
    commits: dict[str, CommitFacts] = {}
    metadata: MetadataFacts | None = None


class ProcessWatch:
    """Measures the process that it runs in. `start` it on the loop to be measured."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._worst = [0.0, 0.0]
        self._samples = 0
        self._expected = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> "ProcessWatch":
        """Begin to measure how late the loop runs what is due."""
        self._schedule(asyncio.get_running_loop())
        return self

    def stop(self) -> None:
        """End it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def loop_lag_seconds(self) -> float:
        """How late a timer ran, at worst, in the last minute or two."""
        return max(self._worst)

    def counts(
        self,
        commits: dict[str, CommitFacts] | None = None,
        metadata: MetadataFacts | None = None,
    ) -> ProcessCounts:
        """The snapshot; reading the memory takes a millisecond or so."""
        resident, proportional = _memory()
        return ProcessCounts(
            self._name,
            sum(os.times()[:2]),
            resident,
            proportional,
            len(os.listdir("/proc/self/fd")),
            self.loop_lag_seconds,
            commits or {},
            metadata,
        )

    def handler(
        self,
        commits: Callable[[], dict[str, CommitFacts]] = dict,
        metadata: Callable[[], MetadataFacts | None] = lambda: None,
    ) -> Callable[[Request], None]:
        """Answers `PROCESS_VERB`."""

        def handle(request: Request) -> None:
            counted = self.counts(commits(), metadata())
            request.reply(msgspec.msgpack.encode(counted))

        return handle

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._expected = loop.time() + LAG_SAMPLE_SECONDS
        self._timer = loop.call_at(self._expected, self._sample, loop)

    def _sample(self, loop: asyncio.AbstractEventLoop) -> None:
        # Timers of this loop have a grain of a millisecond: less than that is not late.
        late = max(0.0, loop.time() - self._expected - 0.001)
        self._worst[-1] = max(self._worst[-1], late)
        self._samples += 1
        if self._samples >= LAG_WINDOW_SAMPLES:
            self._samples = 0
            self._worst = [self._worst[-1], 0.0]
        self._schedule(loop)


def _memory() -> tuple[int, int]:
    """Resident and proportional set size in bytes; the latter is 0 where the kernel keeps it."""
    resident = proportional = 0
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), 0
    for line in lines:
        if line.startswith("Rss:"):
            resident = int(line.split()[1]) * 1024
        elif line.startswith("Pss:"):
            proportional = int(line.split()[1]) * 1024
    return resident, proportional
