"""What workers and the keeper have in common: connections to the storage process and what stands
on them."""

import asyncio
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from gateway.metadata.sealing import SealingKey
from gateway.metadata.store import Metadata
from gateway.objects.store import ObjectStore
from gateway.objects.topology import Topology
from ops.settings import ProcessSettings
from ops.storage_process import NODE
from placement.clock import SystemClock, SystemRandomness
from placement.codec import codec_for
from placement.metastore.remote import EmbeddedMetastore
from placement.rpc.client import RpcClient
from storage_node.local import LocalNodeClient

CONNECT_SECONDS = 30.0


@dataclass(slots=True)
class Clients:
    """Everything a process needs to serve objects. `close` in reverse order of making."""

    clock: SystemClock
    randomness: SystemRandomness
    rpc: RpcClient
    metastore: EmbeddedMetastore
    node: LocalNodeClient
    topology: Topology
    objects: ObjectStore
    metadata: Metadata

    async def close(self) -> None:
        """Stop following and release connections."""
        await self.objects.close()
        await self.metadata.close()
        await self.topology.close()
        await self.node.close()
        await self.metastore.close()
        await self.rpc.close()


async def connect(settings: ProcessSettings, *, buffers: int) -> Clients:
    """Open everything against the running storage process."""
    clock, randomness = SystemClock(), SystemRandomness()
    rpc = await RpcClient.connect(
        settings.storage_socket,
        name=f"{settings.role}-{settings.number}",
        timeout_seconds=CONNECT_SECONDS,
    )
    metastore = EmbeddedMetastore(str(Path(settings.directory, "metadata", "metadata.sqlite")), rpc)
    node = LocalNodeClient(rpc)
    nodes = {NODE: node}
    topology = Topology(nodes, metastore, clock)
    await topology.start()
    # The first use loads the coding library: not while a client waits for its PUT.
    if topology.map.scheme.k > 1:
        codec_for(topology.map.scheme.k, topology.map.scheme.m)
    metadata = Metadata(
        metastore,
        clock=clock,
        randomness=randomness,
        sealing_key=SealingKey(settings.cluster_key),
    )
    metadata.start()
    objects = ObjectStore(nodes, topology, clock, randomness, buffers=buffers)
    return Clients(clock, randomness, rpc, metastore, node, topology, objects, metadata)


def log_to_stderr() -> None:
    """Warnings and worse, one line each; the access log is apart."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    asyncio.get_running_loop().set_debug(False)
