"""Faults, drawn from the seed, within what the cluster promises to bear."""

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.sim.absences import Absences
from tests.sim.disks import Disk
from tests.sim.drive_faults import DriveFaults
from tests.sim.etcd import NAME as ETCD
from tests.sim.etcd import Ambush
from tests.sim.tilt import STRIKES
from tests.sim.workload import Client

if TYPE_CHECKING:
    from tests.sim.world import World

LURE_SECONDS = 12.0
"""How long an ambush waits for somebody to come by."""


class Nemesis:
    """Strikes now and then until told to stop; then everything is mended."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random = random.Random(f"nemesis {world.seed}")
        self._down: set[str] = set()
        self._sick: set[str] = set()
        self._dark = False
        self.drives = DriveFaults(world, self)
        self._accomplice = Client(world, world.process("accomplice"))
        self._absences = Absences(world, self, self.drives)
        self._striking: set[asyncio.Task[None]] = set()
        self.stopped = False

    async def run(self) -> None:
        """Until stopped."""
        strikes = [
            self.kill_node,
            self.cut_power,
            self.tear,
            self.blackout,
            self.partition,
            self.break_connections,
            self.slow_network,
            self.lose_answers,
            self.stop_etcd,
            self.lag_watches,
            self.kill_gateway,
            self.kill_keeper,
            self.stand_still,
            self.ambush,
            *self.drives.strikes(),
            *self._absences.strikes(),
        ]
        tilt = self._world.tilt
        given = {**STRIKES, **tilt.strikes}
        weights = [given.get(strike.__name__, 0) for strike in strikes]
        while not self.stopped:
            await asyncio.sleep(self._random.uniform(0.2, tilt.quiet_seconds_max))
            strike = self._random.choices(strikes, weights)[0]
            task = asyncio.get_running_loop().create_task(strike())
            self._striking.add(task)
            task.add_done_callback(self._striking.discard)

    async def mend(self) -> None:
        """Wait for what is under way, and undo what stays."""
        self.stopped = True
        while self._striking:
            await asyncio.wait(list(self._striking))
        world = self._world
        world.network.cut.clear()
        world.network.loss = world.network.slow = world.etcd.lost_answers = 0.0
        world.etcd.watch_lag = 0.0
        world.etcd.ambushes.clear()
        world.etcd.quorum = True
        processes = [life.process for life in world.gateways] + [k.process for k in world.keepers]
        paused = [process.still_until for process in processes]
        await asyncio.sleep(max(0.0, max(paused) - world.loop.time()) + 5.0)
        await self.drives.scrub()

    def note(self, kind: str, what: str = "") -> None:
        self._world.faults[kind] += 1
        self._world.say(f"{kind} {what}")

    # -- nodes -----------------------------------------------------------------------------------

    def _bears(self, hosts: Sequence[str], disks: Sequence[str] = ()) -> bool:
        """Whether the scheme bears that these are away too. One host at a time always may be."""
        world = self._world
        away = {name for host in self._down for name in world.mounts[host]} | self._sick
        more = {name for host in hosts for name in world.mounts[host]} | set(disks)
        if self._dark:
            return False
        return not away or len(away | more) <= world.shape.scheme.m

    def take_hosts(self, count: int) -> list[str] | None:
        """Hosts that may go down now, in any order."""
        hosts = [host for host in self._world.nodes if host not in self._down]
        if len(hosts) < count:
            return None
        chosen = self._random.sample(hosts, count)
        if not self._bears(chosen):
            return None
        self._down.update(chosen)
        return chosen

    def take_host(self) -> str | None:
        """One of them."""
        hosts = self.take_hosts(1)
        return None if hosts is None else hosts[0]

    def free_host(self, host: str) -> None:
        """It is up again, or stays empty."""
        self._down.discard(host)

    def take_disk(self) -> Disk | None:
        """A disk that may be unwell now."""
        world = self._world
        names = [n for host in world.nodes if host not in self._down for n in world.mounts[host]]
        name = self._random.choice(sorted(set(names) - self._sick) or [""])
        if not name or not self._bears([], [name]):
            return None
        self._sick.add(name)
        return world.disks[name]

    def give_back(self, disk: Disk) -> None:
        """It is well again."""
        self._sick.discard(disk.name)

    async def restart(self, host: str, *, at_once: bool = False) -> None:
        """After a while; a host without drives has nothing to run."""
        if not at_once:
            await asyncio.sleep(self._random.choice([0.05, 1.0, 5.0, 15.0]) * self._random.random())
        if not self._world.mounts[host]:
            self.free_host(host)
            return
        self._world.start_node(host)
        self._world.say(f"{host} starts")
        life = self._world.nodes[host]
        async with asyncio.timeout(300):
            await life.ready
        await asyncio.sleep(2.0)
        self.free_host(host)

    async def kill_node(self) -> None:
        """The process ends; what the kernel has is kept."""
        host = self.take_host()
        if host is not None:
            self.note("node killed", host)
            self._world.nodes[host].die(power=False)
            await self.restart(host)

    async def cut_power(self) -> None:
        """What was not flushed may be lost or torn."""
        host = self.take_host()
        if host is not None:
            self.note("power cut", host)
            self._world.nodes[host].die(power=True)
            self._world.boots[host] += 1
            await self.restart(host)

    async def tear(self) -> None:
        """The power goes between two file operations, also while the node starts."""
        host = self.take_host()
        if host is None:
            return
        life = self._world.nodes[host]
        gone = asyncio.get_running_loop().create_future()

        def power_gone() -> None:
            life.process.kill()
            if not gone.done():
                gone.set_result(None)

        life.files.on_power_gone = power_gone
        life.files.operations_left = self._random.randint(0, 60)
        try:
            async with asyncio.timeout(20):
                await gone
        except TimeoutError:
            life.files.operations_left = None
            life.process.kill()
        self.note("power cut within", host)
        life.die(power=True)
        self._world.boots[host] += 1
        await self.restart(host)

    async def blackout(self) -> None:
        """The power of all nodes goes at once: whatever was acknowledged must have been stored."""
        world = self._world
        if not await self.alone():
            return
        hosts = [host for host in world.nodes if world.mounts[host]]
        wholly = self._random.random() < 0.7
        self.note("blackout")
        self._down.update(hosts)
        for host in hosts:
            world.nodes[host].die(power=True, wholly=wholly)
            world.boots[host] += 1
        await asyncio.gather(*(self.restart(host) for host in hosts))
        self.not_alone()

    async def alone(self) -> bool:
        """Wait until everybody is up; nobody else is struck until `not_alone`. False: somebody else
        waits so already."""
        if self._dark:
            return False
        self._dark = True
        while self._down or self._sick:  # noqa: ASYNC110 — time is virtual
            await asyncio.sleep(0.2)
        return True

    def not_alone(self) -> None:
        """Others may strike again."""
        self._dark = False

    # -- the network -----------------------------------------------------------------------------

    async def partition(self) -> None:
        """One process and some others do not reach each other."""
        world = self._world
        names = [*world.nodes, *(f"gateway{n}" for n in range(len(world.gateways)))]
        names += [ETCD, "keeper0", "keeper1"]
        one = self._random.choice(names)
        others = [name for name in names if name != one]
        count = self._random.choice([1, 1, 2, len(others)])
        pairs = {frozenset((one, other)) for other in self._random.sample(others, count)}
        self.note("partition", f"{one} from {count}")
        world.network.cut |= pairs
        await asyncio.sleep(self._random.choice([0.5, 3.0, 8.0, 14.0]) * self._random.random())
        world.network.cut -= pairs

    async def break_connections(self) -> None:
        self.note("connections break")
        self._world.network.loss = self._random.choice([0.02, 0.1, 0.3])
        await asyncio.sleep(self._random.uniform(0.5, 4.0))
        self._world.network.loss = 0.0

    async def slow_network(self) -> None:
        self.note("messages late")
        self._world.network.slow = self._random.choice([0.02, 0.1, 0.3])
        await asyncio.sleep(self._random.uniform(0.5, 4.0))
        self._world.network.slow = 0.0

    # -- etcd ------------------------------------------------------------------------------------

    async def lose_answers(self) -> None:
        self.note("answers lost")
        self._world.etcd.lost_answers = self._random.choice([0.05, 0.2, 0.5])
        await asyncio.sleep(self._random.uniform(0.5, 5.0))
        self._world.etcd.lost_answers = 0.0

    async def stop_etcd(self) -> None:
        self.note("etcd without quorum")
        self._world.etcd.quorum = False
        await asyncio.sleep(self._random.choice([0.5, 3.0, 13.0]) * self._random.random())
        self._world.etcd.quorum = not self._world.etcd.stays_unwell

    async def lag_watches(self) -> None:
        self.note("watches lag")
        self._world.etcd.watch_lag = self._world.tilt.watch_lag_seconds
        await asyncio.sleep(self._random.uniform(1.0, 10.0))
        self._world.etcd.watch_lag = 0.0

    # -- gateways and keepers ----------------------------------------------------------------------

    async def kill_gateway(self) -> None:
        number = self._random.randrange(len(self._world.gateways))
        if self._world.gateways[number].process.alive:
            self.note("gateway killed", str(number))
            self._world.gateways[number].process.kill()
            await asyncio.sleep(self._random.uniform(0.0, 3.0))
            self._world.gateways[number] = self._world.gateway(number)

    async def kill_keeper(self) -> None:
        number = self._random.randrange(len(self._world.keepers))
        if self._world.keepers[number].process.alive:
            self.note("keeper killed", str(number))
            self._world.keepers[number].process.kill()
            await asyncio.sleep(self._random.uniform(0.0, 5.0))
            self._world.keepers[number] = self._world.keeper(number)

    async def stand_still(self) -> None:
        """The machine of a gateway or keeper is paused, wherever it was, and then goes on."""
        world = self._world
        processes = [gateway.process for gateway in world.gateways]
        processes += [keeper.process for keeper in world.keepers]
        process = self._random.choice(processes)
        self.note("stands still", process.name)
        process.stand_still(self._random.choice([1.0, 8.0, 40.0]) * self._random.random())

    async def ambush(self) -> None:
        """Strike at the next one who is just about to do something."""
        world = self._world
        if world.etcd.ambushes:
            return
        lure = self._random.choice(world.tilt.lures)
        seconds = self._random.uniform(lure.least, lure.most)
        laid = Ambush(lure.label, lure.fate, seconds, lure.whose)
        world.etcd.ambushes.append(laid)
        end = world.loop.time() + LURE_SECONDS
        while not laid.sprung and world.loop.time() < end:  # noqa: ASYNC110 — time is virtual
            await asyncio.sleep(0.1)
        if not laid.sprung:
            if laid in world.etcd.ambushes:
                world.etcd.ambushes.remove(laid)
            return
        self.note("ambush", f"{laid.label} {laid.fate} {laid.sprung} for {seconds:.1f} s")
        if lure.then and not self.stopped:
            await self._meanwhile(lure.then, laid.sprung)
        if laid.fate.startswith("killed"):
            await asyncio.sleep(self._random.uniform(0.0, 3.0))
            self._replace_dead()

    async def _meanwhile(self, what: str, besides: str) -> None:
        """What makes the ambush dangerous, through the other gateways."""
        strike = getattr(self.drives, what, None)
        if strike is not None:
            await strike()
            return
        self._accomplice.goes_to = lambda gateway: gateway != besides
        await getattr(self._accomplice, what)()

    def _replace_dead(self) -> None:
        world = self._world
        for number, gateway in enumerate(world.gateways):
            if not gateway.process.alive:
                world.gateways[number] = world.gateway(number)
        for number, keeper in enumerate(world.keepers):
            if not keeper.process.alive:
                world.keepers[number] = world.keeper(number)
