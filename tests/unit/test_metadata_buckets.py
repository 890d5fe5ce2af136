"""Buckets: ownership, races, deletion, the cache, and listing objects through it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.iam import USER, IamRefused
from gateway.domain.listing import Question, list_keys
from gateway.metadata import keys
from gateway.metadata.errors import (
    BucketBusy,
    BucketNotEmpty,
    BucketOwned,
    BucketTaken,
    NoSuchBucket,
    NotBucketOwner,
)
from gateway.metadata.identity_records import IamRecord
from gateway.metadata.records import GarbageRecord, UploadRecord, decode, encode
from gateway.s3.message import Principal
from placement.errors import OutcomeUnknown
from placement.ids import UploadId
from placement.metastore.port import DeleteRange, Put, Range, Txn, TxnResult, prefix_end
from tests.unit.metadata_doubles import OWNER, Rig, stored

REGION = "us-east-1"


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


async def stranger(rig: Rig) -> Principal:
    account = await rig.metadata.accounts.create("stranger")
    identity = await rig.metadata.identity(account.access_key)
    assert identity is not None
    return identity.principal


async def put(rig: Rig, bucket: str, key: str) -> None:
    entry, previous = await rig.metadata.lookup(bucket, key, OWNER)
    record = rig.record()
    await rig.metadata.commits.commit(
        entry, entry.object_key(key), record, stored=stored(record), previous=previous
    )


def test_a_bucket_is_its_owners_alone() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        other = await stranger(rig)
        with pytest.raises(NotBucketOwner):
            await rig.metadata.bucket("bucket", other)
        with pytest.raises(NotBucketOwner):
            await rig.metadata.lookup("bucket", "k", other)
        with pytest.raises(NotBucketOwner):
            await rig.metadata.delete_bucket("bucket", other)
        with pytest.raises(BucketTaken):
            await rig.metadata.create_bucket("bucket", other, REGION)
        with pytest.raises(BucketOwned):
            await rig.metadata.create_bucket("bucket", OWNER, REGION)
        with pytest.raises(NoSuchBucket):
            await rig.metadata.bucket("other", OWNER)

    run(main)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.3]))
def test_of_racing_creations_one_gateway_gets_the_bucket(seed: int, lost: float) -> None:
    rig = Rig(seed, lost_answers=lost)

    async def attempt() -> bytes | None:
        try:
            return (await rig.gateway().create_bucket("new", OWNER, REGION)).bucket_id
        except (BucketOwned, OutcomeUnknown):
            return None

    async def main() -> None:
        await rig.ready()
        made = await asyncio.gather(*(attempt() for _ in range(4)))
        entry = await rig.metadata.bucket("new", OWNER)
        assert {each for each in made if each is not None} <= {entry.bucket_id}

    run(main)


def test_the_first_write_window_refuses_no_creation() -> None:
    """It opens while buckets and users are made, whose transactions compare that there is none."""
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        real, opens = rig.memory.txn, True

        async def txn(txn: Txn) -> TxnResult:
            nonlocal opens
            if opens:
                opens = False
                opening = (Put(keys.WINDOWED, b"\x01"), Put(keys.window(1), b"\x01"))
                await real(Txn((), opening))
            return await real(txn)

        rig.memory.txn = txn  # type: ignore[method-assign]
        await rig.metadata.create_bucket("new", OWNER, REGION)
        await real(Txn((), (DeleteRange(keys.WINDOWED), DeleteRange(keys.window(1)))))
        opens = True
        user = IamRecord(kind="", unique_id="", name="", path="/", created_ms=0)
        await rig.metadata.identities.create(OWNER.account_id, USER, "ann", user)
        with pytest.raises(IamRefused, match="already exists"):
            await rig.metadata.identities.create(OWNER.account_id, USER, "Ann", user)

    run(main)


def test_a_bucket_with_objects_is_not_deleted_and_an_empty_one_is() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        await put(rig, "bucket", "k")
        with pytest.raises(BucketNotEmpty):
            await rig.metadata.delete_bucket("bucket", OWNER)
        entry, found = await rig.metadata.lookup("bucket", "k", OWNER)
        await rig.metadata.commits.delete(entry, entry.object_key("k"), previous=found)
        await rig.metadata.delete_bucket("bucket", OWNER)
        with pytest.raises(NoSuchBucket):
            await rig.metadata.lookup("bucket", "k", OWNER)

    run(main)


@pytest.mark.parametrize("count", [1, 50, 120])
def test_uploads_in_progress_end_with_their_bucket(count: int) -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        entry = await rig.metadata.bucket("bucket", OWNER)
        for number in range(count):
            upload_id = UploadId(number.to_bytes(16, "big"))
            record = UploadRecord(
                upload_id=upload_id,
                owner=OWNER.account_id,
                initiator="",
                created_ms=0,
                state="done" if number % 10 == 9 else "open",
            )
            key = keys.upload(entry.bucket_id, b"k", upload_id)
            await rig.memory.txn(Txn((), (Put(key, encode(record)),)))
        await rig.metadata.delete_bucket("bucket", OWNER)
        left = await rig.memory.range(Range(keys.UPLOADS, prefix_end(keys.UPLOADS)))
        assert left.kvs == ()
        queued = await rig.memory.range(Range(keys.GARBAGE, prefix_end(keys.GARBAGE)))
        uploads = [kv for kv in queued.kvs if decode(GarbageRecord, kv.value).group]
        assert len(uploads) == count - count // 10

    run(main)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.3]))
def test_deleting_a_bucket_and_writing_into_it_do_not_both_succeed(seed: int, lost: float) -> None:
    rig = Rig(seed, lost_answers=lost)

    async def write() -> bool | None:
        try:
            await put(rig, "bucket", "k")
        except NoSuchBucket:
            return False
        except OutcomeUnknown:
            return None
        return True

    async def delete() -> bool | None:
        try:
            await rig.gateway().delete_bucket("bucket", OWNER)
        except (BucketNotEmpty, BucketBusy):
            return False
        except OutcomeUnknown:
            return None
        return True

    async def main() -> None:
        await rig.ready()
        written, deleted = await asyncio.gather(write(), delete())
        if written is not None and deleted is not None:
            assert written != deleted

    run(main)


def test_the_watch_follows_what_other_gateways_do() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        watching = rig.gateway()
        watching.start()
        try:
            for _ in range(20):
                await asyncio.sleep(0)
            await watching.lookup("bucket", "k", OWNER)
            assert "bucket" in watching.buckets.cached
            await rig.metadata.delete_bucket("bucket", OWNER)
            for _ in range(20):
                await asyncio.sleep(0)
            assert "bucket" not in watching.buckets.cached
        finally:
            await watching.close()

    run(main)


def test_a_stale_cache_never_answers_for_a_bucket_made_again() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        await put(rig, "bucket", "k")
        stale = rig.gateway()
        entry, found = await stale.lookup("bucket", "k", OWNER)
        assert found is not None
        await rig.metadata.commits.delete(entry, entry.object_key("k"), previous=found)
        await rig.metadata.delete_bucket("bucket", OWNER)
        with pytest.raises(NoSuchBucket):
            await stale.snapshot(entry, ())
        await rig.metadata.create_bucket("bucket", OWNER, REGION)
        with pytest.raises(NoSuchBucket):
            await stale.snapshot(entry, ())
        again, found = await stale.lookup("bucket", "k", OWNER)
        assert found is None
        assert again.bucket_id != entry.bucket_id

    run(main)


def test_an_accounts_buckets_come_in_pages() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready("aa-0")
        for number in range(1, 5):
            await rig.metadata.create_bucket(f"aa-{number}", OWNER, "eu" if number > 2 else REGION)
        other = await stranger(rig)
        await rig.metadata.create_bucket("aa-stranger", other, REGION)

        async def page(
            after: str = "", limit: int = 10, prefix: str = "", region: str | None = None
        ) -> tuple[list[str], bool]:
            found = await rig.metadata.owned_buckets(
                OWNER, prefix=prefix, after=after, region=region, limit=limit
            )
            return [each.name for each in found.buckets], found.more

        assert await page() == ([f"aa-{number}" for number in range(5)], False)
        assert await page(limit=2) == (["aa-0", "aa-1"], True)
        assert await page(after="aa-1", limit=3) == (["aa-2", "aa-3", "aa-4"], False)
        assert await page(prefix="aa-3") == (["aa-3"], False)
        assert await page(prefix="b") == ([], False)
        assert await page(after="zz", prefix="aa") == ([], False)
        assert await page(region="eu", limit=1) == (["aa-3"], True)

    run(main)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text("ab/\x00\x01é", min_size=1, max_size=4), max_size=20, unique=True),
    st.text("ab/\x00", max_size=2),
    st.sampled_from(["", "/", "\x00"]),
    st.integers(1, 4),
)
def test_pages_of_a_real_bucket_follow_each_other(
    names: list[str], prefix: str, delimiter: str, keys_max: int
) -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        await rig.metadata.create_bucket("neighbour", OWNER, REGION)
        for name in names:
            await put(rig, "bucket", name)
            await put(rig, "neighbour", name + "x")
        pages = rig.metadata.pages(await rig.metadata.bucket("bucket", OWNER))
        seen: list[bytes] = []
        after = None
        while True:
            question = Question(prefix.encode(), delimiter.encode(), after, keys_max)
            listing = await list_keys(pages, question)
            seen += sorted(listing.keys + listing.prefixes)
            after = listing.next
            if after is None:
                break
        expected = set()
        for name in names:
            if name.startswith(prefix):
                cut = name.find(delimiter, len(prefix)) if delimiter else -1
                expected.add((name if cut < 0 else name[: cut + len(delimiter)]).encode())
        assert seen == sorted(expected)

    run(main)
