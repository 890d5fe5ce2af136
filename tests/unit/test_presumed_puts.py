"""Small writes that presume a new key: one transaction and no read, and begun anew when they erred."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from gateway.domain.newness import ENOUGH_IN_A_ROW, Newness
from gateway.domain.versions import ENABLED
from gateway.metadata.errors import NoSuchBucket
from gateway.metadata.store import Metadata
from gateway.s3.errors import ErrorCode, S3Error
from tests.unit.metadata_doubles import OWNER
from tests.unit.test_objects_operations import Service, bytes_of, headers_of

BODY = b"presumed" * 100


def test_a_key_is_presumed_new_after_enough_new_ones_in_a_row() -> None:
    newness = Newness(enough=3)
    for _ in range(2):
        newness.saw(b"a", new=True)
    assert not newness.expects(b"a")
    newness.saw(b"a", new=True)
    assert newness.expects(b"a")
    assert not newness.expects(b"b")
    newness.saw(b"a", new=False)
    assert not newness.expects(b"a")


class Rigged(Service):
    """A service that has seen enough new keys, and counts reads; another gateway beside it."""

    reads = 0
    other: Metadata

    async def start(self) -> None:
        await super().start()
        for number in range(ENOUGH_IN_A_ROW):
            await self.put(f"before-{number}", b"x")
        self.other = self.rig.gateway()
        faulty = self.rig.faulty
        get_many = faulty.get_many

        async def counted(keys):  # type: ignore[no-untyped-def]
            self.reads += 1
            return await get_many(keys)

        faulty.get_many = counted  # type: ignore[method-assign]


def with_service(tmp_path: Path, test: Callable[[Rigged], Awaitable[None]]) -> None:
    async def main() -> None:
        service = Rigged(tmp_path)
        await service.start()
        try:
            await test(service)
        finally:
            await service.close()

    asyncio.run(main())


def test_a_new_key_costs_no_read(tmp_path: Path) -> None:
    async def test(service: Rigged) -> None:
        await service.put("new", BODY)
        assert service.reads == 0
        assert await bytes_of(await service.get("new")) == BODY

    with_service(tmp_path, test)


def test_an_overwrite_is_begun_anew_and_leaves_one_blob(tmp_path: Path) -> None:
    async def test(service: Rigged) -> None:
        await service.put("key", BODY)
        shards = service.shards()
        answer = await service.put("key", BODY[::-1])
        assert await bytes_of(await service.get("key")) == BODY[::-1]
        assert headers_of(answer)["etag"] == headers_of(await service.head("key"))["etag"]
        # The blob of the first try is gone; that of the object before waits as garbage.
        assert service.shards() == shards + 3
        reads = service.reads
        await service.put("another", BODY)
        assert service.reads > reads, "after an overwrite a write looks again"

    with_service(tmp_path, test)


def test_a_deleted_bucket_is_none(tmp_path: Path) -> None:
    async def test(service: Rigged) -> None:
        for number in range(ENOUGH_IN_A_ROW):
            await service.call("DeleteObject", "DELETE", f"bucket/before-{number}")
        stale = service.rig.metadata.buckets.cached["bucket"]
        await service.other.delete_bucket("bucket", OWNER)
        service.rig.metadata.buckets.cached["bucket"] = stale
        shards = service.shards()
        with pytest.raises(NoSuchBucket):
            await service.put("key", BODY)
        assert service.shards() == shards

    with_service(tmp_path, test)


def test_settings_that_came_meanwhile_are_heeded(tmp_path: Path) -> None:
    async def test(service: Rigged) -> None:
        await service.put("key", BODY)
        stale = service.rig.metadata.buckets.cached["bucket"]
        await service.other.change_bucket(
            "bucket", OWNER, lambda record: msgspec.structs.replace(record, versioning=ENABLED)
        )
        service.rig.metadata.buckets.cached["bucket"] = stale
        answer = await service.put("key", BODY[::-1])
        assert "x-amz-version-id" in headers_of(answer)

    with_service(tmp_path, test)


def test_a_body_that_is_not_what_it_was_said_to_be_is_refused_once_looked(tmp_path: Path) -> None:
    async def test(service: Rigged) -> None:
        with pytest.raises(S3Error) as refusal:
            await service.put("key", BODY, content_md5="AAAAAAAAAAAAAAAAAAAAAA==")
        assert refusal.value.code is ErrorCode.BAD_DIGEST

    with_service(tmp_path, test)


def test_a_lost_answer_is_settled(tmp_path: Path) -> None:
    async def test(service: Rigged) -> None:
        service.rig.faulty.lost_answers = 0.2  # none is lost five times
        for number in range(20):
            await service.put(f"key-{number}", BODY)
        service.rig.faulty.lost_answers = 0.0
        for number in range(20):
            assert await bytes_of(await service.get(f"key-{number}")) == BODY

    with_service(tmp_path, test)
