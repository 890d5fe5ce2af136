"""Rates and forecasts of background duties."""

import pytest

from ops.admin_cli import headway_line
from ops.keeper.headway import Headways, Work


class SetClock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def now_ns(self) -> int:
        raise AssertionError("paces are of monotonic time")

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits here")


def test_a_steady_pace_is_told_with_what_is_left_and_how_long_it_takes() -> None:
    clock = SetClock()
    headways = Headways(clock)
    told = {}
    for second in range(301):
        clock.seconds = 100.0 + second
        told = headways.told({"repair": Work("objects", 20 * second, 10_000 - 20 * second)})
    assert told["repair"]["unit"] == "objects"
    assert told["repair"]["per_second"] == pytest.approx(20, rel=0.01)
    assert told["repair"]["left"] == 4000
    assert told["repair"]["eta_seconds"] == pytest.approx(200, rel=0.01)


def test_a_pause_and_a_change_of_pace_show_within_a_minute_or_two() -> None:
    clock = SetClock()
    headways = Headways(clock)
    done, rates = 0.0, []
    for pace in (100, 0, 50):
        for _ in range(24):
            clock.seconds += 5
            done += 5 * pace
            rates.append(headways.told({"moves": Work("bytes", done)})["moves"]["per_second"])
    assert rates[23] == pytest.approx(100, rel=0.05)
    assert rates[47] < 5
    assert rates[71] == pytest.approx(50, rel=0.05)
    assert max(rates) <= 100


def test_what_is_not_known_is_not_told_and_nothing_left_takes_no_time() -> None:
    clock = SetClock()
    headways = Headways(clock)
    works = {
        "moves": Work("bytes", 5.0),
        "garbage": Work("entries", 5.0, 0),
        "repair": Work("objects", 0.0, 12),
    }
    told = headways.told(works)
    assert (told["moves"]["left"], told["moves"]["eta_seconds"]) == (None, None)
    assert (told["garbage"]["left"], told["garbage"]["eta_seconds"]) == (0, 0.0)
    assert told["repair"]["eta_seconds"] is None, "at no pace it is never done"


def test_a_duty_that_keeps_a_set_time_says_itself_when_it_is_done() -> None:
    told = Headways(SetClock()).told({"scrub": Work("bytes", 0.0, eta_seconds=3600.0)})
    assert told["scrub"]["eta_seconds"] == 3600.0


def test_asking_twice_at_once_and_counting_anew_do_no_harm() -> None:
    clock = SetClock()
    headways = Headways(clock)
    headways.told({"sweep": Work("shards", 0)})
    clock.seconds += 30
    first = headways.told({"sweep": Work("shards", 300)})
    assert headways.told({"sweep": Work("shards", 300)}) == first
    clock.seconds += 30
    again = headways.told({"sweep": Work("shards", 0)})
    assert again["sweep"]["per_second"] == first["sweep"]["per_second"] > 0


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({"closed": 3}, ""),
        ({"unit": "entries", "per_second": 0.0, "left": 0, "eta_seconds": 0.0}, ""),
        (
            {"unit": "objects", "per_second": 20.0, "left": 4000, "eta_seconds": 200.0},
            "repair: 4,000 objects left, 20.0 objects/s, done in 3 min",
        ),
        (
            {"unit": "bytes", "per_second": 1.5e6, "left": None, "eta_seconds": 200_000.0},
            "repair: 1,500,000.0 bytes/s, done in 2 days",
        ),
        (
            {"unit": "objects", "per_second": 0.0, "left": 5, "eta_seconds": None},
            "repair: 5 objects left, 0.0 objects/s",
        ),
    ],
)
def test_a_line_for_people(told: dict[str, object], line: str) -> None:
    assert headway_line("repair", told) == line
