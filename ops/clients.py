"""What workers and the keeper have in common: the metadata store, the nodes, and what stands on them."""

import asyncio
import logging
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.kms.ring import KeyRing
from gateway.metadata.sealing import SealingKey
from gateway.metadata.store import Metadata
from gateway.objects.store import ObjectStore
from gateway.objects.topology import Topology
from ops.config import ConfigError
from ops.process_counts import CommitFacts
from ops.refusal import Refused
from ops.settings import ClusterSettings, ProcessSettings
from ops.storage_process import NODE
from placement.clock import Randomness, SystemClock, SystemRandomness
from placement.codec import codec_for
from placement.errors import MetastoreUnavailable
from placement.membership import ClusterRecord, MembershipRefused, NodeRecord
from placement.membership_view import LiveView
from placement.metastore.port import Metastore
from placement.metastore.remote import EmbeddedMetastore
from placement.rpc.client import RpcClient
from placement.rpc.handshake import ClusterKey, TcpEndpoint, parse_address
from storage_node.client import RemoteNodeClient
from storage_node.directory import NodeDirectory
from storage_node.joint import JointPuts
from storage_node.local import LocalNodeClient, SameHostNodeClient
from storage_node.port import NodePort
from storage_node.recovery import read_boot_id

if TYPE_CHECKING:
    from placement.metastore.etcd import EtcdMetastore
    from placement.metastore.etcd.store import Shared

CONNECT_SECONDS = 30.0
KEEPER = "keeper"
"""The role whose work waits for that of clients."""
MAP_WAIT_SECONDS = 0.5
MAP_ATTEMPTS_QUIET = 4
REACH_SECONDS = 3.0
LOAD_SECONDS = 5.0


@dataclass(slots=True)
class Machine:
    """The storage process of `serve`, as the other processes of the machine reach it."""

    rpc: RpcClient
    node: LocalNodeClient


@dataclass(slots=True)
class Member:
    """The cluster that a process belongs to."""

    record: ClusterRecord
    view: LiveView


@dataclass(slots=True, kw_only=True)
class Clients:
    """Everything a process needs to serve objects: on one `machine`, or as `member` of a cluster.
    `nodes` are all that are known, `live_nodes` those that are registered now."""

    clock: SystemClock
    randomness: SystemRandomness
    metastore: Metastore
    nodes: Mapping[str, NodePort]
    live_nodes: Mapping[str, NodePort]
    topology: Topology
    objects: ObjectStore
    metadata: Metadata
    keys: KeyRing
    machine: Machine | None = None
    member: Member | None = None
    commits: Callable[[], dict[str, CommitFacts]] = dict
    """What this process sent to the metadata store itself: nothing, on one machine."""
    closers: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """What to close after the rest, in this order."""

    @property
    def rpc(self) -> RpcClient:
        """To the storage process of `serve`."""
        assert self.machine is not None, "only on one machine"
        return self.machine.rpc

    @property
    def node(self) -> LocalNodeClient:
        """The one node of `serve`."""
        assert self.machine is not None, "only on one machine"
        return self.machine.node

    @property
    def direct_reads(self) -> Mapping[Any, Any]:
        """What was read from drives of this host without asking their node, by drive."""
        return {} if self.machine is None else self.machine.node.direct_reads

    async def close(self) -> None:
        """Stop following and release connections."""
        await self.objects.close()
        await self.keys.close()
        await self.metadata.close()
        await self.topology.close()
        for close in self.closers:
            await close()


async def connect(settings: ProcessSettings, *, buffers: int) -> Clients:
    """Open everything: against the running storage process, or against the cluster."""
    if settings.cluster is not None:
        name = f"{settings.role}-{settings.number}"
        return await connect_cluster(
            settings.cluster, name, buffers=buffers, background=settings.role == KEEPER
        )
    clock, randomness = SystemClock(), SystemRandomness()
    rpc = await RpcClient.connect(
        settings.storage_socket,
        name=f"{settings.role}-{settings.number}",
        timeout_seconds=CONNECT_SECONDS,
    )
    metastore = EmbeddedMetastore(str(Path(settings.directory, "metadata", "metadata.sqlite")), rpc)
    node = LocalNodeClient(rpc)
    node.background = settings.role == KEEPER
    nodes = {NODE: node}
    topology = Topology(nodes, metastore, clock)
    await topology.start()
    return await _loaded(
        _complete(
            settings.cluster_key,
            buffers,
            clock=clock,
            randomness=randomness,
            metastore=metastore,
            nodes=nodes,
            live_nodes=nodes,
            topology=topology,
            machine=Machine(rpc, node),
            joint=JointPuts(rpc, NODE),
            closers=[node.close, metastore.close, rpc.close],
        )
    )


