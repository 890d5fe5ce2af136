"""What a transaction means: limits, compares, operations, over any ordered space of keys.

The rules are etcd's (server/etcdserver/api/v3rpc/key.go and txn/txn.go describe them): all compares
are evaluated before any write, those of nested transactions on the path that is taken; a refused
transaction applies nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, assert_never

from placement.errors import Compacted, DuplicateKey, LeaseNotFound, RequestTooLarge
from placement.metastore.history import Change, History
from placement.metastore.port import (
    OPERATIONS_MAX,
    REQUEST_SIZE_BYTES_MAX,
    Compare,
    DeleteRange,
    DeleteResult,
    KeyValue,
    Operation,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    Result,
    Target,
    Txn,
    TxnResult,
)

EVERYTHING_AFTER = b"\x00"
"""As `range_end`: no upper bound, as in etcd."""

_OPERATION_OVERHEAD_BYTES = 16
_PUT_RESULT = PutResult()
_NOTHING = KeyValue(b"", b"", 0, 0, 0)
_VALUE = Target.VALUE  # a member of an Enum is slow to look up
_MOD_REVISION = Target.MOD_REVISION
_CREATE_REVISION = Target.CREATE_REVISION
_VERSION = Target.VERSION
_EQUAL = Relation.EQUAL
_NOT_EQUAL = Relation.NOT_EQUAL
_GREATER = Relation.GREATER


class Space(Protocol):
    """An ordered set of keys, as it is now."""

    def get(self, key: bytes) -> KeyValue | None:
        """One key."""
        ...

    def scan(
        self, key: bytes, range_end: bytes | None, limit: int, *, keys_only: bool = False
    ) -> Sequence[KeyValue]:
        """The keys of a range in order, at most `limit` (0: all)."""
        ...

    def count(self, key: bytes, range_end: bytes | None) -> int:
        """How many keys a range has."""
        ...

    def put(self, kv: KeyValue) -> None:
        """Set one key."""
        ...

    def delete(self, key: bytes) -> None:
        """Remove one key that is there."""
        ...

    def lease_exists(self, lease: int) -> bool:
        """Whether keys may be attached to it."""
        ...

    def lease_keys(self, lease: int) -> Sequence[bytes]:
        """The keys attached to it, in order."""
        ...


# --- limits ---


def check_txn(txn: Txn) -> None:
    """Raise RequestTooLarge, DuplicateKey, or ValueError for an empty key."""
    size = _check_counts(txn, OPERATIONS_MAX)
    if size > REQUEST_SIZE_BYTES_MAX:
        raise RequestTooLarge(f"a transaction of {size} bytes is beyond {REQUEST_SIZE_BYTES_MAX}")
    for branch in (txn.success, txn.failure):
        if len(branch) > 1 or (branch and isinstance(branch[0], Txn)):
            _check_puts(branch)


def _check_counts(txn: Txn, operations_max: int) -> int:
    """The size in bytes; raises RequestTooLarge for a level with too many entries."""
    entries = max(len(txn.compares), len(txn.success), len(txn.failure))
    if entries > operations_max:
        raise RequestTooLarge(f"{entries} operations where {operations_max} are allowed")
    size = _OPERATION_OVERHEAD_BYTES * (len(txn.compares) + len(txn.success) + len(txn.failure))
    for compare in txn.compares:
        operand, key = compare.operand, compare.key
        if not key:
            raise ValueError("a compare names no key")
        if isinstance(operand, bytes):
            if compare.target is not _VALUE:
                raise ValueError("a compare's operand does not fit its target")
            size += len(operand)
        elif compare.target is _VALUE:
            raise ValueError("a compare's operand does not fit its target")
        size += len(key)
        if compare.range_end:
            size += len(compare.range_end)
    for branch in (txn.success, txn.failure):
        for operation in branch:
            if isinstance(operation, Txn):
                size += _check_counts(operation, operations_max - entries)
                continue
            if not operation.key:
                raise ValueError("an operation names no key")
            size += len(operation.key)
            if isinstance(operation, Put):
                size += len(operation.value)
            elif operation.range_end:
                size += len(operation.range_end)
    return size


def _check_puts(
    operations: Sequence[Operation],
) -> tuple[set[bytes], list[tuple[bytes, bytes | None]]]:
    """Keys put and ranges deleted; raises DuplicateKey where etcd does: a key put twice, or put and
    deleted at one level, or deleted by one nested transaction and put by a later one."""
    deleted = [
        (operation.key, operation.range_end)
        for operation in operations
        # etcd does not look at ranges without upper bound here (tried with 3.5).
        if isinstance(operation, DeleteRange) and operation.range_end != EVERYTHING_AFTER
    ]
    put: set[bytes] = set()
    for operation in operations:
        if not isinstance(operation, Txn):
            continue
        then_put, then_deleted = _check_puts(operation.success)
        else_put, else_deleted = _check_puts(operation.failure)
        for key in then_put:
            if key in put or _any_covers(deleted, key):
                raise DuplicateKey(f"{key!r} is put twice")
        for key in else_put:
            if (key in put and key not in then_put) or _any_covers(deleted, key):
                raise DuplicateKey(f"{key!r} is put twice")
        put |= then_put
        put |= else_put
        deleted += then_deleted
        deleted += else_deleted
    for operation in operations:
        if isinstance(operation, Put):
            if operation.key in put or (deleted and _any_covers(deleted, operation.key)):
                raise DuplicateKey(f"{operation.key!r} is put twice")
            put.add(operation.key)
    return put, deleted


def _any_covers(ranges: Iterable[tuple[bytes, bytes | None]], key: bytes) -> bool:
    for start, range_end in ranges:
        if range_end is None:
            if key == start:
                return True
        elif start <= key and (key < range_end or range_end == EVERYTHING_AFTER):
            return True
    return False


# --- execution ---


def execute(
    space: Space, history: History, txn: Txn, revision: int
) -> tuple[TxnResult, list[Change]]:
    """Apply a checked transaction to a store at `revision`; when changes come back, they are
    revision + 1. Raises LeaseNotFound and Compacted, before anything is changed."""
    succeeded = _all_hold(space, txn.compares)
    branch = txn.success if succeeded else txn.failure
    path: list[bool] = []
    plain = True
    for operation in branch:
        if not isinstance(operation, Put) or operation.lease:
            plain = False
        if isinstance(operation, Txn):
            _evaluate(space, operation, path)
    path.reverse()
    if not plain:
        _check_branch(space, history, branch, list(path), revision)
    run = _Execution(space, history, revision, path)
    results = run.operations(branch)
    after = run.present
    if not plain and TxnResult in map(type, results):
        results = _at_revision(results, after)
    return TxnResult(succeeded, after, results), run.changes


def _at_revision(results: tuple[Result, ...], revision: int) -> tuple[Result, ...]:
    """Nested results know the revision of the whole, as there is only one."""
    return tuple(
        TxnResult(one.succeeded, revision, _at_revision(one.results, revision))
        if isinstance(one, TxnResult)
        else one
        for one in results
    )


def end_lease(space: Space, lease: int, revision: int) -> list[Change]:
    """Delete what is attached to a lease, at revision + 1."""
    changes: list[Change] = []
    for key in space.lease_keys(lease):
        before = space.get(key)
        if before is not None and before.lease == lease:
            space.delete(key)
            changes.append(Change(key, before, None))
    return changes


def point_keys(txn: Txn) -> list[bytes]:
    """The single keys that carrying out a transaction may have to look at."""
    keys = [compare.key for compare in txn.compares if compare.range_end is None]
    for branch in (txn.success, txn.failure):
        for operation in branch:
            if isinstance(operation, Put):
                keys.append(operation.key)
            elif isinstance(operation, Txn):
                keys += point_keys(operation)
            elif operation.range_end is None:
                keys.append(operation.key)
    return keys


def _evaluate(space: Space, txn: Txn, path: list[bool]) -> None:
    """Which branch each transaction on the path takes, outermost first."""
    succeeded = _all_hold(space, txn.compares)
    path.append(succeeded)
    for operation in txn.success if succeeded else txn.failure:
        if isinstance(operation, Txn):
            _evaluate(space, operation, path)


def _all_hold(space: Space, compares: Iterable[Compare]) -> bool:
    for compare in compares:
        # Nearly all are of this form.
        if (
            compare.target is _MOD_REVISION
            and compare.relation is _EQUAL
            and compare.range_end is None
        ):
            kv = space.get(compare.key)
            if (0 if kv is None else kv.mod_revision) != compare.operand:
                return False
        elif not _holds(space, compare):
            return False
    return True


def _holds(space: Space, compare: Compare) -> bool:
    """Source: applyCompare in etcd. No key at all compares like one of revisions and version 0."""
    if compare.range_end is None:
        return _matches(compare, space.get(compare.key))
    for limit in (1, 0):  # most range compares ask for emptiness: the first key decides
        kvs = space.scan(compare.key, compare.range_end, limit)
        if not kvs:
            return _matches(compare, None)
        if not all(_matches(compare, kv) for kv in kvs):
            return False
    return True


def _matches(compare: Compare, kv: KeyValue | None) -> bool:
    target, operand = compare.target, compare.operand
    if target is _VALUE:
        if kv is None:
            return False
        return _related(kv.value, compare.relation, operand)
    present = _NOTHING if kv is None else kv
    if target is _MOD_REVISION:
        actual = present.mod_revision
    elif target is _VERSION:
        actual = present.version
    elif target is _CREATE_REVISION:
        actual = present.create_revision
    else:
        actual = present.lease
    return _related(actual, compare.relation, operand)


def _related(actual: int | bytes, relation: Relation, operand: int | bytes) -> bool:
    if relation is _EQUAL:
        return actual == operand
    if relation is _NOT_EQUAL:
        return actual != operand
    if relation is _GREATER:
        return actual > operand  # type: ignore[operator]  # both are int, or both bytes
    return actual < operand  # type: ignore[operator]  # both are int, or both bytes


def _check_branch(
    space: Space,
    history: History,
    branch: Iterable[Operation],
    path: list[bool],
    revision: int,
) -> None:
    """Refuse what would fail half-way: a dead lease, a revision that is not kept."""
    for operation in branch:
        if isinstance(operation, Put):
            if operation.lease and not space.lease_exists(operation.lease):
                raise LeaseNotFound(f"lease {operation.lease} has expired or never was")
        elif isinstance(operation, Range):
            check_revision(history, operation.revision, revision)
        elif isinstance(operation, Txn):
            inner = operation.success if path.pop() else operation.failure
            _check_branch(space, history, inner, path, revision)


class _Execution:
    """One transaction under way."""

    __slots__ = ("changes", "history", "path", "revision", "space")

    def __init__(self, space: Space, history: History, revision: int, path: list[bool]) -> None:
        self.space = space
        self.history = history
        self.revision = revision
        self.path = path
        self.changes: list[Change] = []

    def operations(self, operations: Sequence[Operation]) -> tuple[Result, ...]:
        results: list[Result] = []
        for operation in operations:
            if isinstance(operation, Put):
                self.put(operation)
                results.append(_PUT_RESULT)
            elif isinstance(operation, DeleteRange):
                results.append(DeleteResult(self.delete(operation)))
            elif isinstance(operation, Range):
                results.append(self.range(operation))
            elif isinstance(operation, Txn):
                succeeded = self.path.pop()
                inner = self.operations(operation.success if succeeded else operation.failure)
                results.append(TxnResult(succeeded, self.present, inner))
            else:
                assert_never(operation)
        return tuple(results)

    @property
    def present(self) -> int:
        return self.revision + 1 if self.changes else self.revision

    def put(self, operation: Put) -> None:
        key = operation.key
        before = self.space.get(key)
        revision = self.revision + 1
        if before is None:
            after = KeyValue(key, operation.value, revision, revision, 1, operation.lease)
        else:
            after = KeyValue(
                key,
                operation.value,
                before.create_revision,
                revision,
                before.version + 1,
                operation.lease,
            )
        self.space.put(after)
        self.changes.append(Change(key, before, after))

    def delete(self, operation: DeleteRange) -> int:
        if operation.range_end is None:
            before = self.space.get(operation.key)
            gone: Sequence[KeyValue] = () if before is None else (before,)
        else:
            gone = self.space.scan(operation.key, operation.range_end, 0)
        for kv in gone:
            self.space.delete(kv.key)
            self.changes.append(Change(kv.key, kv, None))
        return len(gone)

    def range(self, request: Range) -> RangeResult:
        if not request.revision:
            return read_range(self.space, self.history, request, self.revision, self.present)
        past = {change.key: change.before for change in reversed(self.changes)}
        return read_range(
            self.space, self.history, request, self.revision, self.present, newer=past
        )


# --- reading ---


def check_revision(history: History, asked: int, present: int) -> None:
    """Raise Compacted for a revision that is not kept, or not reached yet (then of another life of
    this store): either way the present is what can be read."""
    if asked and asked < history.floor:
        raise Compacted(history.floor)
    if asked > present:
        raise Compacted(present)


def read_range(
    space: Space,
    history: History,
    request: Range,
    revision: int,
    header_revision: int,
    *,
    newer: dict[bytes, KeyValue | None] | None = None,
) -> RangeResult:
    """Answer a range over a space at `revision`, or at an older one by undoing what came since.

    `newer` is what changes of a running transaction replaced. Raises Compacted.
    """
    check_revision(history, request.revision, revision)
    past = dict(newer or {})
    if request.revision and request.revision != revision:
        past.update(history.undo(request.revision, revision))
    bounds = ((request.key, request.range_end),)
    past = {key: kv for key, kv in past.items() if _any_covers(bounds, key)}
    if not past:
        return read_present(space, request, header_revision)
    wanted = request.limit + len(past) + 1 if request.limit else 0
    present = space.scan(request.key, request.range_end, wanted)
    kvs = [kv for kv in present if kv.key not in past]
    kvs += [kv for kv in past.values() if kv is not None]
    kvs.sort(key=_key_of)
    more = bool(request.limit) and len(kvs) > request.limit
    count = len(kvs)
    if more:
        kvs, count = kvs[: request.limit], request.limit + 1
    if request.count_only:
        if request.limit:
            whole = Range(request.key, request.range_end, revision=request.revision)
            count = read_range(space, history, whole, revision, header_revision, newer=newer).count
        return RangeResult(header_revision, (), False, count)
    if request.keys_only:
        kvs = [without_value(kv) for kv in kvs]
    return RangeResult(header_revision, tuple(kvs), more, count)


def read_present(space: Space, request: Range, revision: int) -> RangeResult:
    """Answer a range over the present. When `limit` cuts the answer, `count` is only a lower bound
    (limit + 1): counting a large bucket on every page would cost more than the page."""
    if request.count_only:
        return RangeResult(revision, (), False, space.count(request.key, request.range_end))
    limit = request.limit
    kvs = space.scan(
        request.key, request.range_end, limit + 1 if limit else 0, keys_only=request.keys_only
    )
    count = len(kvs)
    if limit and count > limit:
        return RangeResult(revision, tuple(kvs[:limit]), True, count)
    return RangeResult(revision, tuple(kvs), False, count)


def without_value(kv: KeyValue) -> KeyValue:
    """The same, as `keys_only` shows it."""
    return KeyValue(kv.key, b"", kv.create_revision, kv.mod_revision, kv.version, kv.lease)


def _key_of(kv: KeyValue) -> bytes:
    return kv.key
