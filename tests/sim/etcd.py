"""The cluster's etcd as one process sees it: the memory metastore behind a network that loses answers.

Majority semantics: what was applied stays applied, whoever asks. While there is no quorum nothing is
answered. A transaction whose answer is lost was applied, was not, or will be a little later.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from placement.errors import MetastoreUnavailable, OutcomeUnknown
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import KeyValue, Range, RangeResult, Txn, TxnResult, WatchBatch
from tests.sim.loop import Process
from tests.sim.network import Network

T = TypeVar("T")

NAME = "etcd"
LATE_SECONDS = 3.0
"""How late a transaction may be applied whose answer was lost."""
CALL_SECONDS = 5.0


class Etcd:
    """The store itself, and how well it is."""

    def __init__(self, process: Process, network: Network) -> None:
        self.process = process
        self.network = network
        self.store = MemoryMetastore(process, randomness=process)
        self.store._watches._watches = OrderedSet()  # type: ignore[assignment]
        self.quorum = True
        self.lost_answers = 0.0
        """Share of transactions whose answer is lost."""
        self.unknown_outcomes = 0


class OrderedSet(dict[Any, None]):
    """A set that is walked in the order of adding, whatever lies where in memory."""

    def add(self, member: Any) -> None:
        self[member] = None

    def discard(self, member: Any) -> None:
        self.pop(member, None)


class EtcdClient:
    """The metadata port of one process."""

    def __init__(self, etcd: Etcd, process: Process) -> None:
        self._etcd = etcd
        self._process = process

    def _reached(self) -> bool:
        return self._etcd.quorum and self._etcd.network.reaches(self._process.name, NAME)

    async def _pass(self) -> None:
        """One way of the network. Raises MetastoreUnavailable."""
        await asyncio.sleep(self._etcd.network.delay(self._process))
        if not self._reached():
            await asyncio.sleep(self._process.random.uniform(0.01, CALL_SECONDS))
            raise MetastoreUnavailable("etcd does not answer")

    async def get_many(self, keys: Sequence[bytes]) -> tuple[KeyValue | None, ...]:
        await self._pass()
        found = await self._etcd.store.get_many(keys)
        await self._pass()
        return found

    async def range(self, request: Range) -> RangeResult:
        await self._pass()
        found = await self._etcd.store.range(request)
        await self._pass()
        return found

    async def read(self, requests: Sequence[Range]) -> tuple[RangeResult, ...]:
        await self._pass()
        found = await self._etcd.store.read(requests)
        await self._pass()
        return found

    async def txn(self, txn: Txn) -> TxnResult:
        etcd, random = self._etcd, self._process.random
        await self._pass()
        if etcd.lost_answers and random.random() < etcd.lost_answers:
            await self._lose(txn)
        result = await etcd.store.txn(txn)
        try:
            await self._pass()
        except MetastoreUnavailable as error:
            etcd.unknown_outcomes += 1
            raise OutcomeUnknown(str(error)) from error
        return result

    async def _lose(self, txn: Txn) -> None:
        etcd, random = self._etcd, self._process.random
        etcd.unknown_outcomes += 1
        fate = random.random()
        if fate < 0.45:
            await etcd.store.txn(txn)
        elif fate < 0.65:
            etcd.process.start(self._later(txn, random.uniform(0.0, LATE_SECONDS)))
        await asyncio.sleep(random.uniform(0.001, 0.5))
        raise OutcomeUnknown("the answer was lost")

    async def _later(self, txn: Txn, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._etcd.store.txn(txn)

    async def watch(
        self,
        key: bytes,
        range_end: bytes | None = None,
        *,
        start_revision: int = 0,
        previous: bool = False,
    ) -> AsyncIterator[WatchBatch]:
        await self._pass()
        changes = self._etcd.store.watch(
            key, range_end, start_revision=start_revision, previous=previous
        )
        async for batch in changes:
            await self._pass()
            yield batch

    async def lease_grant(self, ttl_seconds: int) -> int:
        await self._pass()
        lease = await self._etcd.process.start(self._etcd.store.lease_grant(ttl_seconds))
        await self._pass()
        return lease

    async def lease_keep_alive(self, lease: int) -> int:
        await self._pass()
        left = await self._etcd.store.lease_keep_alive(lease)
        await self._pass()
        return left

    async def lease_revoke(self, lease: int) -> None:
        await self._pass()
        await self._etcd.store.lease_revoke(lease)
        await self._pass()

    async def compact(self, revision: int) -> None:
        await self._pass()
        await self._etcd.store.compact(revision)

    async def close(self) -> None:
        """Nothing is held."""
