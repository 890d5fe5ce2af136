"""A put and its transaction in one call: the order is kept, and a failure of either is told apart."""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from gateway.metadata import keys
from gateway.metadata.errors import PreconditionFailed
from gateway.metadata.outcomes import Applied, Transactions
from gateway.metadata.records import BlobRef, MapCurrent, ObjectRecord, encode
from gateway.objects.commit import commit_blob
from gateway.objects.errors import ShardsLeftBehind
from gateway.objects.port import Stored
from gateway.objects.store import ObjectStore
from gateway.objects.topology import Topology
from placement.clock import SystemClock, SystemRandomness
from placement.cluster_map import ClusterMap, MapDrive
from placement.errors import DuplicateKey, OutcomeUnknown
from placement.ids import BlobId, DriveId, Epoch, Slot
from placement.metastore.port import Put, Txn, TxnResult, absent, exists, unchanged
from placement.metastore.serve import serve_metastore
from placement.metastore.sqlite import SqliteOwner
from placement.rpc.client import RpcClient
from placement.rpc.server import RpcServer
from placement.schemes import Scheme
from storage_node.client import NodeClient
from storage_node.flush import Flush, ThreadFlusher
from storage_node.joint import JointPuts
from storage_node.joint_server import serve_joint_puts
from storage_node.node import Node
from storage_node.port import Outcome, PutShard, ShardInfo
from storage_node.server import serve_node
from tests.contract.test_node import body_of, copies, node_config
from tests.unit.faulty_files import FaultyFiles
from tests.waiting import eventually_async

BLOB = b"b" * 16
BODY = body_of(b"ostraka" * 100)
KEY = b"o/key"
COMMIT = Txn((absent(KEY),), (Put(KEY, b"record"),))
STORED, FAILED = Outcome.STORED, Outcome.DRIVE_FAILED


class HeldFlusher(ThreadFlusher):
    """Flushes nothing before it is let go."""

    def __init__(self, files: FaultyFiles) -> None:
        super().__init__(files)
        self.held: list[Callable[[], None]] | None = None

    def flush(self, data: Sequence[int], whole: Sequence[int] = ()) -> Flush:
        if self.held is None:
            return super().flush(data, whole)
        flush = Flush(len(data) + len(whole), asyncio.get_running_loop())

        def end() -> None:
            for position in range(len(flush.errors)):
                flush.end(position, None)

        self.held.append(end)
        return flush


class Scene:
    """A process that owns three drives and the metadata, and a client of it."""

    def __init__(self, owner: SqliteOwner, node: Node, rpc: RpcClient, files: FaultyFiles) -> None:
        self.owner, self.node, self.rpc, self.files = owner, node, rpc, files
        self.drives = [report.drive for report in node.reports()]
        self.joint = JointPuts(rpc, "local")
        self.flusher: HeldFlusher | None = None

    def puts(self, blob: bytes = BLOB) -> list[PutShard]:
        return copies(self.drives, blob, BODY, len(BODY) - 8)

    async def put(
        self, txn: Txn = COMMIT, blob: bytes = BLOB
    ) -> tuple[tuple[Outcome, ...], TxnResult | None]:
        return await self.joint.put_and_commit(self.puts(blob), [BODY], txn)

    async def value(self, key: bytes = KEY) -> bytes | None:
        (found,) = await self.owner.get_many([key])
        return None if found is None else found.value

    async def shards(self, blob: bytes = BLOB) -> list[ShardInfo]:
        (found,) = await self.node.locate([BlobId(blob)])
        return list(found)

    def fail(self, number: int) -> None:
        """Let a drive's flushes fail."""
        folder = self.node.reports()[number].path
        self.files.folder(Path(folder)).errors["fdatasync"] = errno.EIO


def play(folder: Path, scene: Callable[[Scene], Awaitable[None]]) -> None:
    async def run() -> None:
        files = FaultyFiles()
        flusher = HeldFlusher(files)
        owner = SqliteOwner(str(folder / "metadata"), SystemClock())
        node = await Node.open(
            node_config(folder),
            files,
            SystemClock(),
            SystemRandomness(),
            flusher=flusher,
            tended=False,
        )
        verbs = {**serve_node(node), **serve_metastore(owner), **serve_joint_puts(node, owner)}
        server = RpcServer(verbs, name="owner")
        await server.listen_unix(str(folder / "s"))
        rpc = await RpcClient.connect(str(folder / "s"), name="test")
        try:
            one = Scene(owner, node, rpc, files)
            one.flusher = flusher
            await scene(one)
        finally:
            await rpc.close()
            await server.close(drain_seconds=1)
            files.faults.clear()
            await node.close()
            await owner.close()

    asyncio.run(run())


