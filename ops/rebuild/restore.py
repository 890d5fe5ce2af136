"""From parts of snapshots to a key space: the newest plan that can be read, applied in order.

It may be begun again at any time: what an earlier attempt put is removed first, and the cluster map's
`m/current`, without which no gateway begins, comes last.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.metadata import keys
from gateway.metadata.records import MapCurrent, RecordError, decode, encode
from gateway.metadata.snapshots import (
    Change,
    RebuiltRecord,
    SnapshotPart,
    decode_changes,
    is_copied,
)
from ops.rebuild.drives import FoundParts, Unreadable, find_parts, read_part
from ops.rebuild.plan import Plan, plans
from ops.refusal import Refused
from placement.cluster_map import ClusterMap
from placement.ids import Epoch
from placement.membership import (
    CLUSTER,
    DRIVES,
    LEADERS,
    NODES,
    PROGRESS,
    SERVED,
    ClusterRecord,
    MembershipRefused,
    cluster_record,
    has_key,
)
from placement.membership import decode as decode_membership
from placement.membership import encode as encode_membership
from placement.metastore.execution import EVERYTHING_AFTER
from placement.metastore.port import (
    DeleteRange,
    Metastore,
    Operation,
    Put,
    Range,
    Txn,
    prefix_end,
)
from storage_node.port import NodePort

BATCH_KEYS = 100
BATCH_SIZE_BYTES = 512 << 10
"""Well below etcd's 128 operations and 1.5 MiB a request."""
_KEPT_PREFIXES = (DRIVES, LEADERS, NODES, PROGRESS, SERVED)
_SET_APART = (CLUSTER, keys.REBUILT, keys.MAP_CURRENT)

log = logging.getLogger("ostraka.rebuild")

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose metadata is rebuilt, and which life of it this will be."""

    cluster_id: bytes
    incarnation: int
    cluster_key: bytes


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of it."""

    snapshot: int
    parts: int
    as_of_ms: int
    keys: int
    incarnation: int
    unreadable: int
    """Parts that could not be read and were done without: a snapshot before was taken, or changes
    after `as_of_ms` are lost."""

    def shown(self) -> dict[str, int]:
        """For JSON."""
        return {
            "snapshot": self.snapshot,
            "parts": self.parts,
            "as_of_ms": self.as_of_ms,
            "keys": self.keys,
            "incarnation": self.incarnation,
            "unreadable_parts": self.unreadable,
        }


async def claim_store(metastore: Metastore, identity: Identity) -> None:
    """Say whose metadata this will be, so that nodes accept it. Raises Refused for a store that
    holds metadata already."""
    await demand_empty(metastore)
    record = cluster_record(identity.cluster_id, identity.incarnation, identity.cluster_key)
    running = RebuiltRecord(running=True, incarnation=identity.incarnation)
    await metastore.txn(
        Txn(
            (),
            (Put(CLUSTER, encode_membership(record)), Put(keys.REBUILT, encode(running))),
        )
    )


async def demand_empty(metastore: Metastore) -> None:
    """Raises Refused unless nothing is there, or what a rebuild left unfinished."""
    current, rebuilt = await metastore.get_many([keys.MAP_CURRENT, keys.REBUILT])
    if current is None:
        return
    if rebuilt is not None and decode(RebuiltRecord, rebuilt.value).running:
        return
    raise Refused("there is metadata already: a rebuild begins with an empty store")


async def restore(
    metastore: Metastore, nodes: Mapping[str, NodePort], identity: Identity, tell: Tell
) -> Restored:
    """Find the newest metadata on the drives and put it. Raises Refused."""
    counted = 0

    def seen(count: int) -> None:
        nonlocal counted
        before, counted = counted, counted + count
        if before // 100_000 != counted // 100_000:
            tell(f"{counted} shards looked at")

    found = await find_parts(nodes, identity.cluster_id, seen)
    tell(f"{counted} shards looked at, {len(found.parts)} parts of snapshots found")
    plan, unreadable = await _readable_plan(found, nodes, tell)
    _demand_later_life(found, identity)
    await empty(metastore)
    count, current = await _apply(metastore, plan, found, nodes, identity, tell)
    await _put_all(metastore, _part_records(plan, found))
    end = plan.end
    finished = RebuiltRecord(
        running=False,
        incarnation=identity.incarnation,
        number=plan.parts[0].number,
        revision=end.last_revision,
        as_of_ms=end.as_of_ms,
    )
    await metastore.txn(
        Txn((), (Put(keys.MAP_CURRENT, current), Put(keys.REBUILT, encode(finished))))
    )
    return Restored(
        snapshot=plan.parts[0].number,
        parts=len(plan.parts),
        as_of_ms=end.as_of_ms,
        keys=count,
        incarnation=identity.incarnation,
        unreadable=unreadable,
    )


async def confirm(metastore: Metastore) -> RebuiltRecord:
    """Let garbage and sweep go on. Raises Refused when nothing waits for it."""
    (found,) = await metastore.get_many([keys.REBUILT])
    if found is None:
        raise Refused("no rebuild waits to be confirmed")
    record = decode(RebuiltRecord, found.value)
    if record.running:
        raise Refused("the rebuild is not finished: run it again")
    await metastore.txn(Txn((), (DeleteRange(keys.REBUILT),)))
    return record


