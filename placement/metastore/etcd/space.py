"""etcd out of space: who writes is told at once, and etcd is asked now and then whether it is over.

The transaction that crosses the quota is applied although etcd answers that it has no space
(server/etcdserver/apply, quotaApplierV3), so that answer means "outcome unknown". From then on etcd
refuses whatever puts, until an operator has made room and disarmed the alarm; what this process
does not send was surely not applied.
"""

import logging

from placement.clock import Clock
from placement.errors import MetastoreDenied, MetastoreFull, MetastoreUnavailable
from placement.metastore.etcd.members import Members, NoSpace, Unary
from placement.metastore.etcd.stubs import rpc_pb2 as pb
from placement.metastore.port import Put, Txn

_log = logging.getLogger(__name__)

ASK_SECONDS = 1.0
"""How often etcd is asked, when there is something to write."""


class SpaceAlarm:
    """Whether etcd's NOSPACE alarm is on, as far as this process knows."""

    def __init__(self, members: Members, clock: Clock) -> None:
        self.active = False
        self._members = members
        self._clock = clock
        self._asked_at = 0.0

    def raise_(self) -> None:
        """The answer was that it has no space."""
        if not self.active:
            _log.error(
                "etcd is out of space: it takes no writes until its history is compacted, its "
                "members are defragmented and the NOSPACE alarm is disarmed"
            )
        self.active = True
        self._asked_at = self._clock.monotonic()

    async def refuse(self, txn: Txn) -> None:
        """Raise MetastoreFull for what puts something, while the alarm is on."""
        if not _puts(txn):
            return
        now = self._clock.monotonic()
        if now - self._asked_at >= ASK_SECONDS:
            self._asked_at = now
            if not await self._is_on():
                self.active = False
                _log.warning("etcd takes writes again")
                return
        raise MetastoreFull("etcd is out of space")

    async def _is_on(self) -> bool:
        request = pb.AlarmRequest(action=pb.AlarmRequest.GET, alarm=pb.NOSPACE)
        try:
            answer = await self._members.read(Unary.ALARM, request.SerializeToString())
        except (MetastoreDenied, NoSpace):
            return False  # not for this user to ask: the next write finds out
        except MetastoreUnavailable:
            return True
        return any(alarm.alarm == pb.NOSPACE for alarm in answer.alarms)


def _puts(txn: Txn) -> bool:
    return any(
        isinstance(operation, Put) or (isinstance(operation, Txn) and _puts(operation))
        for operation in (*txn.success, *txn.failure)
    )
