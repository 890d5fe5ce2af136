"""A put and the transaction that relies on it, in one call to a process that owns drives and metadata.

The shards are on stable storage, all of them, before the transaction is looked at: the order is that
of two calls, without the way back and forth between them. When a shard was not stored the transaction
is dropped; the answer says what became of each shard. `joint_server` is the other side.
"""

from collections.abc import Sequence

import msgspec

from placement.metastore.port import Compare, Operation, Txn, TxnResult
from placement.metastore.remote import txn_failure
from placement.metastore.wire import decode_txn_result
from placement.rpc.client import RpcClient
from placement.rpc.frames import AnswerLost, NotSent, RemoteError
from storage_node import wire
from storage_node.port import Buffer, Outcome, PutShard
from storage_node.wire import Verb

TIMEOUT_SECONDS = 30.0


class JointMessage(msgspec.Struct, array_like=True, gc=False):
    """The shards as in a PUT, then the transaction. New fields are added at the end."""

    shards: wire.PutMessage
    compares: tuple[Compare, ...]
    success: tuple[Operation, ...]
    failure: tuple[Operation, ...]


class JointPuts:
    """The calling side; all shards go to the node of that name, whose process owns the metadata."""

    def __init__(self, rpc: RpcClient, node: str) -> None:
        self.node = node
        self._rpc = rpc

    async def put_and_commit(
        self, shards: list[PutShard], payload: Sequence[Buffer], txn: Txn
    ) -> tuple[tuple[Outcome, ...], TxnResult | None]:
        """What became of each shard and, if all were stored, of the transaction.

        Raises as `Metastore.txn` does. After OutcomeUnknown nothing is known of either; after
        another error the shards may be stored, the transaction was not applied.
        """
        message = JointMessage(shards, txn.compares, txn.success, txn.failure)
        try:
            reply = await self._rpc.call(
                Verb.PUT_AND_COMMIT,
                wire.encode(message),
                payload,
                timeout_seconds=TIMEOUT_SECONDS,
            )
        except (AnswerLost, NotSent, RemoteError) as error:
            raise txn_failure(error) from error
        outcomes = wire.decode_outcomes(reply.header, len(shards))
        return outcomes, decode_txn_result(reply.payload) if reply.payload else None
