"""How much garbage waits, told by keepers of which one leads no longer, or not yet."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.domain import garbage_backlog
from gateway.metadata import keys
from gateway.metadata.limit_records import GarbageWaiting
from gateway.metadata.records import decode, encode
from ops.keeper.waiting import COUNT_SECONDS, PART, Waiting
from placement.metastore.port import DeleteRange, Metastore, Put, Txn, prefix_end
from tests.unit.metadata_doubles import HeldMetastore, Rig

SLOWED = 10 * PART


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage_backlog, "ENTRIES_SLOWED", SLOWED)


class Scene:
    """A queue of garbage, and keepers that count it."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.held = HeldMetastore(self.rig.memory)
        self._queued = 0

    def keeper(self, metastore: Metastore | None = None) -> Waiting:
        return Waiting(metastore or self.rig.memory, self.rig.clock)

    async def queue(self, count: int) -> None:
        for _ in range(count):
            self._queued += 1
            key = keys.garbage(self._queued.to_bytes(16, "big"))
            await self.rig.memory.txn(Txn((), (Put(key, b""),)))

    async def tell(self, keeper: Waiting, collected: int = 0) -> None:
        self.rig.clock.seconds += COUNT_SECONDS
        await keeper.tell(collected)

    async def told(self) -> GarbageWaiting | None:
        (found,) = await self.rig.memory.get_many([keys.GARBAGE_WAITING])
        return None if found is None else decode(GarbageWaiting, found.value)

    async def entries_told(self) -> int:
        told = await self.told()
        return 0 if told is None else told.entries


def run(scenario: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario(Scene())

    asyncio.run(main())


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_what_a_keeper_that_was_deposed_tells_late_does_not_stay() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.queue(20)
        scene.held.free.clear()
        late = asyncio.create_task(scene.tell(scene.keeper(scene.held)))
        await settled()
        await scene.queue(100)
        await scene.tell(scene.keeper())
        told = await scene.told()
        scene.held.free.set()
        await late
        assert await scene.told() == told
        assert await scene.entries_told() == 120

    run(scenario)


def test_who_leads_puts_right_what_another_told_meanwhile() -> None:
    """Of what a keeper that did not collect holds for waiting, most is done."""

    async def scenario(scene: Scene) -> None:
        former, leader = scene.keeper(), scene.keeper()
        await scene.queue(100)
        await scene.tell(leader, collected=90)
        assert await scene.entries_told() == 10
        await scene.tell(former)
        assert await scene.entries_told() == 100
        await scene.tell(leader, collected=90)
        assert await scene.entries_told() == 10

    run(scenario)


def test_what_was_not_told_for_another_was_first_is_told_the_next_time() -> None:
    async def scenario(scene: Scene) -> None:
        keeper = scene.keeper(scene.held)
        await scene.queue(20)
        scene.held.free.clear()
        telling = asyncio.create_task(scene.tell(keeper))
        await settled()
        await scene.tell(scene.keeper(), collected=20)
        scene.held.free.set()
        await telling
        assert await scene.entries_told() == 0
        await scene.tell(keeper)
        assert await scene.entries_told() == 20

    run(scenario)


def test_figures_of_another_history_or_a_later_version_are_replaced() -> None:
    async def scenario(scene: Scene) -> None:
        for value in (encode(GarbageWaiting(entries=3, revision=1 << 40)), b"\xff"):
            await scene.rig.memory.txn(Txn((), (Put(keys.GARBAGE_WAITING, value),)))
            await scene.queue(20)
            await scene.tell(scene.keeper())
            assert await scene.entries_told() == 20
            gone = DeleteRange(keys.GARBAGE, prefix_end(keys.GARBAGE))
            await scene.rig.memory.txn(Txn((), (gone,)))

    run(scenario)
