"""The schemes of storage classes and of buckets, as operators ask for them: behind the admin port."""

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.domain.storage_classes import why_not_mapped
from gateway.metadata.entries import BucketEntry
from gateway.metadata.errors import BucketBusy, NoSuchBucket
from gateway.metadata.records import BucketRecord
from ops.admin_errors import AdminError
from ops.clients import Clients
from ops.map_store import MapStore
from ops.refusal import Refused
from placement.cluster_map import ClusterMap
from placement.errors import MetastoreUnavailable
from placement.map_changes import MapRefused, demand_fits, with_class, without_class
from placement.schemes import Scheme


class StorageSchemes:
    """Reads and changes them; gateways follow the cluster map and the buckets by themselves."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def classes(self) -> dict[str, Any]:
        """The default scheme, and those of the storage classes that have one."""
        cluster = await self._map()
        return _shown(cluster)

    async def set_class(self, name: str, scheme: str) -> dict[str, Any]:
        """Give a storage class a scheme. Raises AdminError."""
        reason = why_not_mapped(name)
        if reason is not None:
            raise AdminError(400, "InvalidInput", f"{reason}.")
        wanted = _parsed(scheme)
        return _shown(await self._change(lambda now: with_class(now, name, wanted)))

    async def unset_class(self, name: str) -> dict[str, Any]:
        """Take new objects into the class no more. Raises AdminError."""
        if (await self._map()).schemes.of_class(name) is None:
            raise AdminError(404, "NoSuchEntity", f"Storage class {name} has no scheme.")
        return _shown(await self._change(lambda now: without_class(now, name)))

    async def bucket(self, name: str) -> dict[str, Any]:
        """The scheme of a bucket's STANDARD objects. Raises AdminError."""
        try:
            entry = await self._clients.metadata.buckets.read_unasked(name)
        except NoSuchBucket as error:
            raise AdminError(404, "NoSuchBucket", f"There is no bucket {name}.") from error
        return await self._of_bucket(entry)

    async def set_bucket(self, name: str, scheme: str) -> dict[str, Any]:
        """Store new STANDARD objects of a bucket under that scheme; "" for the default one. Raises
        AdminError."""
        named: tuple[int, int] | None = None
        if scheme:
            wanted = _parsed(scheme)
            try:
                demand_fits(await self._map(), wanted)
            except MapRefused as error:
                raise AdminError(409, "SchemeRefused", f"{error}.") from error
            named = (wanted.k, wanted.m)

        def change(record: BucketRecord) -> BucketRecord:
            return msgspec.structs.replace(record, scheme=named)

        try:
            entry = await self._clients.metadata.buckets.change_unasked(name, change)
        except NoSuchBucket as error:
            raise AdminError(404, "NoSuchBucket", f"There is no bucket {name}.") from error
        except BucketBusy as error:
            raise AdminError(409, "OperationAborted", f"Bucket {name} keeps changing.") from error
        return await self._of_bucket(entry)

    async def _of_bucket(self, entry: BucketEntry) -> dict[str, Any]:
        own = entry.record.scheme
        default = str((await self._map()).scheme)
        scheme = default if own is None else str(Scheme(*own))
        return {"bucket": entry.name, "scheme": scheme, "own": own is not None}

    async def _map(self) -> ClusterMap:
        cluster, _ = await MapStore(self._clients.metastore).current()
        if cluster is None:
            raise AdminError(503, "ServiceUnavailable", "There is no cluster map yet.")
        return cluster

    async def _change(self, edit: Callable[[ClusterMap], ClusterMap]) -> ClusterMap:
        try:
            new = await MapStore(self._clients.metastore).change(edit)
            # This process shows it at once; the others within moments, by their watches.
            await self._clients.topology.refresh()
        except MapRefused as error:
            raise AdminError(409, "SchemeRefused", f"{error}.") from error
        except (Refused, MetastoreUnavailable) as error:
            raise AdminError(503, "ServiceUnavailable", f"{error}.") from error
        return new


def _parsed(text: str) -> Scheme:
    try:
        return Scheme.parse(text)
    except ValueError as error:
        raise AdminError(400, "InvalidInput", f"{error}.") from error


def _shown(cluster: ClusterMap) -> dict[str, Any]:
    classes = {name: str(scheme) for name, scheme in cluster.classes}
    return {"default": str(cluster.scheme), "classes": classes}
