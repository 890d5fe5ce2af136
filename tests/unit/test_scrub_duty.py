"""The scrub over nodes in memory: what decayed is reported, what decodes wrongly is counted."""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import pytest

from gateway.metadata import keys
from gateway.metadata.records import BlobRef, ObjectRecord, encode
from ops.admin_cli import scrub_line
from ops.config import SCRUB_PASS_SECONDS
from ops.keeper.scrub import Scrub, pass_seconds
from placement.clock import SystemClock, SystemRandomness
from placement.codec import checksum_bytes, codec_for
from placement.errors import PeerUnavailable
from placement.ids import BlobId, DriveId
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import Put, Txn
from storage_node.port import Outcome, PutShard, ShardId, ShardInfo
from storage_node.shard import ShardEnvelope, decode_envelope, encode_envelope, is_intact
from tests.unit.memory_node import MemoryNode

DRIVES = [DriveId(bytes([n]) * 16) for n in range(1, 7)]
STRIPE = 4096
PARTITIONS = 64


class HandClock(SystemClock):
    """Time passes by sleeping, and by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def now_ns(self) -> int:
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.0)


def _cut(body: bytes, offset: int, length: int) -> bytes:
    return body[offset : offset + length]


class VerifyingNode(MemoryNode):
    """One that verifies as a real node does; `stubborn` shards cannot be verified at all."""

    stubborn: frozenset[ShardId] = frozenset()

    async def stat(
        self, shards: Sequence[tuple[DriveId, ShardId]], *, verify: bool = False
    ) -> tuple[ShardInfo | Outcome, ...]:
        if any(shard in self.stubborn for _, shard in shards):
            raise PeerUnavailable("the node refused STAT")
        answers = []
        for info in await super().stat(shards, verify=verify):
            if isinstance(info, ShardInfo):
                body, envelope = self.drives[info.drive].shards[info.shard]
                described = decode_envelope(envelope)
                if not is_intact(described, len(body), partial(_cut, body)):
                    info = Outcome.DAMAGED
            answers.append(info)
        return tuple(answers)


class Store:
    """Six drives with forty blobs; a scrub whose pass lasts a hundred seconds."""

    def __init__(self, *, decode_every: int = 1) -> None:
        self.clock = HandClock()
        self.metastore = MemoryMetastore(self.clock)
        self.node = VerifyingNode(DRIVES)
        self.decode_every = decode_every
        self.scrub = self.another()

    def another(self) -> Scrub:
        return Scrub(
            self.metastore,
            {"local": self.node},
            lambda: PARTITIONS,
            self.clock,
            SystemRandomness(),
            decode_every=self.decode_every,
        )

    async def store(self, number: int, *, encrypted: bool = False, etag: bytes = b"") -> BlobRef:
        chance = random.Random(number)
        k, size = (1, 4)[number % 2], (900, 4096, 9001, 60_000)[number % 4]
        ref = BlobRef(
            blob=chance.randbytes(16), k=k, m=2, stripe_size_bytes=STRIPE, size_bytes=size
        )
        data = chance.randbytes(size)
        bodies = [bytearray() for _ in range(k + 2)]
        for start in range(0, size, STRIPE):
            for index, piece in enumerate(codec_for(k, 2).encode(data[start : start + STRIPE])):
                bodies[index] += checksum_bytes(piece) + bytes(piece)
        record = ObjectRecord(
            owner="1", group=ref.blob, size_bytes=size, modified_ms=0, commit_id=b"", data=ref,
            etag=etag or hashlib.md5(data).digest(), encryption=b"e" if encrypted else b"",
        )  # fmt: skip
        for index, body in enumerate(bodies):
            envelope = encode_envelope(
                ShardEnvelope(ref.blob, ref.blob, index, k, 2, STRIPE, size, b"o/1", encode(record))
            )
            shard = ShardId(BlobId(ref.blob), index)
            put = PutShard(
                DRIVES[(number + index) % 6], shard.blob, shard.index, envelope, 0, len(body)
            )
            await self.node.put([put], [bytes(body)])
        return ref

    def where(self, ref: BlobRef, index: int) -> tuple[DriveId, ShardId]:
        shard = ShardId(BlobId(ref.blob), index)
        return next(d for d in DRIVES if shard in self.node.drives[d].shards), shard

    def falsify(self, ref: BlobRef, index: int) -> None:
        """Other bytes with a checksum that fits."""
        drive, shard = self.where(ref, index)
        body, envelope = self.node.drives[drive].shards[shard]
        size = len(body) - 8 if ref.size_bytes <= STRIPE else -(-STRIPE // ref.k)
        piece = bytes(size)
        changed = checksum_bytes(piece) + piece + body[8 + size :]
        self.node.drives[drive].shards[shard] = (changed, envelope)

    async def one_pass(self) -> None:
        number = self.scrub.progress.number or 1
        for _ in range(1_000):
            if not await self.scrub.work():
                self.clock.now += 10
            if self.scrub.progress.number > number:
                return
        raise AssertionError("no pass ends")

    @property
    def shards(self) -> int:
        return sum(len(drive.shards) for drive in self.node.drives.values())


@pytest.fixture(autouse=True)
def _quick_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCRUB_PASS_SECONDS, "100")


def run(scenario: Callable[[Store, list[BlobRef]], Awaitable[None]]) -> None:
    async def main() -> None:
        store = Store()
        await scenario(store, [await store.store(number) for number in range(40)])

    asyncio.run(main())


def test_a_pass_verifies_every_shard_once_and_decodes_every_blob_of_its_draw() -> None:
    async def scenario(store: Store, refs: list[BlobRef]) -> None:
        await store.one_pass()
        progress = store.scrub.progress
        assert progress.shards == store.shards
        assert progress.bytes == sum(
            len(body) for drive in store.node.drives.values() for body, _ in drive.shards.values()
        )
        assert progress.decoded == len(refs)
        assert (progress.damaged, progress.different, progress.skipped) == (0, 0, 0)
        assert store.node.reported == []
        assert 100 <= store.clock.now - 1_000 < 200

    run(scenario)


def test_status_tells_people_how_far_it_is() -> None:
    async def scenario(store: Store, _: list[BlobRef]) -> None:
        await store.scrub.work()
        store.clock.now += 86_400 * 2
        assert scrub_line(store.scrub.told()) == (
            "scrub: pass 1 at 0%, 0 shards verified, 0 damaged, 0 of 0 decoded blobs differ,"
            " oldest check 2.0 days ago"
        )
        await store.one_pass()
        told = store.scrub.told()
        assert told["oldest_age_seconds"] < 86_400
        assert scrub_line(told).startswith(f"scrub: pass 2 at 0%, {store.shards} shards verified")

    run(scenario)


def test_what_decayed_is_reported_to_its_node_and_nothing_else() -> None:
    async def scenario(store: Store, refs: list[BlobRef]) -> None:
        decayed = [store.where(refs[n], index) for n, index in ((3, 4), (2, 0), (11, 5))]
        for drive, shard in decayed:
            store.node.drives[drive].flip(shard, 100)
        await store.one_pass()
        assert set(store.node.reported) == set(decayed)
        assert store.scrub.progress.damaged == 3
        assert store.scrub.progress.different == 0  # damage is no proof of a wrong blob

    run(scenario)


@pytest.mark.parametrize(("number", "encrypted"), [(41, False), (40, False), (41, True)])
def test_a_blob_that_decodes_to_other_bytes_is_counted_though_its_shards_are_intact(
    number: int, encrypted: bool
) -> None:
    async def scenario(store: Store, _: list[BlobRef]) -> None:
        ref = await store.store(number, encrypted=encrypted)
        for _round in range(30):  # until the chosen shards are among those drawn
            store.falsify(ref, 0)
            await store.one_pass()
            if store.scrub.progress.different:
                break
        assert store.scrub.progress.different == 1
        assert store.scrub.progress.damaged == 0

    run(scenario)


def test_encrypted_bytes_are_not_compared_with_an_etag_of_other_bytes() -> None:
    async def scenario(store: Store, refs: list[BlobRef]) -> None:
        await store.store(41, encrypted=True, etag=bytes(16))
        await store.one_pass()
        assert store.scrub.progress.different == 0
        assert store.scrub.progress.decoded == len(refs) + 1

    run(scenario)


def test_another_keeper_goes_on_where_one_stopped_and_two_do_not_undo_each_other() -> None:
    async def scenario(store: Store, _: list[BlobRef]) -> None:
        while store.scrub.progress.partition < PARTITIONS // 2:
            if not await store.scrub.work():
                store.clock.now += 5
        first, second = store.scrub, store.another()
        await second.work()
        assert second.progress.partition >= first.progress.partition
        assert second.progress.shards < store.shards
        store.clock.now += 5
        states = await asyncio.gather(first.work(), second.work())
        assert states.count(True) <= 1
        store.scrub = second
        await store.one_pass()
        assert store.shards <= first.progress.shards + second.progress.shards < store.shards * 2

    run(scenario)


def test_a_shard_that_its_node_cannot_verify_holds_nothing_up() -> None:
    async def scenario(store: Store, refs: list[BlobRef]) -> None:
        _, shard = store.where(refs[7], 1)
        store.node.stubborn = frozenset({shard})
        await store.one_pass()
        assert store.scrub.progress.skipped == 1
        assert store.scrub.progress.shards == store.shards - 1

    run(scenario)


def test_a_node_that_is_away_is_waited_for() -> None:
    async def scenario(store: Store, _: list[BlobRef]) -> None:
        await store.scrub.work()
        store.clock.now += 30
        store.node.down = True
        with pytest.raises(PeerUnavailable):
            await store.scrub.work()
        store.node.down = False
        await store.one_pass()
        assert store.scrub.progress.shards == store.shards

    run(scenario)


def test_large_shards_are_verified_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.keeper.scrub.IN_PLACE_SIZE_BYTES_MAX", 100)
    monkeypatch.setattr("ops.keeper.scrub.CALL_SIZE_BYTES", 100)

    async def scenario(store: Store, refs: list[BlobRef]) -> None:
        drive, shard = store.where(refs[3], 2)
        store.node.drives[drive].flip(shard, 5_000)
        await store.one_pass()
        assert store.node.reported.count((drive, shard)) >= 1
        assert store.scrub.progress.damaged == 1
        assert store.scrub.progress.shards == store.shards

    run(scenario)


def test_progress_that_cannot_be_read_or_is_of_other_partitions_begins_anew() -> None:
    async def scenario(store: Store, _: list[BlobRef]) -> None:
        await store.metastore.txn(Txn((), (Put(keys.SCRUB, b"\xff??"),)))
        await store.one_pass()
        assert store.scrub.progress.shards == store.shards

    run(scenario)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("5", 5.0), ("0.5", 1_209_600.0), ("soon", 1_209_600.0), ("nan", 1_209_600.0)],
)
def test_the_length_of_a_pass_comes_from_the_environment(
    said: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SCRUB_PASS_SECONDS, said)
    assert pass_seconds() == seconds
