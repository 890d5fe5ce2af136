"""How long reads take in this process: from when on one is late."""

HEDGE_SECONDS_MIN = 0.05
HEDGE_SECONDS_MAX = 1.0
HEDGE_FACTOR = 6.0
"""A read is late beyond this multiple of the usual latency, within the bounds above."""


class Latency:
    """The usual time of a read step, as a moving average over the process."""

    def __init__(self) -> None:
        self._seconds = HEDGE_SECONDS_MIN / HEDGE_FACTOR

    def add(self, seconds: float) -> None:
        """One step took that long."""
        self._seconds += (seconds - self._seconds) / 16

    @property
    def late_after_seconds(self) -> float:
        """When to ask a spare."""
        return min(max(self._seconds * HEDGE_FACTOR, HEDGE_SECONDS_MIN), HEDGE_SECONDS_MAX)
