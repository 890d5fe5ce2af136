"""The sweep: shards whose commit never came, or whose record went while their drive was away.

It walks the drives, asks the metadata who uses what it finds, and claims before it deletes
(`gateway.metadata.groups.claim`), so that a slow upload and the sweep cannot both win.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.metadata import keys, uploads
from gateway.metadata.groups import claim
from gateway.metadata.records import ObjectRecord, decode
from ops.keeper.garbage import delete_blobs
from ops.keeper.usage import Usage, claim_part, ref_of, usage_of
from placement.clock import Clock
from placement.metastore.port import Metastore, Txn
from storage_node.port import DriveCondition, NodePort, ShardId, ShardInfo
from storage_node.shard import ShardEnvelope, decode_envelope

GRACE_SECONDS = 30.0
"""From a shard's arrival to its commit, all retries included. A commit that takes longer loses."""
PAGE_SHARDS = 500
KEYS_PER_READ = 120

log = logging.getLogger("ostraka.keeper.sweep")


@dataclass(slots=True)
class SweepProgress:
    """What the gauges show; `orphans` of the last whole pass that could not be removed yet."""

    orphans: int = 0
    removed: int = 0
    passes: int = 0
    looked_at: int = 0
    """Shards, in all passes."""
    left: int | None = 0
    """Shards that the pass under way will look at, by the one before; None while that is not known."""
    _found: int = field(default=0, repr=False)


class Sweep:
    """The duty: one whole pass a call."""

    def __init__(self, metastore: Metastore, nodes: Mapping[str, NodePort], clock: Clock) -> None:
        self._metastore = metastore
        self._nodes = nodes
        self._clock = clock
        self._started = clock.monotonic()
        self.progress = SweepProgress()
        self._shards_of_a_pass: int | None = None

    async def work(self) -> None:
        """Walk every drive of every node once."""
        left = 0
        done: set[bytes] = set()
        begun_at, before = self.progress.looked_at, self._shards_of_a_pass
        self.progress.left = before
        for node in self._nodes.values():
            for report in await node.reports():
                if report.condition in (DriveCondition.FAILED, DriveCondition.MISSING):
                    continue
                after: ShardId | None = None
                while page := await node.list(report.drive, after, PAGE_SHARDS):
                    left += await self._page(node, page, done)
                    self.progress.looked_at += len(page)
                    if before is not None:
                        looked = self.progress.looked_at - begun_at
                        self.progress.left = max(before - looked, 0)
                    after = page[-1].shard
        self.progress.orphans = left
        self.progress.passes += 1
        self.progress.left = 0
        self._shards_of_a_pass = self.progress.looked_at - begun_at

    async def _page(self, node: NodePort, page: Iterable[ShardInfo], done: set[bytes]) -> int:
        """Remove the orphans among these shards; how many must wait for their grace. One that does
        not say what it is has decayed, or its file is gone: the node looks at it."""
        young = 0
        candidates: dict[bytes, ShardEnvelope] = {}
        uptime = self._clock.monotonic() - self._started
        for info in page:
            if info.shard.blob in done:
                continue
            try:
                envelope = decode_envelope(info.envelope)
            except ValueError as error:
                log.warning("shard %d of %s: %s", info.shard.index, info.shard.blob.hex(), error)
                await node.report_damage(info.drive, info.shard)
                continue
            if min(info.age_seconds, uptime) < GRACE_SECONDS:
                young += await self._is_orphan(envelope)
            else:
                candidates[info.shard.blob] = envelope
        for envelope in await self._unclear(list(candidates.values())):
            if not await self._is_orphan(envelope):
                continue
            young += not await self._remove(envelope)
            done.add(envelope.blob)
        return young

    async def _unclear(self, envelopes: list[ShardEnvelope]) -> list[ShardEnvelope]:
        """Those whose owner record does not plainly use them: most are settled by one read."""
        unclear: list[ShardEnvelope] = []
        for start in range(0, len(envelopes), KEYS_PER_READ):
            some = envelopes[start : start + KEYS_PER_READ]
            found = await self._metastore.get_many([envelope.owner_key for envelope in some])
            for envelope, kv in zip(some, found, strict=True):
                plain = envelope.owner_key.startswith((keys.OBJECTS, keys.VERSIONS))
                if kv is None or not plain:
                    unclear.append(envelope)
                    continue
                record = decode(ObjectRecord, kv.value)
                if record.data is None or record.data.blob != envelope.blob:
                    unclear.append(envelope)
        return unclear

    async def _is_orphan(self, envelope: ShardEnvelope) -> bool:
        """Nobody uses the blob, and nothing is queued that will delete it."""
        usage = await usage_of(self._metastore, envelope, now_ms=self._now_ms())
        return usage is Usage.ORPHAN

    def _now_ms(self) -> int:
        return self._clock.now_ns() // 1_000_000

    async def _claim(self, envelope: ShardEnvelope) -> Txn | None:
        return await claim(
            self._metastore,
            envelope.group,
            envelope.owner_key,
            now_ms=self._now_ms(),
        )

    async def _remove(self, envelope: ShardEnvelope) -> bool:
        """Claim and delete. False when the claim lost: then somebody uses it after all."""
        if envelope.owner_key.startswith(keys.SNAPSHOT_PARTS):
            claimed = await claim_part(self._metastore, envelope)
        elif envelope.owner_key.startswith(keys.UPLOADS):
            claimed = await uploads.claim_blob(
                self._metastore,
                envelope.owner_key,
                envelope.blob,
                now_ms=self._now_ms(),
                record=envelope.record,
            )
        else:
            txn = await self._claim(envelope)
            claimed = txn is not None and (await self._metastore.txn(txn)).succeeded
        if not claimed:
            return False
        self.progress.removed += await delete_blobs(self._nodes, [ref_of(envelope)])
        log.info("orphan blob %s removed", envelope.blob.hex())
        return True
