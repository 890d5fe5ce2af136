"""When a drive is loaded, when it is calm again, and which copy is read."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.drive_load import DriveLoads
from gateway.domain.read_plan import copy_to_ask
from placement.cluster_map import MapDrive
from placement.ids import DriveId, Slot

DRIVES = [DriveId(bytes([i]) * 16) for i in range(6)]
ORDER = [MapDrive(Slot(i), drive, "n", "h", "z") for i, drive in enumerate(DRIVES)]
SIZE = 10_000


def read(loads: DriveLoads, drive: DriveId, seconds: float, *, answered: bool = True) -> None:
    loads.begun(drive, SIZE)
    loads.ended(drive, SIZE, seconds, answered=answered)


def busy_minute(loads: DriveLoads, seconds: float) -> None:
    for _ in range(200):
        for drive in DRIVES:
            read(loads, drive, seconds)


def test_a_drive_that_stands_out_is_loaded_and_calm_again_only_well_below_that() -> None:
    loads = DriveLoads()
    busy_minute(loads, 0.002)
    assert not loads.loaded
    for _ in range(40):
        read(loads, DRIVES[2], 0.1)
    assert loads.loaded == {DRIVES[2]}
    for _ in range(100):  # below the line that it crossed, and not calm
        read(loads, DRIVES[2], 0.008)
    assert loads.loaded == {DRIVES[2]}
    for _ in range(100):
        read(loads, DRIVES[2], 0.002)
    assert not loads.loaded


def test_when_all_drives_are_slow_none_stands_out() -> None:
    loads = DriveLoads()
    busy_minute(loads, 0.004)
    for seconds in range(5, 100):
        for _ in range(20):
            for drive in DRIVES:
                read(loads, drive, seconds / 1000)
    assert not loads.loaded


def test_a_drive_that_nobody_asks_is_tried_again_after_a_while() -> None:
    loads = DriveLoads()
    busy_minute(loads, 0.002)
    for _ in range(40):
        read(loads, DRIVES[2], 0.5)
    seconds = 0
    while loads.loaded:
        seconds += 1
        loads.settle(DRIVES)
    assert 5 <= seconds <= 30


def test_what_a_node_reports_counts_as_what_this_process_has_under_way() -> None:
    loads = DriveLoads()
    busy_minute(loads, 0.005)
    loads.told(DRIVES[1], 40.0)
    loads.settle(DRIVES)
    assert loads.loaded == {DRIVES[1]}
    loads.told(DRIVES[1], 0.5)
    loads.settle(DRIVES)
    assert not loads.loaded


def test_a_read_that_is_given_up_tells_only_that_it_took_so_long() -> None:
    loads = DriveLoads()
    busy_minute(loads, 0.01)
    before = loads.wait_seconds(DRIVES[0])
    read(loads, DRIVES[0], 0.0001, answered=False)
    assert loads.wait_seconds(DRIVES[0]) == before
    read(loads, DRIVES[0], 1.0, answered=False)
    assert loads.wait_seconds(DRIVES[0]) > before


def test_a_drive_that_left_the_map_is_forgotten() -> None:
    loads = DriveLoads()
    for _ in range(100):
        read(loads, DRIVES[0], 1.0)
    loads.settle(DRIVES[1:])
    assert not loads.loaded
    assert loads.wait_seconds(DRIVES[0]) == 0.0


def test_the_first_copy_is_read_while_it_is_not_worse() -> None:
    loads = DriveLoads()
    busy_minute(loads, 0.004)
    assert {copy_to_ask(ORDER[:3], (), loads) for _ in range(10)} == {0}


def test_copies_are_spread_when_the_first_is_busy() -> None:
    loads = DriveLoads()
    busy_minute(loads, 0.004)
    for _ in range(6):
        loads.begun(DRIVES[0], SIZE)
    counts = Counter(copy_to_ask(ORDER[:3], (), loads) for _ in range(10))
    assert counts == {1: 5, 2: 5}


def test_no_copy_is_asked_at_once_when_all_are_unwell_or_loaded() -> None:
    loads = DriveLoads()
    busy_minute(loads, 0.002)
    for _ in range(40):
        read(loads, DRIVES[0], 0.5)
    assert copy_to_ask(ORDER[:1], (), loads) is None
    assert copy_to_ask(ORDER[:3], {Slot(1)}, loads) == 2


@given(st.lists(st.tuples(st.sampled_from(DRIVES), st.floats(0, 5)), max_size=200))
def test_what_was_begun_and_ended_leaves_nothing_under_way(
    reads: list[tuple[DriveId, float]],
) -> None:
    loads = DriveLoads()
    for drive, _ in reads:
        loads.begun(drive, SIZE)
    for drive, seconds in reads:
        loads.ended(drive, SIZE, seconds)
    for _ in range(200):
        loads.settle(DRIVES)
    assert not loads.loaded
    assert all(loads.wait_seconds(drive) < 1e-6 for drive in DRIVES)
