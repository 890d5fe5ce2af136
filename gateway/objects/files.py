"""The staged files of large blobs: opening, receiving, committing and aborting them on their nodes."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence

from gateway.domain.write_plan import WritePlan
from gateway.metadata.records import BlobRef
from gateway.objects.buffers import WritingMemory
from gateway.objects.large import LargeWriter, Threads
from gateway.objects.port import Hashing
from gateway.objects.staging import StagedFiles, geometry_of
from gateway.objects.topology import Topology
from gateway.s3.message import Body
from placement.errors import PeerUnavailable
from placement.ids import BlobId
from storage_node.port import (
    Buffer,
    CommitShard,
    NodePort,
    Outcome,
    ShardId,
    StagedShard,
)


class FileWrites:
    """Speaks to the nodes about shards that are files of their own."""

    def __init__(self, nodes: Mapping[str, NodePort], topology: Topology, threads: Threads) -> None:
        self._nodes = nodes
        self._topology = topology
        self._threads = threads

    async def open(self, ref: BlobRef, plan: WritePlan) -> tuple[StagedShard, ...] | None:
        """A staged file for every seat; None when a drive would not: it was noted, plan anew."""
        blob = BlobId(ref.blob)
        opened: list[StagedShard | Outcome] = [Outcome.DRIVE_FAILED] * len(plan.seats)

        async def on_node(name: str, indices: Sequence[int]) -> None:
            wanted = [(plan.seats[i].drive_id, ShardId(blob, i)) for i in indices]
            answers = await self._nodes[name].open(wanted)
            for index, answer in zip(indices, answers, strict=True):
                opened[index] = answer

        await self._each_node(_by_node(plan, range(len(plan.seats))), on_node)
        shards: list[StagedShard] = []
        for index, answer in enumerate(opened):
            if isinstance(answer, Outcome):
                self._topology.note(plan.seats[index].drive_id, answer)
            else:
                shards.append(answer)
        if len(shards) == len(opened):
            return tuple(shards)
        await self._drop(plan, shards)
        return None

    async def receive(
        self,
        staged: StagedFiles,
        body: Body,
        digests: Hashing,
        memory: WritingMemory,
        *,
        may_end_early: bool = False,
    ) -> None:
        """Read the whole body into the files; they are aborted when that does not end well."""
        writer = LargeWriter(staged, digests, memory, self._threads, may_end_early=may_end_early)
        whole = False
        try:
            await writer.receive(body, self._appender(staged))
            if staged.failed:
                # No commit will name them, and a full drive needs their space.
                left_out = [shard for shard in staged.shards if shard.shard.index in staged.failed]
                await self._drop(staged.plan, left_out)
            whole = True
        finally:
            for index in staged.failed:
                drive = staged.plan.seats[index].drive_id
                self._topology.note(drive, writer.outcome_of(index))
            if not whole:
                await asyncio.shield(self.abort(staged))

    async def commit(self, staged: StagedFiles, envelope: Callable[[int], bytes]) -> set[int]:
        """Make the shards durable under their names; the indices for which that went well."""
        length = geometry_of(staged.ref).shard_size_bytes
        plan = staged.plan
        outcomes = dict.fromkeys(range(len(plan.seats)), Outcome.DRIVE_FAILED)
        alive = [i for i in outcomes if i not in staged.failed]

        async def on_node(name: str, indices: Sequence[int]) -> None:
            commits = [
                CommitShard(plan.seats[i].drive_id, staged.shards[i].token, envelope(i), length)
                for i in indices
            ]
            answers = await self._nodes[name].commit(commits)
            outcomes.update(zip(indices, answers, strict=True))

        await self._each_node(_by_node(plan, alive), on_node)
        for index in alive:
            if outcomes[index] is Outcome.STORED:
                staged.stored[index] = plan.seats[index]
            else:
                staged.failed.add(index)
                self._topology.note(plan.seats[index].drive_id, outcomes[index])
        return set(staged.stored)

    async def abort(self, staged: StagedFiles) -> None:
        """Drop the files that were not committed."""
        left = [s for s in staged.shards if s.shard.index not in staged.stored]
        staged.failed.update(shard.shard.index for shard in left)
        await self._drop(staged.plan, left)

    async def _drop(self, plan: WritePlan, shards: Sequence[StagedShard]) -> None:
        by_index = {shard.shard.index: shard for shard in shards}

        async def on_node(name: str, indices: Sequence[int]) -> None:
            dropped = [(by_index[i].drive, by_index[i].token) for i in indices]
            await self._nodes[name].abort(dropped)

        await self._each_node(_by_node(plan, list(by_index)), on_node)

    def _appender(
        self, staged: StagedFiles
    ) -> Callable[[int, Sequence[Buffer]], Coroutine[object, object, bool]]:
        async def append(index: int, buffers: Sequence[Buffer]) -> bool:
            shard = staged.shards[index]
            node = staged.plan.seats[index].node
            try:
                outcome = await self._nodes[node].append(shard.drive, shard.token, buffers)
            except PeerUnavailable:
                self._topology.note_node(node)
                return False
            return outcome in (Outcome.DONE, Outcome.STORED)

        return append

    async def _each_node(
        self,
        by_node: Mapping[str, Sequence[int]],
        on_node: Callable[[str, Sequence[int]], Coroutine[object, object, None]],
    ) -> None:
        """Call every node at once; one that is unreachable is noted and its part left undone."""

        async def guarded(name: str, indices: Sequence[int]) -> None:
            try:
                await on_node(name, indices)
            except PeerUnavailable:
                self._topology.note_node(name)

        if len(by_node) == 1:
            ((name, indices),) = by_node.items()
            await guarded(name, indices)
            return
        async with asyncio.TaskGroup() as group:
            for name, indices in by_node.items():
                group.create_task(guarded(name, indices))


def _by_node(plan: WritePlan, indices: Sequence[int]) -> dict[str, list[int]]:
    grouped: dict[str, list[int]] = {}
    for index in indices:
        grouped.setdefault(plan.seats[index].node, []).append(index)
    return grouped
