"""Re-encoding: objects that were stored on too few drives get their full width back.

A write that found fewer than k + m live drives used a narrower scheme of the same m and queued its
record. When the drives are back, the object is read, written again as a new group under the present
scheme, and its record swapped by compare-and-swap; the old group becomes garbage.
"""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import msgspec

from gateway.metadata import keys
from gateway.metadata.groups import end_of, first_commit_of
from gateway.metadata.records import BlobRef, ObjectRecord, decode, encode
from gateway.objects.errors import NotEnoughDrives, ObjectsError
from gateway.objects.manifest import encode_parts, parts_of
from gateway.objects.port import Objects, Staged, Stored
from gateway.s3.message import Buffer
from placement.clock import Clock, Randomness
from placement.ids import GroupId
from placement.metastore.port import (
    DeleteRange,
    KeyValue,
    Metastore,
    Put,
    Range,
    Txn,
    prefix_end,
    unchanged,
)

PAGE_ENTRIES = 100

log = logging.getLogger("ostraka.keeper.reencode")


class _Unhashed:
    """The bytes were hashed when they first came."""

    def update_md5(self, buffer: memoryview) -> None:
        """Nothing to add."""

    def update_rest(self, buffer: memoryview) -> None:
        """Nothing to add."""


class StreamBody:
    """A stored blob's stream as the body of a new one."""

    def __init__(self, size_bytes: int, groups: AsyncIterator[Sequence[Buffer]]) -> None:
        self.size_bytes = size_bytes
        self.trailers: dict[str, str] = {}
        self._groups = groups
        self._rest: list[memoryview] = []

    async def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer from the stream; fewer bytes only at its end."""
        filled = 0
        while filled < len(buffer):
            if not self._rest:
                group = await anext(self._groups, None)
                if group is None:
                    break
                self._rest = [memoryview(piece).cast("B") for piece in group if len(piece)]
                continue
            piece = self._rest[0]
            taken = min(len(piece), len(buffer) - filled)
            buffer[filled : filled + taken] = piece[:taken]
            filled += taken
            if taken == len(piece):
                self._rest.pop(0)
            else:
                self._rest[0] = piece[taken:]
        return filled

    async def read_all(self, limit_bytes: int) -> bytes:
        """The whole rest; ValueError beyond the limit."""
        data = bytearray(min(self.size_bytes, limit_bytes + 1))
        filled = await self.read_into(memoryview(data))
        if filled > limit_bytes:
            raise ValueError("the blob is longer than the limit")
        return bytes(data[:filled])


@dataclass(slots=True)
class ReencodeProgress:
    """What the gauges show."""

    pending: int = 0
    done: int = 0


class Reencode:
    """The duty. `full_width` tells whether enough drives are live now."""

    def __init__(
        self,
        metastore: Metastore,
        objects: Objects,
        clock: Clock,
        randomness: Randomness,
        full_width: Callable[[], bool],
    ) -> None:
        self._metastore = metastore
        self._objects = objects
        self._clock = clock
        self._randomness = randomness
        self._full_width = full_width
        self.progress = ReencodeProgress()

    async def work(self) -> bool:
        """One page of the queue. True if there may be more to do at once."""
        end = prefix_end(keys.NARROW)
        page = await self._metastore.range(Range(keys.NARROW, end, limit=PAGE_ENTRIES))
        self.progress.pending = page.count
        if not page.kvs or not self._full_width():
            return False
        for entry in page.kvs:
            try:
                await self._reencode(entry)
            except NotEnoughDrives as error:
                log.info("re-encoding waits: %s", error)  # drives went again meanwhile
                return False
            except ObjectsError as error:
                log.warning("%r stays as it is: %s", entry.key, error)
        return page.more

    async def _reencode(self, entry: KeyValue) -> None:
        record_key = entry.key[len(keys.NARROW) :]
        (current,) = await self._metastore.get_many([record_key])
        settle = (unchanged(entry.key, entry.mod_revision),)
        if current is None:
            await self._metastore.txn(Txn(settle, (DeleteRange(entry.key),)))
            return
        record = decode(ObjectRecord, current.value)
        group = GroupId(self._randomness.token(16))
        staged: list[Staged] = []
        stored: list[Stored] = []
        try:
            renewed = await self._copy(record_key, record, group, staged, stored)
        except BaseException:
            for one in staged:
                await self._objects.discard(one)
            raise
        if any(one.narrow for one in stored):
            for one in staged:
                await self._objects.discard(one)
            return  # drives went again meanwhile
        now_ms = self._clock.now_ns() // 1_000_000
        txn = Txn(
            compares=(
                *settle,
                unchanged(record_key, current.mod_revision),
                first_commit_of(renewed.group),
                *dict.fromkeys(compare for one in stored for compare in one.compares),
            ),
            success=(
                Put(record_key, encode(renewed)),
                *end_of(record_key, record, now_ms),
                DeleteRange(entry.key),
                *dict.fromkeys(put for one in stored for put in one.puts),
            ),
        )
        if (await self._metastore.txn(txn)).succeeded:
            self.progress.done += 1
        else:
            for one in staged:
                await self._objects.discard(one)

    async def _copy(
        self,
        record_key: bytes,
        record: ObjectRecord,
        group: GroupId,
        staged: list[Staged],
        stored: list[Stored],
    ) -> ObjectRecord:
        """The same object under a new group; what was written is noted in the two lists."""
        value = encode(record)

        async def again(ref: BlobRef) -> BlobRef:
            if ref.size_bytes:
                stream = await self._objects.read([(ref, 0, ref.size_bytes)])
                body = StreamBody(ref.size_bytes, stream.chunks())
                one = await self._objects.stage(body, ref.size_bytes, _Unhashed(), group=group)
            else:
                one = await self._objects.stage_bytes(b"", group=group)
            staged.append(one)
            stored.append(await self._objects.commit(one, record_key, value))
            return stored[-1].ref

        renewed = msgspec.structs.replace(record, group=group, group_owner=b"")
        if record.data is not None:
            return msgspec.structs.replace(renewed, data=await again(record.data))
        copied = []
        for part in await parts_of(record, self._objects):
            copied.append(msgspec.structs.replace(part, data=await again(part.data)))  # noqa: PERF401
        if record.manifest is None:
            return msgspec.structs.replace(renewed, parts=tuple(copied))
        one = await self._objects.stage_bytes(encode_parts(copied), group=group)
        staged.append(one)
        stored.append(await self._objects.commit(one, record_key, value))
        return msgspec.structs.replace(renewed, manifest=stored[-1].ref)
