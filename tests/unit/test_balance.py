"""Balanced maps: how near drives are to their shares, what changes move, and who keeps the old rule."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import bulk
from placement.balance import balanced, balanced_again, spread_of
from placement.cluster_map import ClusterMap, DriveState, MapDrive
from placement.fair_shares import fair_shares
from placement.hashing import BULK_DRIVES, Field, Placement, order_of
from placement.ids import BlobId, DriveId, Epoch, Partition, Slot
from placement.map_changes import (
    LINEAGE_MAX,
    MapRefused,
    add_drives,
    balance,
    close_epochs,
    drain,
    first_map,
    put_out,
    weighed_by_size,
)
from placement.map_changes import replace as replace_drive
from placement.membership import DriveRecord
from placement.schemes import Scheme
from tests.unit.test_hashing import topologies

TIB = 1 << 40


def record(number: int, host: str = "", zone: str = "z", tib: float = 1) -> DriveRecord:
    host = host or f"h{number}"
    return DriveRecord(
        drive=number.to_bytes(16),
        node=host,
        address=host,
        host=host,
        zone=zone,
        path=f"/d{number}",
        condition="up",
        capacity_bytes=int(tib * TIB),
    )


def cluster_of(
    count: int, hosts: int, zones: int, scheme: Scheme, partitions: int = 1 << 12
) -> ClusterMap:
    """Drives of one and of two TiB."""
    records = [
        record(i, f"h{i % hosts}", f"z{i % hosts % zones}", 1 + i // hosts % 2)
        for i in range(count)
    ]
    return first_map(records, scheme, partitions)


def homes(cluster: ClusterMap) -> list[set[Slot]]:
    placement, width = Placement(cluster), cluster.scheme.width
    return [
        {drive.slot for drive in placement.write_order_of(Partition(partition))[:width]}
        for partition in range(cluster.partition_count)
    ]


def moved_share(before: ClusterMap, after: ClusterMap) -> float:
    pairs = zip(homes(before), homes(after), strict=True)
    moved = sum(len(new - old) for old, new in pairs)
    return moved / (before.scheme.width * before.partition_count)


SIZES = [
    (7, 7, 1, Scheme(4, 2)),
    (12, 6, 1, Scheme(4, 2)),
    (30, 30, 1, Scheme(4, 2)),
    (30, 10, 3, Scheme(4, 2)),
    (100, 20, 5, Scheme(8, 3)),
    (300, 300, 1, Scheme(4, 2)),
    (300, 50, 5, Scheme(4, 2)),
]


@pytest.mark.parametrize(("count", "hosts", "zones", "scheme"), SIZES)
def test_drives_of_a_new_map_are_within_5_percent_of_their_weights(
    count: int, hosts: int, zones: int, scheme: Scheme
) -> None:
    made = cluster_of(count, hosts, zones, scheme)
    assert max(spread_of(made)) <= 0.05
    assert made.balanced


@pytest.mark.parametrize(("count", "hosts", "zones", "scheme"), SIZES)
def test_after_changes_they_still_are_and_changes_move_little(
    count: int, hosts: int, zones: int, scheme: Scheme
) -> None:
    now = cluster_of(count, hosts, zones, scheme)
    chance = Random(count)
    for number in range(3):
        grown = add_drives(now, [record(1000 + number, f"h{number}", f"z{number % zones}")])
        assert max(spread_of(grown)) <= 0.05
        share = fair_shares(grown.drives, scheme.width)[-1] / scheme.width
        assert 0.9 * share <= moved_share(now, grown) <= 1.3 * share + 0.002
        now = close_epochs(grown)
        gone = chance.choice(now.drives)
        fair = fair_shares(now.drives, scheme.width)[now.drives.index(gone)] / scheme.width
        drained = drain(now, [gone.drive_id])
        assert max(spread_of(drained)) <= 0.05
        # What it held goes; where hosts and zones must stay even, others of them give something too.
        assert moved_share(now, drained) <= 1.1 * fair + 0.02
        now = close_epochs(drained)
        now = replace(now, drives=tuple(d for d in now.drives if d.drive_id != gone.drive_id))


@pytest.mark.parametrize("partitions", [1 << 12, 1 << 14])
def test_the_seventh_of_six_equal_nodes_is_given_a_seventh(partitions: int) -> None:
    six = first_map([record(i) for i in range(6)], Scheme(4, 2), partitions)
    seven = add_drives(six, [record(6)])
    assert 1 / 7 <= moved_share(six, seven) * 1.02 <= 1.3 / 7
    by_index = Placement(seven, [six])
    changed = total = 0
    for partition in map(Partition, range(0, partitions, 7)):
        old, new = Placement(six).homes(partition, 6), by_index.homes(partition, 6)
        changed += sum(a.slot != b.slot for a, b in zip(old, new, strict=True))
        total += 6
    assert changed / total <= 1.3 / 7


def test_a_map_of_before_keeps_its_rule_until_an_operator_has_it_balanced() -> None:
    made = cluster_of(30, 30, 1, Scheme(4, 2))
    plain = tuple(replace(drive, tuned_pull=None) for drive in made.drives)
    old = ClusterMap.decode(replace(made, drives=plain, balanced=False).encode())
    assert not old.balanced
    grown = add_drives(old, [record(77)])
    assert not grown.balanced
    assert all(drive.tuned_pull is None for drive in grown.drives)
    with pytest.raises(MapRefused, match="still being moved"):
        balance(grown)
    quiet = close_epochs(grown)
    after = balance(quiet)
    assert after.balanced
    assert (after.open_epochs, after.lineage[-1]) == ((quiet.epoch,), quiet.epoch)
    assert max(spread_of(after)) <= 0.03 < max(spread_of(quiet))
    assert moved_share(quiet, after) < 0.03
    with pytest.raises(MapRefused, match="balanced as it is"):
        balance(close_epochs(after))


def test_what_is_urgent_moves_nothing_for_balance() -> None:
    made = cluster_of(30, 30, 1, Scheme(4, 2))
    lost = made.drives[3]
    after = put_out(made, [lost.drive_id])
    before = {drive.slot: drive.pull for drive in made.drives}
    assert {drive.slot: drive.pull for drive in after.drives} == before
    for old, new in zip(homes(made), homes(after), strict=True):
        assert old - new <= {lost.slot}


def test_a_replacement_and_other_units_of_weight_move_nothing() -> None:
    made = cluster_of(30, 30, 1, Scheme(4, 2))
    assert any(drive.tuned_pull is not None for drive in made.drives)
    swapped = replace_drive(made, made.drives[5].drive_id, record(99, zone="z0", tib=9))
    assert homes(swapped) == homes(made)
    assert homes(weighed_by_size(made, 17.3 * TIB)) == homes(made)


def test_a_drive_that_grows_is_given_what_it_grew_by() -> None:
    made = cluster_of(30, 30, 1, Scheme(4, 2))
    heavier = (replace(made.drives[0], weight=2.0), *made.drives[1:])
    after = balanced_again(made, heavier)
    assert max(spread_of(after)) <= 0.05
    grown = sum(Slot(0) in slots for slots in homes(after))
    before = sum(Slot(0) in slots for slots in homes(made))
    share = (grown - before) / made.partition_count / 6
    assert moved_share(made, after) <= 1.3 * share


@settings(max_examples=25, deadline=None)
@given(topologies(), st.integers(1, 14))
def test_in_any_topology_shares_add_up_and_balancing_brings_no_drive_farther_off(
    drives: tuple[MapDrive, ...], width: int
) -> None:
    shares = fair_shares(drives, width)
    assert sum(shares) == pytest.approx(min(width, len(drives)))
    assert all(-1e-9 <= share <= 1 + 1e-9 for share in shares)
    scheme = Scheme(width, 0)
    plain = ClusterMap(Epoch(1), drives, scheme, 256)
    tuned = balanced(plain)

    def worst(cluster: ClusterMap) -> float:
        held = Counter(slot for slots in homes(cluster) for slot in slots)
        return max(
            abs(held[d.slot] - s * 256) / max(0.025 * s * 256, 1)
            for d, s in zip(cluster.drives, shares, strict=True)
        )

    assert worst(tuned) <= max(worst(plain), 1.0) + 1e-9
    assert [d.slot for d in tuned.drives] == [d.slot for d in plain.drives]


@st.composite
def large_topologies(draw: st.DrawFn) -> tuple[MapDrive, ...]:
    count = draw(st.integers(BULK_DRIVES, 150))
    hosts, zones = draw(st.integers(1, count)), draw(st.integers(1, 9))
    chance = Random(draw(st.integers(0, 1 << 20)))
    return tuple(
        MapDrive(
            Slot(i * 3),
            DriveId(i.to_bytes(16)),
            "n",
            f"h{chance.randrange(hosts)}",
            f"z{chance.randrange(zones)}",
            chance.choice([0.5, 1.0, 1.0, 7.3]),
            tuned_pull=chance.choice([None, 0.7, 1.1]),
        )
        for i in range(count)
    )


@settings(max_examples=25, deadline=None)
@given(large_topologies(), st.integers(0, (1 << 16) - 1))
def test_many_partitions_at_once_are_ordered_as_one_alone(
    drives: tuple[MapDrive, ...], partition: int
) -> None:
    many = ClusterMap(Epoch(1), drives, Scheme(4, 2), 1 << 16, balanced=True)
    placement = Placement(many)
    for each in (partition, partition ^ 1, 0, (1 << 16) - 1):
        slots = tuple(drive.slot for drive in placement.write_order_of(Partition(each)))
        assert slots == order_of(replace(many, drives=drives), Partition(each))
        assert slots == alone(drives, Partition(each))


def alone(drives: Sequence[MapDrive], partition: Partition) -> tuple[Slot, ...]:
    """By the rule itself."""
    field = Field(drives)
    return tuple(field.drives[place].slot for place in field._spread(field._ranked(partition)))


def test_partitions_with_draws_too_near_to_tell_are_left_to_the_rule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drives = tuple(
        MapDrive(Slot(i), DriveId(i.to_bytes(16)), "n", f"h{i % 9}", f"z{i % 4}") for i in range(70)
    )
    monkeypatch.setattr(bulk, "NEAR", 1e-3)
    placement = Placement(ClusterMap(Epoch(1), drives, Scheme(4, 2)))
    for partition in map(Partition, range(200)):
        slots = tuple(drive.slot for drive in placement.write_order_of(partition))
        assert slots == alone(drives, partition)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["add", "out", "close"]), min_size=1, max_size=7))
def test_what_is_taken_over_from_an_earlier_map_changes_no_order(changes: list[str]) -> None:
    maps = [first_map([record(i) for i in range(70)], Scheme(4, 2), 1 << 12)]
    blobs = [BlobId(bytes([i, 77]) + bytes(14)) for i in range(0, 256, 37)]
    known: Placement | None = None
    for number, change in enumerate(changes):
        by_epoch = {each.epoch: each for each in maps}
        ancestors = [by_epoch[epoch] for epoch in maps[-1].lineage]
        known = Placement(maps[-1], ancestors, known)
        fresh = Placement(maps[-1], ancestors)
        for blob in blobs:
            assert known.write_order(blob, 6) == fresh.write_order(blob, 6)
            assert known.read_order(blob, 6) == fresh.read_order(blob, 6)
        now = close_epochs(maps[-1])
        up = [d.drive_id for d in now.drives if d.state is DriveState.UP]
        if change == "add":
            maps += [now, add_drives(now, [record(200 + number)])]
        elif change == "out":
            maps += [now, put_out(now, up[:1])]
        else:
            maps.append(now)


def test_after_more_changes_than_a_lineage_names_all_processes_agree() -> None:
    """One has seen every map, another has begun just now."""
    maps = [first_map([record(i) for i in range(9)], Scheme(4, 2), 1 << 12)]
    known: Placement | None = None
    for number in range(2 * LINEAGE_MAX):
        now = close_epochs(maps[-1])
        drives = [drive.drive_id for drive in now.drives if drive.state is DriveState.UP]
        changed = drain(now, drives[:1]) if number % 2 else add_drives(now, [record(20 + number)])
        for cluster in (now, changed):
            maps.append(cluster)
            by_epoch = {each.epoch: each for each in maps}
            ancestors = [by_epoch[epoch] for epoch in cluster.lineage]
            known, fresh = Placement(cluster, ancestors, known), Placement(cluster, ancestors)
            for partition in map(Partition, range(0, 1 << 12, 64)):
                assert known.homes(partition, 6) == fresh.homes(partition, 6)