def test_shards_and_record_are_there_afterwards(tmp_path: Path) -> None:
    async def scene(one: Scene) -> None:
        outcomes, result = await one.put()
        assert outcomes == (STORED,) * 3
        assert result is not None
        assert result.succeeded
        assert await one.value() == b"record"
        assert [info.length for info in await one.shards()] == [len(BODY)] * 3

    play(tmp_path, scene)


def test_nothing_is_committed_before_the_shards_are_durable(tmp_path: Path) -> None:
    async def scene(one: Scene) -> None:
        assert one.flusher is not None
        held = one.flusher.held = []
        put = asyncio.ensure_future(one.put())
        await eventually_async(lambda: bool(held))
        await one.owner.txn(Txn((), (Put(b"o/other", b""),)))  # a whole commit later
        assert await one.value() is None
        assert not put.done()
        held[0]()
        _, result = await put
        assert result is not None
        assert result.succeeded
        assert await one.value() == b"record"

    play(tmp_path, scene)


def test_without_all_shards_the_transaction_is_dropped(tmp_path: Path) -> None:
    async def scene(one: Scene) -> None:
        one.fail(1)
        outcomes, result = await one.put()
        assert outcomes == (STORED, FAILED, STORED)
        assert result is None
        assert await one.value() is None

    play(tmp_path, scene)


def test_a_refused_transaction_leaves_the_shards(tmp_path: Path) -> None:
    async def scene(one: Scene) -> None:
        outcomes, result = await one.put(Txn((exists(KEY),), (Put(KEY, b"record"),)))
        assert outcomes == (STORED,) * 3
        assert result is not None
        assert not result.succeeded
        twice = Txn((), (Put(KEY, b"1"), Put(KEY, b"2")))
        with pytest.raises(DuplicateKey):
            await one.put(twice, b"c" * 16)
        assert await one.value() is None
        assert len(await one.shards(BLOB)) == len(await one.shards(b"c" * 16)) == 3

    play(tmp_path, scene)


def test_an_answer_that_is_lost_leaves_both_unknown_and_may_be_asked_again(tmp_path: Path) -> None:
    async def scene(one: Scene) -> None:
        assert one.flusher is not None
        held = one.flusher.held = []
        put = asyncio.ensure_future(one.put())
        await eventually_async(lambda: bool(held))
        await one.rpc.close()
        with pytest.raises(OutcomeUnknown):
            await put
        one.flusher.held = None
        held[0]()
        again = await RpcClient.connect(str(tmp_path / "s"), name="test")
        try:
            outcomes, result = await JointPuts(again, "local").put_and_commit(
                one.puts(), [BODY], COMMIT
            )
        finally:
            await again.close()
        # Whether the first try was applied, after its caller had gone, is the owner's to decide.
        assert outcomes == (STORED,) * 3
        assert result is not None
        assert await one.value() == b"record"
        assert len(await one.shards()) == 3

    play(tmp_path, scene)


def test_messages_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    async def scene(one: Scene) -> None:
        (shard, *_) = one.puts()
        beyond = msgspec.structs.replace(shard, length=len(BODY) + 1)
        with pytest.raises(ValueError, match="cannot be put"):
            await one.joint.put_and_commit([beyond], [BODY], COMMIT)
        assert await one.value() is None

    play(tmp_path, scene)


# --- the gateway's side ---


class Answers:
    """A store's transactions, or a carrier's, each answered as the list says."""

    def __init__(self, *answers: TxnResult | Exception) -> None:
        self.answers = list(answers)
        self.arrived = False
        self.asked = 0

    async def txn(self, txn: Txn) -> TxnResult:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.arrived = True
        return answer


DONE = TxnResult(True, 7, ())
REFUSED = TxnResult(False, 7, ())
LOST = OutcomeUnknown("no answer")
LEFT = ShardsLeftBehind("a drive failed")


def attempt(carrier: Answers, store: Answers) -> Applied:
    class Soon(SystemClock):
        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(0)

    transactions = Transactions(store, clock=Soon(), randomness=SystemRandomness())  # type: ignore[arg-type]
    return asyncio.run(transactions.run(COMMIT, carrier))


def test_until_they_have_arrived_the_shards_go_with_every_try() -> None:
    carrier, store = Answers(LOST, LOST, DONE), Answers()
    assert attempt(carrier, store) == Applied(True, True, 7)
    assert (carrier.asked, store.asked) == (3, 0)


def test_once_they_have_arrived_transactions_go_alone() -> None:
    carrier, store = Answers(), Answers(DONE)
    carrier.arrived = True
    assert attempt(carrier, store) == Applied(True, True, 7)
    assert (carrier.asked, store.asked) == (0, 1)


def test_shards_left_behind_at_the_first_try_are_told() -> None:
    with pytest.raises(ShardsLeftBehind):
        attempt(Answers(LEFT), Answers())


