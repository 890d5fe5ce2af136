"""The census: what is stored by remaining tolerance, as drives go and come, at any number of sets."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.metadata.records import BlobRef
from gateway.metrics import RequestCounts
from ops.admin_cli import stored_line
from ops.keeper.census import (
    AGAIN_SECONDS,
    LOST,
    NOTHING,
    SETS_MAX,
    Amount,
    Counting,
    tolerance_of,
)
from ops.keeper.inventory import Found, Holding
from ops.metrics import StoreCounts, render
from placement.ids import DriveId
from tests.unit.test_keeper_repair import DRIVES, Cluster, run

_drives = st.sampled_from(DRIVES)


def found(k: int, m: int, size_bytes: int, places: list[list[DriveId]]) -> Found:
    ref = BlobRef(blob=bytes(16), k=k, m=m, stripe_size_bytes=4096, size_bytes=size_bytes)
    held = {index: [Holding("local", d) for d in drives] for index, drives in enumerate(places)}
    return Found(ref, held)


@st.composite
def _found(draw: st.DrawFn) -> Found:
    """A blob with any drives for each of its indexes: none, several, one for two of them."""
    k, m = draw(st.integers(1, 4)), draw(st.integers(0, 2))
    index = st.lists(_drives, max_size=2, unique=True)
    places = draw(st.lists(index, min_size=k + m, max_size=k + m))
    return found(k, m, draw(st.integers(0, 9000)), places)


def looked_at(blobs: list[Found], live: frozenset[DriveId]) -> dict[int, Amount]:
    """The same by looking at each blob again with only these drives."""
    told = dict.fromkeys(range(LOST, max((b.ref.m for b in blobs), default=0) + 1), NOTHING)
    for blob in blobs:
        left = {i: [h for h in held if h.drive in live] for i, held in blob.shards.items()}
        tolerance = max(Found(blob.ref, left).tolerance, LOST)
        told[tolerance] = told[tolerance].plus(Amount(1, blob.ref.size_bytes))
    return told


@given(st.lists(_found(), max_size=12), st.frozensets(_drives), st.sampled_from([0, 1, SETS_MAX]))
def test_what_is_told_is_what_looking_again_would_find(
    blobs: list[Found], live: frozenset[DriveId], sets_max: int
) -> None:
    """Beyond the sets that are counted apart never more than that, and with all drives the same."""
    counting = Counting(sets_max)
    for blob in blobs:
        counting.add(blob)
    counted = counting.counted()
    assert len(counted.held) <= sets_max
    assert tolerance_of(counted, frozenset(DRIVES)) == looked_at(blobs, frozenset(DRIVES))
    told, truth = tolerance_of(counted, live), looked_at(blobs, live)
    assert told.keys() == truth.keys()
    if sets_max == SETS_MAX:
        assert told == truth
    for most in truth:  # so many blobs can lose at most that
        assert sum(told[left].blobs for left in told if left <= most) >= sum(
            truth[left].blobs for left in truth if left <= most
        )
    assert sum(amount.size_bytes for amount in told.values()) == sum(
        blob.ref.size_bytes for blob in blobs
    )


def told(cluster: Cluster) -> dict[str, tuple[int, int]]:
    """As gauges show it, with the drives that are live."""
    stored = cluster.repair.census.told(cluster.live)
    assert stored is not None
    return {left: (a["blobs"], a["bytes"]) for left, a in stored["by_tolerance"].items()}


def test_a_drive_that_goes_shows_at_once_and_one_that_comes_back_too() -> None:
    async def scenario(cluster: Cluster) -> None:
        assert cluster.repair.census.told(cluster.live) is None  # nobody has looked yet
        await cluster.repair.work()
        whole = (40, sum(ref.size_bytes for ref in cluster.refs))
        assert told(cluster) == {"lost": (0, 0), "0": (0, 0), "1": (0, 0), "2": whole}
        cluster.live -= {DRIVES[0]}
        # The 20 of four plus two lie on all six drives; of the copies some on three others.
        copies = [
            sum(
                DRIVES[0] not in [d.drive_id for d in cluster.placement.write_order(ref.blob)[:3]]  # type: ignore[arg-type]
                for ref in cluster.refs
                if ref.k == 1
            )
        ]
        assert 0 < copies[0] < 20
        assert told(cluster)["1"][0] == 40 - copies[0]
        assert told(cluster)["2"][0] == copies[0]
        cluster.live -= set(DRIVES[1:3])
        assert told(cluster)["lost"][0] == 20 + sum(
            {d.drive_id for d in cluster.placement.write_order(ref.blob)[:3]} == set(DRIVES[:3])  # type: ignore[arg-type]
            for ref in cluster.refs
            if ref.k == 1
        )
        cluster.live = frozenset(DRIVES)
        assert told(cluster)["2"] == whole

    run(scenario)


def test_an_inventory_counts_what_it_rebuilt() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.wipe(DRIVES[0])
        await cluster.repair.work()
        assert told(cluster)["1"][0] == 20  # four plus two has no sixth drive
        assert told(cluster)["2"][0] == 20
        cluster.live = frozenset(DRIVES)
        await cluster.repair.work()
        assert told(cluster)["2"][0] == 40

    run(scenario)


def test_between_inventories_the_census_counts_what_was_written_but_not_while_a_drive_is_away() -> (
    None
):
    async def scenario(cluster: Cluster) -> None:
        census = cluster.repair.census
        await census.work()
        assert census.told(cluster.live) is None  # an inventory comes first
        await cluster.repair.work()
        await cluster.store(100, 4, 4096)
        await census.work()
        assert told(cluster)["2"][0] == 40  # too early
        cluster.clock.seconds += AGAIN_SECONDS
        cluster.waits = frozenset({DRIVES[5]})
        await census.work()
        assert told(cluster)["2"][0] == 40
        cluster.waits = frozenset()
        await census.work()
        assert told(cluster)["2"][0] == 41
        # It repairs nothing and asks for no repair.
        assert cluster.repair.progress.examined == 40
        assert cluster.repair.progress.pending == 0

    run(scenario)


def shown(counts: StoreCounts) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("tolerance", "")): sample.value
        for family in text_string_to_metric_families(render(counts).decode())
        for sample in family.samples
    }


def test_gauges_show_the_count_and_the_map_and_nothing_before_the_first() -> None:
    counting = Counting(sets_max=1)
    counting.add(found(1, 1, 10, [[DRIVES[0]], [DRIVES[1]]]))
    counting.add(found(1, 1, 5, [[DRIVES[2]], [DRIVES[1]]]))

    async def scenario() -> dict[str, object] | None:
        cluster = Cluster()
        cluster.clock.seconds = 100.0
        cluster.repair.census.take(counting, began=40.0)
        return cluster.repair.census.told(frozenset(DRIVES[1:]))

    stored = asyncio.run(scenario())
    repair = {"stored": stored, "misplaced_shards": 3}
    counts = StoreCounts(RequestCounts(), map_epoch=7, map_open_epochs=2, duties={"repair": repair})
    gauges = shown(counts)
    # Of the second blob no drive is known: one went, so it may have lost a shard.
    assert gauges["ostraka_stored_blobs", "0"] == 2
    assert gauges["ostraka_stored_blob_bytes", "0"] == 15
    assert gauges["ostraka_stored_blobs", "lost"] == gauges["ostraka_stored_blobs", "1"] == 0
    assert gauges["ostraka_coarse_blobs", ""] == 1
    assert gauges["ostraka_inventory_timestamp_seconds", ""] > 1e9
    assert gauges["ostraka_map_epoch", ""] == 7
    assert gauges["ostraka_map_open_epochs", ""] == 2
    assert gauges["ostraka_misplaced_shards", ""] == 3
    before = shown(StoreCounts(RequestCounts(), duties={"repair": {"stored": None}}))
    assert not any(
        name.startswith(("ostraka_stored", "ostraka_inventory", "ostraka_misplaced"))
        for name, _ in before
    )


@pytest.mark.parametrize(
    ("by_tolerance", "line"),
    [
        (
            {"lost": (0, 0), "0": (0, 0), "1": (0, 0), "2": (4000, 5_000_000)},
            "stored by tolerance: 2: 4,000 blobs, 5.0 MB (counted 90 s ago)",
        ),
        (
            {"lost": (1, 10), "0": (0, 0), "1": (2, 2_000_000), "2": (0, 0)},
            "stored by tolerance: lost: 1 blobs, 0.0 MB; 1: 2 blobs, 2.0 MB (counted 90 s ago)",
        ),
        ({"lost": (0, 0), "0": (0, 0)}, "stored by tolerance: nothing (counted 90 s ago)"),
    ],
)
def test_people_are_told_what_there_is(by_tolerance: dict[str, tuple[int, int]], line: str) -> None:
    stored = {
        "began_at_seconds": 1000.0,
        "by_tolerance": {left: {"blobs": n, "bytes": b} for left, (n, b) in by_tolerance.items()},
    }
    assert stored_line(stored, now_seconds=1090.0) == line
