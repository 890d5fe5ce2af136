"""Counts of many processes as one: what a process had counted is kept when another takes its place.

A sum over processes would fall when one of them is replaced, which Prometheus takes for a restart
of everything.
"""

from gateway.metrics import RequestCounts


class RequestTotals:
    """Adds up the snapshots of the workers, those that ended included."""

    def __init__(self) -> None:
        self._ended = RequestCounts()
        self._newest: dict[int, RequestCounts] = {}
        self._away: set[int] = set()

    def take(self, worker: int, counts: RequestCounts | None) -> None:
        """A worker's snapshot; None when it did not answer: its last one still counts."""
        if counts is None:
            self._away.add(worker)
            return
        self._away.discard(worker)
        known = self._newest.get(worker)
        if known is not None and known.instance != counts.instance:
            known.inflight = 0
            self._ended.add(known)
        self._newest[worker] = counts

    def total(self) -> RequestCounts:
        """Everything so far."""
        total = RequestCounts()
        total.add(self._ended)
        for worker, counts in self._newest.items():
            inflight = counts.inflight
            if worker in self._away:
                counts.inflight = 0
            total.add(counts)
            counts.inflight = inflight
        return total


class Growing:
    """Counters by name that only grow, over sources that begin at 0 again when they restart."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, ...], float] = {}
        self._newest: dict[tuple[str, ...], float] = {}

    def take(self, value: float, *name: str) -> float:
        """The newest value of a source; what the counter is in all."""
        newest = self._newest.get(name, 0.0)
        if value < newest:
            self._before[name] = self._before.get(name, 0.0) + newest
        self._newest[name] = value
        return self._before.get(name, 0.0) + value
