"""The live view of membership: nodes and drives whose lease lives, followed by watch."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from placement.clock import Clock
from placement.errors import Compacted, MetastoreUnavailable
from placement.ids import DriveId
from placement.membership import (
    DRIVES,
    NODES,
    DriveRecord,
    MembershipRefused,
    NodeRecord,
    decode,
)
from placement.metastore.port import Event, KeyValue, Metastore, Range, prefix_end

RETRY_SECONDS = 0.5
_log = logging.getLogger("ostraka.membership")


class LiveView:
    """What is registered now. `changed` callbacks run after every change, on the loop."""

    def __init__(self, metastore: Metastore, clock: Clock) -> None:
        self.nodes: dict[str, NodeRecord] = {}
        self.drives: dict[DriveId, DriveRecord] = {}
        self.changed: list[Callable[[], None]] = []
        self._metastore = metastore
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read everything, then follow. Raises MetastoreUnavailable."""
        revision = await self.load()
        self._task = asyncio.create_task(self._follow(revision + 1), name="follow membership")

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def load(self) -> int:
        """Read all records at one instant; its revision. Raises MetastoreUnavailable."""
        nodes, drives = await self._metastore.read(
            [Range(NODES, prefix_end(NODES)), Range(DRIVES, prefix_end(DRIVES))]
        )
        self.nodes, self.drives = {}, {}
        for kv in (*nodes.kvs, *drives.kvs):
            self._adopt(kv)
        self._tell()
        return nodes.revision

    def _adopt(self, kv: KeyValue) -> None:
        try:
            if kv.key.startswith(NODES):
                node = decode(NodeRecord, kv.value)
                self.nodes[node.name] = node
            elif kv.key.startswith(DRIVES):
                drive = decode(DriveRecord, kv.value)
                self.drives[DriveId(drive.drive)] = drive
        except MembershipRefused as error:
            _log.warning("%r is left out: %s", kv.key, error)

    def _apply(self, event: Event) -> bool:
        key = event.kv.key
        if not key.startswith((NODES, DRIVES)):
            return False
        if not event.deleted:
            self._adopt(event.kv)
        elif key.startswith(NODES):
            self.nodes.pop(key[len(NODES) :].decode(errors="replace"), None)
        else:
            self.drives.pop(DriveId(key[len(DRIVES) :]), None)
        return True

    def _tell(self) -> None:
        for callback in self.changed:
            callback()

    async def _follow(self, start_revision: int) -> None:
        while True:
            try:
                # One range holds both families, and some keys between that are passed over.
                watch = self._metastore.watch(
                    DRIVES, prefix_end(NODES), start_revision=start_revision
                )
                async for batch in watch:
                    start_revision = batch.revision + 1
                    applied = [self._apply(event) for event in batch.events]
                    if any(applied):
                        self._tell()
            except (MetastoreUnavailable, Compacted) as error:
                _log.info("the watch of membership ended: %s", error)
            await self._clock.sleep(RETRY_SECONDS)
            with contextlib.suppress(MetastoreUnavailable):
                start_revision = await self.load() + 1
