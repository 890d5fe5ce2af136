"""The group committer: everything the drives of a node append, flushed together.

While one group is being flushed the next one gathers. A group writes each drive's records in a row,
flushes all drives in one go, lets each drive prove that it is still itself, and only then enters the
records into the indexes and answers. A drive whose write or flush fails is dropped, with all its
part of the group; nothing is retried on it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from storage_node.flush import Flusher
from storage_node.port import Buffer, Outcome
from storage_node.record import PADDING, RecordKind, encode_head
from storage_node.stall import StallWatch

if TYPE_CHECKING:
    from storage_node.drive import Drive

log = logging.getLogger(__name__)

_PUT = RecordKind.PUT  # a member of an Enum is slow to look up

GROUP_PARTS_MAX = 2048
GROUP_SIZE_BYTES_MAX = 8 << 20
WAITING_SIZE_BYTES_MAX = 128 << 20
"""Payload that may wait for a group; beyond it puts are refused as busy."""
ROOM_SECONDS = 20.0
"""A drive that takes longer to make room in its log has failed."""


class NodeBusy(Exception):
    """Too much is waiting to be written. Try again, or elsewhere."""


class Ticket:
    """A request's outcomes as they come in; calls back once, when all are there."""

    __slots__ = ("_done", "_left", "outcomes")

    def __init__(self, count: int, done: Callable[[list[Outcome]], None]) -> None:
        self.outcomes = [Outcome.DRIVE_FAILED] * count
        self._left = count
        self._done = done

    def settle(self, position: int, outcome: Outcome) -> None:
        """One shard's outcome."""
        self.outcomes[position] = outcome
        self._left -= 1
        if self._left == 0:
            self._done(self.outcomes)


class Part(msgspec.Struct, gc=False, eq=False):
    """One record to append, of `record_size_bytes`. `expected` (a copy made by compaction): of a
    shard the index entry that must still stand when the copy is entered, empty for the copy of a
    delete or mark."""

    drive: "Drive"
    kind: RecordKind
    key: bytes
    ticket: Ticket
    position: int
    size_bytes: int
    envelope: bytes = b""
    payload: Buffer = b""
    checksum: int = 0
    target: tuple[int, int] = (0, 0)
    expected: bytes | None = None
    segment: int = 0
    offset: int = 0


