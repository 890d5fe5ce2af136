"""The handler of `Verb.PUT_AND_COMMIT`: see `joint`."""

from collections.abc import Mapping
from typing import Protocol

from placement.errors import ProtocolError
from placement.metastore.port import Txn, TxnResult
from placement.metastore.serve import TxnAnswer
from placement.metastore.sqlite import Promise
from placement.metastore.wire import encode_txn_result, failure_of
from placement.rpc.server import Handler, Request
from storage_node import wire
from storage_node.committer import NodeBusy
from storage_node.joint import JointMessage
from storage_node.node import Node
from storage_node.port import Outcome
from storage_node.wire import Reader, Verb

_read_joint: Reader[JointMessage] = Reader(JointMessage)
_STORED = Outcome.STORED


class Owner(Protocol):
    """Whoever owns the metadata (`placement.metastore.sqlite.SqliteOwner`)."""

    def submit_to(self, txn: Txn, promise: Promise) -> None:
        """Apply it; the promise hears of it once it is durable."""
        ...


class _JointAnswer(TxnAnswer):
    """All shards were stored: what became of the transaction goes with that."""

    __slots__ = ("_outcomes",)

    def __init__(self, request: Request, outcomes: bytes) -> None:
        super().__init__(request)
        self._outcomes = outcomes

    def set_result(self, result: TxnResult, /) -> None:
        """See Promise."""
        self._request.reply(self._outcomes, (encode_txn_result(result),))


def serve_joint_puts(node: Node, owner: Owner) -> Mapping[int, Handler]:
    """To be given to an RpcServer, with the other verbs of both."""

    def put_and_commit(request: Request) -> None:
        """Answered by the committer or the owner, without a Task."""
        try:
            message = _read_joint(request.header)
            shards = wire.bounded(message.shards)
        except (ProtocolError, ValueError) as error:
            raise failure_of(error) from error

        def done(outcomes: list[Outcome]) -> None:
            header = wire.encode_outcomes(outcomes)
            if outcomes.count(_STORED) == len(outcomes):
                txn = Txn(message.compares, message.success, message.failure)
                owner.submit_to(txn, _JointAnswer(request, header))
            else:
                request.reply(header)

        try:
            node.put(shards, request.payload, done)
        except NodeBusy:  # no drive took them: the caller tries them alone then, and hears why
            request.reply(wire.encode_outcomes([Outcome.DRIVE_FAILED] * len(shards)))
        except ValueError as error:
            raise failure_of(error) from error

    return {Verb.PUT_AND_COMMIT: put_and_commit}
