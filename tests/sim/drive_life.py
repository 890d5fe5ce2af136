"""One drive whose disk forgets, errs and vanishes: its life, its deaths, and what it acknowledged."""

import asyncio
import os
import random
from pathlib import Path

import xxhash

from placement.ids import BlobId, DriveId, Slot
from storage_node.care import DriveConfig, NodeConfig
from storage_node.flush import InlineFlusher
from storage_node.node import Node
from storage_node.offload import InlineOffload
from storage_node.port import (
    CommitShard,
    DriveCondition,
    GetShard,
    Outcome,
    PutShard,
    ShardId,
    StagedShard,
)
from storage_node.record import shard_key
from storage_node.shard import ShardEnvelope, encode_envelope
from tests.sim.disk import SimFiles

CLUSTER = b"c" * 16


class SimClock:
    def __init__(self) -> None:
        self.now = 0.0

    def now_ns(self) -> int:
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class SimRandomness:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token(self, size_bytes: int) -> bytes:
        return self._random.randbytes(size_bytes)

    def uniform(self) -> float:
        return self._random.random()


class Loss(AssertionError):
    """An acknowledged shard is not there."""


def body_of(data: bytes) -> bytes:
    return xxhash.xxh3_64_intdigest(data).to_bytes(8, "little") + data if data else b""


