"""The plan of the scrub: what is due when, in which order, how fast, and how old a check may be."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.metadata.records import decode, encode
from ops.keeper import scrub_plan as plan
from placement.hashing import partition_of
from placement.ids import BlobId, DriveId
from storage_node.port import ShardId

DAY_MS = 24 * 60 * 60 * 1000
PASS = plan.PASS_SECONDS
A, B = DriveId(b"a" * 16), DriveId(b"b" * 16)


@pytest.mark.parametrize(
    ("days", "until"),
    [(0, 0), (0.001, 0), (0.0035, 1), (0.5, 146), (1, 256), (14, 256), (400, 256), (-3, 0)],
)
def test_partitions_fall_due_evenly_over_a_pass_and_a_batch_is_bounded(
    days: float, until: int
) -> None:
    state = plan.begin(1_000 * DAY_MS, 4096)
    assert plan.next_batch(state, int((1_000 + days) * DAY_MS), PASS).until == until


def test_a_batch_that_is_begun_is_finished_before_more_falls_due() -> None:
    state = plan.next_batch(plan.begin(0, 4096), DAY_MS // 2, PASS)
    assert plan.next_batch(state, 9 * DAY_MS, PASS) is state


@given(st.integers(0, 16), st.lists(st.integers(0, 5 * DAY_MS), max_size=60))
def test_every_partition_is_due_once_in_each_pass(power: int, steps: list[int]) -> None:
    state, now, seen = plan.begin(0, 1 << power), 0, list[int]()
    for step in steps:
        now += step
        number = state.number
        batch = plan.next_batch(state, now, PASS)
        if batch.until == batch.partition:
            continue
        assert batch.partition == len(seen)
        assert batch.until - batch.partition <= plan.BATCH_PARTITIONS_MAX
        seen += range(batch.partition, batch.until)
        state = plan.batch_done(batch, now)
        if state.number > number:
            assert seen == list(range(1 << power))
            assert (state.partition, state.began_ms) == (0, now)
            seen = []


@given(st.binary(min_size=16, max_size=16), st.integers(0, 16), st.data())
def test_a_batch_holds_the_shards_of_its_partitions_alone(
    name: bytes, power: int, data: st.DataObject
) -> None:
    count = 1 << power
    blob = BlobId(name)
    first = data.draw(st.integers(0, count - 1))
    until = data.draw(st.integers(first + 1, count))
    state = msgspec.structs.replace(plan.begin(0, count), partition=first, until=until)
    where = plan.position(state, [A])
    assert where is not None
    after = (b"", -1) if where.after is None else (where.after.blob, where.after.index)
    listed = (blob, 0) > after and plan.in_batch(state, blob)
    assert listed == (first <= partition_of(blob, count) < until)


def test_drives_are_walked_one_after_the_other_and_each_goes_on_where_it_was() -> None:
    state = plan.next_batch(plan.begin(0, 4096), DAY_MS, PASS)
    shard = ShardId(BlobId(b"\x00\x07" + bytes(14)), 3)
    assert plan.position(state, [B, A]) == (A, None)
    state = plan.verified(state, A, shard)
    state = decode(plan.ScrubRecord, encode(state))  # as after a restart
    assert plan.position(state, [B, A]) == (A, shard)
    assert plan.position(state, [B]) == (B, None)  # A is away now: its place is not B's
    state = plan.drive_done(state, A)
    assert plan.position(state, [A, B]) == (B, None)
    assert plan.position(plan.drive_done(state, B), [A, B]) is None


def test_bytes_written_by_the_first_release_are_still_read() -> None:
    state = plan.ScrubRecord(
        number=3, began_ms=5, partitions=4, created_ms=2, partition=1, until=2, drive=A,
        after=b"x", verified_ms=(9, 0),
    )  # fmt: skip
    golden = bytes.fromhex("0199030504020102c41061616161616161616161616161616161c40178920900")
    assert decode(plan.ScrubRecord, golden) == state
    assert encode(state) == golden


def test_the_age_is_that_of_the_sector_that_waits_longest() -> None:
    state = plan.begin(0, 64)
    assert plan.oldest_age_seconds(state, 5_000) == 5
    for _ in range(64):
        until = state.partition + 1
        now = until * 1_000
        state = plan.batch_done(msgspec.structs.replace(state, until=until), now)
    assert state.number == 2
    assert plan.oldest_age_seconds(state, 64_000) == 63
    state = plan.batch_done(msgspec.structs.replace(state, until=1), 65_000)
    assert plan.oldest_age_seconds(state, 65_000) == 63  # the second is the oldest now
    assert plan.oldest_age_seconds(state, 0) == 0


def test_each_pass_draws_other_blobs_about_one_in_so_many() -> None:
    chance = random.Random(3)
    blobs = [chance.randbytes(16) for _ in range(20_000)]
    first, second = ({b for b in blobs if plan.is_drawn(b, n, 100)} for n in (1, 2))
    assert 140 < len(first) < 260
    assert 140 < len(second) < 260
    assert len(first & second) < 20


def test_a_piece_of_work_rests_so_long_that_the_rate_is_kept() -> None:
    pace = plan.Pace()
    assert pace.rest_seconds(10 << 20, 1.0, 2 << 20) == pytest.approx(4)
    assert pace.rest_seconds(1 << 40, 1.0, 1 << 20) == plan.REST_SECONDS_MAX


def test_under_load_of_clients_it_rests_longer_and_forgets_slowly_how_fast_it_was() -> None:
    pace = plan.Pace()
    calm = pace.rest_seconds(1 << 20, 0.01, 1 << 40)
    assert calm == pytest.approx(0.005)
    loaded = pace.rest_seconds(1 << 20, 0.1, 1 << 40)
    assert loaded == pytest.approx(0.1 * 8.8, rel=0.1)
    for _ in range(200):
        usual = pace.rest_seconds(1 << 20, 0.1, 1 << 40)
    assert usual == pytest.approx(0.05)


def test_the_rate_is_twice_what_a_pass_needs_and_never_tiny() -> None:
    assert plan.rate_bytes(1 << 50, PASS) == pytest.approx(2 * (1 << 50) / PASS)
    assert plan.rate_bytes(0, PASS) == plan.RATE_MIN_BYTES
