"""Which drive a node served last from which folder: kept beyond the lease of the node.

A folder that held a drive and is empty now is most likely a mount that failed. A drive's record ends
with its node's lease; what is kept here tells, whenever the node starts again, that the folder is not
free for a new drive. It binds while the cluster map names the drive, until an operator says that the
drive is gone.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from placement.cluster_map import ClusterMap
from placement.ids import DriveId, Slot
from placement.membership import SERVED, DriveRecord, ServedRecord, decode, drive_key, encode
from placement.metastore.port import (
    DeleteRange,
    KeyValue,
    Metastore,
    Put,
    Range,
    Txn,
    prefix_end,
    unchanged,
)


class Served(NamedTuple):
    """A drive, and the slot that its identity file names."""

    drive: DriveId
    slot: Slot


def served_key(node: str, path: str) -> bytes:
    """Key of what a node served from that folder. No node's name has a zero byte."""
    return SERVED + node.encode() + b"\x00" + path.encode(errors="surrogateescape")


async def remember(metastore: Metastore, node: str, path: str, served: Served) -> None:
    """The node serves this drive from there. Raises MetastoreUnavailable."""
    key = served_key(node, path)
    value = encode(ServedRecord(drive=served.drive, slot=served.slot))
    (found,) = await metastore.get_many([key])
    if found is None or found.value != value:
        await metastore.txn(Txn((), (Put(key, value),)))


async def bound(
    metastore: Metastore, now: ClusterMap | None, node: str, paths: Sequence[str]
) -> Mapping[str, Served]:
    """The drives that these folders held when the node served them last, as far as the map names
    them still and nobody serves them elsewhere: what was carried away has left its folder free.
    Raises MetastoreUnavailable, and MembershipRefused for records of another version."""
    known = frozenset(drive.drive_id for drive in now.drives) if now else frozenset()
    found = await metastore.get_many([served_key(node, path) for path in paths])
    held = {path: _served(kv) for path, kv in zip(paths, found, strict=True) if kv is not None}
    held = {path: served for path, served in held.items() if served.drive in known}
    records = await metastore.get_many([drive_key(served.drive) for served in held.values()])
    return {
        path: served
        for (path, served), kv in zip(held.items(), records, strict=True)
        # One of our own name: from the run before, whose lease has not ended yet.
        if kv is None or _is_at(decode(DriveRecord, kv.value), node, path)
    }


def _served(kv: KeyValue) -> Served:
    record = decode(ServedRecord, kv.value)
    return Served(DriveId(record.drive), Slot(record.slot))


def _is_at(record: DriveRecord, node: str, path: str) -> bool:
    return (record.node, record.path) == (node, path)


async def release(metastore: Metastore, drives: Collection[DriveId]) -> int:
    """These drives are gone for good: wherever they were served, a new drive may come. How many
    folders that were. Raises MetastoreUnavailable."""
    count = 0
    page = await metastore.range(Range(SERVED, prefix_end(SERVED)))
    for kv in page.kvs:
        if _served(kv).drive in drives:
            done = await metastore.txn(
                Txn((unchanged(kv.key, kv.mod_revision),), (DeleteRange(kv.key),))
            )
            count += done.succeeded
    return count
