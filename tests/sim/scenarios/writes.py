"""Writes that leave drives out, and the marks that tell of it."""

import asyncio

from tests.sim import buckets
from tests.sim.scenarios.scene import Scene, scenario

MEDIUM = (40_000,)
"""Sizes of bodies that are k + m shards."""


@scenario("commit_before_the_quorum", keepers=0)
async def a_write(scene: Scene) -> None:
    """Its shards are stored before it is committed."""
    await scene.client().put()


@scenario("skip_one_flush", keepers=0, keys=8)
async def the_power_goes_after_a_write(scene: Scene) -> None:
    """Of all hosts at once, and with it all that was not flushed."""
    client, world = scene.client(), scene.world
    for key in world.keys:
        await client.put(key=key)
    for host in world.nodes:
        world.nodes[host].die(power=True, wholly=True)
        world.boots[host] += 1
    await asyncio.gather(*(scene.nemesis.restart(host, at_once=True) for host in world.mounts))
    await scene.pause(5.0)


@scenario("versions_are_ordered_by_the_clock", keepers=0, keys=1)
async def a_clock_is_ahead(scene: Scene) -> None:
    """What was written through its gateway is not newer for it."""
    ahead, client = scene.client(0), scene.client(1)
    scene.gateway(0).process.wall_offset_seconds += 3600.0
    for writer in (ahead, client, client):
        await buckets.put_version(writer)
        await scene.pause(0.1)
    await buckets.check_versions(client, "k0")


@scenario("writes_leave_no_marks", m=2, keepers=0)
async def a_write_does_without_a_drive(scene: Scene) -> None:
    """It says so."""
    client = scene.client(0)
    client.sizes = MEDIUM
    scene.cut("gateway0", "node3")
    await client.put()
    await scene.heal()


@scenario("too_few_shards_suffice", m=2, keepers=0)
async def half_of_the_drives_are_out_of_reach(scene: Scene) -> None:
    """So few shards are not enough for an object."""
    client = scene.client(0)
    client.sizes = MEDIUM
    scene.cut("gateway0", "node2")
    scene.cut("gateway0", "node3")
    await client.put()
    await scene.heal()


@scenario("commits_ignore_the_marks", m=2, sweeps=False, rests=True)
async def an_inventory_passes_before_a_commit(scene: Scene) -> None:
    """It took the mark away that the commit relies on, and saw nothing of its object."""
    client = scene.client(0)
    client.sizes = MEDIUM
    scene.cut("gateway0", "node3")
    laid = scene.ambush("object", "held")
    writing = scene.begin(client.put())
    await scene.sprung(laid)
    await scene.heal()
    await scene.pause(10.0)
    laid.released.set()
    await writing


@scenario(
    "marks_forgotten_after_the_inventory", nodes=5, m=2, sweeps=False, rests=True, partitions=1
)
async def a_write_comes_while_marks_are_forgotten(scene: Scene) -> None:
    """The inventory did not see it; its mark stays."""
    client = scene.client(0)
    client.sizes = MEDIUM
    laid = scene.ambush("marks", "held", whose="keeper")
    scene.cut("gateway0", scene.of_rank(0).node)
    await client.put(key="k0")
    await scene.sprung(laid)
    await client.put(key="k1")
    laid.released.set()
    await scene.heal()


@scenario("nothing_ever_fits_again", keys=1, rests=True)
async def an_object_is_stored_on_too_few_drives_again(scene: Scene) -> None:
    """The first one was deleted before the keeper came to it."""
    client, key = scene.client(0), scene.world.keys[0]
    client.sizes = MEDIUM
    for host in ("node2", "node3"):
        scene.cut("gateway0", host)
    await client.put(key=key)
    await client.delete_keys([key])
    await scene.nothing_waits()
    await client.put(key=key)
    await scene.heal()


@scenario("copies_stay_narrow", rests=True)
async def a_copy_is_made_of_an_object_on_too_few_drives(scene: Scene) -> None:
    """Each of the two gets its full width back."""
    client, (source, target) = scene.client(0), scene.world.keys
    client.sizes = MEDIUM
    for host in ("node2", "node3"):
        scene.cut("gateway0", host)
    await client.put(key=source)
    await client.copy_of(source, target)
    await scene.heal()
