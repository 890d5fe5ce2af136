"""An inventory is not taken at one instant, and still misses no blob that moves meanwhile."""

import asyncio

import pytest

from gateway.metadata import keys
from gateway.metadata.records import BlobRef, ObjectRecord, PartRecord, encode
from ops.keeper import inventory
from placement.ids import BucketId, UploadId
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import DeleteRange, Put, Txn
from tests.unit.metadata_doubles import TestClock

BUCKET = BucketId(b"bucket-1")
UPLOAD = UploadId(b"u" * 16)
STEPS = range(12)


def ref(name: str) -> BlobRef:
    return BlobRef(blob=name.encode() * 16, k=1, m=1, stripe_size_bytes=1, size_bytes=1)


def object_record(name: str) -> bytes:
    return encode(
        ObjectRecord(
            owner="o", group=b"g" * 16, size_bytes=1, etag=b"", modified_ms=1, commit_id=b"",
            data=ref(name),
        )
    )  # fmt: skip


async def walked(store: MemoryMetastore, change: Txn, step: int) -> set[str]:
    """The blobs that an inventory sees while the change comes after so many of its pages."""
    found: set[str] = set()
    pages = inventory.blobs(store, objects=None)  # type: ignore[arg-type]
    turn = 0
    if step == 0:
        await store.txn(change)
    async for refs in pages:
        found |= {one.blob[:1].decode() for one in refs}
        turn += 1
        if turn == step:
            await store.txn(change)
    if turn < step:
        await store.txn(change)
    return found


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("target", [b"a", b"z"])
def test_a_part_that_becomes_an_object_meanwhile_is_seen(
    monkeypatch: pytest.MonkeyPatch, step: int, target: bytes
) -> None:
    monkeypatch.setattr(inventory, "PAGE_RECORDS", 1)

    async def main() -> None:
        store = MemoryMetastore(TestClock())
        upload = keys.upload(BUCKET, b"k", UPLOAD)
        part = keys.part(UPLOAD, 1)
        puts = [Put(keys.object_(BUCKET, name.encode()), object_record(name)) for name in "bcd"]
        puts += [
            Put(part, encode(PartRecord(data=ref("P"), etag=b"", modified_ms=1, commit_id=b""))),
            Put(keys.part(UploadId(b"v" * 16), 1), encode(PartRecord(data=ref("Q"), etag=b"", modified_ms=1, commit_id=b""))),
        ]  # fmt: skip
        await store.txn(Txn((), tuple(puts)))
        become = Put(keys.object_(BUCKET, target), object_record("P"))
        done = Txn((), (become, DeleteRange(part), DeleteRange(upload)))
        assert await walked(store, done, step) == set("bcdPQ")

    asyncio.run(main())
