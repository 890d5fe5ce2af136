"""Telling nodes of shards that a reader found missing or damaged: in the background, once each."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Mapping

from gateway.domain.read_plan import Ask
from placement.errors import PeerUnavailable
from placement.ids import BlobId, DriveId
from storage_node.port import NodePort, ShardId

REMEMBERED_MAX = 4096
RUNNING_MAX = 16
"""Reports under way at once; beyond it they are dropped, for the next reader finds the same."""


class DamageReports:
    """Sends reports for the readers of one process."""

    def __init__(self, nodes: Mapping[str, NodePort]) -> None:
        self._nodes = nodes
        self._remembered: OrderedDict[tuple[DriveId, ShardId], None] = OrderedDict()
        self._running: set[asyncio.Task[None]] = set()
        self.sent = 0
        """Reports sent since the start."""

    def report(self, ask: Ask, blob: BlobId) -> None:
        """Shard `ask.index` of the blob is not, or not whole, where it should be."""
        what = (ask.drive, ShardId(blob, ask.index))
        if what in self._remembered or len(self._running) >= RUNNING_MAX:
            return
        self._remembered[what] = None
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        self.sent += 1
        task = asyncio.create_task(self._send(ask.node, *what), name="report damage")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Wait for reports under way."""
        if self._running:
            await asyncio.wait(self._running)

    async def _send(self, node: str, drive: DriveId, shard: ShardId) -> None:
        # A node that cannot be reached is seen as missing by everyone else, too.
        with contextlib.suppress(PeerUnavailable):
            await self._nodes[node].report_damage(drive, shard)