class World:
    """One drive, its life and deaths, and what was acknowledged."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.files = SimFiles(folder, seed)
        self.clock = SimClock()
        self.randomness = SimRandomness(seed)
        self.boot = 1
        self.expected: DriveId | None = None
        self.kept: dict[ShardId, bytes] = {}
        self.tried: dict[ShardId, bytes] = {}
        self.gone: set[ShardId] = set()
        self.node: Node

    async def open(self) -> None:
        config = NodeConfig(
            CLUSTER,
            1,
            (DriveConfig(Slot(0), "/drive1", False, self.expected),),
            segment_size_bytes=48 << 10,
            prewrite_size_bytes=8 << 10,
            reserve_file_size_bytes=8 << 10,
        )
        self.node = await Node.open(
            config,
            self.files,
            self.clock,
            self.randomness,
            flusher=InlineFlusher(self.files),
            offload=InlineOffload(),
            boot_id=f"boot{self.boot}",
            tended=False,
        )
        for _ in range(3):
            await asyncio.sleep(0)  # an index that must be rebuilt is, at once
        (report,) = self.node.reports()
        if self.expected is not None and report.drive != self.expected:
            raise Loss("the drive has lost its identity")
        self.expected = report.drive

    async def die(self) -> None:
        """The process ends without a word."""
        self.node._committer._task.cancel()
        await asyncio.sleep(0)
        for drive in list(self.node._care.drives.values()):
            drive.index.abandon()
        for place in self.node._care._places:
            if place.drive is not None:
                place.drive.index.abandon()

    def make(self, size: int) -> tuple[ShardId, bytes, bytes]:
        blob = BlobId(self.random.randbytes(16))
        index = self.random.randrange(3)
        data = self.random.randbytes(size)
        envelope = ShardEnvelope(blob, blob, index, 1, 2, 1 << 20, size, b"key", b"record")
        return ShardId(blob, index), body_of(data), encode_envelope(envelope)

    async def put(self) -> None:
        count = self.random.randint(1, 5)
        made = [self.make(self.random.choice([0, 10, 900, 5000])) for _ in range(count)]
        if self.kept and self.random.random() < 0.2:  # a repair writes what is there already
            shard = self.random.choice(sorted(self.kept, key=lambda s: (s.blob, s.index)))
            body = self.kept[shard]
            size = max(0, len(body) - 8)
            envelope = ShardEnvelope(
                shard.blob, shard.blob, shard.index, 1, 2, 1 << 20, size, b"key", b"record"
            )
            made.append((shard, body, encode_envelope(envelope)))
        assert self.expected is not None
        puts, payload, at = [], [], 0
        for shard, body, envelope_bytes in made:
            put = PutShard(self.expected, shard.blob, shard.index, envelope_bytes, at, len(body))
            puts.append(put)
            payload.append(body)
            at += len(body)
        self.tried.update({shard: body for shard, body, _ in made})
        outcomes = await self.node.put_shards(puts, payload)
        for (shard, body, _), outcome in zip(made, outcomes, strict=True):
            if outcome is Outcome.STORED:
                self.kept[shard] = body

    async def put_file(self) -> None:
        assert self.expected is not None
        shard, body, envelope = self.make(self.random.choice([3000, 20_000]))
        self.tried[shard] = body
        (staged,) = await self.node.open_shards([(self.expected, shard)])
        if not isinstance(staged, StagedShard):
            return
        try:
            fd = self.files.open(staged.path, os.O_WRONLY)
            self.files.pwritev(fd, [body], 0)
            self.files.close(fd)
        except OSError:
            return
        commit = CommitShard(self.expected, staged.token, envelope, len(body))
        if await self.node.commit([commit]) == (Outcome.STORED,):
            self.kept[shard] = body

    async def delete(self) -> None:
        if self.kept:
            shard = self.random.choice(sorted(self.kept, key=lambda s: (s.blob, s.index)))
            del self.kept[shard]
            assert self.expected is not None
            if await self.node.delete([(self.expected, shard)]) == (Outcome.DONE,):
                self.gone.add(shard)

    async def decay(self) -> None:
        """A bit of some record flips; its shard is lost, and no other."""
        assert self.expected is not None
        drive = self.node._care.drives.get(self.expected)
        shard = self.random.choice(sorted(self.kept or [None], key=repr))
        if drive is None or shard is None:
            return
        entry = drive.find(shard_key(shard.blob, shard.index))
        if entry is None or not entry.segment:
            return
        self.files.flip_stored_bit(drive.path_of(shard, entry), entry.offset + 9)
        del self.kept[shard]
        self.tried.pop(shard, None)

    async def fail_a_flush(self) -> None:
        """A flush fails, and what it was to store is lost, whoever flushes again."""
        self.files.failing_flushes = 1
        tried = dict(self.tried)
        await self.put()
        self.files.failing_flushes = 0
        # The machine goes on showing what the disk has not, and nobody can tell.
        self.tried = {s: body for s, body in self.tried.items() if s in tried or s in self.kept}
        for _ in range(3):
            await self.tend()

    async def vanish(self) -> None:
        """The folder is removed, and an empty one is in its place: nobody may write there."""
        self.files.remove_tree("/drive1")
        self.files.mkdir("/drive1")
        self.kept.clear()
        self.gone.clear()
        await self.put()
        if self.kept:
            raise Loss("a drive that is gone has acknowledged shards")
        await self.die()
        await self.open()
        if self.node.reports()[0].condition is not DriveCondition.MISSING:
            raise Loss("an empty folder was taken for the drive")

    async def write_back(self) -> None:
        for drive in list(self.node._care.drives.values()):
            await drive.write_back()

    async def tend(self) -> None:
        await self.write_back()
        self.clock.now += 1
        await self.node.tend()

    async def check(self, *, deletes_hold: bool) -> None:
        """Everything acknowledged reads back, and is what it was."""
        assert self.expected is not None
        (report,) = self.node.reports()
        if self.expected not in self.node._care.drives:
            raise Loss(f"the drive did not come back: {report.reason}")
        for shard, body in self.kept.items():
            (info,) = await self.node.stat([(self.expected, shard)], verify=True)
            read = GetShard(self.expected, shard, 0, 1 << 20)
            (got,) = await self.node.get([read])
            if isinstance(info, Outcome) or isinstance(got, Outcome) or bytes(got) != body:
                raise Loss(f"shard {shard.blob.hex()}.{shard.index}: {info}")
        if deletes_hold:
            for shard in self.gone:
                assert await self.node.stat([(self.expected, shard)]) == (Outcome.MISSING,)
        else:
            self.gone.clear()  # deletes are not flushed: what comes back is left to the sweep

    async def keep_what_is_seen(self) -> None:
        """What a new process shows to readers must stay, though nobody had an answer."""
        assert self.expected is not None
        for shard, body in self.tried.items():
            (got,) = await self.node.get([GetShard(self.expected, shard, 0, 1 << 20)])
            if not isinstance(got, Outcome) and bytes(got) == body:
                self.kept[shard] = body

    async def restart(self) -> None:
        kind = self.random.choice(["clean", "kill", "power", "power"])
        if kind == "clean":
            await self.node.close()
        else:
            await self.die()
        if kind == "power":
            self.files.crash()
            self.boot += 1
        await self.open()
        await self.check(deletes_hold=kind != "power")

    async def be_born(self) -> None:
        """The first start, which the power may cut short."""
        while self.random.random() < 0.7:
            self.files.operations_left = self.random.randint(0, 24)
            await self.open()
            await self.die()
            self.files.crash()
            self.boot += 1
            self.expected = None
        await self.open()

    async def live(self, steps: int, *, troubled: bool = False, vanishes: bool = False) -> None:
        """Work, interrupted now and then; in a troubled life often, over files most of all, and by
        what drives do."""
        await self.be_born()
        work = [
            self.put,
            self.put,
            self.put,
            self.put_file,
            self.delete,
            self.write_back,
            self.tend,
        ]
        if troubled:
            work += [self.put_file] * 4
        if troubled and not self.files.skipped:
            work += [self.fail_a_flush, self.decay]
        for _ in range(steps):
            if self.random.random() < (0.4 if troubled else 0.1):
                self.files.operations_left = self.random.randint(0, 40)
            await self.random.choice(work)()
            broken = self.files.operations_left is not None
            if broken and self.random.random() < (0.3 if troubled else 0.6):
                await self.die()
                self.files.crash()
                self.boot += 1
                await self.open()
                await self.check(deletes_hold=False)
            elif broken:
                self.files.operations_left = None
                await self.die()
                await self.open()
                await self.check(deletes_hold=False)
                await self.keep_what_is_seen()
            elif self.random.random() < 0.15:
                await self.restart()
        await self.restart()
        if vanishes:
            await self.vanish()
        await self.node.close()


def lose_indexes(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def live(folder: Path, seed: int, *, skipped: str = "", troubled: bool | None = None) -> World:
    """One whole life; one in three is a troubled one, every second ends with the drive gone."""
    folder.mkdir()
    world = World(folder, seed)
    world.files.skipped = skipped
    troubled = seed % 3 == 2 if troubled is None else troubled
    asyncio.run(world.live(40, troubled=troubled, vanishes=not skipped and seed % 2 == 1))
    return world
