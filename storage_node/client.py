"""A node reached over the framed protocol: NodePort as calls."""

from collections.abc import Sequence
from typing import Any

from placement.errors import PeerUnavailable, ProtocolError
from placement.ids import BlobId, DriveId
from placement.rpc.client import Reply, RpcClient
from placement.rpc.frames import ErrorCode, RemoteError
from storage_node import wire
from storage_node.port import (
    Buffer,
    CommitShard,
    DriveReport,
    GetShard,
    Outcome,
    PutShard,
    ShardId,
    ShardInfo,
    StagedShard,
)
from storage_node.wire import Reader, Verb

_read_staged: Reader[list[tuple[int, str] | int]] = Reader(list[tuple[int, str] | int])
_read_sizes: Reader[list[int]] = Reader(list[int])
_read_infos: Reader[list[wire.InfoTuple]] = Reader(list[wire.InfoTuple])
_read_located: Reader[list[list[wire.InfoTuple]]] = Reader(list[list[wire.InfoTuple]])
_read_stats: Reader[list[wire.InfoTuple | int]] = Reader(list[wire.InfoTuple | int])
_read_shards: Reader[list[wire.ShardTuple]] = Reader(list[wire.ShardTuple])
_read_reports: Reader[list[wire.ReportMessage]] = Reader(list[wire.ReportMessage])
_read_counters: Reader[dict[str, Any]] = Reader(dict[str, Any])

TIMEOUT_SECONDS = 30.0
SLOW_TIMEOUT_SECONDS = 120.0
"""For verbs that may have to read or flush much."""


_NEVER_BACKGROUND = frozenset({Verb.REPORTS, Verb.STATS, Verb.ABORT})
"""Short, and what health and status are told by."""


