"""The cluster map as a stored value."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.cluster_map import ClusterMap, DriveState, MapDrive
from placement.ids import DriveId, Epoch, Slot
from placement.schemes import Scheme

DRIVE = MapDrive(Slot(3), DriveId(b"d" * 16), "node", "host", "zone", 2.5, DriveState.DRAINING)
MAP = ClusterMap(Epoch(7), (DRIVE,), Scheme(4, 2), 1 << 12, (Epoch(6), Epoch(5)))

drives = st.builds(
    MapDrive,
    st.integers(0, 100).map(Slot),
    st.binary(min_size=16, max_size=16).map(DriveId),
    st.text(max_size=8),
    st.text(max_size=8),
    st.text(max_size=8),
    st.floats(0, 1e6),
    st.sampled_from(DriveState),
)
maps = st.builds(
    ClusterMap,
    st.integers(1, 1 << 40).map(Epoch),
    st.lists(drives, max_size=6, unique_by=(lambda d: d.slot, lambda d: d.drive_id)).map(tuple),
    st.builds(Scheme, st.integers(1, 32), st.integers(0, 16)),
    st.integers(0, 16).map(lambda bits: 1 << bits),
    st.lists(st.integers(1, 99).map(Epoch), max_size=3).map(tuple),
)


@given(maps)
def test_a_map_reads_back_equal(value: ClusterMap) -> None:
    assert ClusterMap.decode(value.encode()) == value


@given(maps, st.floats(0.1, 9.0))
def test_a_balanced_map_reads_back_with_its_pulls(value: ClusterMap, pull: float) -> None:
    drives = tuple(
        replace(d, tuned_pull=d.weight * pull)
        if d.weight > 1 and d.weight * pull != d.weight
        else d
        for d in value.drives
    )
    tuned = replace(value, drives=drives, balanced=True)
    assert ClusterMap.decode(tuned.encode()) == tuned


def test_what_a_balanced_map_says_is_checked() -> None:
    tuned = replace(MAP, balanced=True)
    with pytest.raises(ValueError, match="one pull for each drive"):
        ClusterMap.decode(
            b"\2" + msgspec.msgpack.encode([[], msgspec.msgpack.decode(MAP.encode()[1:])])
        )
    for pull in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="pull"):
            replace(tuned, drives=(replace(DRIVE, tuned_pull=pull),))
    with pytest.raises(ValueError, match="pull"):
        replace(MAP, drives=(replace(DRIVE, tuned_pull=1.0),))


@given(maps, st.data())
def test_cut_or_longer_bytes_are_refused(value: ClusterMap, data: st.DataObject) -> None:
    stored = value.encode()
    with pytest.raises(ValueError, match="cluster map"):
        ClusterMap.decode(stored[: data.draw(st.integers(0, len(stored) - 1))])
    with pytest.raises(ValueError, match="cluster map"):
        ClusterMap.decode(stored + b"\0")


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    for stored in (data, b"\1" + data, b"\2" + data):
        with pytest.raises(ValueError, match="map"):
            ClusterMap.decode(stored)


def test_a_newer_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version"):
        ClusterMap.decode(b"\3" + MAP.encode()[1:])


def test_a_state_of_the_future_is_refused() -> None:
    fields = msgspec.msgpack.decode(MAP.encode()[1:])
    fields[3][0][6] = "resting"
    with pytest.raises(ValueError, match="resting"):
        ClusterMap.decode(b"\1" + msgspec.msgpack.encode(fields))


@pytest.mark.parametrize(
    "drives",
    [
        (DRIVE, replace(DRIVE, drive_id=DriveId(b"e" * 16))),
        (DRIVE, replace(DRIVE, slot=Slot(4))),
        (replace(DRIVE, slot=Slot(-1)),),
        (replace(DRIVE, slot=Slot(1 << 32)),),
        (replace(DRIVE, weight=-1.0),),
        (replace(DRIVE, weight=float("nan")),),
        (replace(DRIVE, weight=float("inf")),),
    ],
)
def test_drives_that_cannot_be_served_are_refused(drives: tuple[MapDrive, ...]) -> None:
    with pytest.raises(ValueError, match="slot"):
        replace(MAP, drives=drives)


@pytest.mark.parametrize("count", [0, 3, -4096, 4095, 1 << 17])
def test_a_partition_count_that_is_no_power_of_two_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        replace(MAP, partition_count=count)
