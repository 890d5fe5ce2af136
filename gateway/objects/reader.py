"""Reads blobs back: data shards first, spares for what fails or is late, every fragment verified.

A blob is read in steps of whole stripes. Bytes go out as views of what the drives gave; only
missing data fragments are computed. Memory: one step (about `STEP_SIZE_BYTES`) a blob being read,
and one more while it is sent.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.domain.ranges import CHECKSUM_SIZE_BYTES, Geometry, Step, steps_of
from gateway.domain.read_plan import Ask, ReadPlan, copy_to_ask
from gateway.metadata.records import BlobRef
from gateway.objects.counts import BlobCounts
from gateway.objects.errors import BlobDamaged, BlobOutOfReach
from gateway.objects.latency import Latency
from gateway.objects.staging import geometry_of
from gateway.objects.topology import Topology
from placement.codec import checksum, codec_for
from placement.errors import PeerUnavailable
from placement.ids import BlobId
from storage_node.port import Buffer, GetShard, NodePort, Outcome, ShardId

STEP_SIZE_BYTES = 2 << 20
DEADLINE_SECONDS = 30.0
ALONE_SIZE_BYTES_MIN = 128 << 10
"""Reads of a drive from this size on are calls of their own: the drives of a node answer as they can,
and each is known by how long it took."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What readers share in a process. `report` is told of shards that should be there and are not,
    or are damaged, once the blob was read in spite of it."""

    nodes: Mapping[str, NodePort]
    topology: Topology
    latency: Latency
    report: Callable[[Ask, BlobId], None]
    counts: BlobCounts


class BlobReader:
    """Reads one blob's steps in order, remembering which sources were good."""

    def __init__(self, ref: BlobRef, surroundings: Surroundings) -> None:
        self.geometry = geometry_of(ref)
        self._ref = ref
        self._blob = BlobId(ref.blob)
        self._around = surroundings
        topology = surroundings.topology
        orders = topology.read_orders(self._blob, ref.k + ref.m)
        loads, first = topology.loads, None
        if ref.k == 1:
            first = copy_to_ask(orders[0][: 1 + ref.m], topology.unwell, loads)
        self._plan = ReadPlan(ref.k, ref.m, orders, topology.unwell, loads.loaded, first or 0)
        self._failed: set[Ask] = set()
        self._bad: list[Ask] = []
        self._degraded = False

    async def read(self, step: Step) -> list[Buffer]:
        """The plain bytes of a step, in order. Raises `BlobDamaged` when fewer than k shards can be
        had (those found missing or damaged are not reported then: the blob may just be gone), as
        `BlobOutOfReach` while drives are away that may hold enough of them."""
        fragments = await _Fetch(self, step).run()
        for ask in self._bad:
            self._around.report(ask, self._blob)
        self._bad.clear()
        if not self._degraded and (self._failed or self._rebuilds(step, fragments)):
            self._degraded = True
            self._around.counts.degraded_reads += 1
        return plain_views(self.geometry, self._ref.m, step, fragments)

    def _rebuilds(self, step: Step, fragments: Mapping[int, memoryview]) -> bool:
        return self._ref.k > 1 and any(index not in fragments for index in step.indices)

    def gone(self, ask: Ask, outcome: Outcome) -> None:
        """An ask failed for good."""
        self._plan.failed(ask)
        self._failed.add(ask)
        if outcome is Outcome.DRIVE_FAILED:
            self._around.topology.note(ask.drive, outcome)
        else:
            self._bad.append(ask)

    def unreadable(self, good_count: int) -> BlobDamaged:
        """Why the blob cannot be read, when only so many shards are good and all places were
        asked."""
        text = f"{good_count} of the {self.geometry.k} shards needed can be read"
        away = {ask.drive for ask in self._failed} - {ask.drive for ask in self._bad}
        away |= self._around.topology.away
        if good_count + len(away) >= self.geometry.k:
            return BlobOutOfReach(f"{text}; drives that are away: {len(away)}")
        return BlobDamaged(text)

    async def search(self) -> None:
        """Look for the blob's shards on all drives of all nodes."""
        places: list[Ask] = []
        for name, node in self._around.nodes.items():
            try:
                (found,) = await node.locate([self._blob])
            except PeerUnavailable:
                self._around.topology.note_node(name)
                continue
            places += (Ask(info.shard.index, info.drive, name) for info in found)
        self._plan.found(places, self._failed)


