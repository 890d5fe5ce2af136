"""The rule of writing a blob's shards: which drives, and what a set of outcomes allows. Pure.

A write that starts while drives are missing takes the next live ones of the order (handoff), or a
narrower scheme with the same m where there are not enough. Once it runs, all k + m shards commit it,
or, after failures, at least k + 1 (2 copies), with the left-out drives marked as damaged.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from placement.cluster_map import MapDrive
from placement.ids import DriveId, Slot
from placement.schemes import Scheme

COPIES_SIZE_BYTES_MAX = 16 << 10
"""Blobs up to this size are stored as m + 1 whole copies: half the messages, one read."""


@dataclass(frozen=True, slots=True)
class WritePlan:
    """Drive of each index, in index order."""

    scheme: Scheme
    seats: tuple[MapDrive, ...]
    left_out: tuple[Slot, ...]
    """Drives that should hold a shard by the order but take none: to be marked as damaged."""
    narrow: bool
    """Fewer data shards than the scheme asks for: to be re-encoded when drives return."""
    node: str = ""
    """The node of all seats, "" when there are several."""
    homes: tuple[MapDrive, ...] = ()
    """The drives that the order prefers, whether or not they take writes now."""

    @property
    def least(self) -> int:
        """Shards that must be durable before the commit when drives fail meanwhile."""
        return min(self.scheme.width, self.scheme.k + 1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the stored shards suffice, and the drives to mark before the commit if they do."""

    commits: bool
    marks: tuple[Slot, ...]


def scheme_for(wanted: Scheme, size_bytes: int) -> Scheme:
    """Small blobs are copies, others take the wanted scheme."""
    return wanted.copies if size_bytes <= COPIES_SIZE_BYTES_MAX else wanted


def plan_write(
    target: Scheme, scheme: Scheme, order: tuple[MapDrive, ...], writable: Collection[Slot]
) -> WritePlan:
    """Seats for a blob that should be stored under `target`. `scheme` is what fits of that, and the
    order of the blob's partition holds at least so many drives that take writes."""
    homes = order[: scheme.width]
    spare = (drive for drive in order[scheme.width :] if drive.slot in writable)
    seats = tuple([drive if drive.slot in writable else next(spare) for drive in homes])
    left_out = tuple([d.slot for d in order[: target.width] if d.slot not in writable])
    nodes = {drive.node for drive in seats}
    node = nodes.pop() if len(nodes) == 1 else ""
    return WritePlan(scheme, seats, left_out, scheme.k < target.k, node, homes)


def replacements(
    plan: WritePlan,
    failed: Collection[int],
    order: Sequence[MapDrive],
    writable: Collection[Slot],
    tried: Collection[DriveId],
) -> dict[int, MapDrive]:
    """Other live drives for indices whose drive failed during the write, as far as there are any.

    `order` may be of a newer map than the plan: a drive that was taken out and came back has another
    slot there, and is the same drive. Two shards of a blob on it would be lost together.
    """
    taken = {drive.drive_id for drive in plan.seats} | set(tried)
    spare = (d for d in order if d.slot in writable and d.drive_id not in taken)
    return dict(zip(sorted(failed), spare, strict=False))


def judge(plan: WritePlan, stored: Collection[int]) -> Verdict:
    """What the indices that are on stable storage allow. The marks also name drives of the order
    that had to be left out from the start."""
    assert all(0 <= index < plan.scheme.width for index in stored)
    marks = dict.fromkeys(plan.left_out)
    for index, drive in enumerate(plan.seats):
        if index not in stored:
            marks[drive.slot] = None
    return Verdict(len(set(stored)) >= plan.least, tuple(marks))
