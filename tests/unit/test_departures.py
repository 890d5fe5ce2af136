"""Who is put out of the map and when; what a keeper does only while it leads; what history is kept."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from gateway.metadata import keys
from ops.keeper.departures import Absences, Departures
from ops.keeper.history import History
from ops.keeper.moves import Moves
from ops.keeper.repair import RepairProgress
from ops.map_store import MapStore
from ops.refusal import Refused
from placement.clock import SystemClock
from placement.cluster_map import DriveState
from placement.errors import Compacted, MetastoreUnavailable
from placement.ids import DriveId
from placement.map_changes import MapRefused, add_drives, drain, first_map
from placement.membership import DriveRecord, drive_key, encode
from placement.membership_view import LiveView
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import DeleteRange, Put, Range, RangeResult, Txn, absent
from placement.schemes import Scheme

T = TypeVar("T")


def run(scene: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scene)


class HandClock(SystemClock):
    """Monotonic time that the test moves."""

    def __init__(self) -> None:
        self.at = 100.0

    def monotonic(self) -> float:
        return self.at


def record(number: int, condition: str = "up") -> DriveRecord:
    return DriveRecord(
        drive=bytes([number]) * 16,
        node=f"n{number}",
        address=f"n{number}",
        host=f"h{number}",
        zone="z",
        path="/d",
        condition=condition,
        capacity_bytes=1 << 40,
    )


class Fallible(MemoryMetastore):
    """A store that may stop answering."""

    down = False

    async def range(self, request: Range) -> RangeResult:
        if self.down:
            raise MetastoreUnavailable("down")
        return await super().range(request)


class Rig:
    """Seven drives on seven hosts under 4+2; grace of ten seconds."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.metastore = Fallible(SystemClock())
        self.maps = MapStore(self.metastore)
        view = LiveView(self.metastore, self.clock)
        self.departures = Departures(self.metastore, self.maps, view, self.clock, 10.0)

    async def open(self, count: int = 7) -> "Rig":
        first = first_map([record(i) for i in range(count)], Scheme(4, 2), 16)
        assert await self.maps.replace(first, 0)
        for i in range(count):
            await self.there(i)
        return self

    async def there(self, number: int, condition: str = "up") -> None:
        put = Put(drive_key(bytes([number]) * 16), encode(record(number, condition)))
        await self.metastore.txn(Txn((), (put,)))

    async def gone(self, number: int) -> None:
        await self.metastore.txn(Txn((), (DeleteRange(drive_key(bytes([number]) * 16)),)))

    async def pass_(self, seconds: float, *, decides: bool = True) -> None:
        for _ in range(round(seconds)):
            self.clock.at += 1.0
            await self.departures.work(decides=decides)

    async def out(self) -> set[int]:
        now, _ = await self.maps.current()
        assert now is not None
        return {d.drive_id[0] for d in now.drives if d.state is DriveState.OUT}


def test_an_absence_counts_only_while_it_is_seen() -> None:
    absences = Absences()
    drive = DriveId(b"d" * 16)
    absences.see(0.0, [drive])
    absences.see(3.0, [drive])
    assert absences.seconds == {drive: 3.0}
    absences.blind()
    absences.see(50.0, [drive])
    assert absences.seconds == {drive: 3.0}
    absences.see(90.0, [drive])  # this process stood still
    assert absences.seconds == {drive: 8.0}
    absences.see(91.0, [])
    assert absences.seconds == {}
    assert absences.longer_than(0) == frozenset()


def test_a_drive_is_out_after_the_grace_time_and_not_before() -> None:
    async def scene() -> None:
        rig = await Rig().open()
        await rig.pass_(3)
        await rig.gone(3)
        await rig.pass_(10)
        assert await rig.out() == set()
        assert rig.departures.waiting() == {DriveId(b"\x03" * 16)}
        await rig.pass_(2)
        assert await rig.out() == {3}
        now, _ = await rig.maps.current()
        assert now is not None
        assert (now.epoch, now.open_epochs) == (2, (1,))
        await rig.pass_(5)
        assert rig.departures.waiting() == frozenset()
        assert (await rig.maps.current())[0] == now

    run(scene())


def test_a_drive_that_returns_in_time_stays() -> None:
    async def scene() -> None:
        rig = await Rig().open()
        await rig.pass_(1)
        for _ in range(4):
            await rig.gone(3)
            await rig.pass_(8)
            await rig.there(3)
            await rig.pass_(1)
        assert await rig.out() == set()

    run(scene())


def test_nobody_is_put_out_while_more_than_one_domain_is_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        rig = await Rig().open(9)
        await rig.gone(3)
        await rig.pass_(8)
        await rig.gone(4)  # the second goes before the first one's grace is over
        await rig.pass_(30)
        assert await rig.out() == set()
        assert rig.departures.told()["held_back"] == "more than one failure domain is missing"
        await rig.there(4)
        await rig.pass_(2)
        assert await rig.out() == {3}

    run(scene())
    assert caplog.text.count("more than one failure domain") == 1


def test_all_leases_lost_at_once_put_nobody_out() -> None:
    async def scene() -> None:
        rig = await Rig().open()
        for number in range(7):
            await rig.gone(number)
        await rig.pass_(60)
        assert await rig.out() == set()

    run(scene())


