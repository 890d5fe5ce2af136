"""What a rebuild believes of the headers of shards, which are read without a checksum."""

import asyncio
from collections.abc import Sequence
from typing import cast

import msgspec
import pytest

from gateway.metadata import keys
from gateway.metadata.records import BlobRef, encode
from gateway.metadata.snapshots import PAGES, SnapshotPart
from ops.rebuild.drives import find_parts
from placement.ids import BlobId, DriveId
from storage_node.port import DriveCondition, DriveReport, NodePort, ShardId, ShardInfo
from storage_node.shard import ShardEnvelope, encode_envelope

CLUSTER = b"c" * 16
BLOB = b"b" * 16
PART = SnapshotPart(
    cluster_id=CLUSTER,
    incarnation=1,
    chain=b"n" * 16,
    number=1,
    part=0,
    kind=PAGES,
    first_revision=0,
    last_revision=9,
    whole=True,
    as_of_ms=5,
    keys=3,
    digest=b"d" * 16,
    before=b"",
    changes_before=b"",
    data=BlobRef(blob=BLOB, k=1, m=2, stripe_size_bytes=1 << 20, size_bytes=100),
)


class Drives:
    """A node of one drive for each of the parts told: all copies of one blob."""

    def __init__(self, told: Sequence[SnapshotPart]) -> None:
        self._shards = {
            DriveId(bytes([index]) * 16): ShardEnvelope(
                CLUSTER, BLOB, index, 1, 2, 1 << 20, 100, keys.SNAPSHOT_PARTS + b"1", encode(part)
            )
            for index, part in enumerate(told)
        }

    async def reports(self) -> tuple[DriveReport, ...]:
        return tuple(
            DriveReport(drive, "/d", DriveCondition.UP, 1 << 30, 1 << 30, 1, 0, 0)
            for drive in self._shards
        )

    async def list(
        self, drive: DriveId, after: ShardId | None, limit: int
    ) -> tuple[ShardInfo, ...]:
        if after is not None:
            return ()
        envelope = self._shards[drive]
        shard = ShardId(BlobId(BLOB), envelope.index)
        return (ShardInfo(drive, shard, 108, encode_envelope(envelope), 0.0),)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_header_that_decayed_does_not_spoil_what_the_others_tell(place: int) -> None:
    decayed = msgspec.structs.replace(PART, digest=b"x" * 16, last_revision=77)
    told = [decayed if index == place else PART for index in range(3)]
    nodes = {"n": cast("NodePort", Drives(told))}
    found = asyncio.run(find_parts(nodes, CLUSTER, lambda _: None))
    assert found.parts == {BLOB: PART}
    assert len(found.holders[BLOB]) == 3
