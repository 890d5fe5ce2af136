"""Reading a blob of one stripe without waiting, from drives on this host: the hot path of small GETs."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from gateway.metadata.records import BlobRef
from gateway.objects.topology import Topology
from placement.cluster_map import MapDrive
from placement.codec import checksum
from placement.ids import BlobId
from storage_node.port import CHECKSUM_SIZE_BYTES, Buffer, GetShard, NodePort, ShardId

READ_NOW_SIZE_BYTES_MAX = 256 << 10


@runtime_checkable
class ReadsNow(Protocol):
    """A node client on the node's own host, which can read without waiting."""

    def get_now(self, reads: Sequence[GetShard]) -> tuple[Buffer | None, ...]:
        """What is at hand; None: ask with `get`."""
        ...


class QuickReader:
    """Reads what is where the newest map says; anything odd is left to `BlobReader`."""

    def __init__(self, nodes: Mapping[str, NodePort], topology: Topology) -> None:
        self._nodes = nodes
        self._known: dict[str, tuple[NodePort, ReadsNow | None]] = {}
        self._topology = topology

    def _reader(self, name: str) -> ReadsNow | None:
        """The node's client if it can read without waiting. Nodes come and go: what is known of
        one holds for that client only."""
        node = self._nodes.get(name)
        if node is None:
            return None
        known = self._known.get(name)
        if known is None or known[0] is not node:
            known = self._known[name] = (node, node if isinstance(node, ReadsNow) else None)
        return known[1]

    def read(self, ref: BlobRef) -> bytes | None:
        """The blob's bytes, verified, or None."""
        size = ref.size_bytes
        if size == 0:
            return b""
        if size > READ_NOW_SIZE_BYTES_MAX or size > ref.stripe_size_bytes:
            return None
        blob = BlobId(ref.blob)
        order = self._topology.read_orders(blob, ref.k + ref.m)[0]
        length = CHECKSUM_SIZE_BYTES + -(-size // ref.k)
        if ref.k == 1:
            return self._copy(blob, order[: 1 + ref.m], length)
        return self._stripe(ref, blob, order[: ref.k], length)

    def _copy(self, blob: BlobId, drives: Sequence[MapDrive], length: int) -> bytes | None:
        unwell = self._topology.unwell
        for index, drive in enumerate(drives):
            node = self._reader(drive.node)
            if node is None or drive.slot in unwell:
                continue
            (data,) = node.get_now([GetShard(drive.drive_id, ShardId(blob, index), 0, length)])
            if data is None or len(data) != length:
                return None
            view = memoryview(data)
            plain = view[CHECKSUM_SIZE_BYTES:]
            expected = int.from_bytes(view[:CHECKSUM_SIZE_BYTES], "little")
            return bytes(plain) if checksum(plain) == expected else None
        return None

    def _stripe(
        self, ref: BlobRef, blob: BlobId, drives: Sequence[MapDrive], length: int
    ) -> bytes | None:
        unwell = self._topology.unwell
        name = drives[0].node
        node = self._reader(name)
        if node is None or len(drives) < ref.k:
            return None
        for drive in drives:
            if drive.slot in unwell or drive.node != name:
                return None
        got = node.get_now(
            [GetShard(d.drive_id, ShardId(blob, i), 0, length) for i, d in enumerate(drives)]
        )
        fragments: list[Buffer] = []
        for data in got:
            if data is None or len(data) != length:
                return None
            view = memoryview(data)
            fragment = view[CHECKSUM_SIZE_BYTES:]
            expected = int.from_bytes(view[:CHECKSUM_SIZE_BYTES], "little")
            if checksum(fragment) != expected:
                return None
            fragments.append(fragment)
        padded = b"".join(fragments)
        return padded if len(padded) == ref.size_bytes else padded[: ref.size_bytes]
