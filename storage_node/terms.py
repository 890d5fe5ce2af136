"""Terms of leadership as a node knows them: whose deletes of surplus shards still count.

A keeper deletes a shard because it saw the same one elsewhere. A call that is late (its sender stood
still, or was cut off) may arrive when another keeper leads, which moved shards meanwhile and now counts
on this one. So the keeper that begins announces its term, and calls of earlier ones are refused: the
fencing token of Kleppmann's "How to do distributed locking".
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from placement.errors import PlacementError


class TermIsOver(PlacementError):
    """Another keeper has begun a later term. Nothing was done."""


class Terms:
    """The newest term announced to this process. One deletes, or begins a term, at a time: when
    `begin` returns, no delete of an earlier term is on its way to a drive."""

    def __init__(self) -> None:
        self._newest = 0
        self._turn = asyncio.Lock()

    async def begin(self, term: int) -> None:
        """Earlier ones are over."""
        async with self._turn:
            self._newest = max(self._newest, term)

    @asynccontextmanager
    async def within(self, term: int) -> AsyncIterator[None]:
        """None begins meanwhile. Raises TermIsOver."""
        async with self._turn:
            if term < self._newest:
                raise TermIsOver(f"term {term} is over, {self._newest} has begun")
            yield
