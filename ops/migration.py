"""From one machine to many: the embedded metadata of `serve` is copied into etcd.

The drives stay as they are. Batches are bounded, and each says with what it puts how far the copy
is, so a copy that was cut off goes on. At the end every key is compared; only then comes the cluster
map's `m/current`, without which no gateway or keeper begins. The folder's marker is renamed first, so
that `serve` cannot write to what is being copied, nor to what was.
"""

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from gateway.metadata import keys
from gateway.metadata.records import MapCurrent, Record, decode, encode
from gateway.metadata.snapshots import is_copied
from ops.cluster_settings import open_cluster_store
from ops.directory import Directory, DirectoryRefused, Stage, open_moving
from ops.map_store import MapStore
from ops.rebuild.restore import BATCH_KEYS, BATCH_SIZE_BYTES, Tell, empty
from ops.refusal import Refused
from ops.settings import ClusterSettings
from placement.clock import Clock, SystemClock, SystemRandomness
from placement.cluster_map import ClusterMap
from placement.errors import MetastoreDenied, MetastoreUnavailable
from placement.ids import Epoch
from placement.map_changes import weighed_by_size
from placement.membership import (
    CLUSTER,
    ClusterRecord,
    MembershipRefused,
    cluster_record,
    join_cluster,
)
from placement.membership import decode as decode_membership
from placement.membership import encode as encode_membership
from placement.metastore.etcd import EtcdMetastore
from placement.metastore.execution import EVERYTHING_AFTER
from placement.metastore.port import (
    DeleteRange,
    KeyValue,
    Metastore,
    Put,
    Range,
    Txn,
    absent,
    unchanged,
)
from placement.metastore.sqlite import SqliteOwner
from storage_node.files import RealFiles
from storage_node.identity import DriveRefused, read_identity

T = TypeVar("T")

MIGRATION = keys.MIGRATION
CONNECT_SECONDS = 10.0
"""For how long etcd may not answer at the beginning."""
PATIENCE_SECONDS = 60.0
"""For how long etcd may be away in the middle."""
RETRY_SECONDS = 0.5
TOLD_EVERY = 10_000
_OTHERS = (CLUSTER, keys.MAP_CURRENT)
"""Written by the migration itself."""
_FIRST_KEY = b"\x00"


class MigrationRecord(Record, frozen=True, kw_only=True):
    """How far a copy is: up to `cursor`, of the store `cluster_id` as it was at `revision`."""

    cluster_id: bytes
    revision: int
    cursor: bytes = b""
    keys: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the drives are from now on: failure domains, as `ostraka node` will say them."""

    host: str
    zone: str


@dataclass(frozen=True, slots=True)
class Migrated:
    """What was copied."""

    keys: int
    epoch: int
    drives: tuple[str, ...]
    resumed: bool

    def shown(self) -> dict[str, object]:
        """For JSON."""
        return dataclasses.asdict(self) | {"drives": list(self.drives)}


async def migrate(path: Path, settings: ClusterSettings, place: Place, tell: Tell) -> Migrated:
    """Copy the metadata of the `serve` folder into an empty etcd, or go on with it. Raises
    Refused."""
    clock, randomness = SystemClock(), SystemRandomness()
    directory = _opened(path)
    try:
        owner = _owner(directory, clock)
        try:
            target = await _reached(settings, clock)
            try:
                await join_cluster(
                    owner, directory.cluster_key, randomness, cluster_id=directory.cluster_id
                )
                return await _Migration(owner, target, directory, place, clock, tell).run()
            except MembershipRefused as error:
                raise Refused(str(error)) from error
            except MetastoreUnavailable as error:
                raise _interrupted(error) from error
            finally:
                await target.close()
        finally:
            await owner.close()
    finally:
        os.close(directory.lock)


async def cancel(path: Path, settings: ClusterSettings) -> None:
    """Give an unfinished copy up: etcd is emptied, and `serve` may run again. Raises Refused."""
    directory = _opened(path)
    try:
        target = await _reached(settings, SystemClock())
        try:
            await _take_back(target, directory)
        except MetastoreUnavailable as error:
            raise _interrupted(error) from error
        finally:
            await target.close()
        directory.enter(Stage.SERVED)
    finally:
        os.close(directory.lock)


async def _reached(settings: ClusterSettings, clock: Clock) -> EtcdMetastore:
    """etcd, which must answer soon. Raises Refused, MetastoreDenied."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await open_cluster_store(settings, clock, SystemRandomness())
    except TimeoutError:
        urls = ", ".join(settings.etcd)
        raise Refused(
            f"etcd cannot be reached at {urls}: there was no answer in {CONNECT_SECONDS:.0f} s"
        ) from None


def _interrupted(error: MetastoreUnavailable) -> Refused:
    if isinstance(error, MetastoreDenied):
        return Refused(str(error))
    return Refused(f"{error}: run the command again to go on")


