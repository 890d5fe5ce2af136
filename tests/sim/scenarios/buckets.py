"""A bucket that is deleted and made again through another gateway."""

from tests.sim.scenarios.scene import Scene, scenario
from tests.sim.workload import Client

LATE_SECONDS = 10_000.0


async def make_anew(scene: Scene, late: Client, quick: Client) -> None:
    """One gateway remembers a bucket, another has another."""
    await late.put()
    await late.get()
    scene.world.etcd.watch_lag = LATE_SECONDS
    await quick.remake_bucket()
    await quick.put()


@scenario("stale_buckets_are_read", keys=1, keepers=0)
async def a_gateway_that_has_not_heard_of_the_new_bucket_reads(scene: Scene) -> None:
    """It reads what was written into the new one."""
    late, quick = scene.client(0), scene.client(1)
    await make_anew(scene, late, quick)
    await late.get()
    scene.world.etcd.watch_lag = 0.0


@scenario("stale_buckets_are_listed", keys=1, keepers=0)
async def a_gateway_that_has_not_heard_of_the_new_bucket_lists(scene: Scene) -> None:
    """It lists what was written into the new one."""
    late, quick = scene.client(0), scene.client(1)
    await make_anew(scene, late, quick)
    await late.list()
    scene.world.etcd.watch_lag = 0.0


@scenario("absent_buckets_are_remembered", keys=1, keepers=0)
async def a_gateway_saw_the_moment_without_the_bucket(scene: Scene) -> None:
    """It does not go on saying so."""
    late, quick = scene.client(0), scene.client(1)
    scene.world.etcd.watch_lag = LATE_SECONDS
    await scene.send(quick, "DELETE", "")
    await late.list()
    await scene.send(quick, "PUT", "")
    scene.world.remade_at.append(scene.world.loop.time())
    await quick.put()
    await late.get()
    scene.world.etcd.watch_lag = 0.0


@scenario("commits_ignore_the_bucket", keys=1, keepers=0)
async def a_commit_comes_to_the_new_bucket(scene: Scene) -> None:
    """It was meant for the one before, and nobody would find its object."""
    slow, quick = scene.client(0), scene.client(1)
    laid = scene.ambush("object", "held")
    writing = scene.begin(slow.put())
    await scene.sprung(laid)
    await scene.send(quick, "DELETE", "")
    await scene.send(quick, "PUT", "")
    scene.world.remade_at.append(scene.world.loop.time())
    laid.released.set()
    await writing
    await quick.get()
