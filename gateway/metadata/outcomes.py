"""Running transactions whose answers may be lost: only the identical one is sent again."""

from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

import msgspec

from gateway.metadata import keys
from gateway.metadata.backlog import Backlog, entries_queued
from gateway.metadata.errors import (
    GroupReclaimed,
    MetadataError,
    NoSuchBucket,
    RelianceBroken,
)
from gateway.objects.errors import ShardsLeftBehind
from gateway.objects.port import Carrier
from placement.clock import Clock, Randomness
from placement.errors import MetastoreUnavailable, OutcomeUnknown
from placement.metastore.port import Metastore, Txn

UNKNOWN_TRIES = 5
UNKNOWN_SECONDS_MAX = 20.0
"""After so long there is no further try. Tries are for answers that were lost with a connection; where
the store does not answer at all, each try costs its whole timeout and a client would not wait for five.
"""
PAUSE_SECONDS_MAX = 0.5


class Applied(msgspec.Struct, frozen=True, gc=False):
    """`certain` is False when an answer was lost and the identical retry found its compares broken:
    then the first try may have been applied, and the caller looks for its traces."""

    succeeded: bool
    certain: bool
    revision: int


class Doubt:
    """Around the tries of a write: once it is `raised`, by a lost answer, no refusal is told.

    The sending whose answer was lost may be on its way yet, and find one day what it compares, though
    what refused the next one has stood in its way until then. So nobody may rely on it that it was
    not carried out, neither the client nor who would discard the shards. The same if nobody can look
    what became of it.
    """

    def __init__(self) -> None:
        self.raised = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Raises OutcomeUnknown in the place of what must not be told."""
        if not self.raised or isinstance(error, OutcomeUnknown):
            return
        if isinstance(error, MetadataError | MetastoreUnavailable) and not _is_for_good(error):
            raise OutcomeUnknown("an earlier sending may be carried out yet") from error


def _is_for_good(error: Exception) -> bool:
    """Whether what a transaction compared cannot be as it was again: a bucket's or a group's end, and
    all that is compared by its revision. Damage marks come and go."""
    if isinstance(error, RelianceBroken):
        return not error.key.startswith(keys.DAMAGE)
    return isinstance(error, NoSuchBucket | GroupReclaimed)


class Transactions:
    """The one place that retries transactions, with jittered, bounded back-off."""

    def __init__(self, metastore: Metastore, *, clock: Clock, randomness: Randomness) -> None:
        self._metastore = metastore
        self._clock = clock
        self._randomness = randomness
        self.backlog = Backlog(clock)

    def run(self, txn: Txn, carrier: Carrier | None = None) -> Coroutine[Any, Any, Applied]:
        """Raises OutcomeUnknown when no try was answered, MetastoreUnavailable when none was sent,
        ShardsLeftBehind when the carrier does and nothing was applied; GarbageBacklogged, nothing
        applied, where it would queue garbage and too much waits."""
        queued = entries_queued(txn.success)
        if queued:
            return self._run_queueing(queued, txn, carrier)
        return self._run(txn, carrier)

    async def _run_queueing(self, queued: int, txn: Txn, carrier: Carrier | None) -> Applied:
        await self.backlog.begin(queued)
        revision = 0
        try:
            applied = await self._run(txn, carrier)
            revision = applied.revision if applied.succeeded else 0
            return applied
        finally:
            # What was sent and not answered counts once the keeper has seen it.
            self.backlog.end(queued, revision)

    async def _run(self, txn: Txn, carrier: Carrier | None) -> Applied:
        unknown: OutcomeUnknown | None = None
        began = self._clock.monotonic()
        for attempt in range(UNKNOWN_TRIES):
            try:
                if carrier is None or carrier.arrived:
                    result = await self._metastore.txn(txn)
                else:
                    result = await carrier.txn(txn)
            except OutcomeUnknown as error:
                unknown = error
            except MetastoreUnavailable:
                if unknown is None:
                    raise
            except ShardsLeftBehind:
                if unknown is None:
                    raise
                break  # this try was not applied, but the one before may have been
            else:
                succeeded = result.succeeded
                return Applied(succeeded, succeeded or unknown is None, result.revision)
            if self._clock.monotonic() - began >= UNKNOWN_SECONDS_MAX:
                break
            await self.pause(attempt, first_seconds=0.05)
        assert unknown is not None
        raise OutcomeUnknown("the metadata store did not say whether it committed") from unknown

    async def pause(self, attempt: int, *, first_seconds: float) -> None:
        """Wait before try number `attempt` + 2: doubling, half of it random."""
        longest = min(first_seconds * (1 << min(attempt, 16)), PAUSE_SECONDS_MAX)
        await self._clock.sleep(longest * (0.5 + self._randomness.uniform() / 2))
