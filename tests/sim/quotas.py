"""A bucket with a quota: what clients do there, and that the quota holds as far as is promised.

A process never exceeds it by its own writes; what others wrote since the keeper last published it does
not know, and what it was not answered counts once the keeper has seen it (`ops/decisions/0024-quotas.md`).
So each process that lives, or lived a moment ago, may have filled the quota on its own, and beyond that
there is at most what nobody was answered. In quiet times what is published is what there is.
"""

import asyncio
from typing import TYPE_CHECKING

from gateway.domain.quotas import NOTHING, Amount, Quota
from gateway.metadata import keys
from gateway.metadata.limit_records import QuotaRecord, UsageRecord
from gateway.metadata.records import BucketRecord, ObjectRecord, decode, encode
from placement.ids import BucketId
from placement.metastore.port import Put, Range, Txn, prefix_end
from tests.sim.client import Answer
from tests.sim.model import Wrong

if TYPE_CHECKING:
    from tests.sim.workload import Client
    from tests.sim.world import World

LIMITED = "kegs"
SIZE_BYTES_MAX, OBJECTS_MAX = 40_000, 8
KEYS = tuple(f"l{number}" for number in range(12))
SIZES = (0, 500, 3_000, 9_000)
REMEMBERED_SECONDS = 120.0
"""Who wrote longer ago was counted: keepers are away, and watches late, for less."""
_UNSURE = (0, 409, 503)


async def make_limited(client: "Client") -> None:
    """The bucket and its quota."""
    await client.send("PUT", f"/{LIMITED}")
    store = client.world.etcd.store
    bucket_id = await _bucket_id(client.world)
    quota = QuotaRecord(name=LIMITED, size_bytes_max=SIZE_BYTES_MAX, objects_max=OBJECTS_MAX)
    await store.txn(Txn((), (Put(keys.bucket_quota(bucket_id), encode(quota)),)))


async def put_limited(client: "Client") -> None:
    """An object there, or a copy of one from elsewhere."""
    if client.random.random() < 0.2:
        await copy_limited(client, client.random.choice(KEYS))
    else:
        size = client.random.choice(SIZES)
        await put_sized(client, client.random.choice(KEYS), size)


async def put_sized(client: "Client", key: str, size_bytes: int) -> Answer:
    """That many bytes; what is known of the quota then is checked."""
    body = client.random.randbytes(size_bytes)
    answer = await client.send("PUT", f"/{LIMITED}/{key}", body)
    await _took(client.world, answer, size_bytes)
    return answer


async def copy_limited(client: "Client", key: str) -> None:
    """Of an object without a quota: it counts in full."""
    source = f"/{client.bucket}/{client.key()}"
    headers = {"x-amz-copy-source": source}
    answer = await client.send("PUT", f"/{LIMITED}/{key}", headers=headers)
    if answer.status != 404:
        await _took(client.world, answer, max(client.sizes))


async def end_limited(client: "Client") -> None:
    """Make room."""
    answer = await client.send("DELETE", f"/{LIMITED}/{client.random.choice(KEYS)}")
    if answer.status not in (204, *_UNSURE):
        raise Wrong(f"a delete beside a quota was answered {answer.status} {answer.code}")


async def _took(world: "World", answer: Answer, size_bytes: int) -> None:
    if answer.status in _UNSURE:
        world.unsure_of_quota.append((world.loop.time(), size_bytes))
    elif answer.status != 200 and answer.code != "QuotaExceeded":
        raise Wrong(f"a write under a quota was answered {answer.status} {answer.code}")
    await check_quota(world)


async def check_quota(world: "World", processes: int | None = None) -> None:
    """No more is there than so many processes may have written (those of the last while)."""
    since = world.loop.time() - REMEMBERED_SECONDS
    begun = sum(at > since for at in world.gateway_starts)
    processes = processes or len(world.gateways) + begun
    unsure = [size for at, size in world.unsure_of_quota if at > since]
    held = await held_by_limited(world)
    most = Amount(processes * SIZE_BYTES_MAX + sum(unsure), processes * OBJECTS_MAX + len(unsure))
    if held.size_bytes > most.size_bytes or held.objects > most.objects:
        quota = Quota(SIZE_BYTES_MAX, OBJECTS_MAX)
        raise Wrong(f"{held} under {quota}: {processes} processes account for {most}")


async def held_by_limited(world: "World") -> Amount:
    """What records say."""
    objects = keys.objects_of(await _bucket_id(world))
    found = await world.etcd.store.range(Range(objects, prefix_end(objects)))
    held = NOTHING
    for kv in found.kvs:
        held = held.plus(Amount(decode(ObjectRecord, kv.value).size_bytes, 1))
    return held


async def miscounted(world: "World") -> str | None:
    """Why what is published of the bucket is not what there is."""
    (found,) = await world.etcd.store.get_many([keys.usage(await _bucket_id(world))])
    told = NOTHING if found is None else decode(UsageRecord, found.value).amount
    held = await held_by_limited(world)
    return None if told == held else f"{told} is published, {held} is there"


async def check_limits(world: "World", client: "Client") -> None:
    """In quiet times: every gateway knows what is there, refuses what does not fit, and takes what
    does."""
    await _counted(world)
    held, everywhere = await held_by_limited(world), client.goes_to
    for gateway in list(world.gateways):
        client.goes_to = {gateway.process.name}.__contains__
        too_much = SIZE_BYTES_MAX - min(held.size_bytes, SIZE_BYTES_MAX) + 1
        await _demand(await put_sized(client, "more", too_much), 403)
    client.goes_to = everywhere
    for key in await _keys_there(world):
        await client.send("DELETE", f"/{LIMITED}/{key}")
    await _counted(world)
    for gateway in list(world.gateways):
        client.goes_to = {gateway.process.name}.__contains__
        await _demand(await put_sized(client, "all", SIZE_BYTES_MAX), 200)
        await _counted(world)
        await _demand(await put_sized(client, "more", 1), 403)
    client.goes_to = everywhere


async def _counted(world: "World") -> None:
    """Until what is published is what there is, and everybody was told."""
    await world.until("the quota's usage is counted", lambda: miscounted(world), 60.0)
    await asyncio.sleep(1.0)


async def _keys_there(world: "World") -> list[str]:
    objects = keys.objects_of(await _bucket_id(world))
    found = await world.etcd.store.range(Range(objects, prefix_end(objects), keys_only=True))
    return [kv.key[len(objects) : -len(keys.END)].decode() for kv in found.kvs]


async def _demand(answer: Answer, status: int) -> None:
    if answer.status != status:
        raise Wrong(f"under a quota in quiet times: {answer.status} {answer.code}, not {status}")


async def _bucket_id(world: "World") -> BucketId:
    (found,) = await world.etcd.store.get_many([keys.bucket(LIMITED)])
    if found is None:
        raise Wrong("the bucket with a quota is not there")
    return BucketId(decode(BucketRecord, found.value).bucket_id)
