"""Counting what buckets hold: under every interleaving of reading and writing it comes out right."""

import asyncio
import random
from typing import Any

import pytest

from gateway.domain.quotas import Quota
from gateway.metadata import keys
from gateway.metadata.limit_changes import set_bucket_quota, usage_of
from gateway.metadata.limit_records import UsageRecord
from gateway.metadata.records import (
    BlobRef,
    ObjectRecord,
    PartRecord,
    UploadRecord,
    decode,
    encode,
)
from gateway.metadata.store import Metadata
from gateway.metadata.uploads import DONE, OPEN
from ops.keeper import bucket_counts
from ops.keeper.accounting import Accounting
from ops.keeper.bucket_counts import BucketCount
from placement.ids import UploadId
from placement.metastore.port import (
    DeleteRange,
    Event,
    KeyValue,
    Operation,
    Put,
    Range,
    RangeResult,
    Txn,
    prefix_end,
)
from tests.unit.metadata_doubles import (
    OWNER,
    SEALING_KEY,
    FaultyMetastore,
    HeldMetastore,
    Rig,
)

SEEDS = range(40)
NAMES = [f"k{number}" for number in range(12)]


class SlowAnswers(FaultyMetastore):
    """What was read arrives late: other things happen, and are told, in between."""

    async def range(self, request: Range) -> RangeResult:
        result = await super().range(request)
        await self._dawdle()
        await self._dawdle()
        return result


class Writer:
    """Changes records at random, as commits would leave them."""

    def __init__(self, rig: Rig, bucket_id: bytes, seed: int) -> None:
        self._memory = rig.memory
        self._bucket = bucket_id
        self._random = random.Random(seed)
        self._open: list[tuple[bytes, bytes]] = []
        self._ended: list[bytes] = []

    def _object(self, *, marker: bool = False) -> bytes:
        size = 0 if marker else self._random.randrange(1000)
        return encode(
            ObjectRecord(
                owner="o", group=b"g" * 16, size_bytes=size, etag=b"", modified_ms=1,
                commit_id=b"", delete_marker=marker,
            )
        )  # fmt: skip

    def _part(self) -> bytes:
        size = self._random.randrange(1000)
        ref = BlobRef(blob=b"b" * 16, k=1, m=1, stripe_size_bytes=1, size_bytes=size)
        return encode(PartRecord(data=ref, etag=b"", modified_ms=1, commit_id=b""))

    async def step(self) -> None:
        """One transaction."""
        choice = self._random.random()
        key = keys.object_(self._bucket, self._random.choice(NAMES).encode())  # type: ignore[arg-type]
        writes: list[Operation]
        if choice < 0.4:
            writes = [Put(key, self._object())]
            if self._random.random() < 0.3:
                order = self._random.randrange(4)
                writes.append(Put(keys.version(key, order), self._object(marker=choice < 0.1)))
        elif choice < 0.6:
            writes = [DeleteRange(key), DeleteRange(keys.version(key, self._random.randrange(4)))]
        else:
            writes = self._of_uploads(key, choice)
        await self._memory.txn(Txn((), tuple(writes)))

    def _of_uploads(self, object_key: bytes, choice: float) -> list[Operation]:
        if choice < 0.7 or not self._open:
            upload_id = self._random.randbytes(16)
            key = keys.UPLOADS + object_key[2:] + upload_id
            self._open.append((key, upload_id))
            return [Put(key, _upload(upload_id, OPEN))]
        key, upload_id = self._random.choice(self._open)
        parts = keys.parts_of(UploadId(upload_id))
        if choice < 0.9:
            number = self._random.randrange(1, 6)
            return [Put(keys.part(UploadId(upload_id), number), self._part())]
        self._open.remove((key, upload_id))
        if choice < 0.95:
            kept = keys.finished(key) if choice < 0.93 else key  # earlier releases kept it there
            return [
                DeleteRange(parts, prefix_end(parts)),
                *((DeleteRange(key),) if kept != key else ()),
                Put(kept, _upload(upload_id, DONE)),
                Put(object_key, self._object()),
            ]
        return [DeleteRange(key)]  # aborted: the parts' records stay a while