class NodeClient:
    """NodePort over one connection. Everything a broken or late peer causes is PeerUnavailable."""

    shares_files = True
    """Whether the node's files can be written by this process: then staged shards have a path."""

    background = False
    """Set for a process whose work must wait for that of clients: all its calls that read, write
    or look for shards then yield to theirs."""

    def __init__(self, rpc: RpcClient) -> None:
        self._rpc = rpc

    async def _call(
        self,
        verb: Verb,
        header: bytes,
        payload: Sequence[Buffer] = (),
        *,
        background: bool = False,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Reply:
        try:
            return await self._rpc.call(
                verb,
                header,
                payload,
                timeout_seconds=timeout_seconds,
                background=background or (self.background and verb not in _NEVER_BACKGROUND),
            )
        except RemoteError as error:
            raise PeerUnavailable(f"the node refused {verb.name}: {error.message}") from error

    async def put(
        self, shards: Sequence[PutShard], payload: Sequence[Buffer], *, background: bool = False
    ) -> tuple[Outcome, ...]:
        """See NodePort."""
        message = wire.encode(shards)
        reply = await self._call(Verb.PUT, message, payload, background=background)
        return wire.decode_outcomes(reply.header, len(shards))

    async def open(
        self, shards: Sequence[tuple[DriveId, ShardId]], *, background: bool = False
    ) -> tuple[StagedShard | Outcome, ...]:
        """See NodePort."""
        reply = await self._call(
            Verb.OPEN, wire.encode(_shard_tuples(shards)), background=background
        )
        results: list[StagedShard | Outcome] = []
        for (drive, shard), value in zip(shards, _read_staged(reply.header), strict=True):
            if isinstance(value, int):
                results.append(wire.outcome_from_wire(value))
            else:
                token, path = value
                results.append(StagedShard(drive, shard, token, path if self.shares_files else ""))
        return tuple(results)

    async def append(self, drive: DriveId, token: int, payload: Sequence[Buffer]) -> Outcome:
        """See NodePort."""
        header = wire.encode((drive, token))
        outcome = Outcome.DONE
        if sum(map(len, payload)) <= wire.READ_SIZE_BYTES_MAX:
            reply = await self._call(Verb.APPEND, header, payload)
            return wire.decode_outcomes(reply.header, 1)[0]
        data = memoryview(b"".join(payload))
        for start in range(0, len(data), wire.READ_SIZE_BYTES_MAX):
            piece = data[start : start + wire.READ_SIZE_BYTES_MAX]
            reply = await self._call(Verb.APPEND, header, [piece])
            (outcome,) = wire.decode_outcomes(reply.header, 1)
            if outcome is not Outcome.DONE:
                break
        return outcome

    async def commit(self, shards: Sequence[CommitShard]) -> tuple[Outcome, ...]:
        """See NodePort."""
        message = [(s.drive, s.token, s.envelope, s.length) for s in shards]
        reply = await self._call(
            Verb.COMMIT, wire.encode(message), timeout_seconds=SLOW_TIMEOUT_SECONDS
        )
        return wire.decode_outcomes(reply.header, len(shards))

    async def abort(self, shards: Sequence[tuple[DriveId, int]]) -> None:
        """See NodePort."""
        await self._call(Verb.ABORT, wire.encode(list(shards)))

    async def get(self, reads: Sequence[GetShard]) -> tuple[Buffer | Outcome, ...]:
        """See NodePort. More than one message may hold is read in several."""
        results: list[Buffer | Outcome] = []
        batch: list[GetShard] = []
        size = 0
        for read in reads:
            if batch and size + read.length > wire.READ_SIZE_BYTES_MAX:
                results += await self._get_batch(batch)
                batch, size = [], 0
            if read.length > wire.READ_SIZE_BYTES_MAX:
                results.append(await self._get_long(read))
            else:
                batch.append(read)
                size += read.length
        if batch:
            results += await self._get_batch(batch)
        return tuple(results)

    async def _get_long(self, read: GetShard) -> Buffer | Outcome:
        pieces: list[Buffer] = []
        position, end = read.offset, read.offset + read.length
        while position < end:
            length = min(wire.READ_SIZE_BYTES_MAX, end - position)
            (piece,) = await self._get_batch([GetShard(read.drive, read.shard, position, length)])
            if isinstance(piece, Outcome):
                return piece
            pieces.append(piece)
            if len(piece) < length:
                break
            position += length
        return b"".join(pieces)

    async def _get_batch(self, reads: Sequence[GetShard]) -> list[Buffer | Outcome]:
        message = [(r.drive, r.shard.blob, r.shard.index, r.offset, r.length) for r in reads]
        reply = await self._call(Verb.GET, wire.encode(message))
        sizes = _read_sizes(reply.header)
        if len(sizes) != len(reads):
            raise ProtocolError("not the reads that were asked for")
        results: list[Buffer | Outcome] = []
        position = 0
        for size in sizes:
            if size < 0:
                results.append(wire.outcome_from_wire(-1 - size))
                continue
            results.append(reply.payload[position : position + size])
            position += size
        if position != len(reply.payload):
            raise ProtocolError("an answer's payload has another length than it says")
        return results

    async def locate(self, blobs: Sequence[BlobId]) -> tuple[tuple[ShardInfo, ...], ...]:
        """See NodePort."""
        reply = await self._call(Verb.LOCATE, wire.encode(list(blobs)))
        return tuple(
            tuple([wire.info_from_wire(info) for info in infos])
            for infos in _read_located(reply.header)
        )

    async def stat(
        self, shards: Sequence[tuple[DriveId, ShardId]], *, verify: bool = False
    ) -> tuple[ShardInfo | Outcome, ...]:
        """See NodePort."""
        reply = await self._call(
            Verb.STAT,
            wire.encode((_shard_tuples(shards), verify)),
            timeout_seconds=SLOW_TIMEOUT_SECONDS,
        )
        return tuple([wire.info_or_outcome_from_wire(v) for v in _read_stats(reply.header)])

    async def delete(self, shards: Sequence[tuple[DriveId, ShardId]]) -> tuple[Outcome, ...]:
        """See NodePort."""
        outcomes: list[Outcome] = []
        for start in range(0, len(shards), wire.BATCH_COUNT_MAX):
            batch = shards[start : start + wire.BATCH_COUNT_MAX]
            reply = await self._call(Verb.DELETE, wire.encode(_shard_tuples(batch)))
            outcomes += wire.decode_outcomes(reply.header, len(batch))
        return tuple(outcomes)

    async def begin_term(self, term: int) -> None:
        """See NodePort. A node of an earlier version knows no terms, nor `delete_surplus`: it keeps
        what is surplus until it is upgraded."""
        try:
            await self._rpc.call(
                Verb.BEGIN_TERM, wire.encode(term), timeout_seconds=TIMEOUT_SECONDS
            )
        except RemoteError as error:
            if error.code != ErrorCode.UNKNOWN_VERB:
                raise PeerUnavailable(f"the node begins no term: {error.message}") from error

    async def delete_surplus(
        self, term: int, shards: Sequence[tuple[DriveId, ShardId]]
    ) -> tuple[Outcome, ...]:
        """See NodePort. At most `BATCH_COUNT_MAX` shards."""
        message = wire.encode((term, _shard_tuples(shards)))
        reply = await self._call(Verb.DELETE_SURPLUS, message)
        return wire.decode_outcomes(reply.header, len(shards))

    async def list(
        self, drive: DriveId, after: ShardId | None, limit: int
    ) -> tuple[ShardInfo, ...]:
        """See NodePort."""
        blob, index = (b"", 0) if after is None else (after.blob, after.index)
        reply = await self._call(
            Verb.LIST,
            wire.encode((drive, blob, index, limit)),
            background=True,
            timeout_seconds=SLOW_TIMEOUT_SECONDS,
        )
        return tuple([wire.info_from_wire(info) for info in _read_infos(reply.header)])

    async def report_damage(self, drive: DriveId, shard: ShardId) -> None:
        """See NodePort."""
        await self._call(
            Verb.REPORT_DAMAGE,
            wire.encode((drive, shard.blob, shard.index)),
            background=True,
            timeout_seconds=SLOW_TIMEOUT_SECONDS,
        )

    async def damaged(self, limit: int) -> tuple[tuple[DriveId, ShardId], ...]:
        """See NodePort."""
        reply = await self._call(Verb.DAMAGED, wire.encode(limit), background=True)
        return tuple(
            [
                (DriveId(d), ShardId(BlobId(blob), index))
                for d, blob, index in _read_shards(reply.header)
            ]
        )

    async def reports(self) -> tuple[DriveReport, ...]:
        """See NodePort."""
        reply = await self._call(Verb.REPORTS, wire.encode(wire.REPORTS_WITH_LOAD))
        return tuple([wire.report_from_wire(report) for report in _read_reports(reply.header)])

    async def stats(self) -> dict[str, Any]:
        """The node's plain counters, for metrics."""
        return _read_counters((await self._call(Verb.STATS, wire.encode(None))).header)

    async def close(self) -> None:
        """See NodePort."""
        await self._rpc.close()


class RemoteNodeClient(NodeClient):
    """NodePort over TCP: large shards cross the wire."""

    shares_files = False


def _shard_tuples(shards: Sequence[tuple[DriveId, ShardId]]) -> list[wire.ShardTuple]:
    return [(drive, shard.blob, shard.index) for drive, shard in shards]
