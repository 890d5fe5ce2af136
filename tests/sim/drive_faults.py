"""Faults of drives, and changes of the map: what is lost is never more than the scheme bears."""

import asyncio
import errno
import functools
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ops.map_store import MapStore
from ops.refusal import Refused
from placement.cluster_map import DriveState
from placement.errors import MetastoreUnavailable
from placement.ids import DriveId
from placement.map_changes import MapRefused, add_drives, drain, remove, replace
from placement.membership import DriveRecord
from storage_node.identity import read_identity
from storage_node.index import decode_entry
from storage_node.record import HEADER_SIZE_BYTES, shard_of
from tests.sim.disks import Looking
from tests.sim.etcd import EtcdClient
from tests.sim.members import patiently
from tests.sim.truth import all_entries, held_shards, used_blobs

if TYPE_CHECKING:
    from tests.sim.nemesis import Nemesis
    from tests.sim.world import World

SETTLE_SECONDS = 400.0
"""A lost drive's shards are rebuilt within so long, whatever else goes on."""


class DriveFaults:
    """Strikes at drives. One drive at a time is destroyed or being moved."""

    def __init__(self, world: "World", nemesis: "Nemesis") -> None:
        self._world = world
        self._nemesis = nemesis
        self._random = random.Random(f"drives {world.seed}")
        self._busy = False
        self._pulled: set[DriveId] = set()
        """Their records outlive them by a lease."""
        self._operator = EtcdClient(world.etcd, world.process("operator"))
        self.flipped: list[tuple[DriveId, object]] = []

    def strikes(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """All of them."""
        return [
            self.flip_bits,
            self.err,
            self.slow_flushes,
            self.fill,
            self.move,
            self.lose_drive,
            self.drain_and_return,
            self.jump_clock,
        ]

    def take_turn(self) -> bool:
        """Whether nobody else destroys, drains or replaces a drive now."""
        if self._busy:
            return False
        self._busy = True
        return True

    def end_turn(self) -> None:
        """Others may."""
        self._busy = False

    # -- what decays -----------------------------------------------------------------------------

    async def flip_bits(self) -> None:
        """One shard decays, of a blob that can bear it."""
        world = self._world
        if self._busy:
            return
        used, held = await used_blobs(world), held_shards(world)
        drives = self._drives()
        self._random.shuffle(drives)
        for drive in drives[:3]:
            for key, data in self._random.sample(all_entries(drive), k=len(all_entries(drive))):
                shard, entry = shard_of(key), decode_entry(data)
                ref = used.get(shard.blob)
                if ref is None or not entry.length or len(held.get(shard.blob, {})) <= ref.k:
                    continue
                at = self._random.randrange(entry.length)
                if entry.segment:
                    at += entry.offset + HEADER_SIZE_BYTES + entry.envelope_length
                disk = world.disks[drive.root.strip("/")]
                disk.decay(drive.path_of(shard, entry), at)
                self.flipped.append((drive.id, shard))
                self._nemesis.note("bit flipped", f"{disk.name} {shard.blob.hex()}.{shard.index}")
                return

    async def scrub(self) -> None:
        """What nobody has read since it decayed is found by a look at it."""
        for drive_id, shard in self.flipped:
            for life in self._world.nodes.values():
                if life.node is None or not life.process.alive:
                    continue
                if drive_id in life.node._drives:
                    await life.node.report_damage(drive_id, shard)  # type: ignore[arg-type]

    def _drives(self) -> list:  # type: ignore[type-arg]
        return [
            drive
            for life in self._world.nodes.values()
            if life.node is not None and life.process.alive
            for drive in life.node._drives.values()
        ]

    # -- what errs -------------------------------------------------------------------------------

    async def err(self) -> None:
        """A drive answers with errors for a while; what it holds is kept."""
        disk = self._nemesis.take_disk()
        if disk is None:
            return
        self._nemesis.note("drive errs", disk.name)
        disk.errno = errno.EIO
        await asyncio.sleep(self._random.uniform(0.5, 6.0))
        disk.errno = 0
        await asyncio.sleep(self._random.uniform(2.0, 8.0))
        self._nemesis.give_back(disk)

    async def slow_flushes(self) -> None:
        disk = self._nemesis.take_disk()
        if disk is None:
            return
        self._nemesis.note("flushes stall", disk.name)
        disk.slow_flushes = True
        await asyncio.sleep(self._random.uniform(1.0, 8.0))
        disk.slow_flushes = False
        self._nemesis.give_back(disk)

    async def fill(self) -> None:
        disk = self._nemesis.take_disk()
        if disk is None:
            return
        self._nemesis.note("drive full", disk.name)
        disk.free_bytes = 0
        await asyncio.sleep(self._random.uniform(2.0, 8.0))
        disk.free_bytes = 1 << 40
        await asyncio.sleep(2.0)
        self._nemesis.give_back(disk)

    async def jump_clock(self) -> None:
        """The wall clock of a process jumps; its monotonic one does not."""
        world = self._world
        processes = [gateway.process for gateway in world.gateways]
        processes += [keeper.process for keeper in world.keepers]
        processes += [node.process for node in world.nodes.values()]
        process = self._random.choice(processes)
        self._nemesis.note("clock jumps", process.name)
        process.wall_offset_seconds += self._random.choice([-3600.0, -20.0, 20.0, 3600.0])

    # -- what moves ------------------------------------------------------------------------------

    async def move(self) -> None:
        """A drive is carried to another host: both nodes are restarted."""
        world = self._world
        hosts = self._nemesis.take_hosts(2)
        if hosts is None:
            return
        source, target = sorted(hosts, key=lambda host: len(world.mounts[host]), reverse=True)
        if not world.mounts[source]:
            for host in hosts:
                self._nemesis.free_host(host)
            return
        name = self._random.choice(world.mounts[source])
        self._nemesis.note("drive moves", f"{name} from {source} to {target}")
        for host in hosts:
            world.nodes[host].die(power=False)
        world.mounts[source].remove(name)
        world.mounts[target].append(name)
        for host in hosts:
            await self._nemesis.restart(host)

    async def lose_drive(self) -> None:
        """A drive is lost for good, and another takes its place."""
        world = self._world
        if not self.take_turn():
            return
        try:
            if await self.too_thin():
                return
            host = self._nemesis.take_host()
            if host is None:
                return
            if not world.mounts[host]:
                self._nemesis.free_host(host)
                return
            name = self._random.choice(world.mounts[host])
            life = world.nodes[host]
            lost = self._identity(name)
            self._nemesis.note("drive lost", name)
            life.die(power=False)
            world.mounts[host].remove(name)
            world.add_disk(host)
            if lost is not None:
                world.ledger.lost(lost)
            await self._nemesis.restart(host)
            if lost is not None:
                await self.change(lambda now, new: replace(now, lost, new[0]), fresh=True)
            await self.settled()
        finally:
            self.end_turn()

    async def drain_and_return(self) -> None:
        """A drive is emptied and taken in again, or forgotten and pulled: then nothing is lost with it."""
        if not self.take_turn():
            return
        try:
            drives = self._drives()
            if not drives:
                return
            drive, name = (chosen := self._random.choice(drives)).id, chosen.root.strip("/")
            if not await self.change(lambda now, new: drain(now, [drive])):
                return
            self._nemesis.note("drive drained", drive.hex())
            removed = False
            if self._random.random() < 0.5:  # an impatient operator
                await asyncio.sleep(self._random.uniform(0.0, 2.0))
                removed = await self.change(lambda now, new: remove(now, [drive]))
            if not removed:
                await self.settled()
            if not removed and self._random.random() < 0.7:
                removed = await self.change(lambda now, new: remove(now, [drive]))
            if removed and await self._pull(drive, name):
                return
            records = [r for r in await self._world.registered() if r.drive == drive]
            if records and await self.change(lambda now, new: add_drives(now, records)):
                self._nemesis.note("drive added", drive.hex())
                await self.settled()
        finally:
            self.end_turn()

    async def _pull(self, drive: DriveId, name: str) -> bool:
        """Take a forgotten drive away and put a new one in; False when its host is busy. What the
        map has forgotten may go: nothing in use may lie there alone."""
        world = self._world
        if alone := world.ledger.only_on(drive):
            world.problems.append(
                f"drive {drive.hex()} is not in the map any more, and has alone: {', '.join(alone[:5])}"
            )
            return True
        host = self._nemesis.take_host()
        if host is None or name not in world.mounts[host]:
            if host is not None:
                self._nemesis.free_host(host)
            return False
        self._nemesis.note("drive pulled", name)
        self._pulled.add(drive)
        world.ledger.lost(drive)
        world.nodes[host].die(power=False)
        world.mounts[host].remove(name)
        world.add_disk(host)
        await self._nemesis.restart(host)
        if await self.change(lambda now, new: add_drives(now, new), fresh=True):
            await self.settled()
        return True

    def of_host(self, host: str) -> list[DriveId]:
        """The drives whose disks are there, also those that err just now."""
        found = [self._identity(name) for name in self._world.mounts[host]]
        return [drive for drive in found if drive is not None]

    async def in_state(self, state: DriveState) -> set[DriveId]:
        """Drives to which the map gives it."""
        now, _ = await patiently(MapStore(self._operator).current)
        return {drive.drive_id for drive in now.drives if drive.state is state}

    async def too_thin(self) -> bool:
        """Whether some blob could not bear one drive less."""
        used, held = await used_blobs(self._world), held_shards(self._world)
        return any(len(held.get(blob, {})) <= ref.k for blob, ref in used.items())

    def _identity(self, name: str) -> DriveId | None:
        """Who lies on that disk, whether or not it errs or its node is up; None when it is new."""
        with Looking():
            identity = read_identity(self._world.disks[name], f"/{name}")
        return None if identity is None else identity.drive

    async def change(
        self, edit: Callable[..., object], *, fresh: bool = False, insists: bool = False
    ) -> bool:
        """Change the map as an operator would, trying for a while; a refusal is final unless he
        `insists`, or waits for a `fresh` drive to register."""
        maps = MapStore(self._operator)
        for _ in range(60):
            try:
                now, _ = await maps.current()
                assert now is not None
                known = {drive.drive_id for drive in now.drives} | self._pulled
                new: list[DriveRecord] = [
                    record for record in await self._world.registered() if record.drive not in known
                ]
                if not fresh or new:
                    await maps.change(functools.partial(edit, new=new))  # type: ignore[arg-type]
                    return True
            except MapRefused as error:
                self._world.say(f"map: {error}")
                if not fresh and not insists:
                    return False
            except (MetastoreUnavailable, Refused) as error:
                self._world.say(f"map: {error}")
            await asyncio.sleep(2.0)
        return False

    async def settled(self) -> None:
        """Until the moves of the last change are done."""
        maps = MapStore(EtcdClient(self._world.etcd, self._operator._process))
        end = self._world.loop.time() + SETTLE_SECONDS
        while self._world.loop.time() < end:
            try:
                now, _ = await maps.current()
                if now is not None and not now.open_epochs and not await self.too_thin():
                    return
            except MetastoreUnavailable:
                pass
            await asyncio.sleep(2.0)
