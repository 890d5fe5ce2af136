"""Changes of the cluster map as pure functions: each makes the next epoch, or says why not.

A change that moves shards opens the epoch it leaves: readers look there too until the moves are
done. One planned move runs at a time; only putting out what is lost does not wait.
"""

import dataclasses
from collections.abc import Collection, Iterable, Sequence

from placement.balance import balanced, balanced_again
from placement.cluster_map import CLASSES_MAX, ClusterMap, DriveState, MapDrive
from placement.ids import DriveId, Epoch, Slot
from placement.membership import DriveRecord
from placement.schemes import Scheme, default_scheme

WEIGHT_UNIT_BYTES = 1 << 40
"""A drive of a TiB has weight 1."""
OPEN_EPOCHS_MAX = 8
LINEAGE_MAX = 16
"""Earlier maps whose indexes drives keep. What a longer history moves is only more, never wrong."""


class MapRefused(Exception):
    """The change is not possible; the message is one sentence for the operator."""


def weight_of(record: DriveRecord) -> float:
    """A drive's share by its size."""
    return max(round(record.capacity_bytes / WEIGHT_UNIT_BYTES, 6), 1e-6)


def weighed_by_size(cluster: ClusterMap, mean_capacity_bytes: float) -> ClusterMap:
    """A map whose weights are only relative to each other, in the unit of `weight_of`: drives that
    are added later get shares that fit. All weights grow alike, so no shard moves."""
    mean = sum(drive.weight for drive in cluster.drives) / max(len(cluster.drives), 1)
    if mean <= 0 or mean_capacity_bytes <= 0:
        return cluster
    factor = mean_capacity_bytes / WEIGHT_UNIT_BYTES / mean
    drives = (
        dataclasses.replace(
            drive,
            weight=drive.weight * factor,
            tuned_pull=None if drive.tuned_pull is None else drive.tuned_pull * factor,
        )
        for drive in cluster.drives
    )
    return dataclasses.replace(cluster, drives=tuple(drives))


def first_map(
    records: Sequence[DriveRecord], scheme: Scheme | None, partition_count: int
) -> ClusterMap:
    """The map of a new cluster."""
    if not records:
        raise MapRefused("no drive is registered: start the nodes first")
    scheme = scheme or default_scheme(len(records))
    if scheme.width > len(records):
        raise MapRefused(f"scheme {scheme} needs {scheme.width} drives, there are {len(records)}")
    places = [_place(Slot(slot), record) for slot, record in enumerate(_sorted(records))]
    return balanced(ClusterMap(Epoch(1), tuple(places), scheme, partition_count))


def add_drives(now: ClusterMap, records: Sequence[DriveRecord]) -> ClusterMap:
    """Take registered drives in: new ones, or known ones that were drained or put out."""
    known = {drive.drive_id: drive for drive in now.drives}
    drives = list(now.drives)
    free = iter(_free_slots(now))
    changed = False
    for record in _sorted(records):
        before = known.get(DriveId(record.drive))
        if before is None:
            drives.append(_place(next(free), record))
        elif before.state is DriveState.UP:
            continue
        else:
            drives[drives.index(before)] = _place(before.slot, record)
        changed = True
    if not changed:
        raise MapRefused("these drives are in use already")
    return _moved(now, drives)


def drain(now: ClusterMap, wanted: Collection[DriveId]) -> ClusterMap:
    """Empty these drives: they are read from, and take no writes."""
    _demand_known(now, wanted)
    after = _with_state(now, wanted, DriveState.DRAINING)
    left = sum(drive.state is DriveState.UP for drive in after)
    widest = max((now.scheme, *(scheme for _, scheme in now.classes)), key=lambda s: s.width)
    if left < widest.width:
        raise MapRefused(
            f"{left} drives would be left, fewer than the {widest.width} of scheme {widest}"
        )
    return _moved(now, after)


def put_out(now: ClusterMap, lost: Collection[DriveId]) -> ClusterMap:
    """These drives are gone: their shards are rebuilt elsewhere. Does not wait for other moves."""
    _demand_known(now, lost)
    return _moved(now, _with_state(now, lost, DriveState.OUT), waits=False)


def remove(now: ClusterMap, wanted: Collection[DriveId]) -> ClusterMap:
    """Forget drives that hold nothing any more."""
    _demand_known(now, wanted)
    for drive in now.drives:
        if drive.drive_id in wanted and drive.state is DriveState.UP:
            raise MapRefused(f"drive {drive.drive_id.hex()} is in use: drain it first")
    _demand_quiet(now)
    left = tuple(drive for drive in now.drives if drive.drive_id not in wanted)
    return dataclasses.replace(now, epoch=Epoch(now.epoch + 1), drives=left)


def replace(now: ClusterMap, old: DriveId, record: DriveRecord) -> ClusterMap:
    """A new drive takes over an old one's slot, and with it exactly what the old one held."""
    _demand_known(now, [old])
    if any(drive.drive_id == record.drive for drive in now.drives):
        raise MapRefused(f"drive {record.drive.hex()} is in use already")
    drives = []
    for drive in now.drives:
        if drive.drive_id == old:
            # The old weight and pull: else the slot would draw another share, and shards would move.
            drives.append(
                dataclasses.replace(
                    _place(drive.slot, record), weight=drive.weight, tuned_pull=drive.tuned_pull
                )
            )
        else:
            drives.append(drive)
    return _moved(now, drives, waits=False)


