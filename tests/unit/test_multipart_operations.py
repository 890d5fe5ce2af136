"""The multipart operations over the memory metadata store and memory nodes."""

import asyncio
import hashlib
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from lxml import etree

from gateway.context import Context
from gateway.domain import multipart as rules
from gateway.metadata import keys, upload_commits, uploads
from gateway.metadata.errors import NoSuchKey, PreconditionFailed
from gateway.metadata.records import (
    BlobRef,
    GarbageRecord,
    MapCurrent,
    ObjectRecord,
    PartRecord,
    UploadRecord,
    decode,
    encode,
)
from gateway.objects.errors import NotEnoughDrives
from gateway.objects.manifest import parts_of
from gateway.objects.port import Stored
from gateway.objects.store import ObjectStore
from gateway.objects.topology import Topology
from gateway.operation import AnyOperation
from gateway.operations import multipart, objects
from gateway.s3.checksums import ChecksumAlgorithm, checksum_of
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import S3Response
from gateway.s3.payload import BytesBody, make_payload
from gateway.s3.signature import UNSIGNED_PAYLOAD, Verified
from placement.clock import SystemClock, SystemRandomness
from placement.cluster_map import ClusterMap, MapDrive
from placement.errors import OutcomeUnknown
from placement.ids import DriveId, Epoch, Slot, UploadId
from placement.metastore.port import Put, Range, Txn, prefix_end
from placement.schemes import Scheme
from storage_node.port import Outcome
from storage_node.shard import decode_envelope
from tests.unit.memory_node import ReadyMemoryNode
from tests.unit.metadata_doubles import OWNER, Rig
from tests.unit.s3_requests import request_of

ROWS: dict[str, AnyOperation] = {
    row.name: row for row in (*objects.OPERATIONS, *multipart.OPERATIONS)
}
STRIPE = 64 << 10
T = TypeVar("T")


class Service:
    """The operations over one node of six drives."""

    def __init__(self, folder: Path) -> None:
        drives = [DriveId(bytes([i]) * 16) for i in range(6)]
        self.node = ReadyMemoryNode(drives, folder)
        self.rig = Rig()
        placed = tuple(
            MapDrive(Slot(i), drive, "n", f"h{i}", "z") for i, drive in enumerate(drives)
        )
        self.map = ClusterMap(Epoch(1), placed, Scheme(4, 2, STRIPE))
        nodes = {"n": self.node}
        self.topology = Topology(nodes, self.rig.memory, SystemClock())
        self.store = ObjectStore(nodes, self.topology, SystemClock(), SystemRandomness())
        self.context = Context(
            metadata=self.rig.metadata,
            objects=self.store,
            clock=self.rig.clock,
            randomness=self.rig.randomness,
            region="us-east-1",
        )

    async def start(self) -> None:
        for key, value in (
            (keys.map_epoch(Epoch(1)), self.map.encode()),
            (keys.MAP_CURRENT, encode(MapCurrent(epoch=1))),
        ):
            await self.rig.memory.txn(Txn((), (Put(key, value),)))
        await self.topology.start()
        await self.rig.ready()

    async def close(self) -> None:
        await self.store.close()
        await self.topology.close()

    async def call(
        self, name: str, method: str, path: str, body: bytes = b"", /, **headers: str
    ) -> S3Response:
        plain = {key.replace("_", "-"): value for key, value in headers.items()}
        request = request_of(method, f"http://localhost:9000/bucket/{path}", plain)
        request.principal = OWNER
        row = ROWS[name]
        payload = make_payload(
            {"content-length": str(len(body)), **request.headers},
            BytesBody(body),
            Verified(UNSIGNED_PAYLOAD),
            length_required=row.length_required,
            body_checksums=row.body_checksums,
        )
        request.body = payload
        if row.document_limit_bytes:
            request.document = await payload.read_document(row.document_limit_bytes)
        return row.encode(await row.handle(self.context, row.decode(request)))

    async def create(self, key: str = "key", /, **headers: str) -> str:
        response = await self.call("CreateMultipartUpload", "POST", f"{key}?uploads", **headers)
        return text_of(response, "UploadId")

    async def part(
        self, upload_id: str, number: int, body: bytes, key: str = "key", /, **headers: str
    ) -> str:
        path = f"{key}?partNumber={number}&uploadId={upload_id}"
        response = await self.call("UploadPart", "PUT", path, body, **headers)
        return dict(response.headers)["ETag"]

    async def complete(
        self, upload_id: str, parts: list[tuple[int, str]], key: str = "key", /, **headers: str
    ) -> S3Response:
        return await self.call(
            "CompleteMultipartUpload",
            "POST",
            f"{key}?uploadId={upload_id}",
            document_of(parts),
            **headers,
        )

    async def abort(self, upload_id: str) -> S3Response:
        return await self.call("AbortMultipartUpload", "DELETE", f"key?uploadId={upload_id}")

    async def body(self, key: str = "key") -> bytes:
        response = await self.call("GetObject", "GET", key)
        if isinstance(response.body, bytes):
            return response.body
        return b"".join([bytes(p) async for group in response.body.chunks() for p in group])

    async def record(self, key: str = "key") -> ObjectRecord | None:
        _, found = await self.context.metadata.lookup("bucket", key, OWNER)
        return None if found is None else found.record

    async def upload_key(self, upload_id: str, key: str = "key") -> bytes:
        entry = await self.context.metadata.bucket("bucket", OWNER)
        return keys.upload(entry.bucket_id, key.encode(), UploadId(bytes.fromhex(upload_id)))

    async def upload(self, upload_id: str) -> UploadRecord | None:
        (found,) = await self.rig.memory.get_many([await self.upload_key(upload_id)])
        return None if found is None else decode(UploadRecord, found.value)

    async def under(self, prefix: bytes) -> list[bytes]:
        found = await self.rig.memory.range(Range(prefix, prefix_end(prefix)))
        return [kv.value for kv in found.kvs]

    async def garbage(self) -> list[GarbageRecord]:
        return [decode(GarbageRecord, value) for value in await self.under(keys.GARBAGE)]

    def blobs(self) -> set[bytes]:
        return {shard.blob for drive in self.node.drives.values() for shard in drive.shards}


