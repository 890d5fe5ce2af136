"""Small blobs: coded in memory, stored with one message a node, one group commit."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from gateway.domain.write_plan import replacements
from gateway.objects.staging import StagedBytes
from gateway.objects.topology import Topology
from placement.cluster_map import MapDrive
from placement.codec import checksum_bytes, codec_for
from placement.errors import PeerUnavailable
from placement.ids import BlobId, Slot
from storage_node.port import Buffer, NodePort, Outcome, PutShard, ShardId

ROUNDS_MAX = 4
"""Attempts to put shards of failed drives elsewhere before the outcome is judged."""


async def put_small(
    staged: StagedBytes,
    envelope: Callable[[int], bytes],
    nodes: Mapping[str, NodePort],
    topology: Topology,
) -> set[int]:
    """Store the shards; the indices that are on stable storage. Failed ones are tried on other live
    drives while there are any."""
    plan = staged.plan
    blob = BlobId(staged.ref.blob)
    scheme = plan.scheme
    fragments = codec_for(scheme.k, scheme.m).encode(staged.data)
    seats: dict[int, MapDrive] = dict(enumerate(plan.seats))
    tried: set[Slot] = set()
    stored: set[int] = set()
    for _ in range(ROUNDS_MAX):
        sent = await _put(blob, seats, fragments, scheme.k, envelope, nodes, topology)
        failed: set[int] = set()
        for index, drive in seats.items():
            outcome = sent[index]
            if outcome is Outcome.STORED:
                stored.add(index)
                staged.stored[index] = drive
            else:
                topology.note(drive.drive_id, outcome)
                failed.add(index)
        if not failed:
            break
        tried.update(drive.slot for drive in seats.values())
        seats = replacements(plan, failed, topology.write_order(blob), topology.writable, tried)
        if not seats:
            break
    return stored


async def _put(
    blob: BlobId,
    seats: Mapping[int, MapDrive],
    fragments: Sequence[Buffer],
    k: int,
    envelope: Callable[[int], bytes],
    nodes: Mapping[str, NodePort],
    topology: Topology,
) -> dict[int, Outcome]:
    """One message a node. A node that does not answer fails its shards."""
    by_node: dict[str, list[PutShard]] = {}
    payloads: dict[str, list[Buffer]] = {}
    ends: dict[str, int] = {}
    for index, drive in seats.items():
        node = drive.node
        fragment = fragments[index]
        length = 8 + len(fragment) if len(fragment) else 0
        if node not in by_node:
            by_node[node] = []
            payloads[node] = []
            ends[node] = 0
        if k == 1 and payloads[node]:
            offset = 0  # copies travel once
        else:
            offset = ends[node]
            if length:
                payloads[node] += (checksum_bytes(fragment), fragment)
                ends[node] = offset + length
        put = PutShard(drive.drive_id, ShardId(blob, index), envelope(index), offset, length)
        by_node[node].append(put)
    outcomes: dict[int, Outcome] = {}

    async def send(node: str) -> None:
        puts = by_node[node]
        port = nodes.get(node)
        answers: Sequence[Outcome] = [Outcome.DRIVE_FAILED] * len(puts)
        if port is not None:
            try:
                answers = await port.put(puts, payloads[node])
            except PeerUnavailable:
                topology.note_node(node)
        for put, outcome in zip(puts, answers, strict=True):
            outcomes[put.shard.index] = outcome

    if len(by_node) == 1:
        await send(next(iter(by_node)))
    else:
        async with asyncio.TaskGroup() as group:
            for node in by_node:
                group.create_task(send(node))
    return outcomes
