"""A scripted interleaving on a simulated cluster: what a scenario has at hand, and which there are.

A seed meets an interleaving by chance; a scenario leads there. Clients, drives, metadata and checkers
are those of the seeds. It passes, and fails when the rule that it is written for is taken out.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from gateway.metadata import keys
from gateway.metadata.records import BlobRef, encode
from gateway.metadata.snapshots import RebuiltRecord
from gateway.metadata.store import Metadata
from placement.cluster_map import MapDrive
from placement.ids import BlobId, DriveId
from placement.leadership import NO_TERM
from placement.map_changes import drain, remove
from placement.metastore.port import DeleteRange, Put, Range, Txn, prefix_end
from placement.schemes import Scheme
from storage_node.index import decode_entry
from storage_node.port import ShardId
from storage_node.record import HEADER_SIZE_BYTES, shard_of
from tests.sim.client import Answer, etag_of
from tests.sim.drive_faults import DriveFaults
from tests.sim.etcd import Ambush, EtcdClient
from tests.sim.ledger import refs_in
from tests.sim.model import Wrong
from tests.sim.nemesis import Nemesis
from tests.sim.network import Late
from tests.sim.truth import all_entries, held_shards
from tests.sim.workload import BUCKET, LONG_KEY, LONG_SIZE_BYTES, Client
from tests.sim.world import PARTITIONS, STRIPE_SIZE_BYTES, Shape

T = TypeVar("T")

if TYPE_CHECKING:
    from tests.sim.members import GatewayLife
    from tests.sim.world import World

SPRING_SECONDS = 60.0
"""An ambush that nobody walks into by then was laid in vain."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """`act` is the script. `sweeps`: the keepers sweep, every few seconds; `keepers`: how many there are;
    `rests`: the cluster must come to rest afterwards; `window_seconds`: garbage entries wait for
    nothing but write windows, and a window is the newest for so long."""

    name: str
    rules: tuple[str, ...]
    act: "Callable[[Scene], Awaitable[None]]"
    nodes: int
    scheme: Scheme
    keys: int
    keepers: int
    sweeps: bool
    rests: bool
    window_seconds: float | None
    garbage_seconds: float
    partitions: int

    @property
    def shape(self) -> Shape:
        """As a seed's."""
        return Shape(
            nodes=self.nodes,
            drives_per_node=1,
            scheme=self.scheme,
            gateways=2,
            clients=0,
            keys=self.keys,
            operations=0,
        )


SCENARIOS: dict[str, Scenario] = {}
"""By name: that of the function."""


def scenario(
    *rules: str,
    nodes: int = 4,
    k: int = 2,
    m: int = 1,
    keys: int = 2,
    keepers: int = 1,
    sweeps: bool = True,
    rests: bool = False,
    window_seconds: float | None = None,
    garbage_seconds: float = 1.0,
    partitions: int = PARTITIONS,
) -> "Callable[[Callable[[Scene], Awaitable[None]]], Callable[[Scene], Awaitable[None]]]":
    """Register what fails without any one of those rules."""

    def register(
        act: "Callable[[Scene], Awaitable[None]]",
    ) -> "Callable[[Scene], Awaitable[None]]":
        name: str = act.__name__
        scheme = Scheme(k, m, STRIPE_SIZE_BYTES)
        SCENARIOS[name] = Scenario(
            name=name,
            rules=rules,
            act=act,
            nodes=nodes,
            scheme=scheme,
            keys=keys,
            keepers=keepers,
            sweeps=sweeps,
            rests=rests,
            window_seconds=window_seconds,
            garbage_seconds=garbage_seconds,
            partitions=partitions,
        )
        return act

    return register


