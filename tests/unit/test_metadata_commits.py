"""Commits and deletes of objects: races, lost answers, garbage and references."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.conditions import DeleteConditions, WriteConditions
from gateway.metadata import groups, keys
from gateway.metadata.commits import Deletion
from gateway.metadata.entries import BucketEntry, ObjectEntry, etag_text
from gateway.metadata.errors import (
    GroupReclaimed,
    MetadataError,
    NoSuchBucket,
    NoSuchKey,
    PreconditionFailed,
    RelianceBroken,
)
from gateway.metadata.records import GarbageRecord, ObjectRecord, decode, encode
from gateway.objects.port import Stored
from gateway.s3.headers import parse_etags
from placement.errors import MetastoreUnavailable, OutcomeUnknown
from placement.ids import Partition, Slot
from placement.metastore.port import DeleteRange, Put, Range, Txn, TxnResult, exists, prefix_end
from tests.unit.metadata_doubles import OWNER, Rig, stored

ANY = parse_etags("*")


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


async def put(
    rig: Rig, key: str, record: ObjectRecord, conditions: WriteConditions | None = None
) -> None:
    entry, previous = await rig.metadata.lookup("bucket", key, OWNER)
    await rig.metadata.commits.commit(
        entry,
        entry.object_key(key),
        record,
        stored=stored(record),
        previous=previous,
        conditions=conditions,
    )


async def copy(rig: Rig, source_key: str, key: str) -> ObjectRecord:
    entry, source = await rig.metadata.lookup("bucket", source_key, OWNER)
    _, previous = await rig.metadata.lookup("bucket", key, OWNER)
    assert source is not None
    record_key = entry.object_key(key)
    record = msgspec.structs.replace(
        source.record,
        commit_id=rig.randomness.token(8),
        group_owner=groups.group_owner_of_copy(
            source.record_key,
            source.record,
            record_key,
            None if previous is None else previous.record,
        ),
    )
    await rig.metadata.commits.commit(entry, record_key, record, previous=previous, source=source)
    return record


async def delete(rig: Rig, key: str, conditions: DeleteConditions | None = None) -> None:
    entry, previous = await rig.metadata.lookup("bucket", key, OWNER)
    await rig.metadata.commits.delete(
        entry, entry.object_key(key), previous=previous, conditions=conditions
    )


async def current(rig: Rig, key: str) -> ObjectRecord | None:
    _, found = await rig.metadata.lookup("bucket", key, OWNER)
    return None if found is None else found.record


async def garbage(rig: Rig) -> dict[bytes, GarbageRecord]:
    found = await rig.memory.range(Range(keys.GARBAGE, prefix_end(keys.GARBAGE)))
    return {kv.key[2:]: decode(GarbageRecord, kv.value) for kv in found.kvs}


async def references(rig: Rig) -> set[bytes]:
    found = await rig.memory.range(Range(b"r/", prefix_end(b"r/")))
    return {kv.key for kv in found.kvs}


async def reclaim_all(rig: Rig) -> set[bytes]:
    """What the keeper would delete now."""
    claimed = set()
    for group, entry in (await garbage(rig)).items():
        txn = await rig.metadata.may_reclaim(group, entry.owner_key)
        if txn is not None and (await rig.memory.txn(txn)).succeeded:
            claimed.add(group)
    return claimed


def test_an_overwrite_queues_what_it_replaced_under_the_replaced_commit_id() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        first, second = rig.record(), rig.record()
        await put(rig, "k", first)
        assert await garbage(rig) == {}
        await put(rig, "k", second)
        assert await current(rig, "k") == second
        queued = await garbage(rig)
        assert set(queued) == {first.group}
        assert queued[first.group].commit_id == first.commit_id
        assert queued[first.group].blobs == (first.data,)
        assert await reclaim_all(rig) == {first.group}

    run(main)


def test_a_stale_previous_costs_a_retry_and_loses_nothing() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        first, second, third = rig.record(), rig.record(), rig.record()
        await put(rig, "k", first)
        entry, stale = await rig.metadata.lookup("bucket", "k", OWNER)
        await put(rig, "k", second)
        await rig.metadata.commits.commit(
            entry, entry.object_key("k"), third, stored=stored(third), previous=stale
        )
        assert await current(rig, "k") == third
        assert set(await garbage(rig)) == {first.group, second.group}

    run(main)


def test_conditions_of_writes() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        record = rig.record(b"a" * 16)
        mine = parse_etags(f'"{etag_text(record)}"')
        with pytest.raises(NoSuchKey):
            await put(rig, "k", record, WriteConditions(if_match=ANY))
        await put(rig, "k", record, WriteConditions(if_none_match=ANY))
        with pytest.raises(PreconditionFailed):
            await put(rig, "k", rig.record(), WriteConditions(if_none_match=ANY))
        other = rig.record(b"b" * 16)
        await put(rig, "k", other, WriteConditions(if_match=mine))
        with pytest.raises(PreconditionFailed):
            await put(rig, "k", rig.record(), WriteConditions(if_match=mine))
        assert await current(rig, "k") == other

    run(main)


def test_conditions_of_deletes() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        await delete(rig, "k", DeleteConditions(if_match=parse_etags("x")))
        await put(rig, "k", rig.record())
        with pytest.raises(PreconditionFailed):
            await delete(rig, "k", DeleteConditions(if_match=parse_etags("x")))
        with pytest.raises(PreconditionFailed):
            await delete(rig, "k", DeleteConditions(if_match_size_bytes=4))
        await delete(rig, "k", DeleteConditions(if_match=ANY, if_match_size_bytes=3))
        assert await current(rig, "k") is None

    run(main)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 6), st.sampled_from([0.0, 0.3]))
def test_of_racing_creations_exactly_one_wins(seed: int, writers: int, lost: float) -> None:
    rig = Rig(seed, lost_answers=lost)

    async def attempt(record: ObjectRecord) -> bool | None:
        try:
            await put(rig, "k", record, WriteConditions(if_none_match=ANY))
        except PreconditionFailed:
            return False
        except OutcomeUnknown:
            return None
        return True

    async def main() -> None:
        await rig.ready()
        records = [rig.record() for _ in range(writers)]
        outcomes = await asyncio.gather(*map(attempt, records))
        winner = await current(rig, "k")
        for record, outcome in zip(records, outcomes, strict=True):
            if outcome is not None:
                assert outcome == (record == winner)
        assert await garbage(rig) == {}

    run(main)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 8), st.sampled_from([0.0, 0.3]))
def test_racing_writes_and_deletes_leave_every_group_current_or_queued(
    seed: int, writers: int, lost: float
) -> None:
    """Invariant: nothing is leaked, nothing in use is reclaimed, an acknowledged write counted."""
    rig = Rig(seed, lost_answers=lost)

    async def attempt(number: int) -> bytes | None:
        try:
            if number % 3 == 2:
                await delete(rig, "k")
                return None
            record = rig.record()
            await put(rig, "k", record)
            return record.group
        except OutcomeUnknown:
            return None

    async def main() -> None:
        await rig.ready()
        groups_acknowledged = await asyncio.gather(*map(attempt, range(writers)))
        at_the_end = await current(rig, "k")
        queued = set(await garbage(rig))
        for group in filter(None, groups_acknowledged):
            assert (group in queued) != (at_the_end is not None and at_the_end.group == group)
        assert await reclaim_all(rig) == queued

    run(main)


@pytest.mark.parametrize("fate", ["applied", "lost"])
def test_a_lost_answer_is_settled_by_the_identical_transaction(fate: str) -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        record = rig.record()
        inner, rounds = rig.faulty.inner.txn, 0

        async def txn(request: Txn) -> object:
            nonlocal rounds
            rounds += 1
            if rounds == 1:
                if fate == "applied":
                    await inner(request)
                raise OutcomeUnknown("lost")
            return await inner(request)

        rig.faulty.inner.txn = txn  # type: ignore[assignment,method-assign]
        await put(rig, "k", record)
        assert await current(rig, "k") == record
        assert await garbage(rig) == {}

    run(main)


def test_a_write_that_was_applied_and_replaced_meanwhile_answers_success() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        first, second = rig.record(), rig.record()
        inner, armed = rig.faulty.inner.txn, True

        async def txn(request: Txn) -> object:
            nonlocal armed
            if not armed:
                return await inner(request)
            armed = False
            await inner(request)
            await put(rig, "k", second)
            raise OutcomeUnknown("lost")

        rig.faulty.inner.txn = txn  # type: ignore[assignment,method-assign]
        await put(rig, "k", first)
        assert await current(rig, "k") == second
        assert set(await garbage(rig)) == {first.group}

    run(main)


def test_a_write_that_was_applied_copied_and_deleted_with_its_copy_does_not_come_again() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        first = rig.record()
        inner, armed = rig.faulty.inner.txn, True

        async def txn(request: Txn) -> object:
            nonlocal armed
            if not armed:
                return await inner(request)
            armed = False
            await inner(request)
            await copy(rig, "k", "copy")
            await delete(rig, "k")
            await delete(rig, "copy")
            raise OutcomeUnknown("lost")

        rig.faulty.inner.txn = txn  # type: ignore[assignment,method-assign]
        await put(rig, "k", first)
        assert await current(rig, "k") is None

    run(main)


def test_a_delete_whose_answer_was_lost_does_not_take_the_next_object() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        first, second = rig.record(), rig.record()
        await put(rig, "k", first)
        inner, armed = rig.faulty.inner.txn, True

        async def txn(request: Txn) -> object:
            nonlocal armed
            if not armed:
                return await inner(request)
            armed = False
            await inner(request)
            await put(rig, "k", second)
            raise OutcomeUnknown("lost")

        rig.faulty.inner.txn = txn  # type: ignore[assignment,method-assign]
        await delete(rig, "k")
        assert await current(rig, "k") == second

    run(main)


def test_the_sweep_and_a_slow_upload_cannot_both_win() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        record = rig.record()
        entry = await rig.metadata.bucket("bucket", OWNER)
        claim = await rig.metadata.may_reclaim(record.group, entry.object_key("k"))
        assert claim is not None
        assert (await rig.memory.txn(claim)).succeeded
        with pytest.raises(GroupReclaimed):
            await put(rig, "k", record)
        assert await current(rig, "k") is None

        committed = rig.record()
        late = await rig.metadata.may_reclaim(committed.group, entry.object_key("k"))
        assert late is not None
        await put(rig, "k", committed)
        assert not (await rig.memory.txn(late)).succeeded
        assert await rig.metadata.may_reclaim(committed.group, entry.object_key("k")) is None

    run(main)


def test_a_copy_keeps_the_group_alive_until_its_last_record_ends() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        record = rig.record()
        await put(rig, "a", record)
        await copy(rig, "a", "b")
        await copy(rig, "b", "c")
        assert len(await references(rig)) == 2
        await delete(rig, "b")
        assert await reclaim_all(rig) == set()  # the first owner lives
        await delete(rig, "a")
        assert await reclaim_all(rig) == set()  # c refers to it
        await copy(rig, "c", "a")  # back onto the first owner's key, now by reference
        await put(rig, "c", rig.record())
        assert await reclaim_all(rig) == set()
        await delete(rig, "a")
        assert await reclaim_all(rig) == {record.group}
        assert await references(rig) == set()

    run(main)


def test_the_end_of_a_copy_does_not_reclaim_from_under_the_first_owner() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        record = rig.record()
        await put(rig, "a", record)
        await copy(rig, "a", "b")
        await delete(rig, "b")
        assert set(await garbage(rig)) == {record.group}
        assert await reclaim_all(rig) == set()
        await delete(rig, "a")
        assert await reclaim_all(rig) == {record.group}

    run(main)


def test_a_claim_and_a_copy_cannot_both_win() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        record = rig.record()
        await put(rig, "a", record)
        await copy(rig, "a", "b")
        await delete(rig, "a")
        (entry,) = (await garbage(rig)).values()
        # The keeper reads while nothing refers to the group ...
        reference = next(iter(await references(rig)))
        (held,) = await rig.memory.get_many([reference])
        assert held is not None
        await rig.memory.txn(Txn((), (DeleteRange(reference),)))
        claim = await rig.metadata.may_reclaim(record.group, entry.owner_key)
        assert claim is not None
        # ... and something does when it commits.
        await rig.memory.txn(Txn((), (Put(reference, b""),)))
        assert not (await rig.memory.txn(claim)).succeeded

        # The copy ends: the entry it queues is not overwritten by an older claim.
        await rig.memory.txn(Txn((), (DeleteRange(reference),)))
        claim = await rig.metadata.may_reclaim(record.group, entry.owner_key)
        assert claim is not None
        await rig.memory.txn(Txn((), (Put(keys.garbage(record.group), encode(entry)),)))
        assert not (await rig.memory.txn(claim)).succeeded

    run(main)


def test_a_copy_onto_itself_stays_what_it_was() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        await put(rig, "a", rig.record())
        assert (await copy(rig, "a", "a")).group_owner == b""
        await copy(rig, "a", "b")
        again = await copy(rig, "b", "b")
        assert again.group_owner != b""
        assert len(await references(rig)) == 1
        assert await garbage(rig) == {}

    run(main)


def test_a_copy_whose_source_changed_is_refused() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        await put(rig, "a", rig.record())
        entry, source = await rig.metadata.lookup("bucket", "a", OWNER)
        assert source is not None
        await delete(rig, "a")
        record = msgspec.structs.replace(source.record, group_owner=source.record_key)
        with pytest.raises(RelianceBroken):
            await rig.metadata.commits.commit(entry, entry.object_key("b"), record, source=source)

    run(main)


def test_what_the_shards_rely_on_is_compared_and_named() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        record = rig.record()
        assert record.data is not None
        mark = keys.damage(Partition(1), Slot(2))
        relying = Stored(record.data, (exists(mark),), (), narrow=True)
        entry, _ = await rig.metadata.lookup("bucket", "k", OWNER)
        record_key = entry.object_key("k")
        with pytest.raises(RelianceBroken) as caught:
            await rig.metadata.commits.commit(entry, record_key, record, stored=relying)
        assert caught.value.key == mark
        await rig.memory.txn(Txn((), (Put(mark, b""),)))
        await rig.metadata.commits.commit(entry, record_key, record, stored=relying)
        (narrow,) = await rig.memory.get_many([keys.narrow(record_key)])
        assert narrow is not None

    run(main)


def test_nothing_is_committed_into_a_bucket_that_was_made_again() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        entry, _ = await rig.metadata.lookup("bucket", "k", OWNER)
        other = rig.gateway()
        await other.delete_bucket("bucket", OWNER)
        await other.create_bucket("bucket", OWNER, "us-east-1")
        record = rig.record()
        with pytest.raises(NoSuchBucket):
            await rig.metadata.commits.commit(
                entry, entry.object_key("k"), record, stored=stored(record)
            )
        fresh, found = await rig.metadata.lookup("bucket", "k", OWNER)
        assert (fresh.bucket_id != entry.bucket_id, found) == (True, None)

    run(main)


def test_an_unreachable_store_is_said_so_and_not_retried() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        rig.faulty.unreachable = True
        with pytest.raises(MetastoreUnavailable):
            await put(rig, "k", rig.record())

    run(main)


async def deletions(
    rig: Rig, names: list[str]
) -> tuple[BucketEntry, tuple[MetadataError | None, ...]]:
    entry = await rig.metadata.bucket("bucket", OWNER)
    asked = [Deletion(entry.object_key(name)) for name in names]
    return entry, await rig.metadata.commits.delete_many(entry, asked)


def test_a_hundred_keys_go_in_one_transaction_within_the_limits() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        names = [f"k{number}" for number in range(100)]
        for name in names:
            await put(rig, name, rig.record())
        rig.faulty.transactions.clear()
        _, outcomes = await deletions(rig, [*names, "absent", "k1"])
        assert outcomes == (None,) * 102
        assert len(rig.faulty.transactions) == 1
        assert len(await garbage(rig)) == 100
        assert [await current(rig, name) for name in names] == [None] * 100

    run(main)


def test_copies_of_one_blob_are_deleted_in_transactions_of_their_own() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        record = rig.record()
        await put(rig, "a", record)
        await copy(rig, "a", "b")
        await copy(rig, "a", "c")
        _, outcomes = await deletions(rig, ["a", "b", "c"])
        assert outcomes == (None, None, None)
        assert await reclaim_all(rig) == {record.group}

    run(main)


def test_one_refused_key_fails_no_other() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        for name in "abc":
            await put(rig, name, rig.record())
        entry = await rig.metadata.bucket("bucket", OWNER)
        asked = [
            Deletion(entry.object_key("a")),
            Deletion(entry.object_key("b"), DeleteConditions(if_match=parse_etags("x"))),
            Deletion(entry.object_key("c")),
        ]
        outcomes = await rig.metadata.commits.delete_many(entry, asked)
        assert outcomes[0] is outcomes[2] is None
        assert isinstance(outcomes[1], PreconditionFailed)
        assert await current(rig, "b") is not None

    run(main)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.2]))
def test_batches_racing_with_overwrites_leak_nothing(seed: int, lost: float) -> None:
    rig = Rig(seed, lost_answers=lost)

    async def overwrite(name: str) -> None:
        with contextlib.suppress(OutcomeUnknown):
            await put(rig, name, rig.record())

    async def delete_all(names: list[str]) -> None:
        with contextlib.suppress(OutcomeUnknown):
            await deletions(rig, names)

    async def main() -> None:
        await rig.ready()
        names = list("abcdef")
        for name in names:
            await overwrite(name)
        await asyncio.gather(delete_all(names), *map(overwrite, names), delete_all(names[::-1]))
        queued = await garbage(rig)
        for name in names:
            record = await current(rig, name)
            assert record is None or record.group not in queued
        assert await reclaim_all(rig) == set(queued)

    run(main)


def test_a_lookup_without_waiting_agrees_with_the_waiting_one() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        record = rig.record()
        await put(rig, "k", record)
        assert rig.metadata.lookup_now("bucket", "k", OWNER) is None  # the store cannot
        rig.faulty.get_guarded_now = rig.memory.get_guarded_now  # type: ignore[attr-defined]
        rig.faulty.scan_guarded_now = rig.memory.scan_guarded_now  # type: ignore[attr-defined]
        quick = rig.gateway()
        assert quick.lookup_now("bucket", "k", OWNER) is None  # not cached yet
        waited = await quick.lookup("bucket", "k", OWNER)
        assert quick.lookup_now("bucket", "k", OWNER) == waited
        assert isinstance(waited[1], ObjectEntry)
        assert waited[1].key == "k"
        absent = quick.lookup_now("bucket", "other", OWNER)
        assert absent is not None
        assert absent[1] is None

    run(main)


def test_a_delete_whose_answer_was_lost_ends_what_replaced_the_object_on_condition() -> None:
    """Had it come just before, the conditional write would have found nothing."""
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        await put(rig, "k", rig.record())
        plainly = rig.faulty.txn
        lost: list[Txn] = []

        async def lose_the_first(txn: Txn) -> TxnResult:
            if lost:
                return await plainly(txn)
            lost.append(txn)
            second = rig.record(b"f" * 16)
            same = WriteConditions(if_match=parse_etags(f'"{(b"e" * 16).hex()}"'))
            await put(rig, "k", second, same)
            raise OutcomeUnknown("lost before it was applied")

        rig.faulty.txn = lose_the_first  # type: ignore[method-assign]
        entry, previous = await rig.metadata.lookup("bucket", "k", OWNER)
        await rig.metadata.commits.delete(entry, entry.object_key("k"), previous=previous)
        _, left = await rig.metadata.lookup("bucket", "k", OWNER)
        assert left is None

    run(main)
