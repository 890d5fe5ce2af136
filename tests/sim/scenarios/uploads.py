"""Multipart uploads."""

from tests.sim import uploads
from tests.sim.model import Wrong
from tests.sim.scenarios.groups import SWEPT_SECONDS
from tests.sim.scenarios.scene import Scene, scenario
from tests.sim.workload import Client


@scenario("completions_ignore_the_parts", sweeps=False)
async def a_part_is_replaced_while_its_completion_begins(scene: Scene) -> None:
    """What was replaced is garbage, and must not be in the object."""
    slow, quick = scene.client(0), scene.client(1)
    upload = await filled(quick)
    laid = scene.ambush("upload", "held")
    completing = scene.begin(uploads.complete_shared(slow, upload))
    await scene.sprung(laid)
    await uploads.put_part(quick, upload)
    laid.released.set()
    await completing
    await scene.pause(8.0)
    await quick.get("k0")


@scenario("parts_ignore_the_upload", rests=True, sweeps=False)
async def a_part_comes_after_the_completion(scene: Scene) -> None:
    """There is no upload any more that it could belong to."""
    slow, quick = scene.client(0), scene.client(1)
    upload = await filled(quick)
    laid = scene.ambush("part", "held")
    putting = scene.begin(uploads.put_part(slow, upload, 2))
    await scene.sprung(laid)
    await uploads.complete_shared(quick, upload)
    laid.released.set()
    await putting


@scenario("parts_ignore_claims")
async def a_part_comes_after_the_sweep(scene: Scene) -> None:
    """Its shards are gone: it is refused, and they are stored anew."""
    slow, quick = scene.client(0), scene.client(1)
    upload = await uploads.begin(quick, "k0")
    assert upload is not None
    laid = scene.ambush("part", "held")
    putting = scene.begin(uploads.put_part(slow, upload))
    await scene.sprung(laid)
    await scene.pause(SWEPT_SECONDS)
    laid.released.set()
    await putting
    await uploads.complete_shared(quick, upload)
    await quick.get("k0")


@scenario("unused_parts_are_not_queued", sweeps=False)
async def parts_that_a_completion_did_not_use_go_without_a_sweep(scene: Scene) -> None:
    """The completion has queued them."""
    client = scene.client()
    upload = await filled(client)
    await uploads.put_part(client, upload, 2)
    parts = await scene.parts()
    await uploads.complete_shared(client, upload, 1)
    await scene.pause(10.0)
    if len([ref for ref in parts if scene.drives_of(ref.blob)]) != 1:
        raise Wrong("a part that the object does not use is still there")


@scenario("copies_keep_whole_uploads", rests=True)
async def a_part_that_never_came_lies_beside_one_that_was_copied(scene: Scene) -> None:
    """The copy uses what the object was made of, and not all that was ever sent for it."""
    slow, quick = scene.client(0), scene.client(1)
    upload = await filled(quick)
    scene.ambush("part", "killed before")
    await uploads.put_part(slow, upload, 2)
    scene.world.gateways[0] = scene.world.gateway(0)
    await scene.gateway(0).ready
    await uploads.complete_shared(quick, upload)
    await quick.copy_of("k0", "k1")
    await quick.delete_keys(["k0"])
    await scene.pause(SWEPT_SECONDS)
    await quick.get("k1")


@scenario("completions_are_not_kept", keepers=0)
async def a_completion_is_asked_for_twice(scene: Scene) -> None:
    """Both answers are one."""
    client = scene.client()
    upload = await filled(client)
    answer, act = await uploads.complete(client, upload, 1)
    client.end_upload(act, answer, upload)
    again = await uploads.send_completion(client, upload, 1)
    if (again.status, again.etag) != (answer.status, answer.etag):
        raise Wrong(f"the completion was answered {answer.status}, and then {again.code}")


@scenario("refused_completions_stay", keepers=0)
async def a_completion_is_refused_for_its_precondition(scene: Scene) -> None:
    """Then parts may come again."""
    slow, quick = scene.client(0), scene.client(1)
    upload = await filled(slow)
    laid = scene.ambush("finish", "held")
    completing = scene.begin(uploads.complete(slow, upload, 1, "*"))
    await scene.sprung(laid)
    await quick.put(key="k0")
    laid.released.set()
    answer, act = await completing
    slow.end_upload(act, answer, upload)
    again = await uploads.put_part(quick, upload)
    if (answer.status, again.status) != (412, 200):
        raise Wrong(f"after {answer.status} a part was answered {again.status} {again.code}")


@scenario("cut_off_completions_block", keepers=0)
async def a_gateway_dies_within_a_completion(scene: Scene) -> None:
    """Another one resumes it."""
    slow, quick = scene.client(0), scene.client(1)
    upload = await filled(quick)
    scene.ambush("upload", "killed")
    answer, act = await uploads.complete(slow, upload, 1)
    scene.world.gateways[0] = scene.world.gateway(0)
    await scene.gateway(0).ready
    again = await uploads.send_completion(quick, upload, 1)
    quick.end_upload(act, again, upload)
    if (answer.status, again.status) != (0, 200):
        raise Wrong(f"after {answer.status} the completion was answered {again.code}")


async def filled(client: Client) -> uploads.Upload:
    """An upload with its first part."""
    upload = await uploads.begin(client, "k0")
    assert upload is not None
    await uploads.put_part(client, upload)
    return upload