def test_grace_does_not_count_while_the_metadata_store_is_unwell() -> None:
    async def scene() -> None:
        rig = await Rig().open()
        await rig.gone(3)
        await rig.pass_(5)
        rig.metastore.down = True
        for _ in range(60):
            with pytest.raises(MetastoreUnavailable):
                await rig.pass_(1)
        rig.metastore.down = False
        await rig.pass_(4)
        assert await rig.out() == set()
        await rig.pass_(4)
        assert await rig.out() == {3}

    run(scene())


def test_a_keeper_that_does_not_lead_watches_and_may_take_over() -> None:
    async def scene() -> None:
        rig = await Rig().open()
        await rig.gone(3)
        await rig.pass_(20, decides=False)
        assert await rig.out() == set()
        await rig.pass_(1)
        assert await rig.out() == {3}

    run(scene())


def test_a_drive_that_its_node_calls_failed_is_not_waited_for() -> None:
    async def scene() -> None:
        rig = await Rig().open()
        await rig.there(3, "failed")
        await rig.pass_(2)
        assert rig.departures.waiting() == frozenset()
        await rig.pass_(12)
        assert await rig.out() == {3}

    run(scene())


def test_an_epoch_is_closed_when_the_inventory_under_it_found_nothing_out_of_place() -> None:
    async def scene() -> None:
        rig = await Rig().open()
        await rig.maps.change(lambda now: add_drives(now, [record(9)]))
        progress = RepairProgress()
        moves = Moves(rig.maps, lambda: progress, tuple)

        async def epochs() -> tuple[int, ...]:
            await moves.work()
            now, _ = await rig.maps.current()
            assert now is not None
            return (now.epoch, *now.open_epochs)

        assert await epochs() == (2, 1)  # no inventory yet
        progress.due, progress.epoch, progress.misplaced = False, 2, 3
        assert await epochs() == (2, 1)
        progress.misplaced, progress.unlisted = 0, 1
        assert await epochs() == (2, 1)  # nobody knows where all parts are
        progress.unlisted, progress.epoch = 0, 1
        assert await epochs() == (2, 1)  # it ran under another map
        progress.epoch = 2
        assert await epochs() == (3,)
        assert progress.epoch == 3
        assert await epochs() == (3,)

    run(scene())


def test_an_epoch_stays_open_while_a_drive_that_the_inventory_could_not_ask_may_come_back() -> None:
    """A draining drive and the home of what it holds are both away: nothing that was seen lies out of
    place, and yet nothing was moved."""

    async def scene() -> None:
        rig = await Rig().open(8)
        await rig.maps.change(lambda now: drain(now, [DriveId(record(7).drive)]))
        progress = RepairProgress(due=False, epoch=2, unseen=frozenset({DriveId(record(7).drive)}))
        moves = Moves(rig.maps, lambda: progress, tuple)
        await moves.work()
        assert moves.told() == {"closed": 0, "waits_for": [record(7).drive.hex()]}
        now, _ = await rig.maps.current()
        assert now is not None
        assert now.open_epochs == (1,)
        progress.unseen = frozenset()
        await moves.work()
        assert moves.told() == {"closed": 1, "waits_for": []}
        now, _ = await rig.maps.current()
        assert now is not None
        assert not now.open_epochs

    run(scene())


def test_an_epoch_stays_open_when_another_has_led_since_the_inventory_began() -> None:
    async def scene() -> None:
        rig = await Rig().open()
        await rig.maps.change(lambda now: add_drives(now, [record(9)]))
        progress = RepairProgress(due=False, epoch=2)
        led = [absent(keys.MAP_CURRENT)]
        moves = Moves(rig.maps, lambda: progress, lambda: led)
        await moves.work()
        assert moves.told()["closed"] == 0
        led.clear()
        await moves.work()
        assert moves.told()["closed"] == 1

    run(scene())


def test_a_change_of_the_map_is_made_once_and_on_the_newest() -> None:
    async def scene() -> None:
        empty = MapStore(MemoryMetastore(SystemClock()))
        with pytest.raises(Refused, match="admin init"):
            await empty.change(lambda now: now)
        rig = await Rig().open()
        results = await asyncio.gather(
            rig.maps.change(lambda now: add_drives(now, [record(20)])),
            rig.maps.change(lambda now: add_drives(now, [record(21)])),
            return_exceptions=True,
        )
        refused = [result for result in results if isinstance(result, MapRefused)]
        assert len(refused) == 1  # the second saw that shards are still moving
        now, _ = await rig.maps.current()
        assert now is not None
        assert now.epoch == 2

    run(scene())


def test_old_history_is_forgotten_and_young_history_kept() -> None:
    async def scene() -> None:
        clock = HandClock()
        metastore = MemoryMetastore(SystemClock())
        history = History(metastore, clock, kept_seconds=100)
        revisions = []
        for number in range(6):
            done = await metastore.txn(Txn((), (Put(keys.MAP_CURRENT, bytes([number])),)))
            revisions.append(done.revision)
            await history.work()
            clock.at += 40
        old = Range(keys.MAP_CURRENT, revision=revisions[0])
        with pytest.raises(Compacted):
            await metastore.range(old)
        found = await metastore.range(Range(keys.MAP_CURRENT, revision=revisions[3]))
        assert found.kvs[0].value == b"\x03"

    run(scene())
