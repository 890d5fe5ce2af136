"""`ostraka keeper`: a cluster's background duties, each led by one keeper at a time, and an admin port."""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from ops.admin_api import admin_app
from ops.admin_port import AdminPort, authorizer
from ops.clients import Clients, connect_cluster, log_to_stderr
from ops.cluster_backend import ClusterBackend, WaitingBackend
from ops.keeper.departures import Departures
from ops.keeper.history import History
from ops.keeper.keeper import Duty, Keeper
from ops.keeper.moves import Moves
from ops.keeper.snapshot import FINISH_SECONDS
from ops.keeper_process import BUFFERS, Duties
from ops.map_store import MapStore
from ops.process_counts import ProcessWatch
from ops.settings import ClusterSettings, ProcessSettings
from placement.errors import MetastoreUnavailable
from placement.leadership import NO_TERM, Leadership, leader_key
from placement.metastore.port import Compare, unchanged

CHECK_SECONDS = 1.0
PUBLISH_SECONDS = 2.0
REPAIR = "repair"
LED_WITH = {"moves": REPAIR, "census": REPAIR}
"""Duties that have no leader of their own: moves are closed by what the repair of the same keeper
has seen, and another keeper's knows nothing; the census begins with what its inventory counted."""
log = logging.getLogger("ostraka.keeper")


@dataclass(frozen=True, slots=True)
class KeeperOptions:
    """`listener`: the admin port. `grace_seconds`: how long a drive may be away before it is out."""

    cluster: ClusterSettings
    listener: socket.socket
    grace_seconds: float


