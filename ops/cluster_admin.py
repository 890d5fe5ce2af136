"""What `ostraka admin` does to a cluster: straight to its metadata and its nodes, with the cluster key."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.metadata.errors import MetadataError
from gateway.metadata.sealing import SealingKey
from gateway.metadata.store import Metadata
from ops.clients import Clients, connect_cluster
from ops.cluster_settings import open_cluster
from ops.config import Credentials
from ops.map_store import MapStore
from ops.refusal import Refused
from ops.settings import ClusterSettings
from placement.clock import SystemClock, SystemRandomness
from placement.cluster_map import PARTITIONS_DEFAULT, ClusterMap, DriveState, MapDrive
from placement.errors import MetastoreUnavailable, PeerUnavailable
from placement.hashing import Placement
from placement.ids import DriveId, Partition
from placement.map_changes import MapRefused, domain_of, first_map
from placement.membership import PROGRESS, DriveRecord, MembershipRefused
from placement.membership_view import LiveView
from placement.metastore.port import Range, prefix_end
from placement.schemes import Scheme
from storage_node.port import DriveCondition, DriveReport, NodePort

REPORT_TIMEOUT_SECONDS = 3.0
REACH_SECONDS = 2.0
"""How long a command waits for the nodes that are registered."""


@dataclass(frozen=True, slots=True)
class DriveView:
    """A drive as operators see it: what the map says, and what is seen of it."""

    drive: DriveId
    slot: int | None
    node: str
    host: str
    zone: str
    path: str
    state: str
    """By the map: up, draining, out; "new": registered and not in the map."""
    condition: str
    """As its node reports; "away": nobody serves it now."""
    capacity_bytes: int
    free_bytes: int
    shards: int
    reason: str = ""

    def shown(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "id": self.drive.hex(),
            "slot": self.slot,
            "node": self.node,
            "host": self.host,
            "zone": self.zone,
            "path": self.path,
            "state": self.state,
            "condition": self.condition,
            "capacity_bytes": self.capacity_bytes,
            "free_bytes": self.free_bytes,
            "shards": self.shards,
            "reason": self.reason,
        }


@asynccontextmanager
async def session(settings: ClusterSettings) -> AsyncIterator[Clients]:
    """Everything a command needs of a cluster that was initialised. Raises Refused."""
    clients = await connect_cluster(settings, "admin", buffers=1, patient=False)
    try:
        loop = asyncio.get_running_loop()
        end = loop.time() + REACH_SECONDS
        while loop.time() < end and not await _all_answer(clients):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.05)
        await clients.topology.poll()
        yield clients
    finally:
        await clients.close()


async def _all_answer(clients: Clients) -> bool:
    for node in clients.live_nodes.values():
        try:
            async with asyncio.timeout(REPORT_TIMEOUT_SECONDS):
                await node.reports()
        except (PeerUnavailable, TimeoutError):
            return False
    return True


async def init(
    settings: ClusterSettings,
    credentials: Credentials,
    *,
    scheme: Scheme | None,
    drives: int,
    wait_seconds: float,
    partition_count: int = PARTITIONS_DEFAULT,
) -> ClusterMap:
    """The first cluster map of the drives registered (at least `drives`), and the root account.

    Raises Refused, MapRefused, TimeoutError.
    """
    clock, randomness = SystemClock(), SystemRandomness()
    try:
        metastore, _ = await open_cluster(settings, clock, randomness)
    except (MembershipRefused, MetastoreUnavailable) as error:
        raise Refused(str(error)) from error
    try:
        maps = MapStore(metastore)
        if (await maps.current())[0] is not None:
            raise Refused("the cluster has a map already")
        view = LiveView(metastore, clock)
        async with asyncio.timeout(wait_seconds):
            while await view.load() and len(view.drives) < max(drives, 1):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        new = first_map(list(view.drives.values()), scheme, partition_count)
        metadata = Metadata(
            metastore,
            clock=clock,
            randomness=randomness,
            sealing_key=SealingKey(settings.cluster_key),
        )
        try:
            await metadata.accounts.ensure_root(credentials.access_key, credentials.secret_key)
        except MetadataError as error:
            raise Refused(str(error)) from error
        if not await maps.replace(new, 0):
            raise Refused("the cluster has a map already")
        return new
    finally:
        await metastore.close()


def warnings_of(cluster: ClusterMap) -> list[str]:
    """What an operator should know of how drives lie."""
    warnings = []
    scheme = cluster.scheme
    up = [drive for drive in cluster.drives if drive.state is DriveState.UP]
    if scheme.m == 0:
        warnings.append("no redundancy: losing one drive loses data")
    for name, own in cluster.classes:
        if own.width > len(up):
            warnings.append(
                f"storage class {name}: {len(up)} drives are in use, fewer than the {own.width} of"
                f" scheme {own}: its writes go on narrower ones"
            )
    domains = Counter(domain_of(cluster, drive) for drive in up)
    for domain, count in sorted(domains.items()):
        if len(up) - count < scheme.width:
            name = "/".join(domain)
            warnings.append(
                f"without {name} {len(up) - count} drives are left: writes would go on narrower"
                f" than {scheme} until it returns"
            )
    worst = shards_in_one_domain(cluster)
    if worst > scheme.m:
        warnings.append(
            f"one failure domain holds up to {worst} of {scheme.width} shards of an object: losing"
            f" it makes objects unreadable until it returns (tolerance {scheme.m})"
        )
    return warnings


def shards_in_one_domain(cluster: ClusterMap) -> int:
    """The most shards of an object that lie in one failure domain."""
    placement = Placement(cluster)
    worst = 0
    for partition in range(cluster.partition_count):
        order = placement.write_order_of(Partition(partition))[: cluster.scheme.width]
        counts = Counter(domain_of(cluster, drive) for drive in order)
        worst = max(worst, *counts.values()) if counts else worst
    return worst


async def drives_of(clients: Clients) -> list[DriveView]:
    """Every drive of the map, and every other one that is registered."""
    reports = await reports_of(clients)
    assert clients.member is not None
    records = clients.member.view.drives
    shown = [
        _shown(place.drive_id, place, records.get(place.drive_id), reports)
        for place in clients.topology.map.drives
    ]
    placed = {place.drive_id for place in clients.topology.map.drives}
    shown += [
        _shown(drive, None, record, reports)
        for drive, record in sorted(records.items())
        if drive not in placed
    ]
    return shown


async def reports_of(clients: Clients) -> dict[DriveId, DriveReport]:
    """What the registered nodes report, by drive; nodes that do not answer are left out."""

    async def ask(name: str, node: NodePort) -> Sequence[tuple[str, DriveReport]]:
        try:
            async with asyncio.timeout(REPORT_TIMEOUT_SECONDS):
                return [(name, report) for report in await node.reports()]
        except (PeerUnavailable, TimeoutError):
            return ()

    assert clients.member is not None
    records = clients.member.view.drives
    answers = await asyncio.gather(*(ask(*item) for item in clients.live_nodes.items()))
    return {
        report.drive: report
        for answer in answers
        for name, report in answer
        if (record := records.get(report.drive)) is not None and record.node == name
    }


async def named_reports(clients: Clients) -> tuple[DriveReport, ...]:
    """What is reported of every drive in the map, its path told with its node; those that nobody
    reports are missing."""
    reports = await reports_of(clients)
    return tuple(
        _named(drive, reports.get(drive.drive_id)) for drive in clients.topology.map.drives
    )


def _named(drive: MapDrive, report: DriveReport | None) -> DriveReport:
    if report is None:
        # Its path is not known; two drives of one node must not have one name.
        name = f"{drive.node}:{drive.drive_id.hex()[:12]}"
        return DriveReport(
            drive.drive_id, name, DriveCondition.MISSING, 0, 0, 0, 0, 0, "its node is away"
        )
    return msgspec.structs.replace(report, path=f"{drive.node}:{report.path}")


def _shown(
    drive: DriveId,
    place: MapDrive | None,
    record: DriveRecord | None,
    reports: dict[DriveId, DriveReport],
) -> DriveView:
    report = reports.get(drive)
    if report is not None:
        condition = report.condition.value
    else:
        condition = "away" if record is None else "silent"
    where = record or place
    assert where is not None
    return DriveView(
        drive=drive,
        slot=None if place is None else place.slot,
        node=where.node,
        host=where.host,
        zone=where.zone,
        path=record.path if record else "",
        state="new" if place is None else place.state.value,
        condition=condition,
        capacity_bytes=report.capacity_bytes if report else record.capacity_bytes if record else 0,
        free_bytes=report.free_bytes if report else record.free_bytes if record else 0,
        shards=report.shards if report else 0,
        reason=report.reason if report else "",
    )


async def progress_of(clients: Clients) -> dict[str, dict[str, Any]]:
    """What the leaders of the keepers' duties last said."""
    found = await clients.metastore.range(Range(PROGRESS, prefix_end(PROGRESS)))
    return {kv.key[len(PROGRESS) :].decode(): json.loads(kv.value) for kv in found.kvs}


