"""Versions of a key: where each is kept, and the writes that make, move and end them. Pure.

In a bucket that has versioning (or had it: suspended), the current version of a key is at `o/`, or
at `x/` when it is a delete marker; all others are at `v/`, newest first. Whatever changes which
version is current compares both `o/` and `x/`; whatever ends a version that is not current compares
that record alone. Where the current slot is empty, there are no versions.

A record that moves takes its group along: a group's first owner is a record key, so whoever uses
the group at another key says so in `group_owner` and by `r/<group>/<its key>`
(`gateway.metadata.groups`); back at the first owner's key it needs neither.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from gateway.metadata import groups, keys
from gateway.metadata.entries import ObjectEntry
from gateway.metadata.records import ObjectRecord, encode
from placement.metastore.port import Compare, DeleteRange, Operation, Put, unchanged


class Slot(NamedTuple):
    """The current version of a key as read, and what else a change of it must know.

    `present` is the current version (object or marker), `null` the null version if it is not
    current (only read where it matters), `narrow` whether re-encoding of the current was asked for.
    """

    object_key: bytes
    object_revision: int
    marker_revision: int
    present: ObjectEntry | None = None
    null: ObjectEntry | None = None
    narrow: bool = False

    @property
    def object(self) -> ObjectEntry | None:
        """The current version when it is an object."""
        if self.present is None or self.present.record.delete_marker:
            return None
        return self.present

    @property
    def order(self) -> int:
        """The order of the current version; -1 when there is none."""
        return -1 if self.present is None else self.present.record.order

    @property
    def compares(self) -> tuple[Compare, Compare]:
        """The slot is as it was read."""
        return (
            unchanged(self.object_key, self.object_revision),
            unchanged(keys.marker(self.object_key), self.marker_revision),
        )


class Writes:
    """Writes of one transaction, by key: a later one replaces an earlier one, a put a delete."""

    def __init__(self) -> None:
        self._puts: dict[bytes, bytes] = {}
        self._deletes: dict[bytes, None] = {}

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key."""
        self._puts[key] = value

    def delete(self, key: bytes) -> None:
        """Delete a key, unless it is also set."""
        self._deletes[key] = None

    def operations(self, others: Iterable[Operation] = ()) -> tuple[Operation, ...]:
        """All of them, with others that the same transaction has; those win over these."""
        others = tuple(others)
        theirs = {each.key for each in others if isinstance(each, Put)}
        return (
            *(DeleteRange(k) for k in self._deletes if k not in self._puts and k not in theirs),
            *(Put(key, value) for key, value in self._puts.items() if key not in theirs),
            *others,
        )


def succeed(slot: Slot, record: ObjectRecord, value: bytes, now_ms: int) -> Writes:
    """Make `record` (encoded: `value`) the current version. The one before it stays as a version,
    unless both are null versions: of these there is one at most."""
    writes = Writes()
    target = keys.marker(slot.object_key) if record.delete_marker else slot.object_key
    writes.put(target, value)
    if record.group_owner:
        writes.put(keys.reference(record.group, target), b"")
    present = slot.present
    if present is not None:
        if present.record_key != target:
            writes.delete(present.record_key)
        if record.version_id or present.record.version_id:
            _demote(writes, slot, present, now_group=record.group)
        else:
            _end_use(writes, present, now_ms, successor=record)
    if slot.null is not None and not record.version_id:
        _end_version(writes, slot.null, now_ms)
    return writes


def rename(source: Slot, destination: Slot, record: ObjectRecord, now_ms: int) -> Writes:
    """Without versioning: the source's record, as `record`, takes the destination's place.

    The group is queued as garbage though it is used, as when a copy's source is deleted: nobody can
    claim it, and a write of the source whose answer was lost finds there that it was carried out.
    """
    writes = Writes()
    present = source.present
    assert present is not None
    writes.delete(present.record_key)
    _end_use(writes, present, now_ms, successor=None)
    writes.put(destination.object_key, encode(record))
    if record.group_owner:
        writes.put(keys.reference(record.group, destination.object_key), b"")
    if destination.present is not None:
        _end_use(writes, destination.present, now_ms, successor=record)
    return writes


def replaced_null(slot: Slot, record: ObjectRecord) -> ObjectEntry | None:
    """The version that ends when `record` becomes current: the null version, by another."""
    if record.version_id:
        return None
    if slot.present is not None and not slot.present.record.version_id:
        return slot.present
    return slot.null


def remove(version: ObjectEntry, now_ms: int) -> Writes:
    """End a version that is not current."""
    writes = Writes()
    _end_version(writes, version, now_ms)
    return writes


def promote(slot: Slot, newest: ObjectEntry | None, *, narrow: bool, now_ms: int) -> Writes:
    """End the current version; the newest of the others, if any, takes its place. `narrow`: its
    re-encoding was asked for."""
    present = slot.present
    assert present is not None
    writes = Writes()
    writes.delete(present.record_key)
    if slot.narrow:
        writes.delete(keys.narrow(slot.object_key))
    successor: ObjectRecord | None = None
    if newest is not None:
        marker = newest.record.delete_marker
        target = keys.marker(slot.object_key) if marker else slot.object_key
        writes.delete(newest.record_key)
        if not newest.record.version_id:
            writes.delete(keys.null_version(slot.object_key))
        successor = _move(writes, newest, target)
        if narrow:
            writes.delete(keys.narrow(newest.record_key))
            if not marker:
                writes.put(keys.narrow(target), b"")
    _end_use(writes, present, now_ms, successor=successor)
    return writes


def _demote(writes: Writes, slot: Slot, present: ObjectEntry, *, now_group: bytes) -> None:
    target = keys.version(slot.object_key, present.record.order)
    _move(writes, present, target)
    if not present.record.version_id:
        order = present.record.order.to_bytes(8, "big")
        writes.put(keys.null_version(slot.object_key), order)
    if slot.narrow:
        if not present.record.delete_marker:  # else what was asked for has ended
            writes.put(keys.narrow(target), b"")
        if present.record.group != now_group:
            writes.delete(keys.narrow(slot.object_key))


def _move(writes: Writes, version: ObjectEntry, target: bytes) -> ObjectRecord:
    """Put a version at another key, its group's use with it; the record as it is there."""
    record = version.record
    if not record.delete_marker:
        owner = record.group_owner or version.record_key
        if record.group_owner:
            writes.delete(keys.reference(record.group, version.record_key))
        if owner == target:
            owner = b""
        else:
            writes.put(keys.reference(record.group, target), b"")
        record = msgspec.structs.replace(record, group_owner=owner)
    writes.put(target, encode(record))
    return record


def _end_version(writes: Writes, version: ObjectEntry, now_ms: int) -> None:
    writes.delete(version.record_key)
    if not version.record.version_id:
        writes.delete(keys.null_version(keys.object_of(version.record_key)))
    _end_use(writes, version, now_ms, successor=None)


def _end_use(
    writes: Writes, version: ObjectEntry, now_ms: int, *, successor: ObjectRecord | None
) -> None:
    """A version's use of its group ends; its bytes become garbage unless the successor has them."""
    record = version.record
    if record.delete_marker:
        return
    if record.group_owner:
        writes.delete(keys.reference(record.group, version.record_key))
    if successor is None or successor.group != record.group:
        garbage = groups.garbage_of(version.record_key, record, now_ms)
        writes.put(garbage.key, garbage.value)
