"""Objects that the keeper moves between storage classes: nothing else of them changes, and nothing is
lost whatever happens meanwhile."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.domain.lifecycle import LifecycleRule, Transition
from gateway.domain.versions import version_text
from gateway.metadata import keys
from gateway.metadata.groups import claim
from gateway.metadata.lifecycle import pack_lifecycle
from gateway.metadata.records import BucketRecord, ObjectRecord, decode
from gateway.objects.manifest import decode_parts, parts_of
from gateway.objects.port import Staged
from ops.config import LIFECYCLE_DAY_SECONDS
from ops.keeper import recoding
from ops.keeper.inventory import blobs_of
from ops.keeper.lifecycle import Lifecycle
from ops.keeper.recoding import Recoding
from ops.keeper.reencode import Reencode
from ops.map_store import MapStore
from placement.cluster_map import ClusterMap
from placement.ids import Slot
from placement.map_changes import with_class, without_class
from placement.metastore.port import OPERATIONS_MAX, DeleteRange, Range, Txn, prefix_end
from placement.schemes import Scheme
from storage_node.port import Outcome
from storage_node.shard import decode_envelope
from tests.unit.metadata_doubles import OWNER
from tests.unit.multipart_service import Run, Service, runner_in

BODY = hashlib.sha256(b"body").digest() * 8000  # 256,000 bytes
MOVED = {"storage_class": "COLD", "scheme": (5, 1)}
WHERE = ("group", "data", "parts", "manifest", "storage_class", "scheme")
"""What a move may change of a record."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv(LIFECYCLE_DAY_SECONDS, "1")
    return runner_in(tmp_path, monkeypatch)


async def change_map(service: Service, edit: Callable[[ClusterMap], ClusterMap]) -> None:
    await MapStore(service.rig.memory).change(edit)
    await service.topology.refresh()


