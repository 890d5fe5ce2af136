"""Configuration of `ostraka serve`: one frozen value, checked once."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.kms.settings import VaultSettings
from placement.schemes import Scheme, default_scheme

LIFECYCLE_DAY_SECONDS = "OSTRAKA_LIFECYCLE_DAY_SECONDS"
"""Seconds that a day of lifecycle rules lasts (the keeper reads it): for tests."""
SCRUB_PASS_SECONDS = "OSTRAKA_SCRUB_PASS_SECONDS"  # noqa: S105 - no password
"""Seconds in which the keeper verifies every shard once (the keeper reads it)."""
SNAPSHOT_SECONDS = "OSTRAKA_SNAPSHOT_SECONDS"
"""Seconds between whole copies of the metadata to the drives (the keeper reads it)."""
HUNG_SECONDS = "OSTRAKA_HUNG_SECONDS"
"""Seconds after which a supervisor replaces a process that stands still."""
ROOT_ACCESS_KEY = "OSTRAKA_ROOT_ACCESS_KEY"
ROOT_SECRET_KEY = "OSTRAKA_ROOT_SECRET_KEY"  # noqa: S105 - the variable's name
ETCD = "OSTRAKA_ETCD"
CLUSTER_KEY_FILE = "OSTRAKA_CLUSTER_KEY_FILE"
ETCD_CA = "OSTRAKA_ETCD_CA"
ETCD_CERT = "OSTRAKA_ETCD_CERT"
ETCD_KEY = "OSTRAKA_ETCD_KEY"
NODE_CA = "OSTRAKA_NODE_CA"
NODE_CERT = "OSTRAKA_NODE_CERT"
NODE_KEY = "OSTRAKA_NODE_KEY"
_KNOWN_VARIABLES = frozenset(
    {
        ROOT_ACCESS_KEY,
        ROOT_SECRET_KEY,
        ETCD,
        ETCD_CA,
        ETCD_CERT,
        ETCD_KEY,
        CLUSTER_KEY_FILE,
        NODE_CA,
        NODE_CERT,
        NODE_KEY,
        LIFECYCLE_DAY_SECONDS,
        SCRUB_PASS_SECONDS,
        SNAPSHOT_SECONDS,
        HUNG_SECONDS,
    }
)
_PREFIX = "OSTRAKA_"
_DOMAIN = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
_SECRET_KEY = re.compile(r"[!-~]{8,128}")

DRIVES_DEFAULT = 6
DRIVES_MAX = 64
WORKERS_MAX = 64


class ConfigError(Exception):
    """The configuration contradicts itself or the machine. The message is one sentence."""


class Secret(str):
    """Text that no `repr` shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('…')"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The root account's key pair."""

    access_key: str
    secret_key: Secret