async def _take_back(target: Metastore, directory: Directory) -> None:
    """Empty etcd of what was copied. The cluster's record goes last: it says whose that is."""
    cluster, current = await target.get_many([CLUSTER, keys.MAP_CURRENT])
    if current is not None or directory.stage is Stage.MOVED:
        raise Refused("the store has moved to the cluster: there is no way back")
    if cluster is None:
        return
    if decode_membership(ClusterRecord, cluster.value).cluster_id != directory.cluster_id:
        raise Refused("etcd belongs to another cluster")
    await empty(target)
    await target.txn(Txn((), (DeleteRange(CLUSTER),)))


def _opened(path: Path) -> Directory:
    try:
        return open_moving(path)
    except DirectoryRefused as error:
        raise Refused(str(error)) from error


def _owner(directory: Directory, clock: Clock) -> SqliteOwner:
    file = directory.metadata / "metadata.sqlite"
    if not file.exists():
        raise Refused(f"there is no metadata in {directory.metadata}")
    try:
        return SqliteOwner(str(file), clock, cluster_id=directory.cluster_id)
    except MetastoreUnavailable as error:
        raise Refused(str(error)) from error


class _Migration:
    """One run of it."""

    def __init__(
        self,
        source: SqliteOwner,
        target: Metastore,
        directory: Directory,
        place: Place,
        clock: Clock,
        tell: Tell,
    ) -> None:
        self._source = source
        self._target = target
        self._directory = directory
        self._place = place
        self._clock = clock
        self._tell = tell

    async def run(self) -> Migrated:
        """Begin or go on, compare, finish."""
        cluster, migration, current = await self._target.get_many(
            [CLUSTER, MIGRATION, keys.MAP_CURRENT]
        )
        if migration is None and current is not None:
            return await self._moved_already(cluster)
        now, _ = await MapStore(self._source).current()
        if now is None:
            raise Refused("the store has no cluster map: start it once with `ostraka serve`")
        state = await self._begin(migration)
        resumed = bool(state.cursor)
        if resumed:
            self._tell(f"going on after {state.keys} keys")
        state = await self._copy(state)
        self._tell(f"{state.keys} keys are copied: comparing")
        await self._compare()
        epoch = await self._finish(now)
        self._directory.enter(Stage.MOVED)
        return self._migrated(state.keys, epoch, resumed=resumed)

    async def _moved_already(self, cluster: KeyValue | None) -> Migrated:
        """The copy was finished, and cut off before it could say so. Raises Refused when etcd
        belongs to somebody else."""
        record = None if cluster is None else decode_membership(ClusterRecord, cluster.value)
        same = record is not None and record.cluster_id == self._directory.cluster_id
        if not same or self._directory.stage is Stage.SERVED:
            raise Refused("etcd holds a cluster already: a store moves into an empty one")
        current, _ = await MapStore(self._target).current()
        assert current is not None
        self._directory.enter(Stage.MOVED)
        return self._migrated(0, current.epoch, resumed=True)

    def _migrated(self, count: int, epoch: int, *, resumed: bool) -> Migrated:
        drives = tuple(drive.path for drive in self._directory.drives)
        return Migrated(count, epoch, drives, resumed)

    async def _begin(self, migration: KeyValue | None) -> MigrationRecord:
        """Claim the target, and keep `serve` from the source. Raises Refused."""
        fresh = MigrationRecord(
            cluster_id=self._directory.cluster_id, revision=self._source.revision
        )
        if migration is not None:
            found = decode(MigrationRecord, migration.value)
            if found.cluster_id != self._directory.cluster_id:
                raise Refused("etcd holds the unfinished copy of another store")
            self._directory.enter(Stage.MOVING)
            if found.revision == self._source.revision:
                return found
            self._tell("the store was written to since the copy was begun: beginning anew")
            await empty(self._target)
        else:
            anything = await self._target.range(
                Range(_FIRST_KEY, EVERYTHING_AFTER, limit=1, keys_only=True)
            )
            if anything.kvs:
                raise Refused(
                    f"etcd is not empty (there is {anything.kvs[0].key!r}): stop nodes, gateways and"
                    " keepers, and give the store an etcd of its own"
                )
            self._directory.enter(Stage.MOVING)
        done = await self._target.txn(
            Txn(
                (absent(MIGRATION), absent(keys.MAP_CURRENT)),
                (Put(CLUSTER, await self._cluster()), Put(MIGRATION, encode(fresh))),
            )
        )
        if not done.succeeded:
            raise Refused("another migration runs into this etcd")
        return fresh

    async def _cluster(self) -> bytes:
        """The cluster's record: a new life of the metadata, so that drives refuse the old one."""
        (found,) = await self._source.get_many([CLUSTER])
        assert found is not None
        before = decode_membership(ClusterRecord, found.value)
        key = self._directory.cluster_key
        return encode_membership(cluster_record(before.cluster_id, before.incarnation + 1, key))

    async def _copy(self, state: MigrationRecord) -> MigrationRecord:
        """Batch after batch, each with how far that is. Memory: a batch."""
        async for batch in self._batches(state.cursor):
            last = batch[-1].key
            puts = tuple(Put(kv.key, kv.value) for kv in batch if _moves(kv))
            before, state = (
                state,
                MigrationRecord(
                    cluster_id=state.cluster_id,
                    revision=state.revision,
                    cursor=last,
                    keys=state.keys + len(puts),
                ),
            )
            await self._put(before, state, puts)
            if before.keys // TOLD_EVERY != state.keys // TOLD_EVERY:
                self._tell(f"{state.keys} keys are copied")
        return state

    async def _batches(self, cursor: bytes) -> AsyncIterator[list[KeyValue]]:
        """The source's keys after that one, in batches for one transaction each."""
        start = cursor + b"\x00"
        while True:
            page = await self._source.range(Range(start, EVERYTHING_AFTER, limit=BATCH_KEYS))
            batch: list[KeyValue] = []
            size_bytes = 0
            for kv in page.kvs:
                size = len(kv.key) + len(kv.value)
                if batch and size_bytes + size > BATCH_SIZE_BYTES:
                    yield batch
                    batch, size_bytes = [], 0
                batch.append(kv)
                size_bytes += size
            if batch:
                yield batch
            if not page.more:
                return
            start = page.kvs[-1].key + b"\x00"

    async def _put(
        self, before: MigrationRecord, after: MigrationRecord, puts: Sequence[Put]
    ) -> None:
        """One batch, once: if its answer is lost, what is there says whether it came."""

        async def once() -> bool:
            (found,) = await self._target.get_many([MIGRATION])
            standing = None if found is None else decode(MigrationRecord, found.value)
            if standing == after:
                return True
            if found is None or standing != before:
                raise Refused("another migration runs into this etcd")
            done = await self._target.txn(
                Txn(
                    (unchanged(MIGRATION, found.mod_revision),),
                    (*puts, Put(MIGRATION, encode(after))),
                )
            )
            return done.succeeded

        while not await self._patiently(once):
            pass

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What may be asked again is, while etcd is away for a moment. Raises
        MetastoreUnavailable."""
        deadline = self._clock.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await ask()
            except MetastoreDenied:
                raise
            except MetastoreUnavailable:
                if self._clock.monotonic() >= deadline:
                    raise
                await self._clock.sleep(RETRY_SECONDS)

    async def _compare(self) -> None:
        """Every key of both sides. Raises Refused."""
        async for start, end, kvs in self._ranges():
            wanted = [(kv.key, kv.value) for kv in kvs if _moves(kv)]
            found = await self._patiently(partial(self._target.range, Range(start, end)))
            there = [(kv.key, kv.value) for kv in found.kvs if _moves(kv) and kv.key != MIGRATION]
            if wanted != there:
                raise Refused(
                    f"the copy differs from the store between {start!r} and {end!r}: cancel it, and"
                    " begin anew"
                )

    async def _ranges(self) -> AsyncIterator[tuple[bytes, bytes, Sequence[KeyValue]]]:
        """The whole key space in ranges [start, end) with what the source has in each."""
        start = _FIRST_KEY
        while True:
            page = await self._source.range(Range(start, EVERYTHING_AFTER, limit=BATCH_KEYS))
            end = page.kvs[-1].key + b"\x00" if page.more else EVERYTHING_AFTER
            yield start, end, page.kvs
            if not page.more:
                return
            start = end

    async def _finish(self, now: ClusterMap) -> int:
        """The map in which the drives are where they are: the same order, on a host with a name,
        with the weights of a cluster."""
        moved = dataclasses.replace(
            now,
            epoch=Epoch(now.epoch + 1),
            drives=tuple(
                dataclasses.replace(
                    drive, node=self._place.host, host=self._place.host, zone=self._place.zone
                )
                for drive in now.drives
            ),
        )
        new = weighed_by_size(moved, _mean_capacity_bytes(self._directory))
        done = await self._target.txn(
            Txn(
                (absent(keys.MAP_CURRENT),),
                (
                    Put(keys.map_epoch(new.epoch), new.encode()),
                    Put(keys.MAP_CURRENT, encode(MapCurrent(epoch=new.epoch))),
                    DeleteRange(MIGRATION),
                ),
            )
        )
        if not done.succeeded:
            raise Refused("somebody else put a cluster map into this etcd")
        return new.epoch


def _mean_capacity_bytes(directory: Directory) -> float:
    """Of the drives that are there; 0 when none is."""
    files, sizes = RealFiles(), []
    for drive in directory.drives:
        try:
            if read_identity(files, drive.path) is not None:
                sizes.append(files.space(drive.path).capacity_bytes)
        except (OSError, DriveRefused):
            continue  # away or broken: the others tell
    return sum(sizes) / len(sizes) if sizes else 0.0


def _moves(kv: KeyValue) -> bool:
    """Whether a key is copied: not what processes say of themselves, nor where duties stand that
    count in revisions of the store."""
    if kv.lease or kv.key in _OTHERS:
        return False
    return is_copied(kv.key) or kv.key.startswith(keys.SNAPSHOT_PARTS)