async def with_rules(service: Service, *rules: LifecycleRule, versioning: str = "") -> None:
    """A class of 5+1, and a bucket whose rules move to it."""
    await change_map(service, lambda now: with_class(now, "COLD", Scheme(5, 1)))

    def change(record: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(
            record, lifecycle=pack_lifecycle(rules) if rules else b"", versioning=versioning
        )

    await service.context.metadata.change_bucket("bucket", OWNER, change)


def to_cold(**fields: Any) -> LifecycleRule:
    moves = (Transition(storage_class="COLD", days=1),)
    return LifecycleRule(id="r", enabled=True, **{"transitions": moves, **fields})


def recoding_of(service: Service, live_drives: int = 6) -> Recoding:
    rig = service.rig
    return Recoding(rig.memory, service.store, rig.clock, rig.randomness, lambda: live_drives)


def duty_of(service: Service, live_drives: int = 6) -> Lifecycle:
    return Lifecycle(service.rig.metadata, service.rig.clock, recoding_of(service, live_drives))


async def whole_pass(duty: Lifecycle, service: Service) -> None:
    service.rig.clock.now_ms += 2_000
    while await duty.work():
        pass


def records_beside(service: Service, blob: bytes) -> list[ObjectRecord]:
    """What the shards of a blob say of their object."""
    return [
        decode(ObjectRecord, decode_envelope(envelope).record)
        for drive in service.node.drives.values()
        for shard, (_, envelope) in drive.shards.items()
        if shard.blob == blob
    ]


def asdict(record: ObjectRecord) -> dict[str, Any]:
    return msgspec.structs.asdict(record)


async def demand_moved(service: Service, before: ObjectRecord, key: str = "key") -> None:
    after = await service.record(key)
    assert after is not None
    changed = {name for name, value in asdict(before).items() if asdict(after)[name] != value}
    assert changed <= set(WHERE)
    assert {name: asdict(after)[name] for name in MOVED} == MOVED


async def demand_tidy(service: Service) -> None:
    """Every blob is an object's or queued as garbage; no reference is left."""
    record = await service.record()
    used = {ref.blob for ref in await blobs_of(record, service.store)} if record else set()
    queued = {ref.blob for entry in await service.garbage() for ref in entry.blobs}
    for entry in await service.garbage():
        if entry.manifest is not None:
            table = decode_parts(await service.store.read_bytes(entry.manifest))
            queued |= {entry.manifest.blob, *(part.data.blob for part in table)}
    assert service.blobs() <= used | queued
    assert used <= service.blobs()
    assert await service.under(keys.REFERENCES) == []


def test_an_object_moves_and_nothing_else_of_it_changes(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await service.call("PutObject", "PUT", "key", BODY, x_amz_meta_a="1", x_amz_tagging="t=1")
        before = await service.record()
        assert before is not None
        assert before.data is not None
        assert before.data.k == 4
        await with_rules(service, to_cold())
        duty = duty_of(service)
        await whole_pass(duty, service)
        await demand_moved(service, before)
        after = await service.record()
        assert after is not None
        assert after.data is not None
        assert (after.data.k, after.data.m) == (5, 1)
        assert {(told.group, told.data) for told in records_beside(service, after.data.blob)} == {
            (after.group, after.data)
        }
        assert await service.body() == BODY
        assert [entry.group for entry in await service.garbage()] == [before.group]
        assert (duty.progress.transitioned, duty.progress.transitioned_bytes) == (1, len(BODY))
        await demand_tidy(service)
        await whole_pass(duty, service)
        assert (duty.progress.transitioned, duty.progress.skipped) == (1, 0)

    run(scenario)


def test_bytes_that_lie_as_wanted_are_not_written_again(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await service.call("PutObject", "PUT", "key", b"small")
        await with_rules(service, to_cold())
        same_tolerance = Scheme(2, 2, service.map.scheme.stripe_size_bytes)
        await change_map(service, lambda now: with_class(now, "COLD", same_tolerance))
        before = await service.record()
        assert before is not None
        await whole_pass(duty_of(service), service)
        after = await service.record()
        assert after is not None
        assert (after.storage_class, after.scheme) == ("COLD", (2, 2))
        assert (after.group, after.data) == (before.group, before.data)
        assert await service.garbage() == []

    run(scenario)


def test_a_multipart_object_moves_with_its_manifest(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.operations.multipart_complete.INLINE_TABLE_SIZE_BYTES_MAX", 0)

    async def scenario(service: Service) -> None:
        upload = await service.create()
        parts = [(n, await service.part(upload, n, bytes([n]) * 20_000)) for n in (1, 2, 3)]
        await service.complete(upload, parts)
        before = await service.record()
        assert before is not None
        assert before.manifest is not None
        await with_rules(service, to_cold())
        await whole_pass(duty_of(service), service)
        await demand_moved(service, before)
        assert await service.body() == b"".join(bytes([n]) * 20_000 for n in (1, 2, 3))
        assert await service.under(keys.REFERENCES) == []

    run(scenario)


class Meddler:
    """Does something while the keeper's copy of a blob is on its way: the first, or a later one."""

    def __init__(
        self, service: Service, meddle: Callable[[], Awaitable[object]], *, after: int = 0
    ) -> None:
        self._stage = service.store.stage
        self._meddle = meddle
        self._after = after
        service.store.stage = self.stage  # type: ignore[method-assign]

    async def stage(self, *arguments: Any, **options: Any) -> Staged:
        staged = await self._stage(*arguments, **options)
        self._after -= 1
        if self._after == -1:
            await self._meddle()
        return staged


def test_what_is_written_meanwhile_wins(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await service.call("PutObject", "PUT", "key", BODY)
        await with_rules(service, to_cold())
        Meddler(service, lambda: service.call("PutObject", "PUT", "key", b"newer"))
        duty = duty_of(service)
        await whole_pass(duty, service)
        assert await service.body() == b"newer"
        assert (duty.progress.transitioned, duty.progress.skipped) == (0, 1)
        record = await service.record()
        assert record is not None
        assert record.storage_class == ""
        await demand_tidy(service)

    run(scenario)


def test_nothing_moves_once_the_rules_are_gone(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await service.call("PutObject", "PUT", "key", BODY)
        before = await service.record()
        await with_rules(service, to_cold())
        Meddler(service, lambda: with_rules(service))
        duty = duty_of(service)
        await whole_pass(duty, service)
        assert duty.progress.transitioned == 0
        assert await service.record() == before
        assert await service.body() == BODY
        await demand_tidy(service)

    run(scenario)


def test_a_keeper_that_ends_meanwhile_leaves_the_object_as_it_was(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload = await service.create()
        parts = [(n, await service.part(upload, n, bytes([n]) * 20_000)) for n in (1, 2)]
        await service.complete(upload, parts)
        before = await service.record()
        assert before is not None
        await with_rules(service, to_cold())
        claimable: list[bool] = []

        async def end() -> None:
            whole = Range(keys.REFERENCES, prefix_end(keys.REFERENCES))
            (reference,) = [kv.key for kv in (await service.rig.memory.range(whole)).kvs]
            group, owner = reference[2:18], reference[19:]
            claimable.append(await claim(service.rig.memory, group, owner, now_ms=0) is not None)
            working.cancel()
            await asyncio.sleep(0)

        Meddler(service, end, after=1)
        duty = duty_of(service)
        working = asyncio.create_task(whole_pass(duty, service))
        with pytest.raises(asyncio.CancelledError):
            await working
        assert claimable == [False]  # the sweep stood back while it was copied
        assert await service.record() == before
        await demand_tidy(service)
        await whole_pass(duty_of(service), service)
        await demand_moved(service, before)

    run(scenario)


@pytest.mark.parametrize("seed", range(8))
def test_a_lost_answer_loses_nothing(run: Run, seed: int) -> None:
    async def scenario(service: Service) -> None:
        await service.call("PutObject", "PUT", "key", BODY)
        before = await service.record()
        assert before is not None
        await with_rules(service, to_cold())
        rig = service.rig
        rig.faulty._random.seed(seed)
        recoding = Recoding(rig.faulty, service.store, rig.clock, rig.randomness, lambda: 6)
        duty = Lifecycle(rig.metadata, rig.clock, recoding)
        rig.faulty.lost_answers = 0.5
        for _ in range(6):
            await whole_pass(duty, service)
            assert await service.body() == BODY
        rig.faulty.lost_answers = 0
        await whole_pass(duty, service)
        await demand_moved(service, before)
        assert await service.body() == BODY

    run(scenario)


def test_a_class_that_lost_its_scheme_or_does_not_fit_moves_nothing(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await service.call("PutObject", "PUT", "key", BODY)
        before = await service.record()
        await with_rules(service, to_cold())
        few = duty_of(service, live_drives=5)
        await whole_pass(few, service)
        assert (few.progress.transitioned, few.progress.skipped) == (0, 1)
        await change_map(service, lambda now: without_class(now, "COLD"))
        duty = duty_of(service)
        await whole_pass(duty, service)
        assert (duty.progress.transitioned, duty.progress.skipped) == (0, 1)
        assert await service.record() == before
        await demand_tidy(service)

    run(scenario)


def test_noncurrent_versions_move_locked_ones_too_and_the_newest_stay(run: Run) -> None:
    async def scenario(service: Service) -> None:
        kept = (Transition(storage_class="COLD", days=1, kept=1),)
        rule = to_cold(transitions=(), noncurrent_transitions=kept)
        await with_rules(service, rule, versioning="Enabled")
        for number in range(4):
            await service.call("PutObject", "PUT", "key", bytes([number]) * 100_000)
        entry = await service.context.metadata.bucket("bucket", OWNER)
        family = keys.versions_of(entry.object_key("key"))

        async def versions() -> list[ObjectRecord]:
            return [decode(ObjectRecord, value) for value in await service.under(family)]

        before = await versions()
        service.rig.clock.now_ms += 10_000
        duty = duty_of(service)
        await whole_pass(duty, service)
        after = await versions()
        assert [record.storage_class for record in after] == ["", "COLD", "COLD"]
        assert [r.version_id for r in after] == [r.version_id for r in before]
        assert duty.progress.transitioned_noncurrent == 2
        for record in after:
            path = f"key?versionId={version_text(record.version_id)}"
            response = await service.call("GetObject", "GET", path)
            assert len(await whole(response.body)) == 100_000
        current = await service.record()
        assert current is not None
        assert current.storage_class == ""

    run(scenario)


async def whole(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return b"".join([bytes(piece) async for group in body.chunks() for piece in group])


def test_a_narrow_object_of_a_class_gets_the_width_of_its_class(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await with_rules(service)
        for drive in list(service.node.drives.values())[:2]:
            drive.fails = Outcome.DRIVE_FAILED
        await service.topology.poll()
        await service.call("PutObject", "PUT", "key", BODY, x_amz_storage_class="COLD")
        narrow = await service.record()
        assert narrow is not None
        assert narrow.data is not None
        assert (narrow.data.k, narrow.scheme) == (3, (5, 1))
        for drive in service.node.drives.values():
            drive.fails = None
        await service.topology.poll()
        waiting = Reencode(
            service.rig.memory, recoding_of(service, live_drives=4), service.rig.clock
        )
        assert not await waiting.work()
        assert await service.record() == narrow
        duty = Reencode(service.rig.memory, recoding_of(service), service.rig.clock)
        assert not await duty.work()
        await demand_moved(service, narrow)
        after = await service.record()
        assert after is not None
        assert after.data is not None
        assert (after.data.k, after.data.m) == (5, 1)
        assert await service.body() == BODY
        assert await service.under(keys.NARROW) == []
        await demand_tidy(service)

    run(scenario)


async def to_move_with_drives_away(service: Service) -> None:
    """What is stored is due for another scheme, and two drives have failed since."""
    await with_rules(service, to_cold())
    two_copies = Scheme(2, 1, service.map.scheme.stripe_size_bytes)
    await change_map(service, lambda now: with_class(now, "COLD", two_copies))
    for drive in list(service.node.drives.values())[:2]:
        drive.fails = Outcome.DRIVE_FAILED
    await service.topology.poll()


def test_many_parts_move_while_a_drive_is_away(run: Run) -> None:
    """Each of them lacks a mark of its own: more than a transaction has room for."""

    async def scenario(service: Service) -> None:
        upload = await service.create()
        parts = [(n, await service.part(upload, n, bytes([n]) * 4200)) for n in range(1, 241)]
        await service.complete(upload, parts)
        before = await service.record()
        assert before is not None
        await to_move_with_drives_away(service)
        duty = duty_of(service, live_drives=4)
        await whole_pass(duty, service)
        marks = await service.under(keys.DAMAGE)
        assert len(marks) > OPERATIONS_MAX
        assert duty.progress.transitioned == 1
        after = await service.record()
        assert after is not None
        assert after.storage_class == "COLD"
        assert {part.data.m for part in await parts_of(after, service.store)} == {1}
        await demand_tidy(service)

    run(scenario)


@pytest.mark.parametrize("most", [recoding.MARKS_COMPARED_MAX, 1])
@pytest.mark.parametrize("which", range(3))
def test_a_move_is_not_done_when_the_marks_of_a_drive_are_taken_away(
    run: Run, monkeypatch: pytest.MonkeyPatch, which: int, most: int
) -> None:
    """Of either drive, or both: an inventory begins when the last one is gone, and did not see the
    copy."""
    monkeypatch.setattr(recoding, "MARKS_COMPARED_MAX", most)

    async def scenario(service: Service) -> None:
        upload = await service.create()
        parts = [(n, await service.part(upload, n, bytes([n]) * 4200)) for n in range(1, 31)]
        await service.complete(upload, parts)
        await to_move_with_drives_away(service)

        async def forgotten() -> None:
            slot = Slot(which).to_bytes(2, "big")
            whole = Range(keys.DAMAGE, prefix_end(keys.DAMAGE))
            found = await service.rig.memory.range(whole)
            gone = [DeleteRange(kv.key) for kv in found.kvs if which == 2 or kv.key[-2:] == slot]
            assert gone
            await service.rig.memory.txn(Txn((), tuple(gone)))

        Meddler(service, forgotten, after=29)
        duty = duty_of(service, live_drives=4)
        await whole_pass(duty, service)
        assert (duty.progress.transitioned, duty.progress.skipped) == (0, 1)
        await demand_tidy(service)

    run(scenario)
