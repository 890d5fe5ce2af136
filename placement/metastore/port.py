"""The metadata port: an ordered key space with etcd's semantics and etcd's limits.

Every implementation (memory, SQLite, etcd) passes `tests/contract/test_metastore.py`. A caller may
rely on exactly what etcd v3 gives and on nothing more:

- one revision counter for the whole store; every transaction that writes raises it by one;
- a transaction evaluates *all* compares, those of nested transactions too, before any write;
- a transaction that puts one key twice is refused (`DuplicateKey`), nothing applied;
- at most 128 operations (or compares) a level, a nested level having 128 minus its parent's, and
  1.5 MiB a request (`RequestTooLarge`);
- reads are linearizable; a read at an older revision answers `Compacted` when it is not kept.

The values are their own messages (wire.py): arrays in the order of their fields, operations with
their tag before them. Fields may only be added at the end, with a default.

Source: etcd v3 API reference (KV, Watch, Lease), https://etcd.io/docs/v3.6/learning/api/.
"""

from collections.abc import AsyncIterator, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

import msgspec

OPERATIONS_MAX = 128
REQUEST_SIZE_BYTES_MAX = 1_572_864


class KeyValue(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One key as stored. `version` counts puts since the key was created, from 1."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


Guarded = tuple[int, bytes | None, int | None]
"""A key read beside a guard, at one instant: the guard's mod_revision, then the key's value and
mod_revision. A guard that is absent has 0, and then nothing was read of the key."""

UNGUARDED: Guarded = (0, None, None)


class GuardedScan(NamedTuple):
    """The first keys of a range read beside a guard, at one instant; `more` as in RangeResult. Where
    the guard is absent (revision 0) nothing was read."""

    guard_revision: int
    keys: list[bytes]
    values: list[bytes]
    more: bool


class Target(Enum):
    """What a compare looks at. An absent key has revisions and version 0."""

    VERSION = 0
    CREATE_REVISION = 1
    MOD_REVISION = 2
    VALUE = 3
    LEASE = 4


class Relation(Enum):
    """How it must relate to the operand."""

    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class Compare(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A condition on one key, or with `range_end` on every key in [key, range_end).

    A range compare over no key holds, as in etcd. A VALUE compare on an absent key fails.
    """

    key: bytes
    target: Target
    relation: Relation
    operand: int | bytes
    range_end: bytes | None = None


class Put(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=0):
    """Set a key, with an optional lease."""

    key: bytes
    value: bytes
    lease: int = 0


class DeleteRange(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """Delete one key, or every key in [key, range_end)."""

    key: bytes
    range_end: bytes | None = None


class Range(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """Read one key, or the keys in [key, range_end) in ascending order.

    `limit` 0 means all. `revision` 0 means now.
    """

    key: bytes
    range_end: bytes | None = None
    limit: int = 0
    revision: int = 0
    keys_only: bool = False
    count_only: bool = False


class Txn(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    """If every compare holds, `success`, else `failure`; operations apply in order."""

    compares: tuple[Compare, ...] = ()
    success: tuple["Operation", ...] = ()
    failure: tuple["Operation", ...] = ()


Operation = Put | DeleteRange | Range | Txn


class PutResult(msgspec.Struct, frozen=True, gc=False):
    """A put was applied."""


class DeleteResult(msgspec.Struct, frozen=True, gc=False):
    """How many keys went."""

    deleted: int


class RangeResult(msgspec.Struct, frozen=True, gc=False):
    """The keys found. `more` when `limit` cut the answer; then `count` is a lower bound of the keys
    in the range, larger than the limit (etcd counts them all, the embedded store stops at the next
    one). It is exact when nothing was cut, and when `count_only` asked for it."""

    revision: int
    kvs: tuple[KeyValue, ...]
    more: bool
    count: int


class TxnResult(msgspec.Struct, frozen=True, gc=False):
    """What a transaction did; `revision` is the store's after it."""

    succeeded: bool
    revision: int
    results: tuple["Result", ...]


Result = PutResult | DeleteResult | RangeResult | TxnResult


class Event(msgspec.Struct, frozen=True, gc=False):
    """One change: the key as put, or as deleted (then `kv.value` is empty and `version` 0).
    `previous` is what the key held before, if the watch asked for it and the store still has it."""

    kv: KeyValue
    deleted: bool
    previous: KeyValue | None = None


class WatchBatch(msgspec.Struct, frozen=True, gc=False):
    """All changes of one revision or several, in order. Resume from `revision` + 1."""

    revision: int
    events: tuple[Event, ...]


class Metastore(Protocol):
    """The port. Methods raise `MetastoreUnavailable` when the store cannot be reached."""

    async def get_many(self, keys: Sequence[bytes]) -> tuple[KeyValue | None, ...]:
        """The named keys at one instant, in the order asked; linearizable. At most 128 keys."""
        ...

    async def range(self, request: Range) -> RangeResult:
        """Linearizable range read. Raises `Compacted`."""
        ...

    async def read(self, requests: Sequence[Range]) -> tuple[RangeResult, ...]:
        """Several range reads at one instant (a flat Txn of ranges)."""
        ...

    async def txn(self, txn: Txn) -> TxnResult:
        """Apply atomically and durably. Raises `OutcomeUnknown` when the answer was lost,
        `DuplicateKey`, `RequestTooLarge`, `LeaseNotFound`."""
        ...

    def watch(
        self,
        key: bytes,
        range_end: bytes | None = None,
        *,
        start_revision: int = 0,
        previous: bool = False,
    ) -> AsyncIterator[WatchBatch]:
        """Every change to the range from `start_revision` (0: from now), without a gap;
        `previous`: each with what the key held before (a compaction may take that away).

        Raises `Compacted` when that revision is not kept, `MetastoreUnavailable` when the
        connection is lost: then read again and watch from there. The first batch may be empty: it
        says that the watch stands and at which revision.
        """
        ...

    async def lease_grant(self, ttl_seconds: int) -> int:
        """A new lease id; at least 2 seconds."""
        ...

    async def lease_keep_alive(self, lease: int) -> int:
        """Renew; the seconds left. Raises `LeaseNotFound`."""
        ...

    async def lease_revoke(self, lease: int) -> None:
        """End a lease and delete its keys."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget history below that revision."""
        ...

    async def close(self) -> None:
        """Release connections; outstanding calls fail."""
        ...


def prefix_end(prefix: bytes) -> bytes:
    """The `range_end` that makes [prefix, end) all keys beginning with `prefix` (not all 0xff)."""
    end = bytearray(prefix)
    while end and end[-1] == 0xFF:
        end.pop()
    if not end:
        raise ValueError("a prefix of only 0xff bytes has no end")
    end[-1] += 1
    return bytes(end)


def absent(key: bytes) -> Compare:
    """The key does not exist."""
    return Compare(key, Target.MOD_REVISION, Relation.EQUAL, 0)


def unchanged(key: bytes, mod_revision: int) -> Compare:
    """The key is as it was read at that mod_revision (0: absent)."""
    return Compare(key, Target.MOD_REVISION, Relation.EQUAL, mod_revision)


def exists(key: bytes) -> Compare:
    """The key exists."""
    return Compare(key, Target.MOD_REVISION, Relation.GREATER, 0)