@dataclass(frozen=True, slots=True)
class DriveSetting:
    """One drive in slot order. `may_adopt`: a folder that `--drives N` made and that may come back
    empty; a mount given by `--drive` may not."""

    path: str
    may_adopt: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Everything `ostraka serve` was told. No drives: those the store has, or six new folders."""

    directory: Path
    drives: tuple[DriveSetting, ...] = ()
    scheme: Scheme | None = None
    bind: str = "127.0.0.1"
    port: int = 9000
    admin_port: int = 9001
    website_port: int | None = None
    region: str = "us-east-1"
    workers: int = field(default_factory=lambda: max(1, min(os.cpu_count() or 1, 16)))
    tls_cert: Path | None = None
    tls_key: Path | None = None
    domains: tuple[str, ...] = ()
    access_log: str = ""
    encrypt_at_rest: bool = False
    customer_keys_over_http: bool = False
    vault: VaultSettings | None = None

    def __post_init__(self) -> None:
        """Refuse contradictions before anything starts."""
        if len(self.drives) > DRIVES_MAX:
            raise ConfigError(f"at most {DRIVES_MAX} drives are served, not {len(self.drives)}")
        paths = [os.path.realpath(drive.path) for drive in self.drives]
        if len(set(paths)) != len(paths):
            raise ConfigError("two --drive options name the same folder")
        ports = {"--port": self.port, "--admin-port": self.admin_port}
        if self.website_port is not None:
            ports["--website-port"] = self.website_port
        for name, port in ports.items():
            if not 0 <= port <= 65535:
                raise ConfigError(f"{name} must be between 0 and 65535, not {port}")
            if port and list(ports.values()).count(port) > 1:
                raise ConfigError(f"{' and '.join(ports)} must differ")
        if not 1 <= self.workers <= WORKERS_MAX:
            raise ConfigError(f"--workers must be between 1 and {WORKERS_MAX}, not {self.workers}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("--tls-cert and --tls-key go together")
        for file in (self.tls_cert, self.tls_key):
            if file is not None and not file.is_file():
                raise ConfigError(f"{file} is not a file")
        _check_certificate(self.tls_cert, self.tls_key)
        if not self.bind or not self.bind.isascii() or not self.bind.isprintable():
            raise ConfigError(f"--bind must name an address, not {self.bind!r}")
        for domain in self.domains:
            if len(domain) > 253 or not _DOMAIN.fullmatch(domain):
                raise ConfigError(f"--domain must be a host name, not {domain!r}")
        _check_log_file(self.access_log)
        if not self.region or not self.region.isascii() or "/" in self.region:
            raise ConfigError(f"{self.region!r} is not a region's name")


def _check_certificate(certificate: Path | None, key: Path | None) -> None:
    if certificate is None or key is None:
        return
    import ssl  # takes a MiB of a process that has no use for it otherwise

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password would be asked for at the terminal, of every process.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{certificate} and {key} cannot be used for TLS: {reason}") from None


def _check_log_file(path: str) -> None:
    if path in ("", "-"):
        return
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"--access-log {path!r} cannot be written: {reason}") from None


def scheme_for(asked: Scheme | None, drives: int) -> Scheme:
    """The scheme of new objects on that many drives; ConfigError when the one asked is too wide."""
    if asked is None:
        return default_scheme(drives)
    if asked.width > drives:
        raise ConfigError(f"scheme {asked} needs {asked.width} drives, there are {drives}")
    return asked


def drive_settings(
    directory: Path, count: int | None, paths: tuple[str, ...]
) -> tuple[DriveSetting, ...]:
    """The drives of `--drives N` or of repeated `--drive PATH`, not both; () for neither."""
    if paths and count is not None:
        raise ConfigError("give either --drives N or --drive PATH, not both")
    if any(not path or "\0" in path for path in paths):
        raise ConfigError("--drive must name a folder")
    if paths:
        return tuple(DriveSetting(os.path.abspath(path), may_adopt=False) for path in paths)
    if count is None:
        return ()
    if not 1 <= count <= DRIVES_MAX:
        raise ConfigError(f"--drives must be between 1 and {DRIVES_MAX}, not {count}")
    return own_folders(directory, count)


def own_folders(directory: Path, count: int) -> tuple[DriveSetting, ...]:
    """`drive1` … `driveN` under DIR: folders that may come back empty."""
    return tuple(
        DriveSetting(str(directory / f"drive{number}"), may_adopt=True)
        for number in range(1, count + 1)
    )


def credentials_from(environ: Mapping[str, str]) -> Credentials | None:
    """Root credentials from the environment, if both are set; ConfigError for anything odd."""
    unknown = sorted(
        name
        for name in environ
        if name.upper().startswith(_PREFIX) and name not in _KNOWN_VARIABLES
    )
    if unknown:
        raise ConfigError(f"unknown environment variable {unknown[0]}")
    access_key, secret_key = environ.get(ROOT_ACCESS_KEY), environ.get(ROOT_SECRET_KEY)
    if access_key is None and secret_key is None:
        return None
    if access_key is None or secret_key is None:
        raise ConfigError(f"{ROOT_ACCESS_KEY} and {ROOT_SECRET_KEY} go together")
    return checked_credentials(access_key, secret_key)


def checked_credentials(access_key: object, secret_key: object) -> Credentials:
    """A key pair from outside; ConfigError for one that could not be signed with."""
    if not isinstance(access_key, str) or not isinstance(secret_key, str):
        raise ConfigError("access key and secret key must be text")
    if not (3 <= len(access_key) <= 128 and access_key.isalnum() and access_key.isascii()):
        raise ConfigError(f"{ROOT_ACCESS_KEY} must be 3 to 128 letters and digits")
    if not _SECRET_KEY.fullmatch(secret_key):
        raise ConfigError(
            f"{ROOT_SECRET_KEY} must be 8 to 128 printable ASCII characters without spaces"
        )
    return Credentials(access_key, Secret(secret_key))
