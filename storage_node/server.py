"""The node verbs as handlers of an RpcServer."""

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps

from placement.errors import ProtocolError
from placement.ids import BlobId, DriveId
from placement.rpc.server import Connection, Handler, Request
from storage_node import wire
from storage_node.committer import NodeBusy
from storage_node.node import Node
from storage_node.port import CommitShard, GetShard, Outcome, ShardId, StagedShard
from storage_node.terms import TermIsOver
from storage_node.wire import NodeErrorCode, Reader, Verb

_read_put: Reader[wire.PutMessage] = Reader(wire.PutMessage)
_read_open: Reader[wire.OpenMessage] = Reader(wire.OpenMessage)
_read_append: Reader[wire.AppendMessage] = Reader(wire.AppendMessage)
_read_commit: Reader[wire.CommitMessage] = Reader(wire.CommitMessage)
_read_abort: Reader[wire.AbortMessage] = Reader(wire.AbortMessage)
_read_get: Reader[wire.GetMessage] = Reader(wire.GetMessage)
_read_locate: Reader[wire.LocateMessage] = Reader(wire.LocateMessage)
_read_stat: Reader[wire.StatMessage] = Reader(wire.StatMessage)
_read_delete: Reader[wire.DeleteMessage] = Reader(wire.DeleteMessage)
_read_term: Reader[int] = Reader(int)
_read_delete_surplus: Reader[wire.DeleteSurplusMessage] = Reader(wire.DeleteSurplusMessage)
_read_list: Reader[wire.ListMessage] = Reader(wire.ListMessage)
_read_shard: Reader[wire.ShardTuple] = Reader(wire.ShardTuple)
_read_limit: Reader[int] = Reader(int)
_read_reports: Reader[wire.ReportsMessage] = Reader(wire.ReportsMessage)

_STAGED = "storage_node.staged"


def serve_node(node: Node) -> Mapping[int, Handler]:
    """Handlers by verb, to be given to an RpcServer."""
    handlers = _Handlers(node)
    return {
        Verb.PUT: handlers.put,
        Verb.OPEN: _translated(handlers.open),
        Verb.APPEND: _translated(handlers.append),
        Verb.COMMIT: _translated(handlers.commit),
        Verb.ABORT: _translated(handlers.abort),
        Verb.GET: _translated(handlers.get),
        Verb.LOCATE: _translated(handlers.locate),
        Verb.STAT: _translated(handlers.stat),
        Verb.DELETE: _translated(handlers.delete),
        Verb.BEGIN_TERM: _translated(handlers.begin_term),
        Verb.DELETE_SURPLUS: _translated(handlers.delete_surplus),
        Verb.LIST: _translated(handlers.list),
        Verb.REPORT_DAMAGE: _translated(handlers.report_damage),
        Verb.DAMAGED: _translated(handlers.damaged),
        Verb.REPORTS: _translated(handlers.reports),
        Verb.STATS: _translated(handlers.stats),
    }


def _translated(handle: Callable[[Request], Awaitable[None]]) -> Handler:
    """Turn what the node raises into error frames."""

    @wraps(handle)
    async def handler(request: Request) -> None:
        try:
            await handle(request)
        except NodeBusy as error:
            request.fail(NodeErrorCode.BUSY, str(error))
        except TermIsOver as error:
            request.fail(NodeErrorCode.TERM_IS_OVER, str(error))
        except (ProtocolError, ValueError) as error:
            request.fail(NodeErrorCode.BAD_REQUEST, str(error))
        except KeyError:
            request.fail(NodeErrorCode.NO_SUCH_DRIVE, "the drive is not in use")

    return handler


