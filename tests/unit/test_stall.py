"""Deadlines of flushes: who is stalled depends on how the others fare."""

import asyncio
import errno

import pytest

from storage_node.flush import Flush
from storage_node.stall import Patience, StallWatch

QUICK = Patience(
    minority_seconds=0.1, minority_factor=4, some_seconds=1.0, all_seconds=2.0, bytes_per_second=1e9
)


@pytest.mark.parametrize(
    ("count", "ended", "half_ended_seconds", "size_bytes", "limit"),
    [
        (6, 5, 0.25, 0, 5.0),  # one drive alone is late
        (6, 3, 0.25, 0, 5.0),
        (6, 3, 3.0, 0, 12.0),  # the others were slow, too
        (6, 2, -1.0, 0, 20.0),
        (6, 0, -1.0, 0, 60.0),  # the whole machine is slow
        (1, 0, -1.0, 0, 60.0),  # nobody to compare with
        (3, 2, 0.25, 40 << 20, 15.0),  # much is to be written
    ],
)
def test_the_deadline_of_the_rest(
    count: int, ended: int, half_ended_seconds: float, size_bytes: int, limit: float
) -> None:
    assert Patience().limit_seconds(count, ended, half_ended_seconds, size_bytes) == limit


def test_a_flush_that_ends_is_not_expired() -> None:
    async def scenario() -> None:
        watch = StallWatch(QUICK)
        loop = asyncio.get_running_loop()
        flush = Flush(2, loop)
        flush.end(0, None)
        loop.call_later(0.01, flush.end, 1, OSError(errno.EIO, "bad"))
        await watch.ended(flush)
        assert flush.errors[0] is None
        assert flush.errors[1] is not None
        assert flush.errors[1].errno == errno.EIO
        done = Flush(0, loop)
        await watch.ended(done)

    asyncio.run(scenario())


def test_one_that_is_late_while_the_others_ended_is_expired_and_stays_failed() -> None:
    async def scenario() -> None:
        watch = StallWatch(QUICK)
        loop = asyncio.get_running_loop()
        flush = Flush(3, loop)
        flush.end(0, None)
        flush.end(2, None)
        began = loop.time()
        await watch.ended(flush)
        assert loop.time() - began < 1.5
        flush.end(1, None)  # too late
        assert flush.errors[0] is None
        assert flush.errors[2] is None
        assert flush.errors[1] is not None
        assert flush.errors[1].errno == errno.ETIMEDOUT

    asyncio.run(scenario())


def test_while_all_are_slow_nobody_is_expired() -> None:
    async def scenario() -> None:
        watch = StallWatch(QUICK)
        loop = asyncio.get_running_loop()
        flush = Flush(3, loop)
        for position in range(3):
            loop.call_later(0.9, flush.end, position, None)
        await watch.ended(flush)
        assert flush.errors == [None, None, None]

    asyncio.run(scenario())
