"""`ostraka admin drive out`: an operator's word that drives are gone for good."""

from collections.abc import Collection, Sequence

from ops.clients import Clients
from ops.cluster_admin import DriveView, Plan, choose, plan_of, warnings_of
from ops.map_store import MapStore
from placement.cluster_map import ClusterMap, DriveState
from placement.ids import DriveId
from placement.map_changes import MapRefused, put_out
from placement.served_places import release
from storage_node.port import DriveCondition

_SERVED = frozenset(
    condition.value
    for condition in DriveCondition
    if condition not in (DriveCondition.FAILED, DriveCondition.MISSING)
)
_COUNTED = (DriveState.UP.value, DriveState.DRAINING.value)
_ABSENT = ("away", DriveCondition.FAILED.value, DriveCondition.MISSING.value)


def choose_gone(drives: Sequence[DriveView], wanted: Sequence[str]) -> list[DriveView]:
    """The drives that an operator names. Raises MapRefused for one that is there."""
    chosen = choose(drives, wanted)
    for drive in chosen:
        if drive.slot is None:
            raise MapRefused(f"drive {drive.drive.hex()} is not in the map")
        if drive.condition in _SERVED:
            raise MapRefused(f"drive {drive.drive.hex()} is there: drain it instead")
    return chosen


def declare_out(now: ClusterMap, gone: Collection[DriveId]) -> ClusterMap:
    """The map without them: their shards are rebuilt elsewhere. The same map when all are out
    already. Raises MapRefused."""
    states = {drive.drive_id: drive.state for drive in now.drives}
    new = [drive for drive in gone if states.get(drive) is not DriveState.OUT]
    return put_out(now, new) if new else now


def warnings_of_out(
    now: ClusterMap, drives: Sequence[DriveView], gone: Sequence[DriveView]
) -> list[str]:
    """What an operator should know before these drives are given up."""
    warnings = [
        f"drive {drive.drive.hex()[:12]} is registered, its node only does not answer: stop the node,"
        " or the drive comes back as one that is out"
        for drive in gone
        if drive.condition == "silent"
    ]
    named = {drive.drive for drive in gone}
    lost = [
        d for d in drives if d.slot is not None and (d.drive in named or d.condition in _ABSENT)
    ]
    scheme = now.scheme
    if len(lost) > scheme.m:
        warnings.append(
            f"{len(lost)} drives are away or given up, and scheme {scheme} tolerates {scheme.m}:"
            " objects may have shards on more of them than that, and cannot be read until drives come"
            " back. What a drive that is out still holds counts again after `ostraka admin drive add`"
        )
    out = {d.drive_id for d in now.drives if d.state is not DriveState.UP}
    left = sum(d.slot is not None and d.drive not in out | named for d in drives)
    if left < scheme.width:
        warnings.append(
            f"{left} drives are left, fewer than the {scheme.width} of scheme {scheme}: what was lost"
            " cannot all be rebuilt, and new objects are stored narrower, until a drive is added"
        )
    return warnings


async def give_up(clients: Clients, drives: Sequence[DriveView], wanted: Sequence[str]) -> Plan:
    """Put these drives out of the map, and free their folders for new ones. Raises MapRefused."""
    gone = choose_gone(drives, wanted)
    ids = [drive.drive for drive in gone]
    plan = plan_out(clients.topology.map, drives, wanted)
    maps = MapStore(clients.metastore)
    current, _ = await maps.current()
    if current is not None and declare_out(current, ids) != current:
        await maps.change(lambda current: declare_out(current, ids))
    await release(clients.metastore, ids)
    return plan


def plan_out(now: ClusterMap, drives: Sequence[DriveView], wanted: Sequence[str]) -> Plan:
    """What it would do. Raises MapRefused."""
    gone = choose_gone(drives, wanted)
    new = declare_out(now, [drive.drive for drive in gone])
    plan = plan_of(now, new, drives)
    warnings = [*warnings_of_out(now, drives, gone), *warnings_of(new)]
    return Plan(plan.moved_share, plan.moved_bytes, new, list(dict.fromkeys(warnings)))
