"""Small blobs whose shards travel with the transaction that relies on them (`storage_node.joint`)."""

from collections.abc import Callable

from gateway.objects.errors import ShardsLeftBehind
from gateway.objects.small import whole_message
from gateway.objects.staging import StagedBytes
from placement.errors import OutcomeUnknown, PlacementError
from placement.metastore.port import Txn, TxnResult
from storage_node.joint import JointPuts
from storage_node.port import Outcome

_STORED = Outcome.STORED


class CarriedShards:
    """Implements `gateway.objects.port.Carrier`."""

    def __init__(
        self, staged: StagedBytes, envelope: Callable[[int], bytes], joint: JointPuts
    ) -> None:
        self.arrived = False
        self._staged = staged
        self._puts, self._payload = whole_message(staged, envelope)
        self._joint = joint

    async def txn(self, txn: Txn) -> TxnResult:
        """See Carrier. The staged blob knows afterwards what is to be discarded."""
        seats = self._staged.plan.seats
        try:
            outcomes, result = await self._joint.put_and_commit(self._puts, self._payload, txn)
        except OutcomeUnknown:
            raise
        except PlacementError:
            self._staged.stored = dict(enumerate(seats))  # perhaps
            raise
        if result is None:
            self._staged.stored = {
                index: seats[index] for index, one in enumerate(outcomes) if one is _STORED
            }
            raise ShardsLeftBehind(f"{len(self._staged.stored)} of {len(seats)} shards were stored")
        self._staged.stored = dict(enumerate(seats))
        self.arrived = True
        return result
