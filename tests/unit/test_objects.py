"""The object store over nodes in memory: what is stored is read back, whatever fails within the rule."""

import asyncio
import dataclasses
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from gateway.metadata import keys
from gateway.metadata.records import MapCurrent, encode
from gateway.objects.errors import (
    BlobDamaged,
    BlobOutOfReach,
    NotEnoughDrives,
    PlacementChanged,
    WriteFellShort,
)
from gateway.objects.port import Stored
from gateway.objects.store import ObjectStore
from gateway.objects.topology import Topology
from gateway.s3.checksums import ChecksumAlgorithm, Digests
from placement.clock import SystemClock, SystemRandomness
from placement.cluster_map import ClusterMap, MapDrive
from placement.ids import DriveId, Epoch, Slot
from placement.metastore.port import (
    KeyValue,
    Put,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    WatchBatch,
)
from placement.schemes import Scheme
from storage_node.port import Outcome, ShardId
from storage_node.shard import decode_envelope
from tests.unit.memory_node import MemoryNode, ReadyMemoryNode

STRIPE = 64 << 10
SIZES = [0, 1, 1000, 16 << 10, (16 << 10) + 1, STRIPE - 1, STRIPE, STRIPE + 1, 3 * STRIPE + 7]
LARGE = 40 * STRIPE + 12345


class FewKeys:
    """As much of a metadata store as the topology needs."""

    def __init__(self) -> None:
        self.kvs: dict[bytes, KeyValue] = {}
        self.revision = 0

    def put(self, key: bytes, value: bytes) -> None:
        self.revision += 1
        self.kvs[key] = KeyValue(key, value, self.revision, self.revision, 1)

    async def get_many(self, wanted: Sequence[bytes]) -> tuple[KeyValue | None, ...]:
        return tuple(self.kvs.get(key) for key in wanted)

    async def read(self, requests: Sequence[Range]) -> tuple[RangeResult, ...]:
        results = []
        for request in requests:
            end = request.range_end or request.key + b"\x00"
            kvs = tuple(kv for key, kv in sorted(self.kvs.items()) if request.key <= key < end)
            results.append(RangeResult(self.revision, kvs, more=False, count=len(kvs)))
        return tuple(results)

    async def txn(self, txn: Txn) -> TxnResult:
        succeeded = all(compare.key not in self.kvs for compare in txn.compares)
        if succeeded:
            for operation in txn.success:
                assert isinstance(operation, Put)
                self.put(operation.key, operation.value)
        return TxnResult(succeeded, self.revision, ())

    async def watch(
        self, key: bytes, range_end: bytes | None = None, *, start_revision: int = 0
    ) -> AsyncIterator[WatchBatch]:
        await asyncio.Event().wait()
        yield WatchBatch(0, ())


class BytesBody:
    """A request body at hand."""

    def __init__(self, data: bytes) -> None:
        self.size_bytes = len(data)
        self.trailers: dict[str, str] = {}
        self._data = memoryview(data)

    async def read_into(self, buffer: memoryview) -> int:
        await asyncio.sleep(0)
        part = self._data[: len(buffer)]
        buffer[: len(part)] = part
        self._data = self._data[len(part) :]
        return len(part)

    async def read_all(self, limit_bytes: int) -> bytes:
        return bytes(self._data)


