"""The move of a store's metadata: bounded batches, lost answers, differences; and the folder's marker."""

import asyncio
import dataclasses
import json
import os
import random
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.metadata import keys
from gateway.metadata.records import MapCurrent, encode
from ops import migration
from ops.directory import (
    Directory,
    DirectoryRefused,
    Stage,
    open_directory,
    open_moving,
    write_marker,
)
from ops.migration import MIGRATION, MigrationRecord, Place
from ops.rebuild.restore import BATCH_KEYS
from ops.refusal import Refused
from ops.settings import ClusterSettings
from placement.clock import SystemClock, SystemRandomness
from placement.cluster_map import ClusterMap, MapDrive
from placement.errors import MetastoreUnavailable, OutcomeUnknown
from placement.ids import DriveId, Epoch, Slot
from placement.membership import CLUSTER, ClusterRecord, decode, join_cluster
from placement.metastore.execution import EVERYTHING_AFTER
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import (
    OPERATIONS_MAX,
    REQUEST_SIZE_BYTES_MAX,
    DeleteRange,
    Put,
    Range,
    Txn,
)
from placement.metastore.sqlite import SqliteOwner
from placement.schemes import Scheme
from tests.unit.metadata_doubles import FaultyMetastore

PLACE = Place("first", "here")
KEYS = 450


class Move:
    """A stopped store with some hundred keys, and an empty target."""

    def __init__(self, folder: Path, lost_answers: float) -> None:
        made = open_directory(folder, (), SystemRandomness())
        write_marker(made)
        self.folder = folder
        self.directory: Directory = made
        self.clock = SystemClock()
        self.source = SqliteOwner(
            str(made.metadata / "metadata.sqlite"), self.clock, cluster_id=made.cluster_id
        )
        self.target = MemoryMetastore(self.clock)
        self.faulty = FaultyMetastore(self.target, 5, lost_answers=lost_answers)
        self.told: list[str] = []

    async def fill(self) -> None:
        await join_cluster(
            self.source,
            self.directory.cluster_key,
            SystemRandomness(),
            cluster_id=self.directory.cluster_id,
        )
        chance = random.Random(3)
        drives = tuple(
            MapDrive(Slot(n), DriveId(bytes([n + 1]) * 16), "local", "local", "local")
            for n in range(3)
        )
        values = {b"o/%04d" % n: chance.randbytes(50) for n in range(KEYS)}
        # Together far beyond what one request may hold.
        values |= {b"b/large%d" % n: chance.randbytes(400_000) for n in range(8)}
        values |= {
            keys.map_epoch(Epoch(4)): ClusterMap(Epoch(4), drives, Scheme(2, 1)).encode(),
            keys.MAP_CURRENT: encode(MapCurrent(epoch=4)),
            keys.SNAPSHOT: b"counts in revisions of this store",
            keys.snapshot_part(1, 0): b"part",
        }
        for key, value in values.items():
            await self.source.txn(Txn((), (Put(key, value),)))

    def once(self) -> migration._Migration:
        """A run of the command, which finds the folder as the one before left it."""
        (stage,) = [stage for stage in Stage if (self.folder / stage.value).exists()]
        self.directory = dataclasses.replace(self.directory, stage=stage)
        return migration._Migration(
            self.source, self.faulty, self.directory, PLACE, self.clock, self.told.append
        )

    async def everything(self) -> dict[bytes, bytes]:
        found = await self.target.range(Range(b"\x00", EVERYTHING_AFTER))
        return {kv.key: kv.value for kv in found.kvs}

    async def close(self) -> None:
        await self.source.close()


def run(
    folder: Path, story: Callable[[Move], Awaitable[None]], *, lost_answers: float = 0.0
) -> None:
    async def main() -> None:
        move = Move(folder, lost_answers)
        await move.fill()
        try:
            await story(move)
        finally:
            await move.close()

    asyncio.run(main())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "RETRY_SECONDS", 0.0)


def test_all_keys_move_in_requests_that_etcd_takes(tmp_path: Path) -> None:
    async def story(move: Move) -> None:
        done = await move.once().run()
        there = await move.everything()
        assert {key for key in there if key.startswith(b"o/")} == {
            b"o/%04d" % n for n in range(KEYS)
        }
        assert done.keys == KEYS + 8 + 1 + 1
        assert keys.SNAPSHOT not in there
        assert keys.snapshot_part(1, 0) in there
        assert MIGRATION not in there
        for txn in move.faulty.transactions:
            sizes = [len(op.key) + len(op.value) for op in txn.success if isinstance(op, Put)]
            assert len(txn.success) <= BATCH_KEYS + 1 < OPERATIONS_MAX
            assert sum(sizes) < REQUEST_SIZE_BYTES_MAX
        cluster = decode(ClusterRecord, there[CLUSTER])
        assert cluster.cluster_id == move.directory.cluster_id
        assert cluster.incarnation == 2
        new = ClusterMap.decode(there[keys.map_epoch(Epoch(5))])
        assert {(d.node, d.host, d.zone) for d in new.drives} == {("first", "first", "here")}
        assert there[keys.MAP_CURRENT] == encode(MapCurrent(epoch=5))

    run(tmp_path, story)


