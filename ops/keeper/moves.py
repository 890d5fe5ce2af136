"""Moves: an earlier epoch is closed when an inventory found every shard where the newest map wants it.

It must have been ours from the beginning of that inventory to the commit that closes the epoch: a
keeper that led meanwhile may have known an older map, and brought shards home to a drive that is
being emptied.

Nor has one that could not read an object's list of parts: they may lie anywhere. The list comes back with
its drives, or its object is deleted.

An inventory that could not ask a drive which may come back has not found that: what the drive holds
may be what is still to be moved. The drive comes back, or is out in the end, by itself or by an
operator's word; either way another inventory follows.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from ops.keeper.repair import RepairProgress
from ops.map_store import MapStore
from ops.refusal import Refused
from placement.cluster_map import ClusterMap
from placement.map_changes import MapRefused, close_epochs
from placement.metastore.port import Compare

log = logging.getLogger("ostraka.keeper.moves")


class Moves:
    """The duty. The moving itself is the repair's: bringing shards home is one comparison."""

    def __init__(
        self,
        maps: MapStore,
        progress: Callable[[], RepairProgress],
        led: Callable[[], Sequence[Compare]],
    ) -> None:
        """`led`: what holds while nobody else has led the repair since this progress began."""
        self._maps = maps
        self._progress = progress
        self._led = led
        self._waits_for: list[str] = []
        self.closed = 0

    def told(self) -> dict[str, Any]:
        """For operators: `waits_for` are the drives that hold an epoch open because they are away."""
        return {"closed": self.closed, "waits_for": self._waits_for}

    async def work(self) -> None:
        """Close what is done."""
        progress = self._progress()
        self._waits_for = []
        if progress.due or progress.misplaced or progress.unlisted or not progress.epoch:
            return
        if progress.unseen:
            now, _ = await self._maps.current()
            if now is not None and now.open_epochs:
                self._waits_for = sorted(drive.hex() for drive in progress.unseen)
            return
        verified = progress.epoch

        def edit(now: ClusterMap) -> ClusterMap:
            if now.epoch != verified or not now.open_epochs:
                raise MapRefused("nothing to close, or another change came")
            return close_epochs(now)

        try:
            new = await self._maps.change(edit, self._led())
        except (MapRefused, Refused):
            return
        self.closed += 1
        # The same placement under a new number: what was verified still holds.
        progress.epoch = new.epoch
        log.info("epoch %d: every shard is where it belongs", new.epoch)
