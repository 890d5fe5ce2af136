"""Quotas in processes that write: what is refused, and by how much they can be exceeded."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.quotas import Amount, Quota, exceeded
from gateway.metadata import keys
from gateway.metadata.errors import NoSuchAccount, NoSuchBucket, QuotaExceeded, QuotaInvalid
from gateway.metadata.limit_changes import (
    change_settings,
    quota_at,
    set_account_quota,
    set_bucket_quota,
    store_settings,
)
from gateway.metadata.records import BucketRecord, ObjectRecord
from gateway.metadata.renames import Rename
from gateway.metadata.store import Metadata
from ops.keeper.accounting import Accounting
from tests.unit.metadata_doubles import OWNER, Rig, stored
from tests.waiting import eventually_async

amounts = st.builds(Amount, st.integers(-100, 100), st.integers(-3, 3))


@given(amounts, amounts, st.integers(0, 100), st.integers(0, 3))
def test_what_shrinks_fits_always_and_what_fits_keeps_the_quota(
    held: Amount, growth: Amount, size_bytes_max: int, objects_max: int
) -> None:
    refused = exceeded(Quota(size_bytes_max, objects_max), held, growth)
    if growth.size_bytes <= 0 and growth.objects <= 0:
        assert refused is None
    after = held.plus(growth)
    if refused is None:
        assert growth.size_bytes <= 0 or after.size_bytes <= size_bytes_max
        assert growth.objects <= 0 or after.objects <= objects_max
    else:
        assert after.size_bytes > size_bytes_max or after.objects > objects_max
    assert exceeded(Quota(), held, growth) is None


def run(scenario: Callable[[Rig], Awaitable[None]]) -> None:
    async def main() -> None:
        rig = Rig()
        await rig.ready()
        await scenario(rig)

    asyncio.run(main())


async def put(
    rig: Rig, metadata: Metadata, key: str, size_bytes: int, bucket: str = "bucket"
) -> None:
    """An object of that size, committed through that process."""
    entry, previous = await metadata.lookup(bucket, key, OWNER)
    record: ObjectRecord = msgspec.structs.replace(rig.record(), size_bytes=size_bytes)
    await metadata.commits.commit(
        entry, entry.object_key(key), record, stored=stored(record), previous=previous
    )


async def admitted(rig: Rig, metadata: Metadata, keys_: list[str], size_bytes: int) -> int:
    """How many such writes, all at once, are not refused."""

    async def one(key: str) -> bool:
        try:
            await put(rig, metadata, key, size_bytes)
        except QuotaExceeded:
            return False
        return True

    return sum(await asyncio.gather(*map(one, keys_)))


async def versioned(rig: Rig, state: str) -> None:
    def change(record: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(record, versioning=state)

    await rig.metadata.change_bucket("bucket", OWNER, change)


async def load(*processes: Metadata) -> None:
    """What a running watch would have told them by now."""
    for metadata in processes:
        await metadata.quotas.mirror.load()


async def counted(rig: Rig, duty: Accounting) -> None:
    """Let the keeper count until it has nothing more to publish."""
    await rig.metadata.quotas.mirror.load()
    for _ in range(200):
        rig.clock.seconds += 1.0
        more = await duty.work()
        for _ in range(10):
            await asyncio.sleep(0)
        done = all(c.is_whole and not c.is_changed for c in duty._counts.values())
        if not more and done and (duty._stands or not duty._counts):
            await rig.metadata.quotas.mirror.load()
            return
    raise AssertionError("it is never done")


def test_one_process_never_exceeds_a_quota_by_its_own_writes() -> None:
    async def scenario(rig: Rig) -> None:
        await set_bucket_quota(rig.metadata, "bucket", Quota(size_bytes_max=100))
        await load(rig.metadata)
        # Nobody counts: what it wrote itself is known all the same, also what is under way.
        assert await admitted(rig, rig.metadata, [f"k{i}" for i in range(30)], 10) == 10
        with pytest.raises(QuotaExceeded, match="bucket bucket, 100 bytes"):
            await put(rig, rig.metadata, "more", 1)
        entry = await rig.metadata.bucket("bucket", OWNER)
        found = await rig.memory.get_many([entry.object_key(f"k{i}") for i in range(30)])
        there = f"k{next(i for i, kv in enumerate(found) if kv is not None)}"
        await put(rig, rig.metadata, there, 10)  # in the place of another of its size
        await put(rig, rig.metadata, there, 4)
        await put(rig, rig.metadata, "more", 6)
        with pytest.raises(QuotaExceeded):
            await put(rig, rig.metadata, there, 5)

    run(scenario)


def test_objects_are_limited_like_bytes() -> None:
    async def scenario(rig: Rig) -> None:
        await set_bucket_quota(rig.metadata, "bucket", Quota(objects_max=3))
        await load(rig.metadata)
        assert await admitted(rig, rig.metadata, [f"k{i}" for i in range(9)], 1000) == 3
        with pytest.raises(QuotaExceeded, match="3 objects"):
            await put(rig, rig.metadata, "empty", 0)

    run(scenario)


def test_several_processes_exceed_it_by_no_more_than_was_free_for_each() -> None:
    async def scenario(rig: Rig) -> None:
        await put(rig, rig.metadata, "before", 40)
        await set_bucket_quota(rig.metadata, "bucket", Quota(size_bytes_max=100))
        processes = [rig.metadata, rig.gateway(), rig.gateway()]
        duty = Accounting(rig.metadata, rig.clock, rig.randomness)
        await counted(rig, duty)
        await load(*processes)
        # Each knows of 60 free bytes, and of no write of the others: 3 times 60, as is documented.
        found = [
            await admitted(rig, one, [f"{n}-{i}" for i in range(20)], 10)
            for n, one in enumerate(processes)
        ]
        assert found == [6, 6, 6]
        # Once the keeper has published, all of them know.
        await counted(rig, duty)
        await load(*processes)
        for one in processes:
            with pytest.raises(QuotaExceeded):
                await put(rig, one, "more", 1)
        await duty.close()

    run(scenario)


def test_what_is_published_replaces_what_a_process_added_by_itself() -> None:
    async def scenario(rig: Rig) -> None:
        await set_bucket_quota(rig.metadata, "bucket", Quota(size_bytes_max=100))
        duty = Accounting(rig.metadata, rig.clock, rig.randomness)
        await load(rig.metadata)
        for size_bytes in (30, 50, 70, 100):  # each in the place of the one before
            await put(rig, rig.metadata, "k", size_bytes)
            await counted(rig, duty)
            entry = await rig.metadata.bucket("bucket", OWNER)
            quotas = rig.metadata.quotas
            assert quotas.usage[entry.bucket_id].amount == Amount(size_bytes, 1)
            assert quotas.held_by_account(OWNER.account_id) == Amount(size_bytes, 1)
        await rig.metadata.commits.delete(
            entry,
            entry.object_key("k"),
            previous=(await rig.metadata.lookup("bucket", "k", OWNER))[1],
        )
        await counted(rig, duty)
        await put(rig, rig.metadata, "other", 100)
        await duty.close()

    run(scenario)


def test_an_accounts_quota_is_for_all_its_buckets_together() -> None:
    async def scenario(rig: Rig) -> None:
        await rig.metadata.create_bucket("second", OWNER, "us-east-1")
        await set_account_quota(rig.metadata, "root", Quota(size_bytes_max=100))
        await load(rig.metadata)
        await put(rig, rig.metadata, "k", 60)
        with pytest.raises(QuotaExceeded, match="account"):
            await put(rig, rig.metadata, "k", 50, "second")
        await put(rig, rig.metadata, "k", 40, "second")
        duty = Accounting(rig.metadata, rig.clock, rig.randomness)
        await counted(rig, duty)
        other = rig.gateway()
        await load(other)
        assert other.quotas.held_by_account(OWNER.account_id) == Amount(100, 2)
        await set_account_quota(rig.metadata, "root", None)
        await counted(rig, duty)
        assert not rig.metadata.quotas.usage, "nothing is counted any more"
        assert not rig.metadata.quotas.active
        await put(rig, rig.metadata, "k", 1000)
        await duty.close()

    run(scenario)


@pytest.mark.parametrize("state", ["Enabled", "Suspended"])
def test_versions_count(state: str) -> None:
    async def scenario(rig: Rig) -> None:
        await set_bucket_quota(rig.metadata, "bucket", Quota(size_bytes_max=30, objects_max=3))
        await load(rig.metadata)
        await versioned(rig, "Enabled")
        await put(rig, rig.metadata, "k", 10)
        await versioned(rig, state)
        await put(rig, rig.metadata, "k", 10)
        if state == "Suspended":  # null versions replace one another
            for _ in range(3):
                await put(rig, rig.metadata, "k", 10)
        await put(rig, rig.metadata, "other", 10)
        with pytest.raises(QuotaExceeded):
            await put(rig, rig.metadata, "third", 0)
        entry = await rig.metadata.bucket("bucket", OWNER)

        def nothing(*_: object) -> None:
            return

        rename = Rename(
            entry.object_key("other"), entry.object_key("new"), b"commitid", nothing, nothing
        )
        if state == "Enabled":
            with pytest.raises(QuotaExceeded):
                await rig.metadata.renames.run(entry, rename)

    run(scenario)


def test_a_new_bucket_of_the_same_name_has_no_quota() -> None:
    async def scenario(rig: Rig) -> None:
        await set_bucket_quota(rig.metadata, "bucket", Quota(objects_max=0))
        key = keys.bucket_quota((await rig.metadata.bucket("bucket", OWNER)).bucket_id)
        assert await quota_at(rig.metadata, key) == Quota(None, 0)
        await rig.metadata.delete_bucket("bucket", OWNER)
        assert await quota_at(rig.metadata, key) is None
        await rig.metadata.create_bucket("bucket", OWNER, "us-east-1")
        await load(rig.metadata)
        await put(rig, rig.metadata, "k", 1)

    run(scenario)


def test_what_is_no_quota_is_refused() -> None:
    async def scenario(rig: Rig) -> None:
        for quota in (Quota(), Quota(-1), Quota(1, -1), Quota(1 << 63)):
            with pytest.raises(QuotaInvalid):
                await set_bucket_quota(rig.metadata, "bucket", quota)
        with pytest.raises(NoSuchBucket):
            await set_bucket_quota(rig.metadata, "none", Quota(1))
        with pytest.raises(NoSuchAccount):
            await set_account_quota(rig.metadata, "none", Quota(1))
        assert not await admitted(rig, rig.metadata, [], 1)

    run(scenario)


def test_a_running_process_hears_of_quotas_and_settings() -> None:
    async def scenario(rig: Rig) -> None:
        other = rig.gateway()
        other.start()
        assert await other.quotas.mirror.loaded(5)
        assert not other.quotas.active
        await set_bucket_quota(rig.metadata, "bucket", Quota(1))
        await eventually_async(lambda: other.quotas.active)
        changed = await change_settings(
            rig.metadata, lambda now: msgspec.structs.replace(now, bucket_metrics=3)
        )
        assert changed == await store_settings(rig.metadata)
        await eventually_async(lambda: other.quotas.settings.bucket_metrics == 3)
        await set_bucket_quota(rig.metadata, "bucket", None)
        await eventually_async(lambda: not other.quotas.active)
        await other.close()

    run(scenario)
