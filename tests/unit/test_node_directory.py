"""Nodes that come, go and move as gateways see them: the directory of clients, and the topology on it."""

import asyncio

import pytest

from gateway.metadata import keys
from gateway.metadata.records import MapCurrent, encode
from gateway.objects.topology import Topology
from placement.clock import SystemClock
from placement.cluster_map import ClusterMap, MapDrive
from placement.errors import PeerUnavailable
from placement.ids import BlobId, DriveId, Epoch, Slot
from placement.membership import DriveRecord, NodeRecord
from placement.membership_registrar import Registrar
from placement.membership_view import LiveView
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import Put, Txn
from placement.schemes import Scheme
from storage_node.directory import NodeDirectory
from storage_node.port import NodePort
from tests.unit.memory_node import MemoryNode
from tests.waiting import eventually_async

IDS = [DriveId(bytes([i + 1]) * 16) for i in range(3)]
BLOB = BlobId(bytes(16))


def node(name: str, run: bytes = b"r") -> NodeRecord:
    return NodeRecord(name=name, address=name, host=name, zone="z", run=run, started_ms=0)


def drive(drive_id: DriveId, name: str) -> DriveRecord:
    return DriveRecord(
        drive=drive_id,
        node=name,
        address=name,
        host=name,
        zone="z",
        path="/d",
        condition="up",
        capacity_bytes=1,
    )


class Rig:
    """Three nodes of one drive each."""

    async def open(self) -> "Rig":
        self.clock = SystemClock()
        self.metastore = MemoryMetastore(self.clock)
        self.ports = {f"n{i}": MemoryNode([IDS[i]]) for i in range(3)}
        self.registrars: dict[str, Registrar] = {}
        for i, name in enumerate(self.ports):
            await self.register(name, [IDS[i]])
        cluster = ClusterMap(
            Epoch(1),
            tuple(MapDrive(Slot(i), IDS[i], f"n{i}", f"n{i}", "z") for i in range(3)),
            Scheme(2, 1),
        )
        await self.put_map(cluster)
        self.view = LiveView(self.metastore, self.clock)
        await self.view.start()
        self.connected: list[str] = []

        def connect(record: NodeRecord) -> NodePort:
            self.connected.append(record.name)
            return self.ports[record.name]

        self.nodes = NodeDirectory(self.view, connect)
        self.topology = Topology(self.nodes, self.metastore, self.clock, view=self.view)
        await self.topology.start()
        return self

    async def register(self, name: str, drives: list[DriveId]) -> None:
        self.registrars[name] = Registrar(self.metastore, node(name), self.clock)
        await self.registrars[name].start([drive(one, name) for one in drives])

    async def put_map(self, cluster: ClusterMap) -> None:
        await self.metastore.txn(
            Txn(
                (),
                (
                    Put(keys.map_epoch(cluster.epoch), cluster.encode()),
                    Put(keys.MAP_CURRENT, encode(MapCurrent(epoch=cluster.epoch))),
                ),
            )
        )

    async def close(self) -> None:
        await self.topology.close()
        await self.nodes.close()
        await self.view.close()
        for registrar in self.registrars.values():
            await registrar.close()


def test_a_drive_takes_writes_only_while_its_node_is_registered() -> None:
    async def scene() -> None:
        rig = await Rig().open()
        assert rig.topology.writable == {0, 1, 2}
        await rig.registrars["n1"].close()
        await eventually_async(lambda: rig.topology.writable == {0, 2}, 10)
        # Whoever is not registered may still be read from: leases can be lost at once.
        assert set(rig.nodes) == {"n0", "n1", "n2"}
        assert set(rig.nodes.live) == {"n0", "n2"}
        assert [d.shard for d in (await rig.nodes["n1"].locate([BLOB]))[0]] == []
        await rig.register("n1", [IDS[1]])
        await eventually_async(lambda: rig.topology.writable == {0, 1, 2}, 10)
        assert rig.connected == ["n0", "n1", "n2"]
        await rig.close()

    asyncio.run(scene())


def test_a_drive_that_moved_is_asked_for_where_it_is() -> None:
    async def scene() -> None:
        rig = await Rig().open()
        await rig.registrars["n1"].close()
        rig.ports["n2"].drives[IDS[1]] = rig.ports["n1"].drives.pop(IDS[1])
        rig.registrars["n2"].update([drive(IDS[2], "n2"), drive(IDS[1], "n2")])
        await eventually_async(
            lambda: rig.topology.writable == {0, 2} or 1 in rig.topology.writable, 10
        )
        await eventually_async(
            lambda: {d.drive_id: d.node for d in rig.topology.write_order(BLOB)}[IDS[1]] == "n2", 10
        )
        await rig.topology.poll()
        assert rig.topology.writable == {0, 1, 2}
        assert {d.node for d in rig.topology.map.drives} == {"n0", "n2"}
        await rig.close()

    asyncio.run(scene())


def test_a_name_that_nobody_registered_reaches_nobody() -> None:
    async def scene() -> None:
        rig = await Rig().open()
        absent = rig.nodes["n9"]
        assert "n9" not in rig.nodes
        for call in (absent.reports(), absent.locate([BLOB]), absent.damaged(1)):
            with pytest.raises(PeerUnavailable, match="n9 is not registered"):
                await call
        await rig.close()

    asyncio.run(scene())


def test_a_node_that_hangs_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.objects.topology.POLL_SECONDS_MAX", 0.2)

    async def scene() -> None:
        rig = await Rig().open()

        async def hangs() -> tuple[()]:
            await asyncio.Event().wait()
            return ()

        rig.ports["n0"].reports = hangs  # type: ignore[method-assign]
        rig.topology.note_node("n2")
        assert rig.topology.writable == {0, 1}
        await rig.topology.poll()
        assert rig.topology.writable == {1, 2}
        await rig.close()

    asyncio.run(scene())


def test_a_changed_map_is_followed() -> None:
    async def scene() -> None:
        rig = await Rig().open()
        before = rig.topology.map_revision
        old = rig.topology.map
        await rig.put_map(
            ClusterMap(Epoch(2), old.drives[:2], Scheme(1, 1), open_epochs=(Epoch(1),))
        )
        await eventually_async(lambda: rig.topology.map.epoch == 2, 10)
        assert rig.topology.map_revision > before
        assert [len(order) for order in rig.topology.read_orders(BLOB)] == [2, 3]
        await rig.close()

    asyncio.run(scene())
