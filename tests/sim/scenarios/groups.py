"""Groups, references and garbage: what is deleted, and what is not."""

import asyncio

from gateway.domain import garbage_backlog
from gateway.metadata import keys
from gateway.metadata.records import GarbageRecord, decode
from placement.metastore.port import Range, prefix_end
from tests.sim.model import Wrong
from tests.sim.scenarios.scene import Scene, scenario
from tests.sim.truth import untold

SWEPT_SECONDS = 50.0
"""By then what has no record was swept."""


@scenario(
    "copies_leave_no_references",
    "garbage_is_not_claimed",
    "claims_ignore_references",
    sweeps=False,
)
async def a_copy_outlives_its_source(scene: Scene) -> None:
    """Its shards were the source's."""
    client = scene.client()
    await client.put(key="k0")
    await client.copy_of("k0", "k1")
    await client.delete_keys(["k0"])
    await scene.pause(8.0)
    await client.get("k1")


@scenario("copies_ignore_their_source")
async def a_source_was_reclaimed_before_its_copy_is_committed(scene: Scene) -> None:
    """The copy is on its way for longer than garbage waits."""
    slow, quick = scene.client(0), scene.client(1)
    await quick.put(key="k0")
    laid = scene.ambush("object", "held")
    copying = scene.begin(slow.copy_of("k0", "k1"))
    await scene.sprung(laid)
    await quick.delete_keys(["k0"])
    await scene.pause(10.0)
    laid.released.set()
    await copying
    await quick.get("k1")


@scenario("nothing_is_queued", sweeps=False)
async def what_was_replaced_goes_without_a_sweep(scene: Scene) -> None:
    """The transaction that ended it has queued it."""
    client = scene.client()
    await client.put(key="k0")
    (before,) = await scene.blobs_of()
    await client.put(key="k0")
    await scene.pause(10.0)
    if scene.drives_of(before.blob):
        raise Wrong(f"blob {before.blob.hex()} was replaced, and is still there")


@scenario("claims_compare_nothing")
async def a_commit_comes_between_a_look_and_its_claim(scene: Scene) -> None:
    """The sweep found nobody who uses the group; then a slow write committed it."""
    slow, quick = scene.client(0), scene.client(1)
    writing_held = scene.ambush("object", "held")
    claim_held = scene.ambush("claim", "held", whose="keeper")
    writing = scene.begin(slow.put(key="k0"))
    await scene.sprung(writing_held)
    await scene.sprung(claim_held)
    writing_held.released.set()
    await writing
    claim_held.released.set()
    await scene.pause(8.0)
    await quick.get("k0")


@scenario("first_commits_ignore_claims", "the_sweep_does_not_claim")
async def a_commit_comes_after_the_sweep(scene: Scene) -> None:
    """Its shards are gone: it is refused, and they are stored anew."""
    slow, quick = scene.client(0), scene.client(1)
    laid = scene.ambush("object", "held")
    writing = scene.begin(slow.put(key="k0"))
    await scene.sprung(laid)
    await scene.pause(SWEPT_SECONDS)
    laid.released.set()
    await writing
    await quick.get("k0")


@scenario("claims_are_forgotten_in_open_windows", window_seconds=2 * SWEPT_SECONDS)
async def a_commit_comes_after_the_sweep_in_its_window(scene: Scene) -> None:
    """The claim is there still, and tells it."""
    slow, quick = scene.client(0), scene.client(1)
    laid = scene.ambush("object", "held")
    writing = scene.begin(slow.put(key="k0"))
    await scene.sprung(laid)
    await scene.pause(SWEPT_SECONDS)
    laid.released.set()
    await writing
    await quick.get("k0")


@scenario("commits_ignore_their_window", window_seconds=2.0)
async def a_machine_stands_still_until_its_shards_are_forgotten(scene: Scene) -> None:
    """They were swept, and the claim that said so has gone: the commit comes too late all the same."""
    slow, quick = scene.client(0), scene.client(1)
    laid = scene.ambush("object", "still", 2 * SWEPT_SECONDS)
    writing = scene.begin(slow.put(key="k0"))
    await scene.sprung(laid)
    await scene.pause(2 * SWEPT_SECONDS + 5.0)
    await writing
    await quick.get("k0")


@scenario("shards_name_no_owner")
async def the_sweep_looks_at_what_is_in_use(scene: Scene) -> None:
    """What lies on the drives says whose it is."""
    client = scene.client()
    await client.put(key="k0")
    await scene.pause(SWEPT_SECONDS)
    await client.get("k0")


@scenario("snapshots_are_swept")
async def the_sweep_finds_a_snapshot(scene: Scene) -> None:
    """No object names its parts: with them the drives tell the metadata."""
    client = scene.client()
    await client.put(key="k0")
    await scene.pause(1.5 * SWEPT_SECONDS)
    await scene.world.until("the drives tell the metadata", lambda: untold(scene.world), 60.0)


@scenario("reclaiming_does_not_wait_for_an_operator")
async def metadata_of_yesterday_does_not_name_the_shards_of_today(scene: Scene) -> None:
    """They may be all that is left: nothing is deleted until somebody has looked."""
    client = scene.client()
    await client.put(key="k0")
    (ref,) = await scene.blobs_of()
    await scene.forget_today()
    await scene.pause(SWEPT_SECONDS)
    if len(scene.drives_of(ref.blob)) < ref.k + ref.m:
        raise Wrong(f"blob {ref.blob.hex()} was deleted before anybody had looked at the metadata")
    await scene.confirm()


SLOWED, MOST, OVERWRITES = 16, 24, 60
"""Entries of garbage that may wait in the scene below, and what each of two clients overwrites."""


@scenario("garbage_grows_without_bound", sweeps=False, garbage_seconds=15.0)
async def overwrites_come_faster_than_garbage_goes(scene: Scene) -> None:
    """They are slowed down, then refused, until there is less of it; new objects are not."""
    garbage_backlog.ENTRIES_SLOWED, garbage_backlog.ENTRIES_MAX = SLOWED, MOST
    worst = 0

    async def overwrite(number: int) -> None:
        nonlocal worst
        client = scene.client(number)
        for _ in range(OVERWRITES):
            await client.put(key="k0")
            worst = max(worst, await _waiting(scene))
            await scene.pause(0.05)

    await asyncio.gather(overwrite(0), overwrite(1))
    # Two gateways, each of which knows what it queued itself.
    if worst > 2 * MOST:
        raise Wrong(f"{worst} entries of garbage waited at once")
    if worst <= SLOWED:
        raise Wrong(f"only {worst} entries of garbage waited: nothing was shown")
    answer = await scene.send(scene.client(), "PUT", "new-key")
    if answer.status != 200:
        raise Wrong(f"a new object was answered {answer.status} {answer.code}")
    await scene.pause(30.0)
    answer = await scene.send(scene.client(), "PUT", "new-key")
    if answer.status != 200:
        raise Wrong(f"with its garbage collected an overwrite was {answer.status} {answer.code}")
    await scene.send(scene.client(), "DELETE", "new-key")


async def _waiting(scene: Scene) -> int:
    queue = Range(keys.GARBAGE, prefix_end(keys.GARBAGE))
    found = await scene.world.etcd.store.range(queue)
    return sum(not decode(GarbageRecord, kv.value).claimed for kv in found.kvs)
