"""The embedded metastore as gateways and keeper use it: reads from the file, the rest by RPC."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from placement.errors import MetastoreUnavailable, OutcomeUnknown, RequestTooLarge
from placement.metastore.port import KeyValue, Range, RangeResult, Txn, TxnResult, WatchBatch
from placement.metastore.serve import serve_metastore
from placement.metastore.sqlite_reading import CommittedReads
from placement.metastore.wire import (
    Verb,
    decode_range_results,
    decode_txn_result,
    decode_values,
    decode_watch_batch,
    encode_ranges,
    encode_txn,
    encode_values,
    error_of,
)
from placement.rpc.client import Reply, RpcClient
from placement.rpc.frames import FRAME_SIZE_BYTES_MAX, AnswerLost, ErrorCode, NotSent, RemoteError

__all__ = ["EmbeddedMetastore", "serve_metastore", "txn_failure"]

_TIMEOUT_SECONDS = 30.0
_OUTCOME_UNKNOWN = (ErrorCode.INTERNAL, ErrorCode.CANCELLED, ErrorCode.REPLY_TOO_LARGE)
"""Errors of the protocol that may follow a transaction that was applied."""


class EmbeddedMetastore:
    """The port over the owner's SQLite file and its socket. The RPC client stays the caller's."""

    def __init__(
        self, path: str, client: RpcClient, *, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> None:
        """Open the file, which the owner has made. Raises MetastoreUnavailable."""
        self._reads = CommittedReads(path)
        self._client = client
        self._timeout_seconds = timeout_seconds
        self.get_guarded_now = self._reads.get_guarded
        self.scan_guarded_now = self._reads.scan_guarded

    async def get_many(self, keys: Sequence[bytes]) -> tuple[KeyValue | None, ...]:
        """The named keys at one instant."""
        return self._reads.get_many(keys)

    async def range(self, request: Range) -> RangeResult:
        """Range read."""
        return (await self.read((request,)))[0]

    async def read(self, requests: Sequence[Range]) -> tuple[RangeResult, ...]:
        """Several range reads at one instant; if one is at an older revision, the owner reads."""
        if any(request.revision for request in requests):
            reply = await self._ask(Verb.READ, encode_ranges(requests))
            return decode_range_results(reply.header)
        return self._reads.read(requests)

    async def txn(self, txn: Txn) -> TxnResult:
        """Apply atomically and durably."""
        message = encode_txn(txn)
        if len(message) > FRAME_SIZE_BYTES_MAX:  # the owner knows the true limits
            raise RequestTooLarge(f"a transaction of {len(message)} bytes")
        try:
            reply = await self._client.call(
                Verb.TXN, message, timeout_seconds=self._timeout_seconds
            )
        except (AnswerLost, NotSent, RemoteError) as error:
            raise txn_failure(error) from error
        return decode_txn_result(reply.header)

    async def watch(
        self,
        key: bytes,
        range_end: bytes | None = None,
        *,
        start_revision: int = 0,
        previous: bool = False,
    ) -> AsyncIterator[WatchBatch]:
        """Every change to the range, without a gap."""
        stream = self._client.stream(
            Verb.WATCH, encode_values(key, range_end, start_revision, previous)
        )
        try:
            async for reply in stream:
                yield decode_watch_batch(reply.header)
        except (AnswerLost, NotSent) as error:
            raise MetastoreUnavailable(str(error)) from error
        except RemoteError as error:
            raise error_of(error) from error
        finally:
            await stream.aclose()
        raise MetastoreUnavailable("the owner ended the watch")

    async def lease_grant(self, ttl_seconds: int) -> int:
        """A new lease id."""
        return await self._ask_number(Verb.LEASE_GRANT, ttl_seconds)

    async def lease_keep_alive(self, lease: int) -> int:
        """Renew; the seconds left."""
        return await self._ask_number(Verb.LEASE_KEEP_ALIVE, lease)

    async def lease_revoke(self, lease: int) -> None:
        """End a lease and delete its keys."""
        await self._ask(Verb.LEASE_REVOKE, encode_values(lease))

    async def compact(self, revision: int) -> None:
        """Forget history below that revision."""
        await self._ask(Verb.COMPACT, encode_values(revision))

    async def close(self) -> None:
        """Close the file."""
        self._reads.close()

    async def _ask(self, verb: Verb, header: bytes) -> Reply:
        try:
            return await self._client.call(verb, header, timeout_seconds=self._timeout_seconds)
        except (AnswerLost, NotSent) as error:
            raise MetastoreUnavailable(str(error)) from error
        except RemoteError as error:
            raise error_of(error) from error

    async def _ask_number(self, verb: Verb, argument: int) -> int:
        values: list[Any] = decode_values(
            (await self._ask(verb, encode_values(argument))).header, 1
        )
        return int(values[0])


def txn_failure(error: AnswerLost | NotSent | RemoteError) -> Exception:
    """What a call that carried a transaction tells of it when it fails."""
    if isinstance(error, AnswerLost):
        return OutcomeUnknown(str(error))
    if isinstance(error, NotSent):
        return MetastoreUnavailable(str(error))
    return OutcomeUnknown(str(error)) if error.code in _OUTCOME_UNKNOWN else error_of(error)
