"""Changes of the cluster map: what each makes, and what it refuses."""

import dataclasses
import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cluster_map import ClusterMap, DriveState, MapDrive
from placement.hashing import Placement
from placement.ids import BlobId, DriveId, Partition
from placement.map_changes import (
    MapRefused,
    add_drives,
    close_epochs,
    domain_of,
    drain,
    first_map,
    may_put_out,
    put_out,
    remove,
    replace,
    weighed_by_size,
    weight_of,
    with_scheme,
)
from placement.membership import DriveRecord
from placement.schemes import Scheme

TIB = 1 << 40


def record(number: int, host: str = "", zone: str = "z", capacity: int = TIB) -> DriveRecord:
    host = host or f"h{number}"
    return DriveRecord(
        drive=bytes([number]) * 16,
        node=host,
        address=host,
        host=host,
        zone=zone,
        path=f"/d{number}",
        condition="up",
        capacity_bytes=capacity,
    )


def cluster(count: int = 6, scheme: Scheme | None = None) -> ClusterMap:
    return first_map([record(i) for i in range(count)], scheme or Scheme(4, 2), 256)


def untuned(count: int) -> tuple[MapDrive, ...]:
    return tuple(dataclasses.replace(d, tuned_pull=None) for d in cluster(count).drives)


def ids(*numbers: int) -> list[DriveId]:
    return [DriveId(bytes([number]) * 16) for number in numbers]


def test_the_first_map_gives_slots_in_a_stable_order() -> None:
    records = [record(i) for i in range(6)]
    assert first_map(records, None, 256) == first_map(records[::-1], None, 256)
    assert [d.slot for d in cluster().drives] == list(range(6))
    assert cluster().scheme == Scheme(4, 2)
    with pytest.raises(MapRefused, match="start the nodes first"):
        first_map([], None, 256)
    with pytest.raises(MapRefused, match="needs 6 drives, there are 5"):
        first_map(records[:5], Scheme(4, 2), 256)


def test_weights_follow_sizes() -> None:
    assert weight_of(record(1)) == 1.0
    assert weight_of(record(1, capacity=4 * TIB)) == 4.0
    assert weight_of(record(1, capacity=1000)) > 0


def test_a_map_of_relative_weights_is_weighed_by_size_and_nothing_moves() -> None:
    records = [record(number) for number in range(1, 7)]
    before = first_map(records, Scheme(4, 2), 64)
    after = weighed_by_size(before, 16.3 * TIB)
    assert {drive.weight for drive in after.drives} == {16.3}
    for partition in map(Partition, range(64)):
        old, new = (
            [drive.slot for drive in Placement(cluster).write_order_of(partition)]
            for cluster in (before, after)
        )
        assert old == new
    assert weighed_by_size(before, 0) == before


def test_adding_opens_the_epoch_before_and_one_move_runs_at_a_time() -> None:
    grown = add_drives(cluster(), [record(7), record(8)])
    assert grown.epoch == 2
    assert grown.open_epochs == (1,)
    assert [d.slot for d in grown.drives] == list(range(8))
    with pytest.raises(MapRefused, match="still being moved"):
        add_drives(grown, [record(9)])
    with pytest.raises(MapRefused, match="still being moved"):
        drain(grown, ids(1))
    quiet = close_epochs(grown)
    assert (quiet.epoch, quiet.open_epochs) == (3, ())
    with pytest.raises(MapRefused, match="in use already"):
        add_drives(quiet, [record(7)])
    # What is lost is put out at once.
    assert put_out(grown, ids(1)).open_epochs == (2, 1)


def test_draining_keeps_what_writes_need() -> None:
    with pytest.raises(MapRefused, match="5 drives would be left, fewer than the 6"):
        drain(cluster(), ids(1))
    with pytest.raises(MapRefused, match="not in the map"):
        drain(cluster(7), ids(99))
    drained = drain(cluster(7), ids(3))
    assert [d.state for d in drained.drives if d.drive_id in ids(3)] == [DriveState.DRAINING]
    with pytest.raises(MapRefused, match="still being moved"):
        remove(drained, ids(3))
    gone = remove(close_epochs(drained), ids(3))
    assert len(gone.drives) == 6
    with pytest.raises(MapRefused, match="drain it first"):
        remove(cluster(7), ids(3))
    # A slot is not given twice.
    assert max(d.slot for d in add_drives(gone, [record(9)]).drives) == 7


def test_a_drive_that_was_put_out_may_come_back_to_its_slot() -> None:
    out = close_epochs(put_out(cluster(7), ids(2)))
    slot = next(d.slot for d in out.drives if d.drive_id in ids(2))
    back = add_drives(out, [record(2)])
    again = next(d for d in back.drives if d.drive_id in ids(2))
    assert (again.slot, again.state) == (slot, DriveState.UP)


