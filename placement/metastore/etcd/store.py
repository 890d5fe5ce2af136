"""The metadata port over etcd's API. Calls are shared as `placement/metastore/coalesce.py` says."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import msgspec

from placement.clock import Clock, Randomness, SystemClock, SystemRandomness
from placement.errors import (
    Compacted,
    DuplicateKey,
    LeaseNotFound,
    MetastoreFull,
    MetastoreUnavailable,
    OutcomeUnknown,
    RequestTooLarge,
)
from placement.metastore.coalesce import (
    Coalescer,
    WaitingRead,
    WaitingWrite,
    take_reads,
    take_writes,
)
from placement.metastore.etcd import watching
from placement.metastore.etcd.members import Members, NoSpace, NotKept, Stream, Unary
from placement.metastore.etcd.messages import (
    at_revision,
    decode_key_value,
    decode_range,
    decode_txn,
    encode_batch,
    encode_key,
    encode_range,
    encode_reads,
    encode_txn,
)
from placement.metastore.etcd.options import EtcdOptions
from placement.metastore.etcd.paging import Pages
from placement.metastore.etcd.space import SpaceAlarm
from placement.metastore.etcd.stubs import rpc_pb2 as pb
from placement.metastore.execution import check_txn
from placement.metastore.leases import clamp_ttl
from placement.metastore.port import (
    OPERATIONS_MAX,
    KeyValue,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    WatchBatch,
)

SHARED_READ_KEYS_MAX = 16
"""Reads that may find more keys than this travel alone: the others need not wait for them."""


class Shared(NamedTuple):
    """How well calls are shared, counted since the start."""

    reads: int
    read_batches: int
    writes: int
    write_batches: int
    read_seconds: float
    """From sending a batch to its answer, all batches added up."""
    write_seconds: float


class Status(NamedTuple):
    """How one member is."""

    revision: int
    """The newest that it knows."""
    size_bytes: int
    """Of its database file; etcd's quota is about this."""
    in_use_bytes: int
    """Of it that hold something; the rest is used again, or given back by a defragmentation."""
    version: str
    leader: bool
    """Whether it knows one."""
    quota_bytes: int
    """What its file may grow to; 0 before etcd 3.6, which does not tell."""
    full: bool
    """Whether the NOSPACE alarm is on: etcd takes no writes."""


