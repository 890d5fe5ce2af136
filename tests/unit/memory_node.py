"""A storage node in memory, which fails on demand: the double behind the tests of the object drivers."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from placement.errors import PeerUnavailable
from placement.ids import BlobId, DriveId
from storage_node.port import (
    Buffer,
    CommitShard,
    DriveCondition,
    DriveReport,
    GetShard,
    Outcome,
    PutShard,
    ShardId,
    ShardInfo,
    StagedShard,
)


@dataclass
class MemoryDrive:
    """Shards of one drive. `fails` answers every call with that outcome; `slow_seconds` delays
    reads; `fails_after` counts down stores until the drive fails."""

    drive_id: DriveId
    shards: dict[ShardId, tuple[bytes, bytes]] = field(default_factory=dict)
    fails: Outcome | None = None
    slow_seconds: float = 0.0
    fails_after: int | None = None
    gets: int = 0

    def refuses(self) -> Outcome | None:
        if self.fails_after is not None:
            if self.fails_after == 0:
                self.fails = Outcome.DRIVE_FAILED
            else:
                self.fails_after -= 1
        return self.fails

    def flip(self, shard: ShardId, position: int) -> None:
        body, envelope = self.shards[shard]
        changed = bytearray(body)
        changed[position] ^= 0x40
        self.shards[shard] = (bytes(changed), envelope)


class MemoryNode:
    """NodePort over dictionaries; staged shards are real files in `folder`, or remote without."""

    def __init__(self, drives: Sequence[DriveId], folder: Path | None = None) -> None:
        self.drives = {drive: MemoryDrive(drive) for drive in drives}
        self.folder = folder
        self.down = False
        self.term = 0
        self.staged: dict[int, tuple[DriveId, ShardId, bytearray]] = {}
        self.reported: list[tuple[DriveId, ShardId]] = []
        self.calls: list[str] = []
        self._tokens = 0

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.down:
            raise PeerUnavailable("down")

    def _path(self, token: int) -> str:
        return "" if self.folder is None else str(self.folder / str(token))

    async def put(
        self, shards: Sequence[PutShard], payload: Sequence[Buffer], *, background: bool = False
    ) -> tuple[Outcome, ...]:
        self._called("put")
        joined = b"".join(payload)
        return tuple(self._put(shard, joined) for shard in shards)

    def _put(self, shard: PutShard, payload: bytes) -> Outcome:
        drive = self.drives[shard.drive]
        refused = drive.refuses()
        if refused is not None:
            return refused
        body = payload[shard.offset : shard.offset + shard.length]
        assert len(body) == shard.length
        drive.shards[ShardId(shard.blob, shard.index)] = (body, shard.envelope)
        return Outcome.STORED

    async def open(
        self, shards: Sequence[tuple[DriveId, ShardId]], *, background: bool = False
    ) -> tuple[StagedShard | Outcome, ...]:
        self._called("open")
        answers: list[StagedShard | Outcome] = []
        for drive, shard in shards:
            refused = self.drives[drive].refuses()
            if refused is not None:
                answers.append(refused)
                continue
            self._tokens += 1
            self.staged[self._tokens] = (drive, shard, bytearray())
            path = self._path(self._tokens)
            if path:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            answers.append(StagedShard(drive, shard, self._tokens, path))
        return tuple(answers)

    async def append(self, drive: DriveId, token: int, payload: Sequence[Buffer]) -> Outcome:
        self._called("append")
        refused = self.drives[drive].refuses()
        if refused is not None:
            return refused
        self.staged[token][2].extend(b"".join(payload))
        return Outcome.DONE

    async def commit(self, shards: Sequence[CommitShard]) -> tuple[Outcome, ...]:
        self._called("commit")
        answers = []
        for commit in shards:
            drive = self.drives[commit.drive]
            refused = drive.refuses()
            if refused is not None:
                answers.append(refused)
                continue
            _, shard, body = self.staged.pop(commit.token)
            path = self._path(commit.token)
            data = _taken(path) if path else bytes(body)
            assert len(data) == commit.length
            drive.shards[shard] = (data, commit.envelope)
            answers.append(Outcome.STORED)
        return tuple(answers)

    async def abort(self, shards: Sequence[tuple[DriveId, int]]) -> None:
        self._called("abort")
        for _, token in shards:
            self.staged.pop(token, None)

    async def get(self, reads: Sequence[GetShard]) -> tuple[Buffer | Outcome, ...]:
        self._called("get")
        delay = max(self.drives[read.drive].slow_seconds for read in reads)
        if delay:
            await asyncio.sleep(delay)
        return tuple(self._get(read) for read in reads)

    def _get(self, read: GetShard) -> Buffer | Outcome:
        drive = self.drives[read.drive]
        drive.gets += 1
        refused = drive.refuses()
        if refused is not None:
            return refused
        found = drive.shards.get(read.shard)
        if found is None:
            return Outcome.MISSING
        return found[0][read.offset : read.offset + read.length]

    async def locate(self, blobs: Sequence[BlobId]) -> tuple[tuple[ShardInfo, ...], ...]:
        self._called("locate")
        return tuple(
            tuple(
                ShardInfo(drive.drive_id, shard, len(body), b"", 0.0)
                for drive in self.drives.values()
                if drive.fails is None
                for shard, (body, _) in drive.shards.items()
                if shard.blob == blob
            )
            for blob in blobs
        )

    async def stat(
        self, shards: Sequence[tuple[DriveId, ShardId]], *, verify: bool = False
    ) -> tuple[ShardInfo | Outcome, ...]:
        self._called("stat")
        answers: list[ShardInfo | Outcome] = []
        for drive, shard in shards:
            found = self.drives[drive].shards.get(shard)
            answers.append(
                Outcome.MISSING
                if found is None
                else ShardInfo(drive, shard, len(found[0]), found[1], 0.0)
            )
        return tuple(answers)

    async def delete(self, shards: Sequence[tuple[DriveId, ShardId]]) -> tuple[Outcome, ...]:
        self._called("delete")
        return tuple(
            Outcome.DONE if self.drives[drive].shards.pop(shard, None) else Outcome.MISSING
            for drive, shard in shards
        )

    async def begin_term(self, term: int) -> None:
        self._called("begin_term")
        self.term = max(self.term, term)

    async def delete_surplus(
        self, term: int, shards: Sequence[tuple[DriveId, ShardId]]
    ) -> tuple[Outcome, ...]:
        if term < self.term:
            raise PeerUnavailable("another term has begun")
        return await self.delete(shards)

    async def list(
        self, drive: DriveId, after: ShardId | None, limit: int
    ) -> tuple[ShardInfo, ...]:
        self._called("list")
        start = (b"", -1) if after is None else (bytes(after.blob), after.index)
        found = sorted(self.drives[drive].shards.items(), key=lambda i: (i[0].blob, i[0].index))
        return tuple(
            ShardInfo(drive, shard, len(body), envelope, 0.0)
            for shard, (body, envelope) in found
            if (shard.blob, shard.index) > start
        )[:limit]

    async def report_damage(self, drive: DriveId, shard: ShardId) -> None:
        self._called("report_damage")
        self.reported.append((drive, shard))

    async def damaged(self, limit: int) -> tuple[tuple[DriveId, ShardId], ...]:
        return tuple(self.reported[:limit])

    async def reports(self) -> tuple[DriveReport, ...]:
        self._called("reports")
        conditions = {None: DriveCondition.UP, Outcome.DRIVE_FULL: DriveCondition.FULL}
        return tuple(
            DriveReport(
                drive.drive_id,
                "",
                conditions.get(drive.fails, DriveCondition.FAILED),
                1 << 40,
                1 << 39,
                len(drive.shards),
                0,
                0,
            )
            for drive in self.drives.values()
        )

    async def close(self) -> None:
        """Nothing to release."""


def _taken(path: str) -> bytes:
    data = Path(path).read_bytes()
    os.unlink(path)
    return data


class ReadyMemoryNode(MemoryNode):
    """One that can read without waiting."""

    def get_now(self, reads: Sequence[GetShard]) -> tuple[Buffer | None, ...]:
        answers = [self._get(read) for read in reads]
        return tuple(None if isinstance(answer, Outcome) else answer for answer in answers)
