"""A storage node: several drives behind one group committer. What the node verbs do."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import xxhash

from placement.clock import Clock, Randomness
from placement.ids import BlobId, DriveId
from storage_node.care import DriveCare, NodeConfig, OnAdopted
from storage_node.committer import Committer, Part, Ticket
from storage_node.drive import Drive, Run
from storage_node.files import FileLayer
from storage_node.flush import Flusher, open_flusher
from storage_node.index import Entry, IndexDamaged, decode_entry
from storage_node.offload import Offload, ThreadOffload
from storage_node.port import (
    SEGMENT_SHARD_SIZE_BYTES_MAX,
    Buffer,
    CommitShard,
    DriveReport,
    GetShard,
    Outcome,
    PutShard,
    ShardId,
    ShardInfo,
    StagedShard,
)
from storage_node.quarantine import verify_shard
from storage_node.record import RecordKind, record_size_bytes, shard_key, shard_of
from storage_node.recovery import read_boot_id
from storage_node.shard import ENVELOPE_SIZE_BYTES_MAX
from storage_node.staging import Stager
from storage_node.stall import Patience, StallWatch
from storage_node.terms import Terms

log = logging.getLogger(__name__)

T = TypeVar("T")

LIST_LIMIT_MAX = 1000
OFFLOAD_THREADS = 32
"""Made as needed; enough to go on while a stalled drive holds some."""

_checksum = xxhash.xxh3_64_intdigest


class Node:
    """The drives of one process. All methods belong to the loop's thread."""

    def __init__(
        self,
        config: NodeConfig,
        files: FileLayer,
        clock: Clock,
        randomness: Randomness,
        *,
        flusher: Flusher,
        offload: Offload,
        boot_id: str,
        on_adopted: OnAdopted | None,
        patience: Patience | None,
    ) -> None:
        """Use `Node.open`."""
        self._files = files
        self._clock = clock
        self._flusher = flusher
        self._offload = offload
        patience = patience or Patience()
        stalls = StallWatch(patience)
        self._committer = Committer(flusher, stalls)
        self._terms = Terms()
        run = Run(int.from_bytes(randomness.token(4), "little") | 1, clock.monotonic())
        self._stager = Stager(files, flusher, stalls, self._committer)
        self._care = DriveCare(
            config,
            files,
            clock,
            randomness,
            offload=offload,
            committer=self._committer,
            boot_id=boot_id,
            run=run,
            call_seconds=patience.call_seconds,
            on_adopted=on_adopted,
            on_dropped=self._stager.drop_drive,
        )
        self._drives: dict[DriveId, Drive] = self._care.drives
        self._tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(
        cls,
        config: NodeConfig,
        files: FileLayer,
        clock: Clock,
        randomness: Randomness,
        *,
        flusher: Flusher | None = None,
        offload: Offload | None = None,
        boot_id: str | None = None,
        on_adopted: OnAdopted | None = None,
        tended: bool = True,
        patience: Patience | None = None,
    ) -> "Node":
        """Open every drive that is there. Raises DriveRefused for one that must not be used.

        `on_adopted(slot, old, new)` is awaited when a folder got a new identity in the place of a
        known one. Without `tended` no background care runs: call `tend()` yourself (tests).
        """
        node = cls(
            config,
            files,
            clock,
            randomness,
            flusher=open_flusher(files) if flusher is None else flusher,
            offload=ThreadOffload(OFFLOAD_THREADS) if offload is None else offload,
            boot_id=read_boot_id() if boot_id is None else boot_id,
            on_adopted=on_adopted,
            patience=patience,
        )
        try:
            await node._care.open()
        except BaseException:
            await node.close()
            raise
        if tended:
            node._care.start()
        return node

    async def tend(self) -> None:
        """One round of care: vanished and returned drives, space, write-back, compaction."""
        await self._care.tend()

    async def close(self) -> None:
        """Answer what waits, write the indexes back, and say that they are whole."""
        for task in list(self._tasks):
            await asyncio.wait([task])
        await self._care.stop()
        await self._stager.close()
        await self._committer.close()
        await self._care.close()
        self._flusher.close()
        self._offload.close()

    # -- small shards ---------------------------------------------------------------------------

    def put(
        self,
        shards: Sequence[PutShard],
        payload: memoryview,
        done: Callable[[list[Outcome]], None],
    ) -> None:
        """Append shards; `done` is called when all are durable or failed. Raises NodeBusy, and
        ValueError for what cannot be stored."""
        ticket = Ticket(len(shards), done)
        parts: list[Part] = []
        refused: list[int] = []
        put, drives = RecordKind.PUT, self._drives
        known_offset = known_length = -1
        checksum = 0
        for position, shard in enumerate(shards):
            envelope, offset, length = shard.envelope, shard.offset, shard.length
            if offset != known_offset or length != known_length:
                data = payload[offset : offset + length]
                if len(data) != length or length > SEGMENT_SHARD_SIZE_BYTES_MAX:
                    raise ValueError(f"a shard of {length} bytes cannot be put")
                checksum = _checksum(data)
                known_offset, known_length = offset, length
            if len(shard.blob) != 16 or len(envelope) > ENVELOPE_SIZE_BYTES_MAX:
                raise ValueError("not a shard")
            drive = drives.get(shard.drive)
            if drive is None:
                refused.append(position)
                continue
            parts.append(
                Part(
                    drive,
                    put,
                    shard_key(shard.blob, shard.index),
                    ticket,
                    position,
                    record_size_bytes(len(envelope), length),
                    envelope,
                    data,
                    checksum,
                )
            )
        if parts:
            self._committer.submit(parts)
        for position in refused:
            ticket.settle(position, Outcome.DRIVE_FAILED)
        if not shards:
            done([])

    async def delete(self, shards: Sequence[tuple[DriveId, ShardId]]) -> tuple[Outcome, ...]:
        """See NodePort. Raises NodeBusy."""
        outcomes = [Outcome.DRIVE_FAILED] * len(shards)
        wanted: list[tuple[Drive, bytes, tuple[int, int], int]] = []
        for position, (drive_id, shard) in enumerate(shards):
            drive = self._drives.get(drive_id)
            if drive is None:
                continue
            key = shard_key(shard.blob, shard.index)
            entry = drive.find(key)
            if entry is not None or drive.recovering or key in drive.index.damaged:
                wanted.append((drive, key, _place_of(drive, entry), position))
            elif not drive.failed:
                outcomes[position] = Outcome.MISSING
        if wanted:
            settled = await self._log(RecordKind.TOMBSTONE, [w[:3] for w in wanted])
            for (_, _, _, position), outcome in zip(wanted, settled, strict=True):
                outcomes[position] = outcome
        return tuple(outcomes)

    async def begin_term(self, term: int) -> None:
        """See NodePort."""
        await self._terms.begin(term)

    async def delete_surplus(
        self, term: int, shards: Sequence[tuple[DriveId, ShardId]]
    ) -> tuple[Outcome, ...]:
        """See NodePort. Raises NodeBusy, TermIsOver."""
        async with self._terms.within(term):
            return await self.delete(shards)

    async def _log(
        self, kind: RecordKind, records: Sequence[tuple[Drive, bytes, tuple[int, int]]]
    ) -> list[Outcome]:
        """Append (drive, key, target) records without a body."""
        settled: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        ticket = Ticket(len(records), lambda o: None if settled.done() else settled.set_result(o))
        self._committer.submit(
            [
                Part(
                    drive,
                    kind,
                    key,
                    ticket,
                    n,
                    record_size_bytes(0, 0),
                    target=target,
                    checksum=_checksum(b""),
                )
                for n, (drive, key, target) in enumerate(records)
            ]
        )
        return await settled

    # -- large shards ---------------------------------------------------------------------------

    async def open_shards(
        self, shards: Sequence[tuple[DriveId, ShardId]]
    ) -> tuple[StagedShard | Outcome, ...]:
        """See NodePort.open. Whoever gives up waiting does not learn the tokens: what was opened is
        dropped."""
        opening = [asyncio.ensure_future(self._open_shard(*shard)) for shard in shards]
        try:
            return tuple(await asyncio.gather(*opening))
        except BaseException:
            for one in opening:
                one.cancel()
                one.add_done_callback(self._drop_opened)
            raise

    def _drop_opened(self, opening: asyncio.Task[StagedShard | Outcome]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            opened = opening.result()
            if isinstance(opened, StagedShard):
                self._stager.abort([opened.token])

    async def _open_shard(self, drive_id: DriveId, shard: ShardId) -> StagedShard | Outcome:
        drive = self._drives.get(drive_id)
        if drive is None:
            return Outcome.DRIVE_FAILED
        opened = await self._stager.open(drive, shard)
        return opened if isinstance(opened, Outcome) else StagedShard(drive_id, shard, *opened)

    async def append(self, token: int, payload: Buffer) -> Outcome:
        """See NodePort."""
        return await self._stager.append(token, payload)

    async def commit(self, shards: Sequence[CommitShard]) -> tuple[Outcome, ...]:
        """See NodePort. Once begun it is carried out, whether or not somebody waits."""
        if any(len(s.envelope) > ENVELOPE_SIZE_BYTES_MAX for s in shards):
            raise ValueError("the envelope is too long")
        return await self._shielded(
            self._stager.commit([(s.token, s.envelope, s.length) for s in shards])
        )

    def abort(self, tokens: Sequence[int]) -> None:
        """See NodePort."""
        self._stager.abort(tokens)

    async def _shielded(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    # -- reading --------------------------------------------------------------------------------

    async def get(self, reads: Sequence[GetShard]) -> tuple[Buffer | Outcome, ...]:
        """See NodePort."""
        if len(reads) == 1:
            return (await self._get(reads[0]),)
        results: list[Buffer | Outcome | None] = [self._get_now(read) for read in reads]
        waiting = [place for place, result in enumerate(results) if result is None]
        # Beside each other: a slow drive must not hold up the others.
        got = await asyncio.gather(*[self._get(reads[place]) for place in waiting])
        for place, result in zip(waiting, got, strict=True):
            results[place] = result
        return tuple([result for result in results if result is not None])

    def _get_now(self, read: GetShard) -> Buffer | None:
        """What is in memory; None for all that has to be waited for, or goes wrong."""
        drive = self._drives.get(read.drive)
        if drive is None:
            return None
        entry = drive.find(shard_key(read.shard.blob, read.shard.index))
        if entry is None:
            return None
        try:
            return drive.read_now(read.shard, entry, read.offset, read.length)
        except OSError:
            return None

    async def _get(self, read: GetShard) -> Buffer | Outcome:
        drive = self._drives.get(read.drive)
        if drive is None:
            return Outcome.DRIVE_FAILED
        entry = drive.find(shard_key(read.shard.blob, read.shard.index))
        if entry is None:
            return Outcome.DRIVE_FAILED if drive.failed else Outcome.MISSING
        return await self._read(drive, read, entry)

    async def _read(self, drive: Drive, read: GetShard, entry: Entry) -> Buffer | Outcome:
        began = self._clock.monotonic()
        try:
            return await drive.read(read.shard, entry, read.offset, read.length)
        except FileNotFoundError:
            return Outcome.DRIVE_FAILED if not await drive.prove_apart() else Outcome.MISSING
        except OSError as error:
            return drive.failed_by(error)
        finally:
            drive.counters.get_seconds += self._clock.monotonic() - began

    async def locate(self, blobs: Sequence[BlobId]) -> tuple[tuple[ShardInfo, ...], ...]:
        """See NodePort."""
        results = []
        for blob in blobs:
            found: list[ShardInfo] = []
            for drive in list(self._drives.values()):
                try:
                    rows = drive.index.of_blob(blob)
                except IndexDamaged as error:
                    drive.index_failed(error)
                    continue
                found += [_info(drive, key, decode_entry(data), b"") for key, data in rows]
            results.append(tuple(found))
        return tuple(results)

    async def stat(
        self, shards: Sequence[tuple[DriveId, ShardId]], *, verify: bool = False
    ) -> tuple[ShardInfo | Outcome, ...]:
        """See NodePort."""
        results: list[ShardInfo | Outcome] = []
        for drive_id, shard in shards:
            drive = self._drives.get(drive_id)
            if drive is None:
                results.append(Outcome.DRIVE_FAILED)
                continue
            results.append(await self._stat(drive, shard, verify))
        return tuple(results)

    async def _stat(self, drive: Drive, shard: ShardId, verify: bool) -> ShardInfo | Outcome:
        key = shard_key(shard.blob, shard.index)
        entry = drive.find(key)
        if entry is None:
            if drive.failed:
                return Outcome.DRIVE_FAILED
            return Outcome.DAMAGED if key in drive.index.damaged else Outcome.MISSING
        try:
            envelope = await drive.read_envelope(shard, entry)
            if verify and not await self._offload(lambda: verify_shard(drive, shard, entry)):
                return Outcome.DAMAGED
        except FileNotFoundError:
            return Outcome.DRIVE_FAILED if not await drive.prove_apart() else Outcome.MISSING
        except OSError as error:
            return drive.failed_by(error)
        return _info(drive, key, entry, envelope)

    async def list(
        self, drive_id: DriveId, after: ShardId | None, limit: int
    ) -> tuple[ShardInfo, ...]:
        """See NodePort. Raises KeyError for a drive that is not in use."""
        drive = self._drives[drive_id]
        await drive.write_back()
        key = b"" if after is None else shard_key(after.blob, after.index)
        results: list[ShardInfo] = []
        try:
            rows = drive.index.after(key, min(limit, LIST_LIMIT_MAX))
        except IndexDamaged as error:
            drive.index_failed(error)
            raise KeyError(drive_id) from error
        for number, (row_key, data) in enumerate(rows):
            entry = decode_entry(data)
            try:
                envelope = await drive.read_envelope(shard_of(row_key), entry)
            except FileNotFoundError:
                envelope = b""
            except OSError as error:
                drive.failed_by(error)
                raise KeyError(drive_id) from error
            results.append(_info(drive, row_key, entry, envelope))
            if number % 64 == 63:
                await asyncio.sleep(0)
        return tuple(results)

    # -- damage ---------------------------------------------------------------------------------

    async def report_damage(self, drive_id: DriveId, shard: ShardId) -> None:
        """See NodePort."""
        drive = self._drives.get(drive_id)
        if drive is None or drive.failed:
            return
        key = shard_key(shard.blob, shard.index)
        if key in drive.index.damaged:
            return
        entry = drive.find(key)
        if entry is None:
            if drive.recovering or drive.failed:
                return
        else:
            try:
                if await self._offload(lambda: verify_shard(drive, shard, entry)):
                    return
            except FileNotFoundError:
                pass
            except OSError as error:
                drive.failed_by(error)
                return
            if not await drive.prove_apart() or drive.find(key) != entry:
                return  # replaced or deleted meanwhile
        found = "missing" if entry is None else "damaged"
        log.warning("shard %s.%d on %s is %s", shard.blob.hex(), shard.index, drive.root, found)
        await self._log(RecordKind.DAMAGED, [(drive, key, _place_of(drive, entry))])

    async def damaged(self, limit: int) -> tuple[tuple[DriveId, ShardId], ...]:
        """See NodePort."""
        found: list[tuple[DriveId, ShardId]] = []
        for drive in list(self._drives.values()):
            for key in drive.index.damaged:
                if len(found) >= limit:
                    return tuple(found)
                found.append((drive.id, shard_of(key)))
        return tuple(found)

    # -- reports --------------------------------------------------------------------------------

    def reports(self) -> tuple[DriveReport, ...]:
        """See NodePort."""
        return self._care.reports()

    def stats(self) -> dict[str, Any]:
        """Plain counters: of the committer, and of each drive by hex id."""
        committer = self._committer
        return {
            "groups": committer.groups,
            "group_parts": committer.parts,
            "flush_seconds": committer.flush_seconds,
            "staged": self._stager.count,
            "drives": {
                drive.id.hex(): {
                    name: getattr(drive.counters, name) for name in drive.counters.__slots__
                }
                for drive in self._drives.values()
            },
        }

    async def put_shards(
        self, shards: Sequence[PutShard], payload: Sequence[Buffer]
    ) -> tuple[Outcome, ...]:
        """NodePort.put for callers in this process."""
        settled: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self.put(
            shards,
            memoryview(b"".join(payload)),
            lambda outcomes: None if settled.done() else settled.set_result(outcomes),
        )
        return tuple(await settled)


def _place_of(drive: Drive, entry: Entry | None) -> tuple[int, int]:
    """What a delete or a mark of damage is aimed at: that place and all before it."""
    if entry is not None:
        return entry.segment, entry.offset
    return (0xFFFF_FFFF, 0) if drive.recovering else (0, 0)


def _info(drive: Drive, key: bytes, entry: Entry, envelope: bytes) -> ShardInfo:
    return ShardInfo(drive.id, shard_of(key), entry.length, envelope, drive.age_seconds(entry))
