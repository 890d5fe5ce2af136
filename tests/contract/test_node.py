"""The node, once called directly through the wire and once with local reads: one contract."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash

from placement.clock import SystemClock, SystemRandomness
from placement.errors import PeerUnavailable
from placement.ids import BlobId, DriveId, Slot
from placement.rpc.client import Reply, RpcClient
from placement.rpc.server import RpcServer
from storage_node.care import DriveConfig, NodeConfig
from storage_node.client import NodeClient
from storage_node.files import RealFiles
from storage_node.local import LocalNodeClient
from storage_node.node import Node
from storage_node.port import (
    CommitShard,
    DriveCondition,
    GetShard,
    Outcome,
    PutShard,
    ShardId,
    ShardInfo,
    StagedShard,
)
from storage_node.server import serve_node
from storage_node.shard import ShardEnvelope, encode_envelope
from storage_node.wire import Verb

CLUSTER = bytes(16)


def body_of(*fragments: bytes) -> bytes:
    return b"".join(xxhash.xxh3_64_intdigest(f).to_bytes(8, "little") + f for f in fragments)


def envelope_of(blob: bytes, index: int, size: int, stripe: int = 1 << 20) -> bytes:
    return encode_envelope(ShardEnvelope(blob, blob, index, 1, 2, stripe, size, b"o/key", b"rec"))


def node_config(folder: Path, drives: int = 3, expected: list[DriveId] | None = None) -> NodeConfig:
    return NodeConfig(
        CLUSTER,
        1,
        tuple(
            DriveConfig(
                Slot(n), str(folder / f"drive{n + 1}"), True, expected[n] if expected else None
            )
            for n in range(drives)
        ),
        reserve_bytes=1 << 20,
        segment_size_bytes=1 << 20,
        prewrite_size_bytes=1 << 18,
        reserve_file_size_bytes=64 << 10,
    )


Scene = Callable[[NodeClient, list[DriveId], Node], Awaitable[None]]


def play(
    folder: Path, kind: type[NodeClient], scene: Scene, ids: list[DriveId] | None = None
) -> list[DriveId]:
    """Run a scene against a node behind a socket; the drives' ids."""

    async def run() -> list[DriveId]:
        node = await Node.open(
            node_config(folder, expected=ids), RealFiles(), SystemClock(), SystemRandomness()
        )
        server = RpcServer(serve_node(node), name="node")
        path = str(folder / "s")
        await server.listen_unix(path)
        client = kind(await RpcClient.connect(path, name="test"))
        drives = [report.drive for report in node.reports()]
        try:
            await scene(client, drives, node)
        finally:
            await client.close()
            await server.close(drain_seconds=1)
            await node.close()
        return drives

    return asyncio.run(run())


@pytest.fixture(params=[NodeClient, LocalNodeClient], ids=["wire", "local"])
def kind(request: pytest.FixtureRequest) -> type[NodeClient]:
    return request.param  # type: ignore[no-any-return]


def copies(drives: list[DriveId], blob: bytes, body: bytes, size: int) -> list[PutShard]:
    return [
        PutShard(d, BlobId(blob), i, envelope_of(blob, i, size), 0, len(body))
        for i, d in enumerate(drives)
    ]


def write(path: str, data: bytes, at: int = 0) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds; the test's own bound in time."""
    async with asyncio.timeout(10):
        while not await holds():  # noqa: ASYNC110 - the thing is in another process's terms
            await asyncio.sleep(0.02)


async def store_file(
    client: NodeClient, drive: DriveId, shard: ShardId, body: bytes, envelope: bytes
) -> Outcome:
    (staged,) = await client.open([(drive, shard)])
    assert isinstance(staged, StagedShard)
    write(staged.path, body)
    (outcome,) = await client.commit([CommitShard(drive, staged.token, envelope, len(body))])
    return outcome


