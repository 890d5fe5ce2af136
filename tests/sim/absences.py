"""Hosts that leave for long: alone, so that they are put out; in twos, or unseen, so that they are not."""

import asyncio
import functools
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from placement.cluster_map import ClusterMap, DriveState
from placement.ids import DriveId
from placement.map_changes import add_drives
from placement.membership import DriveRecord

if TYPE_CHECKING:
    from tests.sim.drive_faults import DriveFaults
    from tests.sim.nemesis import Nemesis
    from tests.sim.world import World

LEASE_SECONDS = 14.0
"""After so long it is known that a node is away."""


class Absences:
    """Strikes that last longer than the grace time of the keeper."""

    def __init__(self, world: "World", nemesis: "Nemesis", drives: "DriveFaults") -> None:
        self._world = world
        self._nemesis = nemesis
        self._drives = drives
        self._random = random.Random(f"absences {world.seed}")

    def strikes(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """All of them."""
        return [self.leave_for_long, self.leave_in_twos, self.leave_while_etcd_is_unwell]

    async def leave_for_long(self) -> None:
        """One host: it is put out, what it held is rebuilt elsewhere, and it comes back."""
        world = self._world
        if not self._drives.take_turn():
            return
        try:
            if await self._drives.too_thin():
                return
            host = self._nemesis.take_host()
            if host is None:
                return
            self._nemesis.note("host away", host)
            drives = self._drives.of_host(host)
            world.nodes[host].die(power=False)
            await asyncio.sleep(world.grace_seconds * 0.9)
            world.ledger.may_go_out.update(drives)
            await asyncio.sleep(world.grace_seconds * 0.9)
            await self._nemesis.restart(host)
            await self._take_back(drives)
        finally:
            self._drives.end_turn()

    async def _take_back(self, drives: list[DriveId]) -> None:
        """Those that were put out take part again, as an operator would have it."""
        world = self._world
        await asyncio.sleep(10.0)
        world.ledger.may_go_out.difference_update(drives)
        while out := await self._drives.in_state(DriveState.OUT):
            records = [r for r in await world.registered() if r.drive in out]
            edit = functools.partial(_add, records=records)
            await self._drives.change(edit, insists=True)
            await self._drives.settled()

    async def leave_in_twos(self) -> None:
        """Two hosts, perhaps more than can be borne: nobody may be put out for it."""
        if not self._drives.take_turn():
            return
        if await self._nemesis.alone():
            await self._leave_in_twos()
            self._nemesis.not_alone()
        self._drives.end_turn()

    async def _leave_in_twos(self) -> None:
        world = self._world
        hosts = [host for host in world.nodes if world.mounts[host]]
        chosen = self._random.sample(hosts, min(2, len(hosts)))
        drives = [drive for host in chosen for drive in self._drives.of_host(host)]
        self._nemesis.note("hosts away", " and ".join(chosen))
        for host in chosen:
            world.nodes[host].die(power=False)
        await asyncio.sleep(world.grace_seconds * 1.6)
        world.ledger.may_go_out.update(drives)  # the second to come back is away alone
        await asyncio.gather(*(self._nemesis.restart(host, at_once=True) for host in chosen))
        await self._take_back(drives)

    async def leave_while_etcd_is_unwell(self) -> None:
        """For how long a host was away then, nobody knows."""
        world = self._world
        if not await self._nemesis.alone():
            return
        hosts = [host for host in world.nodes if world.mounts[host]]
        host = self._random.choice(hosts)
        self._nemesis.note("host away unseen", host)
        world.nodes[host].die(power=False)
        await asyncio.sleep(LEASE_SECONDS)
        world.etcd.quorum, world.etcd.stays_unwell = False, True
        await asyncio.sleep(world.grace_seconds * 1.5)
        world.etcd.quorum, world.etcd.stays_unwell = True, False
        await asyncio.sleep(2.0)
        await self._nemesis.restart(host, at_once=True)
        self._nemesis.not_alone()


def _add(now: ClusterMap, new: object, records: list[DriveRecord]) -> ClusterMap:
    return add_drives(now, records)
