"""Looking after the drives of a node: opening, watching, adopting, reopening, tidying.

A drive that errs or vanishes leaves the set in use at once (`Drive.fail`); here it is closed in good
order, reported, and taken back when its folder is itself again.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from placement.clock import Clock, Randomness
from placement.errors import PlacementError
from placement.ids import DriveId, Slot
from storage_node.committer import Committer
from storage_node.compaction import compact_one
from storage_node.drive import Drive, Run
from storage_node.files import FileLayer, fsync_directory
from storage_node.identity import (
    IDENTITY_NAME,
    DriveIdentity,
    DriveRefused,
    check_identity,
    create_identity,
    raise_incarnation,
    read_identity,
)
from storage_node.index import IndexDamaged
from storage_node.layout import SEGMENTS, TMP, empty_tmp, make_folders
from storage_node.offload import Offload
from storage_node.port import DriveCondition, DriveReport
from storage_node.recovery import mark_clean, open_index, rebuild_index
from storage_node.reserve import (
    RESERVE_SIZE_BYTES,
    holds_reserve,
    is_scarce,
    make_reserve,
    release_reserve,
)
from storage_node.segments import PREWRITE_SIZE_BYTES, SEGMENT_SIZE_BYTES, SegmentLog, list_segments

log = logging.getLogger(__name__)

WRITE_BACK_TICK_SECONDS = 0.1
TEND_TICKS = 10
"""Care of the drives' state every so many ticks: once a second."""
REOPEN_SECONDS_MIN = 0.5
REOPEN_SECONDS_MAX = 60.0
CALM_SECONDS = 120.0
"""A drive that was in use for so long and then fails is tried again soon."""
ROUND_SECONDS = 10.0
"""How long a round of care waits for its drives; one that stalls goes on by itself."""

OnAdopted = Callable[[Slot, DriveId, DriveId], Awaitable[None]]
"""Told that the drive of a slot has a new identity in the place of an old one."""


