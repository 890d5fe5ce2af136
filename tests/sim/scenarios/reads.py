"""Readers, and what may happen under them."""

from tests.sim.scenarios.scene import Scene, scenario
from tests.sim.workload import LONG_KEY


@scenario("answers_unchecked", keepers=0, keys=1)
async def a_fragment_decayed(scene: Scene) -> None:
    """The reader sees it, and takes another."""
    client = scene.client()
    client.sizes = (90_000,)
    await client.put()
    (ref,) = await scene.blobs_of()
    await scene.decay(ref, 0)
    await client.get()


@scenario("records_are_not_read_again", sweeps=False)
async def an_object_is_replaced_between_its_record_and_its_shards(scene: Scene) -> None:
    """The reader finds no shards, and looks who took the place."""
    slow, quick = scene.client(0), scene.client(1)
    await quick.put(key="k0")
    laid = scene.ambush("look", "held after")
    reading = scene.begin(slow.get("k0"))
    await scene.sprung(laid)
    await quick.put(key="k0")
    await scene.pause(10.0)
    laid.released.set()
    await reading


@scenario("garbage_does_not_wait", "ages_by_the_wall_clock", sweeps=False, garbage_seconds=30.0)
async def an_object_is_replaced_under_a_slow_reader(scene: Scene) -> None:
    """He gets what he began to read, whatever a clock on a wall says."""
    slow, quick = scene.client(0), scene.client(1)
    await scene.put_long(quick)
    reading = scene.begin(scene.read_long(slow, pace=4.0))
    await scene.pause(0.5)
    await quick.send("DELETE", f"/pots/{LONG_KEY}")
    await scene.pause(3.5)
    scene.world.keepers[0].process.wall_offset_seconds += 3600.0
    await reading