async def connect_cluster(
    settings: ClusterSettings,
    name: str,
    *,
    buffers: int,
    patient: bool = True,
    background: bool = False,
) -> Clients:
    """Join a cluster as one that holds nothing; `background`: what it asks of nodes waits for
    clients' requests. Waits for etcd and, if `patient`, for the first cluster map.

    Raises Refused when the cluster key is another one or there is no map.
    """
    from ops.cluster_settings import node_tls, open_cluster  # a single machine needs no gRPC

    clock, randomness = SystemClock(), SystemRandomness()
    try:
        tls = node_tls(settings)
        metastore, record = await open_cluster(settings, clock, randomness)
    except (ConfigError, MembershipRefused, MetastoreUnavailable) as error:
        raise Refused(str(error)) from error
    if background:
        await _warn_of_etcd(metastore)
    view = LiveView(metastore, clock)
    await _started(view.start, patient=patient)
    nodes = NodeDirectory(
        view, dialler(settings.cluster_key, tls, name, randomness, background=background)
    )
    topology = Topology(nodes, metastore, clock, view=view)
    try:
        await _started(topology.start, patient=patient)
        await _reach(topology, view)
    except Refused:
        for close in (nodes.close, view.close, metastore.close):
            await close()
        raise
    return await _loaded(
        _complete(
            settings.cluster_key,
            buffers,
            clock=clock,
            randomness=randomness,
            metastore=metastore,
            nodes=nodes,
            live_nodes=nodes.live,
            topology=topology,
            member=Member(record, view),
            commits=lambda: _shared(metastore.shared),
            closers=[nodes.close, view.close, metastore.close],
        )
    )


async def _warn_of_etcd(metastore: "EtcdMetastore") -> None:
    """One line of a keeper's log where etcd itself may lose what was acknowledged."""
    from placement.metastore.etcd import forgets_when_killed

    try:
        version = (await metastore.status()).version
    except MetastoreUnavailable:
        return  # the next start asks again
    if forgets_when_killed(version):
        logging.getLogger("ostraka.cluster").warning(
            "etcd %s may lose acknowledged writes when a member is killed: use 3.5.3 or newer",
            version,
        )


def _shared(shared: "Shared") -> dict[str, CommitFacts]:
    return {
        "metadata": CommitFacts(shared.write_batches, shared.writes, shared.write_seconds),
        "reads": CommitFacts(shared.read_batches, shared.reads, shared.read_seconds),
    }


async def _loaded(clients: Clients) -> Clients:
    """Who writes must know the store's settings and quotas first: it waits for them, however long."""
    while not await clients.metadata.quotas.mirror.loaded(LOAD_SECONDS):
        logging.getLogger("ostraka.cluster").warning("waiting: the settings cannot be read yet")
    return clients


def dialler(
    cluster_key: bytes,
    tls: ssl.SSLContext,
    name: str,
    randomness: Randomness,
    *,
    background: bool = False,
) -> Callable[[NodeRecord], NodePort]:
    """What makes the client of a node that is registered; those on this host are read by file."""
    key, boot_id = ClusterKey(cluster_key), read_boot_id()

    def dial(node: NodeRecord) -> NodePort:
        endpoint = TcpEndpoint(*parse_address(node.address), key, tls if node.tls else None)
        rpc = RpcClient.dial(endpoint, name=name, randomness=randomness)
        same_kernel = bool(node.boot_id) and node.boot_id == boot_id
        client = SameHostNodeClient(rpc) if same_kernel else RemoteNodeClient(rpc)
        client.background = background
        return client

    return dial


async def _started(start: Callable[[], Awaitable[None]], *, patient: bool) -> None:
    """Until the metadata store answers, and holds what is needed."""
    attempts = 0
    while True:
        try:
            return await start()
        except MetastoreUnavailable as error:
            if not patient:
                raise Refused(str(error)) from error
            attempts += 1
            if attempts == MAP_ATTEMPTS_QUIET:
                logging.getLogger("ostraka.cluster").warning("waiting: %s", error)
            await asyncio.sleep(MAP_WAIT_SECONDS)


async def _reach(topology: Topology, view: LiveView) -> None:
    """Give the connections to the nodes that are there a moment: who begins to serve before it has
    any refuses what it could do."""
    loop = asyncio.get_running_loop()
    end = loop.time() + REACH_SECONDS
    registered = [d.slot for d in topology.map.drives if d.drive_id in view.drives]
    while loop.time() < end and not topology.writable.issuperset(registered):
        await asyncio.sleep(0.05)
        await topology.poll()


def _complete(
    cluster_key: bytes, buffers: int, *, joint: JointPuts | None = None, **parts: Any
) -> Clients:
    """The rest, which is alike everywhere."""
    topology, clock, randomness = parts["topology"], parts["clock"], parts["randomness"]
    # The first use loads the coding library: not while a client waits for its PUT.
    if topology.map.scheme.k > 1:
        codec_for(topology.map.scheme.k, topology.map.scheme.m)
    sealing_key = SealingKey(cluster_key)
    metadata = Metadata(
        parts["metastore"], clock=clock, randomness=randomness, sealing_key=sealing_key
    )
    metadata.start()
    keys = KeyRing(parts["metastore"], clock=clock, randomness=randomness, sealing_key=sealing_key)
    keys.start()
    objects = ObjectStore(parts["nodes"], topology, clock, randomness, joint=joint, buffers=buffers)
    return Clients(metadata=metadata, objects=objects, keys=keys, **parts)


def log_to_stderr(level: int = logging.WARNING) -> None:
    """Warnings and worse, one line each; the access log is apart."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("ostraka").setLevel(level)
    asyncio.get_running_loop().set_debug(False)
