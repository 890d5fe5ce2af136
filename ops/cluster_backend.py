"""What the admin port of a cluster's gateway or keeper answers from: the map, the nodes, and what the
leaders of the keepers' duties published."""

import asyncio
import json
from typing import Any

from ops.admin_api import Account, Backend, MasterKey, Status
from ops.admin_backend import READY_TIMEOUT_SECONDS, AdminBackend
from ops.admin_errors import AdminError
from ops.clients import Clients
from ops.cluster_admin import named_reports
from ops.drive_counts import CommitTotals
from ops.limits import Limits, largest_buckets
from ops.lost_objects import LostObjects
from ops.metrics import StoreCounts
from ops.object_locate import ObjectShards
from ops.process_counts import MetadataFacts, ProcessWatch
from ops.scheme_api import Schemes
from ops.settings import ProcessSettings
from placement.cluster_map import DriveState
from placement.errors import MetastoreUnavailable, PeerUnavailable
from placement.membership import PROGRESS
from placement.metastore.etcd.store import EtcdMetastore
from placement.metastore.port import Range, prefix_end
from storage_node.port import DriveCondition, DriveReport

_SERVING = (DriveCondition.UP, DriveCondition.RECOVERING)


class ClusterBackend(AdminBackend):
    """As in `serve`, with many nodes and duties that run elsewhere."""

    def __init__(self, settings: ProcessSettings, clients: Clients, watch: ProcessWatch) -> None:
        super().__init__(settings, clients, None, watch)
        self._sent = CommitTotals()

    async def ready(self) -> bool:
        """The metadata answers and m + 1 drives take writes."""
        topology = self._clients.topology
        try:
            async with asyncio.timeout(READY_TIMEOUT_SECONDS):
                await self._clients.metastore.range(Range(PROGRESS, limit=1))
        except (MetastoreUnavailable, TimeoutError):
            return False
        return len(topology.writable) >= topology.map.scheme.m + 1

    async def status(self) -> Status:
        """See Status."""
        reports = await self._reports()
        progress = await self.progress()
        cluster = self._clients.topology.map
        wanted = {d.drive_id for d in cluster.drives if d.state is DriveState.UP}
        up = [report for report in reports if report.drive in wanted]
        serving = sum(report.condition in _SERVING for report in up)
        away = sum(report.condition not in (*_SERVING, DriveCondition.FULL) for report in up)
        repair = progress.get("repair", {})
        # Without a keeper nobody knows what is missing: that is no reason to call it nothing.
        pending = int(repair.get("pending", 1)) + int(
            progress.get("re-encoding", {}).get("pending", 0)
        )
        tolerance = cluster.schemes.tolerance - away
        if (known := repair.get("tolerance")) is not None:
            tolerance = min(tolerance, int(known))
        if serving < cluster.scheme.k:
            state = "unavailable"
        elif serving < cluster.scheme.m + 1:
            state = "read-only"
        elif pending or any(report.condition is not DriveCondition.UP for report in up):
            state = "degraded"
        else:
            state = "ok"
        orphans = int(progress.get("sweep", {}).get("orphans", 0))
        return Status(
            state,
            reports,
            pending,
            orphans,
            max(tolerance, 0),
            epoch=cluster.epoch,
            moving=bool(cluster.open_epochs),
            duties=progress,
        )

    async def progress(self) -> dict[str, dict[str, Any]]:
        """What the leaders of the duties last said, by duty."""
        found = await self._clients.metastore.range(Range(PROGRESS, prefix_end(PROGRESS)))
        return {kv.key[len(PROGRESS) :].decode(): json.loads(kv.value) for kv in found.kvs}

    async def counts(self) -> StoreCounts:
        """This gateway's requests and processes, and the gauges of the whole cluster."""
        requests, processes = await self._process_counts()
        processes.append(self._watch.counts(self._clients.commits()))
        counts = StoreCounts(
            requests=requests,
            processes=tuple(sorted(processes, key=lambda process: process.name)),
            repairs_pending=1,
            metadata=await self._room(),
            map_epoch=self._clients.topology.map.epoch,
            map_open_epochs=len(self._clients.topology.map.open_epochs),
        )
        for process in processes:
            self._sent.take(process.name, process.commits)
        counts.commits = (self._sent.total("metadata"),)
        counts.metadata_reads = self._sent.total("reads")
        try:
            status = await self.status()
        except (PeerUnavailable, MetastoreUnavailable):
            return counts
        counts.buckets = largest_buckets(self._clients.metadata.quotas)
        scheme = self._clients.topology.map.scheme
        counts.data_shards, counts.parity_shards = scheme.k, scheme.m
        counts.drives, counts.tolerance = status.drives, status.tolerance
        counts.repairs_pending, counts.orphan_shards = status.repairs_pending, status.orphan_shards
        counts.repairs_done = int(status.duties.get("repair", {}).get("rebuilt", 0))
        counts.duties = status.duties
        counts.lifecycle = status.duties.get("lifecycle", {})
        counts.snapshot = status.duties.get("snapshot", {})
        counts.scrub = status.duties.get("scrub", {})
        counts.garbage_pending = int(status.duties.get("garbage", {}).get("pending", 0))
        return counts

    async def _room(self) -> MetadataFacts | None:
        store = self._clients.metastore
        assert isinstance(store, EtcdMetastore)
        try:
            async with asyncio.timeout(READY_TIMEOUT_SECONDS):
                etcd = await store.status()
        except (MetastoreUnavailable, TimeoutError):
            return None
        return MetadataFacts(
            etcd.size_bytes, etcd.in_use_bytes, etcd.quota_bytes, etcd.full or store.full
        )

    async def _reports(self) -> tuple[DriveReport, ...]:
        """One of every drive in the map; those that nobody reports are missing."""
        return await named_reports(self._clients)


