"""PUT, GET, HEAD, DELETE, copies and attributes over the memory metadata store and memory nodes."""

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.context import Context
from gateway.metadata import keys
from gateway.metadata.errors import NoSuchBucket, NoSuchKey, PreconditionFailed
from gateway.metadata.records import Checksum, MapCurrent, ObjectRecord, PartRef, decode, encode
from gateway.objects.errors import BlobDamaged
from gateway.objects.manifest import encode_parts
from gateway.objects.store import ObjectStore
from gateway.objects.topology import Topology
from gateway.operation import AnyOperation
from gateway.operations import attributes, copy, delete, objects
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import S3Response
from gateway.s3.payload import BytesBody, make_payload
from gateway.s3.signature import UNSIGNED_PAYLOAD, Verified
from placement.clock import SystemClock, SystemRandomness
from placement.cluster_map import ClusterMap, MapDrive
from placement.ids import DriveId, Epoch, GroupId, Slot
from placement.metastore.port import DeleteRange, Put, Txn
from placement.schemes import Scheme
from storage_node.port import Outcome
from storage_node.shard import decode_envelope
from tests.unit.memory_node import ReadyMemoryNode
from tests.unit.metadata_doubles import OWNER, Rig
from tests.unit.s3_requests import request_of

ROWS: dict[str, AnyOperation] = {
    row.name: row
    for row in (
        *objects.OPERATIONS,
        *delete.OPERATIONS,
        *copy.OPERATIONS,
        *attributes.OPERATIONS,
    )
}
STRIPE = 64 << 10


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
            clock=SystemClock(),
            randomness=SystemRandomness(),
            region="us-east-1",
        )

    async def start(self) -> None:
        memory = self.rig.memory
        for key, value in (
            (keys.map_epoch(Epoch(1)), self.map.encode()),
            (keys.MAP_CURRENT, encode(MapCurrent(epoch=1))),
        ):
            await memory.txn(_put(key, value))
        await self.topology.start()
        await self.rig.ready()

    async def close(self) -> None:
        await self.store.close()
        await self.topology.close()

    async def call(
        self,
        name: str,
        method: str,
        path: str,
        body: bytes = b"",
        /,
        **headers: str,
    ) -> S3Response:
        plain = {key.replace("_", "-"): value for key, value in headers.items()}
        request = request_of(method, f"http://localhost:9000/{path}", plain)
        request.principal = OWNER
        verified = Verified(UNSIGNED_PAYLOAD)
        payload = make_payload(request.headers, BytesBody(body), verified)
        request.body = payload
        row = ROWS[name]
        if row.document_limit_bytes:
            request.document = await payload.read_document(row.document_limit_bytes)
        return row.encode(await row.handle(self.context, row.decode(request)))

    async def put(self, key: str, body: bytes, **headers: str) -> S3Response:
        return await self.call("PutObject", "PUT", f"bucket/{key}", body, **headers)

    async def get(self, key: str, **headers: str) -> S3Response:
        return await self.call("GetObject", "GET", f"bucket/{key}", **headers)

    async def head(self, key: str, **headers: str) -> S3Response:
        return await self.call("HeadObject", "HEAD", f"bucket/{key}", **headers)

    async def record(self, key: str) -> ObjectRecord:
        _, found = await self.context.metadata.lookup("bucket", key, OWNER)
        assert found is not None
        return found.record

    def shards(self) -> int:
        return sum(len(drive.shards) for drive in self.node.drives.values())


def _put(key: bytes, value: bytes) -> Txn:
    return Txn((), (Put(key, value),))


async def bytes_of(response: S3Response) -> bytes:
    if isinstance(response.body, bytes):
        return response.body
    parts = [bytes(part) async for group in response.body.chunks() for part in group]
    body = b"".join(parts)
    assert len(body) == response.body.size_bytes
    return body


def headers_of(response: S3Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers}


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Service], Awaitable[None]]], None]:
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


Run = Callable[[Callable[[Service], Awaitable[None]]], None]


