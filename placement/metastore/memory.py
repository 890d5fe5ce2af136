"""The metadata port in memory: the reference for the others, for tests and the simulator."""

from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Sequence

from placement.clock import Clock, Randomness, SystemRandomness
from placement.errors import LeaseNotFound, MetastoreUnavailable, RequestTooLarge
from placement.metastore.execution import (
    EVERYTHING_AFTER,
    check_revision,
    check_txn,
    end_lease,
    execute,
    read_range,
    without_value,
)
from placement.metastore.history import Change, History, Watches
from placement.metastore.leases import LEASES_MAX, Leases, clamp_ttl
from placement.metastore.port import (
    OPERATIONS_MAX,
    UNGUARDED,
    Guarded,
    GuardedScan,
    KeyValue,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    WatchBatch,
)


class MemorySpace:
    """A dictionary and its keys in order."""

    def __init__(self, leases: Leases) -> None:
        self._kvs: dict[bytes, KeyValue] = {}
        self._keys: list[bytes] = []
        self._leases = leases
        self._attached: dict[int, set[bytes]] = {}

    def get(self, key: bytes) -> KeyValue | None:
        """One key."""
        return self._kvs.get(key)

    def scan(
        self, key: bytes, range_end: bytes | None, limit: int, *, keys_only: bool = False
    ) -> list[KeyValue]:
        """The keys of a range in order."""
        start, stop = self._bounds(key, range_end)
        if limit:
            stop = min(stop, start + limit)
        found = [self._kvs[name] for name in self._keys[start:stop]]
        return [without_value(kv) for kv in found] if keys_only else found

    def count(self, key: bytes, range_end: bytes | None) -> int:
        """How many keys a range has."""
        start, stop = self._bounds(key, range_end)
        return max(stop - start, 0)

    def put(self, kv: KeyValue) -> None:
        """Set one key."""
        before = self._kvs.get(kv.key)
        if before is None:
            insort(self._keys, kv.key)
        elif before.lease:
            self._attached[before.lease].discard(kv.key)
        if kv.lease:
            self._attached.setdefault(kv.lease, set()).add(kv.key)
        self._kvs[kv.key] = kv

    def delete(self, key: bytes) -> None:
        """Remove one key that is there."""
        before = self._kvs.pop(key)
        del self._keys[bisect_left(self._keys, key)]
        if before.lease:
            self._attached[before.lease].discard(key)

    def lease_exists(self, lease: int) -> bool:
        """Whether keys may be attached to it."""
        return lease in self._leases

    def lease_keys(self, lease: int) -> list[bytes]:
        """The keys attached to it, in order."""
        return sorted(self._attached.get(lease, ()))

    def _bounds(self, key: bytes, range_end: bytes | None) -> tuple[int, int]:
        start = bisect_left(self._keys, key)
        if range_end == EVERYTHING_AFTER:
            return start, len(self._keys)
        end = key + b"\x00" if range_end is None else range_end
        return start, bisect_left(self._keys, end)


class MemoryMetastore:
    """All of the port, in this process, forgotten with it."""

    def __init__(
        self,
        clock: Clock,
        *,
        randomness: Randomness | None = None,
        history: History | None = None,
    ) -> None:
        self._leases = Leases(clock, randomness or SystemRandomness())
        self._space = MemorySpace(self._leases)
        self._history = history or History(1)
        self._revision = 1
        self._watches = Watches(self._history, self._revision)
        self._closed = False

    async def get_many(self, keys: Sequence[bytes]) -> tuple[KeyValue | None, ...]:
        """The named keys at one instant."""
        self._check_open()
        if len(keys) > OPERATIONS_MAX:
            raise RequestTooLarge(f"{len(keys)} keys where {OPERATIONS_MAX} are allowed")
        return tuple(self._space.get(key) for key in keys)

    def get_guarded_now(self, key: bytes, guard: bytes) -> Guarded:
        """A key beside a guard, without waiting."""
        self._check_open()
        present, found = self._space.get(guard), self._space.get(key)
        if present is None:
            return UNGUARDED
        if found is None:
            return present.mod_revision, None, None
        return present.mod_revision, found.value, found.mod_revision

    def scan_guarded_now(self, key: bytes, end: bytes, limit: int, guard: bytes) -> GuardedScan:
        """A range beside a guard, without waiting."""
        self._check_open()
        present = self._space.get(guard)
        if present is None:
            return GuardedScan(0, [], [], more=False)
        found = self._space.scan(key, end, limit + 1)
        kvs = found[:limit]
        return GuardedScan(
            present.mod_revision,
            [kv.key for kv in kvs],
            [kv.value for kv in kvs],
            more=len(found) > limit,
        )

    async def range(self, request: Range) -> RangeResult:
        """Range read."""
        self._check_open()
        return read_range(self._space, self._history, request, self._revision, self._revision)

    async def read(self, requests: Sequence[Range]) -> tuple[RangeResult, ...]:
        """Several range reads at one instant."""
        if len(requests) > OPERATIONS_MAX:
            raise RequestTooLarge(f"{len(requests)} ranges where {OPERATIONS_MAX} are allowed")
        return tuple([await self.range(request) for request in requests])

    async def txn(self, txn: Txn) -> TxnResult:
        """Apply atomically."""
        self._check_open()
        check_txn(txn)
        result, changes = execute(self._space, self._history, txn, self._revision)
        self._record(changes)
        return result

    def watch(
        self,
        key: bytes,
        range_end: bytes | None = None,
        *,
        start_revision: int = 0,
        previous: bool = False,
    ) -> AsyncIterator[WatchBatch]:
        """Every change to the range, without a gap."""
        self._check_open()
        return self._watches.watch(key, range_end, start_revision, previous=previous)

    async def lease_grant(self, ttl_seconds: int) -> int:
        """A new lease id."""
        self._check_open()
        if len(self._leases) >= LEASES_MAX:
            raise MetastoreUnavailable("too many leases")
        lease = self._leases.new_id()
        self._leases.add(lease, clamp_ttl(ttl_seconds))
        self._leases.watch(self._expire)
        return lease

    async def lease_keep_alive(self, lease: int) -> int:
        """Renew; the seconds left."""
        self._check_open()
        return self._leases.renew(lease)

    async def lease_revoke(self, lease: int) -> None:
        """End a lease and delete its keys. Raises LeaseNotFound."""
        self._check_open()
        if lease not in self._leases:
            raise LeaseNotFound(f"lease {lease} has expired or never was")
        await self._expire(lease)

    async def compact(self, revision: int) -> None:
        """Forget history below that revision."""
        self._check_open()
        check_revision(self._history, revision, self._revision)
        self._history.compact(revision)

    async def close(self) -> None:
        """End watches and leases."""
        if not self._closed:
            self._closed = True
            self._watches.fail(MetastoreUnavailable("closed"))
            await self._leases.close()

    async def _expire(self, lease: int) -> None:
        self._leases.remove(lease)
        self._record(end_lease(self._space, lease, self._revision))

    def _record(self, changes: Sequence[Change]) -> None:
        if changes:
            self._revision += 1
            self._history.append(self._revision, changes)
            self._watches.advance(self._revision)

    def _check_open(self) -> None:
        if self._closed:
            raise MetastoreUnavailable("closed")
