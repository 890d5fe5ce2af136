"""A whole cluster in one process, made and run from one seed."""

import asyncio
import collections
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gateway.objects.store
import gateway.objects.topology
import ops.keeper.garbage
import storage_node.care
from gateway.metadata import keys
from gateway.metadata.records import AccountRecord, encode
from ops.clients import Clients
from ops.map_store import MapStore
from placement.ids import DriveId
from placement.map_changes import first_map
from placement.membership import DRIVES, DriveRecord, decode
from placement.metastore.port import Put, Range, Txn, prefix_end
from placement.schemes import Scheme
from tests.sim.buckets import Version, make_bucket, make_versioned
from tests.sim.client import Answer
from tests.sim.disks import Disk
from tests.sim.etcd import Etcd, EtcdClient
from tests.sim.ledger import Ledger
from tests.sim.loop import InlineExecutor, Process, VirtualLoop
from tests.sim.members import OWNER, GatewayLife, KeeperLife, NodeLife, connect
from tests.sim.model import History, Wrong
from tests.sim.network import Network
from tests.sim.quotas import make_limited
from tests.sim.tilt import TILTS, tilt_of
from tests.sim.uploads import Upload
from tests.sim.workload import Client, pause

PARTITIONS = 16
STRIPE_SIZE_BYTES = 64 << 10
CHECK_OPERATIONS = 60
POLL_SECONDS = 2.0
TICK_SECONDS = 0.5
"""How often nodes are asked how they are, and look after their drives: most of what a simulation
does in quiet times is this."""
FAULTS_MIN = 22
"""Work goes on until there were so many."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How big the cluster is and how long it is worked."""

    nodes: int
    drives_per_node: int
    scheme: Scheme
    gateways: int
    clients: int
    keys: int
    operations: int


def shape_of(seed: int, operations: int) -> Shape:
    """Drawn from the seed."""
    chosen = random.Random(f"shape {seed}")
    nodes, drives, k, m = chosen.choice(
        [(4, 1, 2, 1), (4, 1, 2, 2), (5, 1, 2, 2), (6, 1, 4, 2), (3, 2, 2, 1), (4, 2, 3, 2)]
    )
    fewest, most = tilt_of(seed).keys
    return Shape(
        nodes=nodes,
        drives_per_node=drives,
        scheme=Scheme(k, m, STRIPE_SIZE_BYTES),
        gateways=chosen.randint(2, 3),
        clients=chosen.randint(3, 6),
        keys=chosen.randint(fewest, most),
        operations=operations,
    )