class LedDuties:
    """The duties of `serve`, and those that only a cluster has, behind leadership."""

    def __init__(self, clients: Clients, leadership: Leadership, grace_seconds: float) -> None:
        assert clients.member is not None
        self._clients = clients
        self._leadership = leadership
        self._terms: dict[str, int] = {}
        """Of each duty the term whose work has begun."""
        maps = MapStore(clients.metastore)
        self.departures = Departures(
            clients.metastore, maps, clients.member.view, clients.clock, grace_seconds
        )
        self.duties = Duties(clients, waits=self.departures.waiting, term=self.repair_term)
        self.history = History(clients.metastore, clients.clock)
        self.moves = Moves(maps, lambda: self.duties.repair.progress, self._led_repair)

    def keeper(self) -> Keeper:
        """All of them with their pace."""
        led = [self._led(duty) for duty in self.duties.duties()]
        led.append(self._led(Duty("moves", self.moves.work, every_seconds=1.0)))
        led.append(self._led(Duty("history", self.history.work, every_seconds=30.0)))
        # Each keeper counts absences for itself, so that a new leader need not begin at nothing.
        departures = Duty("departures", self._departures, every_seconds=1.0)
        publishing = Duty("progress", self._publish, every_seconds=PUBLISH_SECONDS)
        return Keeper([*led, departures, publishing], self._clients.clock)

    def _led(self, duty: Duty) -> Duty:
        work, name = duty.work, LED_WITH.get(duty.name, duty.name)

        async def led() -> bool | None:
            if not await self._leadership.leads(name) or not await self._begin(name):
                await asyncio.sleep(CHECK_SECONDS)
                return False
            return await self._while_leading(name, work)

        duty.work = led
        return duty

    async def _begin(self, name: str) -> bool:
        """With a new term begin with the newest map, as our watch may lag; and of repairs nothing
        counts that was seen in an earlier one. False when the term has ended already. Raises
        MetastoreUnavailable."""
        term = self._leadership.term(name)
        if self._terms.get(name) != term:
            await self._clients.topology.refresh()
        # Another duty that is led with this one may have begun the term meanwhile.
        if self._terms.get(name) != term and term != NO_TERM:
            if name == REPAIR:
                self.duties.repair.begin_anew()
            self._terms[name] = term
        return term != NO_TERM

    def repair_term(self) -> int:
        """The term of repairs whose work has begun here; `NO_TERM` when it may be over."""
        term = self._leadership.term(REPAIR)
        return term if term == self._terms.get(REPAIR) else NO_TERM

    def _led_repair(self) -> tuple[Compare, ...]:
        return (unchanged(leader_key(REPAIR), self._terms[REPAIR]),)

    async def _while_leading(
        self, name: str, work: Callable[[], Awaitable[bool | None]]
    ) -> bool | None:
        """Do the work, and drop it as soon as we may not lead any more."""
        task, term = asyncio.ensure_future(work()), self._terms[name]
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=CHECK_SECONDS)
                if self._leadership.term(name) != term and not task.done():
                    log.warning("%s is led by another keeper now", name)
                    break
            else:
                return task.result()
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        return False

    async def finish(self) -> None:
        """The last piece of work of a keeper that stops in order: the drives are told what changed
        last, unless another keeper will do that."""
        with contextlib.suppress(MetastoreUnavailable, TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                leads = await self._leadership.leads("snapshot")
            if leads:
                await self.duties.snapshot.finish()

    async def _departures(self) -> None:
        leads = await self._leadership.leads("departures")
        await self.departures.work(decides=leads)

    async def _publish(self) -> None:
        for name, value in self.progress().items():
            if LED_WITH.get(name, name) in self._leadership.held:
                await self._leadership.publish(name, json.dumps(value).encode())

    def progress(self) -> dict[str, dict[str, Any]]:
        """What each duty has to tell."""
        repair = self.duties.repair.progress
        told = asdict(repair)
        told["covered"] = len(repair.covered)
        told["unseen"] = len(repair.unseen)
        topology = self._clients.topology
        told["pending"] = repair.pending_with(self.duties.view().live)
        told["away"] = len(topology.map.drives) - len(topology.writable)
        duties: dict[str, dict[str, Any]] = {
            "repair": told,
            "garbage": {"pending": self.duties.garbage.pending},
            "sweep": {
                "orphans": self.duties.sweep.progress.orphans,
                "removed": self.duties.sweep.progress.removed,
                "passes": self.duties.sweep.progress.passes,
            },
            "scrub": self.duties.scrub.told(),
            "snapshot": self.duties.snapshot_told(),
            "accounting": asdict(self.duties.accounting.progress),
            "lifecycle": asdict(self.duties.lifecycle.progress),
            "re-encoding": asdict(self.duties.reencode.progress),
            "departures": self.departures.told(),
            "moves": self.moves.told(),
        }
        for name, headway in self.duties.headway().items():
            duties[name] |= headway
        return duties


async def run_cluster_keeper(
    options: KeeperOptions, stop: asyncio.Event, ready: Callable[[str], None]
) -> None:
    """Until `stop`. Raises Refused."""
    log_to_stderr(logging.INFO)
    watch = ProcessWatch("keeper").start()
    waiting = WaitingBackend()
    connected: list[Clients] = []
    port = AdminPort(
        options.listener,
        admin_app(waiting, authorizer(lambda: connected[0] if connected else None)),
    )
    await port.start()
    clients: Clients | None = None
    leadership: Leadership | None = None
    working: asyncio.Task[None] | None = None
    duties: LedDuties | None = None
    try:
        clients = await connect_cluster(options.cluster, "keeper", buffers=BUFFERS)
        connected.append(clients)
        name = f"{socket.gethostname()}:{options.listener.getsockname()[1]}"
        leadership = Leadership(clients.metastore, name, clients.clock)
        leadership.start()
        duties = LedDuties(clients, leadership, options.grace_seconds)
        waiting.backend = ClusterBackend(_settings(options), clients, watch)
        working = asyncio.create_task(duties.keeper().run())
        ready(f"keeper {name}")
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({port.serving, working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if working.done():
            working.result()
    finally:
        watch.stop()
        if working is not None:
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
        if duties is not None:
            if stop.is_set():
                await duties.finish()
            await duties.duties.accounting.close()
        if leadership is not None:
            with contextlib.suppress(MetastoreUnavailable):
                await leadership.close()
        await port.stop()
        if clients is not None:
            await clients.close()


def _settings(options: KeeperOptions) -> ProcessSettings:
    return ProcessSettings(
        role="keeper",
        number=0,
        directory="",
        run="",
        cluster_id=b"",
        cluster_key=options.cluster.cluster_key,
        is_new=False,
        drives=[],
        scheme=None,
        region="",
        domains=[],
        bind="",
        root_access_key="",
        root_secret_key="",
        workers=0,
        cluster=options.cluster,
    )
