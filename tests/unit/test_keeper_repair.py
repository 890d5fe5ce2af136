"""Repair over nodes in memory: what is missing is rebuilt on drives of their own, and brought home."""

import asyncio
import dataclasses
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest

from gateway.metadata import keys
from gateway.metadata.records import BlobRef, GarbageRecord, ObjectRecord, decode, encode
from gateway.objects.errors import BlobOutOfReach
from ops.keeper.inventory import find
from ops.keeper.repair import Repair, View
from ops.keeper.sweep import Sweep
from placement.clock import SystemClock
from placement.cluster_map import ClusterMap, DriveState, MapDrive
from placement.codec import checksum_bytes, codec_for
from placement.errors import PeerUnavailable
from placement.hashing import Placement
from placement.ids import BlobId, BucketId, DriveId, Epoch, Partition, Slot
from placement.leadership import NO_TERM
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import DeleteRange, Put, Range, RangeResult, Txn
from placement.schemes import Scheme
from storage_node.port import Outcome, PutShard, ShardId, ShardInfo
from storage_node.shard import ShardEnvelope, decode_envelope, encode_envelope
from tests.unit.memory_node import MemoryNode

DRIVES = [DriveId(bytes([n]) * 16) for n in range(1, 7)]
STRIPE = 4096


class SettableClock(SystemClock):
    """Monotonic time that a test moves."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


class Cluster:
    """Six drives on one node, and objects whose shards are all where they belong."""

    def __init__(self) -> None:
        places = tuple(
            MapDrive(Slot(n), drive, "local", "local", "local") for n, drive in enumerate(DRIVES)
        )
        self.placement = Placement(ClusterMap(Epoch(1), places, Scheme(4, 2, STRIPE)))
        self.node = MemoryNode(DRIVES)
        self.clock = SettableClock()
        self.metastore = MemoryMetastore(SystemClock())
        self.live = frozenset(DRIVES)
        self.waits: frozenset[DriveId] = frozenset()
        self.term = 7
        self.refs: list[BlobRef] = []
        self.repair = Repair(
            self.metastore,
            None,  # type: ignore[arg-type]  # no manifests here
            {"local": self.node},
            lambda: View(self.placement, self.live, self.waits),
            self.clock,
            term=lambda: self.term,
        )

    async def store(self, number: int, k: int, size: int) -> None:
        """One object of that many bytes under k+2."""
        chance = random.Random(number)
        ref = BlobRef(
            blob=chance.randbytes(16), k=k, m=2, stripe_size_bytes=STRIPE, size_bytes=size
        )
        data = chance.randbytes(size)
        bodies = [bytearray() for _ in range(k + 2)]
        for start in range(0, size, STRIPE):
            for index, piece in enumerate(codec_for(k, 2).encode(data[start : start + STRIPE])):
                bodies[index] += checksum_bytes(piece) + bytes(piece)
        key = keys.object_(BucketId(bytes(8)), b"%d" % number)
        record = ObjectRecord(
            owner="1", group=ref.blob, size_bytes=size, etag=b"", modified_ms=0, commit_id=b"",
            data=ref,
        )  # fmt: skip
        order = self.placement.write_order(BlobId(ref.blob))
        for index, body in enumerate(bodies):
            envelope = encode_envelope(
                ShardEnvelope(ref.blob, ref.blob, index, k, 2, STRIPE, size, key, encode(record))
            )
            shard = PutShard(order[index].drive_id, BlobId(ref.blob), index, envelope, 0, len(body))
            await self.node.put([shard], [bytes(body)])
        await self.metastore.txn(Txn((), (Put(key, encode(record)),)))
        self.refs.append(ref)

    def wipe(self, *drives: DriveId) -> None:
        """These drives lose what they hold and are away."""
        for drive in drives:
            self.node.drives[drive].shards.clear()
        self.live -= set(drives)

    def bodies(self) -> dict[ShardId, bytes]:
        """Every shard on any drive."""
        return {
            shard: body
            for drive in self.node.drives.values()
            for shard, (body, _) in drive.shards.items()
        }


def run(scenario: Callable[[Cluster], Awaitable[None]], objects: int = 40) -> None:
    async def main() -> None:
        cluster = Cluster()
        for number in range(objects):
            await cluster.store(number, 1 if number % 2 else 4, (0, 900, 4096, 9001)[number % 4])
        await scenario(cluster)

    asyncio.run(main())


def test_two_shards_of_a_blob_are_never_rebuilt_on_one_drive() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.wipe(DRIVES[0], DRIVES[3])
        await cluster.repair.work()
        for found in await find(cluster.refs, {"local": cluster.node}):
            held = [holding.drive for where in found.shards.values() for holding in where]
            assert len(held) == len(set(held))
            # Copies find spare drives; four plus two has none to spare, and says so.
            assert found.tolerance == (2 if found.ref.k == 1 else 0)
        assert cluster.repair.progress.pending > 0
        assert cluster.repair.progress.tolerance == 0

    run(scenario)


@pytest.mark.parametrize("pair", [(0, 1), (2, 5), (3, 4)])
def test_drives_that_come_back_empty_get_every_shard_home(pair: tuple[int, int]) -> None:
    async def scenario(cluster: Cluster) -> None:
        before = cluster.bodies()
        cluster.wipe(*(DRIVES[n] for n in pair))
        await cluster.repair.work()
        cluster.live = frozenset(DRIVES)
        assert cluster.repair.progress.pending_with(cluster.live) > 0
        await cluster.repair.work()
        assert cluster.repair.progress.pending_with(cluster.live) == 0
        assert cluster.repair.progress.tolerance == 2
        assert cluster.bodies() == before
        for found in await find(cluster.refs, {"local": cluster.node}):
            order = cluster.placement.write_order(BlobId(found.ref.blob))
            for index, held in found.shards.items():
                assert [h.drive for h in held] == [order[index].drive_id]

    run(scenario)


def test_what_cannot_be_read_is_counted_and_not_invented() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.wipe(*DRIVES[:3])
        cluster.live = frozenset(DRIVES)
        await cluster.repair.work()
        assert cluster.repair.progress.unreadable > 0
        assert cluster.repair.progress.pending > 0

    run(scenario)


class NoLists:
    """Objects whose lists of parts cannot be read."""

    async def read_bytes(self, ref: BlobRef) -> bytes:
        raise BlobOutOfReach("away")


def test_a_list_of_parts_that_cannot_be_read_holds_up_nothing_but_the_end_of_moves() -> None:
    async def scenario(cluster: Cluster) -> None:
        listed = keys.object_(BucketId(bytes(8)), b"0-listed")
        lost = BlobRef(blob=bytes(16), k=4, m=2, stripe_size_bytes=STRIPE, size_bytes=9)
        record = ObjectRecord(
            owner="1", group=lost.blob, size_bytes=1, etag=b"", modified_ms=0, commit_id=b"",
            manifest=lost,
        )  # fmt: skip
        await cluster.metastore.txn(Txn((), (Put(listed, encode(record)),)))
        cluster.repair = Repair(
            cluster.metastore,
            NoLists(),  # type: ignore[arg-type]
            {"local": cluster.node},
            lambda: View(cluster.placement, cluster.live, cluster.waits),
            cluster.clock,
            term=lambda: cluster.term,
        )
        for drive in (DRIVES[0], DRIVES[1]):
            cluster.node.drives[drive].shards.clear()
        await cluster.repair.work()
        assert cluster.repair.progress.unlisted == 1
        assert cluster.repair.progress.unreadable == 1
        assert not cluster.repair.progress.due
        for ref in cluster.refs:
            (blob,) = await find([ref], {"local": cluster.node})
            assert blob.missing == ()
        census = cluster.repair.census.told(cluster.live)
        assert census is not None
        assert census["by_tolerance"]["lost"]["blobs"] == 1
        await cluster.metastore.txn(Txn((), (DeleteRange(listed),)))
        cluster.clock.seconds += 1000
        await cluster.repair.work()  # what could not be read is looked at again
        assert cluster.repair.progress.unlisted == 0

    run(scenario)


@pytest.mark.parametrize("home_is_whole", [True, False])
def test_a_second_shard_of_an_index_goes_only_beside_a_whole_one_at_home(
    home_is_whole: bool,
) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.repair.work()
        ref = next(ref for ref in cluster.refs if ref.k == 1 and ref.size_bytes)
        order = cluster.placement.write_order(BlobId(ref.blob))
        shard = ShardId(BlobId(ref.blob), 0)
        home, spare = cluster.node.drives[order[0].drive_id], cluster.node.drives[order[4].drive_id]
        spare.shards[shard] = home.shards[shard]
        if not home_is_whole:

            async def damaged(shards: Sequence[object], *, verify: bool = False) -> list[Outcome]:
                assert verify
                return [Outcome.DAMAGED for _ in shards]

            cluster.node.stat = damaged  # type: ignore[method-assign,assignment]
        cluster.repair.progress.due = True
        await cluster.repair.work()
        assert (shard in spare.shards) is not home_is_whole

    run(scenario)


def test_what_a_drive_holds_that_is_waited_for_is_not_rebuilt_elsewhere() -> None:
    async def scenario(cluster: Cluster) -> None:
        before = cluster.bodies()
        lost = DRIVES[2]
        cluster.wipe(lost)
        cluster.waits = frozenset({lost})
        await cluster.repair.work()
        assert cluster.repair.progress.rebuilt == 0
        assert cluster.repair.progress.tolerance == 1
        assert cluster.repair.progress.pending > 0
        mark = keys.damage(Partition(3), Slot(2))
        await cluster.metastore.txn(Txn((), (Put(mark, b""),)))
        assert not await cluster.repair.marks()  # it is about the drive that is waited for
        other = keys.damage(Partition(3), Slot(1))
        await cluster.metastore.txn(Txn((), (Put(other, b""),)))
        assert await cluster.repair.marks()
        await cluster.repair.work()
        left = await cluster.metastore.get_many([mark, other])
        assert [kv is not None for kv in left] == [True, False]
        cluster.waits = frozenset()
        cluster.live = frozenset(DRIVES)
        await cluster.repair.work()
        assert cluster.bodies() == before
        assert cluster.repair.progress.pending_with(cluster.live) == 0

    run(scenario)


def test_a_drive_that_went_and_came_back_within_an_inventory_is_looked_at_again() -> None:
    """Else nobody would ever count on what it holds, nor bring home what lies there."""

    async def scenario(cluster: Cluster) -> None:
        await cluster.repair.work()
        away, locate, read = DRIVES[2], cluster.node.locate, cluster.metastore.range

        async def without_it(blobs: Sequence[BlobId]) -> tuple[tuple[ShardInfo, ...], ...]:
            cluster.live, cluster.waits = frozenset(DRIVES) - {away}, frozenset({away})
            found = await locate(blobs)
            return tuple(tuple(info for info in infos if info.drive != away) for infos in found)

        async def with_it_again(wanted: Range) -> RangeResult:
            if wanted.key.startswith(keys.REFERENCES):  # behind the objects
                cluster.live, cluster.waits = frozenset(DRIVES), frozenset()
                cluster.node.locate = locate  # type: ignore[method-assign]
            return await read(wanted)

        cluster.node.locate = without_it  # type: ignore[method-assign]
        cluster.metastore.range = with_it_again  # type: ignore[method-assign,assignment]
        cluster.repair.progress.due = True
        await cluster.repair.work()
        assert cluster.repair.progress.missing
        await cluster.repair.work()
        assert cluster.repair.progress.pending_with(cluster.live) == 0
        assert cluster.repair.progress.tolerance == 2

    run(scenario)


def test_what_an_inventory_could_not_ask_is_told_until_one_has_asked_it() -> None:
    """A drive that is draining and the one that takes over from it, away together and one after the
    other: as long as one of them may come back, nobody knows that the moves are done."""

    async def scenario(cluster: Cluster) -> None:
        await cluster.repair.work()
        assert cluster.repair.progress.unseen == frozenset()
        leaving, home = DRIVES[5], DRIVES[0]
        locate = cluster.node.locate
        drives = tuple(
            dataclasses.replace(d, state=DriveState.DRAINING) if d.drive_id == leaving else d
            for d in cluster.placement.map.drives
        )
        cluster.placement = Placement(
            ClusterMap(Epoch(2), drives, Scheme(4, 2, STRIPE), open_epochs=(Epoch(1),))
        )
        away: set[DriveId] = set()

        async def of_those_there(blobs: Sequence[BlobId]) -> tuple[tuple[ShardInfo, ...], ...]:
            found = await locate(blobs)
            return tuple(tuple(i for i in infos if i.drive not in away) for infos in found)

        cluster.node.locate = of_those_there  # type: ignore[method-assign]

        async def look(*gone: DriveId) -> frozenset[DriveId]:
            away.clear()
            away.update(gone)
            cluster.live, cluster.waits = frozenset(DRIVES) - away, frozenset(gone)
            await cluster.repair.work()
            return cluster.repair.progress.unseen

        assert await look(leaving, home) == {leaving, home}
        assert await look(leaving) == {leaving}
        assert await look() == frozenset()
        # What has a drive left to go to has gone there.
        for found in await find(cluster.refs, {"local": cluster.node}):
            if found.ref.k == 1:
                assert leaving not in found.drives
                assert found.tolerance == 2

    run(scenario)


def test_what_could_not_be_thinned_out_is_tried_again_by_and_by() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.repair.work()
        ref = next(ref for ref in cluster.refs if ref.k == 1 and ref.size_bytes)
        order = cluster.placement.write_order(BlobId(ref.blob))
        shard = ShardId(BlobId(ref.blob), 0)
        home, spare = cluster.node.drives[order[0].drive_id], cluster.node.drives[order[4].drive_id]
        spare.shards[shard] = home.shards[shard]
        cluster.repair.progress.due = True
        delete, cluster.node.delete = cluster.node.delete, _unreachable  # type: ignore[method-assign,assignment]
        await cluster.repair.work()
        assert cluster.repair.progress.misplaced == 1
        cluster.node.delete = delete  # type: ignore[method-assign]
        await cluster.repair.work()  # too soon
        assert shard in spare.shards
        cluster.clock.seconds += 3600.0
        await cluster.repair.work()
        assert shard not in spare.shards
        assert not cluster.repair.progress.misplaced
        cluster.clock.seconds += 3600.0
        assert not await cluster.repair.work()

    run(scenario)


def test_what_was_seen_before_another_led_counts_no_more() -> None:
    async def scenario(cluster: Cluster) -> None:
        def seen() -> tuple[bool, int]:
            return cluster.repair.progress.due, cluster.repair.progress.epoch

        await cluster.repair.work()
        assert seen() == (False, 1)
        cluster.repair.begin_anew()
        assert seen() == (True, 0)
        # Nor what an inventory finds that began before.
        located = cluster.node.locate

        async def led_meanwhile(blobs: Sequence[BlobId]) -> tuple[tuple[ShardInfo, ...], ...]:
            cluster.repair.begin_anew()
            return await located(blobs)

        cluster.node.locate = led_meanwhile  # type: ignore[method-assign]
        await cluster.repair.work()
        assert seen() == (True, 0)
        cluster.node.locate = located  # type: ignore[method-assign]
        await cluster.repair.work()
        assert seen() == (False, 1)

    run(scenario)


def test_who_may_not_lead_any_more_deletes_no_shard_of_a_blob_in_use() -> None:
    async def scenario(cluster: Cluster) -> None:
        ref = next(ref for ref in cluster.refs if ref.k == 1 and ref.size_bytes)
        order = cluster.placement.write_order(BlobId(ref.blob))
        shard = ShardId(BlobId(ref.blob), 0)
        home, spare = cluster.node.drives[order[0].drive_id], cluster.node.drives[order[4].drive_id]
        spare.shards[shard] = home.shards[shard]
        cluster.term = NO_TERM
        await cluster.repair.work()
        assert shard in spare.shards
        # Nor one that another keeper led in the middle of, though this one leads again.
        cluster.term = 8
        located = cluster.node.locate

        async def led_meanwhile(blobs: Sequence[BlobId]) -> tuple[tuple[ShardInfo, ...], ...]:
            cluster.term = 9
            return await located(blobs)

        cluster.node.locate = led_meanwhile  # type: ignore[method-assign]
        await cluster.repair.work()
        assert shard in spare.shards
        cluster.node.locate = located  # type: ignore[method-assign]
        cluster.repair.progress.due = True
        await cluster.repair.work()
        assert shard not in spare.shards

    run(scenario)


def test_nodes_learn_of_the_term_before_they_are_asked_what_they_hold() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.repair.work()
        assert cluster.node.term == 7
        assert cluster.node.calls.index("begin_term") < cluster.node.calls.index("locate")
        assert cluster.node.calls.count("begin_term") == 1
        cluster.repair.progress.due = True
        await cluster.repair.work()
        assert cluster.node.calls.count("begin_term") == 2  # it may have started anew

    run(scenario)


@pytest.mark.parametrize("places", [(3, 1, 2, 0, 4, 5), (1, 2, 0, 4, 3, 5), (1, 2, 3, 4, 5, 0)])
def test_shards_that_lie_in_each_others_places_go_home_with_none_missing_meanwhile(
    places: tuple[int, ...],
) -> None:
    """No drive of their own is free for any of them; nor is there a spare one."""

    async def scenario(cluster: Cluster) -> None:
        before = cluster.bodies()
        ref = next(ref for ref in cluster.refs if ref.k == 4 and ref.size_bytes)
        order = cluster.placement.write_order(BlobId(ref.blob))
        held = [cluster.node.drives[drive.drive_id].shards for drive in order]
        shards = [ShardId(BlobId(ref.blob), index) for index in range(6)]
        taken = [held[index].pop(shards[index]) for index in range(6)]
        for index, place in enumerate(places):
            held[place][shards[index]] = taken[index]
        delete = cluster.node.delete

        async def watched(wanted: Sequence[tuple[DriveId, ShardId]]) -> tuple[Outcome, ...]:
            done = await delete(wanted)
            (found,) = await find([ref], {"local": cluster.node})
            assert found.tolerance == 2
            return done

        cluster.node.delete = watched  # type: ignore[method-assign,assignment]
        await cluster.repair.work()
        assert cluster.repair.progress.misplaced == 0
        assert cluster.bodies() == before
        for index, shard in enumerate(shards):
            assert [n for n in range(6) if shard in held[n]] == [index]

    run(scenario)


@pytest.mark.parametrize("seed", range(60))
def test_wherever_shards_lie_they_all_come_home_and_nothing_is_risked_meanwhile(seed: int) -> None:
    """Second shards, several on a drive, shards in each other's places, in any mixture: what cannot go
    home would keep an epoch open, and with it the map as it is."""

    async def scenario(cluster: Cluster) -> None:
        chance = random.Random(seed)
        before = cluster.bodies()
        borne = {}
        for ref in cluster.refs:
            scatter(cluster, ref, chance)
            borne[ref.blob] = await losses_borne(cluster, ref)
        delete = cluster.node.delete

        async def watched(wanted: Sequence[tuple[DriveId, ShardId]]) -> tuple[Outcome, ...]:
            done = await delete(wanted)
            for ref in cluster.refs:
                if any(shard.blob == ref.blob for _, shard in wanted):
                    now = await losses_borne(cluster, ref)
                    assert now >= min(borne[ref.blob], ref.m)
            return done

        cluster.node.delete = watched  # type: ignore[method-assign,assignment]
        for _ in range(4):
            await cluster.repair.work()
            cluster.clock.seconds += 3600.0
        assert not cluster.repair.progress.due
        assert cluster.repair.progress.misplaced == 0
        assert cluster.bodies() == before
        for found in await find(cluster.refs, {"local": cluster.node}):
            order = cluster.placement.write_order(BlobId(found.ref.blob))
            for index, held in found.shards.items():
                assert [h.drive for h in held] == [order[index].drive_id]

    run(scenario, objects=6)


def test_a_second_shard_does_not_hide_that_two_lie_in_each_others_places() -> None:
    """A copy that was being moved when the power went, twice over: three copies on four drives."""

    async def scenario(cluster: Cluster) -> None:
        ref = next(ref for ref in cluster.refs if ref.k == 1 and ref.size_bytes)
        order = cluster.placement.write_order(BlobId(ref.blob))
        held = [cluster.node.drives[drive.drive_id].shards for drive in order]
        first, second = (ShardId(BlobId(ref.blob), index) for index in (1, 2))
        held[2][first], held[1][second] = held[1].pop(first), held[2].pop(second)
        held[4][first] = held[2][first]
        await cluster.repair.work()
        assert cluster.repair.progress.misplaced == 0
        assert [n for n in range(6) if first in held[n]] == [1]
        assert [n for n in range(6) if second in held[n]] == [2]

    run(scenario)


def scatter(cluster: Cluster, ref: BlobRef, chance: random.Random) -> None:
    """The blob's shards somewhere: each on one drive or more, a drive of its own or not."""
    drives = list(cluster.node.drives.values())
    at_home = [
        (drive, shard) for drive in drives for shard in drive.shards if shard.blob == ref.blob
    ]
    shards = {shard: drive.shards.pop(shard) for drive, shard in at_home}
    apart = chance.sample(drives, len(shards))
    for (shard, content), own in zip(shards.items(), apart, strict=True):
        places = [own if chance.random() < 0.8 else chance.choice(drives)]
        places += chance.sample(drives, chance.choice([0, 0, 0, 1, 2]))
        for drive in places:
            drive.shards[shard] = content


