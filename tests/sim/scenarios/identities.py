"""Who may sign requests, as a gateway remembers it."""

from gateway.metadata.accounts import IDENTITY_AGE_SECONDS_MAX
from tests.sim.model import Wrong
from tests.sim.scenarios.buckets import LATE_SECONDS
from tests.sim.scenarios.scene import Scene, scenario


@scenario("identities_do_not_age", keepers=0)
async def an_account_is_deleted_and_a_gateway_does_not_hear_of_it(scene: Scene) -> None:
    """After the stated time it is refused there all the same."""
    late, quick = scene.metadata(0), scene.metadata(1)
    made = await quick.accounts.create("visitor", email="visitor@example.com")
    await scene.pause(1.0)  # it has heard of that, and forgets nothing any more
    if await late.identity(made.access_key) is None:
        raise Wrong("a new access key is not known")
    scene.world.etcd.watch_lag = LATE_SECONDS
    await quick.accounts.delete("visitor")
    await scene.pause(IDENTITY_AGE_SECONDS_MAX + 1.0)
    if await late.identity(made.access_key) is not None:
        raise Wrong("the access key of a deleted account is taken, longer than may be")
    scene.world.etcd.watch_lag = 0.0
