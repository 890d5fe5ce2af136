"""What must hold once everything is mended and quiet: whole stripes, no orphan, one story."""

import dataclasses
from typing import TYPE_CHECKING

from gateway.domain.storage_classes import scheme_named
from gateway.domain.write_plan import scheme_for
from gateway.metadata import keys
from gateway.metadata.records import BlobRef, ObjectRecord, UploadRecord
from gateway.metadata.records import decode as decode_record
from gateway.metadata.snapshots import is_copied
from ops.keeper.inventory import blobs
from ops.rebuild.restore import Identity, restore
from ops.refusal import Refused
from placement.hashing import Placement
from placement.ids import BlobId, DriveId
from placement.membership import CLUSTER, ClusterRecord, decode
from placement.metastore.execution import EVERYTHING_AFTER
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import Range, prefix_end
from storage_node.index import decode_entry
from storage_node.quarantine import verify_shard
from storage_node.record import shard_of
from tests.sim.disks import Looking
from tests.sim.ledger import refs_in
from tests.sim.members import CLUSTER_KEY
from tests.sim.model import FOREVER, Act, TooHard, Wrong, linearize
from tests.sim.workload import BUCKET, Client

if TYPE_CHECKING:
    from tests.sim.world import World

STORY_SECONDS = 15.0
UNSEEN = "?"
"""A value that nobody read or asked for: one is as good as another."""
Held = dict[bytes, dict[int, list[DriveId]]]


async def used_blobs(world: "World") -> dict[bytes, BlobRef]:
    """Every blob that the metadata names; read beside the network."""
    found: dict[bytes, BlobRef] = {}
    async for refs in blobs(world.etcd.store, world.observer.objects):
        found.update({ref.blob: ref for ref in refs})
    return found


def held_shards(world: "World") -> Held:
    """Good shards on the drives in use, by blob and index; each is read and checked."""
    held: Held = {}
    for life in world.nodes.values():
        if life.node is None or not life.process.alive:
            continue
        for drive in life.node._drives.values():
            for key, entry in all_entries(drive):
                shard = shard_of(key)
                with Looking():
                    good = verify_shard(drive, shard, decode_entry(entry))
                if good:
                    held.setdefault(shard.blob, {}).setdefault(shard.index, []).append(drive.id)
    return held


def all_entries(drive: object) -> list[tuple[bytes, bytes]]:
    """Every index entry of a drive that was written back."""
    return list(drive.index.after(b"", 1 << 20))  # type: ignore[attr-defined]


async def unfinished(world: "World") -> str | None:
    """Why the cluster is not at rest yet."""
    etcd = world.etcd.store
    for prefix, what in (
        (keys.GARBAGE, "garbage"),
        (keys.DAMAGE, "damage marks"),
        (keys.NARROW, "narrow objects"),
    ):
        found = await etcd.range(Range(prefix, prefix_end(prefix), keys_only=True))
        if found.kvs and (prefix != keys.GARBAGE or world.waits_for_tombstones):
            return f"{len(found.kvs)} keys of {what}"
    for life in world.nodes.values():
        if not world.mounts[life.host]:
            continue
        if life.node is None or not life.process.alive:
            return f"{life.host} is not up: {life.ended} {life.refusals[-3:]}"
        for report in life.node.reports():
            if report.condition.value != "up":
                return f"{life.host} {report.path} is {report.condition}: {report.reason}"
        for drive in list(life.node._drives.values()):
            await drive.write_back()
    if why := await _part_of_nothing(world) or await _narrow_for_good(world):
        return why
    used, held = await used_blobs(world), held_shards(world)
    topology = world.observer.topology
    if topology.map.open_epochs:
        return "an epoch is still open"
    placement = topology.placement
    for blob, ref in used.items():
        why = _incomplete(placement, ref, held.get(blob, {}))
        if why:
            return why
    for blob in held:
        if blob not in used:
            return f"blob {blob.hex()} is an orphan: shards {sorted(held[blob])}"
    return None


async def _part_of_nothing(world: "World") -> str | None:
    """A part whose upload has ended: nobody would ever delete it."""
    etcd = world.etcd.store
    uploads = await etcd.range(Range(keys.UPLOADS, prefix_end(keys.UPLOADS)))
    alive = {
        kv.key[-16:] for kv in uploads.kvs if decode_record(UploadRecord, kv.value).state != "done"
    }
    parts = await etcd.range(Range(keys.PARTS, prefix_end(keys.PARTS), keys_only=True))
    for kv in parts.kvs:
        if kv.key[2:18] not in alive:
            return f"part {kv.key[18:].hex()} of upload {kv.key[2:18].hex()} is left over"
    return None


async def _narrow_for_good(world: "World") -> str | None:
    """An object on fewer drives than its record asks for, of which nothing tells: nobody would ever
    store it again."""
    etcd, default = world.etcd.store, world.observer.topology.map.scheme
    for prefix in (keys.OBJECTS, keys.VERSIONS):
        found = await etcd.range(Range(prefix, prefix_end(prefix)))
        for kv in found.kvs:
            record = decode_record(ObjectRecord, kv.value)
            wanted = scheme_named(record.scheme) or default
            for ref in refs_in(kv.key, kv.value):
                if ref.k < scheme_for(wanted, ref.size_bytes).k:
                    return f"blob {ref.blob.hex()} of {kv.key!r} is {ref.k}+{ref.m} and stays so"
    return None


