"""The plan of the scrub: which partitions are due, where a pass stands, how fast it may go. Pure.

A pass verifies every shard on every drive, partition by partition, in about `pass_seconds`. The
partitions that fell due since the last look are one batch: it is walked drive by drive, in the order
of their ids, and within a drive in the order of the shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import xxhash

from gateway.metadata.records import Record
from placement.hashing import partition_of
from placement.ids import BlobId, DriveId
from storage_node.port import ShardId

PASS_SECONDS = 14 * 24 * 60 * 60.0
DECODE_EVERY = 100
"""One blob in so many is decoded in a pass; each pass draws other ones."""
BATCH_PARTITIONS_MAX = 256
SECTORS = 64
"""Parts of the partitions for which it is kept when they were verified last."""
RATE_FACTOR = 2.0
"""A pass that lags behind (the keeper was away) goes at most so much faster than one on time."""
RATE_MIN_BYTES = 1 << 20
REST_SECONDS_MAX = 30.0
_CALL_COST_BYTES = 64 << 10
"""What a call costs beside its bytes."""
_SLOWER_MAX = 20.0
_USUAL_GROWTH = 1.02


class ScrubRecord(Record, frozen=True, kw_only=True):
    """How far the scrub is, as it is kept in the metadata. The batch is [partition, until), empty
    when nothing is due. In it, drives up to `drive` are done; `after` is a drive and the last shard
    verified on it. `verified_ms` holds for each sector when it was verified last, 0 for never."""

    number: int  # of the pass, from 1
    began_ms: int  # the pass
    partitions: int  # the map's partition count
    created_ms: int
    partition: int = 0
    until: int = 0
    drive: bytes = b""
    after: bytes = b""
    verified_ms: tuple[int, ...] = ()


class Position(NamedTuple):
    """The drive to go on with and the shard to go on after."""

    drive: DriveId
    after: ShardId | None


def begin(now_ms: int, partitions: int) -> ScrubRecord:
    """The first pass over a store, or over one whose partitions were counted anew."""
    sectors = (0,) * min(SECTORS, partitions)
    return ScrubRecord(
        number=1,
        began_ms=now_ms,
        partitions=partitions,
        created_ms=now_ms,
        verified_ms=sectors,
    )


def next_batch(state: ScrubRecord, now_ms: int, pass_seconds: float) -> ScrubRecord:
    """The same with what has fallen due as its batch, if it has none."""
    if state.until > state.partition:
        return state
    elapsed = max(now_ms - state.began_ms, 0) / 1000 / pass_seconds
    due = min(int(elapsed * state.partitions), state.partitions)
    until = min(due, state.partition + BATCH_PARTITIONS_MAX)
    return msgspec.structs.replace(state, until=max(until, state.partition), drive=b"", after=b"")


def position(state: ScrubRecord, drives: Sequence[DriveId]) -> Position | None:
    """Where to go on; None when all of these drives are done."""
    left = sorted(drive for drive in drives if drive > state.drive)
    if not left:
        return None
    drive = left[0]
    if state.after.startswith(drive):
        return Position(drive, ShardId(BlobId(state.after[16:32]), state.after[32]))
    return Position(drive, _before(state.partition, state.partitions))


def _before(partition: int, partitions: int) -> ShardId | None:
    """The last shard that could precede the partition."""
    first = partition * ((1 << 128) // partitions)
    return ShardId(BlobId((first - 1).to_bytes(16, "big")), 255) if first else None


def in_batch(state: ScrubRecord, blob: BlobId) -> bool:
    """Whether the blob, met after the batch's beginning, is not beyond its end."""
    return partition_of(blob, state.partitions) < state.until


def verified(state: ScrubRecord, drive: DriveId, shard: ShardId) -> ScrubRecord:
    """All up to that shard of that drive is done."""
    return msgspec.structs.replace(state, after=drive + shard.blob + bytes((shard.index,)))


def drive_done(state: ScrubRecord, drive: DriveId) -> ScrubRecord:
    """That drive has no more of the batch."""
    return msgspec.structs.replace(state, drive=drive, after=b"")


def batch_done(state: ScrubRecord, now_ms: int) -> ScrubRecord:
    """All drives are done: the next batch, or the next pass."""
    sectors = len(state.verified_ms)
    first = state.partition * sectors // state.partitions
    end = state.until * sectors // state.partitions
    times = (
        *state.verified_ms[:first],
        *((now_ms,) * (end - first)),
        *state.verified_ms[end:],
    )
    whole = state.until >= state.partitions
    return msgspec.structs.replace(
        state,
        number=state.number + whole,
        began_ms=now_ms if whole else state.began_ms,
        partition=0 if whole else state.until,
        until=0 if whole else state.until,
        drive=b"",
        after=b"",
        verified_ms=times,
    )


def oldest_age_seconds(state: ScrubRecord, now_ms: int) -> float:
    """Since the sector that waits longest was verified; one that never was counts from the first
    pass on."""
    oldest = min((time or state.created_ms for time in state.verified_ms), default=now_ms)
    return max(now_ms - oldest, 0) / 1000


def is_drawn(blob: bytes, number: int, every: int) -> bool:
    """Whether a pass decodes the blob: one in `every`, and others in each pass."""
    return xxhash.xxh3_64_intdigest(blob, seed=number) % every == 0


@dataclass(slots=True)
class Pace:
    """How long to rest after a piece of work. Two limits, of which the longer rest counts: the rate
    that finishes a pass in time, and the load of clients, told by how much longer than usual the
    same work took. `usual` is in seconds for a byte: the fastest seen, slowly forgotten."""

    usual: float = 0.0

    def rest_seconds(self, size_bytes: int, took_seconds: float, rate_bytes: float) -> float:
        """`rate_bytes` is what may be verified in a second."""
        cost = took_seconds / (size_bytes + _CALL_COST_BYTES)
        self.usual = min(cost, self.usual * _USUAL_GROWTH) if self.usual else cost
        slower = cost / self.usual if self.usual else 1.0
        yielding = took_seconds * min(max(slower - 1.0, 0.5), _SLOWER_MAX)
        spread = size_bytes / rate_bytes - took_seconds
        return min(max(yielding, spread), REST_SECONDS_MAX)


def rate_bytes(used_bytes: int, pass_seconds: float) -> float:
    """Bytes a second that a pass may verify of drives that hold so many."""
    return max(RATE_FACTOR * used_bytes / pass_seconds, RATE_MIN_BYTES)