class World:
    """The processes, the network between them, and what clients saw."""

    def __init__(
        self,
        loop: VirtualLoop,
        folder: Path,
        seed: int,
        operations: int,
        shape: Shape | None = None,
    ) -> None:
        self.loop = loop
        self.seed = seed
        self.shape = shape or shape_of(seed, operations)
        self.tilt = tilt_of(seed)
        self.partitions = PARTITIONS
        self.random = random.Random(f"world {seed}")
        self.network = Network(loop)
        self.etcd = Etcd(self.process("etcd"), self.network)
        self.ledger = Ledger(self)
        self.etcd.applied = self.ledger.applied
        self.folder = folder
        self.disks: dict[str, Disk] = {}
        self.mounts: dict[str, list[str]] = {}
        """Which disks each host has."""
        self.boots: collections.Counter[str] = collections.Counter()
        self.nodes: dict[str, NodeLife] = {}
        self.gateways: list[GatewayLife] = []
        self.keepers: list[KeeperLife] = []
        self.keeper_count = 2
        self.observer: Clients
        """Of a process that nothing befalls: looks at what is there."""
        self.grace_seconds = 40.0
        self.waits_for_tombstones = seed // len(TILTS) % 5 == 0
        """Whether it stays until garbage is forgotten too, which takes as long as all else."""
        self.presumes = seed // len(TILTS) % 4 == 2
        """Whether gateways presume every key to be new, so that writes begin without a look."""
        self.quiet_seconds = 0.0
        """How long the cluster may take to come to rest."""
        self.sweep_seconds = self.tilt.sweep_seconds
        self.keys = [f"k{number}" for number in range(self.shape.keys)]
        self.bodies: dict[str, bytes] = {}
        self.history = History()
        self.uploads: list[Upload] = []
        """Those that several clients work at."""
        self.versions: list[Version] = []
        self.gateway_starts: list[float] = []
        self.unsure_of_quota: list[tuple[float, int]] = []
        """Bytes of writes under a quota of which nobody knows whether they were done, and when."""
        self.remaking = False
        self.remade_at: list[float] = []
        """When the bucket was deleted and made again."""
        self.operations = 0
        self.answers: collections.Counter[int] = collections.Counter()
        self.faults: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []
        self.journal: list[str] = []

    def process(self, name: str) -> Process:
        return Process(self.seed, name, self.loop)

    def say(self, text: str) -> None:
        self.journal.append(f"{self.loop.time():9.3f} {text}")

    def note_answer(self, method: str, path: str, answer: Answer) -> None:
        self.answers[answer.status] += 1
        if answer.status >= 500 and answer.status != 503:
            self.problems.append(f"{method} {path} was answered {answer.status} {answer.code}")

    # -- making it -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Nodes, the first map, gateways, keepers, a bucket."""
        shape = self.shape
        for number in range(shape.nodes):
            host = f"node{number}"
            self.mounts[host] = []
            for _ in range(shape.drives_per_node):
                self.add_disk(host)
            self.start_node(host)
        for node in self.nodes.values():
            await node.ready
        client = EtcdClient(self.etcd, self.process("operator"))
        new = first_map(await self.registered(), shape.scheme, self.partitions)
        assert await MapStore(client).replace(new, 0)
        await client.txn(Txn((), (Put(keys.account(OWNER.account_id), encode(_account())),)))
        for number in range(shape.gateways):
            self.gateways.append(self.gateway(number))
        for number in range(self.keeper_count):
            self.keepers.append(self.keeper(number))
        for life in self.gateways:
            await life.ready
        self.observer = await connect(self.process("observer"), self.network, self.etcd)
        self.observer.topology._tasks[1].cancel()  # it asks no node how it is
        maker = Client(self, self.process("maker"))
        await make_bucket(maker)
        await make_versioned(maker)
        await make_limited(maker)

    async def registered(self) -> list[DriveRecord]:
        found = await self.etcd.store.range(Range(DRIVES, prefix_end(DRIVES)))
        return [decode(DriveRecord, kv.value) for kv in found.kvs]

    def add_disk(self, host: str) -> str:
        name = f"drive{len(self.disks)}"
        self.disks[name] = Disk(self.folder, self.random.randrange(1 << 40), name)
        self.mounts[host].append(name)
        return name

    def start_node(self, host: str) -> None:
        """Begin a new run of it; the kernel goes on unless its power went."""
        run = f"{host} run {self.random.randrange(1 << 30)}".encode()
        self.nodes[host] = NodeLife(
            self.process(host),
            self.network,
            self.etcd,
            {name: self.disks[name] for name in self.mounts[host]},
            host=host,
            boot_id=f"{host} boot {self.boots[host]}",
            record_run=run,
            ledger=self.ledger,
        )

    def gateway(self, number: int) -> GatewayLife:
        process = self.process(f"gateway{number}")
        self.gateway_starts.append(self.loop.time())
        return GatewayLife(process, self.network, self.etcd, presumes=self.presumes)

    def keeper(self, number: int) -> KeeperLife:
        process = self.process(f"keeper{number}")
        return KeeperLife(
            process,
            self.network,
            self.etcd,
            grace_seconds=self.grace_seconds,
            sweep_seconds=self.sweep_seconds,
        )

    def disk_of(self, drive: DriveId) -> Disk | None:
        for life in self.nodes.values():
            if life.node is not None and drive in life.node._drives:
                return self.disks[life.node._drives[drive].root.strip("/")]
        return None

    # -- working it ------------------------------------------------------------------------------

    async def work(self, check: "Callable[[World], None]") -> None:
        """Clients until the operations are done, with a look at the history now and then."""

        self.checked_at = 0

        async def client(number: int) -> None:
            process = self.process(f"client{number}")
            caller = Client(self, process)
            while self.operations < self.shape.operations or sum(self.faults.values()) < FAULTS_MIN:
                await caller.act()
                if self.operations >= self.checked_at + CHECK_OPERATIONS:
                    self.checked_at = self.operations
                    check(self)
                await pause(process, 0.8)

        async with asyncio.TaskGroup() as group:
            for number in range(self.shape.clients):
                group.create_task(client(number))

    async def until(self, what: str, test: object, seconds: float) -> None:
        """Wait for something that must come about."""
        end = self.loop.time() + seconds
        while (why := await test()) is not None:  # type: ignore[operator]
            if self.loop.time() > end:
                raise Wrong(f"{what}: not after {seconds:.0f} s: {why}")
            await asyncio.sleep(2.0)


def _account() -> AccountRecord:
    return AccountRecord(
        account_id=OWNER.account_id,
        canonical_id=OWNER.canonical_id,
        name=OWNER.name,
        email=OWNER.email,
        created_ms=0,
    )


class _Complaints(logging.Handler):
    """Exceptions that the code logs as unexpected are failures of the run."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            text = logging.Formatter().formatException(record.exc_info)
            self._world.problems.append(f"{record.getMessage()}\n{text}")


def prepare(world: World) -> None:
    """What must be in place before anything runs."""
    gateway.objects.store.ThreadPoolExecutor = InlineExecutor  # type: ignore[attr-defined,assignment]
    gateway.objects.topology.POLL_SECONDS = POLL_SECONDS
    ops.keeper.garbage.GRACE_SECONDS = world.tilt.garbage_seconds
    storage_node.care.WRITE_BACK_TICK_SECONDS = TICK_SECONDS
    storage_node.care.TEND_TICKS = 2
    root = logging.getLogger()
    root.handlers[:] = [_Complaints(world)]
    root.setLevel(logging.ERROR)
