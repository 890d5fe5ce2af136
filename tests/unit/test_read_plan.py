"""The rule of reading, and where ranges lie, against dumb models."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.ranges import Geometry, pieces_of, steps_of
from gateway.domain.read_plan import Ask, ReadPlan
from placement.cluster_map import MapDrive
from placement.ids import DriveId, Slot


def drives(count: int) -> tuple[MapDrive, ...]:
    return tuple(
        MapDrive(Slot(i), DriveId(bytes([i]) * 16), "node", "host", "zone") for i in range(count)
    )


def test_data_shards_are_asked_first() -> None:
    plan = ReadPlan(4, 2, [drives(6)])
    plan.begin(range(4))
    assert [ask.index for ask in plan.next_asks()] == [0, 1, 2, 3]
    assert plan.next_asks() == ()


def test_an_unwell_drive_is_replaced_by_a_spare_from_the_start() -> None:
    plan = ReadPlan(4, 2, [drives(6)], avoid={Slot(1)})
    plan.begin(range(4))
    assert [ask.index for ask in plan.next_asks()] == [0, 2, 3, 4]


def test_loaded_drives_are_asked_before_unwell_ones_and_after_all_others() -> None:
    loaded = [DriveId(bytes([i]) * 16) for i in (1, 2)]
    plan = ReadPlan(4, 2, [drives(6)], avoid={Slot(0)}, loaded=loaded)
    plan.begin(range(4))
    asks = plan.next_asks()
    assert [ask.index for ask in asks] == [3, 4, 5, 1]
    plan.failed(asks[0])
    plan.failed(asks[1])
    assert {ask.index for ask in plan.next_asks()} == {0, 2}


def test_of_copies_the_one_to_begin_with_is_asked_first_and_the_others_after_it() -> None:
    plan = ReadPlan(1, 2, [drives(3)], first=1)
    plan.begin([0])
    (ask,) = plan.next_asks()
    assert ask.index == 1
    plan.failed(ask)
    (ask,) = plan.next_asks()
    assert ask.index == 0


def test_a_range_inside_one_fragment_asks_one_shard_and_all_it_takes_when_that_fails() -> None:
    plan = ReadPlan(4, 2, [drives(6)])
    plan.begin([2])
    (ask,) = plan.next_asks()
    assert ask.index == 2
    plan.failed(ask)
    assert [ask.index for ask in plan.next_asks()] == [0, 1, 3, 4]


def test_late_shards_bring_in_spares_and_the_first_k_win() -> None:
    plan = ReadPlan(4, 2, [drives(6)])
    plan.begin(range(4))
    asks = plan.next_asks()
    for ask in asks[:3]:
        plan.succeeded(ask)
    plan.overdue(asks[3])
    (spare,) = plan.next_asks()
    assert spare.index == 4
    plan.succeeded(spare)
    assert plan.done
    plan.abandon()
    plan.begin(range(4))
    assert 3 in [ask.index for ask in plan.next_asks()]


@given(
    st.sampled_from([(4, 2), (1, 2), (2, 1), (8, 3), (1, 0)]),
    st.data(),
)
def test_whatever_fails_the_plan_ends_with_k_good_shards_or_after_a_search(
    shape: tuple[int, int], data: st.DataObject
) -> None:
    k, m = shape
    order = drives(k + m + 2)
    avoid = data.draw(st.sets(st.sampled_from([d.slot for d in order])))
    dead = data.draw(st.sets(st.integers(0, k + m - 1)))
    elsewhere = data.draw(st.sets(st.sampled_from(sorted(dead)))) if dead else set()
    plan = ReadPlan(k, m, [order], avoid)
    failed: set[Ask] = set()
    for _ in range(2):  # two steps of one blob
        plan.begin(range(k))
        good: set[int] = set()
        for _ in range(100):
            asks = plan.next_asks()
            if plan.done:
                break
            for ask in asks:
                if ask.index in dead and ask.drive[0] < 100:
                    failed.add(ask)
                    plan.failed(ask)
                else:
                    good.add(ask.index)
                    plan.succeeded(ask)
            if not asks:
                if not plan.wants_search:
                    break
                found = [Ask(i, DriveId(bytes([100 + i]) * 16), "node") for i in elsewhere]
                plan.found(found, failed)
        reachable = k + m - len(dead) + len(elsewhere)
        assert plan.done == (reachable >= k)
        if plan.done:
            assert len(good) >= k


@given(
    st.sampled_from([(1, 1000), (4, 1000), (3, 1000), (4, 64), (7, 100)]),
    st.integers(1, 5000),
    st.data(),
)
def test_steps_cover_a_range_exactly_and_name_the_fragments_that_hold_it(
    shape: tuple[int, int], size: int, data: st.DataObject
) -> None:
    k, stripe = shape
    geometry = Geometry(k, stripe, size)
    offset = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(1, size - offset))
    at = offset
    for step in steps_of(geometry, offset, length, 3 * stripe):
        assert step.first * stripe + step.skip == at
        assert step.last * stripe >= at + step.take
        if step.last - step.first == 1:
            fragment = geometry.fragment_bytes(step.first)
            expected = {b // fragment for b in range(step.skip, step.skip + step.take)}
            assert set(step.indices) == expected
        else:
            assert step.indices == tuple(range(k))
        at += step.take
    assert at == offset + length


@given(st.sampled_from([1, 2, 3, 4, 7]), st.integers(1, 300), st.integers(0, 2000))
def test_shard_offsets_are_the_sum_of_checksums_and_fragments(
    k: int, stripe: int, size: int
) -> None:
    geometry = Geometry(k, stripe, size)
    at = 0
    for index in range(geometry.stripes):
        assert geometry.shard_offset(index) == at
        at += 8 + geometry.fragment_bytes(index)
    assert geometry.shard_size_bytes == at


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 6, [(0, 0, 3), (2, 0, 3)]),
        (2, 2, [(0, 2, 1), (2, 0, 1)]),
        (3, 1, [(2, 0, 1)]),
        (0, 0, []),
    ],
)
def test_pieces_skip_empty_parts(
    offset: int, length: int, expected: list[tuple[int, int, int]]
) -> None:
    assert list(pieces_of([3, 0, 4], offset, length)) == expected
