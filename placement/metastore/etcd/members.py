"""The members of etcd: one channel each, one of them preferred, the next when it fails.

A request that surely had no effect is sent again, to the next member; one whose answer was lost is
repeated only if it changes nothing. Every call carries `hasleader`, so that a member that is cut off
from the others says so at once.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, NamedTuple

import grpc
import grpc.aio

from placement.clock import Clock, Randomness
from placement.errors import MetastoreDenied, MetastoreFull, MetastoreUnavailable, OutcomeUnknown
from placement.metastore.etcd.answers import CallFailed, Verdict, failure_of, refusal, verdict_of
from placement.metastore.etcd.calls import Http2Calls, Metadata, tls_context
from placement.metastore.etcd.options import EtcdOptions
from placement.metastore.etcd.stubs import rpc_pb2 as pb

Attempt = Callable[["Member", Metadata, float], Awaitable[Any]]
"""One try at a member within so many seconds."""

_LEADER: Metadata = (("hasleader", "true"),)
_PAUSE_SECONDS = 0.05
_PAUSE_SECONDS_MAX = 0.5
_TOKENS_PER_CALL = 2
_CHANNEL_OPTIONS = (
    ("grpc.enable_retries", 0),  # a repeated write is our decision, never the library's
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),  # ranges are bounded by those who ask
    ("grpc.max_send_message_length", 4 << 20),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),  # etcd allows a ping every 5 s
    ("grpc.keepalive_timeout_ms", 3_000),
)


class NotKept(Exception):
    """A revision that was asked for is compacted, or (`future`) not reached. Not applied."""

    def __init__(self, *, future: bool) -> None:
        super().__init__("future" if future else "compacted")
        self.future = future


class NoSpace(Exception):
    """etcd answered that it has no space: a write may have been applied all the same."""


class Unary(Enum):
    """The calls with one request and one answer: path, and the parser of the answer. Requests are
    given as bytes."""

    RANGE = ("/etcdserverpb.KV/Range", pb.RangeResponse)
    TXN = ("/etcdserverpb.KV/Txn", pb.TxnResponse)
    COMPACT = ("/etcdserverpb.KV/Compact", pb.CompactionResponse)
    GRANT = ("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantResponse)
    REVOKE = ("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeResponse)
    STATUS = ("/etcdserverpb.Maintenance/Status", pb.StatusResponse)
    ALARM = ("/etcdserverpb.Maintenance/Alarm", pb.AlarmResponse)
    AUTHENTICATE = ("/etcdserverpb.Auth/Authenticate", pb.AuthenticateResponse)


class Stream(Enum):
    """The calls that are streams both ways."""

    WATCH = ("/etcdserverpb.Watch/Watch", pb.WatchResponse)
    KEEP_ALIVE = ("/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse)


class Member(NamedTuple):
    """One member: its channel for streams, and its unary calls."""

    address: str
    channel: Any
    streams: dict[Stream, Callable[..., Any]]
    calls: Http2Calls


class Members:
    """The members as one service."""

    def __init__(self, options: EtcdOptions, *, clock: Clock, randomness: Randomness) -> None:
        """Open channels; nothing is sent yet."""
        self._options = options
        self._clock = clock
        self._randomness = randomness
        tls = tls_context(options.ca, options.certificate, options.key) if options.tls else None
        self._members = [_open(address, options, tls) for address in options.addresses]
        self._preferred = int(randomness.uniform() * len(self._members))
        self._token: str | None = None
        self._token_lock = asyncio.Lock()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether all calls were ended."""
        return self._closed

    @property
    def preferred(self) -> Member:
        """The member that is asked first."""
        return self._members[self._preferred]

    def avoid(self, member: Member) -> None:
        """It failed: ask another next time."""
        if member is self.preferred:
            self._preferred = (self._preferred + 1) % len(self._members)

    async def read(self, call: Unary, request: bytes) -> Any:
        """A request without effect. Raises MetastoreUnavailable, NotKept, and what the request is
        refused with."""
        return await self._call(call, request, repeatable=True)

    async def write(self, call: Unary, request: bytes) -> Any:
        """A request with an effect, sent once. Raises OutcomeUnknown too, and NoSpace."""
        return await self._call(call, request, repeatable=False)

    async def metadata(self) -> Metadata:
        """What goes with every call. Raises MetastoreDenied, MetastoreUnavailable."""
        if self._options.user is None:
            return _LEADER
        if self._token is None:
            await self._renew_token()
        return (*_LEADER, ("token", self._token or ""))

    def forget_token(self, metadata: Metadata) -> None:
        """The token in there was refused."""
        if ("token", self._token) in metadata:
            self._token = None

    async def close(self) -> None:
        """End all calls."""
        self._closed = True
        for member in self._members:
            member.calls.close()
            await member.channel.close(None)

    async def stream_once(self, call: Stream, request: bytes) -> Any:
        """One request and one answer over a stream of its own; the request may be repeated."""

        async def attempt(member: Member, metadata: Metadata, timeout_seconds: float) -> Any:
            stream = member.streams[call](timeout=timeout_seconds, metadata=metadata)
            try:
                await stream.write(request)
                answer = await stream.read()
                if answer is grpc.aio.EOF:
                    raise ended(await stream.code(), await stream.details())
                return answer
            finally:
                stream.cancel()

        return await self._repeat(attempt, repeatable=True)

    async def _call(
        self, call: Unary, request: bytes, *, repeatable: bool, anonymous: bool = False
    ) -> Any:
        path, parser = call.value

        async def attempt(member: Member, metadata: Metadata, timeout_seconds: float) -> Any:
            answer = await member.calls.call(
                path, request, timeout_seconds=timeout_seconds, metadata=metadata
            )
            return parser.FromString(answer)

        return await self._repeat(attempt, repeatable=repeatable, anonymous=anonymous)

    async def _repeat(self, attempt: Attempt, *, repeatable: bool, anonymous: bool = False) -> Any:
        """Try the members in turn until the deadline, as far as what failed allows."""
        deadline = self._clock.monotonic() + self._options.timeout_seconds
        tokens = tries = 0
        while True:
            metadata = _LEADER if anonymous else await self.metadata()
            member = self.preferred
            try:
                return await self._guarded(attempt, member, metadata, deadline)
            except CallFailed as error:
                verdict = verdict_of(error)
                if verdict is Verdict.TOKEN and tokens < _TOKENS_PER_CALL:
                    tokens += 1
                    self.forget_token(metadata)
                    continue
                self._settle(verdict, error, member, repeatable=repeatable)
                failure = error
            self.avoid(member)
            tries += 1
            pause = self._pause_seconds(tries)
            if self._closed or self._clock.monotonic() + pause >= deadline:
                raise MetastoreUnavailable(f"etcd does not answer: {failure}") from failure
            if pause:
                await self._clock.sleep(pause)

    def _pause_seconds(self, tries: int) -> float:
        """None until every member was asked; then longer after each round."""
        rounds, rest = divmod(tries, len(self._members))
        if rest:
            return 0.0
        longest = min(_PAUSE_SECONDS * (1 << min(rounds - 1, 8)), _PAUSE_SECONDS_MAX)
        return longest * (0.5 + self._randomness.uniform() / 2)

    async def _guarded(
        self, attempt: Attempt, member: Member, metadata: Metadata, deadline: float
    ) -> Any:
        """One try, with its deadline; told apart from our own closing."""
        left = deadline - self._clock.monotonic()
        if len(self._members) > 1:
            left = min(left, self._options.attempt_seconds)
        self._check_open()
        try:
            return await attempt(member, metadata, max(left, 0.001))
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from error
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            raise OutcomeUnknown("closed while a request was under way") from error

    def _check_open(self) -> None:
        if self._closed:
            raise MetastoreUnavailable("closed")

    def _settle(
        self, verdict: Verdict, error: CallFailed, member: Member, *, repeatable: bool
    ) -> None:
        """Return if another member may be asked; else raise."""
        if verdict is Verdict.NOT_APPLIED or (verdict is Verdict.LOST and repeatable):
            return
        if verdict is Verdict.LOST:
            self.avoid(member)
            raise OutcomeUnknown(f"etcd's answer was lost: {error}") from error
        if verdict is Verdict.COMPACTED or verdict is Verdict.FUTURE:
            raise NotKept(future=verdict is Verdict.FUTURE) from error
        if verdict is Verdict.FULL:
            if repeatable:
                raise MetastoreFull(str(error)) from error
            raise NoSpace(str(error)) from error
        if verdict is Verdict.TOKEN:
            raise MetastoreDenied(f"etcd refuses our token: {error}") from error
        raise refusal(error.details) from error

    async def _renew_token(self) -> None:
        """One caller asks for a token, the others wait for it."""
        async with self._token_lock:
            if self._token is not None:
                return
            request = pb.AuthenticateRequest(
                name=self._options.user or "", password=self._options.password or ""
            ).SerializeToString()

            answer = await self._call(Unary.AUTHENTICATE, request, repeatable=True, anonymous=True)
            self._token = str(answer.token)


def _open(address: str, options: EtcdOptions, tls: ssl.SSLContext | None) -> Member:
    if options.tls:
        credentials = grpc.ssl_channel_credentials(options.ca, options.key, options.certificate)
        channel = grpc.aio.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)
    else:
        channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
    streams = {
        call: channel.stream_stream(call.value[0], response_deserializer=call.value[1].FromString)
        for call in Stream
    }
    return Member(address, channel, streams, Http2Calls(address, tls))


def ended(code: Any, details: str | None) -> CallFailed:
    """A stream that ended, as the error it stands for."""
    if code is grpc.StatusCode.OK:
        code = grpc.StatusCode.UNAVAILABLE
    return CallFailed(code, details or "the stream ended")
