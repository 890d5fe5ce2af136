"""The multipart operations over the memory metadata store and memory nodes, for tests."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from lxml import etree

from gateway.context import Context
from gateway.domain import multipart as rules
from gateway.metadata import keys
from gateway.metadata.records import (
    GarbageRecord,
    MapCurrent,
    ObjectRecord,
    UploadRecord,
    decode,
    encode,
)
from gateway.objects.store import ObjectStore
from gateway.objects.topology import Topology
from gateway.operation import AnyOperation
from gateway.operations import copy, delete, multipart, objects
from gateway.s3.errors import S3Error
from gateway.s3.message import S3Response
from gateway.s3.payload import BytesBody, make_payload
from gateway.s3.signature import UNSIGNED_PAYLOAD, Verified
from placement.clock import SystemClock, SystemRandomness
from placement.cluster_map import ClusterMap, MapDrive
from placement.ids import DriveId, Epoch, Slot, UploadId
from placement.metastore.port import Put, Range, Txn, prefix_end
from placement.schemes import Scheme
from tests.unit.memory_node import ReadyMemoryNode
from tests.unit.metadata_doubles import OWNER, Rig
from tests.unit.s3_requests import request_of

ROWS: dict[str, AnyOperation] = {
    row.name: row
    for row in (
        *objects.OPERATIONS,
        *copy.OPERATIONS,
        *delete.OPERATIONS,
        *multipart.OPERATIONS,
    )
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
        key = await self.upload_key(upload_id)
        unfinished, finished = await self.rig.memory.get_many([key, keys.finished(key)])
        found = unfinished or finished
        return None if found is None else decode(UploadRecord, found.value)

    async def under(self, prefix: bytes) -> list[bytes]:
        found = await self.rig.memory.range(Range(prefix, prefix_end(prefix)))
        return [kv.value for kv in found.kvs]

    async def garbage(self) -> list[GarbageRecord]:
        return [decode(GarbageRecord, value) for value in await self.under(keys.GARBAGE)]

    def blobs(self) -> set[bytes]:
        return {shard.blob for drive in self.node.drives.values() for shard in drive.shards}


Run = Callable[[Callable[[Service], Awaitable[None]]], None]


def runner_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a scenario with parts of at least 4 KiB, so that it need not move megabytes."""
    monkeypatch.setattr(rules, "PART_SIZE_BYTES_MIN", 4096)

    def runner(scenario: Callable[[Service], Awaitable[None]]) -> None:
        async def main() -> None:
            service = Service(folder)
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
