"""Lost objects over nodes in memory: pages of any size tell the same, and what moves meanwhile is not
lost."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.metadata import keys
from gateway.metadata.records import BlobRef, BucketRecord, ObjectRecord, PartRef, decode, encode
from gateway.objects.errors import BlobOutOfReach
from gateway.objects.manifest import encode_parts
from ops import lost_objects
from ops.admin_errors import AdminError
from ops.keeper import inventory
from ops.lost_objects import LostObject, LostObjects
from placement.cluster_map import DriveState
from placement.errors import PeerUnavailable
from placement.hashing import Placement
from placement.ids import BucketId, DriveId, Epoch
from placement.metastore.port import DeleteRange, Put, Txn
from storage_node.port import DriveCondition, DriveReport
from tests.unit.test_keeper_repair import DRIVES, Cluster

GONE = DRIVES[:3]


class Store:
    """The cluster, and the little of a process's clients that is asked for."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.clients: Any = SimpleNamespace(
            clock=cluster.clock,
            metastore=cluster.metastore,
            live_nodes={"local": cluster.node},
            topology=cluster,
            member=None,
            objects=self,
        )
        self.blobs: dict[bytes, bytes] = {}
        self.lost = LostObjects(self.clients, self.reports)  # type: ignore[arg-type]

    async def read_bytes(self, ref: BlobRef) -> bytes:
        """Of manifests."""
        if ref.blob not in self.blobs:
            raise BlobOutOfReach("away")
        return self.blobs[ref.blob]

    async def reports(self) -> list[DriveReport]:
        return [
            DriveReport(
                drive, f"/drive{n}",
                DriveCondition.UP if drive in self.cluster.live else DriveCondition.MISSING,
                0, 0, 0, 0, 0,
            )
            for n, drive in enumerate(DRIVES)
        ]  # fmt: skip

    async def all(self, bucket: str = "", prefix: str = "") -> tuple[list[LostObject], int]:
        """Every page, put together."""
        found: list[LostObject] = []
        examined, after, pages = 0, "", 0
        while after or not pages:
            page = await self.lost.page(after, bucket, prefix)
            found += page.objects
            examined += page.examined
            after, pages = page.after, pages + 1
            assert pages < 1000
        return found, examined


def run(scenario: Callable[[Store], Awaitable[None]]) -> None:
    """With forty objects of the bucket `jars`, one of them with versions, and empty buckets."""

    async def main() -> None:
        cluster = Cluster()
        # What Topology has and the repair's view does not.
        cluster.map = cluster.placement.map  # type: ignore[attr-defined]
        for number in range(40):
            await cluster.store(number, 1 if number % 2 else 4, 1000)
        first = keys.object_(BucketId(bytes(8)), b"0")
        (kv,) = await cluster.metastore.get_many([first])
        assert kv is not None
        older = [Put(keys.version(first, order), kv.value) for order in range(1, 6)]
        marker = encode(ObjectRecord(
            owner="1", group=b"", size_bytes=0, etag=b"", modified_ms=0, commit_id=b"",
            delete_marker=True,
        ))  # fmt: skip
        buckets = [
            Put(keys.bucket(name), encode(BucketRecord(bucket_id=bucket_id, owner="1", region="", created_ms=0)))
            for name, bucket_id in (("empty", b"e" * 8), ("jars", bytes(8)), ("none", b"f" * 8))
        ]  # fmt: skip
        deleted = Put(keys.version(first, 9), marker)
        await cluster.metastore.txn(Txn((), (*older, *buckets, deleted)))
        await scenario(Store(cluster))

    asyncio.run(main())


def test_pages_of_any_size_tell_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(store: Store) -> None:
        assert await store.all() == ([], 45)
        store.cluster.wipe(*GONE)
        lost, examined = await store.all()
        assert examined == 45
        assert sum(each.shards_needed == 4 for each in lost) == 25
        assert [each.version_id for each in lost if each.key == "0"] == ["null"] * 6
        assert [each.is_latest for each in lost if each.key == "0"] == [True] + [False] * 5
        assert 0 < sum(each.shards_needed == 1 for each in lost) < 20
        assert {d.path for d in lost[0].drives} == {"/drive0", "/drive1", "/drive2"}
        for name in ("OBJECTS_A_PAGE", "BATCH_BLOBS", "BUCKETS_A_READ"):
            monkeypatch.setattr(lost_objects, name, 1)
        assert await store.all() == (lost, 45)
        monkeypatch.setattr(inventory, "PAGE_RECORDS", 2)
        assert await store.all() == (lost, 45)
        assert await store.all("jars") == (lost, 45)
        assert await store.all("empty") == ([], 0)
        mine = [each for each in lost if each.key.startswith("1")]
        assert await store.all("jars", "1") == (mine, 11)
        assert await store.all("", "1") == (mine, 11)
        with pytest.raises(AdminError, match="no bucket"):
            await store.all("jar")
        for nonsense in ("é", "a", "bm9uZQ=="):
            with pytest.raises(AdminError, match="`after`"):
                await store.lost.page(nonsense)

    run(scenario)


