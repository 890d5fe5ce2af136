"""Re-encoding: what waits for drives is met again, and nothing keeps others from their turn."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from gateway.metadata import keys
from gateway.metadata.records import BlobRef, BucketRecord
from gateway.objects.errors import BlobDamaged, NotEnoughDrives, ObjectsError
from ops.keeper import reencode
from ops.keeper.recoding import Recoding
from ops.keeper.reencode import FUTILE_SECONDS, Reencode
from placement.errors import MetastoreUnavailable
from placement.metastore.port import Put, Range, Txn, prefix_end
from placement.schemes import Scheme, Schemes
from storage_node.port import Outcome
from tests.unit.metadata_doubles import OWNER, Rig, stored
from tests.unit.multipart_service import Run, Service, runner_in

BODY = hashlib.sha256(b"body").digest() * 2000  # 64,000 bytes


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner_in(tmp_path, monkeypatch)


class Unwilling:
    """A store of blobs that cannot be read, or not written; counts how often it was asked."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = errors
        self.asked = 0
        self.schemes = Schemes(Scheme(4, 2))

    async def read(self, pieces: Sequence[tuple[BlobRef, int, int]]) -> None:
        self.asked += 1
        raise self._errors[min(self.asked, len(self._errors)) - 1]


async def queue(rig: Rig, *names: str) -> None:
    """Objects that were stored narrower."""
    for key in names:
        record = rig.record()
        entry, previous = await rig.metadata.lookup("bucket", key, OWNER)
        await rig.metadata.commits.commit(
            entry,
            entry.object_key(key),
            record,
            stored=stored(record, narrow=True),
            previous=previous,
        )


def duty_over(rig: Rig, objects: Unwilling, live: Callable[[], int] = lambda: 6) -> Reencode:
    recoding = Recoding(rig.memory, objects, rig.clock, rig.randomness, live)  # type: ignore[arg-type]
    return Reencode(rig.memory, recoding, rig.clock)


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
        await queue(rig, "a", "b")
        objects = Unwilling(error)
        duty = duty_over(rig, objects)
        assert not await duty.work()
        assert objects.asked == asked
        left = await rig.memory.range(Range(keys.NARROW, prefix_end(keys.NARROW)))
        assert len(left.kvs) == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    "error",
    [
        MetastoreUnavailable("no answer"),
        NotEnoughDrives("two drives are left"),
        ValueError("a bug"),
    ],
    ids=["metadata", "drives", "bug"],
)
def test_what_fails_every_time_does_not_keep_others_from_their_turn(error: Exception) -> None:
    async def main() -> None:
        rig = Rig()
        await rig.ready()
        await queue(rig, "a", "b")
        objects = Unwilling(error, BlobDamaged("the other"))
        duty = duty_over(rig, objects)
        for _ in range(2):
            with contextlib.suppress(MetastoreUnavailable, ValueError):
                await duty.work()
        assert objects.asked == 2

    asyncio.run(main())


def test_a_record_that_cannot_be_read_is_passed_over() -> None:
    async def main() -> None:
        rig = Rig()
        await rig.ready()
        await queue(rig, "a", "b")
        entry, _ = await rig.metadata.lookup("bucket", "a", OWNER)
        later_version = Put(entry.object_key("a"), b"\xff")
        await rig.memory.txn(Txn((), (later_version,)))
        objects = Unwilling(BlobDamaged("the other"))
        assert not await duty_over(rig, objects).work()
        assert objects.asked == 1

    asyncio.run(main())


def test_while_nothing_fits_the_queue_is_gone_through_now_and_then() -> None:
    async def main() -> None:
        rig = Rig()
        await rig.ready()
        await queue(rig, "a")
        objects = Unwilling(BlobDamaged("one shard is left"))
        objects.schemes = Schemes(Scheme(6, 2))
        duty = duty_over(rig, objects)
        assert not await duty.work()
        objects.schemes = Schemes(Scheme(4, 2))  # an operator gives up on more drives
        rig.clock.seconds += FUTILE_SECONDS / 2
        assert not await duty.work()
        assert objects.asked == 0
        rig.clock.seconds += FUTILE_SECONDS / 2
        assert not await duty.work()
        assert objects.asked == 1

    asyncio.run(main())


