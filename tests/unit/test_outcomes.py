"""How often a transaction whose answer was lost is sent again."""

import asyncio

import pytest

from gateway.metadata.outcomes import (
    UNKNOWN_SECONDS_MAX,
    UNKNOWN_TRIES,
    Applied,
    Transactions,
)
from placement.errors import MetastoreUnavailable, OutcomeUnknown
from placement.metastore.port import Txn, TxnResult


class Time:
    """A clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now_ns(self) -> int:
        return int(self.seconds * 1e9)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def uniform(self) -> float:
        return 0.5

    def token(self, size_bytes: int) -> bytes:
        return bytes(size_bytes)


class SilentStore:
    """Answers nothing for the first `lost` tries, each of which lasts `try_seconds`."""

    def __init__(self, time: Time, *, lost: int, try_seconds: float) -> None:
        self.time, self.lost, self.try_seconds = time, lost, try_seconds
        self.tries = 0

    async def txn(self, txn: Txn) -> TxnResult:
        self.tries += 1
        if self.tries <= self.lost:
            await self.time.sleep(self.try_seconds)
            raise OutcomeUnknown("no answer")
        return TxnResult(True, 7, ())


def run(store: SilentStore) -> Applied:
    transactions = Transactions(store, clock=store.time, randomness=store.time)  # type: ignore[arg-type]
    return asyncio.run(transactions.run(Txn()))


def test_answers_that_are_lost_with_their_connection_are_asked_for_again() -> None:
    store = SilentStore(Time(), lost=UNKNOWN_TRIES - 1, try_seconds=0.01)
    assert run(store) == Applied(True, True, 7)
    assert store.tries == UNKNOWN_TRIES


def test_a_store_that_never_answers_is_given_up_after_one_long_try() -> None:
    store = SilentStore(Time(), lost=100, try_seconds=30.0)
    with pytest.raises(OutcomeUnknown):
        run(store)
    assert store.tries == 1
    assert store.time.seconds == 30.0


def test_tries_go_on_only_for_so_long() -> None:
    store = SilentStore(Time(), lost=100, try_seconds=UNKNOWN_SECONDS_MAX / 2.5)
    with pytest.raises(OutcomeUnknown):
        run(store)
    assert store.tries == 3


def test_what_was_never_sent_is_known_not_to_have_happened() -> None:
    class Absent(SilentStore):
        async def txn(self, txn: Txn) -> TxnResult:
            self.tries += 1
            raise MetastoreUnavailable("not connected")

    store = Absent(Time(), lost=0, try_seconds=0.0)
    with pytest.raises(MetastoreUnavailable) as raised:
        run(store)
    assert not isinstance(raised.value, OutcomeUnknown)
    assert store.tries == 1