def test_a_small_shard_reads_back_from_every_drive(tmp_path: Path, kind: type[NodeClient]) -> None:
    async def scene(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        blob, data = os.urandom(16), os.urandom(1000)
        body = body_of(data)
        outcomes = await client.put(copies(drives, blob, body, 1000), [body[:100], body[100:]])
        assert outcomes == (Outcome.STORED,) * 3
        for _ in range(2):
            reads = [
                GetShard(d, ShardId(BlobId(blob), i), 0, len(body)) for i, d in enumerate(drives)
            ]
            assert [bytes(b) for b in await client.get(reads)] == [body] * 3  # type: ignore[arg-type]
            (part,) = await client.get([GetShard(drives[1], ShardId(BlobId(blob), 1), 8, 10)])
            assert bytes(part) == data[:10]  # type: ignore[arg-type]
            for drive in list(node._drives.values()):
                await drive.write_back()

    play(tmp_path, kind, scene)


def test_what_is_not_there_is_missing(tmp_path: Path, kind: type[NodeClient]) -> None:
    async def scene(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        shard = ShardId(BlobId(bytes(16)), 0)
        assert await client.get([GetShard(drives[0], shard, 0, 5)]) == (Outcome.MISSING,)
        assert await client.stat([(drives[0], shard)]) == (Outcome.MISSING,)
        assert await client.delete([(drives[0], shard)]) == (Outcome.MISSING,)
        stranger = DriveId(b"x" * 16)
        assert await client.get([GetShard(stranger, shard, 0, 5)]) == (Outcome.DRIVE_FAILED,)
        assert await client.put(
            [PutShard(stranger, shard.blob, shard.index, b"e", 0, 1)], [b"x"]
        ) == (Outcome.DRIVE_FAILED,)
        assert await client.open([(stranger, shard)]) == (Outcome.DRIVE_FAILED,)
        assert await client.locate([BlobId(bytes(16))]) == ((),)

    play(tmp_path, kind, scene)


def test_a_large_shard_is_a_file_with_its_envelope(tmp_path: Path, kind: type[NodeClient]) -> None:
    async def scene(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        blob = os.urandom(16)
        shard, body = ShardId(BlobId(blob), 1), body_of(os.urandom(1 << 20))
        envelope = envelope_of(blob, 1, 1 << 20)
        assert await store_file(client, drives[0], shard, body, envelope) is Outcome.STORED
        (got,) = await client.get([GetShard(drives[0], shard, 0, len(body))])
        assert bytes(got) == body  # type: ignore[arg-type]
        (info,) = await client.stat([(drives[0], shard)], verify=True)
        assert isinstance(info, ShardInfo)
        assert (info.envelope, info.length) == (envelope, len(body))
        assert 0 <= info.age_seconds < 60
        ((found,),) = await client.locate([BlobId(blob)])
        assert found.shard == shard
        assert os.listdir(tmp_path / "drive1/tmp") == []

    play(tmp_path, kind, scene)


def test_shards_are_there_after_a_restart(tmp_path: Path, kind: type[NodeClient]) -> None:
    blob, body = os.urandom(16), body_of(b"x" * 5000)
    large, large_body = os.urandom(16), body_of(b"y" * 300_000)

    async def first(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        await client.put(copies(drives, blob, body, 5000), [body])
        await store_file(
            client, drives[2], ShardId(BlobId(large), 0), large_body, envelope_of(large, 0, 300_000)
        )

    async def second(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        reads = [GetShard(d, ShardId(BlobId(blob), i), 0, len(body)) for i, d in enumerate(drives)]
        assert [bytes(b) for b in await client.get(reads)] == [body] * 3  # type: ignore[arg-type]
        (got,) = await client.get([GetShard(drives[2], ShardId(BlobId(large), 0), 0, 1 << 20)])
        assert bytes(got) == large_body  # type: ignore[arg-type]
        (info,) = await client.stat([(drives[2], ShardId(BlobId(large), 0))])
        assert isinstance(info, ShardInfo)
        assert info.age_seconds == float("inf")

    ids = play(tmp_path, kind, first)
    assert play(tmp_path, kind, second, ids) == ids
    for index in tmp_path.glob("*/index.*"):
        index.unlink()
    play(tmp_path, kind, lambda c, d, n: _when_up(c, d, n, second), ids)


async def _when_up(client: NodeClient, drives: list[DriveId], node: Node, scene: Scene) -> None:
    async def up() -> bool:
        return all(r.condition is DriveCondition.UP for r in await client.reports())

    await until(up)
    await scene(client, drives, node)


def test_deleted_shards_are_gone_also_after_a_restart(
    tmp_path: Path, kind: type[NodeClient]
) -> None:
    small, large = os.urandom(16), os.urandom(16)
    body = body_of(b"x" * 200_000)

    async def first(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        await client.put(copies(drives, small, body[:100], 92), [body[:100]])
        shard = ShardId(BlobId(large), 0)
        await store_file(client, drives[0], shard, body, envelope_of(large, 0, 200_000))
        wanted = [(drives[0], ShardId(BlobId(small), 0)), (drives[0], shard)]
        assert await client.delete(wanted) == (Outcome.DONE, Outcome.DONE)
        assert await client.delete(wanted) == (Outcome.MISSING, Outcome.MISSING)

    async def second(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        wanted = [(drives[0], ShardId(BlobId(small), 0)), (drives[0], ShardId(BlobId(large), 0))]
        assert await client.stat(wanted) == (Outcome.MISSING, Outcome.MISSING)
        (info,) = await client.stat([(drives[1], ShardId(BlobId(small), 1))])
        assert isinstance(info, ShardInfo)

    ids = play(tmp_path, kind, first)
    assert not [p for p in (tmp_path / "drive1/files").rglob("*") if p.is_file()]
    play(tmp_path, kind, second, ids)
    for index in tmp_path.glob("*/index.*"):
        index.unlink()
    play(tmp_path, kind, lambda c, d, n: _when_up(c, d, n, second), ids)


def test_damage_is_verified_quarantined_and_ends_with_a_new_put(
    tmp_path: Path, kind: type[NodeClient]
) -> None:
    async def scene(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        blob, data = os.urandom(16), os.urandom(1000)
        body = body_of(data)
        shard = ShardId(BlobId(blob), 0)
        await client.put(copies(drives, blob, body, 1000), [body])
        await client.report_damage(drives[0], shard)
        assert await client.damaged(10) == ()
        (segment,) = (tmp_path / "drive1/segments").iterdir()
        raw = segment.read_bytes()
        write(str(segment), bytes([data[0] ^ 1]), raw.index(data))
        (info,) = await client.stat([(drives[0], shard)], verify=True)
        assert info is Outcome.DAMAGED
        await client.report_damage(drives[0], shard)
        assert await client.damaged(10) == ((drives[0], shard),)
        assert await client.stat([(drives[0], shard)]) == (Outcome.DAMAGED,)
        await client.put(copies(drives, blob, body, 1000)[:1], [body])
        assert await client.damaged(10) == ()
        (got,) = await client.get([GetShard(drives[0], shard, 0, len(body))])
        assert bytes(got) == body  # type: ignore[arg-type]

    play(tmp_path, kind, scene)


def test_listing_goes_through_all_shards_in_order(tmp_path: Path, kind: type[NodeClient]) -> None:
    async def scene(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        blobs = sorted(os.urandom(16) for _ in range(25))
        body = body_of(b"abc")
        for blob in blobs:
            await client.put(copies(drives[:1], blob, body, 3), [body])
        after: ShardId | None = None
        seen: list[ShardInfo] = []
        while infos := await client.list(drives[0], after, 10):
            seen += infos
            after = infos[-1].shard
        assert [info.shard.blob for info in seen] == blobs
        assert all(info.envelope == envelope_of(info.shard.blob, 0, 3) for info in seen)

    play(tmp_path, kind, scene)


def test_a_vanished_drive_costs_only_itself_and_comes_back_empty_under_a_new_identity(
    tmp_path: Path, kind: type[NodeClient]
) -> None:
    async def scene(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        (tmp_path / "drive1").rename(tmp_path / "away")
        blob, body = os.urandom(16), body_of(b"z" * 10)
        outcomes = await client.put(copies(drives, blob, body, 10), [body])
        assert outcomes == (Outcome.DRIVE_FAILED, Outcome.STORED, Outcome.STORED)
        await node.tend()
        await node.tend()
        assert (await client.reports())[0].condition in (
            DriveCondition.MISSING,
            DriveCondition.FAILED,
        )
        (tmp_path / "drive1").mkdir()

        async def up() -> bool:
            return (await client.reports())[0].condition is DriveCondition.UP

        await until(up)
        fresh = (await client.reports())[0].drive
        assert fresh != drives[0]
        outcomes = await client.put(copies([fresh, *drives[1:]], blob, body, 10), [body])
        assert outcomes == (Outcome.STORED,) * 3
        (got,) = await client.get([GetShard(fresh, ShardId(BlobId(blob), 0), 0, 100)])
        assert bytes(got) == body  # type: ignore[arg-type]

    play(tmp_path, kind, scene)


@pytest.mark.parametrize("piece", [100_000, 300_001])
def test_appending_over_the_wire_and_aborting(
    tmp_path: Path, kind: type[NodeClient], piece: int
) -> None:
    async def scene(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        blob, plain_size = os.urandom(16), 3 * piece - 1000
        shard, body = ShardId(BlobId(blob), 0), body_of(os.urandom(plain_size))
        first, second = await client.open([(drives[0], shard), (drives[0], shard)])
        assert isinstance(first, StagedShard)
        assert isinstance(second, StagedShard)
        for at in range(0, len(body), piece):
            part = body[at : at + piece]
            assert await client.append(drives[0], first.token, [part]) is Outcome.DONE
        await client.abort([(drives[0], second.token)])
        commit = [
            CommitShard(drives[0], s.token, envelope_of(blob, 0, plain_size), len(body))
            for s in (first, second)
        ]
        assert await client.commit(commit) == (Outcome.STORED, Outcome.MISSING)
        (info,) = await client.stat([(drives[0], shard)], verify=True)
        assert isinstance(info, ShardInfo)
        (got,) = await client.get([GetShard(drives[0], shard, 0, len(body))])
        assert not isinstance(got, Outcome)
        assert bytes(got) == body

    play(tmp_path, kind, scene)


def test_a_staged_shard_of_another_length_is_not_committed(
    tmp_path: Path, kind: type[NodeClient]
) -> None:
    async def scene(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        shard = ShardId(BlobId(os.urandom(16)), 0)
        (staged,) = await client.open([(drives[0], shard)])
        assert isinstance(staged, StagedShard)
        write(staged.path, b"short")
        assert await client.commit([CommitShard(drives[0], staged.token, b"", 6)]) == (
            Outcome.DAMAGED,
        )
        assert os.listdir(tmp_path / "drive1/tmp") == []

    play(tmp_path, kind, scene)


def test_what_a_lost_connection_had_staged_is_removed(
    tmp_path: Path, kind: type[NodeClient]
) -> None:
    async def scene(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        other = NodeClient(await RpcClient.connect(str(tmp_path / "s"), name="other"))
        await other.open([(drives[0], ShardId(BlobId(os.urandom(16)), 0))])
        assert len(os.listdir(tmp_path / "drive1/tmp")) == 1
        await other.close()

        async def empty() -> bool:
            return not os.listdir(tmp_path / "drive1/tmp")

        await until(empty)

    play(tmp_path, kind, scene)


def test_a_delete_of_an_earlier_term_is_refused(tmp_path: Path, kind: type[NodeClient]) -> None:
    async def scene(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        blob, body = os.urandom(16), body_of(b"x")
        shards = [(drive, ShardId(BlobId(blob), index)) for index, drive in enumerate(drives)]
        await client.put(copies(drives, blob, body, 1), [body])
        await client.begin_term(5)
        await client.begin_term(4)  # it came late as well
        with pytest.raises(PeerUnavailable, match="term 4 is over"):
            await client.delete_surplus(4, shards)
        assert all(isinstance(found, ShardInfo) for found in await client.stat(shards))
        assert await client.delete_surplus(5, shards[:1]) == (Outcome.DONE,)
        assert await client.delete_surplus(6, shards[:2]) == (Outcome.MISSING, Outcome.DONE)
        found = await client.stat(shards)
        assert found[:2] == (Outcome.MISSING, Outcome.MISSING)
        assert isinstance(found[2], ShardInfo)

    play(tmp_path, kind, scene)


def test_a_term_begins_when_deletes_of_earlier_ones_are_over(
    tmp_path: Path, kind: type[NodeClient]
) -> None:
    """What is told afterwards of the node's shards does not change by them."""

    async def scene(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        blob, body = os.urandom(16), body_of(b"x")
        shards = [(drive, ShardId(BlobId(blob), index)) for index, drive in enumerate(drives)]
        await client.put(copies(drives, blob, body, 1), [body])
        deleting = asyncio.ensure_future(client.delete_surplus(4, shards))
        await asyncio.sleep(0)  # it is sent
        await client.begin_term(5)
        assert await client.stat(shards) == (Outcome.MISSING,) * 3
        assert await deleting == (Outcome.DONE,) * 3

    play(tmp_path, kind, scene)


def test_a_node_of_an_earlier_version_keeps_what_is_surplus(
    tmp_path: Path, kind: type[NodeClient]
) -> None:
    async def scene(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        real = client._rpc.call

        async def call(verb: int, *arguments: Any, **options: Any) -> Reply:
            unknown = verb in {Verb.BEGIN_TERM, Verb.DELETE_SURPLUS}
            return await real(63 if unknown else verb, *arguments, **options)

        client._rpc.call = call  # type: ignore[method-assign, assignment]
        await client.begin_term(5)
        with pytest.raises(PeerUnavailable, match="unknown verb"):
            await client.delete_surplus(5, [(drives[0], ShardId(BlobId(os.urandom(16)), 0))])

    play(tmp_path, kind, scene)


def test_a_background_client_marks_its_work_and_nothing_that_status_needs(
    tmp_path: Path, kind: type[NodeClient]
) -> None:
    async def scene(client: NodeClient, drives: list[DriveId], node: Node) -> None:
        seen: dict[int, bool] = {}
        real = client._rpc.call

        def call(verb: int, *arguments: Any, **options: Any) -> Any:
            seen[verb] = options["background"]
            return real(verb, *arguments, **options)

        client._rpc.call = call  # type: ignore[method-assign]
        blob, body = os.urandom(16), body_of(b"x")
        shard = ShardId(BlobId(blob), 0)
        for background in (False, True):
            client.background = background
            seen.clear()
            await client.put(copies(drives, blob, body, 1), [body])
            await NodeClient.get(client, [GetShard(drives[0], shard, 0, 9)])
            await client.locate([shard.blob])
            await client.stat([(drives[0], shard)])
            (staged,) = await client.open([(drives[0], shard)])
            assert isinstance(staged, StagedShard)
            await client.commit([CommitShard(drives[0], staged.token, b"", 5)])
            await client.delete([(drives[0], shard)])
            work = {Verb.PUT, Verb.GET, Verb.LOCATE, Verb.STAT, Verb.OPEN, Verb.COMMIT, Verb.DELETE}
            assert {verb: seen[verb] for verb in work} == dict.fromkeys(work, background)
            await client.reports()
            await client.stats()
            assert not seen[Verb.REPORTS]
            assert not seen[Verb.STATS]

    play(tmp_path, kind, scene)
