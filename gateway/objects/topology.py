"""Where shards go: the cluster map as it changes, and which of its drives are well at the moment.

A gateway learns of a sick drive from the outcomes it sees, at once, and from the nodes' reports,
once a second. A drive that failed an operation is avoided until a report asked for later says that
it is up.
"""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Mapping, Sequence

from gateway.domain.drive_load import DriveLoads
from gateway.domain.write_plan import (
    COPIES_SIZE_BYTES_MAX,
    WritePlan,
    plan_write,
    scheme_for,
)
from gateway.metadata import keys
from gateway.metadata.records import MapCurrent, decode
from gateway.metadata.windows import is_open, window_compare
from placement.clock import Clock
from placement.cluster_map import ClusterMap, MapDrive
from placement.errors import Compacted, MetastoreUnavailable, PeerUnavailable
from placement.hashing import Placement, partition_of, takes_writes
from placement.ids import BlobId, DriveId, Epoch, Partition, Slot
from placement.membership_view import LiveView
from placement.metastore.port import (
    Compare,
    Metastore,
    Put,
    Range,
    Txn,
    absent,
    prefix_end,
    unchanged,
)
from placement.schemes import Scheme, widest_that_fits
from storage_node.port import DriveCondition, NodePort, Outcome

_log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
POLL_SECONDS_MAX = 3.0
"""A node that takes longer to report counts as not answering."""
RETRY_SECONDS = 0.5
PLANS_MAX = 1 << 14
MARKS_MAX = 1 << 16
SLOW_SECONDS = 5.0
"""How long a drive that was late is read from last."""

MARK = b"\x01"
"""Value of a damage mark; the key says everything."""
_MAPS = b"m/"
_CURRENT = Range(keys.MAP_CURRENT)
_WINDOWS = Range(keys.WINDOWS, prefix_end(keys.WINDOWS), keys_only=True)
_MAPS_A_READ = 64
_WRITABLE = (DriveCondition.UP, DriveCondition.RECOVERING)
_READABLE = (DriveCondition.UP, DriveCondition.FULL)


