"""How a process finds its cluster: etcd, the cluster key, and the first words with both."""

import asyncio
import logging
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from ops.config import NODE_CA, ConfigError
from ops.settings import ClusterSettings
from placement.clock import Clock, Randomness
from placement.errors import MetastoreDenied, MetastoreUnavailable
from placement.membership import ClusterRecord, join_cluster
from placement.metastore.etcd import EtcdMetastore, EtcdOptions, open_etcd
from placement.rpc.handshake import KEY_SIZE_BYTES

RETRY_SECONDS = 1.0
log = logging.getLogger("ostraka.cluster")


def etcd_options(settings: ClusterSettings) -> EtcdOptions:
    """Raises ValueError for what cannot work."""
    return EtcdOptions(
        endpoints=tuple(settings.etcd),
        ca=settings.etcd_ca or None,
        certificate=settings.etcd_cert or None,
        key=settings.etcd_key or None,
    )


def cluster_settings(
    etcd: Sequence[str],
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    cluster_key_file: Path | None,
) -> ClusterSettings:
    """From the command line, and who signs nodes' certificates from the environment. Raises
    ConfigError."""
    urls = [url for text in etcd for url in text.split(",") if url]
    if not urls:
        raise ConfigError("name etcd's members: --etcd URL, once for each")
    if cluster_key_file is None:
        raise ConfigError("name the file of the cluster key: --cluster-key-file FILE")
    settings = ClusterSettings(
        etcd=urls,
        cluster_key=_read_key(cluster_key_file),
        etcd_ca=_read(ca),
        etcd_cert=_read(cert),
        etcd_key=_read(key),
        node_ca=_read(Path(node_ca)) if (node_ca := os.environ.get(NODE_CA)) else b"",
    )
    try:
        etcd_options(settings)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return settings


def _read_key(path: Path) -> bytes:
    data = _read(path)
    if len(data) != KEY_SIZE_BYTES:
        raise ConfigError(f"{path} is no cluster key: it holds {len(data)} bytes, not 32")
    # A group may read it: that is how Kubernetes hands a secret to a process that is not root.
    if path.stat().st_mode & 0o037:
        raise ConfigError(f"{path} may be read by others: chmod 600 it")
    return data


def _read(path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def node_tls(settings: ClusterSettings) -> ssl.SSLContext:
    """How nodes that speak TLS are spoken to: their certificate must be for the host dialled. The
    cluster key is proved in either case. Raises ConfigError."""
    try:
        return ssl.create_default_context(cadata=settings.node_ca.decode() or None)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"the authorities of nodes' certificates cannot be read: {error}"
        ) from error


async def open_cluster(
    settings: ClusterSettings, clock: Clock, randomness: Randomness
) -> tuple[EtcdMetastore, ClusterRecord]:
    """The metadata store, once it answers, and the cluster's record. Waits as long as it takes.

    Raises MembershipRefused when the cluster key is another one, MetastoreDenied.
    """
    while True:
        metastore = await open_cluster_store(settings, clock, randomness)
        try:
            return metastore, await join_cluster(metastore, settings.cluster_key, randomness)
        except MetastoreDenied:
            await metastore.close()
            raise
        except MetastoreUnavailable as error:
            await metastore.close()
            log.warning("etcd does not answer (trying on): %s", error)
        except BaseException:
            await metastore.close()
            raise
        await asyncio.sleep(RETRY_SECONDS)


async def open_cluster_store(
    settings: ClusterSettings, clock: Clock, randomness: Randomness
) -> EtcdMetastore:
    """The metadata store alone, once it answers. Raises MetastoreDenied."""
    said = ""
    while True:
        try:
            return await open_etcd(etcd_options(settings), clock=clock, randomness=randomness)
        except MetastoreDenied:
            raise
        except MetastoreUnavailable as error:
            if str(error) != said:
                said = str(error)
                log.warning("etcd does not answer (trying on): %s", error)
        await asyncio.sleep(RETRY_SECONDS)
