"""Which folders are not free for a new drive: those that held one which the map still names."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from placement.clock import SystemClock
from placement.cluster_map import DriveState
from placement.ids import DriveId, Slot
from placement.map_changes import close_epochs, first_map, put_out, remove
from placement.membership import DriveRecord, drive_key, encode
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import DeleteRange, Put, Txn
from placement.schemes import Scheme
from placement.served_places import Served, bound, release, remember


def record(number: int, node: str = "", path: str = "/d") -> DriveRecord:
    return DriveRecord(
        drive=bytes([number]) * 16,
        node=node or f"n{number}",
        address="a",
        host=f"h{number}",
        zone="z",
        path=path,
        condition="up",
        capacity_bytes=1 << 40,
    )


def drive(number: int) -> DriveId:
    return DriveId(record(number).drive)


MAP = first_map([record(n) for n in range(1, 8)], Scheme(4, 2), 16)


async def served() -> MemoryMetastore:
    """Node n1 served drive 1 from /a and drive 2 from /b; both leases ended."""
    store = MemoryMetastore(SystemClock())
    await remember(store, "n1", "/a", Served(drive(1), Slot(4)))
    await remember(store, "n1", "/b", Served(drive(2), Slot(5)))
    return store


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scene)


def test_a_folder_is_bound_to_the_drive_that_its_node_served_from_it() -> None:
    async def scene() -> None:
        store = await served()
        assert await bound(store, MAP, "n1", ["/a", "/c"]) == {"/a": Served(drive(1), Slot(4))}
        assert await bound(store, MAP, "n2", ["/a"]) == {}
        assert await bound(store, None, "n1", ["/a"]) == {}
        await remember(store, "n1", "/a", Served(drive(3), Slot(0)))
        assert await bound(store, MAP, "n1", ["/a"]) == {"/a": Served(drive(3), Slot(0))}

    run(scene())


def test_a_drive_that_is_out_binds_its_folder_until_an_operator_gives_it_up() -> None:
    """That it was away for long says nothing about why its folder is empty."""

    async def scene() -> None:
        store = await served()
        out = put_out(MAP, [drive(1)])
        assert [d.state for d in out.drives if d.drive_id == drive(1)] == [DriveState.OUT]
        assert set(await bound(store, out, "n1", ["/a", "/b"])) == {"/a", "/b"}
        gone = remove(close_epochs(out), [drive(1)])
        assert set(await bound(store, gone, "n1", ["/a", "/b"])) == {"/b"}
        assert await release(store, [drive(2)]) == 1
        assert set(await bound(store, MAP, "n1", ["/a", "/b"])) == {"/a"}
        assert await release(store, [drive(2)]) == 0

    run(scene())


def test_a_drive_that_was_carried_away_has_left_its_folder_free() -> None:
    async def scene() -> None:
        store = await served()
        for at, free in (
            (record(1, "n1", "/a"), False),  # the run before, killed a moment ago
            (record(1, "n1", "/other"), True),
            (record(1, "n2", "/a"), True),
        ):
            await store.txn(Txn((), (Put(drive_key(drive(1)), encode(at)),)))
            assert (await bound(store, MAP, "n1", ["/a"]) == {}) is free
        await store.txn(Txn((), (DeleteRange(drive_key(drive(1))),)))
        assert await bound(store, MAP, "n1", ["/a"]) != {}

    run(scene())
