"""Small blobs: coded in memory, stored with one message a node, one group commit."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from gateway.domain.write_plan import replacements
from gateway.objects.staging import StagedBytes
from gateway.objects.topology import Topology
from placement.cluster_map import MapDrive
from placement.codec import checksum_bytes, codec_for
from placement.errors import PeerUnavailable
from placement.ids import BlobId, DriveId
from storage_node.port import (
    CHECKSUM_SIZE_BYTES,
    Buffer,
    NodePort,
    Outcome,
    PutShard,
)

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
    shards = _Shards(staged, envelope)
    seats = dict(enumerate(plan.seats))
    results = await _put(seats, shards, nodes, topology)
    if list(results.values()).count(Outcome.STORED) == len(seats):
        staged.stored = seats
        return set(seats)
    tried: set[DriveId] = set()
    staged.displaced = tuple(
        drive.slot for index, drive in seats.items() if results[index] is not Outcome.STORED
    )
    for _ in range(ROUNDS_MAX):
        failed = _note(results, seats, staged, topology)
        tried.update(drive.drive_id for drive in seats.values())
        order = topology.write_order(BlobId(staged.ref.blob))
        seats = replacements(plan, failed, order, topology.writable, tried)
        if not seats:
            break
        results = await _put(seats, shards, nodes, topology)
    else:
        _note(results, seats, staged, topology)
    return set(staged.stored)


def whole_message(staged: StagedBytes, envelope: Callable[[int], bytes]) -> "Message":
    """All shards, for the one node that holds every seat of the plan."""
    plan = staged.plan
    return _Shards(staged, envelope).message(range(plan.scheme.width), plan.seats)


def _note(
    results: Mapping[int, Outcome],
    seats: Mapping[int, MapDrive],
    staged: StagedBytes,
    topology: Topology,
) -> set[int]:
    """Keep what was stored, tell the topology of the rest; the failed indices."""
    failed = set()
    for index, outcome in results.items():
        drive = seats[index]
        if outcome is Outcome.STORED:
            staged.stored[index] = drive
        else:
            topology.note(drive.drive_id, outcome)
            failed.add(index)
    return failed


class _Shards:
    """The blob's fragments, and messages of some of them."""

    def __init__(self, staged: StagedBytes, envelope: Callable[[int], bytes]) -> None:
        scheme = staged.plan.scheme
        self._blob = BlobId(staged.ref.blob)
        self._envelope = envelope
        self._copy: list[Buffer] | None = None
        self._fragments: Sequence[Buffer] = ()
        if scheme.k == 1:
            data = staged.data
            self._copy = [checksum_bytes(data), data] if data else []
        else:
            self._fragments = codec_for(scheme.k, scheme.m).encode(staged.data)

    def message(self, indices: Iterable[int], drives: Iterable[MapDrive]) -> "Message":
        """What one node is sent. Copies travel once."""
        blob, envelope, seats = self._blob, self._envelope, zip(indices, drives, strict=True)
        if self._copy is not None:
            length = sum(map(len, self._copy))
            return [
                PutShard(drive.drive_id, blob, index, envelope(index), 0, length)
                for index, drive in seats
            ], self._copy
        puts: list[PutShard] = []
        payload: list[Buffer] = []
        offset = 0
        for index, drive in seats:
            fragment = self._fragments[index]
            length = CHECKSUM_SIZE_BYTES + len(fragment)
            payload += (checksum_bytes(fragment), fragment)
            puts.append(PutShard(drive.drive_id, blob, index, envelope(index), offset, length))
            offset += length
        return puts, payload


Message = tuple[list[PutShard], list[Buffer]]
"""The shards, and the buffers they lie in."""


async def _put(
    seats: Mapping[int, MapDrive],
    shards: _Shards,
    nodes: Mapping[str, NodePort],
    topology: Topology,
) -> dict[int, Outcome]:
    """One message a node, all at once."""
    by_node: dict[str, list[int]] = {}
    for index, drive in seats.items():
        by_node.setdefault(drive.node, []).append(index)
    results: dict[int, Outcome] = {}

    async def on_node(name: str, indices: list[int]) -> None:
        message = shards.message(indices, [seats[index] for index in indices])
        outcomes = await _send(name, message, nodes, topology)
        results.update(zip(indices, outcomes, strict=True))

    (own_name, own_indices), *others = by_node.items()
    async with asyncio.TaskGroup() as group:
        for name, indices in others:
            group.create_task(on_node(name, indices))
        await on_node(own_name, own_indices)  # needs no task
    return results


async def _send(
    name: str, message: Message, nodes: Mapping[str, NodePort], topology: Topology
) -> Sequence[Outcome]:
    """A node that does not answer fails its shards."""
    puts, payload = message
    node = nodes.get(name)
    if node is not None:
        try:
            return await node.put(puts, payload)
        except PeerUnavailable:
            topology.note_node(name)
    return [Outcome.DRIVE_FAILED] * len(puts)
