"""The scrub: finds shards that decayed before anybody reads them, and decodes some blobs for proof.

Every shard is verified where it lies (its node reads it); what fails is quarantined by its node, and
repair rebuilds it from there. Now and then a blob is decoded from a random k of its shards and
compared with the MD5 that its client saw. A unit of work is bounded; where a pass stands is kept in
the metadata, compared on every write, so that another keeper goes on where one stopped.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.metadata import keys
from gateway.metadata.records import RecordError, decode, encode
from ops.config import SCRUB_PASS_SECONDS
from ops.keeper import scrub_plan
from ops.keeper.decoding import Verdict, decode_and_compare, expected_md5
from ops.keeper.inventory import find
from ops.keeper.rebuild import STRIPES_PER_STEP, Source, geometry_of, verified_fragments
from ops.keeper.scrub_plan import PASS_SECONDS, Pace, ScrubRecord
from ops.keeper.usage import ref_of
from placement.clock import Clock, Randomness
from placement.errors import PeerUnavailable
from placement.ids import DriveId
from placement.metastore.port import Metastore, Put, Range, Txn, unchanged
from storage_node.port import DriveCondition, GetShard, NodePort, Outcome, ShardId, ShardInfo
from storage_node.shard import ShardEnvelope, decode_envelope

UNIT_SIZE_BYTES = 32 << 20
UNIT_SHARDS = 512
"""A unit of work ends when it has verified so much: what a restart does again."""
PAGE_SHARDS = 128
CALL_SIZE_BYTES = 4 << 20
"""Shards that one call verifies: clients never wait for more of a drive."""
IN_PLACE_SIZE_BYTES_MAX = 64 << 20
"""Larger shards are read by the keeper, step by step: no call takes long."""
_READABLE = (DriveCondition.UP, DriveCondition.FULL, DriveCondition.RECOVERING)
_EVERY_SECONDS_MAX = 60.0

log = logging.getLogger("ostraka.keeper.scrub")


def pass_seconds() -> float:
    """How long a pass lasts: 14 days, or what the environment says."""
    try:
        said = float(os.environ.get(SCRUB_PASS_SECONDS, PASS_SECONDS))
    except ValueError:
        return PASS_SECONDS
    return said if 1.0 <= said <= 366 * 24 * 60 * 60 else PASS_SECONDS


@dataclass(slots=True)
class ScrubProgress:
    """What the gauges show: since the process began, and where the present pass is. `damaged`
    shards failed their checksums or were gone; `different` blobs decoded to other bytes than the
    client sent; `skipped` shards could not be read for another reason."""

    bytes: int = 0
    shards: int = 0
    damaged: int = 0
    decoded: int = 0
    different: int = 0
    skipped: int = 0
    number: int = 0
    partition: int = 0
    partitions: int = 0


class Scrub:
    """The duty. `partitions` tells the map's partition count."""

    def __init__(
        self,
        metastore: Metastore,
        nodes: Mapping[str, NodePort],
        partitions: Callable[[], int],
        clock: Clock,
        randomness: Randomness,
        *,
        decode_every: int = scrub_plan.DECODE_EVERY,
    ) -> None:
        self._metastore = metastore
        self._nodes = nodes
        self._partitions = partitions
        self._clock = clock
        self._randomness = randomness
        self._decode_every = decode_every
        self._pass_seconds = pass_seconds()
        self._pace = Pace()
        self._rate_bytes = float(scrub_plan.RATE_MIN_BYTES)
        self._state: ScrubRecord | None = None
        self.every_seconds = min(self._pass_seconds / 50, _EVERY_SECONDS_MAX)
        self.progress = ScrubProgress()

    @property
    def oldest_age_seconds(self) -> float:
        """Since the part of the partitions that waits longest was verified; 0 until it is known."""
        if self._state is None:
            return 0.0
        return scrub_plan.oldest_age_seconds(self._state, self._now_ms())

    @property
    def eta_seconds(self) -> float | None:
        """Until the present pass is done: it keeps a set time. None until it is known."""
        progress = self.progress
        if not progress.partitions:
            return None
        return self._pass_seconds * (1 - progress.partition / progress.partitions)

    def told(self) -> dict[str, float]:
        """Progress and age, for the admin port."""
        counted = {name: getattr(self.progress, name) for name in ScrubProgress.__slots__}
        return {**counted, "oldest_age_seconds": round(self.oldest_age_seconds, 1)}

    async def work(self) -> bool:
        """One unit. True when more is due at once."""
        state, revision, is_kept = await self._load()
        planned = scrub_plan.next_batch(state, self._now_ms(), self._pass_seconds)
        if planned.until > planned.partition:
            planned = await self._unit(planned)
        if planned == state and is_kept:
            return False
        if not await self._save(planned, revision):
            log.info("another keeper scrubs, too: its progress counts")
            return False
        self._show(planned)
        return True

    async def _load(self) -> tuple[ScrubRecord, int, bool]:
        """Where the pass stands, the revision of the key that says so, and whether it does: else a
        first pass begins now."""
        found = await self._metastore.range(Range(keys.SCRUB))
        revision = found.kvs[0].mod_revision if found.kvs else 0
        count = self._partitions()
        state: ScrubRecord | None = None
        if found.kvs:
            try:
                state = decode(ScrubRecord, found.kvs[0].value)
            except RecordError as error:
                log.warning("the progress of the scrub cannot be read, it begins anew: %s", error)
        is_kept = state is not None and state.partitions == count
        if state is None or not is_kept:
            state = scrub_plan.begin(self._now_ms(), count)
        self._show(state)
        return state, revision, is_kept

    async def _save(self, state: ScrubRecord, revision: int) -> bool:
        done = await self._metastore.txn(
            Txn((unchanged(keys.SCRUB, revision),), (Put(keys.SCRUB, encode(state)),))
        )
        return done.succeeded

    def _show(self, state: ScrubRecord) -> None:
        self._state = state
        self.progress.number = state.number
        self.progress.partition = state.partition
        self.progress.partitions = state.partitions

    def _now_ms(self) -> int:
        return self._clock.now_ns() // 1_000_000

    # -- one unit -------------------------------------------------------------------------------

    async def _unit(self, state: ScrubRecord) -> ScrubRecord:
        """Verify up to a unit's measure of the batch; where it stands then."""
        drives = await self._drives()
        size_bytes = shards = 0
        while size_bytes < UNIT_SIZE_BYTES and shards < UNIT_SHARDS:
            position = scrub_plan.position(state, list(drives))
            if position is None:
                return scrub_plan.batch_done(state, self._now_ms())
            node = drives[position.drive]
            page = await node.list(position.drive, position.after, PAGE_SHARDS)
            within = [info for info in page if scrub_plan.in_batch(state, info.shard.blob)]
            for call in _calls(within):
                await self._verify(node, call)
                await self._decode_some(call, state.number)
                state = scrub_plan.verified(state, position.drive, call[-1].shard)
                size_bytes += sum(info.length for info in call)
                shards += len(call)
                if size_bytes >= UNIT_SIZE_BYTES:
                    return state
            if len(within) < len(page) or len(page) < PAGE_SHARDS:
                state = scrub_plan.drive_done(state, position.drive)
        return state

    async def _drives(self) -> dict[DriveId, NodePort]:
        """The drives that can be read. Also learns how much they hold, and so the rate."""
        drives: dict[DriveId, NodePort] = {}
        used_bytes = 0
        for node in self._nodes.values():
            for report in await node.reports():
                if report.condition in _READABLE:
                    drives[report.drive] = node
                    used_bytes += report.capacity_bytes - report.free_bytes
        self._rate_bytes = scrub_plan.rate_bytes(used_bytes, self._pass_seconds)
        return drives

    async def _rest(self, size_bytes: int, began: float) -> None:
        took = self._clock.monotonic() - began
        await self._clock.sleep(self._pace.rest_seconds(size_bytes, took, self._rate_bytes))

    async def _verify(self, node: NodePort, call: Sequence[ShardInfo]) -> None:
        try:
            if call[0].length > IN_PLACE_SIZE_BYTES_MAX:
                await self._verify_long(node, call[0])
            else:
                await self._verify_in_place(node, call)
        except PeerUnavailable:
            if len(call) > 1:
                for info in call:
                    await self._verify(node, [info])
                return
            await node.reports()  # raises when the node is away: then the unit comes again
            log.warning("shard %s on a drive cannot be verified", _name(call[0].shard))
            self.progress.skipped += 1

    async def _verify_in_place(self, node: NodePort, call: Sequence[ShardInfo]) -> None:
        began = self._clock.monotonic()
        answers = await node.stat([(info.drive, info.shard) for info in call], verify=True)
        for info, answer in zip(call, answers, strict=True):
            await self._judge(node, info, answer)
        await self._rest(sum(info.length for info in call), began)

    async def _judge(self, node: NodePort, info: ShardInfo, answer: ShardInfo | Outcome) -> None:
        if answer is Outcome.DRIVE_FAILED:
            self.progress.skipped += 1  # repair, not the scrub, looks after a drive that fails
            return
        self.progress.shards += 1
        self.progress.bytes += info.length
        if not isinstance(answer, Outcome):
            return
        (held,) = await node.locate([info.shard.blob])
        if any(one.drive == info.drive and one.shard == info.shard for one in held):
            # Not deleted meanwhile: the drive says that it has it, and it has not.
            self.progress.damaged += 1
            log.warning("the scrub found shard %s damaged", _name(info.shard))
            await node.report_damage(info.drive, info.shard)

    async def _verify_long(self, node: NodePort, info: ShardInfo) -> None:
        """A shard of many stripes, a few at a time, with rests between."""
        try:
            geometry = geometry_of(ref_of(decode_envelope(info.envelope)))
        except ValueError:
            await self._judge(node, info, Outcome.DAMAGED)
            return
        for first in range(0, geometry.stripes, STRIPES_PER_STEP):
            last = min(first + STRIPES_PER_STEP, geometry.stripes)
            began = self._clock.monotonic()
            start = geometry.shard_offset(first)
            length = geometry.shard_offset(last) - start
            (body,) = await node.get([GetShard(info.drive, info.shard, start, length)])
            if isinstance(body, Outcome):
                await self._judge(node, info, body)
                return
            if verified_fragments(geometry, body, first, last) is None:
                await self._judge(node, info, Outcome.DAMAGED)
                return
            await self._rest(length, began)
        # Its end (envelope and footer) is read by this.
        (answer,) = await node.stat([(info.drive, info.shard)])
        await self._judge(node, info, answer)

    # -- decoding -------------------------------------------------------------------------------

    async def _decode_some(self, call: Sequence[ShardInfo], number: int) -> None:
        """Decode the blobs of this pass's draw. Met with shard 0, so once in a pass."""
        for info in call:
            drawn = scrub_plan.is_drawn(info.shard.blob, number, self._decode_every)
            if info.shard.index == 0 and drawn:
                try:
                    envelope = decode_envelope(info.envelope)
                except ValueError:
                    continue  # verifying says so
                if not envelope.size_bytes:
                    continue
                try:
                    await self._decode(envelope)
                except PeerUnavailable as error:
                    # A sample: another pass draws it again.
                    log.info("blob %s is not decoded: %s", info.shard.blob.hex(), error)

    async def _decode(self, envelope: ShardEnvelope) -> None:
        ref = ref_of(envelope)
        (blob,) = await find([ref], self._nodes)
        sources = {
            index: Source(self._nodes[held[0].node], held[0].drive, index)
            for index, held in blob.shards.items()
            if held
        }
        verdict = Verdict.UNDECIDED
        began = self._clock.monotonic()
        md5 = expected_md5(envelope)
        async for size_bytes, said in decode_and_compare(ref, sources, md5, self._randomness):
            verdict = said
            await self._rest(size_bytes, began)
            began = self._clock.monotonic()
        if verdict is Verdict.UNDECIDED:
            return
        self.progress.decoded += 1
        if verdict is Verdict.DIFFERENT:
            self.progress.different += 1
            log.error(
                "blob %s (record %r) decodes to other bytes than were stored, though its shards pass"
                " their checksums",
                ref.blob.hex(),
                envelope.owner_key,
            )


def _calls(infos: Sequence[ShardInfo]) -> list[list[ShardInfo]]:
    """The shards in runs that one call may verify; a large one alone."""
    calls: list[list[ShardInfo]] = []
    size_bytes = 0
    for info in infos:
        if not calls or size_bytes + info.length > CALL_SIZE_BYTES:
            calls.append([])
            size_bytes = 0
        calls[-1].append(info)
        size_bytes += info.length
    return calls


def _name(shard: ShardId) -> str:
    return f"{shard.blob.hex()}.{shard.index}"