@dataclass(frozen=True, slots=True)
class DriveConfig:
    """One drive of a node. `expected` is whom the cluster map names; None for a drive that is to
    be made. `may_adopt`: a folder that comes back empty gets a new identity by itself."""

    slot: Slot
    path: str
    may_adopt: bool
    expected: DriveId | None = None


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What a node serves. `reserve_bytes`: free space below which a drive counts as full."""

    cluster_id: bytes
    incarnation: int
    drives: tuple[DriveConfig, ...]
    reserve_bytes: int = 64 << 20
    reserve_file_size_bytes: int = RESERVE_SIZE_BYTES
    """Of that so much is held by a file, and given up when the disk is full to the last byte."""
    segment_size_bytes: int = SEGMENT_SIZE_BYTES
    prewrite_size_bytes: int = PREWRITE_SIZE_BYTES


@dataclass(slots=True)
class _Place:
    """A slot: its configuration, and the drive in use there, if any."""

    config: DriveConfig
    expected: DriveId | None
    drive: Drive | None = None
    condition: DriveCondition = DriveCondition.MISSING
    reason: str = ""
    capacity_bytes: int = 0
    free_bytes: int = 0
    errors: int = 0
    written_bytes: int = 0
    busy: float = 0.0
    read_seconds: float = 0.0
    measured_at: float = 0.0
    reopen_at: float = 0.0
    reopen_wait: float = REOPEN_SECONDS_MIN
    opened_at: float = 0.0
    index_damaged: bool = False
    used_before: bool = False
    holds_reserve: bool = False
    rebuild: "asyncio.Future[None] | None" = field(default=None)
    care: "asyncio.Task[None] | None" = field(default=None)


class DriveCare:
    """Opens, watches and closes drives. `drives` are those in use, by id."""

    def __init__(
        self,
        config: NodeConfig,
        files: FileLayer,
        clock: Clock,
        randomness: Randomness,
        *,
        offload: Offload,
        committer: Committer,
        boot_id: str,
        run: Run,
        call_seconds: float,
        on_adopted: OnAdopted | None,
        on_dropped: Callable[[Drive], None],
    ) -> None:
        self.drives: dict[DriveId, Drive] = {}
        self._config = config
        self._files = files
        self._clock = clock
        self._randomness = randomness
        self._offload = offload
        self._committer = committer
        self._boot_id = boot_id
        self._run_of_node = run
        self._call_seconds = call_seconds
        self._on_adopted = on_adopted
        self._on_dropped = on_dropped
        self._places = [_Place(drive, drive.expected) for drive in config.drives]
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._write_backs: set[asyncio.Task[None]] = set()

    # -- the life of it -------------------------------------------------------------------------

    async def open(self) -> None:
        """Open every drive that is there. Raises DriveRefused for one that must not be used."""
        for place in self._places:
            await self._open_place(place, first=True)

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.get_running_loop().create_task(self._watch())
        self._task.add_done_callback(_log_the_end)

    async def stop(self) -> None:
        """End watching, and rebuilding of indexes."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        cares = [place.care for place in self._places if place.care is not None]
        if cares:
            await asyncio.wait([*cares, *self._write_backs], timeout=ROUND_SECONDS)
        for place in self._places:
            if place.rebuild is not None:
                await asyncio.wait([place.rebuild])

    async def close(self) -> None:
        """Close every drive; those that are whole say so for the next start."""
        for place in self._places:
            await self._close_place(place)

    async def _watch(self) -> None:
        tick = 0
        while True:
            await self._clock.sleep(WRITE_BACK_TICK_SECONDS)
            tick += 1
            for drive in list(self.drives.values()):
                if drive.write_back_due and not drive.is_writing_back:
                    task = asyncio.get_running_loop().create_task(drive.write_back())
                    self._write_backs.add(task)
                    task.add_done_callback(self._write_backs.discard)
                    task.add_done_callback(_log_the_end)
            if tick % TEND_TICKS == 0:
                self._begin_round()

    async def tend(self) -> None:
        """One round: what failed is closed, what came back is opened, space is measured, and a
        segment that is mostly dead is compacted. Rounds of a drive never overlap, and a drive that
        stalls holds up only its own."""
        self._begin_round()
        cares = [place.care for place in self._places if place.care is not None]
        done, _ = await asyncio.wait(cares, timeout=ROUND_SECONDS)
        for task in done:
            task.result()

    def _begin_round(self) -> None:
        for place in self._places:
            if place.care is None:
                place.care = asyncio.get_running_loop().create_task(self._tend_place(place))
                place.care.add_done_callback(_log_the_end)

    async def _tend_place(self, place: _Place) -> None:
        try:
            drive = place.drive
            if drive is not None and not drive.failed and await drive.prove_apart():
                await self._measure(place, drive)
            if drive is not None and drive.failed:
                await self._close_place(place)
            if place.drive is None and self._clock.monotonic() >= place.reopen_at:
                await self._open_place(place, first=False)
            elif place.drive is not None:
                await compact_one(place.drive, self._committer, self._offload)
        finally:
            place.care = None

    # -- opening --------------------------------------------------------------------------------

    async def _open_place(self, place: _Place, *, first: bool) -> None:
        """Try to bring a drive into use; leave its condition and reason in the place."""
        try:
            identity = await self._offload(lambda: self._identify(place))
            if identity is None:
                self._stays_out(
                    place,
                    DriveCondition.MISSING,
                    "the folder is not there, or empty though it was not",
                )
                return
            old = place.expected
            drive, segments, rebuild = await self._offload(
                lambda: self._open_drive(place, identity)
            )
        except DriveRefused as error:
            if first:
                raise
            self._stays_out(place, DriveCondition.FAILED, str(error))
            return
        except (OSError, IndexDamaged) as error:
            if not place.reason:
                log.warning("drive %s cannot be opened: %s", place.config.path, error)
            self._stays_out(place, DriveCondition.FAILED, str(error))
            return
        place.index_damaged, place.used_before, place.reason = False, True, ""
        place.opened_at = self._clock.monotonic()
        drive.on_failed = self._dropped
        await self._measure(place, drive)
        if old is not None and old != identity.drive and self._on_adopted is not None:
            try:
                await self._on_adopted(place.config.slot, old, identity.drive)
            except PlacementError as error:
                drive.fail(f"the cluster map could not be told of its new identity: {error}")
                place.drive = drive  # the next round closes it and tries again
                return
        # Reported and in use from the same moment on: nothing may be awaited in between.
        place.expected, place.drive = identity.drive, drive
        self.drives[drive.id] = drive
        log.info("drive %s is in use", place.config.path)
        if rebuild:
            place.rebuild = asyncio.ensure_future(self._rebuild(place, drive, segments))

    def _stays_out(self, place: _Place, condition: DriveCondition, reason: str) -> None:
        place.condition, place.reason = condition, reason
        if condition is DriveCondition.FAILED:
            place.reopen_at = self._clock.monotonic() + place.reopen_wait
            place.reopen_wait = min(place.reopen_wait * 2, REOPEN_SECONDS_MAX)

    def _identify(self, place: _Place) -> DriveIdentity | None:
        """Whose folder it is, making or adopting it where that is allowed; None when it is missing.
        Runs in a worker thread. Raises DriveRefused and OSError."""
        path, slot = place.config.path, place.config.slot
        cluster_id, incarnation = self._config.cluster_id, self._config.incarnation
        identity = read_identity(self._files, path)
        if identity is not None:
            check_identity(
                identity, path, cluster_id=cluster_id, slot=slot, incarnation=incarnation
            )
            unexpected = place.expected is not None and identity.drive != place.expected
            if unexpected and not (place.config.may_adopt and identity.adopted_by_drives_flag):
                raise DriveRefused(f"{path} is not the drive that the cluster map names there.")
            if identity.incarnation < incarnation:
                identity = raise_incarnation(self._files, path, identity, incarnation)
            return identity
        if place.expected is None:
            with contextlib.suppress(FileExistsError):
                self._files.mkdir(path)
            fsync_directory(self._files, os.path.dirname(path) or ".")
        try:
            names = self._files.listdir(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if [name for name in names if name not in ("lost+found", f"{IDENTITY_NAME}.new")]:
            raise DriveRefused(f"{path} is not empty and no drive of Ostraka.")
        if place.expected is not None and not place.config.may_adopt:
            # Most likely a mount that is not mounted: never to be written to, and no reason to
            # refuse the other drives.
            return None
        if place.expected is not None:
            log.warning("the drive %s came back empty: it gets a new identity", path)
        created = create_identity(
            self._files,
            self._randomness,
            path,
            cluster_id=cluster_id,
            slot=slot,
            incarnation=incarnation,
            adopted_by_drives_flag=place.config.may_adopt,
        )
        # Before anything else lies there: a crash must not leave a folder that is not empty and
        # belongs to nobody.
        fsync_directory(self._files, path)
        return created

    def _open_drive(self, place: _Place, identity: DriveIdentity) -> tuple[Drive, list[int], bool]:
        """Open log and index (in a worker thread). Raises OSError and IndexDamaged."""
        files, root, config = self._files, place.config.path, self._config
        status = files.stat(f"{root}/{IDENTITY_NAME}")
        place.holds_reserve = holds_reserve(files, root, config.reserve_file_size_bytes)
        if is_scarce(files.space(root).free_bytes, config.reserve_file_size_bytes):
            self._release_reserve(place)
        make_folders(files, root)
        empty_tmp(files, root)
        if place.used_before:
            _try_flush(files, root)
        segments = list_segments(files, f"{root}/{SEGMENTS}")
        # After a failure of this drive the page cache may hold what the disk does not: its last
        # segment is not continued then.
        opened = open_index(
            files,
            root,
            self._boot_id,
            trusted=not place.index_damaged,
            continue_segment=not place.used_before,
        )
        segment_log = SegmentLog(
            files,
            f"{root}/{SEGMENTS}",
            identity.drive,
            self._offload,
            lambda error: drive.fail(f"prewriting failed: {error}"),
            next_segment=opened.next_segment,
            active=opened.active,
            segment_size_bytes=config.segment_size_bytes,
            prewrite_size_bytes=config.prewrite_size_bytes,
        )
        drive = Drive(
            files=files,
            root=root,
            identity=identity,
            identity_status=status,
            index=opened.index,
            segment_log=segment_log,
            facts=opened.facts,
            recovering=opened.rebuild,
            offload=self._offload,
            clock=self._clock,
            run=self._run_of_node,
            call_seconds=self._call_seconds,
        )
        return drive, segments, opened.rebuild

    async def _rebuild(self, place: _Place, drive: Drive, segments: list[int]) -> None:
        log.warning("the index of %s is being rebuilt from %d segments", drive.root, len(segments))
        try:
            facts = await self._offload(
                lambda: rebuild_index(drive, self._boot_id, segments, lambda: self._stopping)
            )
            drive.recovered(facts)
            log.warning("the index of %s is rebuilt: %d shards", drive.root, drive.index.count)
        except IndexDamaged as error:
            drive.index_failed(error)
        except OSError as error:
            drive.fail(f"its index could not be rebuilt: {error}")
        finally:
            place.rebuild = None

    # -- watching -------------------------------------------------------------------------------

    async def _measure(self, place: _Place, drive: Drive) -> None:
        now, read_seconds = self._clock.monotonic(), drive.counters.get_seconds
        # Time spent by reads, a second: the mean number of those under way (Little's law).
        since, before = place.measured_at, min(place.read_seconds, read_seconds)
        place.busy = (read_seconds - before) / (now - since) if now > since > 0 else 0.0
        place.measured_at, place.read_seconds = now, read_seconds
        try:
            space = await drive.apart("measuring its space", lambda: self._files.space(drive.root))
        except OSError as error:
            drive.fail(f"its space cannot be measured: {error}")
            return
        place.capacity_bytes, place.free_bytes = space.capacity_bytes, space.free_bytes
        await self._keep_reserve(place, drive)
        if space.free_bytes < self._config.reserve_bytes:
            drive.filled(f"{space.free_bytes} bytes are free")
            return
        # Only well above the reserve it takes shards again, else the state would flicker.
        enough = space.free_bytes >= self._config.reserve_bytes * 5 // 4
        if drive.full and enough and not drive.holds_too_much:
            drive.full, drive.reason = False, ""

    async def _keep_reserve(self, place: _Place, drive: Drive) -> None:
        """Give the reserve up when it is needed, and make it once there is space for it."""
        size, free_bytes = self._config.reserve_file_size_bytes, place.free_bytes
        try:
            if place.holds_reserve and is_scarce(free_bytes, size):
                await self._offload(lambda: self._release_reserve(place))
            elif not place.holds_reserve and free_bytes >= self._config.reserve_bytes + 2 * size:
                await self._offload(lambda: make_reserve(self._files, drive.root, size))
                place.holds_reserve = True
        except OSError as error:
            drive.failed_by(error)

    def _release_reserve(self, place: _Place) -> None:
        if place.holds_reserve:
            log.warning("drive %s has no free byte: its reserve is given up", place.config.path)
        release_reserve(self._files, place.config.path)
        place.holds_reserve = False

    def _hold_little(self, place: _Place) -> None:
        """Before the drive is closed: what is free now others may take before the next start."""
        root, size = place.config.path, self._config.reserve_file_size_bytes
        if not place.holds_reserve and self._files.space(root).free_bytes >= size + size // 4:
            make_reserve(self._files, root, size)
            place.holds_reserve = True

    def _dropped(self, drive: Drive) -> None:
        self.drives.pop(drive.id, None)
        self._on_dropped(drive)

    async def _close_place(self, place: _Place) -> None:
        drive, place.drive = place.drive, None
        if drive is None:
            return
        self.drives.pop(drive.id, None)
        if place.rebuild is not None:
            await asyncio.wait([place.rebuild])
        place.condition, place.reason = DriveCondition.FAILED, drive.reason
        place.errors += drive.counters.errors
        place.index_damaged = place.index_damaged or drive.index_damaged
        if self._clock.monotonic() - place.opened_at > CALM_SECONDS:
            place.reopen_wait = REOPEN_SECONDS_MIN
        place.reopen_at = self._clock.monotonic() + place.reopen_wait
        place.reopen_wait = min(place.reopen_wait * 2, REOPEN_SECONDS_MAX)
        try:
            if await drive.close():
                await self._offload(lambda: mark_clean(self._files, drive.root))
                await self._offload(lambda: self._hold_little(place))
        except OSError as error:
            log.warning("drive %s could not be closed in order: %s", drive.root, error)

    def reports(self) -> tuple[DriveReport, ...]:
        """Of every drive the node knows, those not in use too."""
        return tuple(self._report(place) for place in self._places)

    @staticmethod
    def _report(place: _Place) -> DriveReport:
        drive = place.drive
        return DriveReport(
            drive=drive.id if drive is not None else place.expected or DriveId(bytes(16)),
            path=place.config.path,
            condition=drive.condition if drive is not None else place.condition,
            capacity_bytes=place.capacity_bytes,
            free_bytes=place.free_bytes,
            shards=drive.index.count if drive is not None else 0,
            quarantined=len(drive.index.damaged) if drive is not None else 0,
            errors=place.errors + (drive.counters.errors if drive is not None else 0),
            reason=drive.reason if drive is not None else place.reason,
            busy=place.busy if drive is not None else 0.0,
        )


def _try_flush(files: FileLayer, root: str) -> None:
    """Whether a drive that had failed can flush again: else it would hold up writes once more.
    Raises OSError; on a drive that still stalls it just takes its time."""
    path = f"{root}/{TMP}/try"
    fd = files.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        files.pwritev(fd, [bytes(4096)], 0)
        files.fdatasync(fd)
    finally:
        files.close(fd)
    files.unlink(path)


def _log_the_end(task: "asyncio.Task[None]") -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.critical("looking after the drives failed", exc_info=error)