@pytest.mark.parametrize("size", [0, 5, 20_000, 5 * STRIPE + 1])
def test_put_get_and_head_tell_the_same(size: int, run: Run) -> None:
    async def scenario(s: Service) -> None:
        data = bytes(range(256)) * (size // 256 + 1)
        data = data[:size]
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        put = await s.put(
            "k/%C3%A9", data, content_type="text/x", x_amz_meta_a="1", cache_control="c"
        )
        assert headers_of(put)["etag"] == etag
        assert headers_of(put)["x-amz-checksum-type"] == "FULL_OBJECT"
        got = await s.get("k/%C3%A9", x_amz_checksum_mode="ENABLED")
        told = headers_of(got)
        assert got.status == 200
        assert await bytes_of(got) == data
        assert (told["etag"], told["content-type"], told["x-amz-meta-a"]) == (etag, "text/x", "1")
        assert told["cache-control"] == "c"
        assert told["x-amz-checksum-crc64nvme"] == headers_of(put)["x-amz-checksum-crc64nvme"]
        head = await s.head("k/%C3%A9", x_amz_checksum_mode="ENABLED")
        assert headers_of(head) == told
        assert head.content_length == size

    run(scenario)


def test_what_a_body_announces_is_verified_and_a_refused_one_leaves_nothing(run: Run) -> None:
    async def scenario(s: Service) -> None:
        for size in (10, 10 * STRIPE):
            wrong = base64.b64encode(bytes(16)).decode()
            with pytest.raises(S3Error) as raised:
                await s.put("k", bytes(size), content_md5=wrong)
            assert raised.value.code is ErrorCode.BAD_DIGEST
        assert s.shards() == 0
        assert not s.node.staged
        with pytest.raises(NoSuchKey):
            await s.get("k")

    run(scenario)


def test_an_overwrite_queues_the_old_group_as_garbage(run: Run) -> None:
    async def scenario(s: Service) -> None:
        await s.put("k", b"one")
        old = await s.record("k")
        await s.put("k", b"two")
        (garbage,) = await s.rig.memory.get_many([keys.garbage(old.group)])
        assert garbage is not None
        assert await bytes_of(await s.get("k")) == b"two"

    run(scenario)


@pytest.mark.parametrize("size", [1000, 5 * STRIPE])
def test_ranges(size: int, run: Run) -> None:
    async def scenario(s: Service) -> None:
        data = (bytes(range(251)) * (size // 251 + 1))[:size]
        await s.put("k", data)
        for text, low, high in [
            ("bytes=0-0", 0, 1),
            ("bytes=10-", 10, size),
            ("bytes=-7", size - 7, size),
            (f"bytes=5-{size * 2}", 5, size),
        ]:
            got = await s.get("k", range=text)
            assert got.status == 206
            assert await bytes_of(got) == data[low:high]
            assert headers_of(got)["content-range"] == f"bytes {low}-{high - 1}/{size}"
            assert "x-amz-checksum-crc64nvme" not in headers_of(got)
        with pytest.raises(S3Error) as raised:
            await s.get("k", range=f"bytes={size}-")
        assert raised.value.code is ErrorCode.INVALID_RANGE

    run(scenario)


def test_conditional_reads(run: Run) -> None:
    async def scenario(s: Service) -> None:
        etag = headers_of(await s.put("k", b"data"))["etag"]
        assert (await s.get("k", if_match=etag)).status == 200
        with pytest.raises(PreconditionFailed):
            await s.get("k", if_match='"other"')
        unmodified = await s.get("k", if_none_match=etag)
        assert unmodified.status == 304
        assert headers_of(unmodified)["etag"] == etag
        assert unmodified.body == b""
        assert (await s.head("k", if_none_match="*")).status == 304
        future = "Fri, 01 Jan 2100 00:00:00 GMT"
        assert (await s.get("k", if_modified_since=future)).status == 200  # no date that can be
        now = headers_of(unmodified)["last-modified"]
        assert (await s.get("k", if_modified_since=now)).status == 304
        with pytest.raises(PreconditionFailed):
            await s.get("k", if_unmodified_since="Sat, 01 Jan 2000 00:00:00 GMT")

    run(scenario)


def test_conditional_writes_and_deletes(run: Run) -> None:
    async def scenario(s: Service) -> None:
        with pytest.raises(NoSuchKey):
            await s.put("k", b"x", if_match='"e"')
        etag = headers_of(await s.put("k", b"x", if_none_match="*"))["etag"]
        with pytest.raises(PreconditionFailed):
            await s.put("k", b"y", if_none_match="*")
        await s.put("k", b"y", if_match=etag)
        with pytest.raises(PreconditionFailed):
            await s.call("DeleteObject", "DELETE", "bucket/k", if_match=etag)
        assert (await s.call("DeleteObject", "DELETE", "bucket/k")).status == 204
        assert (await s.call("DeleteObject", "DELETE", "bucket/k")).status == 204
        with pytest.raises(NoSuchKey):
            await s.head("k")

    run(scenario)


def test_of_racing_conditional_writes_exactly_one_wins(run: Run) -> None:
    async def scenario(s: Service) -> None:
        async def attempt(number: int) -> bool:
            try:
                await s.put("k", str(number).encode(), if_none_match="*")
            except PreconditionFailed:
                return False
            return True

        won = await asyncio.gather(*(attempt(number) for number in range(12)))
        assert sum(won) == 1
        assert await bytes_of(await s.get("k")) == str(won.index(True)).encode()
        assert s.shards() == 3  # the losers' copies were discarded

    run(scenario)


def test_version_ids_of_a_bucket_without_versions(run: Run) -> None:
    async def scenario(s: Service) -> None:
        await s.put("k", b"x")
        assert (await s.get("k?versionId=null")).status == 200
        for version, code in [
            ("a" * 32, ErrorCode.NO_SUCH_VERSION),
            ("no", ErrorCode.INVALID_ARGUMENT),
        ]:
            with pytest.raises(S3Error) as raised:
                await s.get(f"k?versionId={version}")
            assert raised.value.code is code
        absent = "a" * 32
        await s.call("DeleteObject", "DELETE", f"bucket/k?versionId={absent}")
        assert (await s.head("k")).status == 200
        await s.call("DeleteObject", "DELETE", "bucket/k?versionId=null")
        with pytest.raises(NoSuchKey):
            await s.head("k")

    run(scenario)


def test_response_overrides_replace_content_headers(run: Run) -> None:
    async def scenario(s: Service) -> None:
        await s.put("k", b"x", content_type="a/b", content_language="de")
        got = await s.get("k?response-content-type=c/d&response-expires=never")
        told = headers_of(got)
        assert (told["content-type"], told["expires"]) == ("c/d", "never")
        assert told["content-language"] == "de"

    run(scenario)


def test_delete_many_tells_of_each_key(run: Run) -> None:
    async def scenario(s: Service) -> None:
        for key in ("a", "b&"):
            await s.put(key.replace("&", "%26"), b"x")
        text = (
            b"<Delete><Object><Key>a</Key></Object><Object><Key>b&amp;</Key>"
            b"<VersionId>null</VersionId></Object><Object><Key>none</Key></Object>"
            b"<Object><Key>a</Key><VersionId>bad</VersionId></Object></Delete>"
        )
        md5 = base64.b64encode(hashlib.md5(text).digest()).decode()
        with pytest.raises(S3Error):
            await s.call("DeleteObjects", "POST", "bucket?delete", text)
        done = await s.call("DeleteObjects", "POST", "bucket?delete", text, content_md5=md5)
        assert isinstance(done.body, bytes)
        assert done.body.count(b"<Deleted>") == 3
        assert b"<Key>b&amp;</Key><VersionId>null</VersionId>" in done.body
        assert b"<Code>NoSuchVersion</Code>" in done.body
        for key in ("a", "b%26"):
            with pytest.raises(NoSuchKey):
                await s.head(key)

    run(scenario)


def test_a_copy_moves_no_bytes_and_outlives_its_source(run: Run) -> None:
    async def scenario(s: Service) -> None:
        await s.put("a b", b"data", x_amz_meta_m="1", content_type="t/x")
        before = s.shards()
        copied = await s.call(
            "CopyObject", "PUT", "bucket/to", x_amz_copy_source="/bucket/a%20b?versionId=null"
        )
        assert isinstance(copied.body, bytes)
        assert b"<ETag>&quot;" in copied.body
        assert s.shards() == before
        await s.call("DeleteObject", "DELETE", "bucket/a%20b")
        got = await s.get("to")
        assert await bytes_of(got) == b"data"
        assert headers_of(got)["x-amz-meta-m"] == "1"
        record = await s.record("to")
        (reference,) = await s.rig.memory.get_many(
            [keys.reference(GroupId(record.group), keys.object_(await _bucket_id(s), b"to"))]
        )
        assert reference is not None

    run(scenario)


async def _bucket_id(s: Service) -> Any:
    return (await s.context.metadata.bucket("bucket", OWNER)).bucket_id


def test_a_copy_onto_itself_needs_new_metadata(run: Run) -> None:
    async def scenario(s: Service) -> None:
        await s.put("k", b"data", x_amz_meta_m="1", content_type="t/x")
        with pytest.raises(S3Error) as raised:
            await s.call("CopyObject", "PUT", "bucket/k", x_amz_copy_source="bucket/k")
        assert raised.value.code is ErrorCode.INVALID_REQUEST
        await s.call(
            "CopyObject",
            "PUT",
            "bucket/k",
            x_amz_copy_source="bucket/k",
            x_amz_metadata_directive="REPLACE",
            x_amz_meta_n="2",
        )
        told = headers_of(await s.head("k"))
        assert told["x-amz-meta-n"] == "2"
        assert "x-amz-meta-m" not in told
        assert told["content-type"] == "binary/octet-stream"
        assert await bytes_of(await s.get("k")) == b"data"

    run(scenario)


def test_a_copy_may_ask_for_another_checksum(run: Run) -> None:
    async def scenario(s: Service) -> None:
        data = bytes(range(256)) * 1000
        await s.put("k", data)
        copied = await s.call(
            "CopyObject",
            "PUT",
            "bucket/to",
            x_amz_copy_source="bucket/k",
            x_amz_checksum_algorithm="SHA256",
        )
        expected = base64.b64encode(hashlib.sha256(data).digest()).decode()
        assert isinstance(copied.body, bytes)
        assert f"<ChecksumSHA256>{expected}</ChecksumSHA256>".encode() in copied.body

    run(scenario)


@pytest.mark.parametrize("source", ["bucket", "/", "bucket/", "bucket/%ff", ""])
def test_a_malformed_copy_source_is_an_invalid_argument(source: str, run: Run) -> None:
    async def scenario(s: Service) -> None:
        with pytest.raises(S3Error) as raised:
            await s.call("CopyObject", "PUT", "bucket/k", x_amz_copy_source=source)
        assert raised.value.code is ErrorCode.INVALID_ARGUMENT

    run(scenario)


def test_a_copy_judges_its_source_and_says_what_is_missing(run: Run) -> None:
    async def scenario(s: Service) -> None:
        await s.put("k", b"data")
        with pytest.raises(PreconditionFailed):
            await s.call(
                "CopyObject",
                "PUT",
                "bucket/to",
                x_amz_copy_source="bucket/k",
                x_amz_copy_source_if_match='"no"',
            )
        with pytest.raises(NoSuchKey):
            await s.call("CopyObject", "PUT", "bucket/to", x_amz_copy_source="bucket/none")
        with pytest.raises(NoSuchBucket):
            await s.call("CopyObject", "PUT", "bucket/to", x_amz_copy_source="other/k")

    run(scenario)


async def _multipart(s: Service, *, manifest: bool) -> list[bytes]:
    """An object of parts as a completed upload leaves it."""
    bodies = [b"a" * 70_000, b"b" * 10, b"c" * 30_000]
    group = GroupId(b"U" * 16)
    parts = []
    for number, body in zip((2, 3, 7), bodies, strict=True):
        staged = await s.store.stage_bytes(body, group=group)
        stored = await s.store.commit(staged, b"u/upload", b"")
        checksum = hashlib.sha256(body).digest()
        parts.append(PartRef(number=number, data=stored.ref, checksum=checksum))
    reference = None
    if manifest:
        staged = await s.store.stage_bytes(encode_parts(parts), group=group)
        reference = (await s.store.commit(staged, b"u/upload", b"")).ref
    entry, _ = await s.context.metadata.lookup("bucket", "mp", OWNER)
    record = ObjectRecord(
        owner=OWNER.account_id,
        group=group,
        size_bytes=sum(map(len, bodies)),
        etag=bytes(16),
        etag_parts=3,
        modified_ms=1_700_000_000_000,
        commit_id=b"c" * 8,
        parts=() if manifest else tuple(parts),
        manifest=reference,
        checksum=Checksum(algorithm="SHA256", type="COMPOSITE", value=bytes(32), parts=3),
    )
    await s.context.metadata.commits.commit(entry, entry.object_key("mp"), record, new_group=True)
    return bodies


@pytest.mark.parametrize("manifest", [False, True])
def test_multipart_objects_are_read_whole_by_range_and_by_part(manifest: bool, run: Run) -> None:
    async def scenario(s: Service) -> None:
        bodies = await _multipart(s, manifest=manifest)
        whole = b"".join(bodies)
        got = await s.get("mp")
        assert await bytes_of(got) == whole
        assert headers_of(got)["etag"] == f'"{"00" * 16}-3"'
        assert await bytes_of(await s.get("mp", range="bytes=69999-70011")) == whole[69_999:70_012]
        part = await s.get("mp?partNumber=3", x_amz_checksum_mode="ENABLED")
        told = headers_of(part)
        assert part.status == 206
        assert await bytes_of(part) == bodies[1]
        assert told["content-range"] == f"bytes 70000-70009/{len(whole)}"
        assert told["x-amz-mp-parts-count"] == "3"
        expected = base64.b64encode(hashlib.sha256(bodies[1]).digest()).decode()
        assert told["x-amz-checksum-sha256"] == expected
        with pytest.raises(S3Error) as raised:
            await s.get("mp?partNumber=1")
        assert raised.value.code is ErrorCode.INVALID_PART_NUMBER
        with pytest.raises(S3Error) as raised:
            await s.get("mp?partNumber=2", range="bytes=0-1")
        assert raised.value.code is ErrorCode.INVALID_REQUEST

    run(scenario)


def test_attributes_page_through_parts(run: Run) -> None:
    async def scenario(s: Service) -> None:
        await _multipart(s, manifest=True)

        async def ask(**headers: str) -> str:
            answer = await s.call(
                "GetObjectAttributes",
                "GET",
                "bucket/mp?attributes",
                x_amz_object_attributes="ETag,ObjectParts,Checksum,StorageClass,ObjectSize",
                **headers,
            )
            assert isinstance(answer.body, bytes)
            return answer.body.decode()

        text = await ask(x_amz_max_parts="2")
        assert "<IsTruncated>true</IsTruncated>" in text
        assert "<NextPartNumberMarker>3</NextPartNumberMarker>" in text
        assert "<PartsCount>3</PartsCount>" in text
        assert text.count("<Part>") == 2
        assert f"<ETag>{'00' * 16}-3</ETag>" in text
        assert "<StorageClass>STANDARD</StorageClass>" in text
        text = await ask(x_amz_part_number_marker="3")
        assert "<IsTruncated>false</IsTruncated>" in text
        assert "<PartNumber>7</PartNumber><Size>30000</Size>" in text
        with pytest.raises(S3Error):
            await s.call("GetObjectAttributes", "GET", "bucket/mp?attributes")

    run(scenario)


def test_drives_failing_in_the_commit_cost_no_put(run: Run) -> None:
    async def scenario(s: Service) -> None:
        for size in (10, 40_000, 20 * STRIPE):
            for drive in s.node.drives.values():
                drive.fails = None
            await s.topology.poll()
            broken = list(s.node.drives.values())[:2]
            if size > 10:
                original = s.store.commit

                async def commit(
                    *arguments: Any, real: Any = original, breaking: Any = broken
                ) -> Any:
                    for drive in breaking:
                        drive.fails = Outcome.DRIVE_FAILED
                    s.store.commit = real  # type: ignore[method-assign]
                    return await real(*arguments)

                s.store.commit = commit  # type: ignore[method-assign,assignment]
            await s.put("k", bytes(size))
            assert await bytes_of(await s.get("k")) == bytes(size)
            if size > 10:
                record = await s.record("k")
                assert record.data is not None
                assert (record.data.k, record.data.m) == (2, 2)
                entry, _ = await s.context.metadata.lookup("bucket", "k", OWNER)
                (queued,) = await s.rig.memory.get_many([keys.narrow(entry.object_key("k"))])
                assert queued is not None

    run(scenario)


def test_a_new_map_or_a_removed_mark_between_write_and_commit_costs_no_put(run: Run) -> None:
    async def scenario(s: Service) -> None:
        broken = next(iter(s.node.drives.values()))
        broken.fails = Outcome.DRIVE_FAILED
        await s.topology.poll()
        original = s.store.commit
        disturbed = 0

        async def commit(*arguments: Any) -> Any:
            nonlocal disturbed
            stored = await original(*arguments)
            disturbed += 1
            await s.rig.memory.txn(_put(keys.MAP_CURRENT, encode(MapCurrent(epoch=1))))
            for compare in stored.compares:
                if compare.key.startswith(keys.DAMAGE):
                    await s.rig.memory.txn(Txn((), (DeleteRange(compare.key),)))
            return stored

        s.store.commit = commit  # type: ignore[method-assign,assignment]
        for number in range(6):
            await s.put(f"k{number}", bytes(40_000))
            assert await bytes_of(await s.get(f"k{number}")) == bytes(40_000)
        assert disturbed == 6

    run(scenario)


def test_lost_data_are_an_error_and_a_replaced_object_is_read_again(run: Run) -> None:
    async def scenario(s: Service) -> None:
        await s.put("k", b"x" * 50_000)
        record = await s.record("k")
        assert record.data is not None
        for drive in s.node.drives.values():
            drive.shards.clear()
        with pytest.raises(BlobDamaged):
            await s.get("k")
        await s.put("k", b"y" * 50_000)
        assert await bytes_of(await s.get("k")) == b"y" * 50_000

    run(scenario)


def test_the_record_in_the_envelope_is_the_committed_one(run: Run) -> None:
    async def scenario(s: Service) -> None:
        await s.put("k", b"x", x_amz_meta_m="1")
        record = await s.record("k")
        for drive in s.node.drives.values():
            for _, envelope in drive.shards.values():
                told = decode_envelope(envelope)
                assert decode(ObjectRecord, told.record) == record
                assert told.owner_key == keys.object_(await _bucket_id(s), b"k")

    run(scenario)


@pytest.mark.parametrize(
    ("text", "key", "version"),
    [
        ("b/k", "k", None),
        ("/b/a%20b/c?versionId=null", "a b/c", b""),
        ("b/a+b%2Bc", "a b+c", None),
        ("/b/%E2%82%AC", "€", None),
        ("b/" + "€".encode().decode("latin-1"), "€", None),
    ],
)
def test_copy_sources(text: str, key: str, version: bytes | None) -> None:
    source = copy.copy_source({"x-amz-copy-source": text})
    assert (source.bucket, source.key, source.version) == ("b", key, version)


@pytest.mark.parametrize("text", ["", "b", "/b/", "//k", "b/k?versionId=", "b/%ff"])
def test_what_names_no_copy_source_is_refused(text: str) -> None:
    with pytest.raises(S3Error) as caught:
        copy.copy_source({"x-amz-copy-source": text})
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