def _upload(upload_id: bytes, state: str) -> bytes:
    return encode(
        UploadRecord(upload_id=upload_id, owner="o", initiator="o", created_ms=1, state=state)
    )


async def recounted(rig: Rig, bucket_id: bytes) -> tuple[int, ...]:
    """The same, in the plainest way."""

    async def family(prefix: bytes, kind: Any) -> list[Any]:
        found = await rig.memory.range(Range(prefix, prefix_end(prefix)))
        return [decode(kind, kv.value) for kv in found.kvs]

    objects = await family(keys.OBJECTS + bucket_id, ObjectRecord)
    versions = await family(keys.VERSIONS + bucket_id, ObjectRecord)
    versions = [each for each in versions if not each.delete_marker]
    parts = []
    for upload in await family(keys.UPLOADS + bucket_id, UploadRecord):
        if upload.state != DONE:
            parts += await family(keys.PARTS + upload.upload_id, PartRecord)
    return tuple(
        number
        for each in (objects, versions, parts)
        for number in (len(each), sum(record.size_bytes for record in each))
    )


def told(usage: UsageRecord | None) -> tuple[int, ...]:
    assert usage is not None
    return (
        *(usage.objects, usage.size_bytes, usage.noncurrent, usage.noncurrent_bytes),
        *(usage.parts, usage.parts_bytes),
    )


async def settled(rig: Rig, duty: Accounting) -> None:
    for _ in range(2000):
        rig.clock.seconds += 1.0
        more = await duty.work()
        for _ in range(10):
            await asyncio.sleep(0)
        if not more and duty._stands and not any(c.is_changed for c in duty._counts.values()):
            return
    raise AssertionError("it is never done")


@pytest.mark.parametrize("seed", SEEDS)
def test_counts_come_out_right_whatever_happens_while_they_are_read(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_counts, "PAGE_RECORDS", 3)

    async def main() -> None:
        rig = Rig(seed)
        rig.faulty = SlowAnswers(rig.memory, seed)
        rig.metadata = rig.gateway()
        await rig.ready()
        await rig.metadata.create_bucket("unlimited", OWNER, "us-east-1")
        bucket = (await rig.metadata.bucket("bucket", OWNER)).bucket_id
        other = (await rig.metadata.bucket("unlimited", OWNER)).bucket_id
        writers = [Writer(rig, bucket, seed), Writer(rig, other, seed + 1)]
        for _ in range(30):
            await writers[0].step()
        await set_bucket_quota(rig.metadata, "bucket", Quota(size_bytes_max=1))
        await rig.metadata.quotas.mirror.load()
        duty = Accounting(rig.metadata, rig.clock, rig.randomness)
        chance = random.Random(seed)

        async def write() -> None:
            for _ in range(150):
                for writer in writers:
                    await writer.step()
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(0)

        writing = asyncio.create_task(write())
        while not writing.done():
            rig.clock.seconds += chance.random()
            await duty.work()
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        await writing
        await settled(rig, duty)
        assert told(await usage_of(rig.metadata, bucket)) == await recounted(rig, bucket)
        assert await usage_of(rig.metadata, other) is None
        # And from here on by its changes alone.
        for _ in range(50):
            await writers[0].step()
        await settled(rig, duty)
        assert told(await usage_of(rig.metadata, bucket)) == await recounted(rig, bucket)
        assert duty.progress.recounts == 0
        await duty.close()

    asyncio.run(main())


def test_a_watch_that_breaks_is_followed_by_counting_anew() -> None:
    async def main() -> None:
        rig = Rig()
        await rig.ready()
        bucket = (await rig.metadata.bucket("bucket", OWNER)).bucket_id
        await set_bucket_quota(rig.metadata, "bucket", Quota(size_bytes_max=1))
        await rig.metadata.quotas.mirror.load()
        duty = Accounting(rig.metadata, rig.clock, rig.randomness)
        writer = Writer(rig, bucket, 7)
        await settled(rig, duty)
        assert duty._following is not None
        duty._following.cancel()
        for _ in range(40):
            await writer.step()
        await settled(rig, duty)
        assert told(await usage_of(rig.metadata, bucket)) == await recounted(rig, bucket)
        assert duty.progress.recounts == 1
        await duty.close()

    asyncio.run(main())


