"""The folder of `ostraka serve DIR`: its format marker, lock, keys and credentials.

DIR/ostraka.json       format versions, cluster id, drive paths in slot order
DIR/credentials.json   root credentials (mode 0600)
DIR/cluster.key        32 random bytes that seal secrets at rest (mode 0600)
DIR/metadata/          embedded metadata
DIR/driveN/            drives made by --drives
DIR/run/               sockets of the running processes
"""

import errno
import fcntl
import json
import os
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from ops.config import (
    DRIVES_DEFAULT,
    ConfigError,
    Credentials,
    DriveSetting,
    Secret,
    checked_credentials,
    own_folders,
)
from placement.clock import Randomness

FORMAT_VERSION = 1
MIN_READER_VERSION = 1
_ACCESS_KEY_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_SECRET_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


class Stage(Enum):
    """What DIR's marker says, by its name: `serve` opens the first alone."""

    SERVED = "ostraka.json"
    MOVING = "ostraka.moving.json"
    """Its metadata is being copied into a cluster."""
    MOVED = "ostraka.moved.json"
    """A cluster has taken over its metadata and its drives."""


class DirectoryRefused(Exception):
    """The folder cannot be served. The message is one sentence for a person."""


@dataclass(frozen=True, slots=True)
class Directory:
    """An opened and locked DIR. `lock` is inherited by every process of the store, so that the
    folder counts as held until the last one has ended."""

    path: Path
    cluster_id: bytes
    cluster_key: bytes
    is_new: bool
    drives: tuple[DriveSetting, ...]
    lock: int
    stage: Stage = Stage.SERVED

    @property
    def metadata(self) -> Path:
        """Folder of the embedded metadata."""
        return self.path / "metadata"

    @property
    def run(self) -> Path:
        """Folder of sockets."""
        return self.path / "run"

    def enter(self, stage: Stage) -> None:
        """Rename the marker, durably; it may be that of any stage."""
        for earlier in Stage:
            if earlier is not stage and (self.path / earlier.value).exists():
                (self.path / earlier.value).rename(self.path / stage.value)
        flush_folder(self.path)


