"""The rule of writing, over every combination of missing drives and outcomes."""

from collections.abc import Collection
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.write_plan import (
    COPIES_SIZE_BYTES_MAX,
    WritePlan,
    judge,
    plan_write,
    replacements,
    scheme_for,
)
from placement.cluster_map import MapDrive
from placement.ids import DriveId, Slot
from placement.schemes import Scheme, widest_that_fits

LARGE = COPIES_SIZE_BYTES_MAX + 1


def drives(count: int) -> tuple[MapDrive, ...]:
    return tuple(
        MapDrive(Slot(i), DriveId(bytes([i]) * 16), "node", "host", "zone") for i in range(count)
    )


def plan_of(
    wanted: Scheme, size_bytes: int, order: tuple[MapDrive, ...], live: Collection[Slot]
) -> WritePlan | None:
    """As a topology plans it, whose order is the same for every width."""
    target = scheme_for(wanted, size_bytes)
    fitting = widest_that_fits(target, len(live))
    return None if fitting is None else plan_write(target, fitting, order, live)


def test_with_all_drives_index_i_sits_on_rank_i() -> None:
    order = drives(8)
    plan = plan_of(Scheme(4, 2), LARGE, order, {d.slot for d in order})
    assert plan is not None
    assert plan.seats == order[:6]
    assert plan.left_out == ()
    assert not plan.narrow


def test_small_blobs_are_m_plus_one_copies_and_not_narrow() -> None:
    order = drives(6)
    plan = plan_of(Scheme(4, 2), COPIES_SIZE_BYTES_MAX, order, {d.slot for d in order})
    assert plan is not None
    assert (plan.scheme.k, plan.scheme.m) == (1, 2)
    assert not plan.narrow


@pytest.mark.parametrize("scheme", [Scheme(4, 2), Scheme(2, 1), Scheme(8, 3), Scheme(1, 0)])
@pytest.mark.parametrize("size", [0, LARGE])
def test_every_set_of_missing_drives_gives_distinct_live_seats_or_none(
    scheme: Scheme, size: int
) -> None:
    order = drives(scheme.width + 1)
    for missing_count in range(len(order) + 1):
        for missing in combinations(range(len(order)), missing_count):
            live = {d.slot for d in order if d.slot not in missing}
            plan = plan_of(scheme, size, order, live)
            if len(live) < scheme.m + 1:
                assert plan is None
                continue
            assert plan is not None
            slots = [d.slot for d in plan.seats]
            assert len(set(slots)) == len(slots) == plan.scheme.width
            assert set(slots) <= live
            assert plan.scheme.m == scheme.m
            wanted = scheme.copies if size == 0 else scheme
            assert plan.scheme.width == min(wanted.width, len(live))
            assert plan.narrow == (plan.scheme.k < wanted.k)
            assert set(plan.left_out) == set(range(wanted.width)) - live
            for index, drive in enumerate(plan.seats):
                if order[index].slot in live:
                    assert drive == order[index]


@pytest.mark.parametrize("scheme", [Scheme(4, 2), Scheme(2, 1), Scheme(3, 3), Scheme(1, 0)])
@pytest.mark.parametrize("size", [0, LARGE])
def test_every_set_of_outcomes_commits_exactly_when_the_rule_says_so(
    scheme: Scheme, size: int
) -> None:
    order = drives(scheme.width)
    plan = plan_of(scheme, size, order, {d.slot for d in order})
    assert plan is not None
    width, k = plan.scheme.width, plan.scheme.k
    for count in range(width + 1):
        for stored in combinations(range(width), count):
            verdict = judge(plan, stored)
            assert verdict.commits == (count == width or count >= k + 1)
            assert set(verdict.marks) == {plan.seats[i].slot for i in range(width)} - {
                plan.seats[i].slot for i in stored
            }


@given(st.sets(st.integers(0, 9)), st.data())
def test_marks_name_every_drive_of_the_order_that_holds_no_shard(
    missing: set[int], data: st.DataObject
) -> None:
    order = drives(10)
    live = {d.slot for d in order} - missing
    plan = plan_of(Scheme(4, 2), LARGE, order, live)
    if plan is None:
        return
    stored = data.draw(st.sets(st.integers(0, plan.scheme.width - 1)))
    holders = {plan.seats[i].slot for i in stored}
    verdict = judge(plan, stored)
    assert set(verdict.marks) >= {d.slot for d in order[: plan.scheme.width]} - holders
    assert not set(verdict.marks) & holders


def test_replacements_are_live_and_were_not_tried() -> None:
    order = drives(8)
    live = {d.slot for d in order} - {Slot(1)}
    plan = plan_of(Scheme(4, 2), LARGE, order, {d.slot for d in order})
    assert plan is not None
    assert replacements(plan, {1}, order, live, {order[6].drive_id}) == {1: order[7]}
    assert replacements(plan, {1}, order[:6], live, ()) == {}


def test_a_drive_that_came_back_in_another_slot_is_no_replacement() -> None:
    order = drives(3)
    plan = plan_of(Scheme(1, 1), LARGE, order, {d.slot for d in order[:2]})
    assert plan is not None
    assert plan.seats == order[:2]
    back = replace(order[0], slot=Slot(9))
    later = (back, order[1], order[2])
    live = {d.slot for d in later}
    assert replacements(plan, {1}, later, live, ()) == {1: order[2]}
    assert replacements(plan, {1}, later, live, {order[2].drive_id}) == {}