class Fixture:
    """A store over nodes of some drives each."""

    def __init__(self, scheme: Scheme, nodes: Sequence[MemoryNode], *, buffers: int = 2) -> None:
        self.nodes = {f"n{i}": node for i, node in enumerate(nodes)}
        drives = [
            MapDrive(Slot(0), drive, name, name, name if len(nodes) > 1 else "zone")
            for name, node in self.nodes.items()
            for drive in node.drives
        ]
        placed = [
            MapDrive(Slot(i), d.drive_id, d.node, f"h{i}", d.zone) for i, d in enumerate(drives)
        ]
        self.map = ClusterMap(Epoch(1), tuple(placed), scheme)
        self.metastore = FewKeys()
        self.metastore.put(keys.map_epoch(Epoch(1)), self.map.encode())
        self.metastore.put(keys.MAP_CURRENT, encode(MapCurrent(epoch=1)))
        clock = SystemClock()
        self.topology = Topology(self.nodes, self.metastore, clock)  # type: ignore[arg-type]
        self.store = ObjectStore(
            self.nodes,
            self.topology,
            clock,
            SystemRandomness(),
            buffers=buffers,
        )

    def drive(self, drive_id: DriveId) -> "object":
        return next(n.drives[drive_id] for n in self.nodes.values() if drive_id in n.drives)

    def all_drives(self) -> list[DriveId]:
        return [drive.drive_id for drive in self.map.drives]

    def fail(self, *drives: DriveId, outcome: Outcome = Outcome.DRIVE_FAILED) -> None:
        for node in self.nodes.values():
            for drive in drives:
                if drive in node.drives:
                    node.drives[drive].fails = outcome

    async def write(self, data: bytes) -> Stored:
        digests = Digests(ChecksumAlgorithm.CRC64NVME)
        staged = await self.store.stage(BytesBody(data), len(data), digests)
        expected = Digests(ChecksumAlgorithm.CRC64NVME)
        expected.update(data)
        assert (digests.md5, digests.checksum) == (expected.md5, expected.checksum)
        for _ in range(3):
            try:
                return await self.store.commit(staged, b"o/owner", b"record")
            except WriteFellShort:
                staged = await self.store.restage(staged)
        raise AssertionError("restaged too often")

    async def read(self, stored: Stored, offset: int = 0, length: int | None = None) -> bytes:
        ref = stored.ref
        length = ref.size_bytes - offset if length is None else length
        stream = await self.store.read([(ref, offset, length)])
        assert stream.size_bytes == length
        parts = [bytes(part) async for group in stream.chunks() for part in group]
        return b"".join(parts)


def ids(count: int, start: int = 0) -> list[DriveId]:
    return [DriveId(bytes([start + i]) * 16) for i in range(count)]


def run(fixture: Fixture, scenario: Callable[[Fixture], Awaitable[None]]) -> None:
    async def main() -> None:
        await fixture.topology.start()
        try:
            await scenario(fixture)
        finally:
            await fixture.store.close()
            await fixture.topology.close()

    asyncio.run(main())


def one_node(tmp_path: Path, *, scheme: Scheme | None = None, drives: int = 6) -> Fixture:
    node = ReadyMemoryNode(ids(drives), tmp_path)
    return Fixture(scheme or Scheme(4, 2, STRIPE), [node])


def three_nodes() -> Fixture:
    return Fixture(Scheme(4, 2, STRIPE), [MemoryNode(ids(2, 2 * i)) for i in range(3)])


@pytest.mark.parametrize("size", [*SIZES, LARGE])
@pytest.mark.parametrize("shape", ["one", "three"])
def test_what_is_written_is_read_back(size: int, shape: str, tmp_path: Path) -> None:
    fixture = one_node(tmp_path) if shape == "one" else three_nodes()
    data = random.Random(size).randbytes(size)

    async def scenario(f: Fixture) -> None:
        stored = await f.write(data)
        assert await f.read(stored) == data
        assert await f.store.read_bytes(stored.ref) == data
        assert not stored.narrow
        assert [c.key for c in stored.compares] == [keys.MAP_CURRENT, keys.WINDOWED]
        held = sum(len(d.shards) for n in f.nodes.values() for d in n.drives.values())
        assert held == stored.ref.k + stored.ref.m

    run(fixture, scenario)


@pytest.mark.parametrize(
    "scheme", [Scheme(1, 0, STRIPE), Scheme(1, 1, STRIPE), Scheme(3, 2, STRIPE)]
)
def test_other_schemes_keep_large_blobs_too(scheme: Scheme, tmp_path: Path) -> None:
    data = random.Random(2).randbytes(LARGE)

    async def scenario(f: Fixture) -> None:
        stored = await f.write(data)
        assert await f.read(stored) == data
        assert await f.read(stored, 70_001, 200_000) == data[70_001:270_001]

    run(one_node(tmp_path, scheme=scheme, drives=scheme.width), scenario)


def test_envelopes_tell_group_owner_and_record(tmp_path: Path) -> None:
    async def scenario(f: Fixture) -> None:
        stored = await f.write(b"x" * 20_000)
        blob = stored.ref.blob
        for drive in f.nodes["n0"].drives.values():
            for shard, (_, envelope) in drive.shards.items():
                told = decode_envelope(envelope)
                assert (told.blob, told.index, told.k, told.m) == (blob, shard.index, 4, 2)
                assert (told.group, told.owner_key, told.record) == (blob, b"o/owner", b"record")
                assert told.size_bytes == 20_000

    run(one_node(tmp_path), scenario)


