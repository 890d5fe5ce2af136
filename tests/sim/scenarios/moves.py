"""Changes of the cluster map, and drives that leave it."""

import asyncio

from placement.ids import DriveId
from storage_node.wire import Verb
from tests.sim.scenarios.scene import Scene, scenario
from tests.sim.scenarios.writes import MEDIUM

AWAY_SECONDS = 5.0
STILL_SECONDS = 25.0
"""Long enough for another keeper to lead, and to go through all shards."""
LARGE = (700_000,)
"""Sizes of bodies that go to files as they come."""


@scenario("commits_ignore_the_epoch", "renewed_wherever_they_lie", nodes=5, sweeps=False)
async def a_drive_is_emptied_before_a_commit(scene: Scene) -> None:
    """The commit's shards lie there, and no mover saw them."""
    client = scene.client(0)
    client.sizes = MEDIUM
    laid = scene.ambush("object", "held")
    writing = scene.begin(client.put())
    await scene.sprung(laid)
    drive = await scene.drive_of_some_shard()
    await scene.drain(drive)
    await scene.faults.settled()
    assert await scene.remove(drive)
    laid.released.set()
    await writing
    scene.look_alone(drive)


@scenario("plans_outlive_their_map", nodes=5, partitions=1, sweeps=False, rests=True)
async def a_drive_is_emptied_while_a_body_comes(scene: Scene) -> None:
    """The write was planned before, and is committed after."""
    client = scene.client(0)
    client.sizes = LARGE
    gate = scene.hold_bodies(client)
    writing = scene.begin(client.put())
    await scene.pause(1.0)
    drive = scene.of_rank(0).drive_id
    await scene.drain(drive)
    await scene.faults.settled()
    assert await scene.remove(drive)
    await scene.pause(5.0)
    gate.set()
    await writing
    scene.look_alone(drive)


@scenario("epochs_closed_unverified", "moves_do_not_wait_for_each_other", nodes=5, sweeps=False)
async def an_impatient_operator_removes_a_drive(scene: Scene) -> None:
    """While the keeper does not reach a node, and so cannot have emptied it."""
    client = scene.client(0)
    client.sizes = MEDIUM
    await client.put()
    drive = await scene.drive_of_some_shard()
    others = [host for host in scene.world.nodes if host != scene.host_of(drive)]
    scene.cut("keeper0", others[0])
    await scene.drain(drive)
    await scene.pause(AWAY_SECONDS)
    await scene.remove(drive)
    await scene.heal()
    await scene.faults.settled()
    await scene.remove(drive)


async def _beside_a_blind_keeper(scene: Scene) -> tuple[DriveId, int]:
    """A drive that holds a shard, and the number of the keeper that leads; the other one hears of no
    newer map."""
    client = scene.client(0)
    client.sizes = MEDIUM
    await client.put()
    drive = await scene.drive_of_some_shard()
    first = await scene.leader()
    scene.blind(1 - first)
    return drive, first


@scenario("terms_are_not_told_apart", nodes=5, sweeps=False, keepers=2)
async def another_keeper_leads_for_a_while(scene: Scene) -> None:
    """It has an old map, and so takes back what was moved. The first has all but closed the epoch."""
    drive, first = await _beside_a_blind_keeper(scene)
    laid = scene.ambush("map", "late", whose=f"keeper{first}")
    await scene.drain(drive)
    await scene.sprung(laid)
    scene.world.keepers[first].process.stand_still(STILL_SECONDS)
    await scene.pause(STILL_SECONDS)
    laid.released.set()
    await scene.pause(1.0)
    await scene.remove(drive)


@scenario("late_deletes_count", nodes=5, sweeps=False, keepers=2)
async def a_delete_comes_late(scene: Scene) -> None:
    """Its sender moved a shard, and leads no more. Another keeper, which has an old map, took the
    shard back meanwhile."""
    drive, first = await _beside_a_blind_keeper(scene)
    late = scene.late(Verb.DELETE_SURPLUS, f"keeper{first}")
    await scene.drain(drive)
    await scene.until("a shard is moved", lambda: late.arrive is not None)
    scene.world.keepers[first].process.stand_still(STILL_SECONDS)
    await scene.pause(STILL_SECONDS)
    assert late.arrive is not None
    late.arrive()
    await scene.pause(1.0)


@scenario("absences_are_counted_unseen", sweeps=False)
async def a_host_is_away_while_etcd_is_unwell(scene: Scene) -> None:
    """For how long, nobody saw."""
    world = scene.world
    host = "node3"
    world.nodes[host].die(power=False)
    await scene.pause(14.0)
    world.etcd.quorum = False
    await scene.pause(world.grace_seconds * 1.5)
    world.etcd.quorum = True
    await scene.pause(20.0)
    await scene.nemesis.restart(host, at_once=True)


@scenario("put_out_in_twos", nodes=6, sweeps=False)
async def two_hosts_are_away(scene: Scene) -> None:
    """The fault may be another than theirs."""
    world = scene.world
    hosts = ["node4", "node5"]
    for host in hosts:
        world.nodes[host].die(power=False)
    await scene.pause(world.grace_seconds + 25.0)
    await asyncio.gather(*(scene.nemesis.restart(host, at_once=True) for host in hosts))


@scenario("delete_before_a_move_is_verified", nodes=5, sweeps=False)
async def a_shard_moves(scene: Scene) -> None:
    """It is there all the time."""
    client = scene.client(0)
    client.sizes = MEDIUM
    await client.put()
    await scene.drain(await scene.drive_of_some_shard())
    await scene.faults.settled()
