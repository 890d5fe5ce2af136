"""Departures: a drive that is away for longer than the grace time is put out of the cluster map.

Nobody is put out while more than one failure domain is missing, while the metadata store is unwell,
or where the rest could not hold the data. Absences are counted on this process's monotonic clock,
and only between two looks at a metadata store that answered.
"""

import logging
from collections.abc import Collection, Iterable
from typing import Any

from ops.map_store import MapStore
from placement.clock import Clock
from placement.cluster_map import ClusterMap, DriveState
from placement.errors import MetastoreUnavailable
from placement.ids import DriveId
from placement.map_changes import MapRefused, may_put_out, put_out
from placement.membership import DRIVES, DriveRecord, decode
from placement.membership_view import LiveView
from placement.metastore.port import Metastore, Range, prefix_end
from storage_node.port import DriveCondition

GRACE_SECONDS = 600.0
STEP_SECONDS_MAX = 5.0
"""What one look may add to an absence: a process that stood still saw nothing meanwhile."""
_GONE = (DriveCondition.FAILED.value, DriveCondition.MISSING.value)

log = logging.getLogger("ostraka.keeper.departures")


class Absences:
    """How long drives have been away, as far as was seen."""

    def __init__(self) -> None:
        self._seconds: dict[DriveId, float] = {}
        self._seen_at: float | None = None

    def blind(self) -> None:
        """The metadata store did not answer: what was away before may be back, nobody knows."""
        self._seen_at = None

    def see(self, now: float, away: Iterable[DriveId]) -> None:
        """These drives, and no others, are away now."""
        step = 0.0 if self._seen_at is None else min(now - self._seen_at, STEP_SECONDS_MAX)
        self._seen_at = now
        self._seconds = {drive: self._seconds.get(drive, -step) + step for drive in away}

    def longer_than(self, seconds: float) -> frozenset[DriveId]:
        """Those away for at least so long."""
        return frozenset(drive for drive, away in self._seconds.items() if away >= seconds)

    @property
    def seconds(self) -> dict[DriveId, float]:
        """Of every drive that is away."""
        return dict(self._seconds)


class Departures:
    """The duty."""

    def __init__(
        self,
        metastore: Metastore,
        maps: MapStore,
        view: LiveView,
        clock: Clock,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._metastore = metastore
        self._maps = maps
        self._view = view
        self._clock = clock
        self._grace_seconds = grace_seconds
        self._absences = Absences()
        self._failed: frozenset[DriveId] = frozenset()
        self._said = ""
        self.put_out = 0

    def waiting(self) -> frozenset[DriveId]:
        """Drives that are away and may still come back: their shards are not rebuilt elsewhere.
        One that its own node calls failed is not waited for."""
        return frozenset(self._absences.seconds) - self._failed

    def told(self) -> dict[str, Any]:
        """For operators."""
        return {
            "away": {d.hex(): round(s, 1) for d, s in self._absences.seconds.items()},
            "put_out": self.put_out,
            "held_back": self._said,
        }

    async def work(self, *, decides: bool) -> None:
        """One look; a decision, if this keeper may decide."""
        try:
            now, _ = await self._maps.current()
            found = await self._metastore.range(Range(DRIVES, prefix_end(DRIVES)))
        except MetastoreUnavailable:
            self._absences.blind()
            raise
        if now is None:
            return
        there: set[DriveId] = set()
        failed: set[DriveId] = set()
        for kv in found.kvs:
            record = decode(DriveRecord, kv.value)
            (failed if record.condition in _GONE else there).add(DriveId(record.drive))
        self._failed = frozenset(failed)
        self._absences.see(self._clock.monotonic(), _away(now, there))
        lost = self._absences.longer_than(self._grace_seconds)
        if decides and lost:
            await self._decide(now, lost)

    async def _decide(self, now: ClusterMap, lost: frozenset[DriveId]) -> None:
        # Whoever is away counts, also within its grace time: two domains may be going.
        reason = may_put_out(now, self._absences.seconds.keys())
        if reason is not None:
            if reason != self._said:
                log.warning("%d drives are away for long, but %s", len(lost), reason)
            self._said = reason
            return
        self._said = ""

        def edit(current: ClusterMap) -> ClusterMap:
            if current != now:
                raise MapRefused("the map changed meanwhile")
            return put_out(current, lost)

        try:
            new = await self._maps.change(edit)
        except MapRefused:
            return  # decided anew with the next look
        self.put_out += len(lost)
        log.warning(
            "epoch %d: out after %.0f s: %s",
            new.epoch,
            self._grace_seconds,
            ", ".join(sorted(drive.hex() for drive in lost)),
        )


def _away(now: ClusterMap, there: Collection[DriveId]) -> list[DriveId]:
    return [
        drive.drive_id
        for drive in now.drives
        if drive.state is not DriveState.OUT and drive.drive_id not in there
    ]