class EtcdMetastore:
    """All of the port. Reads are linearizable; a transaction is sent once."""

    def __init__(self, options: EtcdOptions, *, clock: Clock, randomness: Randomness) -> None:
        """Nothing is sent yet; the running loop is the one that all calls come from."""
        self._options = options
        self._clock = clock
        self._members = Members(options, clock=clock, randomness=randomness)
        self._alarm = SpaceAlarm(self._members, clock)
        self._pages = Pages()
        self._reads: Coalescer[WaitingRead] = Coalescer(
            take_reads, self._send_reads, in_flight_max=options.reads_in_flight
        )
        self._writes: Coalescer[WaitingWrite] = Coalescer(
            take_writes, self._send_writes, in_flight_max=options.writes_in_flight
        )

    @property
    def full(self) -> bool:
        """Whether etcd is out of space: it takes no writes."""
        return self._alarm.active

    @property
    def shared(self) -> Shared:
        """Counters for metrics."""
        reads, writes = self._reads, self._writes
        return Shared(
            reads.members,
            reads.batches,
            writes.members,
            writes.batches,
            reads.seconds,
            writes.seconds,
        )

    async def get_many(self, keys: Sequence[bytes]) -> tuple[KeyValue | None, ...]:
        """The named keys at one instant."""
        if len(keys) > OPERATIONS_MAX:
            raise RequestTooLarge(f"{len(keys)} keys where {OPERATIONS_MAX} are allowed")
        if not keys:
            return ()
        found, _ = await self._reads.ask(WaitingRead([encode_key(key) for key in keys]))
        return tuple([decode_key_value(answer.kvs[0]) if answer.kvs else None for answer in found])

    async def range(self, request: Range) -> RangeResult:
        """Range read. Raises Compacted."""
        return (await self.read((request,)))[0]

    async def read(self, requests: Sequence[Range]) -> tuple[RangeResult, ...]:
        """Several range reads at one instant."""
        if len(requests) > OPERATIONS_MAX:
            raise RequestTooLarge(f"{len(requests)} ranges where {OPERATIONS_MAX} are allowed")
        if not requests:
            return ()
        if all(map(_is_small, requests)):
            found, revision = await self._reads.ask(WaitingRead(list(map(encode_range, requests))))
            return tuple([decode_range(one, revision) for one in found])
        guesses = [self._pages.ends(request) for request in requests]
        if not any(guesses):
            return await self._read_pages(requests, requests)
        try:
            return await self._read_guessed(requests, guesses)
        except Compacted:  # while the rest was read; or it always was
            return await self._read_pages(requests, requests)

    async def txn(self, txn: Txn) -> TxnResult:
        """Apply atomically and durably. Raises MetastoreFull too."""
        check_txn(txn)
        if self._alarm.active:
            await self._alarm.refuse(txn)
        result: TxnResult = await self._writes.ask(WaitingWrite(txn, encode_txn(txn)))
        return result

    def watch(
        self,
        key: bytes,
        range_end: bytes | None = None,
        *,
        start_revision: int = 0,
        previous: bool = False,
    ) -> AsyncIterator[WatchBatch]:
        """Every change to the range, without a gap, across connections and members."""
        changes = watching.Changes(key, range_end, previous)
        return watching.watch(self._members, self._options, self._clock, changes, start_revision)

    async def lease_grant(self, ttl_seconds: int) -> int:
        """A new lease id. One whose answer was lost ends by itself."""
        request = pb.LeaseGrantRequest(TTL=clamp_ttl(ttl_seconds))
        answer = await self._members.read(Unary.GRANT, request.SerializeToString())
        return int(answer.ID)

    async def lease_keep_alive(self, lease: int) -> int:
        """Renew; the seconds left."""
        request = pb.LeaseKeepAliveRequest(ID=lease)
        answer = await self._members.stream_once(Stream.KEEP_ALIVE, request.SerializeToString())
        if answer.TTL <= 0:
            raise LeaseNotFound(f"lease {lease} has expired or never was")
        return int(answer.TTL)

    async def lease_revoke(self, lease: int) -> None:
        """End a lease and delete its keys."""
        request = pb.LeaseRevokeRequest(ID=lease)
        await self._members.write(Unary.REVOKE, request.SerializeToString())

    async def compact(self, revision: int) -> None:
        """Forget history below that revision."""
        request = pb.CompactionRequest(revision=revision)
        try:
            await self._members.write(Unary.COMPACT, request.SerializeToString())
        except NotKept as error:
            raise await watching.not_kept(self._members, self._options, error) from error

    async def status(self) -> Status:
        """The preferred member's account of itself; not linearizable."""
        answer = await self._members.read(Unary.STATUS, b"")
        return Status(
            answer.header.revision,
            answer.dbSize,
            answer.dbSizeInUse,
            answer.version,
            bool(answer.leader),
            answer.dbSizeQuota,
            # Alarms are told as text: "memberID:… alarm:NOSPACE".
            any("NOSPACE" in error for error in answer.errors),
        )

    async def close(self) -> None:
        """End all calls."""
        self._reads.close()
        self._writes.close()
        await self._members.close()

    async def _read(self, call: Unary, request: bytes) -> Any:
        try:
            return await self._members.read(call, request)
        except NotKept as error:
            raise await watching.not_kept(self._members, self._options, error) from error

    async def _read_pages(
        self, requests: Sequence[Range], asked: Sequence[Range]
    ) -> tuple[RangeResult, ...]:
        """Answers to `asked`, which are the requests or the beginnings of them."""
        pinned = [request.revision > 0 for request in asked]
        found, revision = await self._read_at_once(list(map(encode_range, asked)), pinned)
        results = [decode_range(one, revision) for one in found]
        for request, part, result in zip(requests, asked, results, strict=True):
            narrowed = part is not request
            self._pages.learn(request, result.kvs, result.count, narrowed=narrowed)
        return tuple(results)

    async def _read_guessed(
        self, requests: Sequence[Range], guesses: Sequence[tuple[bytes, ...]]
    ) -> tuple[RangeResult, ...]:
        """Beginnings of the ranges first; what falls short is completed at the same revision."""
        asked = [
            msgspec.structs.replace(request, range_end=ends[0]) if ends else request
            for request, ends in zip(requests, guesses, strict=True)
        ]
        results = await self._read_pages(requests, asked)
        return tuple(
            [
                await self._completed(request, ends, result) if ends else result
                for request, ends, result in zip(requests, guesses, results, strict=True)
            ]
        )

    async def _completed(
        self, request: Range, ends: tuple[bytes, ...], result: RangeResult
    ) -> RangeResult:
        """The page that began with `result`, which was read up to the first of `ends`."""
        kvs, more = list(result.kvs), result.more
        begin, revision = ends[0], request.revision or result.revision
        for end in (*ends[1:], request.range_end):
            if more:
                break
            part = msgspec.structs.replace(
                request,
                key=begin,
                range_end=end,
                limit=max(request.limit - len(kvs), 1),
                revision=revision,
            )
            (rest,) = await self._read_pages((part,), (part,))
            missing = request.limit - len(kvs)
            kvs += rest.kvs[:missing]
            more = rest.more or len(rest.kvs) > missing
            begin = end or b""
        count = request.limit + 1 if more else len(kvs)
        return RangeResult(result.revision, tuple(kvs), more, count)

    async def _read_at_once(
        self, messages: Sequence[bytes], pinned: Sequence[bool]
    ) -> tuple[list[Any], int]:
        """The RangeResponses, and the revision they are of; `pinned` are those that name their own.

        An etcd that is full may refuse even a transaction that only reads (3.5 before its quota
        looked at the cost), but never a single range: then one is read now, the others as of then.
        """
        if len(messages) == 1:
            answer = await self._read(Unary.RANGE, messages[0])
            return [answer], answer.header.revision
        try:
            answer = await self._read(Unary.TXN, encode_reads(messages))
        except MetastoreFull:
            self._alarm.raise_()
        else:
            return [one.response_range for one in answer.responses], answer.header.revision
        first = await self._read(Unary.RANGE, messages[0])
        revision = first.header.revision
        rest = [
            self._read(Unary.RANGE, message if own else at_revision(message, revision))
            for message, own in zip(messages[1:], pinned[1:], strict=True)
        ]
        return [first, *await asyncio.gather(*rest)], revision

    async def _send_reads(self, batch: list[WaitingRead]) -> Sequence[Any]:
        """The answers of each, and the revision of all."""
        messages = [request for item in batch for request in item.requests]
        found, revision = await self._read_at_once(messages, [False] * len(messages))
        answers = []
        position = 0
        for item in batch:
            end = position + len(item.requests)
            answers.append((found[position:end], revision))
            position = end
        return answers

    async def _send_writes(self, batch: list[WaitingWrite]) -> Sequence[Any]:
        if len(batch) == 1:
            return (await self._send_alone(batch[0]),)
        footprint = batch[0].footprint
        any_key = next(iter(footprint.written_points), None) or footprint.written_spans[0][0]
        message = encode_batch([item.message for item in batch], any_key)
        try:
            answer = await self._members.write(Unary.TXN, message)
        except NoSpace as error:
            self._alarm.raise_()
            raise OutcomeUnknown(f"etcd ran out of space: {error}") from error
        except (DuplicateKey, RequestTooLarge, LeaseNotFound, NotKept, ValueError):
            return await asyncio.gather(*map(self._send_alone, batch))
        revision = answer.header.revision
        return [
            decode_txn(item.txn, one.response_txn, revision)
            for item, one in zip(batch, answer.responses, strict=True)
        ]

    async def _send_alone(self, item: WaitingWrite) -> TxnResult | Exception:
        """The answer, or what this transaction alone is refused with."""
        try:
            answer = await self._members.write(Unary.TXN, item.message)
        except NoSpace as error:
            self._alarm.raise_()
            return OutcomeUnknown(f"etcd ran out of space: {error}")
        except NotKept as error:
            try:
                return await watching.not_kept(self._members, self._options, error)
            except MetastoreUnavailable as unavailable:
                return unavailable
        except (
            DuplicateKey,
            RequestTooLarge,
            LeaseNotFound,
            MetastoreUnavailable,
            ValueError,
        ) as e:
            return e
        return decode_txn(item.txn, answer, answer.header.revision)


def _is_small(request: Range) -> bool:
    if request.revision:
        return False
    return request.range_end is None or 0 < request.limit <= SHARED_READ_KEYS_MAX


async def open_etcd(
    options: EtcdOptions, *, clock: Clock | None = None, randomness: Randomness | None = None
) -> EtcdMetastore:
    """A store that etcd answered. Raises MetastoreUnavailable, MetastoreDenied."""
    store = EtcdMetastore(
        options, clock=clock or SystemClock(), randomness=randomness or SystemRandomness()
    )
    try:
        await store.get_many((b"\x00",))
    except BaseException:
        await store.close()
        raise
    return store
