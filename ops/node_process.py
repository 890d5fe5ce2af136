"""`ostraka node`: serves the drives of one host to the cluster, over TCP."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.admin_api import health_app
from ops.admin_port import AdminPort
from ops.clients import log_to_stderr
from ops.cluster_settings import open_cluster
from ops.config import ConfigError
from ops.map_store import MapStore
from ops.node_health import NodeHealth
from ops.process_counts import ProcessWatch
from ops.refusal import Refused
from ops.settings import ClusterSettings
from placement.clock import SystemClock, SystemRandomness
from placement.errors import MetastoreUnavailable
from placement.ids import DriveId, Slot
from placement.membership import ClusterRecord, DriveRecord, MembershipRefused, NodeRecord
from placement.membership_registrar import Registrar
from placement.metastore.port import Metastore
from placement.rpc.handshake import ClusterKey, format_address
from placement.rpc.server import RpcServer
from placement.served_places import Served, bound, remember
from storage_node.care import DriveConfig, NodeConfig
from storage_node.files import RealFiles
from storage_node.identity import DriveIdentity, DriveRefused, read_identity
from storage_node.node import Node
from storage_node.port import DriveCondition, DriveReport
from storage_node.recovery import read_boot_id
from storage_node.server import serve_node

REPORT_SECONDS = 1.0
FREE_SHARE = 0.02
"""A registered drive's free space is written anew when it changed by this share of its capacity."""
LEAVE_SECONDS = 0.5
"""From leaving the membership to refusing calls: gateways learn of it by watch meanwhile."""
UNASSIGNED_SLOT = Slot(0xFFFF_FFFF)
"""In the identity of a drive made by a node: the cluster map knows its slot, the drive need not."""

log = logging.getLogger("ostraka.node")


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What the command line says. `address` is what others dial."""

    cluster: ClusterSettings
    drives: tuple[str, ...]
    listen_host: str
    listen_port: int
    advertise_host: str
    host: str
    zone: str
    tls: ssl.SSLContext | None = None
    wire_only: bool = False
    admin_listener: socket.socket | None = None
    """Where health and metrics are told; None: nowhere."""


async def run_node(options: NodeOptions, stop: asyncio.Event, ready: Callable[[str], None]) -> None:
    """Until `stop`, or until another process takes this node's name. Raises Refused."""
    log_to_stderr()
    watch = ProcessWatch("node").start()
    health = NodeHealth(watch)
    port = await _health_port(options.admin_listener, health)
    try:
        await _serve(options, health, stop, ready)
    finally:
        watch.stop()
        if port is not None:
            await port.stop()


async def _health_port(listener: socket.socket | None, health: NodeHealth) -> AdminPort | None:
    if listener is None:
        return None
    port = AdminPort(listener, health_app(health.ready, health.metrics))
    await port.start()
    return port


async def _serve(
    options: NodeOptions, health: NodeHealth, stop: asyncio.Event, ready: Callable[[str], None]
) -> None:
    clock, randomness = SystemClock(), SystemRandomness()
    try:
        metastore, cluster = await open_cluster(options.cluster, clock, randomness)
    except (MembershipRefused, MetastoreUnavailable) as error:
        raise Refused(str(error)) from error
    node: Node | None = None
    server: RpcServer | None = None
    registrar: Registrar | None = None
    remembering: asyncio.Task[None] | None = None
    try:
        name = f"{options.host}:{options.listen_port}"
        held = await _held_before(metastore, name, options.drives)
        drives = await _drives_of(options.drives, held)
        node = await _open_node(drives, cluster, clock, randomness)
        _refuse_twins(node.reports())
        server = RpcServer(serve_node(node), name="node")
        try:
            port = await server.listen_tcp(
                options.listen_host,
                options.listen_port,
                ClusterKey(options.cluster.cluster_key),
                options.tls,
            )
        except OSError as error:
            where = format_address(options.listen_host, options.listen_port)
            raise Refused(f"cannot listen on {where}: {error.strerror}") from error
        record = NodeRecord(
            name=f"{options.host}:{port}",
            address=format_address(options.advertise_host, port),
            host=options.host,
            zone=options.zone,
            run=randomness.token(8),
            started_ms=clock.now_ns() // 1_000_000,
            tls=options.tls is not None,
            boot_id="" if options.wire_only else read_boot_id(),
        )
        health.node, health.name = node, record.name
        registrar = await _register(metastore, record, node, clock)
        health.registered = True
        ready(record.name)
        remembering = asyncio.create_task(_remember(metastore, name, node, drives))
        await _tell_until(stop, registrar, record, node)
    finally:
        health.registered = False
        if remembering is not None:
            remembering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await remembering
        if registrar is not None:
            await registrar.close()
            await asyncio.sleep(LEAVE_SECONDS)
        if server is not None:
            await server.close()
        health.node = None
        if node is not None:
            await node.close()
        await metastore.close()


async def _register(
    metastore: Metastore, record: NodeRecord, node: Node, clock: SystemClock
) -> Registrar:
    registrar = Registrar(metastore, record, clock)
    while True:
        try:
            await registrar.start(_records(record, node.reports(), {}))
            return registrar
        except MembershipRefused as error:
            raise Refused(str(error)) from error
        except MetastoreUnavailable as error:
            log.warning("cannot register (trying on): %s", error)
            await asyncio.sleep(REPORT_SECONDS)


async def _tell_until(
    stop: asyncio.Event, registrar: Registrar, record: NodeRecord, node: Node
) -> None:
    """Keep what is registered of the drives true."""
    known: dict[bytes, DriveRecord] = {}
    while not stop.is_set():
        records = _records(record, node.reports(), known)
        known = {drive.drive: drive for drive in records}
        registrar.update(records)
        if registrar.failed.done():
            try:
                registrar.failed.result()
            except MembershipRefused as error:
                raise Refused(str(error)) from error
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPORT_SECONDS):
                await stop.wait()


