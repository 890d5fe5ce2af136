"""Commits judged again under a newer map: what may stand, and what is stored anew."""

import asyncio
import dataclasses

import pytest

from gateway.metadata import keys
from gateway.metadata.records import MapCurrent, encode
from gateway.objects.errors import PlacementChanged
from placement.cluster_map import DriveState
from placement.ids import BlobId, Epoch
from placement.schemes import Scheme
from tests.unit.memory_node import MemoryNode
from tests.unit.test_objects import STRIPE, Fixture, ids


def test_a_shard_on_a_spare_that_is_draining_now_is_not_acknowledged() -> None:
    """Its homes are as they were, but it lies elsewhere: moves may have looked there already."""

    async def main() -> None:
        fixture = Fixture(Scheme(2, 1, STRIPE), [MemoryNode(ids(1, n)) for n in range(6)])
        await fixture.topology.start()
        staged = await fixture.store.stage_bytes(b"bytes")
        order = fixture.topology.write_order(BlobId(staged.ref.blob))
        fixture.fail(order[1].drive_id)
        await fixture.store.commit(staged, b"o/owner", b"record")
        drives = tuple(
            dataclasses.replace(drive, state=DriveState.DRAINING)
            if drive.slot == order[2].slot
            else drive
            for drive in fixture.map.drives
        )
        newer = dataclasses.replace(
            fixture.map, epoch=Epoch(2), drives=drives, open_epochs=(Epoch(1),), lineage=(Epoch(1),)
        )
        fixture.metastore.put(keys.map_epoch(Epoch(2)), newer.encode())
        fixture.metastore.put(keys.MAP_CURRENT, encode(MapCurrent(epoch=2)))
        with pytest.raises(PlacementChanged):
            await fixture.store.renew(staged)
        again = await fixture.store.restage(staged)
        stored = await fixture.store.commit(again, b"o/owner", b"record")
        assert fixture.topology.map_compare in stored.compares
        await fixture.topology.close()
        await fixture.store.close()

    asyncio.run(main())
