"""Faults, drawn from the seed, within what the cluster promises to bear."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

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
        self._striking: set[asyncio.Task[None]] = set()
        self.stopped = False

    async def run(self) -> None:
        """Until stopped."""
        strikes: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.kill_node, 5),
            (self.cut_power, 5),
            (self.tear, 4),
            (self.partition, 5),
            (self.break_connections, 3),
            (self.slow_network, 2),
            (self.lose_answers, 4),
            (self.stop_etcd, 2),
            (self.kill_gateway, 3),
            (self.kill_keeper, 2),
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

    def note(self, kind: str, what: str = "") -> None:
        self._world.faults[kind] += 1
        self._world.say(f"{kind} {what}")

    # -- nodes -----------------------------------------------------------------------------------

    def _take_node(self) -> str | None:
        """A host that may go down now: never more of them than the scheme bears."""
        world = self._world
        drives = sum(len(world.mounts[host]) for host in self._down)
        hosts = [host for host in world.nodes if host not in self._down]
        host = self._random.choice(hosts)
        if drives + len(world.mounts[host]) > max(world.shape.scheme.m, len(world.mounts[host])):
            return None
        self._down.add(host)
        return host

    async def _restart(self, host: str) -> None:
        await asyncio.sleep(self._random.choice([0.05, 1.0, 5.0, 15.0]) * self._random.random())
        self._world.start_node(host)
        self._world.say(f"{host} starts")
        life = self._world.nodes[host]
        async with asyncio.timeout(300):
            await life.ready
        await asyncio.sleep(2.0)
        self._down.discard(host)

    async def kill_node(self) -> None:
        """The process ends; what the kernel has is kept."""
        host = self._take_node()
        if host is not None:
            self.note("node killed", host)
            self._world.nodes[host].die(power=False)
            await self._restart(host)

    async def cut_power(self) -> None:
        """What was not flushed may be lost or torn."""
        host = self._take_node()
        if host is not None:
            self.note("power cut", host)
            self._world.nodes[host].die(power=True)
            self._world.boots[host] += 1
            await self._restart(host)

    async def tear(self) -> None:
        """The power goes between two file operations, also while the node starts."""
        host = self._take_node()
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
        await self._restart(host)

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