def test_drives_that_come_and_go_while_the_queue_is_gone_through_count_as_when_it_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reencode, "PAGE_ENTRIES", 1)

    async def main() -> None:
        rig = Rig()
        await rig.ready()
        await queue(rig, "a", "b")
        objects = Unwilling(BlobDamaged("one shard is left"))
        live = 5
        duty = duty_over(rig, objects, lambda: live)
        assert await duty.work()
        entry, found = await rig.metadata.lookup("bucket", "b", OWNER)
        await rig.metadata.commits.delete(entry, entry.object_key("b"), previous=found)
        live = 6
        while await duty.work():
            pass
        assert not await duty.work()
        assert objects.asked == 1

    asyncio.run(main())


async def put_narrow(service: Service, key: str, body: bytes = BODY) -> None:
    """While two of the six drives are away."""
    async with two_away(service):
        await service.call("PutObject", "PUT", key, body)


@contextlib.asynccontextmanager
async def two_away(service: Service) -> AsyncIterator[None]:
    for drive in list(service.node.drives.values())[:2]:
        drive.fails = Outcome.DRIVE_FAILED
    await service.topology.poll()
    yield
    for drive in service.node.drives.values():
        drive.fails = None
    await service.topology.poll()


def duty_of(service: Service) -> Reencode:
    rig = service.rig
    recoding = Recoding(rig.memory, service.store, rig.clock, rig.randomness, lambda: 6)
    return Reencode(rig.memory, recoding, rig.clock)


async def width_of(service: Service, key: str) -> int:
    record = await service.record(key)
    assert record is not None
    assert record.data is not None
    return record.data.k


def test_what_is_queued_after_the_last_one_was_given_up_has_its_turn(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await put_narrow(service, "gone")
        await service.call("DeleteObject", "DELETE", "gone")
        duty = duty_of(service)
        assert not await duty.work()
        assert await service.under(keys.NARROW) == []
        await put_narrow(service, "key")
        assert await width_of(service, "key") == 2
        assert not await duty.work()
        assert await width_of(service, "key") == 4
        assert await service.under(keys.NARROW) == []
        assert await service.body() == BODY

    run(scenario)


def test_a_delete_marker_is_not_stored_again(run: Run) -> None:
    """A request that its object left behind may have come to a marker."""

    async def scenario(service: Service) -> None:
        def versioned(record: BucketRecord) -> BucketRecord:
            return msgspec.structs.replace(record, versioning="Enabled")

        await service.context.metadata.change_bucket("bucket", OWNER, versioned)
        await service.call("DeleteObject", "DELETE", "key")
        entry = await service.context.metadata.bucket("bucket", OWNER)
        marker_key = keys.marker(entry.object_key("key"))
        await service.rig.memory.txn(Txn((), (Put(keys.narrow(marker_key), b""),)))
        (before,) = await service.under(marker_key)
        assert not await duty_of(service).work()
        assert await service.under(marker_key) == [before]
        assert await service.under(keys.NARROW) == []
        assert await service.garbage() == []

    run(scenario)


def test_a_copy_of_what_is_narrow_waits_too(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await put_narrow(service, "key")
        await service.call("CopyObject", "PUT", "copy", x_amz_copy_source="/bucket/key")
        duty = duty_of(service)
        assert not await duty.work()
        assert [await width_of(service, key) for key in ("key", "copy")] == [4, 4]
        assert await service.under(keys.NARROW) == []
        assert await service.under(keys.REFERENCES) == []
        assert await service.body("copy") == BODY

    run(scenario)