def write_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a small file: temporary name, flush, rename, flush of the folder."""
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
    flush_folder(path.parent)


def flush_folder(path: Path) -> None:
    """Make a folder's entries durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_directory(
    path: Path, drives: tuple[DriveSetting, ...], randomness: Randomness
) -> Directory:
    """Lock DIR and read or make its marker. Raises DirectoryRefused, and OSError for what the
    filesystem refuses."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "run").mkdir(mode=0o700, exist_ok=True)
        (path / "metadata").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise DirectoryRefused(f"{path} cannot be used: {error.strerror}") from error
    _refuse_moved(path)
    lock = _lock(path)
    marker = path / "ostraka.json"
    if marker.exists():
        return _open_existing(path, marker, drives, lock)
    if (path / "metadata" / "metadata.sqlite").exists():
        raise DirectoryRefused(f"{path} holds metadata but its marker ostraka.json is missing")
    cluster_id, cluster_key = randomness.token(16), randomness.token(32)
    drives = drives or own_folders(path, DRIVES_DEFAULT)
    for drive in drives:
        if drive.may_adopt:
            Path(drive.path).mkdir(exist_ok=True)
        elif not Path(drive.path).is_dir():
            raise DirectoryRefused(f"drive {drive.path} is not a folder")
    write_durably(path / "cluster.key", cluster_key)
    return Directory(path, cluster_id, cluster_key, True, drives, lock)


def _refuse_moved(path: Path) -> None:
    if (path / Stage.MOVED.value).exists():
        raise DirectoryRefused(f"{path} has moved to a cluster: its drives are served by a node")
    if (path / Stage.MOVING.value).exists():
        raise DirectoryRefused(
            f"{path} is being moved to a cluster: go on with `ostraka admin migrate`, or give it up"
            " with --cancel"
        )


def open_moving(path: Path) -> Directory:
    """Lock the folder of a store at any stage, to move it. Raises DirectoryRefused."""
    for stage in Stage:
        marker = path / stage.value
        if marker.exists():
            lock = _lock(path)
            opened = _open_existing(path.absolute(), marker, (), lock)
            return replace(opened, stage=stage)
    raise DirectoryRefused(f"{path} is no store: there is no ostraka.json")


def load_directory(path: Path) -> Directory:
    """A store's folder as its running processes know it, without its lock (`lock` is -1). Raises
    DirectoryRefused."""
    marker = path / "ostraka.json"
    if not marker.exists():
        raise DirectoryRefused(f"{path} is no store: there is no ostraka.json")
    return _open_existing(path.absolute(), marker, (), -1)


def write_marker(directory: Directory) -> None:
    """Record the format, the cluster and the drives in slot order; last step of a first start.
    What is recorded already is not written again: the disk may be full."""
    marker = directory.path / "ostraka.json"
    content = json.dumps(
        {
            "format_version": FORMAT_VERSION,
            "min_reader_version": MIN_READER_VERSION,
            "cluster_id": directory.cluster_id.hex(),
            "drives": [
                {"path": _stored_path(directory.path, drive), "made_here": drive.may_adopt}
                for drive in directory.drives
            ],
        },
        indent=2,
    ).encode()
    if not marker.exists() or marker.read_bytes() != content:
        write_durably(marker, content, mode=0o644)


def _stored_path(root: Path, drive: DriveSetting) -> str:
    # Relative, so that DIR may be moved as a whole.
    return os.path.relpath(drive.path, root) if drive.may_adopt else drive.path


def _lock(path: Path) -> int:
    descriptor = os.open(path / "run" / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DirectoryRefused(f"{path} is in use by another ostraka process") from None
    return descriptor


def _open_existing(
    path: Path, marker: Path, drives: tuple[DriveSetting, ...], lock: int
) -> Directory:
    try:
        content = json.loads(marker.read_bytes())
        newer = int(content["min_reader_version"]) > FORMAT_VERSION
        cluster_id = bytes.fromhex(content["cluster_id"])
        known = [
            DriveSetting(os.path.normpath(path / entry["path"]), bool(entry["made_here"]))
            for entry in content["drives"]
        ]
    except KeyError as error:
        raise DirectoryRefused(f"{marker} has no {error}") from error
    except (OSError, ValueError, TypeError) as error:
        raise DirectoryRefused(f"{marker} is not readable: {_reason(error)}") from error
    if len(cluster_id) != 16 or not known:
        raise DirectoryRefused(f"{marker} is damaged")
    if newer:
        raise DirectoryRefused(
            f"{path} was written by a newer version of ostraka, which this one cannot read"
        )
    # Slots are for life: drives that are not known yet are appended, none is ever dropped here.
    stored = {os.path.realpath(drive.path) for drive in known}
    given = {os.path.realpath(drive.path) for drive in drives}
    if drives and not stored <= given:
        gone = next(d.path for d in known if os.path.realpath(d.path) not in given)
        raise DirectoryRefused(
            f"this store has {len(known)} drives and {gone} is not among those given:"
            " drives can be added, not left out"
        )
    merged = list(known)
    for drive in drives:
        if os.path.realpath(drive.path) not in stored:
            if drive.may_adopt:
                Path(drive.path).mkdir(exist_ok=True)
            elif not Path(drive.path).is_dir():
                raise DirectoryRefused(f"drive {drive.path} is not a folder")
            merged.append(drive)
    key = path / "cluster.key"
    try:
        cluster_key = key.read_bytes()
    except OSError as error:
        raise DirectoryRefused(f"{key} cannot be read: {error.strerror}") from error
    if len(cluster_key) != 32:
        raise DirectoryRefused(f"{key} is damaged: it must hold 32 bytes")
    return Directory(path, cluster_id, cluster_key, False, tuple(merged), lock)


def root_credentials(
    directory: Directory, given: Credentials | None, randomness: Randomness
) -> tuple[Credentials, bool]:
    """The root key pair: the environment's, else the stored one, else a new random one (then True).

    A new pair is stored with mode 0600. Given ones are not written to disk.
    """
    if given is not None:
        return given, False
    path = directory.path / "credentials.json"
    if path.exists():
        try:
            content = json.loads(path.read_bytes())
            return checked_credentials(content["access_key"], content["secret_key"]), False
        except KeyError as error:
            raise DirectoryRefused(f"{path} has no {error}") from error
        except (OSError, ValueError, TypeError, ConfigError) as error:
            raise DirectoryRefused(f"{path} is not readable: {_reason(error)}") from error
    credentials = new_credentials(randomness)
    write_durably(
        path,
        json.dumps(
            {"access_key": credentials.access_key, "secret_key": str(credentials.secret_key)}
        ).encode(),
    )
    return credentials, True


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def new_credentials(randomness: Randomness) -> Credentials:
    """A random key pair."""
    return Credentials(
        _random_text(randomness, 20, _ACCESS_KEY_ALPHABET),
        Secret(_random_text(randomness, 40, _SECRET_ALPHABET)),
    )


def _random_text(randomness: Randomness, length: int, alphabet: bytes) -> str:
    # Both alphabets have a power of two of letters, so the remainder is unbiased.
    return bytes(alphabet[byte % len(alphabet)] for byte in randomness.token(length)).decode()


def load_credentials(path: Path) -> Credentials:
    """Credentials of a store's folder, for `ostraka admin --dir`. Raises ConfigError."""
    try:
        content = json.loads((path / "credentials.json").read_bytes())
        return Credentials(content["access_key"], Secret(content["secret_key"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path / 'credentials.json'} cannot be read: {error}") from error