def test_a_damaged_record_is_passed_over() -> None:
    async def main() -> None:
        rig = Rig()
        await rig.ready()
        bucket = (await rig.metadata.bucket("bucket", OWNER)).bucket_id
        damaged = keys.object_(bucket, b"damaged")
        await rig.memory.txn(Txn((), (Put(damaged, b"\x01damaged"),)))
        await set_bucket_quota(rig.metadata, "bucket", Quota(size_bytes_max=1))
        await rig.metadata.quotas.mirror.load()
        duty = Accounting(rig.metadata, rig.clock, rig.randomness)
        writer = Writer(rig, bucket, 7)
        for _ in range(40):
            await writer.step()
        await settled(rig, duty)
        found = told(await usage_of(rig.metadata, bucket))
        await rig.memory.txn(Txn((), (DeleteRange(damaged),)))
        await settled(rig, duty)
        assert told(await usage_of(rig.metadata, bucket)) == found
        assert found == await recounted(rig, bucket)
        await duty.close()

    asyncio.run(main())


def test_without_quotas_nothing_is_followed() -> None:
    async def main() -> None:
        rig = Rig()
        await rig.ready()
        await rig.metadata.quotas.mirror.load()
        duty = Accounting(rig.metadata, rig.clock, rig.randomness)
        before = len(rig.faulty.transactions)
        for _ in range(5):
            rig.clock.seconds += 1
            assert not await duty.work()
        assert duty._following is None
        assert len(rig.faulty.transactions) == before
        await duty.close()

    asyncio.run(main())


def test_an_upload_that_begins_while_a_page_is_under_way_is_counted_with_its_parts() -> None:
    bucket, upload_id = b"bucketid", b"u" * 16
    count = BucketCount(bucket, "bucket", "o", {})
    upload_key = keys.UPLOADS + bucket + b"k" + keys.END + upload_id
    ref = BlobRef(blob=b"b" * 16, k=1, m=1, stripe_size_bytes=1, size_bytes=7)
    part = encode(PartRecord(data=ref, etag=b"", modified_ms=1, commit_id=b""))
    for _ in range(2):  # objects, versions
        count.begin()
        count.read(RangeResult(4, (), more=False, count=0))
    assert count.begin() is not None
    begun = KeyValue(upload_key, _upload(upload_id, OPEN), 5, 5, 1)
    count.take(Event(begun, deleted=False))
    assert count.index[upload_id] is count, "else its parts would not be told it"
    count.take(Event(KeyValue(keys.part(UploadId(upload_id), 1), part, 6, 6, 1), deleted=False))
    count.read(RangeResult(4, (), more=False, count=0))
    assert count.is_whole
    usage = count.usage(6, 0)
    assert (usage.parts, usage.parts_bytes) == (1, 7)


def test_what_a_keeper_that_was_deposed_publishes_late_does_not_stay() -> None:
    async def main() -> None:
        rig = Rig()
        await rig.ready()
        bucket = (await rig.metadata.bucket("bucket", OWNER)).bucket_id
        await set_bucket_quota(rig.metadata, "bucket", Quota(size_bytes_max=1))
        held = HeldMetastore(rig.memory)
        former = Metadata(held, clock=rig.clock, randomness=rig.randomness, sealing_key=SEALING_KEY)
        await former.quotas.mirror.load()
        await rig.metadata.quotas.mirror.load()
        writer = Writer(rig, bucket, 7)
        await writer.step()
        old = Accounting(former, rig.clock, rig.randomness)
        new = Accounting(rig.metadata, rig.clock, rig.randomness)
        await settled(rig, old)
        for _ in range(20):
            await writer.step()
        for _ in range(20):  # it hears of these, and has its say, but not of those that follow
            await asyncio.sleep(0)
        held.free.clear()
        rig.clock.seconds += 1.0
        late = asyncio.create_task(old.work())
        for _ in range(20):
            await asyncio.sleep(0)
        for _ in range(20):
            await writer.step()
        await settled(rig, new)
        held.free.set()
        await late
        assert told(await usage_of(rig.metadata, bucket)) == await recounted(rig, bucket)
        await old.close()
        await new.close()

    asyncio.run(main())
