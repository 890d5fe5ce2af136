"""Moves: an earlier epoch is closed when an inventory found every shard where the newest map wants it."""

import logging
from collections.abc import Callable

from ops.keeper.repair import RepairProgress
from ops.map_store import MapStore
from placement.cluster_map import ClusterMap
from placement.map_changes import MapRefused, close_epochs

log = logging.getLogger("ostraka.keeper.moves")


class Moves:
    """The duty. The moving itself is the repair's: bringing shards home is one comparison."""

    def __init__(self, maps: MapStore, progress: Callable[[], RepairProgress]) -> None:
        self._maps = maps
        self._progress = progress
        self.closed = 0

    async def work(self) -> None:
        """Close what is done."""
        progress = self._progress()
        if progress.due or progress.misplaced or not progress.epoch:
            return
        verified = progress.epoch

        def edit(now: ClusterMap) -> ClusterMap:
            if now.epoch != verified or not now.open_epochs:
                raise MapRefused("nothing to close, or another change came")
            return close_epochs(now)

        try:
            new = await self._maps.change(edit)
        except MapRefused:
            return
        self.closed += 1
        # The same placement under a new number: what was verified still holds.
        progress.epoch = new.epoch
        log.info("epoch %d: every shard is where it belongs", new.epoch)
