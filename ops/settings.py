"""What the supervisor tells a process of the store: one JSON document on its standard input."""

import sys

import msgspec

from gateway.kms.settings import VaultSettings


class DriveEntry(msgspec.Struct, frozen=True):
    """A drive in slot order."""

    path: str
    may_adopt: bool


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the options of a cluster's commands say. Certificates are PEM."""

    etcd: list[str]
    cluster_key: bytes
    etcd_ca: bytes = b""
    etcd_cert: bytes = b""
    etcd_key: bytes = b""
    node_ca: bytes = b""
    """Who signs the certificates of nodes that speak TLS; empty: the system's authorities."""


class ProcessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one process. It travels over a pipe, never in arguments or the environment."""

    role: str  # storage, worker, keeper, admin
    number: int  # of a worker, from 0
    directory: str
    run: str
    cluster_id: bytes
    cluster_key: bytes
    is_new: bool
    drives: list[DriveEntry]
    scheme: tuple[int, int] | None
    region: str
    domains: list[str]
    bind: str
    root_access_key: str
    root_secret_key: str
    workers: int
    listen_fd: int = -1
    admin_fd: int = -1
    website_fd: int = -1
    status_fd: int = -1
    heartbeat_fd: int = -1
    heartbeat_slot: int = 0
    tls_cert: str = ""
    tls_key: str = ""
    access_log: str = ""
    encrypt_at_rest: bool = False
    customer_keys_over_http: bool = False
    vault: VaultSettings | None = None
    """The key service of SSE-KMS; None: the local key ring."""
    cluster: ClusterSettings | None = None
    """Of a gateway of a cluster; None inside `serve`."""

    @property
    def storage_socket(self) -> str:
        """Where the storage process answers."""
        return self.run + "/storage.sock"

    def worker_socket(self, number: int) -> str:
        """Where a worker answers the keeper's questions (metrics)."""
        return f"{self.run}/worker-{number}.sock"


def read_settings() -> ProcessSettings:
    """The settings that the supervisor wrote to our standard input."""
    return msgspec.json.decode(sys.stdin.buffer.read(), type=ProcessSettings)