def test_shards_left_behind_by_a_later_try_leave_the_first_one_unknown() -> None:
    """The first try may have made the object: whoever took it for undone would delete its shards."""
    with pytest.raises(OutcomeUnknown):
        attempt(Answers(LOST, LEFT), Answers())


def test_a_refusal_after_a_lost_answer_is_not_certain() -> None:
    assert attempt(Answers(LOST, REFUSED), Answers()) == Applied(False, False, 7)


class Gateway:
    """An object store whose small blobs travel with their transactions: two copies on three drives."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        drives = tuple(
            MapDrive(Slot(n), drive, "local", f"h{n}", "zone")
            for n, drive in enumerate(scene.drives)
        )
        self.map = ClusterMap(Epoch(1), drives, Scheme(2, 1))
        self.topology = Topology({"local": NodeClient(scene.rpc)}, scene.owner, SystemClock())
        self.store = ObjectStore(
            {"local": NodeClient(scene.rpc)},
            self.topology,
            SystemClock(),
            SystemRandomness(),
            joint=scene.joint,
        )
        self.transactions = Transactions(
            scene.owner, clock=SystemClock(), randomness=SystemRandomness()
        )
        self.carried: list[bool] = []

    async def put(self, previous: int = 0) -> BlobRef:
        """As PutObject does it; the record must be at that revision."""
        staged = await self.store.stage_bytes(b"ostraka" * 100)

        def build(ref: BlobRef) -> ObjectRecord:
            return ObjectRecord(
                owner="1",
                group=ref.blob,
                size_bytes=ref.size_bytes,
                etag=b"",
                modified_ms=0,
                commit_id=b"",
                data=ref,
            )

        async def publish(record: ObjectRecord, value: bytes, stored: Stored) -> BlobRef:
            self.carried.append(stored.carrier is not None)
            txn = Txn((unchanged(KEY, previous), *stored.compares), (Put(KEY, value), *stored.puts))
            if not (await self.transactions.run(txn, stored.carrier)).succeeded:
                raise PreconditionFailed("If-Match")
            assert record.data is not None
            return record.data

        return await commit_blob(self.store, staged, KEY, build, publish, along=True)

    async def drives_of(self, ref: BlobRef) -> set[DriveId]:
        return {info.drive for info in await self.scene.shards(ref.blob)}


def play_gateway(folder: Path, scene: Callable[[Gateway], Awaitable[None]]) -> None:
    async def run(one: Scene) -> None:
        gateway = Gateway(one)
        puts = (
            Put(keys.map_epoch(Epoch(1)), gateway.map.encode()),
            Put(keys.MAP_CURRENT, encode(MapCurrent(epoch=1))),
        )
        await one.owner.txn(Txn((), puts))
        await gateway.topology.start()
        try:
            await scene(gateway)
        finally:
            await gateway.store.close()
            await gateway.topology.close()

    play(folder, run)


def test_a_blob_travels_with_its_record(tmp_path: Path) -> None:
    async def scene(gateway: Gateway) -> None:
        ref = await gateway.put()
        assert gateway.carried == [True]
        assert await gateway.store.read_bytes(ref) == b"ostraka" * 100
        assert len(await gateway.drives_of(ref)) == 2

    play_gateway(tmp_path, scene)


def test_a_drive_that_fails_on_the_way_is_replaced_and_marked(tmp_path: Path) -> None:
    async def scene(gateway: Gateway) -> None:
        gateway.scene.fail(0)
        refs = []
        revision = 0
        while True:  # until one was to go to the failed drive
            refs.append(await gateway.put(revision))
            (found,) = await gateway.scene.owner.get_many([KEY])
            assert found is not None
            revision = found.mod_revision
            if False in gateway.carried:
                break
        assert gateway.carried[-2:] == [True, False]
        for ref in refs:
            there = await gateway.drives_of(ref)
            assert len(there) == 2
            assert gateway.scene.drives[0] not in there
            assert await gateway.store.read_bytes(ref) == b"ostraka" * 100
        partition = gateway.topology.partition(BlobId(refs[-1].blob))
        assert await gateway.scene.value(keys.damage(partition, Slot(0))) is not None

    play_gateway(tmp_path, scene)


def test_a_refused_record_leaves_no_shards(tmp_path: Path) -> None:
    async def scene(gateway: Gateway) -> None:
        with pytest.raises(PreconditionFailed):
            await gateway.put(previous=99)
        assert gateway.carried == [True]
        infos = [info for drive in gateway.scene.drives for info in await _all(gateway, drive)]
        assert infos == []

    play_gateway(tmp_path, scene)


async def _all(gateway: Gateway, drive: DriveId) -> list[ShardInfo]:
    return list(await gateway.scene.node.list(drive, None, 100))