async def _readable_plan(
    found: FoundParts, nodes: Mapping[str, NodePort], tell: Tell
) -> tuple[Plan, int]:
    """The best plan all of whose parts can be read, and how many parts that cannot be read were
    met on the way."""
    bad: set[bytes] = set()
    good: set[bytes] = set()
    for plan in plans(found.parts.values()):
        usable: Plan | None = plan
        for place, part in enumerate(plan.parts):
            blob = part.data.blob
            if blob in good:
                continue
            try:
                if blob in bad:
                    raise Unreadable("as seen before")
                decode_changes(await read_part(part, found.holders[blob], nodes))
                good.add(blob)
            except (Unreadable, RecordError) as error:
                if blob not in bad:
                    tell(f"part {part.part} of snapshot {part.number} cannot be read: {error}")
                bad.add(blob)
                usable = plan.up_to(place)
                break
        if usable is not None:
            return usable, len(bad)
    raise Refused("the drives hold no whole snapshot of the metadata that can be read")


def _demand_later_life(found: FoundParts, identity: Identity) -> None:
    newest = max(part.incarnation for part in found.parts.values())
    if newest >= identity.incarnation:
        raise Refused(
            f"the drives hold a snapshot of incarnation {newest}: this rebuild would be"
            f" {identity.incarnation}; name a drive that has seen it"
        )


async def empty(metastore: Metastore) -> None:
    """Remove what an earlier attempt put (but for the cluster's own record); what processes say of themselves stays."""
    start = b"\x00"
    bounds = sorted(
        [(key, key + b"\x00") for key in (CLUSTER, keys.REBUILT)]
        + [(prefix, prefix_end(prefix)) for prefix in _KEPT_PREFIXES]
    )
    for end, after in [*bounds, (EVERYTHING_AFTER, b"")]:
        while True:
            page = await metastore.range(Range(start, end, limit=BATCH_KEYS, keys_only=True))
            if page.kvs:
                last = page.kvs[-1].key + b"\x00"
                await metastore.txn(Txn((), (DeleteRange(start, last),)))
            if not page.more:
                break
        start = after


async def _apply(
    metastore: Metastore,
    plan: Plan,
    found: FoundParts,
    nodes: Mapping[str, NodePort],
    identity: Identity,
    tell: Tell,
) -> tuple[int, bytes]:
    """Put everything but what is set apart; how many writes that took, and `m/current`."""
    apart: dict[bytes, bytes | None] = {}
    count = 0
    for place, part in enumerate(plan.parts, 1):
        data = await read_part(part, found.holders[part.data.blob], nodes)
        changes = decode_changes(data)
        apart.update((key, value) for key, value in changes if key in _SET_APART)
        own = [c for c in changes if c[0] not in _SET_APART and is_copied(c[0])]
        await _put_all(metastore, own)
        count += len(own)
        if place % 100 == 0 or place == len(plan.parts):
            tell(f"{place} of {len(plan.parts)} parts applied, {count} writes")
    _demand_key(apart.get(CLUSTER), identity)
    current = apart.get(keys.MAP_CURRENT)
    if current is None:
        raise Refused("the snapshot holds no cluster map")
    epoch = Epoch(decode(MapCurrent, current).epoch)
    (stored,) = await metastore.get_many([keys.map_epoch(epoch)])
    if stored is None:
        raise Refused(f"the snapshot lacks the cluster map of epoch {epoch}")
    ClusterMap.decode(stored.value)
    return count, current


def _demand_key(value: bytes | None, identity: Identity) -> None:
    """The secrets in the snapshot must open with the key at hand."""
    if value is None:
        return
    try:
        record = decode_membership(ClusterRecord, value)
    except MembershipRefused as error:
        raise Refused(str(error)) from error
    if not has_key(record, identity.cluster_key):
        raise Refused("the cluster key is not the one that sealed the secrets in the snapshot")


def _part_records(plan: Plan, found: FoundParts) -> list[Change]:
    """The keys of the parts that were found, so that repair keeps them whole. What was begun and
    never counted is left to the sweep."""
    named: dict[bytes, SnapshotPart] = {}
    for part in [*plan.parts, *found.parts.values()]:
        named.setdefault(keys.snapshot_part(part.number, part.part), part)
    return [(key, encode(part)) for key, part in named.items()]


async def _put_all(metastore: Metastore, changes: Sequence[Change]) -> None:
    """In order, in bounded batches; of a key that comes twice in a batch the last counts."""
    batch: dict[bytes, bytes | None] = {}
    size_bytes = 0
    for key, value in changes:
        batch.pop(key, None)
        batch[key] = value
        size_bytes += len(key) + len(value or b"")
        if len(batch) >= BATCH_KEYS or size_bytes >= BATCH_SIZE_BYTES:
            await _put_batch(metastore, batch)
            batch, size_bytes = {}, 0
    await _put_batch(metastore, batch)


async def _put_batch(metastore: Metastore, batch: Mapping[bytes, bytes | None]) -> None:
    operations: list[Operation] = [
        DeleteRange(key) if value is None else Put(key, value) for key, value in batch.items()
    ]
    if operations:
        await metastore.txn(Txn((), tuple(operations)))
