"""The snapshot duty: the drives hold a copy of the metadata, and the changes since, without a gap.

See `gateway.metadata.snapshots` for what is written. A unit of work is one part; where the copy
stands is one key, compared with every part, so that another keeper goes on where one stopped, and of
two that both believe to lead one counts. Memory: one part, and one batch of a watch.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from gateway.metadata import keys
from gateway.metadata.errors import RelianceBroken
from gateway.metadata.groups import holds
from gateway.metadata.records import (
    BlobRef,
    GarbageRecord,
    RecordError,
    decode,
    encode,
)
from gateway.metadata.snapshots import (
    CHANGES,
    PAGES,
    PART_SIZE_BYTES,
    WHOLE_KEPT,
    Change,
    SnapshotPart,
    SnapshotState,
    digest_of,
    encode_changes,
    first_kept,
    is_copied,
    is_due,
    place_of,
    size_of,
)
from gateway.objects.commit import commit_blob
from gateway.objects.errors import ObjectsError
from gateway.objects.port import Objects, Stored
from ops.config import SNAPSHOT_SECONDS
from placement.clock import Clock, Randomness
from placement.errors import Compacted, OutcomeUnknown, PlacementError
from placement.ids import GroupId
from placement.membership import CLUSTER, ClusterRecord
from placement.membership import decode as decode_membership
from placement.metastore.execution import EVERYTHING_AFTER
from placement.metastore.port import (
    Compare,
    DeleteRange,
    Metastore,
    Operation,
    Put,
    Range,
    Txn,
    prefix_end,
    unchanged,
)

EVERY_SECONDS = 86_400.0
LOG_SECONDS_MAX = 30.0
"""Changes reach the drives at least so often."""
POLL_SECONDS_MAX = 5.0
FIRST_SHARE = 17_280
FIRST_SECONDS_MAX = 600.0
"""The duty begins this share of the interval after its process: five seconds of a day. What was
changed before a crash waits for it."""
FINISH_SECONDS = 5.0
"""A keeper that is stopped tries for so long to write what changed last."""
GAP_SECONDS_MAX = 300.0
"""After the metadata forgot changes before they were copied, a new snapshot waits so long since the
last one was begun."""
NOTE_SECONDS = 30.0
PAGE_KEYS = 256
PRUNED_AT_ONCE = 50
_FIRST_KEY = b"\x00"

log = logging.getLogger("ostraka.keeper.snapshot")


def every_seconds() -> float:
    """How often a snapshot is begun: once a day, or what the environment says."""
    try:
        said = float(os.environ.get(SNAPSHOT_SECONDS, EVERY_SECONDS))
    except ValueError:
        return EVERY_SECONDS
    return said if 1.0 <= said <= 366 * EVERY_SECONDS else EVERY_SECONDS


class _Overtaken(Exception):
    """Another keeper went on with the snapshot."""


@dataclass(slots=True)
class _Pending:
    """Changes that are read and not written: those after `first` up to `last`. The oldest may have
    been made at `since` (monotonic); what they lead to is all there was at `as_of_ms`."""

    first: int
    last: int
    since: float
    as_of_ms: int
    changes: list[Change]
    size_bytes: int = 0


class Snapshot:
    """The duty."""

    def __init__(
        self,
        metastore: Metastore,
        objects: Objects,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._metastore = metastore
        self._objects = objects
        self._clock = clock
        self._randomness = randomness
        self._origin: ClusterRecord | None = None
        self._every_seconds = every_seconds()
        self._log_seconds = min(LOG_SECONDS_MAX, self._every_seconds / 10)
        self._poll_seconds = min(POLL_SECONDS_MAX, self._every_seconds / 50)
        self._gap_seconds = min(GAP_SECONDS_MAX, self._every_seconds / 10)
        self.pause_seconds = self._poll_seconds
        self.first_after_seconds = min(FIRST_SECONDS_MAX, self._every_seconds / FIRST_SHARE)
        self._pending: _Pending | None = None
        self._polled_at = self._noted_at = -1e9
        self._complete_ms = self._now_ms()
        self._knows_completeness = False
        self._state: SnapshotState | None = None
        self.parts_written = 0

    def told(self) -> dict[str, float]:
        """Age, size and progress, for the admin port. `age_seconds`: since the drives told all of
        the metadata, or, while they never did, since this process began."""
        state = self._state
        told = {
            "age_seconds": round(max(self._now_ms() - self._complete_ms, 0) / 1000, 1),
            "parts": float(self.parts_written),
        }
        if state is not None:
            told |= {
                "number": float(state.number),
                "bytes": float(state.size_bytes),
                "keys": float(state.keys),
                "running": 0.0 if state.whole else 1.0,
            }
        return told

    async def work(self) -> bool:
        """One part, or the deletion of a few old ones. True when more is to be done at once."""
        try:
            return await self._step()
        except (ObjectsError, _Overtaken, OutcomeUnknown) as error:
            log.warning("the snapshot of the metadata waits: %s", error)
            return False

    async def finish(self) -> None:
        """Write what changed since the last part, and end what was begun: after an orderly stop the
        drives tell all. Takes FINISH_SECONDS at the most, a stuck drive is not waited for."""
        writing = asyncio.ensure_future(self._finish())
        await asyncio.wait({writing}, timeout=FINISH_SECONDS)
        if not writing.done():
            writing.cancel()
            log.warning("the last changes of the metadata could not be written in time")
            return
        try:
            writing.result()
        except (ObjectsError, _Overtaken, PlacementError) as error:
            log.warning("the last changes of the metadata are not written: %s", error)

    async def _finish(self) -> None:
        more = True
        while more:
            self._polled_at = -1e9  # look now, and write what is found
            more = await self._step(ends=True)

    async def _step(self, *, ends: bool = False) -> bool:
        """`ends`: this process does, so nothing new is begun or deleted."""
        state, revision = await self._load()
        if state is None:
            state, revision = await self._begin(None, revision, gap=True)
        try:
            await self._poll(state)
        except Compacted:
            self._pending = None
            if self._age_seconds(state) < self._gap_seconds:
                return False
            log.info("changes of the metadata were forgotten before they were copied: begin anew")
            await self._begin(state, revision, gap=True)
            return True
        pending = self._pending
        assert pending is not None
        if (ends and pending.changes) or self._is_flush_due(state, pending):
            await self._write_changes(state, revision, pending)
            return True
        if not state.paged:
            await self._write_page(state, revision)
            return True
        if ends:
            return False
        if is_due(state, self._now_ms(), self._every_seconds):
            await self._begin(state, revision, gap=False)
            return True
        if await self._prune(state):
            return True
        await self._note(state, revision, pending)
        return False

    # -- where it stands ------------------------------------------------------------------------

    async def _load(self) -> tuple[SnapshotState | None, int]:
        (found,) = await self._metastore.get_many([keys.SNAPSHOT])
        if found is None:
            return None, 0
        try:
            state = decode(SnapshotState, found.value)
        except RecordError as error:
            log.warning("the progress of the snapshot cannot be read, it begins anew: %s", error)
            return None, found.mod_revision
        self._show(state)
        return state, found.mod_revision

    def _show(self, state: SnapshotState) -> None:
        self._state = state
        if not self._knows_completeness:
            known_ms = state.logged_ms if state.is_restorable else state.complete_ms
            if known_ms:
                self._complete_ms, self._knows_completeness = known_ms, True

    async def _begin(
        self, before: SnapshotState | None, revision: int, *, gap: bool
    ) -> tuple[SnapshotState, int]:
        """A new snapshot. Its changes go on where those of the one before end, if none are lost."""
        present = (await self._metastore.range(Range(keys.SNAPSHOT))).revision
        now_ms = self._now_ms()
        if before is None:
            state = SnapshotState(
                chain=self._randomness.token(16),
                number=await self._last_number() + 1,
                started_ms=now_ms,
                logged=present,
                logged_ms=now_ms,
            )
        else:
            state = SnapshotState(
                chain=self._randomness.token(16),
                number=before.number + 1,
                started_ms=now_ms,
                logged=present if gap else before.logged,
                logged_ms=now_ms if gap else before.logged_ms,
                before=b"" if gap else before.before,
                changes_before=b"" if gap else before.changes_before,
                alone=gap,
                complete_ms=before.logged_ms if before.is_restorable else before.complete_ms,
                kept=before.kept,
            )
        return state, await self._put_state(state, revision)

    async def _put_state(self, state: SnapshotState, revision: int) -> int:
        done = await self._metastore.txn(
            Txn((unchanged(keys.SNAPSHOT, revision),), (Put(keys.SNAPSHOT, encode(state)),))
        )
        if not done.succeeded:
            raise _Overtaken("another keeper goes on with it")
        self._show(state)
        return done.revision

    async def _last_number(self) -> int:
        """The greatest number that a part bears; 0: there is none."""
        start, end, number = keys.SNAPSHOT_PARTS, prefix_end(keys.SNAPSHOT_PARTS), 0
        while True:
            page = await self._metastore.range(Range(start, end, limit=1000, keys_only=True))
            if page.kvs:
                number, _ = place_of(page.kvs[-1].key)
                start = page.kvs[-1].key + b"\x00"
            if not page.more:
                return number

    async def _note(self, state: SnapshotState, revision: int, pending: _Pending) -> None:
        """Remember that nothing happened meanwhile: changes that are not kept any more need not be
        read then."""
        now = self._clock.monotonic()
        if pending.changes or pending.last == state.logged or now < self._noted_at + NOTE_SECONDS:
            return
        self._noted_at = now
        noted = msgspec.structs.replace(state, logged=pending.last, logged_ms=pending.as_of_ms)
        await self._put_state(noted, revision)

    def _age_seconds(self, state: SnapshotState) -> float:
        return (self._now_ms() - state.started_ms) / 1000

    def _now_ms(self) -> int:
        return self._clock.now_ns() // 1_000_000

    # -- changes --------------------------------------------------------------------------------

    async def _poll(self, state: SnapshotState) -> None:
        """Read the changes up to now, as far as a part holds them. Raises Compacted."""
        now = self._clock.monotonic()
        pending = self._pending
        if pending is None or pending.first != state.logged:
            pending = _Pending(state.logged, state.logged, now, state.logged_ms, [])
            self._pending = pending
        ends = state.paged and not state.whole
        if pending.size_bytes >= PART_SIZE_BYTES or not (
            ends or now >= self._polled_at + self._poll_seconds
        ):
            return
        asked_ms = self._now_ms()
        present = (await self._metastore.range(Range(keys.MAP_CURRENT))).revision
        if present < pending.last:
            raise Compacted(present)  # the metadata is another one, restored from earlier
        if not pending.changes:
            # What is found now came after the last look. At the first look that was long ago: it
            # waited through a restart, and is written at once.
            pending.since = self._polled_at
        if present > pending.last:
            await self._read_changes(pending, present)
        self._polled_at = now
        if pending.last >= present:
            pending.as_of_ms = asked_ms
            if not pending.changes and state.is_restorable:
                self._complete_ms, self._knows_completeness = asked_ms, True

    async def _read_changes(self, pending: _Pending, present: int) -> None:
        batches = self._metastore.watch(
            _FIRST_KEY, EVERYTHING_AFTER, start_revision=pending.last + 1
        )
        try:
            async for batch in batches:
                read = [
                    (event.kv.key, None if event.deleted else event.kv.value)
                    for event in batch.events
                    if is_copied(event.kv.key)
                ]
                pending.changes += read
                pending.size_bytes += size_of(read)
                pending.last = max(pending.last, batch.revision)
                if pending.last >= present or pending.size_bytes >= PART_SIZE_BYTES:
                    return
        finally:
            await batches.aclose()  # type: ignore[attr-defined]

    def _is_flush_due(self, state: SnapshotState, pending: _Pending) -> bool:
        if pending.size_bytes >= PART_SIZE_BYTES:
            return True
        if state.paged and not state.whole:
            return pending.last >= state.paged_revision
        waited = self._clock.monotonic() - pending.since
        # The next look comes a pause later, and would be too late.
        return bool(pending.changes) and waited > self._log_seconds - self._poll_seconds

    async def _write_changes(self, state: SnapshotState, revision: int, pending: _Pending) -> None:
        whole = state.paged and pending.last >= state.paged_revision
        kept = state.kept
        if whole and not state.whole:
            kept = (*kept, state.number)[-WHOLE_KEPT:]
        after = msgspec.structs.replace(
            state, logged=pending.last, logged_ms=pending.as_of_ms, whole=whole, kept=kept
        )
        await self._write(state, revision, CHANGES, pending.changes, pending.last, after)
        self._pending = None
        if after.is_restorable:
            self._complete_ms, self._knows_completeness = pending.as_of_ms, True
        if whole and not state.whole:
            log.info("snapshot %d of the metadata is whole: %d keys", state.number, state.keys)

    # -- pages ----------------------------------------------------------------------------------

    async def _write_page(self, state: SnapshotState, revision: int) -> None:
        found: list[Change] = []
        cursor, size_bytes, more = state.cursor or _FIRST_KEY, 0, True
        read_at = state.logged
        while more and size_bytes < PART_SIZE_BYTES:
            page = await self._metastore.range(Range(cursor, EVERYTHING_AFTER, limit=PAGE_KEYS))
            read: list[Change] = [
                (kv.key, kv.value) for kv in page.kvs if not kv.lease and is_copied(kv.key)
            ]
            found += read
            size_bytes += size_of(read)
            more, read_at = page.more, page.revision
            if page.kvs:
                cursor = page.kvs[-1].key + b"\x00"
        after = msgspec.structs.replace(
            state,
            cursor=cursor,
            paged=not more,
            paged_revision=read_at,
            keys=state.keys + len(found),
        )
        await self._write(state, revision, PAGES, found, read_at, after)

    # -- writing and deleting -------------------------------------------------------------------

    async def _write(
        self,
        state: SnapshotState,
        revision: int,
        kind: str,
        changes: list[Change],
        last_revision: int,
        after: SnapshotState,
    ) -> None:
        """One part, and where the snapshot stands with it, in one transaction. Raises ObjectsError,
        OutcomeUnknown and _Overtaken."""
        data = encode_changes(changes)
        origin = await self._whose()
        after = msgspec.structs.replace(
            after,
            parts=state.parts + 1,
            size_bytes=state.size_bytes + len(data),
            log_size_bytes=state.log_size_bytes + (len(data) if kind == CHANGES and changes else 0),
        )

        def build(ref: BlobRef) -> SnapshotPart:
            return SnapshotPart(
                cluster_id=origin.cluster_id,
                incarnation=origin.incarnation,
                chain=state.chain,
                number=state.number,
                part=state.parts,
                kind=kind,
                first_revision=state.logged,
                last_revision=last_revision,
                whole=after.whole,
                as_of_ms=after.logged_ms,
                keys=len(changes),
                digest=digest_of(data),
                before=state.before,
                changes_before=state.changes_before,
                data=ref,
            )

        async def publish(made: SnapshotPart, value: bytes, stored: Stored) -> SnapshotState:
            blob = made.data.blob
            changes_before = blob if kind == CHANGES else state.changes_before
            standing = msgspec.structs.replace(after, before=blob, changes_before=changes_before)
            compares = (unchanged(keys.SNAPSHOT, revision), *stored.compares)
            writes = (Put(key, value), Put(keys.SNAPSHOT, encode(standing)), *stored.puts)
            if not (await self._metastore.txn(Txn(compares, writes))).succeeded:
                await self._explain(compares)
            return standing

        key = keys.snapshot_part(state.number, state.parts)
        staged = await self._objects.stage_bytes(data, group=GroupId(state.chain))
        self._show(await commit_blob(self._objects, staged, key, build, publish))
        self.parts_written += 1

    async def _whose(self) -> ClusterRecord:
        if self._origin is None:
            (found,) = await self._metastore.get_many([CLUSTER])
            if found is None:
                raise _Overtaken("the metadata does not say whose it is")
            self._origin = decode_membership(ClusterRecord, found.value)
        return self._origin

    async def _explain(self, compares: Sequence[Compare]) -> None:
        """Raise why a part was refused."""
        found = await self._metastore.get_many([compare.key for compare in compares])
        for compare, kv in zip(compares, found, strict=True):
            if not holds(compare, kv):
                if compare.key == keys.SNAPSHOT:
                    break
                raise RelianceBroken(compare.key)
        raise _Overtaken("another keeper goes on with it")

    async def _prune(self, state: SnapshotState) -> bool:
        """Queue the parts of snapshots that are not kept any more as garbage, a few at a time."""
        end = keys.snapshot_parts(first_kept(state))
        page = await self._metastore.range(Range(keys.SNAPSHOT_PARTS, end, limit=PRUNED_AT_ONCE))
        if not page.kvs:
            return False
        (rebuilt,) = await self._metastore.get_many([keys.REBUILT])
        if rebuilt is not None:
            return False  # nothing of what was before goes until an operator confirms
        writes: list[Operation] = []
        for kv in page.kvs:
            writes.append(DeleteRange(kv.key))
            ref = decode(SnapshotPart, kv.value).data
            entry = GarbageRecord(
                commit_id=b"", queued_ms=self._now_ms(), blobs=(ref,), claimed=True
            )
            writes.append(Put(keys.garbage(ref.blob), encode(entry)))
        compares = tuple(unchanged(kv.key, kv.mod_revision) for kv in page.kvs)
        await self._metastore.txn(Txn(compares, tuple(writes)))
        return True
