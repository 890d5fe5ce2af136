"""Reading a small blob that is kept as copies, from a node elsewhere: one question, one answer."""

import asyncio
from collections.abc import Mapping

from gateway.domain.read_plan import copy_to_ask
from gateway.metadata.records import BlobRef
from gateway.objects.latency import Latency
from gateway.objects.topology import Topology
from placement.codec import checksum
from placement.errors import PeerUnavailable
from placement.ids import BlobId
from storage_node.port import CHECKSUM_SIZE_BYTES, GetShard, NodePort, Outcome, ShardId


class PromptReader:
    """Asks the best copy. What is odd in any way is left to `BlobReader`, which asks anew: an answer
    that is late, or none, a copy that is missing or damaged."""

    def __init__(self, nodes: Mapping[str, NodePort], topology: Topology, latency: Latency) -> None:
        self._nodes = nodes
        self._topology = topology
        self._latency = latency

    async def read(self, ref: BlobRef) -> bytes | None:
        """The blob's bytes, verified, or None."""
        if ref.k != 1 or not 0 < ref.size_bytes <= ref.stripe_size_bytes:
            return None
        topology, blob = self._topology, BlobId(ref.blob)
        order = topology.read_orders(blob, 1 + ref.m)[0][: 1 + ref.m]
        index = copy_to_ask(order, topology.unwell, topology.loads)
        if index is None:
            return None
        drive = order[index]
        node = self._nodes.get(drive.node)
        if node is None:
            return None
        length = CHECKSUM_SIZE_BYTES + ref.size_bytes
        loads, loop = topology.loads, asyncio.get_running_loop()
        loads.begun(drive.drive_id, length)
        began, answered = loop.time(), False
        try:
            async with asyncio.timeout(self._latency.late_after_seconds):
                (data,) = await node.get(
                    [GetShard(drive.drive_id, ShardId(blob, index), 0, length)]
                )
            answered = True
        except (PeerUnavailable, TimeoutError):
            return None
        finally:
            seconds = loop.time() - began
            loads.ended(drive.drive_id, length, seconds, answered=answered)
        self._latency.add(seconds)
        if isinstance(data, Outcome) or len(data) != length:
            return None
        view = memoryview(data)
        plain = view[CHECKSUM_SIZE_BYTES:]
        expected = int.from_bytes(view[:CHECKSUM_SIZE_BYTES], "little")
        return bytes(plain) if checksum(plain) == expected else None
