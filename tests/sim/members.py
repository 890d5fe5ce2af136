"""The processes of a simulated cluster, put together as the real ones are: node, gateway, keeper."""

import asyncio
import logging
from typing import Any

from gateway.app import Gateway
from gateway.context import Context
from gateway.domain.newness import Newness
from gateway.http.message import HttpRequest
from gateway.metrics import RequestCounts
from gateway.objects.topology import Topology
from gateway.operations.registry import OPERATIONS
from gateway.s3.authentication import Claim
from gateway.s3.message import Principal, S3Request
from gateway.s3.signature import UNSIGNED_PAYLOAD, Verified
from ops.clients import Clients, Member, _complete, _reach, _started
from ops.keeper_command import LedDuties
from ops.node_process import UNASSIGNED_SLOT, _register, _tell_until
from placement.errors import MetastoreUnavailable
from placement.leadership import Leadership
from placement.membership import NodeRecord, join_cluster
from placement.membership_view import LiveView
from storage_node.care import DriveConfig, NodeConfig
from storage_node.client import RemoteNodeClient
from storage_node.directory import NodeDirectory
from storage_node.identity import read_identity
from storage_node.offload import InlineOffload
from storage_node.server import serve_node
from tests.sim.disks import DelayedFlusher, Disk, MountedFiles
from tests.sim.etcd import Etcd, EtcdClient
from tests.sim.ledger import Ledger, WatchedNode
from tests.sim.loop import Process
from tests.sim.network import Link, Network, Server

CLUSTER_KEY = b"k" * 32
OWNER = Principal(
    account_id="000000000001", canonical_id="c" * 64, name="sim", email="", access_key="AK"
)
SEGMENT_SIZE_BYTES = 64 << 10
PREWRITE_SIZE_BYTES = 32 << 10

log = logging.getLogger("sim.members")


async def patiently(work: Any, pause_seconds: float = 0.5) -> Any:
    """Again while the metadata store does not answer."""
    while True:
        try:
            return await work()
        except MetastoreUnavailable:
            await asyncio.sleep(pause_seconds)


class NodeLife:
    """One run of a node process over the disks mounted at its host."""

    def __init__(
        self,
        process: Process,
        network: Network,
        etcd: Etcd,
        disks: dict[str, Disk],
        *,
        host: str,
        boot_id: str,
        record_run: bytes,
        ledger: Ledger,
    ) -> None:
        self.process = process
        self.host = host
        self.files = MountedFiles(process, dict(disks))
        self.node: WatchedNode | None = None
        self._ledger = ledger
        self._network = network
        self._etcd = etcd
        self._boot_id = boot_id
        self._run = record_run
        self._stop = asyncio.Event()
        self._dead = False
        self.refusals: list[str] = []
        self.ended = process.start(self._live())
        self.ready = process.loop.create_future()

    async def _live(self) -> None:
        process = self.process
        metastore = EtcdClient(self._etcd, process)
        cluster = await patiently(lambda: join_cluster(metastore, CLUSTER_KEY, process))
        node = await self._opened(cluster.cluster_id, cluster.incarnation)
        self.node = node
        server = Server(self._network, process, self.host, serve_node(node))
        record = NodeRecord(
            name=self.host,
            address=self.host,
            host=self.host,
            zone="",
            run=self._run,
            started_ms=process.now_ns() // 1_000_000,
        )
        registrar = await _register(metastore, record, node, process)  # type: ignore[arg-type]
        if not self.ready.done():
            self.ready.set_result(None)
        await _tell_until(self._stop, registrar, record, node)
        await registrar.close()
        server.close()
        await node.close()

    async def _opened(self, cluster_id: bytes, incarnation: int) -> WatchedNode:
        """Again, as whoever supervises the process would, while a drive errs."""
        while True:
            try:
                return await self._open(cluster_id, incarnation)
            except OSError as error:
                self.refusals.append(str(error))
                await asyncio.sleep(1.0)

    async def _open(self, cluster_id: bytes, incarnation: int) -> WatchedNode:
        drives = []
        for name in sorted(self.files.disks):
            path = f"/{name}"
            identity = read_identity(self.files, path)
            slot = UNASSIGNED_SLOT if identity is None else identity.slot
            expected = None if identity is None else identity.drive
            drives.append(DriveConfig(slot, path, may_adopt=False, expected=expected))
        config = NodeConfig(
            cluster_id,
            incarnation,
            tuple(drives),
            segment_size_bytes=SEGMENT_SIZE_BYTES,
            prewrite_size_bytes=PREWRITE_SIZE_BYTES,
            reserve_file_size_bytes=8 << 10,
        )
        node = await WatchedNode.open(
            config,
            self.files,
            self.process,
            self.process,
            flusher=DelayedFlusher(self.files, self.process),
            offload=InlineOffload(),
            boot_id=self._boot_id,
        )
        assert isinstance(node, WatchedNode)
        node.ledger = self._ledger
        return node

    async def leave(self) -> None:
        """As on SIGTERM."""
        self._stop.set()
        await asyncio.wait([self.ended])

    def die(self, *, power: bool, wholly: bool = False) -> None:
        """At once; with the power goes what was not flushed."""
        if self._dead:
            return
        self._dead = True
        self.process.kill()
        if self.node is not None:
            for place in self.node._care._places:
                if place.drive is not None:
                    place.drive.index.abandon()
        for disk in self.files.disks.values():
            if power:
                disk.lose_power(wholly=wholly)
            else:
                disk.forget_descriptors()


