"""Where a rebuild happens: the folder of `serve`, or a cluster with a new etcd."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from pathlib import Path

from ops.clients import Clients, connect, dialler
from ops.cluster_admin import session
from ops.cluster_settings import node_tls, open_cluster_store
from ops.directory import Directory, DirectoryRefused, load_directory, open_directory
from ops.rebuild.drives import READABLE
from ops.rebuild.restore import Identity, Restored, Tell, claim_store, restore
from ops.refusal import Refused
from ops.settings import ClusterSettings, DriveEntry, ProcessSettings
from ops.storage_process import NODE
from placement.clock import SystemClock, SystemRandomness
from placement.errors import MetastoreUnavailable, PeerUnavailable
from placement.membership_view import LiveView
from placement.metastore.sqlite import SqliteOwner
from placement.rpc.client import RpcClient
from placement.rpc.server import RpcServer
from storage_node.care import DriveConfig, NodeConfig
from storage_node.client import RemoteNodeClient
from storage_node.directory import NodeDirectory
from storage_node.files import RealFiles
from storage_node.identity import DriveIdentity, DriveRefused, read_identity
from storage_node.node import Node
from storage_node.port import DriveCondition, NodePort
from storage_node.server import serve_node

POLL_SECONDS = 0.2
CONNECT_SECONDS = 10.0


async def rebuild_directory(path: Path, missing: int, tell: Tell) -> Restored:
    """Make DIR/metadata of what the drives of a stopped store hold; so many of them may be missing.
    Raises Refused."""
    if not (path / "ostraka.json").exists():
        raise Refused(f"{path} is no store: there is no ostraka.json")
    try:
        directory = open_directory(path, (), SystemRandomness())
    except DirectoryRefused as error:
        raise Refused(str(error)) from error
    try:
        return await _rebuild_opened(directory, missing, tell)
    finally:
        os.close(directory.lock)


async def _rebuild_opened(directory: Directory, missing: int, tell: Tell) -> Restored:
    drives = _drives_of(directory)
    read = {path for path, _ in drives}
    _demand_all([drive.path for drive in directory.drives], read, missing)
    incarnation = max(identity.incarnation for _, identity in drives) + 1
    identity = Identity(directory.cluster_id, incarnation, directory.cluster_key)
    clock = SystemClock()
    try:
        owner = SqliteOwner(
            str(directory.metadata / "metadata.sqlite"), clock, cluster_id=directory.cluster_id
        )
    except MetastoreUnavailable as error:
        raise Refused(f"{error}: move {directory.metadata} away first") from error
    try:
        await claim_store(owner, identity)
        config = NodeConfig(
            directory.cluster_id,
            incarnation,
            tuple(
                DriveConfig(found.slot, path, may_adopt=False, expected=found.drive)
                for path, found in drives
            ),
        )
        try:
            node = await Node.open(config, RealFiles(), clock, SystemRandomness())
        except DriveRefused as error:
            raise Refused(str(error)) from error
        try:
            async with _served(node, directory) as client:
                nodes = {NODE: client}
                await settled(nodes, tell)
                read = {r.path for r in await client.reports() if r.condition in READABLE}
                _demand_all([drive.path for drive in directory.drives], read, missing)
                return await restore(owner, nodes, identity, tell)
        finally:
            await node.close()
    finally:
        await owner.close()


def _drives_of(directory: Directory) -> list[tuple[str, DriveIdentity]]:
    """The drives of a store that are there, and this store's. Raises Refused."""
    found = []
    for drive in directory.drives:
        try:
            identity = read_identity(RealFiles(), drive.path)
        except DriveRefused as error:
            raise Refused(str(error)) from error
        if identity is not None and identity.cluster_id == directory.cluster_id:
            found.append((drive.path, identity))
    if not found:
        raise Refused("none of the store's drives is there")
    return found


def _demand_all(paths: Sequence[str], read: Set[str], missing: int) -> None:
    """Refuse to do without more drives than the operator knows to be gone: the newest copy of the
    metadata may lie on them alone, and an older one looks just as whole. Raises Refused."""
    away = [path for path in paths if path not in read]
    if len(away) > missing:
        raise Refused(
            f"{len(away)} of the store's {len(paths)} drives cannot be read: {', '.join(away)};"
            f" bring them back, or say --missing {len(away)} if they are gone for good"
        )