async def losses_borne(cluster: Cluster, ref: BlobRef) -> int:
    """The most drives of which any may be lost together with the blob still readable."""
    (found,) = await find([ref], {"local": cluster.node})
    for count in range(1, len(DRIVES) + 1):
        for lost in itertools.combinations(DRIVES, count):
            left = sum(not set(places) <= set(lost) for places in found.places.values())
            if left < ref.k:
                return count - 1
    raise AssertionError("a blob needs some drive")


async def _unreachable(*_: object) -> tuple[Outcome, ...]:
    raise PeerUnavailable("the connection broke")


def test_a_decayed_envelope_stops_neither_repair_nor_sweep() -> None:
    async def scenario(cluster: Cluster) -> None:
        ref = next(ref for ref in cluster.refs if ref.k == 4 and ref.size_bytes)
        order = cluster.placement.write_order(BlobId(ref.blob))
        lost = ShardId(BlobId(ref.blob), 5)
        decayed = {(order[i].drive_id, ShardId(BlobId(ref.blob), i)) for i in range(4)}
        for drive, shard in decayed:
            shards = cluster.node.drives[drive].shards
            shards[shard] = (shards[shard][0], b"\xff decayed")
        del cluster.node.drives[order[5].drive_id].shards[lost]
        await cluster.repair.work()
        assert lost in cluster.node.drives[order[5].drive_id].shards
        assert set(cluster.node.reported) <= decayed
        cluster.node.reported.clear()
        sweep = Sweep(cluster.metastore, {"local": cluster.node}, cluster.clock)
        cluster.clock.seconds += 3600.0
        await sweep.work()
        assert set(cluster.node.reported) == decayed
        assert (sweep.progress.passes, sweep.progress.removed) == (1, 0)

    run(scenario)