class Topology:
    """The map, its placement tables and the live view of drives of one gateway process.

    With a `view` of the members, a drive is asked for at the node that serves it now, whatever the
    map says, and takes writes only while that node's lease lives.
    """

    def __init__(
        self,
        nodes: Mapping[str, NodePort],
        metastore: Metastore,
        clock: Clock,
        *,
        view: LiveView | None = None,
    ) -> None:
        self._nodes = nodes
        self._view = view
        self._metastore = metastore
        self._clock = clock
        self._placement: Placement | None = None
        self._earlier: tuple[Placement, ...] = ()
        self._stored: tuple[ClusterMap, ...] = ()
        self._by_epoch: dict[Epoch, ClusterMap] = {}
        self._map_revision = 0
        self._map_compare = absent(keys.MAP_CURRENT)
        self._windows: frozenset[int] = frozenset()
        self._window_compare = window_compare(())
        self._conditions: dict[DriveId, DriveCondition] = {}
        self._failed_at: dict[DriveId, float] = {}
        self._full_at: dict[DriveId, float] = {}
        self._slow_until: dict[DriveId, float] = {}
        self.loads = DriveLoads()
        """Told by whoever reads, and by the nodes' reports."""
        self._writable: frozenset[Slot] = frozenset()
        self._takers = 0
        """Drives of the newest map's orders that take writes now."""
        self._unwell: frozenset[Slot] = frozenset()
        self._plans: dict[tuple[Partition, bool, Scheme | None], WritePlan] = {}
        self._marks: set[bytes] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the map and the drives' state, then follow both. Raises `MetastoreUnavailable`."""
        revision = await self._load()
        await self.poll()
        if self._view is not None:
            self._view.changed.append(self._members_changed)
        self._tasks = [
            asyncio.create_task(self._follow(revision + 1), name="follow the cluster map"),
            asyncio.create_task(self._poll_forever(), name="poll the drives"),
        ]

    async def close(self) -> None:
        """Stop following."""
        if self._view is not None:
            with contextlib.suppress(ValueError):
                self._view.changed.remove(self._members_changed)
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    # What others ask

    @property
    def map(self) -> ClusterMap:
        """The newest cluster map."""
        return self._current.map

    @property
    def map_revision(self) -> int:
        """mod_revision of `m/current`: what a commit compares."""
        return self._map_revision

    @property
    def map_compare(self) -> Compare:
        """The compare of a commit that relied on the newest map."""
        return self._map_compare

    @property
    def window_compare(self) -> Compare:
        """The write window of shards that begin to be stored now."""
        return self._window_compare

    def is_open(self, window: Compare) -> bool:
        """Whether a commit in that write window may still come, as far as is known."""
        return is_open(window, self._windows)

    @property
    def writable(self) -> frozenset[Slot]:
        """Slots whose drives take writes now."""
        return self._writable

    @property
    def unwell(self) -> frozenset[Slot]:
        """Slots whose drives are better not read from now."""
        return self._unwell

    @property
    def away(self) -> frozenset[DriveId]:
        """Drives of the map that cannot be read from, or not wholly, as far as is known."""
        return frozenset(
            drive.drive_id
            for drive in self._current.map.drives
            if drive.drive_id in self._failed_at
            or self._conditions.get(drive.drive_id) not in _READABLE
        )

    def partition(self, blob: BlobId) -> Partition:
        """The blob's partition under the newest map."""
        return partition_of(blob, self._current.map.partition_count)

    @property
    def placement(self) -> Placement:
        """The tables of the newest map."""
        return self._current

    def write_order(self, blob: BlobId, width: int = 0) -> tuple[MapDrive, ...]:
        """Drives in the order in which a new blob's shards, `width` of them, prefer them."""
        return self._current.write_order(blob, width)

    def read_orders(self, blob: BlobId, width: int = 0) -> list[tuple[MapDrive, ...]]:
        """Drives that may hold the blob's shards, for each open epoch, newest first."""
        orders = [self._current.read_order(blob, width)]
        for placement in self._earlier:
            order = placement.read_order(blob, width)
            if order not in orders:
                orders.append(order)
        return orders

    def plan_write(
        self, blob: BlobId, size_bytes: int, scheme: Scheme | None = None
    ) -> WritePlan | None:
        """Seats for a new blob, under the map's scheme unless another is named; None when fewer than
        m + 1 drives take writes."""
        key = (self.partition(blob), size_bytes <= COPIES_SIZE_BYTES_MAX, scheme)
        plan = self._plans.get(key)
        if plan is not None:
            return plan
        target = scheme_for(scheme or self._current.map.scheme, size_bytes)
        fitting = widest_that_fits(target, self._takers)
        if fitting is None:
            return None
        if len(self._plans) >= PLANS_MAX:
            self._plans.clear()
        order = self.write_order(blob, fitting.width)
        plan = self._plans[key] = plan_write(target, fitting, order, self._writable)
        return plan

    # What others saw

    def note(self, drive: DriveId, outcome: Outcome) -> None:
        """An operation's outcome on a drive: failed and full ones are avoided from now on."""
        if outcome is Outcome.DRIVE_FAILED:
            self._failed_at[drive] = self._clock.monotonic()
        elif outcome is Outcome.DRIVE_FULL:
            self._full_at[drive] = self._clock.monotonic()
        else:
            return
        self._recount()

    def note_node(self, node: str) -> None:
        """A node did not answer: avoid all its drives until it reports again."""
        now = self._clock.monotonic()
        for drive in self._current.map.drives:
            if drive.node == node:
                self._failed_at[drive.drive_id] = now
        self._recount()

    def note_slow(self, drive: DriveId) -> None:
        """A read was later than usual: read from others first for a while."""
        self._slow_until[drive] = self._clock.monotonic() + SLOW_SECONDS
        self._recount()

    # Damage marks

    async def ensure_marks(self, partition: Partition, slots: Sequence[Slot]) -> list[bytes]:
        """Keys of the marks saying that these drives were left out of the partition; each exists
        (or did when this process last knew) when this returns. Raises `MetastoreUnavailable`."""
        marks = [keys.damage(partition, slot) for slot in slots]
        for mark in marks:
            if mark not in self._marks:
                await self._metastore.txn(Txn((absent(mark),), (Put(mark, MARK),)))
                if len(self._marks) >= MARKS_MAX:
                    self._marks.clear()
                self._marks.add(mark)
        return marks

    def forget_marks(self, marks: Sequence[bytes]) -> None:
        """A commit found that marks are gone: put them again the next time."""
        self._marks.difference_update(marks)

    async def refresh(self) -> None:
        """Read the map again now. Raises `MetastoreUnavailable`."""
        await self._load()

    async def poll(self) -> None:
        """Ask every node for its drives' state, all at once."""
        nodes = list(self._nodes.items())
        if len(nodes) == 1:
            await self._poll_node(*nodes[0])
        else:
            await asyncio.gather(*(self._poll_node(name, node) for name, node in nodes))
        known = {drive.drive_id for drive in self._current.map.drives}
        for table in (self._conditions, self._failed_at, self._full_at, self._slow_until):
            for drive in [drive for drive in table if drive not in known]:
                del table[drive]
        self.loads.settle(known)
        self._recount()

    async def _poll_node(self, name: str, node: NodePort) -> None:
        asked_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(POLL_SECONDS_MAX):
                reports = await node.reports()
        except (PeerUnavailable, TimeoutError):
            self.note_node(name)
            return
        for report in reports:
            if self._served_elsewhere(name, report.drive):
                continue
            self._conditions[report.drive] = report.condition
            self.loads.told(report.drive, report.busy)
            if self._failed_at.get(report.drive, asked_at) < asked_at:
                del self._failed_at[report.drive]
            if self._full_at.get(report.drive, asked_at) < asked_at:
                del self._full_at[report.drive]

    def _served_elsewhere(self, node: str, drive: DriveId) -> bool:
        """Whether another node is registered for the drive: a copy, or where it was before."""
        record = None if self._view is None else self._view.drives.get(drive)
        return record is not None and record.node != node

    # Inside

    @property
    def _current(self) -> Placement:
        assert self._placement is not None, "start() comes first"
        return self._placement

    async def _load(self) -> int:
        """Read the newest map and the open ones; the revision from which to watch."""
        for _ in range(8):
            found_current, found_windows = await self._metastore.read([_CURRENT, _WINDOWS])
            if not found_current.kvs:
                raise MetastoreUnavailable("there is no cluster map yet")
            (current,) = found_current.kvs
            epoch = Epoch(decode(MapCurrent, current.value).epoch)
            (found,) = await self._metastore.get_many([keys.map_epoch(epoch)])
            if found is None:
                continue  # another epoch came meanwhile
            newest = ClusterMap.decode(found.value)
            by_epoch = await self._maps_of(newest)
            earlier = [by_epoch[e] for e in newest.open_epochs if e in by_epoch]
            self._adopt(newest, earlier, by_epoch)
            self._map_revision = current.mod_revision
            self._map_compare = unchanged(keys.MAP_CURRENT, current.mod_revision)
            self._windows = frozenset(keys.window_number(kv.key) for kv in found_windows.kvs)
            self._window_compare = window_compare(self._windows)
            return current.mod_revision
        raise MetastoreUnavailable("the cluster map changes faster than it can be read")

    async def _maps_of(self, newest: ClusterMap) -> dict[Epoch, ClusterMap]:
        """The maps that a map builds on: of its open epochs, and all their lineages."""
        known = {epoch: stored for epoch, stored in self._by_epoch.items() if epoch < newest.epoch}
        wanted = {*newest.open_epochs, *newest.lineage}
        while True:
            for epoch in wanted & known.keys():
                wanted.update(known[epoch].lineage)
            missing = sorted(wanted - known.keys())[:_MAPS_A_READ]
            if not missing:
                return {epoch: known[epoch] for epoch in wanted}
            for kv in await self._metastore.get_many([keys.map_epoch(e) for e in missing]):
                if kv is None:
                    raise MetastoreUnavailable("a cluster map that others build on is not there")
                stored = ClusterMap.decode(kv.value)
                known[stored.epoch] = stored

    def _adopt(
        self,
        newest: ClusterMap,
        earlier: Sequence[ClusterMap],
        by_epoch: Mapping[Epoch, ClusterMap],
    ) -> None:
        self._stored = (newest, *earlier)
        self._by_epoch = {**by_epoch, newest.epoch: newest}
        self._place()
        self._recount(changed=True)

    def _place(self) -> None:
        """Placement tables of the stored maps, as drives are served now; kept where nothing
        changed."""
        newest, *earlier = [self._as_served(stored) for stored in self._stored]
        known = (
            list(self._earlier) if self._placement is None else [self._placement, *self._earlier]
        )
        self._placement = self._placement_of(newest, known)
        self._earlier = tuple([self._placement_of(cluster, known) for cluster in earlier])

    def _placement_of(self, cluster: ClusterMap, known: Sequence[Placement]) -> Placement:
        for placement in known:
            if placement.map == cluster:
                return placement
        ancestors = [self._by_epoch[epoch] for epoch in cluster.lineage]
        return Placement(cluster, ancestors, known[0] if known else None)

    def _as_served(self, stored: ClusterMap) -> ClusterMap:
        if self._view is None:
            return stored
        drives = self._view.drives
        served = tuple(
            drive
            if (record := drives.get(drive.drive_id)) is None or record.node == drive.node
            else dataclasses.replace(drive, node=record.node)
            for drive in stored.drives
        )
        return stored if served == stored.drives else dataclasses.replace(stored, drives=served)

    def _members_changed(self) -> None:
        before = self._current
        self._place()
        self._recount(changed=before is not self._current)

    def _recount(self, *, changed: bool = False) -> None:
        """Work out the sets anew; forget the plans made with others."""
        now = self._clock.monotonic()
        writable = set()
        unwell = set()
        for drive in self._current.map.drives:
            condition = self._conditions.get(drive.drive_id)
            failed = drive.drive_id in self._failed_at
            registered = self._view is None or drive.drive_id in self._view.drives
            full = drive.drive_id in self._full_at
            if condition in _WRITABLE and registered and not failed and not full:
                writable.add(drive.slot)
            slow = self._slow_until.get(drive.drive_id, 0.0) > now
            if condition not in _READABLE or failed or slow:
                unwell.add(drive.slot)
        if changed or writable != self._writable:
            self._writable = frozenset(writable)
            takers = [drive for drive in self._current.map.drives if takes_writes(drive)]
            self._takers = len([drive for drive in takers if drive.slot in writable])
            self._plans.clear()
        self._unwell = frozenset(unwell)

    async def _follow(self, start_revision: int) -> None:
        """Watch the map; after a lost watch, read it again and watch from there."""
        while True:
            try:
                watch = self._metastore.watch(
                    _MAPS, prefix_end(_MAPS), start_revision=start_revision
                )
                async for batch in watch:
                    start_revision = batch.revision + 1
                    if any(_is_followed(event.kv.key) for event in batch.events):
                        await self._load()
            except (MetastoreUnavailable, Compacted, PeerUnavailable) as error:
                _log.info("the watch of the cluster map ended: %s", error)
            await self._clock.sleep(RETRY_SECONDS)
            with contextlib.suppress(MetastoreUnavailable, PeerUnavailable):
                start_revision = await self._load() + 1

    async def _poll_forever(self) -> None:
        while True:
            await self._clock.sleep(POLL_SECONDS)
            await self.poll()


def _is_followed(key: bytes) -> bool:
    return key == keys.MAP_CURRENT or key.startswith(keys.WINDOWS)
