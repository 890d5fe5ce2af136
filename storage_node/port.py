"""The storage node port: what gateways and the keeper ask of the drives of one node.

A **shard** is the part of a blob that lies on one drive: for every stripe in order an 8-byte
little-endian xxh3-64 followed by the fragment it covers. Fragment i of stripe s of a blob of n plain
bytes under scheme k+m has `ceil(stripe_plain_bytes / k)` bytes; only the last stripe is shorter. So
fragment offsets follow from the geometry, and whoever reads a shard verifies it with its own bytes.
With k = 1 every shard is a whole copy. A blob of 0 bytes has shards of 0 bytes.

With each shard goes an **envelope** (`ShardEnvelope`, opaque to the node) that can tell the story
alone: group, owner record key, geometry and the record as first written.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final, Protocol

import msgspec

from placement.ids import BlobId, DriveId

Buffer = bytes | bytearray | memoryview

CHECKSUM_SIZE_BYTES = 8
SEGMENT_SHARD_SIZE_BYTES_MAX = 128 << 10
"""Shards up to this size are appended to segments by `put`; larger ones are files of their own."""


class ShardId(msgspec.Struct, frozen=True, gc=False):
    """Shard `index` (0 ≤ index < k + m) of a blob."""

    blob: BlobId
    index: int


class PutShard(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Store payload[offset : offset + length] as shard `index` of the blob on that drive of the node.

    Several shards may name the same bytes: that is how copies travel once. It is sent as it stands
    here: new fields are added at the end.
    """

    drive: DriveId
    blob: BlobId
    index: int
    envelope: bytes
    offset: int
    length: int


class Outcome(Enum):
    """What became of one shard of a request."""

    STORED = 0
    """Data, and what finds it, are on stable storage."""
    DRIVE_FAILED = 1
    """The drive is not usable (gone, erroring, foreign). Use another."""
    DRIVE_FULL = 2
    """No space left beyond the reserve. Use another."""
    MISSING = 3
    """No such shard there."""
    DAMAGED = 4
    """The shard is there but cannot be trusted; it was quarantined."""
    DONE = 5
    """Deleted, aborted or otherwise carried out."""


class StagedShard(msgspec.Struct, frozen=True, gc=False):
    """A shard being written as a file: `token` names it to the node, `path` is where a gateway on
    the same host writes the shard's bytes itself ("" when it cannot: then use `append`)."""

    drive: DriveId
    shard: ShardId
    token: int
    path: str


class CommitShard(msgspec.Struct, frozen=True, gc=False):
    """Make a staged shard of `length` bytes durable under its name, with its envelope."""

    drive: DriveId
    token: int
    envelope: bytes
    length: int


class GetShard(msgspec.Struct, frozen=True, gc=False):
    """Read [offset, offset + length) of a shard's bytes (checksums included)."""

    drive: DriveId
    shard: ShardId
    offset: int
    length: int


class ShardInfo(msgspec.Struct, frozen=True, gc=False):
    """A shard present on a drive. `age_seconds` since it was stored, by the node's monotonic clock
    (infinite for shards stored before the node started)."""

    drive: DriveId
    shard: ShardId
    length: int
    envelope: bytes
    age_seconds: float


class DriveCondition(Enum):
    """What a node says of a drive."""

    UP = "up"
    FULL = "full"
    FAILED = "failed"
    """It erred, vanished or is not itself any more."""
    MISSING = "missing"
    """Expected, not there."""
    RECOVERING = "recovering"
    """Its index is being rebuilt: present shards may not be found yet; takes writes."""


READABLE: Final = frozenset((DriveCondition.UP, DriveCondition.FULL))
"""Every shard of such a drive can be found and read."""


class DriveReport(msgspec.Struct, frozen=True, gc=False):
    """State, space and error counts of one drive."""

    drive: DriveId
    path: str
    condition: DriveCondition
    capacity_bytes: int
    free_bytes: int
    shards: int
    quarantined: int
    errors: int
    reason: str = ""
    busy: float = 0.0
    """Reads under way there, on the average of about a second."""


class NodePort(Protocol):
    """One node. Methods raise `PeerUnavailable` when the node cannot be reached or is late.

    Outcomes are in the order of the request.
    """

    async def put(
        self, shards: Sequence[PutShard], payload: Sequence[Buffer], *, background: bool = False
    ) -> tuple[Outcome, ...]:
        """Store small shards durably (group commit). `payload` buffers are joined in order."""
        ...

    async def open(
        self, shards: Sequence[tuple[DriveId, ShardId]], *, background: bool = False
    ) -> tuple[StagedShard | Outcome, ...]:
        """Begin large shards: a temporary file each."""
        ...

    async def append(self, drive: DriveId, token: int, payload: Sequence[Buffer]) -> Outcome:
        """Add bytes to a staged shard over the wire."""
        ...

    async def commit(self, shards: Sequence[CommitShard]) -> tuple[Outcome, ...]:
        """Flush, rename, flush the directory, index: durable when STORED."""
        ...

    async def abort(self, shards: Sequence[tuple[DriveId, int]]) -> None:
        """Drop staged shards (drive, token). Also happens when the connection ends."""
        ...

    async def get(self, reads: Sequence[GetShard]) -> tuple[Buffer | Outcome, ...]:
        """Read parts of shards. Verifying is the reader's duty."""
        ...

    async def locate(self, blobs: Sequence[BlobId]) -> tuple[tuple[ShardInfo, ...], ...]:
        """For each blob all its shards on any drive of the node (envelope left empty)."""
        ...

    async def stat(
        self, shards: Sequence[tuple[DriveId, ShardId]], *, verify: bool = False
    ) -> tuple[ShardInfo | Outcome, ...]:
        """Is it there, how long, with its envelope; `verify` reads it and checks the frame."""
        ...

    async def delete(self, shards: Sequence[tuple[DriveId, ShardId]]) -> tuple[Outcome, ...]:
        """Forget shards. Space comes back later. MISSING when not there."""
        ...

    async def begin_term(self, term: int) -> None:
        """A keeper begins to look at what is here, in that term of its leadership of repairs: from
        now on `delete_surplus` of an earlier one is refused, and none is under way any more.
        Remembered until the node restarts, which ends the connections such a call may come by."""
        ...

    async def delete_surplus(
        self, term: int, shards: Sequence[tuple[DriveId, ShardId]]
    ) -> tuple[Outcome, ...]:
        """`delete` for shards of blobs in use, of which the keeper that leads in that term saw others.
        Refused (`PeerUnavailable`) when a later term has begun: what it saw counts no more."""
        ...

    async def list(
        self, drive: DriveId, after: ShardId | None, limit: int
    ) -> tuple[ShardInfo, ...]:
        """Shards of a drive in order of (blob, index), after the given one; envelopes included."""
        ...

    async def report_damage(self, drive: DriveId, shard: ShardId) -> None:
        """A reader found bytes that fail their checksum: check, quarantine and queue the shard."""
        ...

    async def damaged(self, limit: int) -> tuple[tuple[DriveId, ShardId], ...]:
        """Quarantined shards not yet rebuilt; survives restarts. `put`/`commit`/`delete` of the
        shard takes it off the list."""
        ...

    async def reports(self) -> tuple[DriveReport, ...]:
        """Every drive the node knows."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
