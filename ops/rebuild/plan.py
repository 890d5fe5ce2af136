"""Which parts of snapshots give the newest metadata, in which order. Pure.

Every part names the one before it, so that parts that were begun and never counted are told apart
from those that did, and a lost one is noticed. See `gateway.metadata.snapshots`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.metadata.snapshots import CHANGES, SnapshotPart


@dataclass(frozen=True, slots=True)
class Plan:
    """Parts to apply in this order: a snapshot from its first part on, and changes since. With
    `whole` parts, a prefix of `parts`, the metadata is whole; each further one carries it forward."""

    parts: tuple[SnapshotPart, ...]
    whole: int

    def up_to(self, unreadable: int) -> "Plan | None":
        """The plan that does without the part at that place and what comes after it; None when
        nothing whole is left."""
        return Plan(self.parts[:unreadable], self.whole) if unreadable >= self.whole else None

    @property
    def end(self) -> SnapshotPart:
        """The part that says how far the plan leads."""
        return self.parts[-1]


def plans(found: Iterable[SnapshotPart]) -> Iterator[Plan]:
    """All ways to rebuild from these parts: those that lead farthest first, and of them those that
    begin at the newest snapshot."""
    by_blob = {part.data.blob: part for part in found}
    named = {part.before for part in by_blob.values()}
    tails = [part for blob, part in by_blob.items() if blob not in named]
    for tail in sorted(tails, key=_age, reverse=True):
        path = _path_to(tail, by_blob)
        for number in sorted({part.number for part in path}, reverse=True):
            plan = _from_snapshot(number, path)
            if plan is not None:
                yield plan


def _age(part: SnapshotPart) -> tuple[int, int, int, int]:
    return part.incarnation, part.number, part.part, part.last_revision


def _path_to(tail: SnapshotPart, by_blob: Mapping[bytes, SnapshotPart]) -> list[SnapshotPart]:
    """What leads to this part, oldest first. Where the part before is lost, the changes before it
    do for a snapshot that began earlier."""
    path: list[SnapshotPart] = []
    part: SnapshotPart | None = tail
    while part is not None and len(path) < len(by_blob):
        path.append(part)
        part = by_blob.get(part.before) or by_blob.get(part.changes_before)
    path.reverse()
    return path


def _from_snapshot(number: int, path: Sequence[SnapshotPart]) -> Plan | None:
    """Beginning at that snapshot: all its parts, and the changes in later ones; None if it never
    became whole, or lacks a part."""
    own = [part for part in path if part.number == number]
    if [part.part for part in own] != list(range(len(own))):
        return None
    whole = next((place for place, part in enumerate(own, 1) if part.whole), 0)
    if not whole:
        return None
    later = [part for part in path if part.number > number and part.kind == CHANGES]
    return Plan((*own, *later), whole)
