"""What a rebuild believes of objects that only shards tell of: what they tell with their checksums."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import msgspec

from gateway.metadata import keys
from gateway.metadata.records import BlobRef, BucketRecord, ObjectRecord, decode, encode
from gateway.metadata.snapshots import RebuiltRecord
from ops.clients import Clients
from ops.rebuild.later import Later, later_shards, put_back
from placement.clock import SystemClock
from placement.errors import PeerUnavailable
from placement.ids import BlobId, BucketId, DriveId
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import Put, Txn
from storage_node.port import Outcome, PutShard, ShardId, ShardInfo
from storage_node.shard import ShardEnvelope, encode_envelope
from tests.unit.memory_node import MemoryNode

DRIVES = [DriveId(bytes([n]) * 16) for n in range(1, 4)]
BUCKET_ID, BLOB = BucketId(b"i" * 8), BlobId(b"b" * 16)
NEW = 1_000_000_000
RECORD = ObjectRecord(
    owner="o",
    group=BLOB,
    size_bytes=5,
    etag=b"e",
    commit_id=b"12345678",
    modified_ms=NEW,
    data=BlobRef(blob=BLOB, k=1, m=2, stripe_size_bytes=1 << 20, size_bytes=5),
)
TRUE = ShardEnvelope(
    group=BLOB,
    blob=BLOB,
    index=0,
    k=1,
    m=2,
    stripe_size_bytes=1 << 20,
    size_bytes=5,
    owner_key=keys.object_(BUCKET_ID, b"key"),
    record=encode(RECORD),
    created_ms=NEW,
)


class Decaying(MemoryNode):
    """A node that finds `decayed` shards damaged when it is to verify them; `silent`: not at all."""

    decayed: frozenset[int] = frozenset()
    silent = False

    async def stat(
        self, shards: Sequence[tuple[DriveId, ShardId]], *, verify: bool = False
    ) -> tuple[ShardInfo | Outcome, ...]:
        assert verify
        if self.silent:
            raise PeerUnavailable("it does not answer")
        found = await super().stat(shards)
        return tuple(
            Outcome.DAMAGED if shard.index in self.decayed else answer
            for (_, shard), answer in zip(shards, found, strict=True)
        )


def told(envelopes: Sequence[ShardEnvelope], decayed: Sequence[int]) -> list[Later]:
    """What is told of one object whose copies bear these envelopes."""

    async def main() -> list[Later]:
        node = Decaying(DRIVES)
        node.decayed = frozenset(decayed)
        puts = [
            PutShard(drive, BLOB, index, encode_envelope(envelope), 0, 13)
            for index, (drive, envelope) in enumerate(zip(DRIVES, envelopes, strict=True))
        ]
        await node.put(puts, [b"8 bytes.hello"])
        metastore = MemoryMetastore(SystemClock())
        rebuilt = RebuiltRecord(running=False, incarnation=2, as_of_ms=NEW - 1000)
        bucket = BucketRecord(bucket_id=BUCKET_ID, owner="o", region="r", created_ms=1)
        await metastore.txn(
            Txn(
                (),
                (
                    Put(keys.REBUILT, encode(rebuilt)),
                    Put(keys.bucket("bucket"), encode(bucket)),
                ),
            )
        )
        clients = cast(
            "Clients",
            SimpleNamespace(metastore=metastore, nodes={"n": node}, clock=SystemClock()),
        )
        found = [item async for item in later_shards(clients, lambda _: None)]
        for item in found:
            if not item.readable:
                assert await put_back(clients, item) == "too few of its shards are whole"
        return found

    return asyncio.run(main())


def copies(*changed: int, **change: object) -> list[ShardEnvelope]:
    """Three copies; those of the given indexes tell something else."""
    return [
        msgspec.structs.replace(TRUE, index=index, **(change if index in changed else {}))
        for index in range(3)
    ]


def test_an_object_is_told_as_its_shards_have_it() -> None:
    (item,) = told(copies(), decayed=())
    assert (item.bucket, item.key, item.readable) == ("bucket", "key", True)


def test_a_header_that_decayed_is_not_believed() -> None:
    record = encode(msgspec.structs.replace(RECORD, etag=b"decayed"))
    (item,) = told(copies(0, record=record, owner_key=keys.object_(BUCKET_ID, b"kez")), decayed=[0])
    assert (item.key, item.readable) == ("key", True)
    assert decode(ObjectRecord, item.envelope.record).etag == b"e"


def test_a_header_that_decayed_does_not_hide_what_the_others_tell() -> None:
    (item,) = told(copies(0, created_ms=1), decayed=[0])
    assert item.key == "key"


def test_what_no_whole_shard_tells_is_told_and_not_put_back() -> None:
    (item,) = told(copies(), decayed=[0, 1, 2])
    assert not item.readable


def test_one_whole_copy_is_enough() -> None:
    (item,) = told(copies(), decayed=[0, 2])
    assert item.readable
    assert item.envelope.index == 1