class WaitingBackend:
    """A backend that comes later: until then the process is alive and not ready."""

    def __init__(self) -> None:
        self.backend: Backend | None = None
        self._leaving = False

    def leave(self) -> None:
        """Not ready from now on, whatever comes."""
        self._leaving = True

    @property
    def schemes(self) -> Schemes:
        """See Backend."""
        return self._demanded().schemes

    def _demanded(self) -> Backend:
        if self.backend is None:
            raise AdminError(503, "ServiceUnavailable", "The cluster cannot be reached yet.")
        return self.backend

    async def ready(self) -> bool:
        """False before the backend is there, and once this process leaves."""
        return not self._leaving and self.backend is not None and await self.backend.ready()

    async def counts(self) -> StoreCounts:
        """See Backend."""
        return await self._demanded().counts()

    async def status(self) -> Status:
        """See Backend."""
        return await self._demanded().status()

    @property
    def lost_objects(self) -> LostObjects:
        """See Backend."""
        return self._demanded().lost_objects

    @property
    def object_shards(self) -> ObjectShards:
        """See Backend."""
        return self._demanded().object_shards

    async def create_account(
        self, name: str, email: str, access_key: str | None, secret_key: str | None
    ) -> Account:
        """See Backend."""
        return await self._demanded().create_account(name, email, access_key, secret_key)

    async def list_accounts(self) -> list[Account]:
        """See Backend."""
        return await self._demanded().list_accounts()

    async def delete_account(self, name: str) -> None:
        """See Backend."""
        await self._demanded().delete_account(name)

    async def iam(self, account: str, action: str, parameters: dict[str, str]) -> dict[str, Any]:
        """See Backend."""
        return await self._demanded().iam(account, action, parameters)

    @property
    def limits(self) -> Limits:
        """See Backend."""
        return self._demanded().limits

    async def create_kms_key(self, key_id: str) -> MasterKey:
        """See Backend."""
        return await self._demanded().create_kms_key(key_id)

    async def list_kms_keys(self) -> list[MasterKey]:
        """See Backend."""
        return await self._demanded().list_kms_keys()

    async def rotate_kms_key(self, key_id: str) -> MasterKey:
        """See Backend."""
        return await self._demanded().rotate_kms_key(key_id)