def test_a_damaged_shard_is_rebuilt_while_only_a_copy_uses_it_and_its_group_is_queued() -> None:
    async def scenario(cluster: Cluster) -> None:
        ref = next(ref for ref in cluster.refs if ref.k == 4 and ref.size_bytes)
        order = cluster.placement.write_order(BlobId(ref.blob))
        shard = ShardId(BlobId(ref.blob), 1)
        drive = cluster.node.drives[order[1].drive_id]
        owner = decode_envelope(drive.shards[shard][1]).owner_key
        copied = keys.object_(BucketId(bytes(8)), b"copy")
        (found,) = await cluster.metastore.get_many([owner])
        assert found is not None
        record = msgspec.structs.replace(decode(ObjectRecord, found.value), group_owner=owner)
        queued = GarbageRecord(commit_id=b"", queued_ms=0, group=ref.blob, owner_key=owner)
        operations = (
            Put(copied, encode(record)),
            Put(keys.reference(ref.blob, copied), b""),
            DeleteRange(owner),
            Put(keys.garbage(ref.blob), encode(queued)),
        )
        await cluster.metastore.txn(Txn((), operations))
        await cluster.repair.work()
        body = drive.shards.pop(shard)
        cluster.node.reported = [(drive.drive_id, shard)]
        await cluster.repair.work()
        assert drive.shards[shard] == body

    run(scenario)