def test_what_is_replaced_deleted_or_moved_meanwhile_is_not_lost() -> None:
    async def scenario(store: Store) -> None:
        node, metastore = store.cluster.node, store.cluster.metastore
        locate, kept = node.locate, {d: dict(node.drives[d].shards) for d in GONE}
        change: Callable[[], Awaitable[None]]

        async def located(blobs: Any) -> Any:
            answer = await locate(blobs)
            await change()
            return answer

        async def replaced() -> None:
            for number in range(40):
                key = keys.object_(BucketId(bytes(8)), b"%d" % number)
                await metastore.txn(Txn((), (DeleteRange(key),)))

        async def moved() -> None:
            for drive, shards in kept.items():
                node.drives[drive].shards.update(shards)

        node.locate = located  # type: ignore[method-assign]
        store.cluster.wipe(*GONE)
        change = moved
        assert (await store.all())[0] == []
        store.cluster.wipe(*GONE)
        change = replaced
        assert {each.key for each in (await store.all())[0]} == {"0"}  # its older versions

    run(scenario)


def test_of_a_multipart_object_every_part_is_looked_at_and_the_worst_is_told() -> None:
    async def scenario(store: Store) -> None:
        coded = [ref for ref in store.cluster.refs if ref.k == 4]
        manifest = next(
            ref
            for ref in store.cluster.refs
            if ref.k == 1
            and not {d.drive_id for d in store.cluster.placement.write_order(ref.blob)[:3]}  # type: ignore[arg-type]
            <= set(GONE)
        )
        parts = [PartRef(number=n, data=ref) for n, ref in enumerate(coded[:3], 1)]
        store.blobs[manifest.blob] = encode_parts(parts)
        (kv,) = await store.cluster.metastore.get_many([keys.object_(BucketId(bytes(8)), b"1")])
        assert kv is not None
        plain = decode(ObjectRecord, kv.value)
        listed = ObjectRecord(
            owner="1", group=plain.group, size_bytes=1, etag=b"", modified_ms=0, commit_id=b"",
            manifest=manifest,
        )  # fmt: skip
        key = keys.object_(BucketId(b"f" * 8), b"listed")
        await store.cluster.metastore.txn(Txn((), (Put(key, encode(listed)),)))
        assert await store.all("none") == ([], 1)
        store.cluster.wipe(GONE[0], GONE[1])
        assert await store.all("none") == ([], 1)
        for shard in [
            s for s in store.cluster.node.drives[GONE[2]].shards if s.blob == coded[1].blob
        ]:
            del store.cluster.node.drives[GONE[2]].shards[shard]
        (lost,) = (await store.all("none"))[0]
        assert (lost.shards_left, lost.shards_needed, lost.blobs_lost) == (3, 4, 1)
        assert {d.path for d in lost.drives} == {"/drive0", "/drive1"}
        store.cluster.wipe(GONE[2])
        (lost,) = (await store.all("none"))[0]
        assert (lost.shards_left, lost.shards_needed, lost.blobs_lost) == (3, 4, 3)
        store.blobs.clear()  # its list of parts decayed: nobody knows them
        (lost,) = (await store.all("none"))[0]
        assert lost.blobs_lost == 1

    run(scenario)


def test_what_is_empty_can_always_be_read() -> None:
    async def scenario(store: Store) -> None:
        empty = BlobRef(blob=b"0" * 16, k=1, m=2, stripe_size_bytes=4096, size_bytes=0)
        record = ObjectRecord(
            owner="1", group=empty.blob, size_bytes=0, etag=b"", modified_ms=0, commit_id=b"",
            data=empty,
        )  # fmt: skip
        key = keys.object_(BucketId(b"f" * 8), b"empty")
        await store.cluster.metastore.txn(Txn((), (Put(key, encode(record)),)))
        assert await store.all("none") == ([], 1)  # though no drive has a copy

    run(scenario)


def test_a_node_that_does_not_answer_is_told_and_its_drives_are_taken_for_away() -> None:
    async def scenario(store: Store) -> None:
        async def fails(_: object) -> Any:
            raise PeerUnavailable("down")

        store.cluster.node.locate = fails  # type: ignore[method-assign, assignment]
        page = await store.lost.page()
        assert page.silent == ("local",)
        assert len(page.objects) == page.examined == 45
        assert {drive.condition for each in page.objects for drive in each.drives} == {"silent"}

    run(scenario)


def test_drives_that_the_map_has_given_up_are_named_by_the_maps_before_it() -> None:
    async def scenario(store: Store) -> None:
        cluster = store.cluster
        before = cluster.placement.map
        cluster.wipe(*GONE)
        out = dataclasses.replace(
            before,
            epoch=Epoch(2),
            lineage=(before.epoch,),
            drives=tuple(
                dataclasses.replace(d, state=DriveState.OUT) if d.drive_id in GONE else d
                for d in before.drives
            ),
        )
        forgotten = dataclasses.replace(
            out, epoch=Epoch(3), drives=tuple(d for d in out.drives if d.drive_id not in GONE)
        )
        for newest, condition in ((out, "missing"), (forgotten, "removed")):
            cluster.placement = Placement(newest, [before])
            cluster.map = newest  # type: ignore[attr-defined]
            lost = [each for each in (await store.all())[0] if each.shards_needed == 4]
            assert len(lost) == 25
            for each in lost:
                assert {DriveId(bytes.fromhex(d.id)) for d in each.drives} == set(GONE)
                assert {d.condition for d in each.drives} == {condition}

    run(scenario)