class _Fetch:
    """One step of a reader: asks, waits, asks spares."""

    def __init__(self, reader: BlobReader, step: Step) -> None:
        self._reader = reader
        self._plan = reader._plan  # noqa: SLF001 — two halves of one thing
        self._around = reader._around  # noqa: SLF001
        self._blob = reader._blob  # noqa: SLF001
        geometry = reader.geometry
        self._step = step
        self._offset = geometry.shard_offset(step.first)
        self._length = geometry.shard_offset(step.last) - self._offset
        self._fragments: dict[int, memoryview] = {}
        self._pending: dict[asyncio.Task[Sequence[Buffer | Outcome]], tuple[Ask, ...]] = {}
        self._resent: set[Ask] = set()

    async def run(self) -> dict[int, memoryview]:
        """Runs of at least k verified fragments by index (or the wanted data fragments)."""
        plan = self._plan
        plan.begin(self._step.indices)
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            while True:
                asks = plan.next_asks()
                self._send(asks)
                if plan.done:
                    break
                if self._pending:
                    await self._wait(started + DEADLINE_SECONDS)
                elif asks:
                    continue  # all were answered at once, and some in vain: spares may be left
                elif plan.wants_search:
                    await self._reader.search()
                else:
                    raise self._reader.unreadable(plan.good_count)
        finally:
            plan.abandon()
            for task in self._pending:
                task.cancel()
            # A cancelled task keeps its frames, and these keep this fetch and what it has read.
            self._pending.clear()
        self._around.latency.add(loop.time() - started)
        return self._fragments

    def _send(self, asks: Sequence[Ask]) -> None:
        if self._length >= ALONE_SIZE_BYTES_MIN:
            for ask in asks:
                self._send_to(ask.node, (ask,))
            return
        by_node: dict[str, list[Ask]] = {}
        for ask in asks:
            by_node.setdefault(ask.node, []).append(ask)
        for node, group in by_node.items():
            self._send_to(node, tuple(group))

    def _send_to(self, node: str, asks: tuple[Ask, ...]) -> None:
        port = self._around.nodes.get(node)
        if port is None:
            for ask in asks:
                self._reader.gone(ask, Outcome.DRIVE_FAILED)
            return
        reads = self._reads(asks)
        now = getattr(port, "get_now", None)
        if now is not None and not self._resent:
            got = now(reads)
            rest = []
            for ask, data in zip(asks, got, strict=True):
                if data is None:
                    rest.append(ask)
                else:
                    self._take(ask, data)
            if not rest:
                return
            asks = tuple(rest)
            reads = self._reads(asks)
        task = asyncio.ensure_future(self._timed(port, reads))
        self._pending[task] = asks

    async def _timed(self, port: NodePort, reads: Sequence[GetShard]) -> Sequence[Buffer | Outcome]:
        """The answers, while the drives' loads are kept."""
        loads, loop = self._around.topology.loads, asyncio.get_running_loop()
        for read in reads:
            loads.begun(read.drive, read.length)
        began, answered = loop.time(), False
        try:
            answers = await port.get(reads)
            answered = True
            return answers
        finally:
            seconds = loop.time() - began
            for read in reads:
                loads.ended(read.drive, read.length, seconds, answered=answered)

    def _reads(self, asks: Sequence[Ask]) -> list[GetShard]:
        return [
            GetShard(ask.drive, ShardId(self._blob, ask.index), self._offset, self._length)
            for ask in asks
        ]

    async def _wait(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        fresh = any(ask not in self._resent for asks in self._pending.values() for ask in asks)
        left = max(deadline - loop.time(), 0.001)
        timeout = min(self._around.latency.late_after_seconds, left) if fresh else left
        done, _ = await asyncio.wait(
            self._pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            asks = self._pending.pop(task)
            try:
                answers = task.result()
            except PeerUnavailable:
                self._around.topology.note_node(asks[0].node)
                for ask in asks:
                    self._reader.gone(ask, Outcome.DRIVE_FAILED)
                continue
            for ask, answer in zip(asks, answers, strict=True):
                self._take(ask, answer)
        if not done:
            if fresh:
                self._hedge()
            else:
                for ask in self._plan.outstanding:
                    self._reader.gone(ask, Outcome.DRIVE_FAILED)

    def _hedge(self) -> None:
        """What is outstanding is late: spares will be asked; and each late one of a joint call is
        asked alone, so that one slow drive does not hold up the others."""
        for asks in list(self._pending.values()):
            for ask in asks:
                if ask in self._resent:
                    continue
                self._resent.add(ask)
                self._plan.overdue(ask)
                if len(asks) > 1:
                    self._send_to(ask.node, (ask,))

    def _take(self, ask: Ask, answer: Buffer | Outcome) -> None:
        if ask not in self._plan.outstanding:
            return
        if isinstance(answer, Outcome):
            self._reader.gone(ask, answer)
            return
        view = memoryview(answer)
        if verified(self._reader.geometry, self._step, view):
            self._fragments[ask.index] = view
            self._plan.succeeded(ask)
            if ask in self._resent:
                return
            for other in self._plan.outstanding:
                if other in self._resent:
                    self._around.topology.note_slow(other.drive)
        else:
            self._reader.gone(ask, Outcome.DAMAGED)


def verified(geometry: Geometry, step: Step, run: memoryview) -> bool:
    """Whether a shard's bytes for the step's stripes are whole and match their checksums."""
    position = 0
    for stripe in range(step.first, step.last):
        start = position + CHECKSUM_SIZE_BYTES
        end = start + geometry.fragment_bytes(stripe)
        if len(run) < end:
            return False
        expected = int.from_bytes(run[position:start], "little")
        if checksum(run[start:end]) != expected:
            return False
        position = end
    return len(run) == position


def plain_views(
    geometry: Geometry, m: int, step: Step, fragments: Mapping[int, memoryview]
) -> list[Buffer]:
    """The step's plain bytes from verified runs: views where data fragments are at hand, else
    computed."""
    k = geometry.k
    if k == 1:
        fragments = {0: next(iter(fragments.values()))}
    buffers: list[Buffer] = []
    position = 0
    skip, left = step.skip, step.take
    for stripe in range(step.first, step.last):
        start = position + CHECKSUM_SIZE_BYTES
        size = geometry.fragment_bytes(stripe)
        position = start + size
        plain = geometry.stripe_bytes(stripe)
        stop = min(plain, skip + left)
        needed = range(skip // size, (stop - 1) // size + 1)
        missing = [index for index in needed if index not in fragments]
        rebuilt: Mapping[int, bytes] = {}
        if missing:
            present = {i: run[start:position] for i, run in fragments.items()}
            rebuilt = codec_for(k, m).reconstruct(present, missing, plain)
        for index in needed:
            low = max(skip - index * size, 0)
            high = min(stop - index * size, size)
            if index in rebuilt:
                buffers.append(memoryview(rebuilt[index])[low:high])
            else:
                buffers.append(fragments[index][start + low : start + high])
        left -= stop - skip
        skip = 0
    assert left == 0
    return buffers


class BlobStream:
    """A response body over pieces of blobs; the first step was read before it was made."""

    def __init__(
        self, size_bytes: int, first: Sequence[Buffer], rest: AsyncIterator[Sequence[Buffer]]
    ) -> None:
        self.size_bytes = size_bytes
        self._first = first
        self._rest = rest

    @classmethod
    def of(cls, data: bytes) -> "BlobStream":
        """A stream of bytes at hand."""
        return cls(len(data), (data,), _nothing())

    async def chunks(self) -> AsyncIterator[Sequence[Buffer]]:
        """Groups of buffers in order. Raises `BlobDamaged` where the bytes end."""
        first, self._first = self._first, ()
        yield first
        del first
        async for group in self._rest:
            yield group


async def groups_of(
    pieces: Sequence[tuple[BlobRef, int, int]], surroundings: Surroundings
) -> AsyncIterator[Sequence[Buffer]]:
    """Read the pieces step by step."""
    for ref, offset, length in pieces:
        if length == 0:
            continue
        reader = BlobReader(ref, surroundings)
        for step in steps_of(reader.geometry, offset, length, STEP_SIZE_BYTES):
            yield await reader.read(step)


async def _nothing() -> AsyncIterator[Sequence[Buffer]]:
    none: tuple[Sequence[Buffer], ...] = ()
    for group in none:
        yield group
