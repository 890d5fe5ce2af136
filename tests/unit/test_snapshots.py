"""Snapshots of the metadata: what the duty writes to nodes in memory gives the key space back."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace

import pytest

from gateway.metadata import keys
from gateway.metadata.records import MapCurrent, RecordError, decode, encode
from gateway.metadata.snapshots import (
    CHANGES,
    PAGES,
    RebuiltRecord,
    SnapshotPart,
    SnapshotState,
    decode_changes,
    encode_changes,
    is_copied,
)
from gateway.objects.store import ObjectStore
from gateway.objects.topology import Topology
from ops.admin_cli import snapshot_line
from ops.config import SNAPSHOT_SECONDS
from ops.keeper import snapshot as duty
from ops.keeper.inventory import blobs
from ops.keeper.snapshot import Snapshot
from ops.keeper.sweep import Sweep
from ops.keeper.usage import Usage, usage_of
from ops.keeper_process import Duties
from ops.rebuild.plan import plans
from ops.rebuild.restore import Identity, Restored, claim_store, confirm, restore
from ops.refusal import Refused
from placement.cluster_map import ClusterMap, MapDrive
from placement.errors import PeerUnavailable
from placement.ids import DriveId, Epoch, Slot
from placement.membership import CLUSTER, cluster_record, node_key
from placement.membership import encode as encode_membership
from placement.metastore.execution import EVERYTHING_AFTER
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import DeleteRange, Put, Range, Txn, prefix_end
from placement.schemes import Scheme
from storage_node.port import Outcome, ShardId
from storage_node.shard import decode_envelope
from tests.unit.memory_node import MemoryNode
from tests.unit.metadata_doubles import SeededRandomness
from tests.unit.test_scrub_duty import HandClock

DRIVES = [DriveId(bytes([n]) * 16) for n in range(1, 7)]
CLUSTER_ID, CLUSTER_KEY = b"c" * 16, b"k" * 32
IDENTITY = Identity(CLUSTER_ID, 2, CLUSTER_KEY)


class Store:
    """Six drives, a metadata store of some hundred keys, and the duty with small parts."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.metastore = MemoryMetastore(self.clock)
        self.node = MemoryNode(DRIVES)
        self.nodes = {"n": self.node}
        self.chance = random.Random(7)
        self.topology = Topology(self.nodes, self.metastore, self.clock)
        self.objects = ObjectStore(
            self.nodes, self.topology, self.clock, SeededRandomness(1), buffers=1
        )
        self.duty = self.another()

    def another(self) -> Snapshot:
        return Snapshot(self.metastore, self.objects, self.clock, SeededRandomness(2))

    async def begin(self) -> None:
        drives = tuple(MapDrive(Slot(i), d, "n", "h", "z") for i, d in enumerate(DRIVES))
        cluster = ClusterMap(Epoch(1), drives, Scheme(4, 2))
        record = cluster_record(CLUSTER_ID, 1, CLUSTER_KEY)
        await self.put(
            {
                keys.map_epoch(Epoch(1)): cluster.encode(),
                keys.MAP_CURRENT: encode(MapCurrent(epoch=1)),
                CLUSTER: encode_membership(record),
            }
        )
        await self.topology.refresh()
        await self.topology.poll()

    async def put(self, kvs: dict[bytes, bytes]) -> None:
        items = list(kvs.items())
        for start in range(0, len(items), 100):
            puts = tuple(Put(key, value) for key, value in items[start : start + 100])
            await self.metastore.txn(Txn((), puts))

    async def fill(self, count: int, prefix: bytes = b"j/") -> None:
        await self.put({prefix + b"%06d" % n: self.chance.randbytes(60) for n in range(count)})

    async def content(self) -> dict[bytes, bytes]:
        return await content(self.metastore)

    async def work(self, duty: Snapshot | None = None, times: int = 200) -> None:
        """Until there is nothing to do at once, and what was read is written."""
        for _ in range(3):
            for _ in range(times):
                if not await (duty or self.duty).work():
                    break
            else:
                raise AssertionError("the duty does not come to an end")
            self.clock.now += 31

    async def state(self) -> SnapshotState:
        (found,) = await self.metastore.get_many([keys.SNAPSHOT])
        assert found is not None
        return decode(SnapshotState, found.value)

    def parts(self) -> dict[tuple[int, int], tuple[SnapshotPart, list[tuple[DriveId, ShardId]]]]:
        found: dict[tuple[int, int], tuple[SnapshotPart, list[tuple[DriveId, ShardId]]]] = {}
        for drive in self.node.drives.values():
            for shard, (_, envelope) in drive.shards.items():
                record = decode(SnapshotPart, decode_envelope(envelope).record)
                place = found.setdefault((record.number, record.part), (record, []))
                place[1].append((drive.drive_id, shard))
        return found

    async def rebuilt(self) -> tuple[dict[bytes, bytes], Restored]:
        """What a rebuild makes of the drives, in an empty store."""
        fresh = MemoryMetastore(self.clock)
        await claim_store(fresh, IDENTITY)
        restored = await restore(fresh, self.nodes, IDENTITY, lambda _: None)
        return await content(fresh), restored