def test_a_replacement_takes_over_the_slot_and_moves_nothing_else() -> None:
    before = cluster()
    after = replace(before, ids(2)[0], record(9, capacity=9 * TIB))
    old, new = Placement(before), Placement(after)
    for partition in map(Partition, range(256)):
        pairs = zip(old.write_order_of(partition), new.write_order_of(partition), strict=True)
        for a, b in pairs:
            assert a.slot == b.slot
    with pytest.raises(MapRefused, match="in use already"):
        replace(before, ids(2)[0], record(3))


def test_another_scheme_needs_its_drives() -> None:
    assert with_scheme(cluster(), Scheme(3, 2)).scheme == Scheme(3, 2)
    with pytest.raises(MapRefused, match="needs 7 drives"):
        with_scheme(cluster(), Scheme(5, 2))


def test_nobody_is_put_out_while_two_domains_are_missing_or_too_few_would_be_left() -> None:
    seven = cluster(7)
    assert may_put_out(seven, ids(1)) is None
    assert may_put_out(seven, ids(1, 2)) == "more than one failure domain is missing"
    assert may_put_out(cluster(6), ids(1)) == ("5 drives are left, fewer than the 6 of scheme 4+2")
    hosts = first_map([record(i, host=f"h{i % 5}") for i in range(10)], Scheme(4, 2), 256)
    assert may_put_out(hosts, ids(0, 5)) is None
    zones = first_map(
        [record(i, host=f"h{i}", zone=f"z{i % 3}") for i in range(9)], Scheme(4, 2), 256
    )
    assert may_put_out(zones, ids(0, 3, 6)) is None
    assert domain_of(zones, zones.drives[0]) == ("z0",)


@settings(max_examples=30, deadline=None)
@given(st.integers(6, 9), st.integers(1, 3))
def test_growing_a_map_that_is_not_balanced_moves_the_new_drives_share_only(
    count: int, added: int
) -> None:
    before = dataclasses.replace(cluster(count), drives=untuned(count), balanced=False)
    after = add_drives(before, [record(50 + i) for i in range(added)])
    old, new = Placement(before), Placement(after)
    changed = total = 0
    for partition in map(Partition, range(256)):
        a = {d.slot for d in old.write_order_of(partition)[:6]}
        b = {d.slot for d in new.write_order_of(partition)[:6]}
        changed += len(b - a)
        total += 6
        assert b - a <= {d.slot for d in after.drives if d not in before.drives}
    assert changed / total <= 1.5 * added / (count + added)


def test_later_versions_may_append_to_the_map() -> None:
    balanced = cluster()
    pulls, fields = msgspec.msgpack.decode(balanced.encode()[1:])
    fields[3] = [[*drive, "later"] for drive in fields[3]]
    appended = [*fields, [], [], {"later": 1}]
    later = b"\2" + msgspec.msgpack.encode([pulls, appended, {"later": 1}])
    assert ClusterMap.decode(later) == balanced
    later = b"\1" + msgspec.msgpack.encode(appended)
    assert ClusterMap.decode(later) == dataclasses.replace(balanced, balanced=False)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["add", "drain", "out"]), min_size=1, max_size=5),
    st.sampled_from([2, 3, 6]),
)
def test_drives_that_stay_keep_their_indexes(changes: list[str], width: int) -> None:
    history = [cluster(8)]
    for number, change in enumerate(changes):
        now = close_epochs(history[-1])
        up = [d.drive_id for d in now.drives if d.state is DriveState.UP]
        if change == "add" or len(up) <= 7:
            new = add_drives(now, [record(100 + number)])
        elif change == "drain":
            new = drain(now, up[:1])
        else:
            new = put_out(now, up[-1:])
        history += [now, new]
    by_epoch = {one.epoch: one for one in history}
    tables = [Placement(one, [by_epoch[epoch] for epoch in one.lineage]) for one in history]
    blobs = [BlobId(bytes([i]) * 16) for i in range(0, 256, 5)]
    for before, after in itertools.pairwise(tables):
        moved = demanded = 0
        for blob in blobs:
            old = [d.slot for d in before.write_order(blob, width)]
            new_order = [d.slot for d in after.write_order(blob, width)]
            assert sorted(new_order) == sorted(d.slot for d in after.write_order(blob))
            assert set(new_order[:width]) == {d.slot for d in after.write_order(blob)[:width]}
            moved += sum(a != b for a, b in zip(old[:width], new_order[:width], strict=True))
            demanded += len(set(new_order[:width]) - set(old[:width]))
        assert moved == demanded


def test_a_lineage_is_stored_and_bounded() -> None:
    now = cluster(7)
    for _ in range(40):
        now = close_epochs(put_out(now, ids(1)))
    assert len(now.lineage) == 16
    assert ClusterMap.decode(now.encode()) == now
