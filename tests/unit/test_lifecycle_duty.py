"""The keeper's lifecycle duty over a store in memory."""

import asyncio

import msgspec
import pytest

from gateway.domain.lifecycle import LifecycleRule
from gateway.metadata import keys
from gateway.metadata.lifecycle import pack_lifecycle
from gateway.metadata.records import BucketRecord
from ops.config import LIFECYCLE_DAY_SECONDS
from ops.keeper.lifecycle import Lifecycle
from ops.keeper.recoding import Recoding
from placement.metastore.port import Put, Txn
from tests.unit.metadata_doubles import OWNER, Rig, stored

RULES = pack_lifecycle((LifecycleRule(id="r", enabled=True, expire_days=1, noncurrent_days=1),))


async def _pass(duty: Lifecycle) -> None:
    while await duty.work():
        pass


async def _put(rig: Rig, bucket: str, key: str) -> None:
    entry = await rig.metadata.bucket(bucket, OWNER)
    record = rig.record()
    await rig.metadata.commits.commit(entry, entry.object_key(key), record, stored=stored(record))


def test_a_damaged_record_holds_up_neither_its_bucket_nor_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(LIFECYCLE_DAY_SECONDS, "1")

    def with_rules(record: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(record, lifecycle=RULES, versioning="Enabled")

    async def scenario() -> None:
        rig = Rig()
        await rig.ready("one")
        await rig.metadata.create_bucket("two", OWNER, "us-east-1")
        for bucket in ("one", "two"):
            await _put(rig, bucket, "a")
            await _put(rig, bucket, "z")
            await rig.metadata.change_bucket(bucket, OWNER, with_rules)
        entry = await rig.metadata.bucket("one", OWNER)
        for key in (entry.object_key("a"), keys.bucket("damaged")):
            await rig.memory.txn(Txn((), (Put(key, b"\x01damaged"),)))
        rig.clock.now_ms += 2_000
        recoding = Recoding(rig.memory, None, rig.clock, rig.randomness, lambda: 3)  # type: ignore[arg-type]
        duty = Lifecycle(rig.metadata, rig.clock, recoding)
        await _pass(duty)
        assert duty.progress.expired == 3
        assert duty.progress.unreadable == 1
        assert duty.progress.passes == 1
        (left,) = await rig.memory.get_many([entry.object_key("a")])
        assert left is not None

    asyncio.run(scenario())
