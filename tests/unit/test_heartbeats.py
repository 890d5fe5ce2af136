"""Signs of life: who stands still is noticed, who was never asked is not blamed."""

import asyncio
import os

import pytest

from ops import heartbeats
from ops.heartbeats import Heartbeats, Pulse


def test_a_child_that_beats_is_not_silent_and_one_that_stops_is() -> None:
    beats = Heartbeats(2, check_seconds=2.0)
    pulse = Pulse(os.dup(beats.descriptor), 1)

    async def beat() -> None:
        pulse.begin()

    asyncio.run(beat())
    for now in (10.0, 12.0, 14.0):
        beats.check(now)
    assert beats.silent_seconds(1) == 4.0
    assert beats.silent_seconds(0) == 0.0  # it has not begun
    asyncio.run(beat())
    beats.check(16.0)
    assert beats.silent_seconds(1) == 0.0


def test_the_time_in_which_the_supervisor_stood_still_itself_does_not_count() -> None:
    beats = Heartbeats(1, check_seconds=2.0)
    pulse = Pulse(os.dup(beats.descriptor), 0)

    async def beat() -> None:
        pulse.begin()

    asyncio.run(beat())
    beats.check(10.0)
    beats.check(10_000.0)  # everything was stopped, or the machine slept
    assert beats.silent_seconds(0) == 2.0


def test_a_process_that_takes_the_place_of_a_silent_one_begins_anew() -> None:
    beats = Heartbeats(1, check_seconds=2.0)
    pulse = Pulse(os.dup(beats.descriptor), 0)

    async def beat() -> None:
        pulse.begin()

    asyncio.run(beat())
    for now in (10.0, 12.0, 14.0):
        beats.check(now)
    beats.reset(0)
    beats.check(16.0)
    assert beats.silent_seconds(0) == 0.0


def test_it_beats_for_as_long_as_the_loop_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "BEAT_SECONDS", 0.001)
    beats = Heartbeats(1, check_seconds=2.0)
    pulse = Pulse(os.dup(beats.descriptor), 0)

    async def long() -> None:
        pulse.begin()
        seen: set[bytes] = set()
        async with asyncio.timeout(20):
            while len(seen) < 255:  # the byte goes round, and is never "not yet"
                seen.add(os.pread(beats.descriptor, 1, 0))
                await asyncio.sleep(0)
        assert b"\0" not in seen

    asyncio.run(long())
