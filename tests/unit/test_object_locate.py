"""Pages of an object's shards, over nodes in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.metadata import keys
from gateway.metadata.records import BlobRef, ObjectRecord, PartRef, encode
from gateway.objects.errors import BlobOutOfReach
from gateway.objects.manifest import encode_parts
from ops import object_locate
from ops.admin_errors import AdminError
from ops.object_locate import BlobPlaces, ObjectShards
from placement.ids import BucketId
from placement.metastore.port import Put, Txn
from storage_node.port import DriveReport
from tests.unit.test_keeper_repair import Cluster

BUCKET = BucketId(bytes(8))
PARTS = keys.object_(BUCKET, b"parts")


class Store:
    """An object of twelve parts that a manifest lists, and its shards."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        cluster.map = cluster.placement.map  # type: ignore[attr-defined]
        cluster.write_order = cluster.placement.write_order  # type: ignore[attr-defined]
        entry = SimpleNamespace(object_key=lambda key: keys.object_(BUCKET, key.encode()))
        clients: Any = SimpleNamespace(
            clock=cluster.clock,
            metastore=cluster.metastore,
            metadata=SimpleNamespace(buckets=SimpleNamespace(remember=lambda *_: entry)),
            live_nodes={"local": cluster.node},
            topology=cluster,
            objects=self,
        )
        self.shards = ObjectShards(clients, self.reports)
        self.manifest, *self.parts = cluster.refs
        self.is_readable = True

    async def reports(self) -> list[DriveReport]:
        return []

    async def read_bytes(self, ref: BlobRef) -> bytes:
        """Of the manifest."""
        if not self.is_readable:
            raise BlobOutOfReach("away")
        assert ref == self.manifest
        return encode_parts([PartRef(number=n, data=part) for n, part in enumerate(self.parts, 1)])

    async def write(self, commit_id: bytes) -> None:
        """The object anew, of the same parts."""
        record = ObjectRecord(
            owner="1", group=b"", size_bytes=1, etag=b"", modified_ms=0, commit_id=commit_id,
            manifest=self.manifest,
        )  # fmt: skip
        await self.cluster.metastore.txn(Txn((), (Put(PARTS, encode(record)),)))

    async def all(self) -> tuple[list[BlobPlaces], int]:
        """Every page, put together, and how many they were."""
        found: list[BlobPlaces] = []
        after, pages = "", 0
        while after or not pages:
            page = await self.shards.page("jars", "parts", "", after)
            found += page.blobs
            after, pages = page.after, pages + 1
        return found, pages


def run(scenario: Callable[[Store], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = Cluster()
        for number in range(13):
            await cluster.store(number, 4, 1000)
        store = Store(cluster)
        await store.write(b"one")
        await scenario(store)

    asyncio.run(main())


def test_pages_of_any_length_tell_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(store: Store) -> None:
        whole, pages = await store.all()
        assert pages == 1
        assert {b.blob for b in whole} == {ref.blob.hex() for ref in store.cluster.refs}
        assert {blob.tolerance for blob in whole} == {2}
        monkeypatch.setattr(object_locate, "PAGE_SECONDS", 0)
        assert await store.all() == (whole, 13)
        store.is_readable = False
        ((manifest,), _) = await store.all()
        assert manifest.blob == store.manifest.blob.hex()

    run(scenario)


def test_an_object_that_is_replaced_between_pages_is_not_told_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(store: Store) -> None:
        monkeypatch.setattr(object_locate, "PAGE_SECONDS", 0)
        after = (await store.shards.page("jars", "parts")).after
        await store.write(b"two")
        with pytest.raises(AdminError, match="replaced meanwhile"):
            await store.shards.page("jars", "parts", "", after)
        for nonsense in ("x", "6f6e65.", "6f6e65.-1", "6f6e65.1234567890", "6f6e65.²"):
            with pytest.raises(AdminError, match="`after`"):
                await store.shards.page("jars", "parts", "", nonsense)

    run(scenario)
