"""CompleteMultipartUpload: once, whatever happens beside it; and what it refuses."""

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from gateway.domain import multipart as rules
from gateway.metadata import keys, upload_commits, uploads
from gateway.metadata.errors import NoSuchKey, PreconditionFailed
from gateway.metadata.records import (
    BlobRef,
    PartRecord,
    encode,
)
from gateway.objects.errors import NotEnoughDrives
from gateway.objects.manifest import parts_of
from gateway.objects.port import Stored
from gateway.s3.checksums import ChecksumAlgorithm, checksum_of
from gateway.s3.errors import ErrorCode
from placement.errors import OutcomeUnknown
from placement.ids import UploadId
from placement.metastore.port import Put, Txn
from storage_node.port import Outcome
from storage_node.shard import decode_envelope
from tests.unit.multipart_service import (
    BODIES,
    STRIPE,
    Run,
    Service,
    T,
    refused,
    runner_in,
    text_of,
    uploaded,
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a scenario; parts of 4 KiB suffice."""
    return runner_in(tmp_path, monkeypatch)


def test_parts_become_an_object_with_headers_checksum_and_date_of_the_upload(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create(
            "key", content_type="text/plain", x_amz_meta_color="red", cache_control="no-cache"
        )
        begun = await service.upload(upload_id)
        assert begun is not None
        parts = await uploaded(service, upload_id)
        response = await service.complete(upload_id, parts)
        digest = hashlib.md5(b"".join(hashlib.md5(body).digest() for body in BODIES))
        assert text_of(response, "ETag") == f'"{digest.hexdigest()}-3"'
        assert text_of(response, "Location") == "http://localhost:9000/bucket/key"
        assert await service.body() == b"".join(BODIES)
        record = await service.record()
        assert record is not None
        assert record.modified_ms == begun.created_ms
        assert record.content_type == "text/plain"
        assert record.metadata == (("color", "red"),)
        assert record.headers == (("cache-control", "no-cache"),)
        assert record.group == bytes.fromhex(upload_id)
        assert record.checksum is not None
        assert record.checksum.type == "FULL_OBJECT"
        whole = checksum_of(ChecksumAlgorithm.CRC64NVME, b"".join(BODIES))
        assert record.checksum.value == whole
        assert text_of(response, "ChecksumCRC64NVME") == b64encode(whole).decode()
        assert [part.number for part in record.parts] == [1, 2, 3]
        assert await service.under(keys.PARTS) == []
        assert await service.garbage() == []

    run(scenario)


def test_a_repeated_completion_gets_the_same_answer_and_another_list_none(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        parts = await uploaded(service, upload_id)
        first = await service.complete(upload_id, parts)
        again = await service.complete(upload_id, parts, "key", if_none_match="*")
        assert first.body == again.body
        error = await refused(service.complete(upload_id, parts[:1]))
        assert error.code is ErrorCode.NO_SUCH_UPLOAD
        for call in (
            service.part(upload_id, 1, b"x"),
            service.abort(upload_id),
            service.call("ListParts", "GET", f"key?uploadId={upload_id}"),
        ):
            assert (await refused(call)).code is ErrorCode.NO_SUCH_UPLOAD
        await service.call("PutObject", "PUT", "key", b"newer")
        assert (await service.complete(upload_id, parts)).body == first.body
        assert await service.body() == b"newer"

    run(scenario)


def test_completions_at_the_same_time_all_succeed_with_one_object(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        parts = await uploaded(service, upload_id)
        answers = await asyncio.gather(*(service.complete(upload_id, parts) for _ in range(6)))
        assert (
            len({bytes(answer.body) for answer in answers if isinstance(answer.body, bytes)}) == 1
        )
        assert await service.body() == b"".join(BODIES)
        done = await service.upload(upload_id)
        assert done is not None
        assert done.state == uploads.DONE

    run(scenario)


def test_lost_answers_do_not_break_a_completion(run: Run) -> None:
    """A client that asks again until it is told gets its object, and nothing is left over."""

    async def told(call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except OutcomeUnknown:
                continue

    async def scenario(service: Service) -> None:
        for _ in range(12):
            service.rig.faulty.lost_answers = 0.0
            upload_id = await service.create()
            service.rig.faulty.lost_answers = 0.5
            parts = [
                (n, await told(partial(service.part, upload_id, n, body)))
                for n, body in enumerate(BODIES, 1)
            ]
            await told(partial(service.complete, upload_id, parts))
            service.rig.faulty.lost_answers = 0.0
            assert await service.body() == b"".join(BODIES)
            assert await service.under(keys.PARTS) == []

    run(scenario)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda parts: [parts[1], parts[0]], ErrorCode.INVALID_PART_ORDER),
        (lambda parts: [parts[0], parts[0]], ErrorCode.INVALID_PART_ORDER),
        (lambda parts: [parts[0], (9, parts[1][1])], ErrorCode.INVALID_PART),
        (lambda parts: [(1, parts[1][1])], ErrorCode.INVALID_PART),
        (lambda parts: [(0, parts[0][1])], ErrorCode.INVALID_ARGUMENT),
        (lambda parts: [(10_001, parts[0][1])], ErrorCode.INVALID_ARGUMENT),
        (lambda parts: [], ErrorCode.MALFORMED_XML),
    ],
)
def test_a_bad_part_list_is_refused_and_leaves_the_upload_open(
    run: Run,
    change: Callable[[list[tuple[int, str]]], list[tuple[int, str]]],
    code: ErrorCode,
) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        parts = await uploaded(service, upload_id)
        assert (await refused(service.complete(upload_id, change(parts)))).code is code
        await service.part(upload_id, 4, b"more")
        await service.complete(upload_id, parts)

    run(scenario)


def test_a_small_part_before_the_last_is_named_with_its_size(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        first = await service.part(upload_id, 1, b"small")
        second = await service.part(upload_id, 2, b"last")
        error = await refused(service.complete(upload_id, [(1, first), (2, second)]))
        assert error.code is ErrorCode.ENTITY_TOO_SMALL
        assert error.details["ProposedSize"] == "5"
        assert error.details["PartNumber"] == "1"

    run(scenario)


def test_a_replaced_part_and_unused_ones_are_queued_as_garbage(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        await service.part(upload_id, 1, b"first try")
        one = await service.part(upload_id, 1, b"second try")
        for number in (2, 3, 4):
            await service.part(upload_id, number, bytes([number]) * 100)
        (replaced,) = await service.garbage()
        assert not replaced.group
        await service.complete(upload_id, [(1, one)])
        record = await service.record()
        assert record is not None
        used = record.parts[0].data.blob
        queued = {ref.blob for entry in await service.garbage() for ref in entry.blobs}
        assert queued == service.blobs() - {used}
        assert len(queued) == 4
        assert all(not entry.group for entry in await service.garbage())

    run(scenario)


def test_an_aborted_upload_leaves_its_parts_to_the_garbage_entry_of_the_group(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        await uploaded(service, upload_id)
        group = bytes.fromhex(upload_id)
        assert (await service.abort(upload_id)).status == 204
        assert (await refused(service.abort(upload_id))).code is ErrorCode.NO_SUCH_UPLOAD
        (entry,) = await service.garbage()
        assert (entry.group, entry.owner_key) == (group, await service.upload_key(upload_id))
        claim = await service.context.metadata.may_reclaim(entry.group, entry.owner_key)
        assert claim is not None
        assert (await service.rig.memory.txn(claim)).succeeded
        left = [
            part
            async for page in uploads.remaining_parts(service.rig.memory, group)
            for part in page
        ]
        assert {part.data.blob for part in left} == service.blobs()
        await uploads.forget_parts(service.rig.memory, group)
        assert await service.under(keys.PARTS) == []

    run(scenario)


def test_conditions_that_fail_leave_the_upload_open(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        parts = await uploaded(service, upload_id)
        with pytest.raises(NoSuchKey):
            await service.complete(upload_id, parts, "key", if_match="*")
        await service.call("PutObject", "PUT", "key", b"there")
        with pytest.raises(PreconditionFailed):
            await service.complete(upload_id, parts, "key", if_none_match="*")
        await service.complete(
            upload_id, parts, "key", if_match=f'"{hashlib.md5(b"there").hexdigest()}"'
        )
        assert await service.body() == b"".join(BODIES)

    run(scenario)


def test_a_condition_that_breaks_at_the_last_moment_reopens_the_upload(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        parts = await uploaded(service, upload_id)
        freeze = upload_commits.freeze

        async def late(*arguments: object, **named: object) -> object:
            frozen = await freeze(*arguments, **named)  # type: ignore[arg-type]
            await service.call("PutObject", "PUT", "key", b"first")
            return frozen

        monkeypatch.setattr(upload_commits, "freeze", late)
        with pytest.raises(PreconditionFailed):
            await service.complete(upload_id, parts, "key", if_none_match="*")
        monkeypatch.setattr(upload_commits, "freeze", freeze)
        assert await service.body() == b"first"
        reopened = await service.upload(upload_id)
        assert reopened is not None
        assert (reopened.state, reopened.token) == (uploads.OPEN, b"")
        await service.part(upload_id, 1, BODIES[0])

    run(scenario)


def test_parts_stand_still_while_a_completion_runs_and_a_cut_off_one_resumes(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        parts = await uploaded(service, upload_id)

        async def crash(*_: object, **__: object) -> object:
            raise asyncio.CancelledError

        finish = upload_commits.finish
        monkeypatch.setattr(upload_commits, "finish", crash)
        with pytest.raises(asyncio.CancelledError):
            await service.complete(upload_id, parts)
        monkeypatch.setattr(upload_commits, "finish", finish)
        error = await refused(service.part(upload_id, 1, b"too late"))
        assert error.code is ErrorCode.OPERATION_ABORTED
        await service.complete(upload_id, parts)
        assert await service.body() == b"".join(BODIES)

    run(scenario)


def test_a_completion_that_was_cut_off_long_ago_is_undone_by_a_further_part(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        parts = await uploaded(service, upload_id)

        async def crash(*_: object, **__: object) -> object:
            raise asyncio.CancelledError

        monkeypatch.setattr(upload_commits, "finish", crash)
        with pytest.raises(asyncio.CancelledError):
            await service.complete(upload_id, parts)
        monkeypatch.undo()
        monkeypatch.setattr(rules, "PART_SIZE_BYTES_MIN", 4096)
        service.rig.clock.now_ms += 61_000
        body = b"z" * 5000
        parts[0] = (1, await service.part(upload_id, 1, body))
        await service.complete(upload_id, parts)
        assert await service.body() == body + BODIES[1] + BODIES[2]

    run(scenario)


def test_a_part_that_comes_between_reading_and_freezing_makes_the_completion_look_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        parts = await uploaded(service, upload_id)
        freeze = upload_commits.freeze

        async def late(*arguments: object, **named: object) -> object:
            monkeypatch.setattr(upload_commits, "freeze", freeze)
            await service.part(upload_id, 1, b"q" * 5000)
            return await freeze(*arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(upload_commits, "freeze", late)
        error = await refused(service.complete(upload_id, parts))
        assert error.code is ErrorCode.INVALID_PART
        assert await service.record() is None

    run(scenario)


def test_a_long_part_table_becomes_a_manifest_in_the_same_group(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        bodies = [bytes([n]) * 4096 for n in range(40)]
        parts = [(n, await service.part(upload_id, n, body)) for n, body in enumerate(bodies, 1)]
        await service.complete(upload_id, parts)
        assert await service.body() == b"".join(bodies)
        record = await service.record()
        assert record is not None
        assert record.manifest is not None
        assert record.parts == ()
        assert [part.number for part in await parts_of(record, service.store)] == [*range(1, 41)]
        group = bytes.fromhex(upload_id)
        owner_key = await service.upload_key(upload_id)
        for drive in service.node.drives.values():
            for _, raw in drive.shards.values():
                envelope = decode_envelope(raw)
                assert (envelope.group, envelope.owner_key) == (group, owner_key)

    run(scenario)


def test_ten_thousand_parts_complete_in_one_transaction_of_bounded_size(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        group = UploadId(bytes.fromhex(upload_id))
        listed = []
        for start in range(1, 10_001, 100):
            puts = []
            for number in range(start, start + 100):
                blob = service.rig.randomness.token(16)
                ref = BlobRef(blob=blob, k=4, m=2, stripe_size_bytes=STRIPE, size_bytes=5 << 20)
                part = PartRecord(
                    data=ref,
                    etag=blob,
                    modified_ms=1,
                    commit_id=blob[:8],
                    checksum=blob[:8],
                    number=number,
                )
                puts.append(Put(keys.part(group, number), encode(part)))
                listed.append((number, blob.hex()))
            await service.rig.memory.txn(Txn((), tuple(puts)))
        await service.complete(upload_id, listed)
        record = await service.record()
        assert record is not None
        assert (record.size_bytes, record.etag_parts) == (10_000 * (5 << 20), 10_000)
        assert len(await parts_of(record, service.store)) == 10_000
        assert await service.under(keys.PARTS) == []
        largest = max(service.rig.faulty.transactions, key=lambda txn: len(txn.success))
        written = [operation for operation in largest.success if isinstance(operation, Put)]
        assert sum(len(put.value) for put in written) < 4096

    run(scenario)


def test_a_manifest_that_the_sweep_took_is_written_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        parts = [(n, await service.part(upload_id, n, b"p" * 4096)) for n in range(1, 30)]
        upload_key = await service.upload_key(upload_id)
        finish = upload_commits.finish
        taken: list[bytes] = []

        async def late(*arguments: object, **named: object) -> object:
            monkeypatch.setattr(upload_commits, "finish", finish)
            manifest = named["stored_manifest"]
            assert isinstance(manifest, Stored)
            taken.append(manifest.ref.blob)
            memory = service.rig.memory
            assert await uploads.claim_blob(memory, upload_key, manifest.ref.blob, now_ms=1)
            return await finish(*arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(upload_commits, "finish", late)
        await service.complete(upload_id, parts)
        record = await service.record()
        assert record is not None
        assert record.manifest is not None
        assert [record.manifest.blob] != taken
        assert await service.body() == b"p" * 4096 * 29

    run(scenario)


def test_a_manifest_that_cannot_be_stored_leaves_the_upload_open(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        parts = [(n, await service.part(upload_id, n, b"p" * 4096)) for n in range(1, 30)]
        for drive in service.node.drives.values():
            drive.fails = Outcome.DRIVE_FAILED
        with pytest.raises(NotEnoughDrives):
            await service.complete(upload_id, parts)
        record = await service.upload(upload_id)
        assert record is not None
        assert record.state == uploads.OPEN

    run(scenario)
