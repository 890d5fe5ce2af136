"""Placement and the stored map. A change here loses track of stored shards."""

from dataclasses import replace

import pytest

from placement.cluster_map import ClusterMap, DriveState, MapDrive
from placement.hashing import order_of
from placement.ids import DriveId, Epoch, Partition, Slot
from placement.schemes import Scheme

FLAT = ClusterMap(
    Epoch(1),
    tuple(MapDrive(Slot(i), DriveId(bytes([i]) * 16), "n", "h", "z") for i in range(8)),
    Scheme(4, 2),
)
UNEVEN = ClusterMap(
    Epoch(1),
    tuple(
        MapDrive(
            Slot(i), DriveId(bytes([i]) * 16), "n", f"h{i % 6}", f"z{i % 3}", weight=1.0 + i % 2
        )
        for i in range(12)
    ),
    Scheme(4, 2),
)


@pytest.mark.parametrize(
    ("partition", "flat", "uneven"),
    [
        (0, (2, 1, 3, 0, 7, 5, 6, 4), (2, 9, 1, 11, 0, 10, 3, 7, 5, 8, 6, 4)),
        (1, (7, 6, 0, 4, 5, 1, 3, 2), (10, 11, 6, 7, 9, 8, 0, 4, 5, 1, 3, 2)),
        (2, (7, 1, 5, 4, 3, 0, 6, 2), (7, 5, 3, 10, 8, 0, 1, 11, 9, 4, 6, 2)),
        (4095, (6, 2, 7, 5, 0, 4, 3, 1), (9, 11, 7, 6, 2, 10, 5, 3, 1, 0, 4, 8)),
    ],
)
def test_orders_of_known_maps(
    partition: int, flat: tuple[int, ...], uneven: tuple[int, ...]
) -> None:
    assert order_of(FLAT, Partition(partition)) == flat
    assert order_of(UNEVEN, Partition(partition)) == uneven


def test_a_stored_map_with_classes() -> None:
    stored = bytes.fromhex(
        "01"  # version
        "97 02 cd1000 930402ce00100000 90 90 90"  # epoch 2; no drives, open epochs and lineage
        "92 94 a4434f4c44 08 03 ce00100000"  # COLD: 8+3
        "94 a45741524d 02 01 ce00100000"  # WARM: 2+1
    )
    classes = (("COLD", Scheme(8, 3)), ("WARM", Scheme(2, 1)))
    value = ClusterMap(Epoch(2), (), Scheme(4, 2), classes=classes)
    assert ClusterMap.decode(stored) == value
    assert value.encode() == stored


def test_a_stored_map_of_version_1() -> None:
    stored = bytes.fromhex(
        "01"  # version
        "95 07 cd1000 930402ce00100000"  # epoch 7, 4096 partitions, 4+2 in stripes of 1 MiB
        "91 97 03 c41064646464646464646464646464646464"  # one drive: slot 3, its id
        "a46e6f6465 a4686f7374 a47a6f6e65 cb4004000000000000 a8647261696e696e67"
        "91 06"  # open epochs
    )
    value = ClusterMap(
        epoch=Epoch(7),
        drives=(
            MapDrive(Slot(3), DriveId(b"d" * 16), "node", "host", "zone", 2.5, DriveState.DRAINING),
        ),
        scheme=Scheme(4, 2),
        open_epochs=(Epoch(6),),
    )
    assert ClusterMap.decode(stored) == value
    assert value.encode() == stored


def test_a_stored_balanced_map() -> None:
    stored = bytes.fromhex(
        "02"  # version
        "92"  # pulls, and the fields of version 1
        "92 cb3ff8000000000000 cb4004000000000000"  # 1.5, and 2.5 as the weight
        "95 07 cd1000 930402ce00100000"
        "92 97 00 c41061616161616161616161616161616161 a16e a168 a17a cb3ff0000000000000 a27570"
        "97 01 c41062626262626262626262626262626262 a16e a168 a17a cb4004000000000000 a27570"
        "90"
    )
    drives = (
        MapDrive(Slot(0), DriveId(b"a" * 16), "n", "h", "z", 1.0, tuned_pull=1.5),
        MapDrive(Slot(1), DriveId(b"b" * 16), "n", "h", "z", 2.5),
    )
    value = ClusterMap(Epoch(7), drives, Scheme(4, 2), balanced=True)
    assert ClusterMap.decode(stored) == value
    assert value.encode() == stored


def test_orders_of_a_balanced_map_follow_its_pulls() -> None:
    pulls = [1.0, 1.0, 1.0, 1.0, 4.0, 1.0, 1.0, 1.0]
    drives = [replace(d, tuned_pull=pull) for d, pull in zip(FLAT.drives, pulls, strict=True)]
    tuned = replace(FLAT, drives=tuple(drives), balanced=True)
    assert order_of(tuned, Partition(0)) == (2, 1, 3, 4, 0, 7, 5, 6)
    assert order_of(tuned, Partition(1)) == (7, 4, 6, 0, 5, 1, 3, 2)
