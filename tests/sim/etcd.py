"""The cluster's etcd as one process sees it: the memory metastore behind a network that loses answers.

Majority semantics: what was applied stays applied, whoever asks. While there is no quorum nothing is
answered. A transaction whose answer is lost was applied, was not, or will be a little later.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gateway.metadata import keys as names
from placement.errors import LeaseNotFound, MetastoreUnavailable, OutcomeUnknown
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import (
    DeleteRange,
    KeyValue,
    Operation,
    Put,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    WatchBatch,
)
from tests.sim.loop import Process
from tests.sim.network import Network

T = TypeVar("T")

NAME = "etcd"
LATE_SECONDS = 3.0
"""How late a transaction may be applied whose answer was lost."""
CALL_SECONDS = 5.0


@dataclass(eq=False, slots=True)
class Ambush:
    """What befalls the next process that sends a transaction, or a read, of that `label`.

    Fates: `still` the process stands still before it is sent, `still after` when the answer comes;
    `lost` it is applied and the answer lost, `never came` it is not even applied, and in both cases
    the process stands still before it goes on; `lost all` so are all its answers for so long, or
    they never come; `unanswered` the same, but this one is applied;
    `killed` the process dies after it was applied, `killed before` before it is sent; `held` it is
    on its way until `released`, `held after` so is the answer, and the process goes on meanwhile;
    `astray` the connection breaks at once, and it comes when it is `released` all the same; `late`
    it comes then, and the answer after it, whatever befalls the process meanwhile.
    """

    label: str
    fate: str
    seconds: float
    whose: str = ""
    sprung: str = ""
    released: asyncio.Event = field(default_factory=asyncio.Event)


def writes_of(txn: Txn) -> Iterator[Operation]:
    """All that a transaction writes if its outer compares hold, nested ones included."""
    for operation in txn.success:
        if isinstance(operation, Txn):
            yield from writes_of(operation)
        else:
            yield operation


def label_of(txn: Txn) -> str:
    """What a transaction is for."""
    writes = list(writes_of(txn))
    put = {write.key[:2] for write in writes if isinstance(write, Put)}
    gone = {write.key[:2] for write in writes if isinstance(write, DeleteRange)}
    if put & {b"m/"}:
        return "map"
    if names.OBJECTS in put:
        return (
            "rename" if names.OBJECTS in gone else "finish" if names.FINISHED in put else "object"
        )
    if names.PARTS in put:
        return "part"
    if names.UPLOADS in put:
        return "upload"
    if names.BUCKETS in put:
        return "bucket"
    if put & {names.ACCOUNTS, names.IDENTITIES}:
        return "identity"
    if names.BUCKETS in gone:
        return "end of bucket"
    if names.OBJECTS in gone:
        return "delete"
    if put == {names.GARBAGE}:
        return "claim"
    if names.DAMAGE in gone:
        return "marks"
    return ""


class Etcd:
    """The store itself, and how well it is."""

    def __init__(self, process: Process, network: Network) -> None:
        self.process = process
        self.network = network
        self.store = MemoryMetastore(process, randomness=process)
        self.store._watches._watches = OrderedSet()  # type: ignore[assignment]
        self.quorum = True
        self.stays_unwell = False
        """A long outage: a short one that ends within it does not end it."""
        self.lost_answers = 0.0
        """Share of transactions whose answer is lost."""
        self.unknown_outcomes = 0
        self.watch_lag = 0.0
        """How late watchers may learn of changes."""
        self.ambushes: list[Ambush] = []
        self.applied: Callable[[Txn], None] = lambda txn: None
        """Told of every transaction that succeeded, at once."""

    async def apply(self, txn: Txn) -> TxnResult:
        """Carry it out."""
        result = await self.store.txn(txn)
        if result.succeeded:
            self.applied(txn)
        return result

    def ambush(self, process: Process, label: str) -> Ambush | None:
        """The one laid for this, if any: it springs once."""
        for ambush in self.ambushes:
            if ambush.label == label and process.name.startswith(ambush.whose):
                ambush.sprung = process.name
                self.ambushes.remove(ambush)
                return ambush
        return None


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
        self._losing_until = 0.0

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
        if self._etcd.ambushes and any(key.startswith(names.OBJECTS) for key in keys):
            await self._befall("look", "still after", "held after")
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

    async def _befall(self, label: str, *fates: str) -> Ambush | None:
        """Spring what is laid for it; of the fates that pass, be done with it."""
        ambush = self._etcd.ambush(self._process, label)
        if ambush is not None and ambush.fate in fates:
            if ambush.fate.startswith("held"):
                await ambush.released.wait()
            else:
                await self._wait(ambush.seconds)
        return ambush

    async def _wait(self, seconds: float) -> None:
        self._process.stand_still(seconds)
        await asyncio.sleep(0)

    async def txn(self, txn: Txn) -> TxnResult:
        etcd, random, process = self._etcd, self._process.random, self._process
        ambush = await self._befall(label_of(txn), "still", "held") if etcd.ambushes else None
        fate = "" if ambush is None else ambush.fate
        if fate == "killed before":
            process.kill()
            await asyncio.sleep(0)
        await self._pass()
        if fate == "astray":
            assert ambush is not None
            etcd.unknown_outcomes += 1
            etcd.process.start(self._later(txn, ambush.released.wait()))
            raise OutcomeUnknown("the connection broke")
        if fate == "late":
            assert ambush is not None
            coming = etcd.process.start(self._late(txn, ambush.released.wait()))
            return await asyncio.shield(coming)
        if fate in ("lost all", "unanswered"):
            assert ambush is not None
            self._losing_until = process.loop.time() + ambush.seconds
        if fate == "never came" or (
            fate != "unanswered"
            and process.loop.time() < self._losing_until
            and random.random() < 0.4
        ):
            await self._unknown(ambush)
        if not fate and etcd.lost_answers and random.random() < etcd.lost_answers:
            await self._lose(txn)
        result = await etcd.apply(txn)
        if fate == "killed":
            process.kill()
            await asyncio.sleep(0)
        if fate == "lost" or process.loop.time() < self._losing_until:
            await self._unknown(ambush)
        if fate == "still after":
            assert ambush is not None
            await self._wait(ambush.seconds)
        try:
            await self._pass()
        except MetastoreUnavailable as error:
            etcd.unknown_outcomes += 1
            raise OutcomeUnknown(str(error)) from error
        return result

    async def _unknown(self, ambush: Ambush | None) -> None:
        self._etcd.unknown_outcomes += 1
        if ambush is not None and ambush.fate not in ("lost all", "unanswered"):
            await self._wait(ambush.seconds)
        raise OutcomeUnknown("the answer was lost")

    async def _lose(self, txn: Txn) -> None:
        etcd, random = self._etcd, self._process.random
        etcd.unknown_outcomes += 1
        fate = random.random()
        if fate < 0.45:
            await etcd.apply(txn)
        elif fate < 0.65:
            late = asyncio.sleep(random.uniform(0.0, LATE_SECONDS))
            etcd.process.start(self._later(txn, late))
        await asyncio.sleep(random.uniform(0.001, 0.5))
        raise OutcomeUnknown("the answer was lost")

    async def _later(self, txn: Txn, on_its_way: Awaitable[object]) -> None:
        await on_its_way
        with contextlib.suppress(LeaseNotFound):  # it expired meanwhile: nobody hears of it
            await self._etcd.apply(txn)

    async def _late(self, txn: Txn, on_its_way: Awaitable[object]) -> TxnResult:
        await on_its_way
        return await self._etcd.apply(txn)

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
            if self._etcd.watch_lag:
                await asyncio.sleep(self._process.random.uniform(0.0, self._etcd.watch_lag))
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
