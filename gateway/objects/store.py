"""`ObjectStore`: blobs as erasure-coded shards on the drives of a cluster's nodes."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from gateway.domain.write_plan import WritePlan, judge
from gateway.metadata import keys
from gateway.metadata.records import BlobRef
from gateway.objects.buffers import WritingMemory
from gateway.objects.carried import CarriedShards
from gateway.objects.counts import BlobCounts
from gateway.objects.damage import DamageReports
from gateway.objects.errors import BlobDamaged, NotEnoughDrives, PlacementChanged, WriteFellShort
from gateway.objects.files import FileWrites
from gateway.objects.large import Threads
from gateway.objects.latency import Latency
from gateway.objects.port import Hashing, Staged, Stored
from gateway.objects.prompt import PromptReader
from gateway.objects.quick import QuickReader
from gateway.objects.reader import BlobStream, Surroundings, groups_of
from gateway.objects.small import put_small
from gateway.objects.staging import (
    MEMORY_SIZE_BYTES_MAX,
    StagedBlob,
    StagedBytes,
    StagedFiles,
    envelopes_of,
)
from gateway.objects.topology import MARK, Topology
from gateway.s3.message import Body, Stream
from placement.clock import Clock, Randomness
from placement.errors import PeerUnavailable
from placement.ids import BlobId, DriveId, GroupId
from placement.metastore.port import Compare, Put, exists
from placement.schemes import Scheme, Schemes
from storage_node.joint import JointPuts
from storage_node.port import (
    CHECKSUM_SIZE_BYTES,
    SEGMENT_SHARD_SIZE_BYTES_MAX,
    Buffer,
    NodePort,
    ShardId,
)

INLINE_SIZE_BYTES_MAX = 256 << 10
"""Bodies up to this size are hashed and coded on the event loop: a thread hop costs more."""
BUFFERS_DEFAULT = 12
THREADS = 4
"""For what takes the processor: hashing and coding."""
DISK_THREADS = 64
"""For what waits for drives. Made as they are needed; the bound leaves room for those that a stuck
drive holds."""
_BLOB_ID_SIZE_BYTES = 16
_IDS_AT_ONCE = 32


class ObjectStore:
    """Implements `gateway.objects.port.Objects`. One per process.

    Memory of bodies: for large writes what `WritingMemory` says of `buffers`, one body of at most
    512 KiB a small write, two read steps of 2 MiB a read.
    """

    def __init__(
        self,
        nodes: Mapping[str, NodePort],
        topology: Topology,
        clock: Clock,
        randomness: Randomness,
        *,
        joint: JointPuts | None = None,
        buffers: int = BUFFERS_DEFAULT,
    ) -> None:
        self._nodes = nodes
        self._topology = topology
        self._clock = clock
        self._randomness = randomness
        self._joint = joint
        self._buffers = buffers
        self._memory: WritingMemory | None = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="blob")
        self._disk_threads = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="disk")
        self._damage = DamageReports(nodes)
        self.counts = BlobCounts()
        latency = Latency()
        self._around = Surroundings(nodes, topology, latency, self._damage.report, self.counts)
        self._files = FileWrites(nodes, topology, Threads(self._threads, self._disk_threads))
        self._ids = b""
        self._quick = QuickReader(nodes, topology)
        self._prompt = PromptReader(nodes, topology, latency)

    async def close(self) -> None:
        """Wait for threads and reports; nodes and topology belong to the caller."""
        await self._damage.close()
        await asyncio.to_thread(self._threads.shutdown)
        self._disk_threads.shutdown(wait=False)

    @property
    def schemes(self) -> Schemes:
        """Of the newest map."""
        return self._topology.map.schemes

    # Writing

    async def stage(
        self,
        body: Body,
        size_bytes: int,
        digests: Hashing,
        *,
        group: GroupId | None = None,
        scheme: Scheme | None = None,
    ) -> Staged:
        """Receive `size_bytes` from the body, hashed on the way. Raises what the body raises, and
        `NotEnoughDrives`."""
        blob, plan, placed = self._plan(size_bytes, scheme)
        ref = _ref(blob, plan, size_bytes)
        if not _fits_memory(ref):
            return await self._stage_files(body, size_bytes, digests, group, scheme)
        data = await body.read_all(size_bytes)
        assert len(data) == size_bytes, "a body shorter than it said raises by itself"
        if size_bytes <= INLINE_SIZE_BYTES_MAX:
            _digest(digests, data)
        else:
            await asyncio.get_running_loop().run_in_executor(self._threads, _digest, digests, data)
        return StagedBytes(ref, group or GroupId(blob), plan, placed, data, scheme)

    async def stage_to_end(
        self, body: Body, size_bytes_max: int, digests: Hashing, *, scheme: Scheme | None = None
    ) -> Staged:
        """Receive a body that ends after at most `size_bytes_max`. Raises as `stage` does."""
        start = bytearray(min(size_bytes_max, MEMORY_SIZE_BYTES_MAX) + 1)
        count = await body.read_into(memoryview(start))
        if count == len(start):
            whole = _StartedBody(start, body)
            return await self._stage_files(
                whole, size_bytes_max, digests, None, scheme, may_end_early=True
            )
        data = bytes(memoryview(start)[:count])
        await asyncio.get_running_loop().run_in_executor(self._threads, _digest, digests, data)
        return await self.stage_bytes(data, scheme=scheme)

    async def stage_bytes(
        self, data: bytes, *, group: GroupId | None = None, scheme: Scheme | None = None
    ) -> Staged:
        """A blob from memory."""
        blob, plan, placed = self._plan(len(data), scheme)
        ref = _ref(blob, plan, len(data))
        if _fits_memory(ref):
            return StagedBytes(ref, group or GroupId(blob), plan, placed, data, scheme)
        return await self._stage_files(
            _ReadBody(BlobStream.of(data)), len(data), _NoHashing(), group, scheme
        )

    async def restage(self, staged: Staged) -> Staged:
        """The same bytes as a new blob on the drives that are left, after `WriteFellShort` or
        `PlacementChanged`. The old blob is discarded. Raises `NotEnoughDrives`."""
        blob = _own(staged)
        if isinstance(blob, StagedBytes):
            fresh = await self.stage_bytes(blob.data, group=_group_of(blob), scheme=blob.wanted)
        else:
            try:
                stream = await self.read([(blob.ref, 0, blob.ref.size_bytes)])
                body = _ReadBody(stream)
                fresh = await self._stage_files(
                    body, blob.ref.size_bytes, _NoHashing(), _group_of(blob), blob.wanted
                )
            except BlobDamaged as error:
                raise NotEnoughDrives("too many drives failed during the write") from error
        await self.discard(blob)
        return fresh

    async def commit(self, staged: Staged, owner_key: bytes, record: bytes) -> Stored:
        """Make all shards durable, marks first. Raises `WriteFellShort` when the blob can be
        restaged, `NotEnoughDrives` when it is lost, `MetastoreUnavailable`."""
        blob = _own(staged)
        blob.window = blob.window or self._topology.window_compare
        created_ms = self._clock.now_ns() // 1_000_000
        envelope = envelopes_of(blob.ref, blob.group, owner_key, record, created_ms)
        if isinstance(blob, StagedBytes):
            stored = await put_small(blob, envelope, self._nodes, self._topology)
        else:
            stored = await self._files.commit(blob, envelope)
        return await self._judged(blob, stored)

    def commit_along(self, staged: Staged, owner_key: bytes, record: bytes) -> Stored | None:
        """See `Objects`."""
        blob, joint = _own(staged), self._joint
        if joint is None or not isinstance(blob, StagedBytes):
            return None
        plan = blob.plan
        if plan.node != joint.node or plan.left_out or blob.stored:
            return None
        if plan.narrow:
            self.counts.degraded_writes += 1
        created_ms = self._clock.now_ns() // 1_000_000
        envelope = envelopes_of(blob.ref, blob.group, owner_key, record, created_ms)
        carrier = CarriedShards(blob, envelope, joint)
        blob.window = self._topology.window_compare
        return Stored(blob.ref, (blob.placed, blob.window), (), plan.narrow, carrier)

    async def renew(self, staged: Staged) -> Stored:
        """After a commit found that what it relied on changed (map epoch, damage marks): the same
        shards judged again under the present map. Raises `PlacementChanged` when the blob's
        partition has another order now, or too few shards are where readers will look: a shard must
        never be acknowledged on a drive that is being emptied, or was. So too when the blob's write
        window has closed: its shards may have been swept."""
        blob = _own(staged)
        self._topology.forget_marks(
            [
                keys.damage(self._topology.partition(BlobId(blob.ref.blob)), d.slot)
                for d in self._topology.map.drives
            ]
        )
        await self._topology.refresh()
        if blob.window is None or not self._topology.is_open(blob.window):
            raise PlacementChanged("the write took too long")
        homes = [drive.drive_id for drive in blob.plan.homes]
        order = self._topology.write_order(BlobId(blob.ref.blob), len(homes))
        if [drive.drive_id for drive in order[: len(homes)]] != homes:
            raise PlacementChanged("the cluster map places the blob elsewhere now")
        blob.placed = self._topology.map_compare
        # Not on one that is draining: the moves may have looked there already, and not seen it.
        takers = {drive.drive_id for drive in order}
        stored = {i for i, drive in blob.stored.items() if drive.drive_id in takers}
        try:
            return await self._judged(blob, stored, marks_in_commit=True)
        except NotEnoughDrives as error:
            raise PlacementChanged("the cluster map changed during the write") from error

    async def discard(self, staged: Staged) -> None:
        """Forget a blob that no transaction refers to. What cannot be reached is left to the sweep."""
        blob = _own(staged)
        if isinstance(blob, StagedFiles):
            await self._files.abort(blob)
        by_node: dict[str, list[tuple[DriveId, ShardId]]] = {}
        for index, drive in blob.stored.items():
            shard = ShardId(BlobId(blob.ref.blob), index)
            by_node.setdefault(drive.node, []).append((drive.drive_id, shard))
        blob.stored = {}
        for name, shards in by_node.items():
            try:
                await self._nodes[name].delete(shards)
            except PeerUnavailable:
                self._topology.note_node(name)

    # Reading

    async def read_bytes(self, ref: BlobRef) -> bytes:
        """A whole small blob, verified. Raises `BlobDamaged`."""
        found = self.read_now(ref)
        if found is None:
            found = await self.read_small(ref)
        if found is not None:
            return found
        parts: list[Buffer] = []
        async for group in groups_of([(ref, 0, ref.size_bytes)], self._around):
            parts += group
        return b"".join(parts)

    def read_now(self, ref: BlobRef) -> bytes | None:
        """A blob of one stripe, if it can be had without waiting and is whole; None otherwise."""
        return self._quick.read(ref)

    async def read_small(self, ref: BlobRef) -> bytes | None:
        """A whole blob that is kept as copies, if the first one asked is good; None otherwise."""
        return await self._prompt.read(ref)

    async def read(self, pieces: Sequence[tuple[BlobRef, int, int]]) -> Stream:
        """Stream the pieces; the first step has been read and verified when this returns. Raises
        `BlobDamaged`: then read the record again, once."""
        total = sum(length for _, _, length in pieces)
        if total == 0:
            return BlobStream.of(b"")
        groups = groups_of(pieces, self._around)
        try:
            return BlobStream(total, await anext(groups), groups)
        except BlobDamaged:
            # Before saying that shards are missing, look at the map again.
            known = self._topology.map_revision
            await self._topology.refresh()
            if self._topology.map_revision == known:
                raise
        groups = groups_of(pieces, self._around)
        return BlobStream(total, await anext(groups), groups)

    # Inside

    def _plan(
        self, size_bytes: int, scheme: Scheme | None = None
    ) -> tuple[BlobId, WritePlan, Compare]:
        """A new blob, where its shards go, and the map that says so: a commit compares that one, also
        if another is known by then."""
        if not self._ids:
            # One system call for many ids.
            self._ids = self._randomness.token(_BLOB_ID_SIZE_BYTES * _IDS_AT_ONCE)
        blob = BlobId(self._ids[:_BLOB_ID_SIZE_BYTES])
        self._ids = self._ids[_BLOB_ID_SIZE_BYTES:]
        plan = self._topology.plan_write(blob, size_bytes, scheme)
        if plan is None:
            raise NotEnoughDrives(_too_few(self._topology, scheme))
        return blob, plan, self._topology.map_compare

    async def _stage_files(
        self,
        body: Body,
        size_bytes: int,
        digests: Hashing,
        group: GroupId | None,
        scheme: Scheme | None,
        *,
        may_end_early: bool = False,
    ) -> StagedFiles:
        """Open the shards' files, again under a new plan while drives turn out to have failed."""
        for _ in range(len(self._topology.map.drives) + 1):
            blob, plan, placed = self._plan(size_bytes, scheme)
            ref = _ref(blob, plan, size_bytes)
            shards = await self._files.open(ref, plan)
            if shards is not None:
                staged = StagedFiles(ref, group or GroupId(blob), plan, placed, shards, scheme)
                memory = self._writing_memory(plan.scheme)
                await self._files.receive(
                    staged, body, digests, memory, may_end_early=may_end_early
                )
                return staged
        raise NotEnoughDrives(_too_few(self._topology, scheme))

    async def _judged(
        self, blob: StagedBlob, stored: Collection[int], *, marks_in_commit: bool = False
    ) -> Stored:
        """Apply the rule to what was stored. The marks are put first, so that commits need only
        compare them; or, where the keeper keeps taking them away, by the commit itself."""
        plan = blob.plan
        assert blob.window is not None, "shards are stored in a window"
        displaced = blob.displaced if isinstance(blob, StagedBytes) else ()
        if len(stored) == plan.scheme.width and not plan.left_out and not displaced:
            if plan.narrow:
                self.counts.degraded_writes += 1
            return Stored(blob.ref, (blob.placed, blob.window), (), plan.narrow)
        if not marks_in_commit:
            self.counts.degraded_writes += 1
        verdict = judge(plan, stored)
        if not verdict.commits:
            text = f"{len(stored)} of {blob.plan.scheme.width} shards were stored"
            if len(stored) >= blob.ref.k or isinstance(blob, StagedBytes):
                raise WriteFellShort(text)
            raise NotEnoughDrives(text)
        compares = [blob.placed, blob.window]
        puts: list[Put] = []
        # Also of a drive whose shard another took: it is to come home, and may be there twice.
        slots = tuple(dict.fromkeys((*verdict.marks, *displaced)))
        if slots:
            partition = self._topology.partition(BlobId(blob.ref.blob))
            if marks_in_commit:
                puts = [Put(keys.damage(partition, slot), MARK) for slot in slots]
            else:
                marks = await self._topology.ensure_marks(partition, slots)
                compares += map(exists, marks)
        return Stored(blob.ref, tuple(compares), tuple(puts), plan.narrow)

    def _writing_memory(self, scheme: Scheme) -> WritingMemory:
        """What large writes use, made when the first one comes; anew, with more room, when one of a
        scheme comes that does not fit. Those under way keep theirs."""
        if self._memory is None or not self._memory.suits(scheme):
            self._memory = WritingMemory(scheme, self._buffers, self._memory)
        return self._memory


