"""The cluster map: one immutable value an epoch, shared by everyone who places or finds shards."""

import itertools
import math
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from placement.ids import DriveId, Epoch, Slot
from placement.schemes import Scheme, Schemes

PARTITIONS_DEFAULT = 1 << 12
PARTITIONS_MAX = 1 << 16
PARTITION_COUNTS = tuple(1 << bits for bits in range(12, 17))
"""What an operator may choose."""
SLOTS_MAX = 1 << 32
CLASSES_MAX = 32
"""Storage classes that a map gives schemes: everybody reads the map whole."""
FORMAT_VERSION = 1
BALANCED_VERSION = 2
"""Of a balanced map, which a program that knows none must not read: it would place otherwise."""


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    """The map as stored. Fields are only appended, with defaults; later ones are passed over."""

    epoch: int
    partition_count: int
    scheme: tuple[int, int, int]
    drives: list["_StoredDrive"]
    open_epochs: list[int]
    lineage: list[int] = []
    classes: list[tuple[str, int, int, int]] = []


class _StoredDrive(msgspec.Struct, frozen=True, array_like=True):
    """The same holds for a drive."""

    slot: int
    drive_id: bytes
    node: str
    host: str
    zone: str
    weight: float
    state: str


class _Balanced(msgspec.Struct, frozen=True, array_like=True):
    """A balanced map: the drives' pulls, in their order; the same holds for it."""

    pulls: list[float]
    map: _Stored


_decoder = msgspec.msgpack.Decoder(_Stored)
_balanced_decoder = msgspec.msgpack.Decoder(_Balanced)


class DriveState(Enum):
    """`UP` takes reads and writes, `DRAINING` reads only, `OUT` neither: its shards are rebuilt."""

    UP = "up"
    DRAINING = "draining"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class MapDrive:
    """One drive's place. `node` names the process that serves it; zone > host > drive.

    `weight` is the drive's share relative to the others'. 0 means that it holds nothing: a drive
    that is to be emptied is `DRAINING` and keeps its weight.
    """

    slot: Slot
    drive_id: DriveId
    node: str
    host: str
    zone: str
    weight: float = 1.0
    state: DriveState = DriveState.UP
    tuned_pull: float | None = None
    """What it draws with, where that is not its weight: only in a balanced map."""

    @property
    def pull(self) -> float:
        """What it draws partitions with."""
        return self.weight if self.tuned_pull is None else self.tuned_pull


@dataclass(frozen=True, slots=True)
class ClusterMap:
    """Nodes' drives, the default scheme and those of storage classes under one epoch."""

    epoch: Epoch
    drives: tuple[MapDrive, ...]
    scheme: Scheme
    partition_count: int = PARTITIONS_DEFAULT
    open_epochs: tuple[Epoch, ...] = field(default=())
    """Earlier epochs whose shards may not all have been moved yet, newest first."""
    lineage: tuple[Epoch, ...] = ()
    """Earlier epochs that placed differently, oldest first: drives keep the indexes that they had
    there, so that a change moves no shard between drives that stay (`hashing.Placement`)."""
    classes: tuple[tuple[str, Scheme], ...] = ()
    """Storage classes that have a scheme of their own, in order of name."""
    balanced: bool = False
    """Whether changes tune the drives' pulls, so that each holds its weight's share: the rule of maps
    that are made today. Earlier ones draw with weights until an operator has them balanced."""

    def __post_init__(self) -> None:
        """Refuse a map that could not be served."""
        slots = [drive.slot for drive in self.drives]
        ids = [drive.drive_id for drive in self.drives]
        if len(set(slots)) != len(slots) or len(set(ids)) != len(ids):
            raise ValueError("a cluster map names a slot or a drive twice")
        count = self.partition_count
        if not 1 <= count <= PARTITIONS_MAX or count & (count - 1):
            raise ValueError("the number of partitions is a power of two, at most 65536")
        for drive in self.drives:
            if not 0 <= drive.slot < SLOTS_MAX:
                raise ValueError(f"slot {drive.slot} is out of range")
            if not (drive.weight >= 0 and math.isfinite(drive.weight)):
                raise ValueError(f"slot {drive.slot} has weight {drive.weight}")
            if drive.tuned_pull is not None and not (
                self.balanced and drive.tuned_pull > 0 and math.isfinite(drive.tuned_pull)
            ):
                raise ValueError(f"slot {drive.slot} has pull {drive.tuned_pull}")
        names = [name for name, _ in self.classes]
        if len(names) > CLASSES_MAX or names != sorted(set(names)):
            raise ValueError("storage classes are at most 32, each once, in order of name")

    @property
    def schemes(self) -> Schemes:
        """What new blobs are stored under."""
        return Schemes(self.scheme, self.classes)

    def encode(self) -> bytes:
        """Version byte, then MessagePack."""
        fields: list[object] = [
            self.epoch,
            self.partition_count,
            (self.scheme.k, self.scheme.m, self.scheme.stripe_size_bytes),
            [
                (d.slot, d.drive_id, d.node, d.host, d.zone, d.weight, d.state.value)
                for d in self.drives
            ],
            list(self.open_epochs),
        ]
        if self.lineage or self.classes:  # appended after the first stores were made
            fields.append(list(self.lineage))
        if self.classes:  # appended later still
            fields.append([(n, s.k, s.m, s.stripe_size_bytes) for n, s in self.classes])
        if self.balanced:
            pulls = [drive.pull for drive in self.drives]
            return bytes([BALANCED_VERSION]) + msgspec.msgpack.encode([pulls, fields])
        return bytes([FORMAT_VERSION]) + msgspec.msgpack.encode(fields)

    @classmethod
    def decode(cls, data: bytes) -> "ClusterMap":
        """Raises ValueError for bytes that are no map, or of a version this code does not read."""
        if not data or data[0] not in (FORMAT_VERSION, BALANCED_VERSION):
            raise ValueError("unknown version of the cluster map")
        balanced = data[0] == BALANCED_VERSION
        pulls: list[float] = []
        try:
            if balanced:
                both = _balanced_decoder.decode(data[1:])
                pulls, stored = both.pulls, both.map
            else:
                stored = _decoder.decode(data[1:])
        except msgspec.DecodeError as error:
            raise ValueError("malformed cluster map") from error
        if balanced and len(pulls) != len(stored.drives):
            raise ValueError("malformed cluster map: it has not one pull for each drive")
        return cls(
            epoch=Epoch(stored.epoch),
            drives=tuple(
                MapDrive(
                    Slot(drive.slot),
                    DriveId(drive.drive_id),
                    drive.node,
                    drive.host,
                    drive.zone,
                    drive.weight,
                    DriveState(drive.state),
                    None if pull in (None, drive.weight) else pull,
                )
                for drive, pull in itertools.zip_longest(stored.drives, pulls)
            ),
            scheme=Scheme(*stored.scheme),
            partition_count=stored.partition_count,
            open_epochs=tuple(Epoch(epoch) for epoch in stored.open_epochs),
            lineage=tuple(Epoch(epoch) for epoch in stored.lineage),
            classes=tuple((name, Scheme(*scheme)) for name, *scheme in stored.classes),
            balanced=balanced,
        )