class Committer:
    """One for all drives of a node."""

    def __init__(
        self, flusher: Flusher, stalls: StallWatch, *, room_seconds: float = ROOM_SECONDS
    ) -> None:
        self._flusher = flusher
        self._stalls = stalls
        self._room_seconds = room_seconds
        self._waiting: deque[Part] = deque()
        self._waiting_bytes = 0
        self._wake: asyncio.Future[None] | None = None
        self._making_room: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self.groups = 0
        self.parts = 0
        self.flush_seconds = 0.0
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._ended)

    def submit(self, parts: Sequence[Part]) -> None:
        """Queue records for the next group; their tickets are settled later. Raises NodeBusy."""
        if self._task.done():
            raise NodeBusy("the committer has ended")
        if self._waiting_bytes > WAITING_SIZE_BYTES_MAX:
            raise NodeBusy(f"{self._waiting_bytes} bytes are waiting to be written")
        self._waiting.extend(parts)
        size = 0
        for part in parts:
            size += part.size_bytes
        self._waiting_bytes += size
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def close(self) -> None:
        """Carry out what waits, then stop."""
        self._closing = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        await self._task

    @staticmethod
    def _ended(task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.critical("the committer broke: nothing can be written any more", exc_info=error)

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._wake = self._loop.create_future()
                await self._wake
                self._wake = None
                continue
            await self._commit(self._gather())

    def _gather(self) -> dict["Drive", list[Part]]:
        """The next group, by drive, within its bounds."""
        group: dict[Drive, list[Part]] = {}
        waiting = self._waiting
        size = count = 0
        while waiting and count < GROUP_PARTS_MAX and size < GROUP_SIZE_BYTES_MAX:
            part = waiting.popleft()
            size += part.size_bytes
            count += 1
            parts = group.get(part.drive)
            if parts is None:
                group[part.drive] = [part]
            else:
                parts.append(part)
        self._waiting_bytes -= size
        self.groups += 1
        self.parts += count
        return group

    async def _commit(self, group: dict["Drive", list[Part]]) -> None:
        began = self._loop.time()
        written: list[tuple[Drive, list[Part]]] = []
        to_flush: list[Drive] = []
        for drive, parts in group.items():
            accepted = self._admit(drive, parts) if drive.failed or drive.full else parts
            if not accepted:
                continue
            size = sum([part.size_bytes for part in accepted])
            if not drive.log.has_room(size) and not await self._make_room(drive, accepted, size):
                continue
            if _append(drive, accepted, size):
                written.append((drive, accepted))
                if _PUT in [part.kind for part in accepted]:
                    to_flush.append(drive)
        if to_flush:
            await self._flush_all(to_flush)
        seconds = self._loop.time() - began
        for drive, parts in written:
            if drive.failed or not drive.prove():
                _settle(parts, Outcome.DRIVE_FAILED)
            else:
                drive.apply(parts, seconds)

    @staticmethod
    def _admit(drive: "Drive", parts: list[Part]) -> list[Part]:
        """Settle what the drive, failed or full, does not take. A full one still takes deletes."""
        if drive.failed:
            _settle(parts, Outcome.DRIVE_FAILED)
            return []
        accepted = []
        for part in parts:
            if part.kind == RecordKind.PUT and part.expected is None:
                part.ticket.settle(part.position, Outcome.DRIVE_FULL)
            else:
                accepted.append(part)
        return accepted

    async def _make_room(self, drive: "Drive", parts: list[Part], size: int) -> bool:
        """Wait until so much may be appended; False when the parts were settled as failed."""
        room = self._loop.create_task(drive.log.make_room(size))
        self._making_room.add(room)
        room.add_done_callback(self._making_room.discard)
        try:
            # Not cancelled when late: what a thread has begun it also ends.
            done, _ = await asyncio.wait((room,), timeout=self._room_seconds)
            if not done:
                drive.fail("its log stalled")
                room.add_done_callback(_forget_result)
            else:
                room.result()
        except OSError as error:
            _settle(parts, drive.failed_by(error))
            return False
        if drive.failed:  # while waiting
            _settle(parts, Outcome.DRIVE_FAILED)
            return False
        return True

    async def _flush_all(self, drives: "list[Drive]") -> None:
        fds = []
        for drive in tuple(drives):
            if drive.log.active is None:  # it failed meanwhile and was closed
                assert drive.failed
                drives.remove(drive)
            else:
                fds.append(drive.log.active.fd)
        began = self._loop.time()
        flush = self._flusher.flush(fds)
        await self._stalls.ended(flush)
        self.flush_seconds += self._loop.time() - began
        for drive, error, seconds in zip(drives, flush.errors, flush.seconds, strict=True):
            drive.counters.flushes += 1
            drive.counters.flush_seconds += seconds
            if error is not None:
                drive.fail(f"a flush failed: {error}")


def _append(drive: "Drive", parts: list[Part], size: int) -> bool:
    """Write the parts in a row; False when they were settled as failed."""
    try:
        drive.log.append(_lay_out(drive, parts), size)
    except OSError as error:
        _settle(parts, drive.failed_by(error))
        return False
    drive.counters.groups += 1
    drive.counters.written_bytes += size
    return True


def _lay_out(drive: "Drive", parts: list[Part]) -> list[Buffer]:
    """The group's bytes for one drive, and each part's place."""
    active = drive.log.active
    assert active is not None
    segment, offset = active.id, active.position
    buffers: list[Buffer] = []
    for part in parts:
        payload, length, size = part.payload, len(part.payload), part.size_bytes
        part.segment = segment
        part.offset = offset
        head = encode_head(
            part.kind, segment, offset, part.key, part.envelope, length, part.checksum, part.target
        )
        buffers += (head, payload, PADDING[size - len(head) - length])
        offset += size
    return buffers


def _forget_result(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        task.exception()


def _settle(parts: list[Part], outcome: Outcome) -> None:
    for part in parts:
        part.ticket.settle(part.position, outcome)