def balance(now: ClusterMap) -> ClusterMap:
    """Tune all pulls anew: for a map that was made before there were balanced ones, and after changes
    of the scheme, or drives lost, left some drives with more than their share."""
    _demand_quiet(now)
    after = balanced(now)
    if after == now:
        raise MapRefused("the map is balanced as it is")
    return _opened(now, after)


def close_epochs(now: ClusterMap) -> ClusterMap:
    """Every move is verified: readers need not look elsewhere any more."""
    return dataclasses.replace(now, epoch=Epoch(now.epoch + 1), open_epochs=())


def with_scheme(now: ClusterMap, scheme: Scheme) -> ClusterMap:
    """Another scheme for new objects; what is stored keeps its own."""
    demand_fits(now, scheme)
    return dataclasses.replace(now, epoch=Epoch(now.epoch + 1), scheme=scheme)


def with_class(now: ClusterMap, name: str, scheme: Scheme) -> ClusterMap:
    """A scheme for new objects of a storage class; what is stored keeps its own."""
    demand_fits(now, scheme)
    classes = {**dict(now.classes), name: scheme}
    if len(classes) > CLASSES_MAX:
        raise MapRefused(f"at most {CLASSES_MAX} storage classes can have a scheme")
    return dataclasses.replace(
        now, epoch=Epoch(now.epoch + 1), classes=tuple(sorted(classes.items()))
    )


def without_class(now: ClusterMap, name: str) -> ClusterMap:
    """A storage class takes no new objects any more; what is stored in it stays as it is."""
    left = tuple(item for item in now.classes if item[0] != name)
    if left == now.classes:
        raise MapRefused(f"storage class {name} has no scheme")
    return dataclasses.replace(now, epoch=Epoch(now.epoch + 1), classes=left)


def demand_fits(now: ClusterMap, scheme: Scheme) -> None:
    """Raises MapRefused for a scheme wider than the drives that are in use."""
    up = sum(drive.state is DriveState.UP for drive in now.drives)
    if scheme.width > up:
        raise MapRefused(f"scheme {scheme} needs {scheme.width} drives, there are {up}")


def domain_of(cluster: ClusterMap, drive: MapDrive) -> tuple[str, ...]:
    """The failure domain that placement spreads over: zones where there are several, else hosts,
    else drives."""
    if len({d.zone for d in cluster.drives}) > 1:
        return (drive.zone,)
    if len({d.host for d in cluster.drives}) > 1:
        return (drive.zone, drive.host)
    return (drive.zone, drive.host, drive.drive_id.hex())


def may_put_out(now: ClusterMap, lost: Collection[DriveId]) -> str | None:
    """Why these drives may not be put out by themselves; None when they may."""
    gone = [drive for drive in now.drives if drive.drive_id in lost]
    if len({domain_of(now, drive) for drive in gone}) > 1:
        return "more than one failure domain is missing"
    left = sum(d.state is DriveState.UP and d.drive_id not in lost for d in now.drives)
    if left < now.scheme.width:
        return f"{left} drives are left, fewer than the {now.scheme.width} of scheme {now.scheme}"
    return None


def _moved(now: ClusterMap, drives: Iterable[MapDrive], *, waits: bool = True) -> ClusterMap:
    """What does not wait is urgent, and moves nothing for balance's sake."""
    if not waits:
        return _opened(now, dataclasses.replace(now, drives=tuple(drives)))
    _demand_quiet(now)
    return _opened(now, balanced_again(now, drives))


def _opened(now: ClusterMap, after: ClusterMap) -> ClusterMap:
    return dataclasses.replace(
        after,
        epoch=Epoch(now.epoch + 1),
        open_epochs=(now.epoch, *now.open_epochs)[:OPEN_EPOCHS_MAX],
        lineage=(*now.lineage, now.epoch)[-LINEAGE_MAX:],
    )


def _demand_quiet(now: ClusterMap) -> None:
    if now.open_epochs:
        raise MapRefused("shards are still being moved after the last change: wait for it to end")


def _demand_known(now: ClusterMap, wanted: Collection[DriveId]) -> None:
    known = {drive.drive_id for drive in now.drives}
    for drive in wanted:
        if drive not in known:
            raise MapRefused(f"drive {drive.hex()} is not in the map")


def _with_state(
    now: ClusterMap, wanted: Collection[DriveId], state: DriveState
) -> tuple[MapDrive, ...]:
    return tuple(
        dataclasses.replace(drive, state=state) if drive.drive_id in wanted else drive
        for drive in now.drives
    )


def _free_slots(now: ClusterMap) -> Iterable[Slot]:
    # Slots of removed drives are not given again while damage marks may still name them: the next
    # ones count on from the highest.
    slot = max((drive.slot for drive in now.drives), default=-1)
    while True:
        slot += 1
        yield Slot(slot)


def _place(slot: Slot, record: DriveRecord) -> MapDrive:
    return MapDrive(
        slot, DriveId(record.drive), record.node, record.host, record.zone, weight_of(record)
    )


def _sorted(records: Sequence[DriveRecord]) -> list[DriveRecord]:
    return sorted(records, key=lambda record: (record.zone, record.host, record.node, record.path))
