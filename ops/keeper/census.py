"""The census: how many blobs, and bytes, may still lose how many drives.

Counted is by the drives that hold a blob, not by what it can lose: so a drive that goes shows at
once, and one that comes back too, without looking at any blob again. Every inventory of the repair
counts; between them the census walks by itself, slowly, so that what was written since shows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.objects.port import Objects
from ops.keeper.inventory import Found, blobs, find
from placement.clock import Clock
from placement.ids import DriveId
from placement.metastore.port import Metastore
from storage_node.port import NodePort

SETS_MAX = 1 << 16
"""Distinct sets of drives that are counted apart: a store has about as many as partitions, times the
schemes in use. With a hundred drives this many take some 20 MB."""
LOST = -1
"""Remaining tolerance of a blob that cannot be read, however much it misses."""
WALK_REST_FACTOR = 9.0
"""After a page the walk rests so many times as long as the page took."""
AGAIN_SECONDS = 60.0
AGAIN_FACTOR = 10.0
"""The next walk comes so long after the last count, and not before so many times as long as it took:
with its rests, the census takes about a hundredth of a keeper's time."""


@dataclass(frozen=True, slots=True)
class Amount:
    """So many blobs, and the bytes that were stored in them, without what coding adds."""

    blobs: int = 0
    size_bytes: int = 0

    def plus(self, other: "Amount") -> "Amount":
        """Both together."""
        return Amount(self.blobs + other.blobs, self.size_bytes + other.size_bytes)


NOTHING = Amount()


class Places(NamedTuple):
    """Where the shards of a blob are, as bits of drives. `alone`: drives that hold the only shard of
    an index and no other index, which is the rule; `others`: for each other index those that have
    it. `k` indexes on as many drives make the blob whole."""

    k: int
    alone: int
    others: tuple[int, ...]

    def tolerance(self, live: int) -> int:
        """Drives that may still be lost while these are live; `LOST` when there are too few."""
        alone, drives = (self.alone & live).bit_count(), self.alone
        for places in self.others:
            drives |= places
        indexes = alone + sum(places & live != 0 for places in self.others)
        return max(min(indexes, (drives & live).bit_count()) - self.k, LOST)


@dataclass(frozen=True, slots=True)
class Counted:
    """A whole count. `bits` number the drives that hold anything. Of blobs that came when there were
    `SETS_MAX` sets already, only the tolerance that they had is known (`coarse`)."""

    bits: Mapping[DriveId, int]
    held: Mapping[Places, Amount]
    coarse: Mapping[int, Amount]
    m: int
    """The most that any blob can lose."""


def tolerance_of(counted: Counted, live: frozenset[DriveId]) -> dict[int, Amount]:
    """What can lose so many drives more, from `LOST` to m, while these can be read. Blobs of which
    the drives are not known lose one with every drive that went: so much at least they can lose."""
    mask = sum(1 << bit for drive, bit in counted.bits.items() if drive in live)
    gone = len(counted.bits) - mask.bit_count()
    told = dict.fromkeys(range(LOST, counted.m + 1), NOTHING)
    for places, amount in counted.held.items():
        left = places.tolerance(mask)
        told[left] = told[left].plus(amount)
    for before, amount in counted.coarse.items():
        left = max(before - gone, LOST)
        told[left] = told[left].plus(amount)
    return told


class Counting:
    """A count under way."""

    def __init__(self, sets_max: int = SETS_MAX) -> None:
        self._sets_max = sets_max
        self._bits: dict[DriveId, int] = {}
        self._held: dict[Places, Amount] = {}
        self._coarse: dict[int, Amount] = {}
        self._m = 0

    def add(self, blob: Found) -> None:
        """One more blob, with the shards that it has now."""
        self._m = max(self._m, blob.ref.m)
        one = Amount(1, blob.ref.size_bytes)
        places = self._places(blob)
        if places in self._held or len(self._held) < self._sets_max:
            self._held[places] = self._held.get(places, NOTHING).plus(one)
        else:
            left = max(blob.tolerance, LOST)
            self._coarse[left] = self._coarse.get(left, NOTHING).plus(one)

    def counted(self) -> Counted:
        """What was added. Nothing may be added any more."""
        return Counted(self._bits, self._held, self._coarse, self._m)

    def _places(self, blob: Found) -> Places:
        masks = []
        seen = shared = 0
        for holdings in blob.shards.values():
            mask = 0
            for holding in holdings:
                mask |= 1 << self._bits.setdefault(holding.drive, len(self._bits))
            shared |= seen & mask
            seen |= mask
            masks.append(mask)
        alone, others = 0, []
        for mask in masks:
            if mask.bit_count() == 1 and not mask & shared:
                alone |= mask
            elif mask:
                others.append(mask)
        return Places(blob.ref.k, alone, tuple(sorted(others)))


class Census:
    """The duty, and the newest count. `waits` tells the drives that are away and may come back."""

    def __init__(
        self,
        metastore: Metastore,
        objects: Objects,
        nodes: Mapping[str, NodePort],
        waits: Callable[[], frozenset[DriveId]],
        clock: Clock,
    ) -> None:
        self._metastore = metastore
        self._objects = objects
        self._nodes = nodes
        self._waits = waits
        self._clock = clock
        self._newest: Counted | None = None
        self._began_at = 0.0
        self._again_at = 0.0
        self._told: tuple[frozenset[DriveId], dict[int, Amount]] | None = None

    def take(self, counting: Counting, began: float) -> None:
        """A walk over all blobs has ended that began then, by the monotonic clock."""
        now = self._clock.monotonic()
        self._newest, self._told = counting.counted(), None
        self._began_at = round(self._clock.now_ns() / 1e9 - (now - began), 3)
        self._again_at = now + max(AGAIN_SECONDS, AGAIN_FACTOR * (now - began))

    async def work(self) -> None:
        """Count anew when that is due. The first count is an inventory's. While a drive is away that
        may come back, the old count stands: a new one would not know what that drive holds."""
        if self._newest is None or self._waits() or self._clock.monotonic() < self._again_at:
            return
        began = turn = self._clock.monotonic()
        counting = Counting()
        # Of what cannot be read, the list of parts itself is counted as lost.
        async for refs in blobs(self._metastore, self._objects, lambda *_: None):
            for blob in await find(refs, self._nodes):
                counting.add(blob)
            await self._clock.sleep((self._clock.monotonic() - turn) * WALK_REST_FACTOR)
            turn = self._clock.monotonic()
        if not self._waits():
            self.take(counting, began)

    def told(self, live: frozenset[DriveId]) -> dict[str, Any] | None:
        """The newest count while these drives can be read; None when there is none yet. It began at
        `began_at_seconds` since the Unix epoch; of `coarse` blobs the tolerance is only a lower bound."""
        if self._newest is None:
            return None
        if self._told is None or self._told[0] != live:
            self._told = live, tolerance_of(self._newest, live)
        return {
            "began_at_seconds": self._began_at,
            "coarse": sum(amount.blobs for amount in self._newest.coarse.values()),
            "by_tolerance": {
                "lost" if left == LOST else str(left): {
                    "blobs": amount.blobs,
                    "bytes": amount.size_bytes,
                }
                for left, amount in self._told[1].items()
            },
        }
