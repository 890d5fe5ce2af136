"""The file that `--vault FILE` names: where HashiCorp Vault is, as JSON.

{"url": "https://vault.example.com:8200", "token_file": "/run/vault/token", "mount": "transit",
 "namespace": "", "ca_file": ""}: the first two are needed. Paths may be relative to the file.
"""

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from gateway.kms.settings import VaultSettings
from ops.config import ConfigError


class _VaultFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str
    token_file: str
    mount: str = "transit"
    namespace: str = ""
    ca_file: str = ""


def read_vault_file(path: Path | None) -> VaultSettings | None:
    """The settings in the file; None without one. Raises ConfigError."""
    if path is None:
        return None
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_VaultFile)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"--vault {path}: {error}") from error
    try:
        parts = urlsplit(found.url)
        host = parts.hostname or ""
    except ValueError as error:
        raise ConfigError(f"--vault {path}: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"--vault {path}: {found.url!r} is not an http or https address")
    if parts.scheme == "http" and not _is_local(host):
        raise ConfigError(f"--vault {path}: data keys go to another host over https only")
    if not found.mount.strip("/"):
        raise ConfigError(f"--vault {path}: the mount has no name")
    folder = path.absolute().parent
    token, ca = folder / found.token_file, folder / found.ca_file if found.ca_file else None
    for file in (token, ca):
        if file is not None and not file.is_file():
            raise ConfigError(f"--vault {path}: {file} is not a file")
    return VaultSettings(found.url, str(token), found.mount, found.namespace, str(ca or ""))


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
