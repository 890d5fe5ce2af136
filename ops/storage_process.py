"""The storage process of `serve`: owns every write to the drives and to the embedded metadata.

It keeps the cluster map of the one machine true to its drives: makes it at the first start, gives
new drives slots, and lets a drive that came back empty take over its slot under its new identity.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

from gateway.metadata.errors import MetadataError
from gateway.metadata.sealing import SealingKey
from gateway.metadata.store import Metadata
from ops.map_store import MapStore
from ops.process_counts import PROCESS_VERB, CommitFacts, MetadataFacts, ProcessWatch
from ops.refusal import Refused
from ops.settings import ProcessSettings
from placement.balance import balanced, balanced_again
from placement.clock import SystemClock, SystemRandomness
from placement.cluster_map import ClusterMap, DriveState, MapDrive
from placement.errors import MetastoreUnavailable
from placement.ids import DriveId, Epoch, Slot
from placement.map_changes import LINEAGE_MAX
from placement.membership import MembershipRefused, join_cluster
from placement.metastore.port import Metastore
from placement.metastore.serve import serve_metastore
from placement.metastore.sqlite import SqliteOwner
from placement.rpc.server import RpcServer
from placement.schemes import Scheme, default_scheme
from storage_node.care import DriveConfig, NodeConfig
from storage_node.files import RealFiles
from storage_node.identity import DriveRefused
from storage_node.joint_server import serve_joint_puts
from storage_node.node import Node
from storage_node.port import DriveCondition, DriveReport
from storage_node.server import serve_node

NODE = "local"
HOST = "local"
ZONE = "local"

log = logging.getLogger("ostraka.storage")


class MapKeeper(MapStore):
    """The cluster map of one machine: this process says which drives there are, the admin port which
    schemes."""

    def __init__(self, metastore: Metastore) -> None:
        super().__init__(metastore)
        self._lock = asyncio.Lock()

    async def adopted(self, slot: Slot, old: DriveId, new: DriveId) -> None:
        """A drive came back empty: the slot is the same, so placement is, too."""
        now, _ = await self.current()
        if now is None:
            return

        def edit(current: ClusterMap) -> ClusterMap:
            drives = tuple(
                renamed(drive, new) if drive.slot == slot else drive for drive in current.drives
            )
            return dataclasses.replace(current, epoch=Epoch(current.epoch + 1), drives=drives)

        async with self._lock:
            await self.change(edit)
        log.info("slot %d: drive %s takes over from %s", slot, new.hex(), old.hex())


def renamed(drive: MapDrive, drive_id: DriveId) -> MapDrive:
    """The same place with another drive in it."""
    return dataclasses.replace(drive, drive_id=drive_id, state=DriveState.UP)


def next_map(
    now: ClusterMap | None, ids: list[DriveId | None], asked: Scheme | None
) -> ClusterMap | None:
    """The map that fits these drives (in slot order, None where one is away); None for no change.

    Drives are only ever added. Data written under an earlier map stays where it is until it is
    moved, so that map stays open.
    """
    if now is None:
        known = tuple(_place(slot, drive) for slot, drive in enumerate(ids) if drive is not None)
        return balanced(ClusterMap(Epoch(1), known, asked or default_scheme(len(ids))))
    slots = {drive.slot for drive in now.drives}
    added = tuple(
        _place(slot, drive)
        for slot, drive in enumerate(ids)
        if slot not in slots and drive is not None
    )
    scheme = asked or now.scheme
    if not added and scheme == now.scheme:
        return None
    now = dataclasses.replace(now, scheme=scheme)
    return dataclasses.replace(
        balanced_again(now, now.drives + added) if added else now,
        epoch=Epoch(now.epoch + 1),
        open_epochs=(now.epoch, *now.open_epochs) if added else now.open_epochs,
        lineage=(*now.lineage, now.epoch)[-LINEAGE_MAX:] if added else now.lineage,
    )


def _place(slot: int, drive: DriveId) -> MapDrive:
    return MapDrive(Slot(slot), drive, NODE, HOST, ZONE)


async def run_storage(
    settings: ProcessSettings, stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    """The role's main."""
    clock, randomness = SystemClock(), SystemRandomness()
    try:
        owner = SqliteOwner(
            str(Path(settings.directory, "metadata", "metadata.sqlite")),
            clock,
            cluster_id=settings.cluster_id,
        )
    except MetastoreUnavailable as error:
        raise Refused(str(error)) from error
    try:
        incarnation = await _incarnation(settings, owner, randomness)
        maps = MapKeeper(owner)
        now, _ = await maps.current()
        node = await _open_node(settings, incarnation, now, maps, clock, randomness)
        try:
            reports = node.reports()
            _refuse_lost_metadata(now, reports)
            asked = Scheme(*settings.scheme) if settings.scheme else None
            ids = [_id_of(report) for report in reports]
            now, revision = await maps.current()  # opening the drives may have changed it
            new = next_map(now, ids, asked)
            if new is not None:
                replaced = await maps.replace(new, revision)
                assert replaced, "nobody else is served before this process is ready"
            _refuse_missing(new or now, reports)
            await _ensure_root(settings, owner)
            watch = ProcessWatch("storage").start()
            told = {
                PROCESS_VERB: watch.handler(
                    lambda: {"metadata": _commits_of(owner)}, lambda: _room_of(owner)
                )
            }
            server = RpcServer(
                {
                    **serve_node(node),
                    **serve_metastore(owner),
                    **serve_joint_puts(node, owner),
                    **told,
                },
                name="storage",
            )
            await server.listen_unix(settings.storage_socket)
            ready()
            await _first_of(stop, owner.broken)
            watch.stop()
            await server.close()
        finally:
            await node.close()
    finally:
        await owner.close()
    if not stop.is_set():
        raise SystemExit("the metadata must be opened again")  # the supervisor starts us anew