async def connect(process: Process, network: Network, etcd: Etcd) -> Clients:
    """What `ops.clients.connect_cluster` does, over the simulated network."""
    metastore = EtcdClient(etcd, process)
    record = await patiently(lambda: join_cluster(metastore, CLUSTER_KEY, process))
    view = LiveView(metastore, process)
    await _started(view.start, patient=True)

    def dial(node: NodeRecord) -> RemoteNodeClient:
        return RemoteNodeClient(Link(network, process, node.address))  # type: ignore[arg-type]

    nodes = NodeDirectory(view, dial)
    topology = Topology(nodes, metastore, process, view=view)
    await _started(topology.start, patient=True)
    await _reach(topology, view)
    return _complete(
        CLUSTER_KEY,
        2,
        clock=process,
        randomness=process,
        metastore=metastore,
        nodes=nodes,
        live_nodes=nodes.live,
        topology=topology,
        member=Member(record, view),
        closers=[nodes.close, view.close, metastore.close],
    )


class _Trusting(Gateway):
    """The pipeline without signatures: everybody is the owner."""

    def _authenticate(self, request: S3Request, http: HttpRequest) -> Verified | Claim | None:
        http.access_key = OWNER.access_key
        request.principal = OWNER
        return Verified(UNSIGNED_PAYLOAD)


class GatewayLife:
    """One run of a gateway worker."""

    def __init__(
        self, process: Process, network: Network, etcd: Etcd, *, presumes: bool = False
    ) -> None:
        self.process = process
        self.app: Gateway | None = None
        self.clients: Clients | None = None
        self.cut_bodies: list[str] = []
        self.counts = RequestCounts(instance=b"g" * 8)
        self._network, self._etcd, self._presumes = network, etcd, presumes
        self.ready = process.start(self._live())

    async def _live(self) -> None:
        self.clients = clients = await connect(self.process, self._network, self._etcd)
        if self._presumes:
            clients.metadata.newness = Newness(enough=0)
        context = Context(
            metadata=clients.metadata,
            objects=clients.objects,
            clock=clients.clock,
            randomness=clients.randomness,
            region="us-east-1",
        )
        self.app = _Trusting(context, OPERATIONS, domains=(), counts=self.counts)


class KeeperLife:
    """One run of a keeper."""

    def __init__(
        self,
        process: Process,
        network: Network,
        etcd: Etcd,
        *,
        grace_seconds: float,
        sweep_seconds: float,
    ) -> None:
        self.process = process
        self.duties: LedDuties | None = None
        self._network, self._etcd, self._grace_seconds = network, etcd, grace_seconds
        self._sweep_seconds = sweep_seconds
        process.start(self._live())

    async def _live(self) -> None:
        clients = await connect(self.process, self._network, self._etcd)
        leadership = Leadership(clients.metastore, self.process.name, self.process)
        leadership.start()
        self.duties = LedDuties(clients, leadership, self._grace_seconds)
        keeper = self.duties.keeper()
        for duty in keeper._duties:
            duty.every_seconds = min(duty.every_seconds, self._sweep_seconds)
            duty.first_after_seconds = min(duty.first_after_seconds, 5.0)
        await keeper.run()
