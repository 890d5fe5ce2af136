"""Re-encoding when it cannot be done: drives that went again are no failure of the keeper's."""

import asyncio
from collections.abc import Sequence

import pytest

from gateway.metadata import keys
from gateway.metadata.records import BlobRef
from gateway.objects.errors import BlobDamaged, NotEnoughDrives, ObjectsError
from ops.keeper.recoding import Recoding
from ops.keeper.reencode import Reencode
from placement.metastore.port import Range, prefix_end
from placement.schemes import Scheme, Schemes
from tests.unit.metadata_doubles import OWNER, Rig, stored


class Unwilling:
    """A store of blobs that cannot be read, or not written; counts how often it was asked."""

    def __init__(self, error: ObjectsError) -> None:
        self._error = error
        self.asked = 0
        self.schemes = Schemes(Scheme(4, 2))

    async def read(self, pieces: Sequence[tuple[BlobRef, int, int]]) -> None:
        self.asked += 1
        raise self._error


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        pytest.param(NotEnoughDrives("two drives are left"), 1, id="no drives: the rest waits too"),
        pytest.param(BlobDamaged("one shard is left"), 2, id="a damaged blob: the rest goes on"),
    ],
)
def test_what_cannot_be_reencoded_now_stays_queued(error: ObjectsError, asked: int) -> None:
    async def main() -> None:
        rig = Rig()
        await rig.ready()
        for key in ("a", "b"):
            record = rig.record()
            entry, previous = await rig.metadata.lookup("bucket", key, OWNER)
            await rig.metadata.commit_object(
                entry,
                entry.object_key(key),
                record,
                stored=stored(record, narrow=True),
                previous=previous,
            )
        objects = Unwilling(error)
        recoding = Recoding(rig.memory, objects, rig.clock, rig.randomness, lambda: 6)  # type: ignore[arg-type]
        duty = Reencode(rig.memory, recoding)
        assert not await duty.work()
        assert objects.asked == asked
        left = await rig.memory.range(Range(keys.NARROW, prefix_end(keys.NARROW)))
        assert len(left.kvs) == 2

    asyncio.run(main())