class _Handlers:
    """Decode, do, encode."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def put(self, request: Request) -> None:
        """The hot verb: answered by the committer, without a Task."""

        def done(outcomes: list[Outcome]) -> None:
            request.reply(wire.encode_outcomes(outcomes))

        try:
            self._node.put(wire.bounded(_read_put(request.header)), request.payload, done)
        except NodeBusy as error:
            request.fail(NodeErrorCode.BUSY, str(error))
        except (ProtocolError, ValueError) as error:
            request.fail(NodeErrorCode.BAD_REQUEST, str(error))

    async def open(self, request: Request) -> None:
        shards = _shards(_read_open(request.header))
        opened = await self._node.open_shards(shards)
        tokens = self._tokens_of(request.connection)
        tokens.update(staged.token for staged in opened if isinstance(staged, StagedShard))
        request.reply(wire.encode([wire.staged_to_wire(staged) for staged in opened]))

    async def append(self, request: Request) -> None:
        _, token = _read_append(request.header)
        request.reply(wire.encode_outcomes([await self._node.append(token, request.payload)]))

    async def commit(self, request: Request) -> None:
        message = wire.bounded(_read_commit(request.header))
        commits = [
            CommitShard(DriveId(drive), token, envelope, length)
            for drive, token, envelope, length in message
        ]
        self._tokens_of(request.connection).difference_update(c.token for c in commits)
        request.reply(wire.encode_outcomes(await self._node.commit(commits)))

    async def abort(self, request: Request) -> None:
        tokens = [token for _, token in wire.bounded(_read_abort(request.header))]
        self._tokens_of(request.connection).difference_update(tokens)
        self._node.abort(tokens)
        request.reply(wire.encode_outcomes([]))

    async def get(self, request: Request) -> None:
        reads = [
            GetShard(DriveId(drive), ShardId(BlobId(blob), index), offset, length)
            for drive, blob, index, offset, length in wire.bounded(_read_get(request.header))
        ]
        if sum(read.length for read in reads) > wire.READ_SIZE_BYTES_MAX:
            raise ValueError("more is asked for than one answer may hold")
        sizes: list[int] = []
        payload = []
        for part in await self._node.get(reads):
            if isinstance(part, Outcome):
                sizes.append(-1 - part.value)
            else:
                sizes.append(len(part))
                payload.append(part)
        request.reply(wire.encode(sizes), payload)

    async def locate(self, request: Request) -> None:
        blobs = [BlobId(blob) for blob in wire.bounded(_read_locate(request.header))]
        found = await self._node.locate(blobs)
        request.reply(wire.encode([[wire.info_to_wire(info) for info in infos] for infos in found]))

    async def stat(self, request: Request) -> None:
        message, verify = _read_stat(request.header)
        found = await self._node.stat(_shards(message), verify=verify)
        request.reply(wire.encode([wire.info_or_outcome_to_wire(value) for value in found]))

    async def delete(self, request: Request) -> None:
        outcomes = await self._node.delete(_shards(_read_delete(request.header)))
        request.reply(wire.encode_outcomes(outcomes))

    async def begin_term(self, request: Request) -> None:
        await self._node.begin_term(_read_term(request.header))
        request.reply(wire.encode_outcomes([]))

    async def delete_surplus(self, request: Request) -> None:
        term, message = _read_delete_surplus(request.header)
        outcomes = await self._node.delete_surplus(term, _shards(message))
        request.reply(wire.encode_outcomes(outcomes))

    async def list(self, request: Request) -> None:
        drive, blob, index, limit = _read_list(request.header)
        after = ShardId(BlobId(blob), index) if blob else None
        infos = await self._node.list(DriveId(drive), after, limit)
        request.reply(wire.encode([wire.info_to_wire(info) for info in infos]))

    async def report_damage(self, request: Request) -> None:
        ((drive, shard),) = _shards([_read_shard(request.header)])
        await self._node.report_damage(drive, shard)
        request.reply(wire.encode_outcomes([]))

    async def damaged(self, request: Request) -> None:
        found = await self._node.damaged(min(_read_limit(request.header), wire.BATCH_COUNT_MAX))
        request.reply(wire.encode([(drive, s.blob, s.index) for drive, s in found]))

    async def reports(self, request: Request) -> None:
        with_load = (_read_reports(request.header) or 0) >= wire.REPORTS_WITH_LOAD
        reports = [wire.report_to_wire(r, with_load=with_load) for r in self._node.reports()]
        request.reply(wire.encode(reports))

    async def stats(self, request: Request) -> None:
        request.reply(wire.encode(self._node.stats()))

    def _tokens_of(self, connection: Connection) -> set[int]:
        """What this connection has staged; dropped when it ends."""
        tokens = connection.state.get(_STAGED)
        if tokens is None:
            tokens = connection.state[_STAGED] = set()
            connection.on_close.append(lambda: self._node.abort(list(self._tokens_of(connection))))
        assert isinstance(tokens, set)
        return tokens


def _shards(message: list[wire.ShardTuple]) -> list[tuple[DriveId, ShardId]]:
    if any(len(blob) != 16 or not 0 <= index < 256 for _, blob, index in wire.bounded(message)):
        raise ValueError("not the id of a shard")
    return [(DriveId(drive), ShardId(BlobId(blob), index)) for drive, blob, index in message]
