"""What a rebuild puts back of objects on too few drives: that they are still to get their full width."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from gateway.metadata import keys
from gateway.metadata.records import PartRecord, decode
from ops.clients import Clients
from ops.rebuild.later import Later, put_back
from placement.ids import UploadId
from placement.metastore.port import DeleteRange, Txn
from storage_node.port import Outcome
from storage_node.shard import ShardEnvelope, decode_envelope
from tests.unit.multipart_service import Run, Service, runner_in

BODY = b"body" * 10_000


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner_in(tmp_path, monkeypatch)


async def set_away(service: Service, count: int) -> None:
    """So many of the six drives."""
    for number, drive in enumerate(service.node.drives.values()):
        drive.fails = Outcome.DRIVE_FAILED if number < count else None
    await service.topology.poll()


def told_of(service: Service, kind: str, part: int = 0) -> Later:
    """What the only blob's shards tell."""
    envelopes: list[ShardEnvelope] = [
        decode_envelope(envelope)
        for drive in service.node.drives.values()
        for _, envelope in drive.shards.values()
    ]
    assert len({envelope.blob for envelope in envelopes}) == 1
    return Later(kind, "bucket", "key", len(BODY), 0, True, envelopes[0], part)


def clients_of(service: Service) -> Clients:
    rig = service.rig
    return cast(
        "Clients",
        SimpleNamespace(metadata=rig.metadata, metastore=rig.memory, objects=service.store),
    )


async def lose(service: Service, key: bytes) -> None:
    """From the metadata, with the request for re-encoding."""
    gone = (DeleteRange(key), DeleteRange(keys.narrow(key)))
    await service.rig.memory.txn(Txn((), gone))


@pytest.mark.parametrize(("away", "queued"), [(0, 0), (2, 1)])
def test_an_object_that_is_put_back_narrow_is_queued_for_reencoding(
    run: Run, away: int, queued: int
) -> None:
    async def scenario(service: Service) -> None:
        await set_away(service, away)
        await service.call("PutObject", "PUT", "key", BODY)
        await set_away(service, 0)
        entry = await service.context.metadata.buckets.read_unasked("bucket")
        await lose(service, entry.object_key("key"))
        assert await put_back(clients_of(service), told_of(service, "object")) == ""
        assert await service.body() == BODY
        assert len(await service.under(keys.NARROW)) == queued

    run(scenario)


@pytest.mark.parametrize(("away", "queued"), [(0, 0), (2, 1)])
def test_so_is_what_a_part_that_is_put_back_becomes(run: Run, away: int, queued: int) -> None:
    async def scenario(service: Service) -> None:
        upload = await service.create()
        await set_away(service, away)
        etag = await service.part(upload, 1, BODY)
        await set_away(service, 0)
        upload_key = await service.upload_key(upload)
        await lose(service, keys.part(UploadId(upload_key[-16:]), 1))
        assert await put_back(clients_of(service), told_of(service, "part", 1)) == ""
        (part,) = await service.under(keys.PARTS)
        assert decode(PartRecord, part).narrow == bool(queued)
        await service.complete(upload, [(1, etag)])
        assert await service.body() == BODY
        assert len(await service.under(keys.NARROW)) == queued

    run(scenario)
