"""What the admin port of `serve` answers from: the keeper's duties, the node and the workers."""

import asyncio
import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.domain.iam import IamRefused
from gateway.iam.by_operators import act
from gateway.kms.port import KeyExists, KeyIdInvalid, KeyNotFound, KeyServiceError
from gateway.kms.ring import KeyInfo
from gateway.metadata.errors import (
    AccountExists,
    AccountInUse,
    AccountInvalid,
    Contended,
    NoSuchAccount,
)
from gateway.metadata.records import AccountRecord
from gateway.metrics import DriveReads, RequestCounts
from ops.admin_api import Account, MasterKey, Status
from ops.admin_errors import AdminError
from ops.clients import Clients
from ops.collected import Growing, RequestTotals
from ops.drive_counts import commit_counts, drive_counts, shard_commits
from ops.limits import Limits, largest_buckets
from ops.lost_objects import LostObjects
from ops.metrics import CommitCounts, DriveCounts, StoreCounts
from ops.object_locate import ObjectShards
from ops.process_counts import (
    PROCESS_VERB,
    CommitFacts,
    MetadataFacts,
    ProcessCounts,
    ProcessWatch,
)
from ops.settings import ProcessSettings
from ops.storage_process import NODE
from ops.storage_schemes import StorageSchemes
from placement.errors import MetastoreUnavailable, PeerUnavailable
from placement.rpc.client import RpcClient
from storage_node.port import DriveCondition, DriveReport

if TYPE_CHECKING:
    from ops.keeper_process import Duties

COUNTS_VERB = 96
PROCESS_TIMEOUT_SECONDS = 2.0
READY_TIMEOUT_SECONDS = 2.0
_SERVING = (DriveCondition.UP, DriveCondition.RECOVERING)


