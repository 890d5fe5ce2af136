"""Storage classes: their names, what a new object is kept as, and when a copy may share bytes."""

import pytest

from gateway.domain.storage_classes import (
    ClassNotMapped,
    Kept,
    StoredAs,
    kept_as,
    stays_put,
    why_not_mapped,
)
from placement.cluster_map import CLASSES_MAX, ClusterMap, DriveState, MapDrive
from placement.ids import DriveId, Epoch, Slot
from placement.map_changes import MapRefused, drain, with_class, without_class
from placement.schemes import Scheme, Schemes

SCHEMES = Schemes(Scheme(4, 2), (("COLD", Scheme(8, 2)), ("SAFE", Scheme(4, 4))))
LARGE = 1 << 20


def test_names_of_classes() -> None:
    for name in ("STANDARD_IA", "ONEZONE_IA", "GLACIER_IR", "REDUCED_REDUNDANCY", "LUKEWARM", "X1"):
        assert why_not_mapped(name) is None
    for name in ("STANDARD", "GLACIER", "DEEP_ARCHIVE", "OUTPOSTS", "", "cold", "1A", "A" * 33):
        assert why_not_mapped(name) is not None


def test_an_object_is_kept_by_its_class_else_by_its_bucket() -> None:
    assert kept_as("", None, SCHEMES) == Kept()
    assert kept_as("", (2, 1), SCHEMES) == Kept("", Scheme(2, 1))
    assert kept_as("COLD", (2, 1), SCHEMES) == Kept("COLD", Scheme(8, 2))
    with pytest.raises(ClassNotMapped):
        kept_as("OTHER", None, SCHEMES)


@pytest.mark.parametrize(
    ("kept", "named", "blob", "stays"),
    [
        pytest.param(Kept(), None, StoredAs(Scheme(2, 1), LARGE), True, id="an older default"),
        pytest.param(Kept(), (4, 2), None, True, id="named, and the default all the same"),
        pytest.param(Kept("COLD", Scheme(8, 2)), None, StoredAs(Scheme(4, 2), LARGE), False, id="8+2"),
        pytest.param(Kept("COLD", Scheme(8, 2)), None, StoredAs(Scheme(1, 2), 9), True, id="copies"),
        pytest.param(Kept("SAFE", Scheme(4, 4)), None, StoredAs(Scheme(1, 2), 9), False, id="more"),
        pytest.param(Kept("COLD", Scheme(8, 2)), None, None, False, id="parts are stored again"),
    ],
)  # fmt: skip
def test_bytes_stay_where_they_lie_as_wanted(
    kept: Kept, named: tuple[int, int] | None, blob: StoredAs | None, stays: bool
) -> None:
    assert stays_put(kept, named, blob, SCHEMES) is stays


def _map(drives: int) -> ClusterMap:
    places = (MapDrive(Slot(i), DriveId(bytes([i]) * 16), "n", f"h{i}", "z") for i in range(drives))
    return ClusterMap(Epoch(1), tuple(places), Scheme(4, 2))


def test_the_map_gives_classes_their_schemes() -> None:
    now = with_class(with_class(_map(6), "B", Scheme(2, 1)), "A", Scheme(5, 1))
    assert now.epoch == 3
    again = ClusterMap.decode(now.encode())
    assert again == now
    assert again.schemes.of_class("A") == Scheme(5, 1)
    assert with_class(now, "A", Scheme(3, 3)).schemes.of_class("A") == Scheme(3, 3)
    left = without_class(now, "A")
    assert left.classes == (("B", Scheme(2, 1)),)
    assert left.schemes.of_class("A") is None
    with pytest.raises(MapRefused):
        without_class(left, "A")


def test_a_map_without_classes_is_stored_as_ever() -> None:
    """Older programs read it, and its bytes did not change."""
    now = _map(6)
    assert without_class(with_class(now, "A", Scheme(2, 1)), "A").encode()[3:] == now.encode()[3:]


def test_a_class_must_fit_the_drives_in_use_and_a_drain_must_leave_enough() -> None:
    with pytest.raises(MapRefused):
        with_class(_map(6), "A", Scheme(5, 2))
    now = with_class(_map(7), "A", Scheme(5, 2))
    with pytest.raises(MapRefused, match="5\\+2"):
        drain(now, [now.drives[0].drive_id])
    drained = drain(without_class(now, "A"), [now.drives[0].drive_id])
    assert drained.drives[0].state is DriveState.DRAINING


def test_classes_are_bounded() -> None:
    now = _map(6)
    for number in range(CLASSES_MAX):
        now = with_class(now, f"C{number}", Scheme(2, 1))
    with pytest.raises(MapRefused):
        with_class(now, "ONE_MORE", Scheme(2, 1))


def test_what_may_fail_without_loss_is_told_by_the_weakest_scheme() -> None:
    assert Schemes(Scheme(4, 2)).tolerance == 2
    assert Schemes(Scheme(4, 2), (("A", Scheme(4, 3)),)).tolerance == 2
    assert Schemes(Scheme(4, 2), (("A", Scheme(4, 3)), ("B", Scheme(5, 1)))).tolerance == 1
