"""Garbage: groups and blobs that records no longer use are claimed, then deleted from the drives.

An entry waits a grace time first, so that a reader who has the old record still finds its shards.
Ages are counted on this process's monotonic clock, from when it first saw an entry. A claimed entry
is what tells a late commit that it lost, and one that tells who ended a group what became of it: it
stays until every write window is closed that was open when it was put (`gateway.metadata.windows`).
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.metadata import keys
from gateway.metadata.groups import claim
from gateway.metadata.records import BlobRef, GarbageRecord, RecordError, decode
from gateway.metadata.uploads import forget_parts, remaining_parts
from gateway.objects.errors import ObjectsError
from gateway.objects.manifest import decode_parts
from gateway.objects.port import Objects
from ops.keeper.waiting import Waiting
from ops.keeper.windows import Windows
from placement.clock import Clock
from placement.ids import BlobId
from placement.metastore.port import (
    DeleteRange,
    KeyValue,
    Metastore,
    Range,
    Txn,
    prefix_end,
    unchanged,
)
from storage_node.port import NodePort

GRACE_SECONDS = 30.0
"""Longer than a gateway takes from reading a record to having its shards open."""
RETENTION_SECONDS = 90.0
"""An entry stays at least so long. The write windows are what counts; this is for gateways of before,
whose commits compare none."""
PAGE_ENTRIES = 500
BLOBS_PER_CALL = 256
ENTRIES_AT_ONCE = 64
"""Entries that are claimed side by side: what one waits for, all do."""

log = logging.getLogger("ostraka.keeper.garbage")


@dataclass(slots=True)
class Entry:
    """What this process remembers of a queued entry, as it is at that revision. `done`: its shards are
    deleted, or another record uses its group."""

    first_seen: float
    revision: int
    done: bool = False


class Garbage:
    """The duty. `pending` counts entries whose shards may still be there."""

    def __init__(
        self, metastore: Metastore, objects: Objects, nodes: Mapping[str, NodePort], clock: Clock
    ) -> None:
        self._metastore = metastore
        self._objects = objects
        self._nodes = nodes
        self._clock = clock
        self._windows = Windows(metastore, clock)
        self._seen: dict[bytes, Entry] = {}
        self._done = 0
        self.waiting = Waiting(metastore, clock)
        self.pending = 0
        self.deleted = 0
        """Entries whose shards this process deleted."""

    async def work(self) -> bool:
        """Walk the whole queue once, page by page. True if anything was deleted."""
        start, end = keys.GARBAGE, prefix_end(keys.GARBAGE)
        seen: dict[bytes, Entry] = {}
        pending, busy, waiting = 0, False, False
        await self._windows.read()
        while True:
            page = await self._metastore.range(Range(start, end, limit=PAGE_ENTRIES))
            for kv in page.kvs:
                entry = self._seen.get(kv.key)
                if entry is None or entry.revision != kv.mod_revision:
                    entry = Entry(self._clock.monotonic(), kv.mod_revision)
                seen[kv.key] = entry
            entries = [(kv, seen[kv.key]) for kv in page.kvs]
            busy = await self._advance(entries) or busy
            pending += sum(not entry.done for _, entry in entries)
            waiting = waiting or any(entry.done for _, entry in entries)
            await self.waiting.tell(self._done)
            if not page.more:
                break
            start = page.kvs[-1].key + b"\x00"
        self._seen = seen  # entries that are gone are forgotten with it
        self._done = sum(entry.done for entry in seen.values())
        self.pending = pending
        if waiting:
            await self._windows.advance()
        return busy

    async def _advance(self, entries: Sequence[tuple[KeyValue, Entry]]) -> bool:
        """Do what is due of them, many at a time. True if anything was deleted."""
        now = self._clock.monotonic()
        due: list[tuple[KeyValue, Entry]] = []
        over: list[KeyValue] = []
        for kv, entry in entries:
            age = now - entry.first_seen
            if not entry.done:
                if age >= GRACE_SECONDS:
                    due.append((kv, entry))
            elif age >= RETENTION_SECONDS and self._windows.closed_since(kv.mod_revision):
                over.append(kv)
        for start in range(0, len(over), ENTRIES_AT_ONCE):
            await asyncio.gather(*map(self._drop, over[start : start + ENTRIES_AT_ONCE]))
        deleted = False
        for start in range(0, len(due), ENTRIES_AT_ONCE):
            deleted = await self._collect(due[start : start + ENTRIES_AT_ONCE]) or deleted
        return deleted

    async def _collect(self, due: Sequence[tuple[KeyValue, Entry]]) -> bool:
        """Claim these, then delete their shards; the calls of plain ones are shared."""
        claims = await asyncio.gather(
            *(self._claimed(kv, entry) for kv, entry in due), return_exceptions=True
        )
        blobs: list[BlobRef] = []
        claimed: list[Entry] = []
        failed: BaseException | None = None
        for (_, entry), record in zip(due, claims, strict=True):
            if isinstance(record, BaseException):
                failed = record
                continue
            if record is None:
                continue
            if record.manifest is None and not record.owner_key.startswith(keys.UPLOADS):
                blobs += record.blobs
            else:
                await self._delete(record)
            claimed.append(entry)
        for start in range(0, len(blobs), BLOBS_PER_CALL):
            await delete_blobs(self._nodes, blobs[start : start + BLOBS_PER_CALL])
        for entry in claimed:
            self._finish(entry)
        self.deleted += len(claimed)
        if failed is not None:
            raise failed
        return bool(claimed)

    async def _claimed(self, kv: KeyValue, entry: Entry) -> GarbageRecord | None:
        """The entry, which nobody can come to use any more; None: not now, or never."""
        record = decode(GarbageRecord, kv.value)
        if not record.group or record.claimed:
            return record
        txn = await claim(
            self._metastore,
            record.group,
            record.owner_key,
            now_ms=self._clock.now_ns() // 1_000_000,
        )
        if txn is None:
            # Another record uses the group; the one that ends last queues it again.
            self._finish(entry)
            return None
        claimed = await self._metastore.txn(txn)
        if not claimed.succeeded:
            return None  # something changed meanwhile: decide anew next time
        entry.revision = claimed.revision
        return record

    def _finish(self, entry: Entry) -> None:
        entry.done = True
        self._done += 1

    async def _delete(self, record: GarbageRecord) -> None:
        refs = list(record.blobs)
        if record.manifest is not None:
            try:
                table = decode_parts(await self._objects.read_bytes(record.manifest))
                refs += [part.data for part in table]
            except (ObjectsError, RecordError) as error:
                # The sweep finds the parts by their envelopes.
                log.warning("manifest %s: %s", record.manifest.blob.hex(), error)
            refs.append(record.manifest)  # last: a crash in between can start again
        for start in range(0, len(refs), BLOBS_PER_CALL):
            await delete_blobs(self._nodes, refs[start : start + BLOBS_PER_CALL])
        if record.group and record.owner_key.startswith(keys.UPLOADS):
            await self._delete_parts(record.group)

    async def _delete_parts(self, upload_id: bytes) -> None:
        """The parts of an aborted upload: their records are the list of what to delete."""
        found = False
        async for page in remaining_parts(self._metastore, upload_id):
            found = True
            for start in range(0, len(page), BLOBS_PER_CALL):
                some = [part.data for part in page[start : start + BLOBS_PER_CALL]]
                await delete_blobs(self._nodes, some)
        if found:
            await forget_parts(self._metastore, upload_id)

    async def _drop(self, kv: KeyValue) -> None:
        dropped = await self._metastore.txn(
            Txn((unchanged(kv.key, kv.mod_revision),), (DeleteRange(kv.key),))
        )
        if dropped.succeeded:
            self._done -= 1
            self.waiting.dropped()


async def delete_blobs(nodes: Mapping[str, NodePort], refs: list[BlobRef]) -> int:
    """Delete every shard of these blobs on every node; how many there were."""
    deleted = 0
    blobs = [BlobId(ref.blob) for ref in refs]
    for node in nodes.values():
        shards = [(info.drive, info.shard) for infos in await node.locate(blobs) for info in infos]
        if shards:
            await node.delete(shards)
            deleted += len(shards)
    return deleted