@pytest.mark.parametrize("size", [100, 20_000, 5 * STRIPE])
def test_ranges_read_back_and_touch_only_their_stripes(size: int, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(size)

    async def scenario(f: Fixture) -> None:
        stored = await f.write(data)
        for offset, length in [(0, 1), (size - 1, 1), (size // 3, size // 3), (17, 40)]:
            assert await f.read(stored, offset, length) == data[offset : offset + length]

    run(one_node(tmp_path), scenario)


@pytest.mark.parametrize("size", [1000, 50_000, LARGE])
@pytest.mark.parametrize("shape", ["one", "three"])
def test_any_two_drives_may_vanish_and_reads_still_succeed(
    size: int, shape: str, tmp_path: Path
) -> None:
    data = random.Random(4).randbytes(size)

    async def scenario(f: Fixture) -> None:
        stored = await f.write(data)
        everyone = f.all_drives()
        for first in range(0, 6, 2):
            for node in f.nodes.values():
                for drive in node.drives.values():
                    drive.fails = None
            f.fail(everyone[first], everyone[first + 1])
            assert await f.read(stored) == data

    run(one_node(tmp_path) if shape == "one" else three_nodes(), scenario)


@pytest.mark.parametrize("size", [1000, 50_000, LARGE])
@pytest.mark.parametrize("shape", ["one", "three"])
def test_more_lost_drives_than_tolerated_put_a_blob_out_of_reach(
    size: int, shape: str, tmp_path: Path
) -> None:
    async def scenario(f: Fixture) -> None:
        stored = await f.write(bytes(size))
        holders = [
            d.drive_id
            for n in f.nodes.values()
            for d in n.drives.values()
            if any(shard.blob == stored.ref.blob for shard in d.shards)
        ]
        f.fail(*holders[:3])
        for _ in range(2):  # before and after the drives' reports say so
            with pytest.raises(BlobOutOfReach):
                await f.read(stored)
            await f.topology.poll()

    run(one_node(tmp_path) if shape == "one" else three_nodes(), scenario)


def test_nodes_that_cannot_be_reached_put_a_blob_out_of_reach() -> None:
    async def scenario(f: Fixture) -> None:
        stored = await f.write(bytes(50_000))
        for name in ("n0", "n1"):
            f.nodes[name].down = True
        with pytest.raises(BlobOutOfReach):
            await f.read(stored)

    run(three_nodes(), scenario)


@pytest.mark.parametrize(
    ("flipped", "away", "expected"),
    [(3, 0, BlobDamaged), (2, 1, BlobOutOfReach), (1, 2, BlobOutOfReach), (3, 1, BlobDamaged)],
)
def test_a_blob_counts_as_damaged_only_when_absent_drives_could_not_save_it(
    flipped: int, away: int, expected: type[BlobDamaged], tmp_path: Path
) -> None:
    async def scenario(f: Fixture) -> None:
        stored = await f.write(bytes(50_000))
        drives = list(f.nodes["n0"].drives.values())
        for drive in drives[:flipped]:
            for shard in drive.shards:
                drive.flip(shard, 100)
        f.fail(*[drive.drive_id for drive in drives[flipped : flipped + away]])
        with pytest.raises(BlobDamaged) as raised:
            await f.read(stored)
        assert type(raised.value) is expected

    run(one_node(tmp_path), scenario)


@pytest.mark.parametrize("size", [1000, 50_000, LARGE])
def test_flipped_bytes_are_passed_over_and_reported(size: int, tmp_path: Path) -> None:
    data = random.Random(5).randbytes(size)

    async def scenario(f: Fixture) -> None:
        stored = await f.write(data)
        shard = ShardId(stored.ref.blob, 0)  # type: ignore[arg-type]
        node = f.nodes["n0"]
        (holder,) = [d for d in node.drives.values() if shard in d.shards]
        holder.flip(shard, 100)
        assert f.store.read_now(stored.ref) is None
        assert await f.read(stored) == data
        await asyncio.sleep(0)
        assert node.reported == [(holder.drive_id, shard)]

    run(one_node(tmp_path), scenario)


@pytest.mark.parametrize(
    ("flipped", "size"),
    [((3, 4), LARGE), *((pair, 50_000) for pair in itertools.combinations(range(6), 2))],
)
def test_any_two_damaged_shards_are_read_around(
    flipped: tuple[int, int], size: int, tmp_path: Path
) -> None:
    """Each spare is asked in turn, even where all answers come at once."""
    data = random.Random(7).randbytes(size)

    async def scenario(f: Fixture) -> None:
        stored = await f.write(data)
        for drive in f.nodes["n0"].drives.values():
            for shard in drive.shards:
                if shard.index in flipped:
                    drive.flip(shard, 100)
        assert await f.read(stored) == data
        assert not any(call.startswith("locate") for call in f.nodes["n0"].calls)

    run(one_node(tmp_path), scenario)


def test_a_shard_on_an_unexpected_drive_is_found_by_searching(tmp_path: Path) -> None:
    data = random.Random(6).randbytes(50_000)

    async def scenario(f: Fixture) -> None:
        stored = await f.write(data)
        node = f.nodes["n0"]
        held = [(d, s) for d in node.drives.values() for s in list(d.shards)]
        bodies = {s: d.shards.pop(s) for d, s in held}
        for (drive, _), (shard, body) in zip(held[1:] + held[:1], bodies.items(), strict=True):
            drive.shards[shard] = body
        assert await f.read(stored) == data

    run(one_node(tmp_path), scenario)


def test_a_slow_drive_does_not_hold_up_a_read() -> None:
    data = random.Random(7).randbytes(50_000)

    async def scenario(f: Fixture) -> None:
        stored = await f.write(data)
        (holder,) = [
            d
            for n in f.nodes.values()
            for d in n.drives.values()
            if ShardId(stored.ref.blob, 0) in d.shards  # type: ignore[arg-type]
        ]
        holder.slow_seconds = 20
        started = asyncio.get_running_loop().time()
        assert await f.read(stored) == data
        assert await f.read(stored) == data
        assert asyncio.get_running_loop().time() - started < 5

    run(three_nodes(), scenario)


@pytest.mark.parametrize("size", [1000, 50_000])
def test_a_loaded_drive_is_read_last_until_it_is_calm_again(size: int) -> None:
    data = random.Random(9).randbytes(size)

    async def scenario(f: Fixture) -> None:
        blobs = [await f.write(data) for _ in range(24)]
        node = f.nodes["n0"]
        (slow, *_) = node.drives.values()
        slow.slow_seconds = 0.03  # not late enough for a spare to be asked beside it
        loads = f.topology.loads
        for _ in range(10):
            for stored in blobs:
                assert await f.read(stored) == data
        before = slow.gets
        for stored in blobs:
            assert await f.read(stored) == data
        assert slow.gets == before
        slow.slow_seconds = 0.0
        for _ in range(60):  # a minute without a word of it
            loads.settle(f.all_drives())
        assert not loads.loaded
        for stored in blobs:
            assert await f.read(stored) == data
        assert slow.gets > before

    run(three_nodes(), scenario)


@pytest.mark.parametrize("size", [1000, 50_000, LARGE])
def test_a_drive_that_fails_during_the_write_is_marked_first_and_compared(
    size: int, tmp_path: Path
) -> None:
    data = random.Random(8).randbytes(size)

    async def scenario(f: Fixture) -> None:
        for drive in f.nodes["n0"].drives.values():
            drive.fails_after = 0 if drive.drive_id == f.all_drives()[2] else None
        found_marked = False
        for _ in range(64):  # copies use three drives of six: half of the writes pass it by
            stored = await f.write(data)
            marks = [c.key for c in stored.compares if c.key.startswith(keys.DAMAGE)]
            assert all(mark in f.metastore.kvs for mark in marks)
            found_marked = found_marked or bool(marks)
            assert await f.read(stored) == data
            if found_marked:
                break
        assert found_marked

    run(one_node(tmp_path), scenario)


def test_a_drive_whose_shard_another_took_is_marked(tmp_path: Path) -> None:
    async def scenario(f: Fixture) -> None:
        blob, plan, _ = f.store._plan(1000)
        assert plan.seats == f.topology.write_order(blob)[:3]
        f.store._ids = blob + f.store._ids  # it is to be the next one
        f.fail(plan.seats[0].drive_id)
        stored = await f.write(b"x" * 1000)
        assert stored.ref.blob == blob
        mark = keys.damage(f.topology.partition(blob), plan.seats[0].slot)
        assert mark in f.metastore.kvs
        assert mark in [compare.key for compare in stored.compares]

    run(one_node(tmp_path), scenario)


@pytest.mark.parametrize("size", [50_000, LARGE])
def test_two_drives_failing_at_the_commit_make_a_narrower_blob(size: int, tmp_path: Path) -> None:
    data = random.Random(9).randbytes(size)

    async def scenario(f: Fixture) -> None:
        digests = Digests()
        staged = await f.store.stage(BytesBody(data), size, digests)
        f.fail(*f.all_drives()[:2])
        with pytest.raises(WriteFellShort):
            await f.store.commit(staged, b"o/owner", b"record")
        again = await f.store.restage(staged)
        stored = await f.store.commit(again, b"o/owner", b"record")
        assert stored.narrow
        assert (stored.ref.k, stored.ref.m) == (2, 2)
        assert await f.read(stored) == data

    run(one_node(tmp_path), scenario)


def test_writes_go_on_with_m_plus_one_drives_and_stop_below(tmp_path: Path) -> None:
    async def scenario(f: Fixture) -> None:
        everyone = f.all_drives()
        f.fail(*everyone[:3])
        await f.topology.poll()
        stored = await f.write(bytes(LARGE))
        assert stored.ref.k == 1
        assert stored.narrow
        assert await f.read(stored) == bytes(LARGE)
        f.fail(everyone[3])
        await f.topology.poll()
        with pytest.raises(NotEnoughDrives):
            await f.write(b"x")

    run(one_node(tmp_path), scenario)


def test_a_full_drive_takes_no_writes_and_is_still_read(tmp_path: Path) -> None:
    async def scenario(f: Fixture) -> None:
        full = f.all_drives()[0]
        stored = await f.write(bytes(50_000))
        f.topology.note(full, Outcome.DRIVE_FULL)
        assert len(f.topology.writable) == 5
        assert not f.topology.unwell
        assert await f.read(stored) == bytes(50_000)
        await f.topology.poll()
        assert len(f.topology.writable) == 6

    run(one_node(tmp_path), scenario)


def test_a_failed_drive_is_used_again_once_it_reports_up(tmp_path: Path) -> None:
    async def scenario(f: Fixture) -> None:
        f.topology.note(f.all_drives()[0], Outcome.DRIVE_FAILED)
        assert len(f.topology.writable) == 5
        await f.topology.poll()
        assert len(f.topology.writable) == 6

    run(one_node(tmp_path), scenario)


@pytest.mark.parametrize("size", [50_000, LARGE])
def test_a_discarded_blob_leaves_nothing(size: int, tmp_path: Path) -> None:
    async def scenario(f: Fixture) -> None:
        node = f.nodes["n0"]
        staged = await f.store.stage(BytesBody(bytes(size)), size, Digests())
        await f.store.discard(staged)
        assert not node.staged
        staged = await f.store.stage(BytesBody(bytes(size)), size, Digests())
        await f.store.commit(staged, b"o", b"r")
        await f.store.discard(staged)
        assert not any(drive.shards for drive in node.drives.values())

    run(one_node(tmp_path), scenario)


class CutBody(BytesBody):
    """A client that leaves in the middle."""

    async def read_into(self, buffer: memoryview) -> int:
        if len(self._data) < self.size_bytes // 2:
            raise ConnectionResetError
        return await super().read_into(buffer)


def test_a_client_that_leaves_mid_body_leaves_no_files_and_gives_its_buffers_back(
    tmp_path: Path,
) -> None:
    async def scenario(f: Fixture) -> None:
        for _ in range(4):  # more often than there are buffers
            with pytest.raises(ConnectionResetError):
                await f.store.stage(CutBody(bytes(LARGE)), LARGE, Digests())
        assert not f.nodes["n0"].staged
        stored = await f.write(bytes(LARGE))
        assert await f.read(stored) == bytes(LARGE)

    run(one_node(tmp_path), scenario)


def test_cancelled_writes_give_their_buffers_back(tmp_path: Path) -> None:
    async def scenario(f: Fixture) -> None:
        for turn in range(12):
            task = asyncio.ensure_future(f.write(bytes(LARGE)))
            for _ in range(turn * 4):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        stored = await f.write(bytes(LARGE))
        assert await f.read(stored) == bytes(LARGE)

    run(one_node(tmp_path), scenario)


def test_many_large_writes_share_few_buffers(tmp_path: Path) -> None:
    data = random.Random(10).randbytes(LARGE)

    async def scenario(f: Fixture) -> None:
        stored = await asyncio.gather(*(f.write(data) for _ in range(8)))
        for each in stored:
            assert await f.read(each) == data

    run(one_node(tmp_path), scenario)


def test_pieces_of_several_blobs_stream_in_turn(tmp_path: Path) -> None:
    async def scenario(f: Fixture) -> None:
        blobs = [random.Random(i).randbytes(size) for i, size in enumerate([10, 100_000, 50_000])]
        stored = [await f.write(blob) for blob in blobs]
        pieces = [(stored[0].ref, 5, 5), (stored[1].ref, 0, 100_000), (stored[2].ref, 7, 3)]
        stream = await f.store.read(pieces)
        read = b"".join([bytes(p) async for group in stream.chunks() for p in group])
        assert read == blobs[0][5:] + blobs[1] + blobs[2][7:10]

    run(one_node(tmp_path), scenario)


@pytest.mark.parametrize("room", [0, 1, STRIPE, 3 * STRIPE + 7, 50 * STRIPE])
@pytest.mark.parametrize(
    "size", [0, 1, 50_000, 512 << 10, (512 << 10) + 1, LARGE, (LARGE // STRIPE) * STRIPE]
)
def test_a_body_whose_size_shows_at_its_end_is_stored_like_any_other(
    size: int, room: int, tmp_path: Path
) -> None:
    data = random.Random(size).randbytes(size)

    async def scenario(f: Fixture) -> None:
        digests, expected = (
            Digests(ChecksumAlgorithm.CRC64NVME),
            Digests(ChecksumAlgorithm.CRC64NVME),
        )
        expected.update(data)
        staged = await f.store.stage_to_end(BytesBody(data), size + room, digests)
        assert staged.ref.size_bytes == size
        assert (digests.md5, digests.checksum) == (expected.md5, expected.checksum)
        stored = await f.store.commit(staged, b"o/owner", b"record")
        assert await f.read(stored) == data
        if size:
            assert await f.read(stored, size - 1, 1) == data[-1:]
        f.fail(*f.all_drives()[:2])
        assert await f.read(stored) == data

    run(one_node(tmp_path), scenario)


def test_a_large_body_that_ends_early_can_be_restaged(tmp_path: Path) -> None:
    data = random.Random(3).randbytes(LARGE)

    async def scenario(f: Fixture) -> None:
        staged = await f.store.stage_to_end(BytesBody(data), 4 * LARGE, Digests())
        f.fail(*f.all_drives()[:2])
        with pytest.raises(WriteFellShort):
            await f.store.commit(staged, b"o/owner", b"record")
        again = await f.store.restage(staged)
        stored = await f.store.commit(again, b"o/owner", b"record")
        assert stored.ref.size_bytes == LARGE
        assert await f.read(stored) == data

    run(one_node(tmp_path), scenario)


@pytest.mark.parametrize("size", [1000, LARGE])
def test_a_commit_compares_the_map_that_its_shards_were_placed_by(size: int) -> None:
    async def main() -> None:
        nodes = [MemoryNode(ids(1, n)) for n in range(6)]
        fixture = Fixture(Scheme(2, 1, STRIPE), nodes)
        await fixture.topology.start()
        digests = Digests(ChecksumAlgorithm.CRC64NVME)
        staged = await fixture.store.stage(BytesBody(bytes(size)), size, digests)
        planned_by = fixture.topology.map_compare
        newer = dataclasses.replace(fixture.map, epoch=Epoch(2))
        fixture.metastore.put(keys.map_epoch(Epoch(2)), newer.encode())
        fixture.metastore.put(keys.MAP_CURRENT, encode(MapCurrent(epoch=2)))
        await fixture.topology.refresh()
        stored = await fixture.store.commit(staged, b"o/owner", b"record")
        assert planned_by in stored.compares
        assert fixture.topology.map_compare not in stored.compares
        renewed = await fixture.store.renew(staged)  # the same places by the newer map
        assert fixture.topology.map_compare in renewed.compares
        await fixture.topology.close()
        await fixture.store.close()

    asyncio.run(main())


def test_a_blob_whose_write_window_has_closed_is_not_renewed() -> None:
    async def main() -> None:
        nodes = [MemoryNode(ids(1, n)) for n in range(6)]
        fixture = Fixture(Scheme(2, 1, STRIPE), nodes)
        await fixture.topology.start()
        staged = await fixture.store.stage_bytes(b"bytes")
        await fixture.store.commit(staged, b"o/owner", b"record")
        await fixture.store.renew(staged)
        fixture.metastore.put(keys.window(1), b"\x01")
        with pytest.raises(PlacementChanged):
            await fixture.store.renew(staged)
        again = await fixture.store.restage(staged)
        stored = await fixture.store.commit(again, b"o/owner", b"record")
        assert keys.window(1) in [compare.key for compare in stored.compares]
        await fixture.topology.close()
        await fixture.store.close()

    asyncio.run(main())
