"""A watch that outlives its connection: it resumes at another member without a gap.

A watch knows the next revision it has not told, so a stream that breaks is replaced by one that
starts there. If etcd no longer keeps that revision the watch says so (`Compacted`); if no member can
be reached for `watch_resume_seconds` it says that too, because who relies on it for being up to date
must know.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import grpc
import grpc.aio

from placement.clock import Clock
from placement.errors import Compacted, MetastoreDenied, MetastoreUnavailable
from placement.metastore.etcd.answers import CallFailed, Verdict, failure_of, refusal, verdict_of
from placement.metastore.etcd.members import Members, NotKept, Stream, Unary, ended
from placement.metastore.etcd.messages import decode_event
from placement.metastore.etcd.options import EtcdOptions
from placement.metastore.etcd.stubs import rpc_pb2 as pb
from placement.metastore.port import Event, WatchBatch

_log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.05
_PAUSE_SECONDS_MAX = 1.0
_SOME_KEY = b"\x00"


class Changes(NamedTuple):
    """What a watch follows; `previous`: each change with what was there before."""

    key: bytes
    range_end: bytes | None = None
    previous: bool = False


class _Lost(Exception):
    """The stream broke; another may go on from where it stood."""


async def watch(
    members: Members,
    options: EtcdOptions,
    clock: Clock,
    changes: Changes,
    start_revision: int,
) -> AsyncIterator[WatchBatch]:
    """Every change to the range. Raises Compacted, MetastoreUnavailable."""
    position = start_revision
    first = True
    lost_at: float | None = None
    pause = _PAUSE_SECONDS
    while True:
        stream = _follow(members, options, changes, position)
        try:
            async for batch in stream:
                lost_at, pause = None, _PAUSE_SECONDS
                if batch.events or first or batch.revision >= position:
                    first = False
                    position = batch.revision + 1
                    yield batch
        except _Lost as error:
            now = clock.monotonic()
            lost_at = now if lost_at is None else lost_at
            if members.closed or now + pause - lost_at >= options.watch_resume_seconds:
                raise MetastoreUnavailable(f"the watch was lost: {error}") from error
            _log.info("a watch lost its connection and resumes: %s", error)
        finally:
            await stream.aclose()
        await clock.sleep(pause)
        pause = min(pause * 2, _PAUSE_SECONDS_MAX)


async def not_kept(members: Members, options: EtcdOptions, error: NotKept) -> Compacted:
    """What to raise for a revision that etcd does not give. Raises MetastoreUnavailable."""
    if error.future:  # of another life of this store: the present is what can be read
        request = pb.RangeRequest(key=_SOME_KEY, count_only=True)
        answer = await members.read(Unary.RANGE, request.SerializeToString())
        return Compacted(answer.header.revision)
    stream = _follow(members, options, Changes(_SOME_KEY), 1)
    try:
        async with asyncio.timeout(options.timeout_seconds):
            async for _ in stream:
                pass  # only a watch that is refused tells what is kept
    except Compacted as compacted:
        return compacted
    except (_Lost, TimeoutError) as lost:
        raise MetastoreUnavailable(f"etcd does not say what it keeps: {lost}") from lost
    finally:
        await stream.aclose()
    raise AssertionError("a watch does not end by itself")


async def _check_kept(members: Members, options: EtcdOptions, position: int) -> None:
    """Raise Compacted unless all changes from `position` on are kept."""
    request = pb.RangeRequest(key=_SOME_KEY, count_only=True, revision=position - 1)
    try:
        await members.read(Unary.RANGE, request.SerializeToString())
    except NotKept as error:
        raise await not_kept(members, options, error) from error
    except MetastoreDenied:
        raise
    except MetastoreUnavailable as error:
        raise _Lost(str(error)) from error


async def _follow(members: Members, options: EtcdOptions, changes: Changes, position: int) -> Any:
    """The batches of one stream; the first is empty and says where it begins. Raises _Lost.

    A stream that etcd begins at the very revision that it is compacting may lack what was deleted in
    it, so it is begun one earlier: then etcd refuses it.
    """
    member = members.preferred
    metadata = await members.metadata()
    request = pb.WatchRequest(
        create_request=pb.WatchCreateRequest(
            key=changes.key,
            range_end=changes.range_end or b"",
            prev_kv=changes.previous,
            start_revision=max(position - 1, 1) if position else 0,
            progress_notify=True,
            fragment=True,
        )
    )
    stream = None
    try:
        stream = member.streams[Stream.WATCH](metadata=metadata)
        async with asyncio.timeout(options.attempt_seconds):
            await stream.write(request.SerializeToString())
            response = await _next(stream)
        revision = response.header.revision
        _check_canceled(response)
        if position > 1:  # etcd says only later that it cannot begin there
            await _check_kept(members, options, position)
        yield WatchBatch(position - 1 if position else revision, ())
        held: list[Event] = []
        while True:
            response = await _next(stream)
            _check_canceled(response)
            batch = _batch(held, response, position)
            if batch is not None:
                yield batch
    except (CallFailed, grpc.aio.AioRpcError) as error:
        failure = failure_of(error) if isinstance(error, grpc.aio.AioRpcError) else error
        verdict = verdict_of(failure)
        members.avoid(member)
        if verdict is Verdict.TOKEN:
            members.forget_token(metadata)
        elif verdict is Verdict.REFUSED:
            raise refusal(failure.details) from error
        raise _Lost(f"{member.address}: {failure}") from error
    except TimeoutError as error:
        members.avoid(member)
        raise _Lost(f"{member.address} does not answer") from error
    except (asyncio.CancelledError, grpc.aio.UsageError) as error:
        task = asyncio.current_task()
        if not members.closed or (task is not None and task.cancelling()):
            raise
        raise MetastoreUnavailable("closed") from error
    finally:
        if stream is not None:
            stream.cancel()


async def _next(stream: Any) -> Any:
    response = await stream.read()
    if response is grpc.aio.EOF:
        raise ended(await stream.code(), await stream.details())
    return response


def _check_canceled(response: Any) -> None:
    """Raise what ended the watch."""
    if not response.canceled:
        return
    if response.compact_revision:
        raise Compacted(response.compact_revision)
    reason = response.cancel_reason
    if "permission denied" in reason:
        raise MetastoreDenied(f"etcd refuses the watch: {reason}")
    raise CallFailed(grpc.StatusCode.UNAVAILABLE, reason)


def _batch(held: list[Event], response: Any, position: int) -> WatchBatch | None:
    """What may be told now, of the revisions from `position` on. Of a response that goes on in
    another one the last revision is held back until it is whole."""
    events = [decode_event(one) for one in response.events if one.kv.mod_revision >= position]
    if response.events and not (held or events):
        return None
    events = held + events
    held.clear()
    if not events:  # nothing happened to the range up to there
        return WatchBatch(response.header.revision, ())
    last = events[-1].kv.mod_revision
    if response.fragment:
        held += [event for event in events if event.kv.mod_revision == last]
        events = events[: len(events) - len(held)]
        if not events:
            return None
        last = events[-1].kv.mod_revision
    return WatchBatch(last, tuple(events))
