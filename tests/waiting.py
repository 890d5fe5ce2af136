"""Waiting in tests for what is not at once so."""

import asyncio
import time
from collections.abc import Callable


def eventually(condition: Callable[[], bool], seconds: float) -> None:
    """Poll until it holds; AssertionError when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


async def eventually_async(condition: Callable[[], bool], seconds: float = 5) -> None:
    """The same inside a loop; TimeoutError when it does not hold in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 — a test may poll
            await asyncio.sleep(0.005)
