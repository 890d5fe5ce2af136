"""A metadata repository over memory whose store is slow, unfair and forgets to answer, by seed."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

from gateway.metadata.records import BlobRef, ObjectRecord
from gateway.metadata.sealing import SealingKey
from gateway.metadata.store import Metadata
from gateway.objects.port import Stored
from gateway.s3.message import Principal
from placement.errors import MetastoreUnavailable, OutcomeUnknown
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import (
    KeyValue,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    WatchBatch,
)


class TestClock:
    """Wall time that ticks by the millisecond; sleeping only lets others run."""

    __test__ = False

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000
        self.seconds = 0.0

    def now_ns(self) -> int:
        self.now_ms += 1
        return self.now_ms * 1_000_000

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class SeededRandomness:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token(self, size_bytes: int) -> bytes:
        return self._random.randbytes(size_bytes)

    def uniform(self) -> float:
        return self._random.random()


class FaultyMetastore:
    """Waits a random number of turns around every call. With `lost_answers`, that share of the
    transactions is applied or not and answered with OutcomeUnknown either way."""

    def __init__(self, inner: MemoryMetastore, seed: int, *, lost_answers: float = 0.0) -> None:
        self.inner = inner
        self.lost_answers = lost_answers
        self.unreachable = False
        self.transactions: list[Txn] = []
        self._random = random.Random(seed)

    async def _dawdle(self) -> None:
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        if self.unreachable:
            raise MetastoreUnavailable("unreachable")

    async def get_many(self, keys: Sequence[bytes]) -> tuple[KeyValue | None, ...]:
        await self._dawdle()
        found = await self.inner.get_many(keys)
        await self._dawdle()
        return found

    async def range(self, request: Range) -> RangeResult:
        await self._dawdle()
        return await self.inner.range(request)

    async def read(self, requests: Sequence[Range]) -> tuple[RangeResult, ...]:
        await self._dawdle()
        results = await self.inner.read(requests)
        await self._dawdle()
        return results

    async def txn(self, txn: Txn) -> TxnResult:
        await self._dawdle()
        fate = self._random.random()
        if fate < self.lost_answers / 2:
            raise OutcomeUnknown("lost before it was applied")
        self.transactions.append(txn)
        result = await self.inner.txn(txn)
        await self._dawdle()
        if fate < self.lost_answers:
            raise OutcomeUnknown("applied, but the answer was lost")
        return result

    def watch(
        self,
        key: bytes,
        range_end: bytes | None = None,
        *,
        start_revision: int = 0,
        previous: bool = False,
    ) -> AsyncIterator[WatchBatch]:
        return self.inner.watch(key, range_end, start_revision=start_revision, previous=previous)

    async def lease_grant(self, ttl_seconds: int) -> int:
        return await self.inner.lease_grant(ttl_seconds)

    async def lease_keep_alive(self, lease: int) -> int:
        return await self.inner.lease_keep_alive(lease)

    async def lease_revoke(self, lease: int) -> None:
        await self.inner.lease_revoke(lease)

    async def compact(self, revision: int) -> None:
        await self.inner.compact(revision)

    async def close(self) -> None:
        await self.inner.close()


class HeldMetastore(FaultyMetastore):
    """Transactions wait until they are `free`."""

    def __init__(self, inner: MemoryMetastore) -> None:
        super().__init__(inner, 0)
        self.free = asyncio.Event()
        self.free.set()

    async def txn(self, txn: Txn) -> TxnResult:
        await self.free.wait()
        return await super().txn(txn)


OWNER = Principal("000000000000", "0" * 64, "root", "", "AKIAROOT", is_root=True)
SEALING_KEY = SealingKey(bytes(range(32)))


class Rig:
    """One store and any number of gateways on it."""

    def __init__(self, seed: int = 0, *, lost_answers: float = 0.0) -> None:
        self.clock = TestClock()
        self.randomness = SeededRandomness(seed)
        self.memory = MemoryMetastore(self.clock)
        self.faulty = FaultyMetastore(self.memory, seed, lost_answers=lost_answers)
        self.metadata = self.gateway()

    def gateway(self) -> Metadata:
        return Metadata(
            self.faulty,
            clock=self.clock,
            randomness=self.randomness,
            sealing_key=SEALING_KEY,
        )

    async def ready(self, bucket: str = "bucket") -> None:
        """The root account and one bucket, made without faults."""
        lost, self.faulty.lost_answers = self.faulty.lost_answers, 0.0
        await self.metadata.accounts.ensure_root("AKIAROOT", "root-secret")
        await self.metadata.create_bucket(bucket, OWNER, "us-east-1")
        self.faulty.lost_answers = lost

    def record(self, etag: bytes = b"e" * 16) -> ObjectRecord:
        """A plain object in a group of its own."""
        blob = self.randomness.token(16)
        ref = BlobRef(blob=blob, k=1, m=2, stripe_size_bytes=1 << 20, size_bytes=3)
        return ObjectRecord(
            owner=OWNER.account_id,
            group=blob,
            size_bytes=3,
            etag=etag,
            modified_ms=self.clock.now_ns() // 1_000_000,
            commit_id=self.randomness.token(8),
            data=ref,
        )


def stored(record: ObjectRecord, *, narrow: bool = False) -> Stored:
    assert record.data is not None
    return Stored(record.data, (), (), narrow)
