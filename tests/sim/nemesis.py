"""Faults, drawn from the seed, within what the cluster promises to bear."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from tests.sim.disks import Disk
from tests.sim.drive_faults import DriveFaults
from tests.sim.etcd import NAME as ETCD

if TYPE_CHECKING:
    from tests.sim.world import World

QUIET_SECONDS_MAX = 4.0


class Nemesis:
    """Strikes now and then until told to stop; then everything is mended."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random = random.Random(f"nemesis {world.seed}")
        self._down: set[str] = set()
        self._sick: set[str] = set()
        self._dark = False
        self.drives = DriveFaults(world, self)
        self._striking: set[asyncio.Task[None]] = set()
        self.stopped = False

    async def run(self) -> None:
        """Until stopped."""
        strikes: list[tuple[Callable[[], Coroutine[Any, Any, None]], int]] = [
            (self.kill_node, 5),
            (self.cut_power, 5),
            (self.tear, 4),
            (self.blackout, 5),
            (self.partition, 5),
            (self.break_connections, 3),
            (self.slow_network, 2),
            (self.lose_answers, 4),
            (self.stop_etcd, 2),
            (self.kill_gateway, 3),
            (self.kill_keeper, 2),
            *self.drives.strikes(),
        ]
        while not self.stopped:
            await asyncio.sleep(self._random.uniform(0.2, QUIET_SECONDS_MAX))
            strike = self._random.choices([s for s, _ in strikes], [w for _, w in strikes])[0]
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
        world.etcd.quorum = True
        await asyncio.sleep(5.0)
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

    async def restart(self, host: str) -> None:
        """After a while; a host without drives has nothing to run."""
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
        if self._dark:
            return
        self._dark = True  # nobody else is struck until it is over
        while self._down or self._sick:  # noqa: ASYNC110 — time is virtual
            await asyncio.sleep(0.2)
        hosts = [host for host in world.nodes if world.mounts[host]]
        wholly = self._random.random() < 0.7
        self.note("blackout")
        self._down.update(hosts)
        for host in hosts:
            world.nodes[host].die(power=True, wholly=wholly)
            world.boots[host] += 1
        await asyncio.gather(*(self.restart(host) for host in hosts))
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
        self._world.etcd.quorum = True

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