async def why_moves_wait(clients: Clients) -> str:
    """To be added to a refusal while moves cannot end because drives are away; else nothing."""
    if not clients.topology.map.open_epochs:
        return ""
    waits_for = (await progress_of(clients)).get("moves", {}).get("waits_for", [])
    if not waits_for:
        return ""
    names = ", ".join(drive[:12] for drive in waits_for)
    return (
        f" (it waits for drives that are away: {names}; those that are gone for good are given up with"
        " `ostraka admin drive out`)"
    )


def choose(drives: Sequence[DriveView], wanted: Sequence[str]) -> list[DriveView]:
    """The drives that operators name: by the beginning of the id, by slot, or NODE:PATH. Raises
    MapRefused."""
    chosen = []
    for text in wanted:
        matches = [
            d
            for d in drives
            if (len(text) >= 4 and d.drive.hex().startswith(text.lower()))
            or text == str(d.slot)
            or text == f"{d.node}:{d.path}"
        ]
        if len(matches) != 1:
            raise MapRefused(
                f"{text!r} names {len(matches) or 'no'} drive{'s' if len(matches) > 1 else ''}"
            )
        chosen.append(matches[0])
    return chosen


@dataclass(frozen=True, slots=True)
class Plan:
    """What a change of the map would do."""

    moved_share: float
    """Of all shards, those that change their drive."""
    moved_bytes: int
    """An estimate: that share of what is used on the drives."""
    new: ClusterMap
    warnings: list[str]


def plan_of(now: ClusterMap, new: ClusterMap, drives: Sequence[DriveView]) -> Plan:
    """Dry run."""
    before, after = Placement(now), Placement(new)
    width = now.scheme.width
    moved = total = 0
    for partition in map(Partition, range(now.partition_count)):
        old = before.write_order_of(partition)[:width]
        fresh = after.write_order_of(partition)[:width]
        held = {drive.drive_id for drive in old}
        moved += sum(drive.drive_id not in held for drive in fresh)
        total += width
    share = moved / total if total else 0.0
    used = sum(d.capacity_bytes - d.free_bytes for d in drives if d.slot is not None)
    return Plan(share, int(share * used), new, warnings_of(new))
