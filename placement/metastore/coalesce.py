"""Sharing calls to the metadata store: reads of a moment in one, independent transactions in one.

etcd's price is per call, so calls that wait at the same time travel together. Reads become one flat
transaction of ranges (etcd treats any nested transaction as a write, so reads and writes never mix);
transactions become the children of one. All compares of all children are evaluated before any write,
and a key put twice is refused, so members of a batch must not touch what another one writes. What
conflicts goes into a later batch, in the order of asking; it never travels alone for that.

The plan is pure (`take_reads`, `take_writes`), the driver (`Coalescer`) knows neither etcd nor time.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from placement.errors import MetastoreUnavailable, OutcomeUnknown
from placement.metastore.execution import EVERYTHING_AFTER
from placement.metastore.port import OPERATIONS_MAX, DeleteRange, Put, Range, Txn

BATCH_SIZE_BYTES_MAX = 1 << 20
"""Of the members together; etcd takes 1.5 MiB a request, and every member has its frame."""
SCAN_MAX = 256
"""How many waiting transactions are looked at for one batch."""
WAITING_MAX = 65_536
"""Requests that may wait; beyond it the store is overwhelmed and says so."""

FULL_ENOUGH = 16
"""So many waiting make a batch of their own at once, though another is under way. Fewer wait for it
to come back: measured, small batches cost more CPU than they save time."""
PATIENCE_SECONDS = 0.02
"""A batch that is under way for longer holds nobody up."""

Span = tuple[bytes, bytes]
"""[from, to); an empty `to` has no upper bound."""


class Footprint(NamedTuple):
    """What a transaction touches: single keys and ranges, and which of them it may write."""

    points: frozenset[bytes]
    spans: tuple[Span, ...]
    written_points: frozenset[bytes]
    written_spans: tuple[Span, ...]
    plain: bool
    """It writes, holds no nested transaction and reads only the present: it may be a member."""
    width: int
    """The most compares or operations of a level."""


def footprint_of(txn: Txn) -> Footprint:
    """What a transaction touches, in whichever branch; nested ones are not looked into, as their
    parent always travels alone."""
    points: set[bytes] = set()
    written: set[bytes] = set()
    spans: list[Span] = []
    written_spans: list[Span] = []
    plain = True
    for compare in txn.compares:
        if compare.range_end is None:
            points.add(compare.key)
        else:
            spans.append(_span(compare.key, compare.range_end))
    for branch in (txn.success, txn.failure):
        for operation in branch:
            if isinstance(operation, Put):
                written.add(operation.key)
            elif isinstance(operation, Txn):
                plain = False
            elif operation.range_end is not None:
                span = _span(operation.key, operation.range_end)
                (spans if isinstance(operation, Range) else written_spans).append(span)
            elif isinstance(operation, DeleteRange):
                written.add(operation.key)
            else:
                points.add(operation.key)
            if isinstance(operation, Range) and operation.revision:
                plain = False
    return Footprint(
        frozenset(points | written),
        (*spans, *written_spans),
        frozenset(written),
        tuple(written_spans),
        plain and bool(written or written_spans),
        max(len(txn.compares), len(txn.success), len(txn.failure)),
    )


class WaitingRead:
    """Ranges asked for together, each as the store's client encodes it."""

    __slots__ = ("future", "requests")

    def __init__(self, requests: Sequence[bytes]) -> None:
        self.requests = requests
        self.future: asyncio.Future[Any] | None = None


class WaitingWrite:
    """A transaction that waits for its batch, and how the store's client encodes it."""

    __slots__ = ("footprint", "future", "message", "txn")

    def __init__(self, txn: Txn, message: bytes) -> None:
        self.txn = txn
        self.message = message
        self.footprint = footprint_of(txn)
        self.future: asyncio.Future[Any] | None = None


def take_reads(waiting: deque[WaitingRead]) -> list[WaitingRead]:
    """Take from the front what fits into one flat transaction."""
    taken: list[WaitingRead] = []
    count = 0
    while waiting and (not taken or count + len(waiting[0].requests) <= OPERATIONS_MAX):
        taken.append(waiting.popleft())
        count += len(taken[-1].requests)
    return taken


def take_writes(waiting: deque[WaitingWrite]) -> list[WaitingWrite]:
    """Take the first, and of those behind it what conflicts with nothing taken, while they fit; the
    others keep their order."""
    taken = [waiting.popleft()]
    first = taken[0].footprint
    if not first.plain or not waiting:
        return taken
    claims = _Claims()
    claims.add(first)
    width, size = first.width, len(taken[0].message)
    left: list[WaitingWrite] = []
    for _ in range(min(len(waiting), SCAN_MAX)):
        one = waiting.popleft()
        footprint = one.footprint
        wider = max(width, footprint.width)
        if (
            footprint.plain
            and len(taken) + 1 + wider <= OPERATIONS_MAX
            and size + len(one.message) <= BATCH_SIZE_BYTES_MAX
            and not claims.conflict(footprint)
        ):
            taken.append(one)
            claims.add(footprint)
            width, size = wider, size + len(one.message)
        else:
            left.append(one)
    waiting.extendleft(reversed(left))
    return taken