async def _remember(
    metastore: Metastore, name: str, node: Node, drives: Sequence[DriveConfig]
) -> None:
    """Write down which drive each folder holds, as often as one has another. Does not end."""
    slots = {drive.path: drive.slot for drive in drives}
    written: dict[str, DriveId] = {}
    while True:
        for report in node.reports():
            if report.condition is DriveCondition.UP and written.get(report.path) != report.drive:
                served = Served(report.drive, slots[report.path])
                with contextlib.suppress(MetastoreUnavailable):  # with the next look, then
                    await remember(metastore, name, report.path, served)
                    written[report.path] = report.drive
        await asyncio.sleep(REPORT_SECONDS)


def _records(
    node: NodeRecord, reports: Sequence[DriveReport], known: dict[bytes, DriveRecord]
) -> list[DriveRecord]:
    """A record of every drive with an identity; small changes of free space are not worth one."""
    records = []
    for report in reports:
        if not any(report.drive):
            continue
        before = known.get(report.drive)
        free_bytes = report.free_bytes
        if before is not None:
            drift = abs(before.free_bytes - report.free_bytes)
            if drift < report.capacity_bytes * FREE_SHARE:
                free_bytes = before.free_bytes
        records.append(
            DriveRecord(
                drive=report.drive,
                node=node.name,
                address=node.address,
                host=node.host,
                zone=node.zone,
                path=report.path,
                condition=report.condition.value,
                capacity_bytes=report.capacity_bytes,
                free_bytes=free_bytes,
            )
        )
    return records


async def _held_before(
    metastore: Metastore, name: str, paths: Sequence[str]
) -> Mapping[str, Served]:
    """Which drives these folders held when this node served them last."""
    while True:
        try:
            now, _ = await MapStore(metastore).current()
            return await bound(metastore, now, name, paths)
        except MembershipRefused as error:
            raise Refused(str(error)) from error
        except MetastoreUnavailable as error:
            log.warning("cannot read what was served before (trying on): %s", error)
            await asyncio.sleep(REPORT_SECONDS)


async def _drives_of(paths: Sequence[str], held: Mapping[str, Served]) -> tuple[DriveConfig, ...]:
    """The drives that are there. Raises Refused."""
    identities: dict[str, DriveIdentity | None] = {}
    for path in paths:
        if not await asyncio.to_thread(Path(path).is_dir):
            # Most likely a mount that is not mounted: no reason to keep the other drives back.
            log.error("drive %s is not a folder: it is left out until the node starts again", path)
            continue
        try:
            identities[path] = read_identity(RealFiles(), path)
        except DriveRefused as error:
            raise Refused(str(error)) from error
    if not identities:
        raise Refused("none of the drives is there")
    here = {identity.drive for identity in identities.values() if identity is not None}
    # A drive that is mounted elsewhere on this host now has left its folder free.
    missed = {path: served for path, served in held.items() if served.drive not in here}
    return tuple(_drive_at(path, identity, missed) for path, identity in identities.items())


async def _open_node(
    drives: tuple[DriveConfig, ...],
    cluster: ClusterRecord,
    clock: SystemClock,
    randomness: SystemRandomness,
) -> Node:
    config = NodeConfig(cluster.cluster_id, cluster.incarnation, drives)
    try:
        return await Node.open(config, RealFiles(), clock, randomness)
    except DriveRefused as error:
        raise Refused(str(error)) from error


def _drive_at(
    path: str, identity: DriveIdentity | None, missed: Mapping[str, Served]
) -> DriveConfig:
    """The drive as its folder says it is; an empty one is made a drive unless another is missed
    there: that one is waited for."""
    if identity is not None:
        return DriveConfig(identity.slot, path, may_adopt=False, expected=identity.drive)
    served = missed.get(path)
    if served is None:
        return DriveConfig(UNASSIGNED_SLOT, path, may_adopt=False)
    log.error("%s", _not_free(path, served.drive))
    return DriveConfig(served.slot, path, may_adopt=False, expected=served.drive)


def _not_free(path: str, drive: DriveId) -> str:
    name = drive.hex()[:12]
    return (
        f"drive {path} is refused: it is empty, but this node served drive {name} from there, and the"
        " cluster map names that drive. If its mount failed, mount it: it is taken back by itself. If"
        f" it is gone for good, say so with `ostraka admin drive out {name}`, start the node again,"
        f" and give its place to the new drive with `ostraka admin drive replace {name} NEW`"
    )


def _refuse_twins(reports: Sequence[DriveReport]) -> None:
    seen: dict[bytes, str] = {}
    for report in reports:
        if any(report.drive) and report.drive in seen:
            raise Refused(
                f"{seen[report.drive]} and {report.path} bear one identity: one of them is a copy"
            )
        seen[report.drive] = report.path


def server_tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """None without a certificate. Raises ConfigError."""
    if (certificate is None) != (key is None):
        raise ConfigError("--tls-cert and --tls-key go together")
    if certificate is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{certificate} and {key} cannot be used for TLS: {error}") from error
    return context


def absolute_drives(paths: Sequence[str]) -> tuple[str, ...]:
    """The drives as given, made absolute; ValueError when two are one folder."""
    absolute = [os.path.abspath(path) for path in paths]
    if len({os.path.realpath(path) for path in absolute}) != len(absolute):
        raise ValueError("two --drive options name the same folder")
    return tuple(absolute)