def _incomplete(placement: Placement, ref: BlobRef, held: dict[int, list[DriveId]]) -> str | None:
    order = placement.write_order(BlobId(ref.blob), ref.k + ref.m)
    for index in range(ref.k + ref.m):
        drives = held.get(index, [])
        if not drives:
            return f"shard {index} of blob {ref.blob.hex()} ({ref.k}+{ref.m}) is not there"
        # A second one may lie elsewhere until the next inventory: deletes are not flushed, and what
        # moved away comes back with the power of a node that nobody saw go.
        if order[index].drive_id not in drives:
            places = {i: [d.hex()[:6] for d in at] for i, at in sorted(held.items())}
            homes = [drive.drive_id.hex()[:6] for drive in order]
            return f"shard {index} of blob {ref.blob.hex()} is not at home: {places}, not {homes}"
    return None


async def untold(world: "World") -> str | None:
    """Why the drives alone do not tell the metadata yet."""
    etcd, rebuilt = world.etcd.store, MemoryMetastore(world.observer.clock)
    (cluster,) = await etcd.get_many([CLUSTER])
    assert cluster is not None
    record = decode(ClusterRecord, cluster.value)
    identity = Identity(record.cluster_id, record.incarnation + 1, CLUSTER_KEY)
    try:
        await restore(rebuilt, world.observer.live_nodes, identity, lambda _: None)
    except Refused as error:
        return str(error)
    there, told = await _copied(etcd), await _copied(rebuilt)
    wrong = sorted(key for key in there.keys() | told.keys() if there.get(key) != told.get(key))
    return f"{len(wrong)} keys are not told: {wrong[:3]}" if wrong else None


async def _copied(metastore: MemoryMetastore) -> dict[bytes, bytes]:
    own = (CLUSTER, keys.REBUILT)
    found = await metastore.range(Range(b"\x00", EVERYTHING_AFTER))
    return {kv.key: kv.value for kv in found.kvs if is_copied(kv.key) and kv.key not in own}


def check_history(world: "World") -> None:
    """Every key's acts fit one register, as far as they have come. Raises Wrong with the acts."""
    for key in world.history.keys:
        acts = _resolved(_so_far(world.history.of_key(key)))
        try:
            order = linearize(acts)
        except TooHard as error:
            raise Wrong(f"{key}: no order was found ({error})") from error
        if order is None:
            raise Wrong(f"{key}: no order of these acts is one of a register:\n{_story(acts)}")


def _so_far(acts: list[Act]) -> list[Act]:
    """What is under way may come about, or not; a read of it has seen nothing yet."""
    return [
        dataclasses.replace(act, unsure=True) if act.returned == FOREVER else act
        for act in acts
        if act.kind != "read" or act.returned != FOREVER
    ]


def _story(acts: list[Act]) -> str:
    """The acts before the first one that no order has room for, and that one."""
    ends = sorted(act.returned for act in acts if not act.unsure)
    for end in ends:
        begun = [
            dataclasses.replace(act, unsure=True) if act.returned > end else act
            for act in acts
            if act.called < end and (act.returned <= end or act.kind != "read")
        ]
        if linearize(begun) is None:
            last = [act for act in begun if act.unsure or act.returned > end - STORY_SECONDS]
            return "\n".join(map(str, last))
    return "?"


def _resolved(acts: list[Act]) -> list[Act]:
    """Copies of which nobody knows what they wrote, or that are under way, may have written whatever
    was seen."""
    acts = [
        dataclasses.replace(act, choices=(UNSEEN,))
        if act.kind == "write" and act.unsure and act.value is None
        else act
        for act in acts
    ]
    seen = {act.value for act in acts if act.kind == "read" and act.value}
    seen |= {act.needs for act in acts if act.needs}
    choices = (*sorted(seen), UNSEEN)
    acts = [
        dataclasses.replace(act, value=UNSEEN)
        if act.kind == "write" and act.unsure and not act.choices and act.value not in seen
        else act
        for act in acts
    ]
    if not any(act.refused or act.needs for act in acts):
        # What nobody saw and nobody had to heed need not be placed.
        acts = [
            a for a in acts if a.kind != "write" or not a.unsure or a.choices or a.value in seen
        ]
    return [dataclasses.replace(act, choices=choices) if act.choices else act for act in acts]


async def final_reads(world: "World") -> None:
    """Every key through every gateway, and a listing; all must answer."""
    reader = Client(world, world.process("reader"))
    everyone = world.gateways
    for gateway in list(everyone):
        world.gateways = [gateway]
        for key in world.keys:
            answer = await reader.get(key)
            if answer.status not in (200, 404):
                raise Wrong(f"{key}: answered {answer.status} {answer.code} in quiet times")
        await reader.list()
    world.gateways = everyone
    answer = await reader.send("PUT", f"/{BUCKET}/last", b"last")
    if answer.status != 200:
        raise Wrong(f"a write was answered {answer.status} {answer.code} in quiet times")
    await reader.send("DELETE", f"/{BUCKET}/last")