@asynccontextmanager
async def _served(node: Node, directory: Directory) -> AsyncIterator[NodePort]:
    """The node as a client sees it, over a socket that only this process uses."""
    descriptor = os.open(directory.run, os.O_RDONLY | os.O_DIRECTORY)
    # The kernel allows 107 bytes for a Unix socket's path: a deep DIR is reached by /proc.
    path = f"/proc/self/fd/{descriptor}/rebuild.sock"
    server = RpcServer({**serve_node(node)}, name="rebuild")
    try:
        await server.listen_unix(path)
        rpc = await RpcClient.connect(path, name="rebuild", timeout_seconds=CONNECT_SECONDS)
        client = RemoteNodeClient(rpc)
        try:
            yield client
        finally:
            await client.close()
            await rpc.close()
    finally:
        await server.close()
        (directory.run / "rebuild.sock").unlink(missing_ok=True)
        os.close(descriptor)


async def rebuild_cluster(
    settings: ClusterSettings, drive: Path, drives: int, wait_seconds: float, tell: Tell
) -> Restored:
    """Fill a new etcd from the drives of the nodes that register. `drive` is any drive of the
    cluster, for its id. Raises Refused and TimeoutError."""
    try:
        found = read_identity(RealFiles(), str(drive))
    except DriveRefused as error:
        raise Refused(str(error)) from error
    if found is None:
        raise Refused(f"{drive} is no drive of Ostraka")
    identity = Identity(found.cluster_id, found.incarnation + 1, settings.cluster_key)
    clock, randomness = SystemClock(), SystemRandomness()
    try:
        metastore = await open_cluster_store(settings, clock, randomness)
    except MetastoreUnavailable as error:
        raise Refused(str(error)) from error
    view = LiveView(metastore, clock)
    nodes = NodeDirectory(
        view, dialler(settings.cluster_key, node_tls(settings), "rebuild", randomness)
    )
    try:
        await claim_store(metastore, identity)
        await view.start()
        async with asyncio.timeout(wait_seconds):
            said = -1
            while len(view.drives) < drives:
                if len(view.drives) != said:
                    said = len(view.drives)
                    tell(f"{said} of {drives} drives are registered: start the nodes")
                await asyncio.sleep(POLL_SECONDS)
            await settled(nodes.live, tell)
        return await restore(metastore, nodes.live, identity, tell)
    finally:
        await nodes.close()
        await view.close()
        await metastore.close()


async def settled(nodes: Mapping[str, NodePort], tell: Tell) -> None:
    """Wait until every node answers and no drive is still reading its index anew."""
    said = ""
    while True:
        waits = []
        for name in sorted(nodes):
            try:
                reports = await nodes[name].reports()
            except PeerUnavailable:
                waits.append(name)
                continue
            waits += [r.path for r in reports if r.condition is DriveCondition.RECOVERING]
        if not waits:
            return
        if said != (said := ", ".join(waits)):
            tell(f"waiting for {said}")
        await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def running(path: Path | None, settings: ClusterSettings | None) -> AsyncIterator[Clients]:
    """A store that runs: `serve` on this machine, by its folder, or a cluster. Raises Refused."""
    if path is None:
        assert settings is not None
        async with session(settings) as clients:
            yield clients
        return
    clients = await connect_directory(path)
    try:
        yield clients
    finally:
        await clients.close()


async def connect_directory(path: Path) -> Clients:
    """Join the running `serve` of that folder. Raises Refused."""
    try:
        directory = load_directory(path)
    except DirectoryRefused as error:
        raise Refused(str(error)) from error
    # As `serve` does for a deep DIR; the descriptor is this command's as long as it lives.
    descriptor = os.open(directory.run, os.O_RDONLY | os.O_DIRECTORY)
    settings = ProcessSettings(
        role="admin",
        number=0,
        directory=str(directory.path),
        run=f"/proc/self/fd/{descriptor}",
        cluster_id=directory.cluster_id,
        cluster_key=directory.cluster_key,
        is_new=False,
        drives=[DriveEntry(d.path, d.may_adopt) for d in directory.drives],
        scheme=None,
        region="",
        domains=[],
        bind="",
        root_access_key="",
        root_secret_key="",
        workers=0,
    )
    if not (directory.run / "storage.sock").exists():
        raise Refused(f"the store in {path} does not run: start it first")
    try:
        return await connect(settings, buffers=1)
    except (PeerUnavailable, MetastoreUnavailable) as error:
        raise Refused(f"the store in {path} does not answer: {error}") from error
