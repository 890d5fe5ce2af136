"""How fast each duty gets on and when it will be done, from what it has done and what is left.

Asked for from time to time, by whoever shows it; between two askings nothing is counted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from placement.clock import Clock

SMOOTHING_SECONDS = 30.0
"""A change of pace shows to two thirds after so long."""
SAMPLE_SECONDS_MIN = 1.0


@dataclass(frozen=True, slots=True)
class Work:
    """What a duty did since the process began, and what it knows to be left: None, nothing. One that
    keeps a set time says itself when it will be done (`eta_seconds`)."""

    unit: str
    done: float
    left: float | None = None
    eta_seconds: float | None = None


@dataclass(slots=True)
class _Pace:
    at: float
    done: float
    per_second: float = 0.0

    def told(self, now: float, done: float) -> float:
        """The smoothed rate."""
        seconds = now - self.at
        if done < self.done:  # counted anew
            self.at, self.done = now, done
        elif seconds >= SAMPLE_SECONDS_MIN:
            weight = 1.0 - math.exp(-seconds / SMOOTHING_SECONDS)
            self.per_second += ((done - self.done) / seconds - self.per_second) * weight
            self.at, self.done = now, done
        return self.per_second


class Headways:
    """Of all duties of a process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._paces: dict[str, _Pace] = {}

    def told(self, works: Mapping[str, Work]) -> dict[str, dict[str, Any]]:
        """For each duty its unit, how many of them it does a second, how many are left (None where
        that is not known) and the seconds until it is done at this pace (None likewise)."""
        return {name: self._told(name, work) for name, work in works.items()}

    def _told(self, name: str, work: Work) -> dict[str, Any]:
        now = self._clock.monotonic()
        pace = self._paces.get(name)
        if pace is None:
            pace = self._paces[name] = _Pace(now, work.done)
        rate = pace.told(now, work.done)
        eta = work.eta_seconds
        return {
            "unit": work.unit,
            "per_second": round(rate, 3),
            "left": work.left,
            "eta_seconds": _eta_seconds(work.left, rate) if eta is None else round(eta, 1),
        }


def _eta_seconds(left: float | None, per_second: float) -> float | None:
    if left is None:
        return None
    if left <= 0:
        return 0.0
    return round(left / per_second, 1) if left < per_second * 1e9 else None
