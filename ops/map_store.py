"""The cluster map in the metadata store: read, and changed by compare-and-swap."""

from collections.abc import Callable, Sequence

from gateway.metadata import keys
from gateway.metadata.records import MapCurrent, decode, encode
from ops.refusal import Refused
from placement.cluster_map import ClusterMap
from placement.errors import OutcomeUnknown
from placement.ids import Epoch
from placement.metastore.port import Compare, Metastore, Put, Txn, unchanged

RACES_MAX = 8


class MapStore:
    """Reads and replaces the newest map."""

    def __init__(self, metastore: Metastore) -> None:
        self._metastore = metastore

    async def current(self) -> tuple[ClusterMap | None, int]:
        """The newest map and the revision of `m/current` (0: there is none)."""
        (current,) = await self._metastore.get_many([keys.MAP_CURRENT])
        if current is None:
            return None, 0
        epoch = Epoch(decode(MapCurrent, current.value).epoch)
        (found,) = await self._metastore.get_many([keys.map_epoch(epoch)])
        if found is None:
            raise Refused("the metadata names a cluster map that is not there")
        return ClusterMap.decode(found.value), current.mod_revision

    async def replace(
        self, new: ClusterMap, revision: int, compares: Sequence[Compare] = ()
    ) -> bool:
        """Make `new` the newest map; False when another change came first, or one of `compares` does
        not hold. An answer that is lost is looked for."""
        value = new.encode()
        txn = Txn(
            (unchanged(keys.MAP_CURRENT, revision), *compares),
            (
                Put(keys.map_epoch(new.epoch), value),
                Put(keys.MAP_CURRENT, encode(MapCurrent(epoch=new.epoch))),
            ),
        )
        try:
            return (await self._metastore.txn(txn)).succeeded
        except OutcomeUnknown:
            (found,) = await self._metastore.get_many([keys.map_epoch(new.epoch)])
            if found is not None:
                return found.value == value
            return (await self._metastore.txn(txn)).succeeded

    async def change(
        self, edit: Callable[[ClusterMap], ClusterMap], compares: Sequence[Compare] = ()
    ) -> ClusterMap:
        """Apply a change to the newest map, again when another came first. Raises what `edit`
        raises, and Refused, also where `compares` do not hold."""
        for _ in range(RACES_MAX):
            now, revision = await self.current()
            if now is None:
                raise Refused("there is no cluster map yet: run `ostraka admin init`")
            new = edit(now)
            if await self.replace(new, revision, compares):
                return new
        raise Refused("the cluster map changes too fast: try again")