class Scene:
    """The cluster, for the script."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.operator = EtcdClient(world.etcd, world.process("operator"))
        self._clients = 0
        self._nemesis: Nemesis | None = None

    # -- clients ---------------------------------------------------------------------------------

    def client(self, gateway: int | None = None) -> Client:
        """A caller, of that gateway alone if one is named."""
        self._clients += 1
        client = Client(self.world, self.world.process(f"client{self._clients}"))
        if gateway is not None:
            client.goes_to = {f"gateway{gateway}"}.__contains__
        return client

    def gateway(self, number: int) -> "GatewayLife":
        """A gateway's present life."""
        return self.world.gateways[number]

    def hold_bodies(self, client: Client) -> asyncio.Event:
        """What this client sends is long on its way: until that is set."""
        client._connection.gate = gate = asyncio.Event()
        return gate

    def metadata(self, number: int) -> Metadata:
        """A gateway's metadata."""
        clients = self.gateway(number).clients
        assert clients is not None
        return clients.metadata

    def begin(self, work: Awaitable[T]) -> "asyncio.Future[T]":
        """Go on meanwhile."""
        return asyncio.ensure_future(work)

    async def send(
        self, client: Client, method: str, path: str, headers: dict[str, str] | None = None
    ) -> Answer:
        """A request about the bucket."""
        return await client.send(method, f"/{BUCKET}/{path}", headers=headers)

    async def put_long(self, client: Client) -> None:
        """What takes several steps to read."""
        body = client.body()[:100] + client.random.randbytes(LONG_SIZE_BYTES)
        self.world.bodies[etag_of(body)] = body
        await client.send("PUT", f"/{BUCKET}/{LONG_KEY}", body)

    async def read_long(self, client: Client, pace: float) -> None:
        """All of it, with a pause a step."""
        answer = await client.send("GET", f"/{BUCKET}/{LONG_KEY}", pace=pace)
        if self.world.bodies.get(answer.etag) != answer.body:
            raise Wrong(f"{LONG_KEY}: {answer.status}, {len(answer.body)} bytes that nobody wrote")

    async def parts(self) -> list[BlobRef]:
        """Of all uploads."""
        return await self.blobs_of(keys.PARTS)

    async def forget_today(self) -> None:
        """The metadata is restored to before the first object, and nobody has looked at it yet."""
        record = RebuiltRecord(running=False, incarnation=1)
        objects = DeleteRange(keys.OBJECTS, prefix_end(keys.OBJECTS))
        await self.world.etcd.store.txn(Txn((), (objects, Put(keys.REBUILT, encode(record)))))
        self.world.history.acts.clear()

    async def confirm(self) -> None:
        """An operator has looked at it."""
        await self.world.etcd.store.txn(Txn((), (DeleteRange(keys.REBUILT),)))

    # -- drives ----------------------------------------------------------------------------------

    @property
    def faults(self) -> DriveFaults:
        """What an operator does to drives and the map."""
        if self._nemesis is None:
            self._nemesis = Nemesis(self.world)
        return self._nemesis.drives

    @property
    def nemesis(self) -> Nemesis:
        """Strikes that are asked for, and no others."""
        assert self.faults is not None
        assert self._nemesis is not None
        return self._nemesis

    async def blobs_of(self, prefix: bytes = keys.OBJECTS) -> list[BlobRef]:
        """Those that records name, manifests aside."""
        found = await self.world.etcd.store.range(Range(prefix, prefix_end(prefix)))
        return [ref for kv in found.kvs for ref in refs_in(kv.key, kv.value)]

    def drives_of(self, blob: bytes) -> dict[int, list[DriveId]]:
        """Where its shards are, by index, as far as they are whole."""
        return held_shards(self.world).get(blob, {})

    def host_of(self, drive: DriveId) -> str:
        """Where it is mounted."""
        for host, life in self.world.nodes.items():
            if life.node is not None and drive in life.node._drives:
                return host
        raise Wrong(f"drive {drive.hex()} is nowhere")

    async def written_back(self) -> None:
        """What drives hold in memory of their indexes is on them."""
        for life in self.world.nodes.values():
            if life.node is not None and life.process.alive:
                for drive in list(life.node._drives.values()):
                    await drive.write_back()

    def of_rank(self, rank: int) -> MapDrive:
        """The drive of that rank, where all blobs are of one partition."""
        assert self.world.partitions == 1
        width = self.world.shape.nodes
        return self.world.observer.topology.write_order(BlobId(bytes(16)), width)[rank]

    async def drive_of_some_shard(self) -> DriveId:
        """Of whatever lies on a drive."""
        await self.written_back()
        _, shards = min(held_shards(self.world).items())
        return shards[0][0]

    async def decay(self, ref: BlobRef, index: int) -> None:
        """A bit of that shard flips."""
        await self.written_back()
        for life in self.world.nodes.values():
            assert life.node is not None
            for drive in life.node._drives.values():
                for key, data in all_entries(drive):
                    if shard_of(key) == ShardId(BlobId(ref.blob), index):
                        entry, disk = decode_entry(data), self.world.disks[drive.root.strip("/")]
                        at = entry.length // 2
                        if entry.segment:
                            at += entry.offset + HEADER_SIZE_BYTES + entry.envelope_length
                        disk.decay(drive.path_of(shard_of(key), entry), at)
                        return
        raise Wrong(f"shard {index} is nowhere")

    def cut(self, one: str, other: str) -> None:
        """They do not reach each other."""
        self.world.network.cut.add(frozenset((one, other)))

    async def heal(self) -> None:
        """Everybody reaches everybody, and has noticed."""
        self.world.network.cut.clear()
        await self.pause(5.0)

    async def drain(self, drive: DriveId) -> None:
        """An operator has it emptied."""
        if not await self.faults.change(lambda now, new: drain(now, [drive])):
            raise Wrong("the drive could not be drained")

    async def remove(self, drive: DriveId) -> bool:
        """An operator has it forgotten, if that is let happen: then nothing may lie there alone."""
        if not await self.faults.change(lambda now, new: remove(now, [drive])):
            return False
        self.look_alone(drive)
        return True

    def look_alone(self, drive: DriveId) -> None:
        """A drive that the map has forgotten may go at any time."""
        if alone := self.world.ledger.only_on(drive):
            raise Wrong(f"forgotten drive {drive.hex()} has alone: {', '.join(alone)}")

    # -- keepers -----------------------------------------------------------------------------------

    async def leader(self) -> int:
        """The number of the keeper that leads the repair."""

        def leading() -> list[int]:
            keepers = enumerate(self.world.keepers)
            return [
                n for n, life in keepers if life.duties and life.duties.repair_term() != NO_TERM
            ]

        await self.until("a keeper leads", lambda: bool(leading()))
        return leading()[0]

    def blind(self, keeper: int) -> None:
        """It hears of no newer cluster map."""
        duties = self.world.keepers[keeper].duties
        assert duties is not None
        topology = duties._clients.topology
        following = topology._tasks[0]
        following.cancel()
        topology.refresh = _nothing_new  # type: ignore[method-assign]

    # -- interleavings ---------------------------------------------------------------------------

    def late(self, verb: int, whose: str) -> Late:
        """See `Late`."""
        late = Late(verb, whose)
        self.world.network.late.append(late)
        return late

    def ambush(
        self, label: str, fate: str, seconds: float = 0.0, *, whose: str = "gateway0"
    ) -> Ambush:
        """See `Ambush`; a held one lasts until it is released."""
        laid = Ambush(label, fate, seconds, whose)
        self.world.etcd.ambushes.append(laid)
        return laid

    async def sprung(self, laid: Ambush) -> None:
        """Somebody walked into it."""
        await self.until(f"the ambush at {laid.label} is sprung", lambda: bool(laid.sprung))

    async def until(
        self, what: str, test: Callable[[], bool], seconds: float = SPRING_SECONDS
    ) -> None:
        """Wait for what must come about."""
        end = self.world.loop.time() + seconds
        while not test():
            if self.world.loop.time() > end:
                raise Wrong(f"{what}: not after {seconds:.0f} s")
            await asyncio.sleep(0.05)

    async def nothing_waits(self) -> None:
        """The keeper has gone through what was stored on too few drives, and left nothing."""
        space = self.world.etcd.store._space
        queue = keys.NARROW, prefix_end(keys.NARROW)
        await self.until("nothing is queued for re-encoding", lambda: not space.count(*queue))

    async def pause(self, seconds: float) -> None:
        """Let time go by."""
        await asyncio.sleep(seconds)


async def _nothing_new() -> None:
    """What there is is known."""