async def content(metastore: MemoryMetastore) -> dict[bytes, bytes]:
    """Everything but what a rebuild makes itself."""
    found = await metastore.range(Range(b"\x00", EVERYTHING_AFTER))
    own = (CLUSTER, keys.REBUILT)
    return {kv.key: kv.value for kv in found.kvs if is_copied(kv.key) and kv.key not in own}


def run(story: Callable[[Store], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duty, "PART_SIZE_BYTES", 8 << 10)
    monkeypatch.setattr(duty, "PAGE_KEYS", 32)

    async def main() -> None:
        store = Store()
        await store.begin()
        try:
            await story(store)
        finally:
            await store.objects.close()

    asyncio.run(main())


def test_a_snapshot_and_the_changes_since_give_the_key_space_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(store: Store) -> None:
        await store.fill(700)
        lease = await store.metastore.lease_grant(60)
        await store.metastore.txn(Txn((), (Put(node_key("n"), b"alive", lease),)))
        await store.work()
        state = await store.state()
        assert state.whole
        assert state.parts > 3
        assert {part.kind for part, _ in store.parts().values()} == {PAGES, CHANGES}
        assert (await store.rebuilt())[0] == await store.content()
        # A change of each kind after it.
        await store.put({b"j/000001": b"changed", b"q/new": b"new"})
        await store.metastore.txn(Txn((), (DeleteRange(b"j/000100", b"j/000200"),)))
        await store.work()
        assert (await store.state()).number == 1
        found, restored = await store.rebuilt()
        assert found == await store.content()
        assert found[b"j/000001"] == b"changed"
        assert restored.snapshot == 1
        assert node_key("n") not in found

    run(story, monkeypatch)


def test_what_changes_while_pages_are_read_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are of different revisions; the changes since the first one make them agree."""

    async def story(store: Store) -> None:
        await store.fill(900)
        for round_ in range(400):
            more = await store.duty.work()
            state = await store.state()
            if state.whole and not more:
                break
            behind = b"j/%06d" % store.chance.randrange(900)
            await store.put({behind: b"round %d" % round_})
            gone = b"j/%06d" % store.chance.randrange(900)
            await store.metastore.txn(Txn((), (DeleteRange(gone),)))
            store.clock.now += 6
        await store.work()
        assert (await store.state()).number == 1
        assert (await store.rebuilt())[0] == await store.content()

    run(story, monkeypatch)


def test_another_keeper_goes_on_where_one_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(store: Store) -> None:
        await store.fill(900)
        for _ in range(3):
            assert await store.duty.work()
        before = await store.state()
        assert not before.paged
        assert before.parts == 3
        await store.work(store.another())
        after = await store.state()
        assert (after.chain, after.whole) == (before.chain, True)
        assert (await store.rebuilt())[0] == await store.content()

    run(story, monkeypatch)


def test_of_two_keepers_that_both_write_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(store: Store) -> None:
        await store.fill(900)
        other = store.another()
        for _ in range(60):
            await asyncio.gather(store.duty.work(), other.work())
        await store.work()
        assert (await store.rebuilt())[0] == await store.content()

    run(story, monkeypatch)


def test_changes_that_were_forgotten_begin_a_new_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(store: Store) -> None:
        await store.fill(300)
        await store.work()
        age_seconds = store.duty.told()["age_seconds"]
        assert age_seconds < 120
        await store.put({b"q/a": b"1"})
        await store.put({b"q/b": b"2"})
        now = (await store.metastore.range(Range(b"q/a"))).revision
        await store.metastore.compact(now)
        late = store.another()
        store.clock.now += 100
        assert not await late.work()  # not so soon after the last was begun
        assert late.told()["age_seconds"] > 100
        store.clock.now += 400
        await store.work(late)
        assert (await store.state()).number == 2
        assert late.told()["age_seconds"] < 120
        assert (await store.rebuilt())[0] == await store.content()

    run(story, monkeypatch)


async def _three_snapshots(store: Store) -> None:
    await store.fill(300)
    for number in range(1, 4):
        await store.work()
        assert (await store.state()).number == number
        await store.put({b"q/%d" % number: b"after snapshot %d" % number})
        await store.work()
        if number < 3:
            store.clock.now += 86_400
    await store.work()


def _damage(store: Store, shards: Sequence[tuple[DriveId, ShardId]]) -> None:
    for drive, shard in shards:
        store.node.drives[drive].flip(shard, -1)


def test_two_whole_snapshots_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(store: Store) -> None:
        await _three_snapshots(store)
        found = await store.metastore.range(
            Range(keys.SNAPSHOT_PARTS, prefix_end(keys.SNAPSHOT_PARTS))
        )
        numbers = {decode(SnapshotPart, kv.value).number for kv in found.kvs}
        assert numbers == {2, 3}
        queued = await store.metastore.range(Range(keys.GARBAGE, prefix_end(keys.GARBAGE)))
        gone = {part.data.blob for (number, _), (part, _) in store.parts().items() if number == 1}
        assert {kv.key[2:] for kv in queued.kvs} == gone
        named = {ref.blob async for page in blobs(store.metastore, store.objects) for ref in page}
        assert named == {decode(SnapshotPart, kv.value).data.blob for kv in found.kvs}

    run(story, monkeypatch)


def test_a_damaged_snapshot_gives_way_to_the_one_before_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(store: Store) -> None:
        await _three_snapshots(store)
        parts = store.parts()
        pages = [at for at, (part, _) in parts.items() if at[0] == 3 and part.kind == PAGES]
        _damage(store, parts[pages[0]][1])
        found, restored = await store.rebuilt()
        assert restored.snapshot == 2
        assert restored.unreadable == 1
        assert found == await store.content()
        # Gone altogether, with what says that there was one.
        for drive, shard in parts[pages[0]][1]:
            del store.node.drives[drive].shards[shard]
        found, restored = await store.rebuilt()
        assert restored.snapshot == 2
        assert found == await store.content()

    run(story, monkeypatch)


def test_damaged_changes_end_the_story_where_it_was_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(store: Store) -> None:
        await store.fill(300)
        await store.work()
        before = await store.content()
        for value in (b"1", b"2"):
            await store.put({b"q/a": value})
            await store.work()
        parts = store.parts()
        _damage(store, parts[max(parts)][1])
        found, restored = await store.rebuilt()
        assert found == {**before, b"q/a": b"1"}
        assert restored.unreadable == 1

    run(story, monkeypatch)


def test_up_to_m_damaged_shards_of_each_part_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(store: Store) -> None:
        await store.fill(300)
        await store.work()
        for _, shards in store.parts().values():
            _damage(store, shards[:2])
        assert (await store.rebuilt())[0] == await store.content()
        for _, shards in store.parts().values():
            _damage(store, shards[2:])
        with pytest.raises(Refused, match="no whole snapshot"):
            await store.rebuilt()

    run(story, monkeypatch)


def test_the_sweep_takes_what_was_begun_and_never_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves alone what it knows nothing of: this metadata may be rebuilt from it."""

    async def story(store: Store) -> None:
        await store.fill(300)
        await store.work()
        state = await store.state()

        async def stray(number: int, part: int) -> bytes:
            (named,) = list(store.parts().values())[0:1]
            staged = await store.objects.stage_bytes(b"x" * 100)
            record = encode(named[0])
            await store.objects.commit(staged, keys.snapshot_part(number, part), record)
            return staged.ref.blob

        begun = await stray(state.number, state.parts)
        passed = await stray(state.number, 0)
        foreign = await stray(state.number + 1, 0)
        before = {s.blob for d in store.node.drives.values() for s in d.shards}
        sweep = Sweep(store.metastore, store.nodes, store.clock)
        store.clock.now += 40
        monkeypatch.setattr("ops.keeper.sweep.GRACE_SECONDS", -1.0)  # arrived just now
        await sweep.work()
        after = {s.blob for d in store.node.drives.values() for s in d.shards}
        assert before - after == {begun, passed}
        assert foreign in after
        assert (await store.rebuilt())[0] == await store.content()
        await store.metastore.txn(Txn((), (DeleteRange(keys.SNAPSHOT),)))
        await sweep.work()
        for drive in store.node.drives.values():
            for _, envelope in drive.shards.values():
                usage = await usage_of(store.metastore, decode_envelope(envelope), now_ms=0)
                assert usage is Usage.USED

    run(story, monkeypatch)


def test_what_waited_through_a_restart_is_written_at_the_first_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(store: Store) -> None:
        await store.fill(10)
        await store.work()
        await store.put({b"j/late": b"before the restart"})
        restarted = store.another()
        while await restarted.work():
            pass
        assert (await store.rebuilt())[0] == await store.content()
        # What comes later waits for more, as ever.
        store.clock.now += 6
        await store.put({b"j/later": b"x"})
        assert not await restarted.work()
        assert b"j/later" not in (await store.rebuilt())[0]

    run(story, monkeypatch)


def test_what_changed_last_is_written_when_the_keeper_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(store: Store) -> None:
        await store.fill(300)
        await store.duty.finish()  # stopped before its first look
        assert (await store.state()).whole
        assert (await store.rebuilt())[0] == await store.content()
        assert not await store.duty.work()
        store.clock.now += 6
        await store.put({b"j/early": b"read by the duty, and waiting"})
        assert not await store.duty.work()
        assert b"j/early" not in (await store.rebuilt())[0]
        await store.put({b"j/late": b"not read yet"})
        await store.duty.finish()
        assert (await store.rebuilt())[0] == await store.content()
        assert store.duty.told()["age_seconds"] == 0
        # Nothing changed: nothing is written.
        written = store.duty.parts_written
        await store.duty.finish()
        assert store.duty.parts_written == written

    run(story, monkeypatch)


def test_a_keeper_that_stops_does_not_wait_for_stuck_drives(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(store: Store) -> None:
        await store.fill(10)
        await store.work()
        await store.put({b"j/late": b"x"})
        answers = asyncio.Event()

        async def put(*_: object, **__: object) -> tuple[Outcome, ...]:
            await answers.wait()
            raise PeerUnavailable("never")

        monkeypatch.setattr(duty, "FINISH_SECONDS", 0.05)
        monkeypatch.setattr(store.node, "put", put)
        await store.duty.finish()
        assert "could not be written in time" in caplog.text
        answers.set()

    run(story, monkeypatch)


def test_a_keeper_that_stops_without_drives_or_metadata_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(store: Store) -> None:
        await store.fill(10)
        await store.work()
        await store.put({b"j/late": b"x"})
        store.node.down = True
        await store.topology.poll()
        await store.duty.finish()
        assert "are not written" in caplog.text

    run(story, monkeypatch)


def test_a_change_reaches_the_drives_within_half_a_minute_however_busy_the_store_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(store: Store) -> None:
        await store.fill(10)
        await store.work()
        made: dict[bytes, float] = {}
        for second in range(120):
            key = b"j/second-%03d" % second
            await store.put({key: b"x"})
            made[key] = store.clock.now
            if second % 5 == 0:  # the duty's pace
                while await store.duty.work():
                    pass
                told = (await store.rebuilt())[0]
                late = [store.clock.now - made[key] for key in made if key not in told]
                assert max(late, default=0.0) <= 30
                assert store.duty.told()["age_seconds"] <= 30
            store.clock.now += 1

    run(story, monkeypatch)


def test_an_idle_store_is_not_copied_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(store: Store) -> None:
        await store.fill(50)
        await store.work()
        written = store.duty.parts_written
        for _ in range(5):
            store.clock.now += 86_400
            await store.work()
        assert (await store.state()).number == 1
        assert store.duty.parts_written == written
        assert store.duty.told()["age_seconds"] < 60

    run(story, monkeypatch)


def test_no_drives_no_progress_and_then_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(store: Store) -> None:
        await store.fill(300)
        store.node.down = True
        await store.topology.poll()
        assert not await store.duty.work()
        store.clock.now += 600
        assert store.duty.told()["age_seconds"] >= 600
        store.node.down = False
        await store.topology.poll()
        await store.work()
        assert (await store.rebuilt())[0] == await store.content()

    run(story, monkeypatch)


def test_a_rebuild_wants_an_empty_store_and_the_right_key(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(store: Store) -> None:
        await store.fill(50)
        await store.work()
        with pytest.raises(Refused, match="metadata already"):
            await claim_store(store.metastore, IDENTITY)
        empty = MemoryMetastore(store.clock)
        other, same = Identity(CLUSTER_ID, 2, b"x" * 32), Identity(CLUSTER_ID, 1, CLUSTER_KEY)
        with pytest.raises(Refused, match="cluster key"):
            await restore(empty, store.nodes, other, lambda _: None)
        with pytest.raises(Refused, match="incarnation 1"):
            await restore(empty, store.nodes, same, lambda _: None)
        with pytest.raises(Refused, match="no rebuild"):
            await confirm(store.metastore)

    run(story, monkeypatch)


def test_a_rebuild_that_broke_off_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(store: Store) -> None:
        await store.fill(300)
        await store.work()
        fresh = MemoryMetastore(store.clock)
        await claim_store(fresh, IDENTITY)
        await fresh.txn(Txn((), (Put(b"j/left-over", b"x"), Put(b"z/left-over", b"x"))))
        with pytest.raises(Refused, match="not finished"):
            await confirm(fresh)
        await claim_store(fresh, IDENTITY)
        await restore(fresh, store.nodes, IDENTITY, lambda _: None)
        assert await content(fresh) == await store.content()
        assert (await confirm(fresh)).incarnation == 2
        # The next life's snapshots are told from the last one's, and newer.
        topology = Topology(store.nodes, fresh, store.clock)
        await topology.refresh()
        await topology.poll()
        objects = ObjectStore(store.nodes, topology, store.clock, SeededRandomness(8), buffers=1)
        await store.work(Snapshot(fresh, objects, store.clock, SeededRandomness(9)))
        await objects.close()
        newest = next(plans(part for part, _ in store.parts().values()))
        assert newest.end.incarnation == 2
        assert newest.parts[0].number == 2

    run(story, monkeypatch)


def test_foreign_bytes_are_no_part() -> None:
    whole = encode_changes([(b"a", b"1"), (b"b", None)])
    assert decode_changes(whole) == [(b"a", b"1"), (b"b", None)]
    for damaged in (b"", b"\x02" + whole[1:], whole[:-3], whole[:1] + b"nonsense", b"\x01"):
        with pytest.raises(RecordError):
            decode_changes(damaged)


@pytest.mark.parametrize("said", ["", "x", "-1", "0", "1e99"])
def test_an_odd_interval_is_a_day(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SNAPSHOT_SECONDS, said)
    assert duty.every_seconds() == 86_400


def test_the_status_line_says_how_old_and_whether_to_confirm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(store: Store) -> None:
        assert "not looked at yet" in snapshot_line(store.duty.told())
        await store.fill(300)
        await store.work()
        line = snapshot_line(store.duty.told())
        assert "snapshot 1 whole" in line
        assert "REBUILT" not in line
        assert "not confirmed" in snapshot_line({**store.duty.told(), "unconfirmed": 1.0})

    run(story, monkeypatch)


def test_garbage_and_sweep_wait_for_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(store: Store) -> None:
        duties = object.__new__(Duties)
        duties._clients = SimpleNamespace(metastore=store.metastore)  # type: ignore[assignment]
        ran: list[bool] = []

        async def work() -> bool:
            ran.append(True)
            return True

        gated = duties._once_confirmed(work)
        rebuilt = encode(RebuiltRecord(running=False, incarnation=2))
        await store.put({keys.REBUILT: rebuilt})
        assert not await gated()
        assert not ran
        assert duties.is_confirmed is False
        await confirm(store.metastore)
        assert await gated()
        assert ran
        assert duties.is_confirmed is True

    run(story, monkeypatch)


def test_old_snapshots_stay_while_a_rebuild_is_not_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(store: Store) -> None:
        await store.put({keys.REBUILT: encode(RebuiltRecord(running=False, incarnation=2))})
        await _three_snapshots(store)
        assert {number for number, _ in store.parts()} == {1, 2, 3}
        queued = await store.metastore.range(Range(keys.GARBAGE, prefix_end(keys.GARBAGE)))
        assert not queued.kvs

    run(story, monkeypatch)
