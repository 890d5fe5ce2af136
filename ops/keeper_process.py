"""The keeper process of `serve`: background duties, and the admin port."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.metadata import keys
from ops.admin_api import admin_app
from ops.admin_backend import AdminBackend
from ops.admin_port import AdminPort, authorizer
from ops.clients import Clients, connect, log_to_stderr
from ops.keeper.accounting import PUBLISH_SECONDS, Accounting
from ops.keeper.ended_uploads import EndedUploads
from ops.keeper.garbage import Garbage
from ops.keeper.headway import Headways, Work
from ops.keeper.keeper import Duty, Keeper
from ops.keeper.lifecycle import Lifecycle
from ops.keeper.recoding import Recoding
from ops.keeper.reencode import Reencode
from ops.keeper.repair import Repair, View
from ops.keeper.scrub import Scrub
from ops.keeper.snapshot import Snapshot
from ops.keeper.sweep import Sweep
from ops.process_counts import ProcessWatch
from ops.settings import ProcessSettings
from placement.ids import DriveId
from storage_node.port import DriveCondition

BUFFERS = 2
ONLY_TERM = 1
"""Where there is no other keeper."""


class Duties:
    """The duties of one machine's keeper, and the view of the cluster that they work with."""

    def __init__(
        self,
        clients: Clients,
        waits: Callable[[], frozenset[DriveId]] = frozenset,
        term: Callable[[], int] = lambda: ONLY_TERM,
    ) -> None:
        """`waits` tells the drives that are away and may come back, `term` for which unbroken time no
        other keeper was at repairs."""
        self._clients = clients
        self._waits = waits
        nodes = clients.live_nodes
        self.is_confirmed = True
        self.garbage = Garbage(clients.metastore, clients.objects, nodes, clients.clock)
        self.sweep = Sweep(clients.metastore, nodes, clients.clock)
        self.repair = Repair(
            clients.metastore, clients.objects, nodes, self.view, clients.clock, term=term
        )
        self.scrub = Scrub(
            clients.metastore,
            nodes,
            lambda: clients.topology.map.partition_count,
            clients.clock,
            clients.randomness,
        )
        self.ended_uploads = EndedUploads(clients.metastore, clients.clock)
        self.snapshot = Snapshot(
            clients.metastore, clients.objects, clients.clock, clients.randomness
        )
        self.accounting = Accounting(clients.metadata, clients.clock, clients.randomness)
        recoding = Recoding(
            clients.metastore,
            clients.objects,
            clients.clock,
            clients.randomness,
            lambda: len(self.view().live),
        )
        self.lifecycle = Lifecycle(clients.metadata, clients.clock, recoding)
        self.reencode = Reencode(clients.metastore, recoding, clients.clock)
        self._headways = Headways(clients.clock)

    def view(self) -> View:
        """The present map, and the drives that take writes."""
        topology = self._clients.topology
        live = frozenset(d.drive_id for d in topology.map.drives if d.slot in topology.writable)
        return View(topology.placement, live, self._waits())

    def readable(self) -> frozenset[DriveId]:
        """Drives of the map that can be read from: full and draining ones too."""
        topology = self._clients.topology
        return frozenset(d.drive_id for d in topology.map.drives) - topology.away

    def snapshot_told(self) -> dict[str, float]:
        """What the snapshot duty tells, and whether a rebuild waits to be confirmed."""
        return {**self.snapshot.told(), "unconfirmed": 0.0 if self.is_confirmed else 1.0}

    def headway(self) -> dict[str, dict[str, Any]]:
        """How fast each duty gets on and when it will be done; of repair also what is stored by
        remaining tolerance (`Census.told`) and what lies elsewhere than the map says."""
        repair, scrub, sweep = self.repair.progress, self.scrub.progress, self.sweep.progress
        reencode = self.reencode.progress
        told = self._headways.told(
            {
                "repair": Work("objects", repair.walked, repair.unwalked),
                "moves": Work("bytes", repair.moved_bytes),
                "garbage": Work("entries", self.garbage.deleted, self.garbage.pending),
                "re-encoding": Work("objects", reencode.done, reencode.pending),
                "sweep": Work("shards", sweep.looked_at, sweep.left),
                "scrub": Work("bytes", scrub.bytes, eta_seconds=self.scrub.eta_seconds),
                "snapshot": Work("parts", self.snapshot.parts_written),
                "lifecycle": Work("records", self.lifecycle.progress.acted_on),
            }
        )
        told["repair"]["stored"] = self.repair.census.told(self.readable())
        told["repair"]["misplaced_shards"] = repair.misplaced if repair.epoch else None
        return told

    def _once_confirmed(
        self, work: Callable[[], Awaitable[bool | None]]
    ) -> Callable[[], Awaitable[bool | None]]:
        """Not while the metadata was rebuilt from drives and nobody looked at it: what it does not
        name may be all that is left of it."""

        async def confirmed() -> bool | None:
            (rebuilt,) = await self._clients.metastore.get_many([keys.REBUILT])
            self.is_confirmed = rebuilt is None
            return await work() if self.is_confirmed else False

        return confirmed

    def duties(self) -> list[Duty]:
        """All duties with their pace."""
        return [
            Duty("repair", self.repair.work, every_seconds=0.5),
            Duty("census", self.repair.census.work, every_seconds=5.0),
            Duty("garbage", self._once_confirmed(self.garbage.work), every_seconds=3.0),
            Duty("re-encoding", self.reencode.work, every_seconds=1.0),
            Duty(
                "sweep",
                self._once_confirmed(self.sweep.work),
                every_seconds=600.0,
                first_after_seconds=35.0,
            ),
            Duty("scrub", self.scrub.work, self.scrub.every_seconds, first_after_seconds=2.0),
            Duty(
                "snapshot",
                self.snapshot.work,
                self.snapshot.pause_seconds,
                first_after_seconds=self.snapshot.first_after_seconds,
            ),
            Duty("uploads", self.ended_uploads.work, every_seconds=60.0, first_after_seconds=5.0),
            Duty("accounting", self.accounting.work, every_seconds=PUBLISH_SECONDS),
            Duty("lifecycle", self.lifecycle.work, every_seconds=self.lifecycle.every_seconds),
        ]

    def keeper(self) -> Keeper:
        """The keeper of one machine."""
        return Keeper(self.duties(), self._clients.clock)


async def run_keeper(
    settings: ProcessSettings, stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    """The role's main."""
    log_to_stderr()
    clients = await connect(settings, buffers=BUFFERS)
    duties = Duties(clients)
    watch = ProcessWatch("keeper").start()
    backend = AdminBackend(settings, clients, duties, watch)
    port = AdminPort(
        socket.socket(fileno=settings.admin_fd),
        admin_app(backend, authorizer(lambda: clients)),
        settings.tls_cert,
        settings.tls_key,
    )
    working = asyncio.create_task(duties.keeper().run())
    try:
        await port.start()
        ready()
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({port.serving, working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        watch.stop()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        if stop.is_set():
            await duties.snapshot.finish()
        await duties.accounting.close()
        await port.stop()
        await backend.close()
        await clients.close()


def wants_repair(condition: DriveCondition) -> bool:
    """Whether a drive in that condition leaves objects with less than their full tolerance."""
    return condition not in (DriveCondition.UP, DriveCondition.FULL)