Run = Callable[[Callable[[Service], Awaitable[None]]], None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a scenario with parts of at least 4 KiB, so that it need not move megabytes."""
    monkeypatch.setattr(rules, "PART_SIZE_BYTES_MIN", 4096)

    def runner(scenario: Callable[[Service], Awaitable[None]]) -> None:
        async def main() -> None:
            service = Service(tmp_path)
            await service.start()
            try:
                await scenario(service)
            finally:
                await service.close()

        asyncio.run(main())

    return runner


def document_of(parts: list[tuple[int, str]], extra: str = "") -> bytes:
    return (
        "<CompleteMultipartUpload>"
        + "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>{extra}</Part>"
            for number, etag in parts
        )
        + "</CompleteMultipartUpload>"
    ).encode()


def text_of(response: S3Response, name: str) -> str:
    assert isinstance(response.body, bytes)
    found = etree.fromstring(response.body).findtext(f"{{*}}{name}")
    assert found is not None, response.body
    return found


def texts_of(response: S3Response, path: str) -> list[str]:
    assert isinstance(response.body, bytes)
    steps = "/".join(f"{{*}}{step}" for step in path.split("/"))
    return [node.text or "" for node in etree.fromstring(response.body).findall(steps)]


async def refused(call: Awaitable[object]) -> S3Error:
    with pytest.raises(S3Error) as raised:
        await call
    return raised.value


BODIES = [b"a" * 5000, b"b" * 4096, b"c" * 10]


async def uploaded(service: Service, upload_id: str) -> list[tuple[int, str]]:
    return [(n, await service.part(upload_id, n, body)) for n, body in enumerate(BODIES, 1)]


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


@pytest.mark.parametrize("name", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums_are_demanded_stored_and_combined(run: Run, name: str) -> None:
    algorithm = ChecksumAlgorithm(name)

    async def scenario(service: Service) -> None:
        response = await service.call(
            "CreateMultipartUpload", "POST", "key?uploads", x_amz_checksum_algorithm=name
        )
        kind = dict(response.headers)["x-amz-checksum-type"]
        assert kind == ("FULL_OBJECT" if name == "CRC64NVME" else "COMPOSITE")
        upload_id = text_of(response, "UploadId")
        other = ChecksumAlgorithm("SHA1" if name == "SHA256" else "SHA256")
        error = await refused(
            service.call(
                "UploadPart",
                "PUT",
                f"key?partNumber=1&uploadId={upload_id}",
                b"x",
                **{other.header: b64encode(checksum_of(other, b"x")).decode()},
            )
        )
        assert error.code is ErrorCode.INVALID_REQUEST
        assert f"expected checksum Type: {name.lower()}" in error.message
        etags, sums = [], []
        for number, body in enumerate(BODIES, 1):
            value = b64encode(checksum_of(algorithm, body)).decode()
            sums.append(value)
            etags.append(
                await service.part(upload_id, number, body, "key", **{algorithm.header: value})
            )
        if kind == "FULL_OBJECT":
            whole = b64encode(checksum_of(algorithm, b"".join(BODIES))).decode()
        else:
            joined = b"".join(checksum_of(algorithm, body) for body in BODIES)
            whole = b64encode(checksum_of(algorithm, joined)).decode() + "-3"
        document = b"<CompleteMultipartUpload>" + b"".join(
            f"<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag>"
            f"<Checksum{name}>{value}</Checksum{name}></Part>".encode()
            for n, (etag, value) in enumerate(zip(etags, sums, strict=True), 1)
        )
        document += b"</CompleteMultipartUpload>"
        path = f"key?uploadId={upload_id}"
        wrong = document.replace(sums[1].encode(), sums[0].encode())
        bad = b64encode(bytes(algorithm.size_bytes)).decode()
        bare = re.sub(rb"<Checksum.*?</Checksum\w+>", b"", document)
        for sent, headers, code in (
            (document, {algorithm.header: bad}, ErrorCode.BAD_DIGEST),
            (document, {algorithm.header: "bad"}, ErrorCode.BAD_DIGEST),
            (bare, {algorithm.header: "bad"}, ErrorCode.BAD_DIGEST),
            (document, {other.header: bad}, ErrorCode.INVALID_REQUEST),
            (document, {"x-amz-mp-object-size": "1"}, ErrorCode.INVALID_REQUEST),
            (document, {"x-amz-mp-object-size": "much"}, ErrorCode.INVALID_REQUEST),
            (wrong, {}, ErrorCode.INVALID_PART),
        ):
            call = service.call("CompleteMultipartUpload", "POST", path, sent, **headers)
            assert (await refused(call)).code is code
        if kind == "COMPOSITE":
            call = service.call("CompleteMultipartUpload", "POST", path, bare)
            assert (await refused(call)).code is ErrorCode.INVALID_REQUEST
        size = str(sum(map(len, BODIES)))
        response = await service.call(
            "CompleteMultipartUpload",
            "POST",
            path,
            document,
            **{algorithm.header: whole, "x-amz-mp-object-size": size, "x-amz-checksum-type": kind},
        )
        assert text_of(response, f"Checksum{name}") == whole
        assert text_of(response, "ChecksumType") == kind

    run(scenario)


def test_a_checksum_that_the_upload_did_not_name_is_verified_and_told_again(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        value = b64encode(checksum_of(ChecksumAlgorithm.CRC32, b"body")).decode()
        path = f"key?partNumber=1&uploadId={upload_id}"
        response = await service.call(
            "UploadPart", "PUT", path, b"body", x_amz_checksum_crc32=value
        )
        headers = dict(response.headers)
        assert headers["x-amz-checksum-crc32"] == value
        error = await refused(
            service.call("UploadPart", "PUT", path, b"other", x_amz_checksum_crc32=value)
        )
        assert error.code is ErrorCode.BAD_DIGEST
        listed = await service.call("ListParts", "GET", f"key?uploadId={upload_id}")
        assert texts_of(listed, "Part/ChecksumCRC32") == [value]
        body = document_of([(1, headers["ETag"])], f"<ChecksumCRC32>{value}</ChecksumCRC32>")
        response = await service.call(
            "CompleteMultipartUpload", "POST", f"key?uploadId={upload_id}", body
        )
        whole = checksum_of(ChecksumAlgorithm.CRC64NVME, b"body")
        assert text_of(response, "ChecksumCRC64NVME") == b64encode(whole).decode()

    run(scenario)


@pytest.mark.parametrize("number", ["0", "-1", "10001", "x", "", "1e3", "\u0661"])
def test_part_numbers_run_from_1_to_10000(run: Run, number: str) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        quoted = number.encode().hex("%")
        quoted = f"%{quoted}" if quoted else ""
        path = f"key?partNumber={quoted}&uploadId={upload_id}"
        error = await refused(service.call("UploadPart", "PUT", path, b"x"))
        assert error.code is ErrorCode.INVALID_ARGUMENT
        assert error.details["ArgumentName"] == "partNumber"

    run(scenario)


@pytest.mark.parametrize("upload_id", ["abc1234def", "0" * 32, "F" * 32, "", "zz" * 16])
def test_uploads_that_never_were_are_not_found(run: Run, upload_id: str) -> None:
    async def scenario(service: Service) -> None:
        for call in (
            service.part(upload_id, 1, b"x"),
            service.complete(upload_id, [(1, "00" * 16)]),
            service.abort(upload_id),
            service.call("ListParts", "GET", f"key?uploadId={upload_id}"),
        ):
            assert (await refused(call)).code is ErrorCode.NO_SUCH_UPLOAD
        assert service.blobs() == set()

    run(scenario)


def test_an_upload_is_found_under_its_own_key_only(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create("key")
        error = await refused(service.part(upload_id, 1, b"x", "other"))
        assert error.code is ErrorCode.NO_SUCH_UPLOAD

    run(scenario)


def test_parts_are_listed_in_pages(run: Run) -> None:
    async def scenario(service: Service) -> None:
        upload_id = await service.create()
        for number in (1, 2, 7, 10_000):
            await service.part(upload_id, number, b"p" * number)
        path = f"key?uploadId={upload_id}"
        page = await service.call("ListParts", "GET", f"{path}&max-parts=2")
        assert texts_of(page, "Part/PartNumber") == ["1", "2"]
        assert text_of(page, "IsTruncated") == "true"
        assert text_of(page, "NextPartNumberMarker") == "2"
        page = await service.call("ListParts", "GET", f"{path}&max-parts=2&part-number-marker=2")
        assert texts_of(page, "Part/PartNumber") == ["7", "10000"]
        assert texts_of(page, "Part/Size") == ["7", "10000"]
        assert text_of(page, "IsTruncated") == "false"
        page = await service.call("ListParts", "GET", f"{path}&part-number-marker=2147483647")
        assert texts_of(page, "Part/PartNumber") == []
        page = await service.call("ListParts", "GET", f"{path}&max-parts=0")
        assert texts_of(page, "Part/PartNumber") == []
        assert text_of(page, "IsTruncated") == "false"
        error = await refused(service.call("ListParts", "GET", f"{path}&max-parts=-1"))
        assert error.code is ErrorCode.INVALID_ARGUMENT

    run(scenario)


def test_uploads_are_listed_by_key_and_initiation_until_they_are_done(run: Run) -> None:
    async def scenario(service: Service) -> None:
        ids: dict[str, list[str]] = {}
        for key in ("b", "a/1", "a/2", "b", "c%20d"):
            ids.setdefault(key, []).append(await service.create(key))
        done = await service.create("aa")
        await service.complete(done, [(1, await service.part(done, 1, b"x", "aa"))], "aa")

        async def listed(query: str = "") -> S3Response:
            row = ROWS["ListMultipartUploads"]
            request = request_of("GET", f"http://localhost:9000/bucket?uploads&{query}", {})
            request.principal = OWNER
            return row.encode(await row.handle(service.context, row.decode(request)))

        answer = await listed()
        assert texts_of(answer, "Upload/Key") == ["a/1", "a/2", "b", "b", "c d"]
        assert texts_of(answer, "Upload/UploadId")[2:4] == ids["b"]
        assert texts_of(answer, "Upload/Owner/ID") == [OWNER.canonical_id] * 5
        answer = await listed("delimiter=/&encoding-type=url")
        assert texts_of(answer, "Upload/Key") == ["b", "b", "c%20d"]
        assert texts_of(answer, "CommonPrefixes/Prefix") == ["a/"]
        answer = await listed("max-uploads=1&delimiter=/")
        assert text_of(answer, "NextKeyMarker") == "a/"
        answer = await listed("max-uploads=1&delimiter=/&key-marker=a/")
        assert texts_of(answer, "Upload/UploadId") == ids["b"][:1]
        assert text_of(answer, "IsTruncated") == "true"
        marker = text_of(answer, "NextUploadIdMarker")
        answer = await listed(f"key-marker=b&upload-id-marker={marker}")
        assert texts_of(answer, "Upload/UploadId") == [ids["b"][1], *ids["c%20d"]]
        for query in ("max-uploads=x", "encoding-type=xml", "key-marker=b&upload-id-marker=x"):
            assert (await refused(listed(query))).code is ErrorCode.INVALID_ARGUMENT

    run(scenario)


def test_parts_are_copied_from_ranges_of_plain_and_multipart_objects(run: Run) -> None:
    async def scenario(service: Service) -> None:
        source = await service.create("multi")
        parts = [(n, await service.part(source, n, b, "multi")) for n, b in enumerate(BODIES, 1)]
        await service.complete(source, parts, "multi")
        await service.call("PutObject", "PUT", "plain", bytes(range(256)) * 1000)
        await service.call("PutObject", "PUT", "empty", b"")
        upload_id = await service.create()

        async def copied(number: int, key: str, **headers: str) -> tuple[int, str]:
            path = f"key?partNumber={number}&uploadId={upload_id}"
            response = await service.call(
                "UploadPartCopy", "PUT", path, x_amz_copy_source=f"/bucket/{key}", **headers
            )
            return number, text_of(response, "ETag")

        wanted = b"".join(BODIES)[4990:9100] + bytes(range(256)) * 1000 + b""
        listed = [
            await copied(1, "multi", x_amz_copy_source_range="bytes=4990-9099"),
            await copied(2, "plain"),
            await copied(3, "empty"),
        ]
        await service.complete(upload_id, listed)
        assert await service.body() == wanted
        record = await service.record()
        assert record is not None
        assert record.checksum is not None
        assert record.checksum.value == checksum_of(ChecksumAlgorithm.CRC64NVME, wanted)

    run(scenario)


def test_copies_of_parts_that_cannot_be_are_refused(run: Run) -> None:
    async def scenario(service: Service) -> None:
        await service.call("PutObject", "PUT", "source", b"12345")
        upload_id = await service.create()
        path = f"key?partNumber=1&uploadId={upload_id}"

        def copied(source: str = "/bucket/source", **headers: str) -> Awaitable[S3Response]:
            return service.call("UploadPartCopy", "PUT", path, x_amz_copy_source=source, **headers)

        for text in ("0-2", "bytes=0", "bytes=hello-world", "bytes=0-bar", "bytes=0-2,3-5"):
            error = await refused(copied(x_amz_copy_source_range=text))
            assert error.code is ErrorCode.INVALID_ARGUMENT
        for text in ("bytes=0-21", "bytes=5-5"):
            error = await refused(copied(x_amz_copy_source_range=text))
            assert error.code is ErrorCode.INVALID_RANGE
        with pytest.raises(NoSuchKey):
            await copied("/bucket/absent")
        with pytest.raises(PreconditionFailed):
            await copied(x_amz_copy_source_if_match="other")
        assert await service.under(keys.PARTS) == []

    run(scenario)


def test_a_part_in_fewer_drives_marks_the_object_for_encoding_anew(run: Run) -> None:
    async def scenario(service: Service) -> None:
        for drive in list(service.node.drives.values())[:2]:
            drive.fails = Outcome.DRIVE_FAILED
        await service.topology.refresh()
        upload_id = await service.create()
        # The first write finds out about the drives; later ones plan without them.
        await service.part(upload_id, 1, b"n" * 100_000)
        etag = await service.part(upload_id, 1, b"n" * 100_000)
        await service.complete(upload_id, [(1, etag)])
        assert await service.body() == b"n" * 100_000
        found = await service.rig.memory.range(Range(keys.NARROW, prefix_end(keys.NARROW)))
        entry = await service.context.metadata.bucket("bucket", OWNER)
        assert [kv.key for kv in found.kvs] == [keys.narrow(entry.object_key("key"))]

    run(scenario)
