"""Quotas: what a process knows by itself, and what the keeper tells it."""

from tests.sim.model import Wrong
from tests.sim.quotas import (
    KEYS,
    SIZE_BYTES_MAX,
    check_limits,
    check_quota,
    put_sized,
)
from tests.sim.scenarios.scene import Scene, scenario

TOLD_SECONDS = 5.0
"""By then every gateway knows of the quota, and of what was published."""


@scenario("quotas_are_not_checked", "own_writes_do_not_count", keepers=0, sweeps=False)
async def without_a_keeper_each_process_stops_at_the_quota(scene: Scene) -> None:
    """Nobody counts: it knows what it wrote itself."""
    await scene.pause(TOLD_SECONDS)
    for number in (0, 1):
        client = scene.client(number)
        for key in KEYS:
            await put_sized(client, f"{key}-{number}", SIZE_BYTES_MAX // 6)
        await check_quota(scene.world, processes=number + 1)


@scenario("usage_is_not_published", sweeps=False)
async def what_others_wrote_and_deleted_is_told(scene: Scene) -> None:
    """A gateway that wrote nothing refuses what another has filled, and notices room."""
    await scene.pause(TOLD_SECONDS)
    answer = await put_sized(scene.client(0), KEYS[0], SIZE_BYTES_MAX)
    if answer.status != 200:
        raise Wrong(f"what fits was answered {answer.status} {answer.code}")
    await scene.pause(TOLD_SECONDS)
    answer = await put_sized(scene.client(1), KEYS[1], 1)
    if answer.code != "QuotaExceeded":
        raise Wrong(f"what does not fit was answered {answer.status} {answer.code}")
    await check_limits(scene.world, scene.client())


@scenario("usage_is_not_published", sweeps=False)
async def a_gateway_dies_in_the_middle_of_writes_under_a_quota(scene: Scene) -> None:
    """What it had committed is counted; what it had not is not."""
    await scene.pause(TOLD_SECONDS)
    laid = scene.ambush("object", "killed")
    await put_sized(scene.client(0), KEYS[0], SIZE_BYTES_MAX // 2)
    await scene.sprung(laid)
    world = scene.world
    world.gateways[0] = world.gateway(0)
    await world.gateways[0].ready
    lost = scene.ambush("object", "lost", 2.0, whose="gateway1")
    other = scene.client(1)
    for key in KEYS[1:]:
        await put_sized(other, key, SIZE_BYTES_MAX // 4)
    await scene.sprung(lost)
    await check_quota(world)
    await scene.pause(TOLD_SECONDS)
    await check_limits(world, scene.client())
