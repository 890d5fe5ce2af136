"""What an error of gRPC or etcd means: whether the request may have been applied, what to raise.

The messages are those of etcd's `api/v3rpc/rpctypes/error.go`; whatever is not known counts as
"may have been applied".
"""

from enum import Enum

import grpc
import grpc.aio

from placement.errors import (
    DuplicateKey,
    LeaseNotFound,
    MetastoreDenied,
    PlacementError,
    RequestTooLarge,
)


class Verdict(Enum):
    """What is known of a request that failed."""

    NOT_APPLIED = 0
    """It surely had no effect here: any member may be asked again."""
    LOST = 1
    """It may have been applied. A read may be repeated."""
    TOKEN = 2
    """It was refused for a token that is no longer good; not applied."""
    COMPACTED = 3
    """It names a revision that is not kept; not applied."""
    FUTURE = 4
    """It names a revision that is not reached; not applied."""
    FULL = 5
    """etcd has no space. Usually refused; the one that crosses the quota is applied all the same."""
    REFUSED = 6
    """It was refused for a reason of its own, which `refusal` gives; not applied."""


NOT_SENT = "failed to connect to all addresses"
"""grpcio's words when it had no connection to send the call on; calls.py uses them too."""

_STATUSES = {status.value[0]: status for status in grpc.StatusCode}


class CallFailed(Exception):
    """A call that ended without an answer."""

    def __init__(self, status: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{status.name.lower()}: {details}")
        self.status = status
        self.details = details


def status_code(number: int) -> grpc.StatusCode:
    """The status of that number."""
    return _STATUSES.get(number, grpc.StatusCode.UNKNOWN)


def failure_of(error: grpc.aio.AioRpcError) -> CallFailed:
    """What grpcio raised, as ours."""
    return CallFailed(error.code(), error.details() or "")


_BY_MESSAGE = {
    "etcdserver: no leader": Verdict.NOT_APPLIED,
    "etcdserver: too many requests": Verdict.NOT_APPLIED,
    "etcdserver: rpc not supported for learner": Verdict.NOT_APPLIED,
    "etcdserver: invalid auth token": Verdict.TOKEN,
    "etcdserver: revision of auth store is old": Verdict.TOKEN,
    "etcdserver: mvcc: required revision has been compacted": Verdict.COMPACTED,
    "etcdserver: mvcc: required revision is a future revision": Verdict.FUTURE,
    "etcdserver: mvcc: database space exceeded": Verdict.FULL,
}

_REFUSALS: dict[str, type[PlacementError]] = {
    "etcdserver: duplicate key given in txn request": DuplicateKey,
    "etcdserver: too many operations in txn request": RequestTooLarge,
    "etcdserver: request is too large": RequestTooLarge,
    "etcdserver: requested lease not found": LeaseNotFound,
    "etcdserver: authentication failed, invalid user ID or password": MetastoreDenied,
    "etcdserver: authentication is not enabled": MetastoreDenied,
    "etcdserver: permission denied": MetastoreDenied,
    "etcdserver: user name is empty": MetastoreDenied,
    "etcdserver: user name not found": MetastoreDenied,
}


def verdict_of(failure: CallFailed) -> Verdict:
    """What is known of a call that failed so."""
    code, details = failure.status, failure.details
    known = _BY_MESSAGE.get(details)
    if known is not None:
        return known
    if details in _REFUSALS or code is grpc.StatusCode.INVALID_ARGUMENT:
        return Verdict.REFUSED
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "trying to send message larger" in details:
        return Verdict.REFUSED
    if code is grpc.StatusCode.UNAVAILABLE and details.startswith(NOT_SENT):
        return Verdict.NOT_APPLIED
    return Verdict.LOST


def refusal(details: str) -> Exception:
    """What to raise for a REFUSED call."""
    kind = _REFUSALS.get(details)
    if kind is None and "larger than max" in details:
        kind = RequestTooLarge
    return ValueError(details) if kind is None else kind(details)
