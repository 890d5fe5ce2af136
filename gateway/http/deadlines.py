"""Deadlines by comparison: a state that lasts too long without progress has expired. No I/O."""


class Deadline:
    """Remembers since when the watched state and its progress have been the same."""

    __slots__ = ("_progress_bytes_min", "_seen", "_since")

    def __init__(self, progress_bytes_min: int) -> None:
        self._progress_bytes_min = progress_bytes_min
        self._seen: tuple[object, int] | None = None
        self._since = 0.0

    def passed(self, now: float, state: object, progress_bytes: int, limit_seconds: float) -> bool:
        """Whether the state has lasted for the limit with less than the least progress."""
        seen = self._seen
        if (
            seen is None
            or seen[0] != state
            or abs(progress_bytes - seen[1]) >= self._progress_bytes_min
        ):
            self._seen = (state, progress_bytes)
            self._since = now
            return False
        return now - self._since >= limit_seconds

    def rest(self) -> None:
        """Nothing is being waited for."""
        self._seen = None