class _Claims:
    """What the members of a batch touch together."""

    __slots__ = ("points", "spans", "written_points", "written_spans")

    def __init__(self) -> None:
        self.points: set[bytes] = set()
        self.spans: list[Span] = []
        self.written_points: set[bytes] = set()
        self.written_spans: list[Span] = []

    def add(self, footprint: Footprint) -> None:
        self.points |= footprint.points
        self.written_points |= footprint.written_points
        if footprint.spans:
            self.spans += footprint.spans
            self.written_spans += footprint.written_spans

    def conflict(self, footprint: Footprint) -> bool:
        """Whether one writes what the other compares, reads or writes."""
        if not self.points.isdisjoint(footprint.written_points):
            return True
        if not self.written_points.isdisjoint(footprint.points):
            return True
        if footprint.spans and (
            _any_inside(self.written_points, footprint.spans)
            or _any_inside(self.points, footprint.written_spans)
            or _any_overlap(self.written_spans, footprint.spans)
            or _any_overlap(self.spans, footprint.written_spans)
        ):
            return True
        return bool(self.spans) and (
            _any_inside(footprint.written_points, self.spans)
            or _any_inside(footprint.points, self.written_spans)
        )


def _span(key: bytes, range_end: bytes) -> Span:
    return key, b"" if range_end == EVERYTHING_AFTER else range_end


def _any_inside(points: set[bytes] | frozenset[bytes], spans: Sequence[Span]) -> bool:
    return any(
        start <= point and (not end or point < end) for start, end in spans for point in points
    )


def _any_overlap(some: Sequence[Span], others: Sequence[Span]) -> bool:
    return any(
        (not end or other < end) and (not other_end or start < other_end)
        for start, end in some
        for other, other_end in others
    )


class Waiting(Protocol):
    """What can be asked: it carries its answer's future."""

    future: asyncio.Future[Any] | None


Item = TypeVar("Item", bound=Waiting)


class Coalescer(Generic[Item]):
    """Collects what is asked in a turn of the loop, and while batches are under way, and sends it as
    the plan says.

    `send` carries out a batch and gives the members' answers in order; an error that is given is
    that member's, an error that is raised is everybody's.
    """

    def __init__(
        self,
        take: Callable[[deque[Item]], list[Item]],
        send: Callable[[list[Item]], Awaitable[Sequence[Any]]],
        *,
        in_flight_max: int,
    ) -> None:
        self._take = take
        self._send = send
        self._in_flight_max = in_flight_max
        self._waiting: deque[Item] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._launched_at = 0.0
        self._closed = False
        self.batches = 0
        """Sent so far."""
        self.members = 0
        """Requests in them."""
        self.seconds = 0.0
        """From sending to the answer, all batches added up."""

    def ask(self, item: Item) -> asyncio.Future[Any]:
        """The item's answer. Raises MetastoreUnavailable when too many wait."""
        if self._closed:
            raise MetastoreUnavailable("closed")
        if len(self._waiting) >= WAITING_MAX:
            raise MetastoreUnavailable("too many requests wait for the metadata store")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        item.future = future
        self._waiting.append(item)
        if not self._scheduled and self._may_launch(loop):
            self._scheduled = True
            loop.call_soon(self._launch)
        elif len(self._waiting) == 1:
            loop.call_later(PATIENCE_SECONDS, self._launch)
        return future

    def close(self) -> None:
        """Refuse what waits and what comes; what is under way ends by itself."""
        self._closed = True
        while self._waiting:
            _fail(self._waiting.popleft(), MetastoreUnavailable("closed"))

    def _may_launch(self, loop: asyncio.AbstractEventLoop) -> bool:
        if not self._tasks:
            return True
        if len(self._tasks) >= self._in_flight_max:
            return False
        return (
            len(self._waiting) >= FULL_ENOUGH
            or loop.time() - self._launched_at >= PATIENCE_SECONDS / 2
        )

    def _launch(self) -> None:
        self._scheduled = False
        loop = asyncio.get_running_loop()
        while self._waiting and self._may_launch(loop):
            batch = [item for item in self._take(self._waiting) if not _is_done(item)]
            if batch:
                task = loop.create_task(self._carry_out(batch))
                self._launched_at = loop.time()
                self._tasks.add(task)
                task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._waiting:
            self._launch()

    async def _carry_out(self, batch: list[Item]) -> None:
        self.batches += 1
        self.members += len(batch)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            try:
                answers = await self._send(batch)
            finally:
                self.seconds += loop.time() - began
        except BaseException as error:
            for item in batch:
                _fail(item, error)
            if not isinstance(error, Exception):
                raise
            return
        for item, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                _fail(item, answer)
            elif item.future is not None and not item.future.done():
                item.future.set_result(answer)


def _is_done(item: Waiting) -> bool:
    return item.future is not None and item.future.done()


def _fail(item: Waiting, error: BaseException) -> None:
    """Everybody gets an error of his own: it collects the traces of those who raise it."""
    if item.future is None or item.future.done():
        return
    if isinstance(error, asyncio.CancelledError):
        item.future.set_exception(OutcomeUnknown("the batch was abandoned"))
    elif isinstance(error, MetastoreUnavailable):
        own = type(error)(*error.args)
        own.__cause__ = error.__cause__
        item.future.set_exception(own)
    else:
        item.future.set_exception(error)
