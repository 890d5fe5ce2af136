"""What an operator may declare gone for good, and what is said before."""

import pytest

from ops.cluster_admin import DriveView
from ops.drive_out import plan_out
from placement.cluster_map import ClusterMap, DriveState
from placement.map_changes import MapRefused, drain, first_map, put_out
from placement.schemes import Scheme
from tests.unit.test_map_changes import ids, record


def views(cluster: ClusterMap, conditions: dict[int, str]) -> list[DriveView]:
    return [
        DriveView(
            drive=place.drive_id,
            slot=place.slot,
            node=place.node,
            host=place.host,
            zone=place.zone,
            path="/d",
            state=place.state.value,
            condition=conditions.get(place.slot, "up"),
            capacity_bytes=0,
            free_bytes=0,
            shards=0,
        )
        for place in cluster.drives
    ]


def seven() -> ClusterMap:
    return first_map([record(n) for n in range(7)], Scheme(4, 2), 16)


@pytest.mark.parametrize("condition", ["up", "full", "recovering"])
def test_a_drive_that_is_there_is_not_given_up(condition: str) -> None:
    with pytest.raises(MapRefused, match="is there: drain it"):
        plan_out(seven(), views(seven(), {3: condition}), ["3"])


@pytest.mark.parametrize("condition", ["away", "missing", "failed"])
def test_one_of_seven_goes_without_a_word_and_while_others_move(condition: str) -> None:
    now = drain(eight(), ids(7))
    plan = plan_out(now, views(now, {3: condition}), ["3"])
    assert [d.slot for d in plan.new.drives if d.state is DriveState.OUT] == [3]
    assert plan.new.open_epochs == (2, 1)
    assert not [w for w in plan.warnings if "given up" in w or "silent" in w]


def eight() -> ClusterMap:
    return first_map([record(n) for n in range(8)], Scheme(4, 2), 16)


def test_what_cannot_be_rebuilt_or_read_is_said_before() -> None:
    now = seven()
    (silent, *_) = plan_out(now, views(now, {3: "silent"}), ["3"]).warnings
    assert "its node only does not answer" in silent
    (few,) = [
        w
        for w in plan_out(now, views(now, {2: "away", 3: "away"}), ["2", "3"]).warnings
        if "are left, fewer" in w
    ]
    assert few.startswith("5 drives are left, fewer than the 6 of scheme 4+2")
    many = plan_out(now, views(now, {1: "away", 2: "failed", 3: "away"}), ["3"]).warnings
    assert [w for w in many if w.startswith("3 drives are away or given up")]


def test_giving_up_what_is_out_already_changes_no_map() -> None:
    now = put_out(seven(), ids(3))
    assert plan_out(now, views(now, {3: "away"}), ["3"]).new == now