async def _incarnation(
    settings: ProcessSettings, owner: Metastore, randomness: SystemRandomness
) -> int:
    """Which life of the store's metadata this is. Raises Refused."""
    try:
        record = await join_cluster(
            owner, settings.cluster_key, randomness, cluster_id=settings.cluster_id
        )
    except MembershipRefused as error:
        raise Refused(str(error)) from error
    if record.cluster_id != settings.cluster_id:
        raise Refused("the metadata belongs to another store")
    return record.incarnation


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in waiting:
            future.cancel()


def _commits_of(owner: SqliteOwner) -> CommitFacts:
    return CommitFacts(owner.batches, owner.transactions, owner.commit_seconds)


def _room_of(owner: SqliteOwner) -> MetadataFacts | None:
    try:
        return MetadataFacts(*owner.room())
    except MetastoreUnavailable as error:
        log.warning("the metadata's room cannot be told: %s", error)
        return None


async def _open_node(
    settings: ProcessSettings,
    incarnation: int,
    now: ClusterMap | None,
    maps: MapKeeper,
    clock: SystemClock,
    randomness: SystemRandomness,
) -> Node:
    expected = {drive.slot: drive.drive_id for drive in now.drives} if now else {}
    config = NodeConfig(
        cluster_id=settings.cluster_id,
        incarnation=incarnation,
        drives=tuple(
            DriveConfig(
                slot=Slot(slot),
                path=drive.path,
                may_adopt=drive.may_adopt,
                expected=expected.get(Slot(slot)),
            )
            for slot, drive in enumerate(settings.drives)
        ),
    )
    try:
        return await Node.open(config, RealFiles(), clock, randomness, on_adopted=maps.adopted)
    except DriveRefused as error:
        raise Refused(str(error)) from error


def _id_of(report: DriveReport) -> DriveId | None:
    return report.drive if any(report.drive) else None


def _refuse_lost_metadata(now: ClusterMap | None, reports: tuple[DriveReport, ...]) -> None:
    if now is None and any(report.shards for report in reports):
        raise Refused(
            "the drives hold data but the metadata is gone: restore DIR/metadata first, or rebuild"
            " it from the drives with `ostraka admin rebuild directory DIR`"
        )


def _refuse_missing(now: ClusterMap | None, reports: tuple[DriveReport, ...]) -> None:
    assert now is not None
    away = [
        report
        for report in reports
        if report.condition in (DriveCondition.MISSING, DriveCondition.FAILED)
    ]
    if len(away) > now.scheme.m:
        paths = ", ".join(report.path for report in away)
        raise Refused(
            f"{len(away)} drives are missing ({paths}), more than the {now.scheme.m} that"
            f" scheme {now.scheme} tolerates"
        )


async def _ensure_root(settings: ProcessSettings, owner: Metastore) -> None:
    metadata = Metadata(
        owner,
        clock=SystemClock(),
        randomness=SystemRandomness(),
        sealing_key=SealingKey(settings.cluster_key),
    )
    try:
        await metadata.accounts.ensure_root(settings.root_access_key, settings.root_secret_key)
    except MetadataError as error:
        raise Refused(str(error)) from error
