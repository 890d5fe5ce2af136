"""How loaded drives are, as one process that reads from them sees it, and whom to ask. Pure.

A drive's *wait* is what the next read of it is expected to take: the usual time of its answers, for
everything that is under way there, and time for the bytes. A drive is *loaded* when its wait stands out
of what drives usually take; it must come well below that line to be asked like the others again, so
that it does not swing. While no drive is loaded nothing changes: data shards are read first, for
decoding costs CPU, and of copies the first, for it is the one that the caches hold.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from placement.ids import DriveId

LOADED_FACTOR = 6.0
LOADED_SECONDS = 0.02
"""A drive is loaded when its wait is beyond the usual one by this factor and this time."""
CALM_FACTOR = 2.5
CALM_SECONDS = 0.008
"""And is so no more when it is within these."""
COPY_FACTOR = 2.0
COPY_SECONDS = 0.002
"""The second choice of a copy is taken when its wait is better by this much."""
BYTES_PER_SECOND = 100e6
"""What bytes under way are reckoned at: a slow disk's rate."""
FADING = 0.8
"""What is left, after a second, of the time that a drive which nobody asked is thought to take: so it
is tried again."""
_OF_DRIVE, _OF_ALL = 1 / 8, 1 / 64
"""Weight of one answer in the moving averages."""
_OUTLIER_FACTOR = 4.0
"""An answer counts for at most so many times what is usual, in the average of all drives."""


@dataclass(slots=True)
class _Drive:
    outstanding: int = 0
    outstanding_bytes: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    answers: int = 0
    """Since it was last looked at by `settle`."""


class DriveLoads:
    """Told of every read; says which drives are loaded."""

    def __init__(self) -> None:
        self._drives: dict[DriveId, _Drive] = {}
        self._usual_seconds = CALM_SECONDS / CALM_FACTOR
        self._turn = 0
        self.loaded: frozenset[DriveId] = frozenset()
        """Better not asked while others can serve."""

    def begun(self, drive: DriveId, size_bytes: int) -> None:
        """A read was sent."""
        state = self._drives.get(drive)
        if state is None:
            state = self._drives[drive] = _Drive()
        state.outstanding += 1
        state.outstanding_bytes += size_bytes

    def ended(
        self, drive: DriveId, size_bytes: int, seconds: float, *, answered: bool = True
    ) -> None:
        """It was answered after so long, or is not waited for any longer than that."""
        state = self._drives.get(drive)
        if state is None or not state.outstanding:
            return  # forgotten meanwhile
        if answered or seconds > state.seconds:
            state.answers += 1
            state.seconds += (seconds - state.seconds) * _OF_DRIVE
            if drive not in self.loaded:
                # Cut off, lest one drive's trouble become what is usual before it is known as such.
                seconds = min(seconds, _OUTLIER_FACTOR * self._usual_seconds)
                self._usual_seconds += (seconds - self._usual_seconds) * _OF_ALL
            self._judge(drive, state)
        state.outstanding -= 1
        state.outstanding_bytes -= size_bytes

    def told(self, drive: DriveId, busy: float) -> None:
        """The drive's node says how many operations were under way there, on the average."""
        state = self._drives.get(drive)
        if state is None:
            state = self._drives[drive] = _Drive()
        state.busy = busy

    def settle(self, known: Iterable[DriveId]) -> None:
        """Once a second: what drives took that nobody asked is forgotten little by little; drives
        that are gone at once."""
        for drive in self._drives.keys() - set(known):
            del self._drives[drive]
            self.loaded -= {drive}
        for drive, state in self._drives.items():
            if not state.answers:
                state.seconds *= FADING
            state.answers = 0
            self._judge(drive, state)

    def wait_seconds(self, drive: DriveId) -> float:
        """What the next read is expected to take."""
        state = self._drives.get(drive)
        return 0.0 if state is None else _wait_seconds(state)

    def choose(self, drives: Sequence[DriveId]) -> int:
        """Which of the drives that hold the same bytes to ask: the first, unless one of the others,
        each of which has its turn, would clearly be sooner."""
        if len(drives) < 2:
            return 0
        first = self.wait_seconds(drives[0])
        if first <= COPY_SECONDS:
            return 0
        self._turn += 1
        other = 1 + self._turn % (len(drives) - 1)
        second = self.wait_seconds(drives[other])
        return other if first > COPY_FACTOR * second + COPY_SECONDS else 0

    def _judge(self, drive: DriveId, state: _Drive) -> None:
        wait = _wait_seconds(state)
        if drive in self.loaded:
            if wait < CALM_FACTOR * self._usual_seconds + CALM_SECONDS:
                self.loaded -= {drive}
        elif wait > LOADED_FACTOR * self._usual_seconds + LOADED_SECONDS:
            self.loaded |= {drive}


def _wait_seconds(state: _Drive) -> float:
    under_way = state.outstanding if state.outstanding > state.busy else state.busy
    return state.seconds * (1 + under_way) + state.outstanding_bytes / BYTES_PER_SECOND
