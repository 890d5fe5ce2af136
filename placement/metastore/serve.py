"""The owner's verbs on an RPC server: what other processes may ask of the embedded metastore."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial

from placement.errors import PlacementError, ProtocolError
from placement.metastore.port import TxnResult
from placement.metastore.sqlite import SqliteOwner
from placement.metastore.wire import (
    Verb,
    decode_ranges,
    decode_txn,
    decode_values,
    encode_range_results,
    encode_txn_result,
    encode_values,
    encode_watch_batch,
    failure_of,
)
from placement.rpc.server import Handler, Request

GATHERING_SECONDS = 0.1
"""Whoever follows what keys held before keeps books, and is in no hurry: a message and two wakings for
every commit would cost more than a tenth of each PUT, so changes are gathered for so long."""
GATHERED_EVENTS = 256
"""After a batch of so many the next one follows at once: a follower must not fall behind."""


def serve_metastore(owner: SqliteOwner) -> Mapping[int, Handler]:
    """Handlers to mount in an `RpcServer`. The owner stays the caller's to close."""
    verbs: dict[int, Callable[[SqliteOwner, Request], Awaitable[None]]] = {
        Verb.READ: _read,
        Verb.WATCH: _watch,
        Verb.LEASE_GRANT: _lease_grant,
        Verb.LEASE_KEEP_ALIVE: _lease_keep_alive,
        Verb.LEASE_REVOKE: _lease_revoke,
        Verb.COMPACT: _compact,
    }
    handlers: dict[int, Handler] = {
        verb: partial(_translated, owner, work) for verb, work in verbs.items()
    }
    handlers[Verb.TXN] = partial(_txn, owner)
    return handlers


def _txn(owner: SqliteOwner, request: Request) -> None:
    """The hot one: neither a Task nor a future."""
    try:
        txn = decode_txn(request.header)
    except ProtocolError as error:
        raise failure_of(error) from error
    owner.submit_to(txn, TxnAnswer(request))


class TxnAnswer:
    """Takes a transaction's outcome to who asked for it."""

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    def done(self) -> bool:
        """See Promise."""
        return not self._request.open

    def set_result(self, result: TxnResult, /) -> None:
        """See Promise."""
        self._request.reply(encode_txn_result(result))

    def set_exception(self, error: Exception, /) -> None:
        """See Promise."""
        if isinstance(error, PlacementError | ValueError):
            self._request.failed(failure_of(error))
        else:
            self._request.failed(error)


async def _translated(
    owner: SqliteOwner,
    work: Callable[[SqliteOwner, Request], Awaitable[None]],
    request: Request,
) -> None:
    try:
        await work(owner, request)
    except (PlacementError, ValueError) as error:
        raise failure_of(error) from error


async def _read(owner: SqliteOwner, request: Request) -> None:
    request.reply(encode_range_results(await owner.read(decode_ranges(request.header))))


async def _watch(owner: SqliteOwner, request: Request) -> None:
    key, range_end, start_revision, previous = decode_values(request.header, 4)
    changes = owner.watch(key, range_end, start_revision=start_revision, previous=previous)
    async with aclosing(changes):  # type: ignore[type-var]
        async for batch in changes:
            request.push(encode_watch_batch(batch))
            if previous and len(batch.events) < GATHERED_EVENTS:
                await asyncio.sleep(GATHERING_SECONDS)
    request.end()


async def _lease_grant(owner: SqliteOwner, request: Request) -> None:
    request.reply(encode_values(await owner.lease_grant(decode_values(request.header, 1)[0])))


async def _lease_keep_alive(owner: SqliteOwner, request: Request) -> None:
    lease = decode_values(request.header, 1)[0]
    request.reply(encode_values(await owner.lease_keep_alive(lease)))


async def _lease_revoke(owner: SqliteOwner, request: Request) -> None:
    await owner.lease_revoke(decode_values(request.header, 1)[0])
    request.reply(encode_values())


async def _compact(owner: SqliteOwner, request: Request) -> None:
    await owner.compact(decode_values(request.header, 1)[0])
    request.reply(encode_values())