class AdminBackend:
    """Implements `ops.admin_api.Backend`."""

    def __init__(
        self,
        settings: ProcessSettings,
        clients: Clients,
        duties: "Duties | None",
        watch: ProcessWatch,
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._own_duties = duties
        self._limits = Limits(clients.metadata, clients.clock)
        self._watch = watch
        self._workers: dict[int, RpcClient] = {}
        self._requests = RequestTotals()
        self._grown = Growing()
        self.schemes = StorageSchemes(clients)
        self.lost_objects = LostObjects(clients, self._reports)
        self.object_shards = ObjectShards(clients, self._reports)

    @property
    def _duties(self) -> "Duties":
        assert self._own_duties is not None, "the duties run in another process"
        return self._own_duties

    async def close(self) -> None:
        """Release the connections to the workers."""
        for worker in self._workers.values():
            await worker.close()

    async def ready(self) -> bool:
        """The metadata answers and m + 1 drives take writes."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_SECONDS):
                reports = await self._clients.node.reports()
                await self._clients.metastore.compact(0)
        except (PeerUnavailable, MetastoreUnavailable, TimeoutError):
            return False
        serving = sum(report.condition in _SERVING for report in reports)
        return serving >= self._clients.topology.map.scheme.m + 1

    async def status(self) -> Status:
        """See Status."""
        reports = await self._reports()
        repair, sweep = self._duties.repair.progress, self._duties.sweep.progress
        live = frozenset(report.drive for report in reports if report.condition in _SERVING)
        pending = repair.pending_with(live) + self._duties.reencode.progress.pending
        if not pending and await self._duties.repair.marks():
            pending = 1
        scheme = self._clients.topology.map.scheme
        away = sum(report.condition not in (*_SERVING, DriveCondition.FULL) for report in reports)
        up = sum(report.condition in _SERVING for report in reports)
        tolerance = self._clients.topology.map.schemes.tolerance - away
        if repair.tolerance is not None:
            tolerance = min(tolerance, repair.tolerance)
        if away > scheme.m:
            state = "unavailable"
        elif up < scheme.m + 1:
            state = "read-only"
        elif pending or any(report.condition is not DriveCondition.UP for report in reports):
            state = "degraded"
        else:
            state = "ok"
        return Status(
            state,
            reports,
            pending,
            sweep.orphans,
            max(tolerance, 0),
            duties=self._duties_told(),
        )

    async def _reports(self) -> tuple[DriveReport, ...]:
        """One of every drive in the map."""
        return await self._clients.node.reports()

    def _duties_told(self) -> dict[str, dict[str, Any]]:
        """What the keeper's duties tell, and how each gets on."""
        told = self._duties.headway()
        told["scrub"] |= self._duties.scrub.told()
        told["snapshot"] |= self._duties.snapshot_told()
        return told

    async def counts(self) -> StoreCounts:
        """Everything that is counted anywhere in the store."""
        requests, processes = await self._process_counts()
        processes.append(self._watch.counts())
        reports: tuple[DriveReport, ...] = ()
        of_drives: tuple[DriveCounts, ...] = ()
        commits: tuple[CommitCounts, ...] = ()
        metadata: MetadataFacts | None = None
        tolerance = 0
        pending = 1
        with contextlib.suppress(PeerUnavailable, MetastoreUnavailable):
            status = await self.status()
            reports, tolerance = status.drives, status.tolerance
            pending = status.repairs_pending
            reply = await self._clients.rpc.call(
                PROCESS_VERB, b"", timeout_seconds=PROCESS_TIMEOUT_SECONDS
            )
            storage = msgspec.msgpack.decode(reply.header, type=ProcessCounts)
            processes.append(storage)
            of_drives, shards = await self._node_counts(reports, requests)
            commits = (shards, commit_counts("metadata", *_facts(storage), self._grown))
            metadata = storage.metadata
        return StoreCounts(
            requests=requests,
            drives=reports,
            drive_counts=of_drives,
            commits=commits,
            metadata=metadata,
            node=NODE,
            processes=tuple(sorted(processes, key=lambda process: process.name)),
            repairs_pending=pending,
            repairs_done=self._duties.repair.progress.rebuilt + self._duties.reencode.progress.done,
            orphan_shards=self._duties.sweep.progress.orphans,
            garbage_pending=self._duties.garbage.pending,
            lifecycle=asdict(self._duties.lifecycle.progress),
            scrub=self._duties.scrub.told(),
            snapshot=self._duties.snapshot_told(),
            duties=self._duties.headway(),
            buckets=largest_buckets(self._clients.metadata.quotas),
            tolerance=tolerance,
            map_epoch=self._clients.topology.map.epoch,
            map_open_epochs=len(self._clients.topology.map.open_epochs),
            data_shards=self._clients.topology.map.scheme.k,
            parity_shards=self._clients.topology.map.scheme.m,
        )

    async def _process_counts(self) -> tuple[RequestCounts, list[ProcessCounts]]:
        """What the workers counted."""
        answers = await asyncio.gather(*map(self._worker_counts, range(self._settings.workers)))
        for number, (requests, _) in enumerate(answers):
            self._requests.take(number, requests)
        processes = [process for _, process in answers if process is not None]
        return self._requests.total(), processes

    async def _node_counts(
        self, reports: tuple[DriveReport, ...], requests: RequestCounts
    ) -> tuple[tuple[DriveCounts, ...], CommitCounts]:
        stats = await self._clients.node.stats()
        drives = drive_counts(reports, stats, self._grown)
        for report, shown in zip(reports, drives, strict=True):
            direct = requests.drive_reads.get(report.drive.hex(), DriveReads())
            own = self._clients.node.direct_reads.get(report.drive, DriveReads())
            shown.operations["get"] += direct.reads + own.reads
            shown.seconds["get"] += direct.seconds + own.seconds
            shown.bytes["get"] += direct.read_bytes + own.read_bytes
        return tuple(drives), shard_commits(stats, self._grown)

    async def _worker_counts(
        self, number: int
    ) -> tuple[RequestCounts | None, ProcessCounts | None]:
        try:
            worker = self._workers.get(number)
            if worker is None:
                worker = await RpcClient.connect(
                    self._settings.worker_socket(number),
                    name="keeper",
                    timeout_seconds=PROCESS_TIMEOUT_SECONDS,
                )
                self._workers[number] = worker
            counts = worker.call(COUNTS_VERB, b"", timeout_seconds=PROCESS_TIMEOUT_SECONDS)
            process = worker.call(PROCESS_VERB, b"", timeout_seconds=PROCESS_TIMEOUT_SECONDS)
            counted, told = await asyncio.gather(counts, process)
        except PeerUnavailable:
            return None, None
        return (
            msgspec.msgpack.decode(counted.header, type=RequestCounts),
            msgspec.msgpack.decode(told.header, type=ProcessCounts),
        )

    async def create_account(
        self, name: str, email: str, access_key: str | None, secret_key: str | None
    ) -> Account:
        """Raises AdminError."""
        try:
            made = await self._clients.metadata.accounts.create(
                name, email=email, access_key=access_key, secret_key=secret_key
            )
        except AccountExists as error:
            raise AdminError(409, "EntityAlreadyExists", str(error)) from error
        except AccountInvalid as error:
            raise AdminError(400, "InvalidInput", str(error)) from error
        shown = _shown(made.record)
        return Account(
            shown.name,
            shown.email,
            shown.account_id,
            shown.canonical_id,
            made.access_key,
            made.secret_key,
        )

    async def list_accounts(self) -> list[Account]:
        """All accounts, without secrets."""
        return [_shown(record) for record in await self._clients.metadata.accounts.list()]

    async def delete_account(self, name: str) -> None:
        """Raises AdminError."""
        try:
            await self._clients.metadata.accounts.delete(name)
        except NoSuchAccount as error:
            raise AdminError(404, "NoSuchEntity", str(error)) from error
        except AccountInUse as error:
            raise AdminError(409, "DeleteConflict", str(error)) from error

    async def iam(self, account: str, action: str, parameters: dict[str, str]) -> dict[str, Any]:
        """An action of IAM as an account's root. Raises AdminError."""
        try:
            answer = await act(self._clients.metadata, account, action, parameters)
        except IamRefused as refused:
            code, status = refused.refusal.value
            raise AdminError(status, code, refused.message) from refused
        except NoSuchAccount as error:
            raise AdminError(404, "NoSuchEntity", str(error)) from error
        except Contended as error:
            raise AdminError(409, "ConcurrentModification", str(error)) from error
        return dict(answer or {})

    @property
    def limits(self) -> Limits:
        """Buckets, quotas and settings."""
        return self._limits

    async def create_kms_key(self, key_id: str) -> MasterKey:
        """Raises AdminError."""
        try:
            return _master_key(await self._clients.keys.create(key_id))
        except KeyServiceError as error:
            raise _key_refused(error) from error

    async def list_kms_keys(self) -> list[MasterKey]:
        """All master keys."""
        return [_master_key(info) for info in await self._clients.keys.list()]

    async def rotate_kms_key(self, key_id: str) -> MasterKey:
        """Raises AdminError."""
        try:
            return _master_key(await self._clients.keys.rotate(key_id))
        except KeyServiceError as error:
            raise _key_refused(error) from error


def _master_key(info: KeyInfo) -> MasterKey:
    return MasterKey(info.key_id, info.versions, info.created_ms, info.rotated_ms)


def _key_refused(error: KeyServiceError) -> AdminError:
    match error:
        case KeyExists():
            return AdminError(409, "EntityAlreadyExists", str(error))
        case KeyNotFound():
            return AdminError(404, "NoSuchEntity", str(error))
        case KeyIdInvalid():
            return AdminError(400, "InvalidInput", str(error))
        case _:
            return AdminError(503, "ServiceUnavailable", str(error))


def _facts(storage: ProcessCounts) -> tuple[int, int, float]:
    facts = storage.commits.get("metadata", CommitFacts(0, 0, 0.0))
    return facts.commits, facts.members, facts.seconds


def _shown(record: AccountRecord) -> Account:
    return Account(
        record.name,
        record.email,
        record.account_id,
        record.canonical_id,
        record.access_keys[0] if record.access_keys else "",
    )