def _own(staged: Staged) -> StagedBlob:
    assert isinstance(staged, StagedBytes | StagedFiles), "staged by another store"
    return staged


def _group_of(blob: StagedBlob) -> GroupId | None:
    """The group to keep when a blob is staged anew: a plain blob is its own group."""
    return None if blob.group == blob.ref.blob else blob.group


def _ref(blob: BlobId, plan: WritePlan, size_bytes: int) -> BlobRef:
    scheme = plan.scheme
    return BlobRef(
        blob=blob,
        k=scheme.k,
        m=scheme.m,
        stripe_size_bytes=scheme.stripe_size_bytes,
        size_bytes=size_bytes,
    )


def _fits_memory(ref: BlobRef) -> bool:
    if ref.size_bytes > min(MEMORY_SIZE_BYTES_MAX, ref.stripe_size_bytes):
        return False
    # One stripe: of it and its checksum a shard is made.
    return CHECKSUM_SIZE_BYTES + -(-ref.size_bytes // ref.k) <= SEGMENT_SHARD_SIZE_BYTES_MAX


def _too_few(topology: Topology, scheme: Scheme | None) -> str:
    wanted = scheme or topology.map.scheme
    return f"{len(topology.writable)} drives take writes: too few for {wanted}"


def _digest(digests: Hashing, data: bytes) -> None:
    view = memoryview(data)
    digests.update_md5(view)
    digests.update_rest(view)


class _NoHashing:
    """For bytes whose digests are known."""

    def update_md5(self, buffer: memoryview) -> None:
        """Nothing to feed."""

    def update_rest(self, buffer: memoryview) -> None:
        """Nothing to feed."""


class _StartedBody:
    """A `Body` whose first bytes were taken already: they come first again."""

    def __init__(self, start: bytearray, rest: Body) -> None:
        self.size_bytes = rest.size_bytes
        self._start = memoryview(start)
        self._rest = rest

    @property
    def trailers(self) -> dict[str, str]:
        """Those of the rest."""
        return self._rest.trailers

    async def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer, except at the end."""
        count = min(len(self._start), len(buffer))
        buffer[:count] = self._start[:count]
        self._start = self._start[count:]
        if count < len(buffer):
            count += await self._rest.read_into(buffer[count:])
        return count

    async def read_all(self, limit_bytes: int) -> bytes:
        """All of it, which the caller knows to fit."""
        return bytes(self._start) + await self._rest.read_all(limit_bytes - len(self._start))


class _ReadBody:
    """A `Body` over bytes that are read back."""

    def __init__(self, stream: Stream) -> None:
        self.size_bytes = stream.size_bytes
        self.trailers: dict[str, str] = {}
        self._groups = stream.chunks()
        self._ready: list[memoryview] = []

    async def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer, except at the end."""
        filled = 0
        while filled < len(buffer):
            if not self._ready:
                group = await anext(self._groups, None)
                if group is None:
                    break
                self._ready = [memoryview(part) for part in reversed(group)]
                continue
            part = self._ready.pop()
            taken = part[: len(buffer) - filled]
            buffer[filled : filled + len(taken)] = taken
            filled += len(taken)
            if len(taken) < len(part):
                self._ready.append(part[len(taken) :])
        return filled

    async def read_all(self, limit_bytes: int) -> bytes:
        """All of it; the caller knows that it is small enough."""
        assert self.size_bytes <= limit_bytes
        data = bytearray(self.size_bytes)
        filled = await self.read_into(memoryview(data))
        assert filled == self.size_bytes
        return bytes(data)
