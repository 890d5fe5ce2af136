"""Copies of the metadata on the drives: what a part holds, which keys are copied, what is kept.

A **snapshot** is a row of parts, each a blob of its own that says in its shards' envelopes what it is.
Applied in their order they give the key space as it was at one revision. Pages come first, each read
at the moment's revision; between them and after them come changes, all since the first page and in
order. Once the changes reach the revision of the last page the snapshot is *whole*, and every further
part of changes carries it forward. A following snapshot goes on with the changes where the one before
stopped, so that an earlier one can be carried forward by the changes in later ones.
"""

import zlib
from collections.abc import Iterable, Sequence

import msgspec
import xxhash

from gateway.metadata import keys
from gateway.metadata.records import BlobRef, Record, RecordError
from placement.membership import DRIVES, LEADERS, NODES, PROGRESS, SERVED

PAGES = "pages"
CHANGES = "changes"
PART_SIZE_BYTES = 1 << 20
"""A part ends when it holds so much, or with the page that passes it."""
WHOLE_KEPT = 2
"""Whole snapshots that are kept; earlier ones are deleted."""
LOG_SIZE_BYTES_MIN = 64 << 20
"""So many bytes of changes are never a reason to begin anew."""
_PAYLOAD_VERSION = b"\x01"
_INFLATED_SIZE_BYTES_MAX = 256 << 20
_NOT_COPIED = (
    NODES,
    DRIVES,
    SERVED,
    LEADERS,
    PROGRESS,
    b"h/",
    keys.USAGE,
    keys.GARBAGE_WAITING,
    keys.WINDOWS,
    keys.WINDOWED,
)

Change = tuple[bytes, bytes | None]
"""A key and its value, None when it was deleted."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Change])


class SnapshotPart(Record, frozen=True, kw_only=True):
    """One part: at its key in the metadata, and in the envelopes of its shards.

    `chain` names the snapshot for good, `number` orders snapshots. `kind` is PAGES or CHANGES.
    Changes are those after `first_revision` up to `last_revision`; pages were read between the two.
    `whole`: with this part the snapshot is whole, at `last_revision`. `as_of_ms` is when that was.
    `digest` is the xxh3-128 of the bytes of the blob. `before` is the blob of the part before,
    `changes_before` that of the last part of changes before: of this snapshot or of the one that it
    goes on from; b"": there is none, this snapshot stands alone.
    """

    cluster_id: bytes
    incarnation: int
    chain: bytes
    number: int
    part: int
    kind: str
    first_revision: int
    last_revision: int
    whole: bool
    as_of_ms: int
    keys: int
    digest: bytes
    before: bytes
    changes_before: bytes
    data: BlobRef


class SnapshotState(Record, frozen=True, kw_only=True):
    """How far the newest snapshot is. `cursor`: the pages reach up to here; `paged`: they are done,
    the last was read at `paged_revision`. `logged`: changes are written up to this revision, as of
    `logged_ms`. `before` and `changes_before` are for the next part; `alone`: changes before this
    snapshot's first are lost. `complete_ms`: when the drives last told everything,
    before this snapshot was begun. `kept` are the numbers of the newest whole snapshots, this one
    included, oldest first."""

    chain: bytes
    number: int
    started_ms: int
    logged: int
    logged_ms: int
    parts: int = 0
    cursor: bytes = b""
    paged: bool = False
    paged_revision: int = 0
    whole: bool = False
    before: bytes = b""
    changes_before: bytes = b""
    alone: bool = True
    complete_ms: int = 0
    kept: tuple[int, ...] = ()
    keys: int = 0
    size_bytes: int = 0
    log_size_bytes: int = 0

    @property
    def is_restorable(self) -> bool:
        """Whether the drives tell all up to `logged`."""
        return self.whole or (bool(self.kept) and not self.alone)


class RebuiltRecord(Record, frozen=True, kw_only=True):
    """This metadata was rebuilt from drives: garbage and sweep wait for the operator. `running`: it
    is not complete yet. `as_of_ms` and `revision` say what it was rebuilt to."""

    running: bool
    incarnation: int
    number: int = 0
    revision: int = 0
    as_of_ms: int = 0


def is_copied(key: bytes) -> bool:
    """Whether the key belongs into a snapshot: what processes say of themselves does not,
    nor what can be counted again."""
    return not key.startswith(_NOT_COPIED)


def encode_changes(changes: Sequence[Change]) -> bytes:
    """The bytes of a part."""
    return _PAYLOAD_VERSION + zlib.compress(_encoder.encode(changes), 1)


def decode_changes(data: bytes) -> list[Change]:
    """Raises RecordError for other bytes."""
    if data[:1] != _PAYLOAD_VERSION:
        raise RecordError("a snapshot of the metadata was written by another version")
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(memoryview(data)[1:], _INFLATED_SIZE_BYTES_MAX)
        if not inflater.eof:
            raise RecordError("a part of a snapshot is cut off, or too long")
        return _decoder.decode(plain)
    except (zlib.error, msgspec.DecodeError) as error:
        raise RecordError(f"a part of a snapshot is damaged: {error}") from error


def digest_of(data: bytes) -> bytes:
    """What `SnapshotPart.digest` holds."""
    return xxhash.xxh3_128_digest(data)


def size_of(changes: Iterable[Change]) -> int:
    """About how many bytes they take, before they are packed."""
    return sum(len(key) + len(value or b"") + 8 for key, value in changes)


def has_passed(state: SnapshotState, number: int, part: int) -> bool:
    """Whether the writer is at that part or beyond it: then one that its key does not name is not
    named any more once `state` was put anew. What a later number claims is another life of this
    metadata, and never passed."""
    return (number, part) <= (state.number, state.parts)


def place_of(owner_key: bytes) -> tuple[int, int]:
    """Number and part in a part's key. Raises ValueError."""
    rest = owner_key[len(keys.SNAPSHOT_PARTS) :]
    if not owner_key.startswith(keys.SNAPSHOT_PARTS) or len(rest) != 12:
        raise ValueError("not the key of a snapshot's part")
    return int.from_bytes(rest[:8], "big"), int.from_bytes(rest[8:], "big")


def first_kept(state: SnapshotState) -> int:
    """Snapshots with a smaller number may go; 0: none."""
    return state.kept[-WHOLE_KEPT] if len(state.kept) >= WHOLE_KEPT else 0


def is_due(state: SnapshotState, now_ms: int, every_seconds: float) -> bool:
    """Whether a new snapshot is to be begun, when the last one is whole and not broken."""
    if not state.whole or not state.log_size_bytes:
        return False
    age_seconds = (now_ms - state.started_ms) / 1000
    pages_size_bytes = state.size_bytes - state.log_size_bytes
    too_long = state.log_size_bytes > max(pages_size_bytes, LOG_SIZE_BYTES_MIN)
    return age_seconds >= every_seconds or (too_long and age_seconds >= every_seconds / 100)
