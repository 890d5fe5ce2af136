"""A drive's identity file: which cluster and slot it belongs to, and who it is."""

import json
from dataclasses import dataclass, replace
from typing import Any

from placement.clock import Randomness
from placement.ids import DriveId, Slot
from storage_node.files import FileLayer, read_whole, write_whole

IDENTITY_NAME = "ostraka.drive"
FORMAT_VERSION = 1
_SIZE_BYTES_MAX = 64 << 10


class DriveRefused(Exception):
    """The folder may not be used as this drive; the message is one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class DriveIdentity:
    """What `ostraka.drive` says. `adopted_by_drives_flag`: made by `--drives N`, so that the folder
    may be adopted again, under a new identity, when it comes back empty."""

    cluster_id: bytes
    drive: DriveId
    slot: Slot
    incarnation: int
    adopted_by_drives_flag: bool

    def encode(self) -> bytes:
        """JSON, so that a person can read it."""
        return (
            json.dumps(
                {
                    "format_version": FORMAT_VERSION,
                    "min_reader_version": FORMAT_VERSION,
                    "cluster_id": self.cluster_id.hex(),
                    "drive_id": self.drive.hex(),
                    "slot": self.slot,
                    "incarnation": self.incarnation,
                    "adopted_by_drives_flag": self.adopted_by_drives_flag,
                },
                indent=1,
            )
            + "\n"
        ).encode()


def decode_identity(data: bytes, path: str) -> DriveIdentity:
    """Raises DriveRefused for what is not an identity this program can read."""
    try:
        fields: dict[str, Any] = json.loads(data)
        min_reader_version = int(fields["min_reader_version"])
    except (ValueError, KeyError, TypeError):
        raise DriveRefused(f"{path}/{IDENTITY_NAME} is damaged and cannot be read.") from None
    if min_reader_version > FORMAT_VERSION:
        raise DriveRefused(f"The drive {path} was written by a newer version of Ostraka.")
    try:
        return DriveIdentity(
            bytes.fromhex(fields["cluster_id"]),
            DriveId(bytes.fromhex(fields["drive_id"])),
            Slot(int(fields["slot"])),
            int(fields["incarnation"]),
            bool(fields["adopted_by_drives_flag"]),
        )
    except (ValueError, KeyError, TypeError):
        raise DriveRefused(f"{path}/{IDENTITY_NAME} is damaged and cannot be read.") from None


def read_identity(files: FileLayer, path: str) -> DriveIdentity | None:
    """The identity in that folder; None when there is no such file (or folder)."""
    try:
        data = read_whole(files, f"{path}/{IDENTITY_NAME}", _SIZE_BYTES_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return decode_identity(data, path)


def create_identity(
    files: FileLayer,
    randomness: Randomness,
    path: str,
    *,
    cluster_id: bytes,
    slot: Slot,
    incarnation: int,
    adopted_by_drives_flag: bool,
) -> DriveIdentity:
    """Give an existing folder a new identity; durable once the folder is flushed."""
    identity = DriveIdentity(
        cluster_id, DriveId(randomness.token(16)), slot, incarnation, adopted_by_drives_flag
    )
    write_whole(files, path, IDENTITY_NAME, identity.encode())
    return identity


def raise_incarnation(
    files: FileLayer, path: str, identity: DriveIdentity, incarnation: int
) -> DriveIdentity:
    """Write down that the drive has seen a later life of the metadata: an earlier one refuses it."""
    raised = replace(identity, incarnation=incarnation)
    write_whole(files, path, IDENTITY_NAME, raised.encode())
    return raised


def check_identity(
    identity: DriveIdentity, path: str, *, cluster_id: bytes, slot: Slot, incarnation: int
) -> None:
    """Raise DriveRefused unless the drive belongs to this cluster and this slot."""
    if identity.cluster_id != cluster_id:
        raise DriveRefused(f"The drive {path} belongs to another cluster.")
    if identity.slot != slot:
        raise DriveRefused(
            f"The drive {path} is drive {identity.slot + 1} of this store, not drive {slot + 1}: "
            "it seems that drives were swapped."
        )
    if identity.incarnation > incarnation:
        raise DriveRefused(
            f"The drive {path} has seen a later incarnation of the metadata than this one."
        )