def test_lost_answers_neither_lose_nor_repeat_a_batch(tmp_path: Path) -> None:
    async def story(move: Move) -> None:
        for _ in range(20):
            try:
                done = await move.once().run()
            except OutcomeUnknown:  # of the first or the last transaction: then it is run again
                continue
            break
        else:
            raise AssertionError("it never got through")
        there = await move.everything()
        assert sum(key.startswith(b"o/") for key in there) == KEYS
        assert MIGRATION not in there
        assert done.epoch == 5

    run(tmp_path, story, lost_answers=0.4)


def test_a_copy_that_differs_is_not_finished(tmp_path: Path) -> None:
    async def story(move: Move) -> None:
        copy, spoil = migration._Migration._copy, Txn((), (Put(b"o/0007", b"other"),))

        async def spoiled(self: migration._Migration, state: MigrationRecord) -> MigrationRecord:
            done = await copy(self, state)
            await move.target.txn(spoil)
            return done

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(migration._Migration, "_copy", spoiled)
            with pytest.raises(Refused, match="differs"):
                await move.once().run()
            spoil = Txn((), (Put(b"o/0007x", b"one too many"),))
            with pytest.raises(Refused, match="differs"):
                await move.once().run()
        assert keys.MAP_CURRENT not in await move.everything()

    run(tmp_path, story)


def test_a_store_that_was_written_to_meanwhile_is_copied_anew(tmp_path: Path) -> None:
    async def story(move: Move) -> None:
        finish = migration._Migration._finish

        async def cut_off(self: migration._Migration, now: ClusterMap) -> int:
            raise Refused("cut off")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(migration._Migration, "_finish", cut_off)
            with pytest.raises(Refused, match="cut off"):
                await move.once().run()
        assert migration._Migration._finish is finish
        await move.source.txn(Txn((), (DeleteRange(b"o/0001"), Put(b"o/new", b"new"))))
        done = await move.once().run()
        assert not done.resumed
        there = await move.everything()
        assert b"o/0001" not in there
        assert there[b"o/new"] == b"new"

    run(tmp_path, story)


def test_only_an_etcd_of_its_own_takes_a_store(tmp_path: Path) -> None:
    async def story(move: Move) -> None:
        await move.target.txn(Txn((), (Put(b"q/other", b"x"),)))
        with pytest.raises(Refused, match="not empty"):
            await move.once().run()
        assert move.directory.stage is Stage.SERVED
        assert (move.folder / "ostraka.json").exists()
        other = MigrationRecord(cluster_id=b"o" * 16, revision=3)
        await move.target.txn(Txn((), (Put(MIGRATION, encode(other)),)))
        with pytest.raises(Refused, match="another store"):
            await move.once().run()

    run(tmp_path, story)


@pytest.mark.parametrize("command", ["migrate", "cancel"])
def test_an_etcd_that_is_not_there_is_told_soon_and_in_one_sentence(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    # Nobody listens there any more.

    async def story(move: Move) -> None:
        os.close(move.directory.lock)
        await move.source.close()
        settings = ClusterSettings(etcd=[url], cluster_key=move.directory.cluster_key)
        work: Awaitable[object] = (
            migration.migrate(move.folder, settings, PLACE, move.told.append)
            if command == "migrate"
            else migration.cancel(move.folder, settings)
        )
        with pytest.raises(Refused, match=f"etcd cannot be reached at {url}"):
            await work
        assert (move.folder / "ostraka.json").exists()  # nothing has happened to it
        move.directory = open_moving(move.folder)

    run(tmp_path, story)


def test_an_etcd_that_is_away_for_a_moment_is_waited_for_while_all_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = migration._Migration._compare

    async def story(move: Move) -> None:
        async def away(self: migration._Migration) -> None:
            move.faulty.unreachable = True
            if migration.PATIENCE_SECONDS > 0:
                asyncio.get_running_loop().call_later(0.1, setattr, move.faulty, "unreachable", 0)
            await compare(self)

        monkeypatch.setattr(migration._Migration, "_compare", away)
        monkeypatch.setattr(migration, "PATIENCE_SECONDS", 0)
        with pytest.raises(MetastoreUnavailable):
            await move.once().run()
        move.faulty.unreachable = False
        monkeypatch.setattr(migration, "PATIENCE_SECONDS", 60)
        done = await move.once().run()
        assert done.resumed

    run(tmp_path, story)


def test_a_folder_that_moves_is_not_served(tmp_path: Path) -> None:
    made = open_directory(tmp_path, (), SystemRandomness())
    write_marker(made)
    before = json.loads((tmp_path / "ostraka.json").read_text())
    for stage, words in ((Stage.MOVING, "being moved"), (Stage.MOVED, "has moved")):
        made.enter(stage)
        os.close(made.lock)
        with pytest.raises(DirectoryRefused, match=words):
            open_directory(tmp_path, (), SystemRandomness())
        made = open_moving(tmp_path)
        assert (made.stage, made.cluster_id.hex()) == (stage, before["cluster_id"])
    made.enter(Stage.SERVED)
    os.close(made.lock)
    assert json.loads((tmp_path / "ostraka.json").read_text()) == before
    os.close(open_directory(tmp_path, (), SystemRandomness()).lock)
