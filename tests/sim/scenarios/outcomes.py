"""Transactions of whose outcome nobody heard."""

from tests.sim import uploads
from tests.sim.model import Wrong
from tests.sim.scenarios.scene import Scene, scenario

LOST_SECONDS = 25.0
"""Longer than a transaction is tried."""


@scenario("ended_commits_are_not_recognised", "refusals_after_lost_answers_are_believed", keepers=0)
async def a_commit_whose_answer_was_lost_was_replaced_since(scene: Scene) -> None:
    """Its writer, who asked for nothing to be there, must not hear that he lost."""
    slow, quick = scene.client(0), scene.client(1)
    laid = scene.ambush("object", "lost", 3.0)
    writing = scene.begin(slow.put("*", "k0"))
    await scene.sprung(laid)
    await scene.pause(1.0)
    await quick.get("k0")
    await quick.put(key="k0")
    await writing


@scenario("lost_answers_count_as_refusals", keepers=0)
async def a_commit_whose_answer_was_lost_was_applied(scene: Scene) -> None:
    """Its writer must not hear that he lost to himself."""
    slow, quick = scene.client(0), scene.client(1)
    laid = scene.ambush("object", "lost", 1.0)
    writing = scene.begin(slow.put("*", "k0"))
    await scene.sprung(laid)
    await scene.pause(0.5)
    await quick.get("k0")
    await writing


@scenario("shards_are_discarded_after_unknown_outcomes", keepers=0)
async def a_commit_is_never_answered(scene: Scene) -> None:
    """It was applied; its shards are an object's."""
    slow, quick = scene.client(0), scene.client(1)
    laid = scene.ambush("object", "unanswered", LOST_SECONDS)
    writing = scene.begin(slow.put(key="k0"))
    await scene.sprung(laid)
    await writing
    await quick.get("k0")
    await scene.pause(LOST_SECONDS)


@scenario("garbage_is_forgotten_at_once", sweeps=False)
async def a_commit_is_tried_again_when_its_shards_are_gone(scene: Scene) -> None:
    """It had been applied, and its object was deleted since."""
    slow, quick = scene.client(0), scene.client(1)
    laid = scene.ambush("object", "lost", 14.0)
    writing = scene.begin(slow.put(key="k0"))
    await scene.sprung(laid)
    await scene.pause(1.0)
    await quick.delete_keys(["k0"])
    await writing
    await quick.get("k0")


@scenario("groups_that_moved_on_are_not_recognised", keepers=0)
async def a_commit_whose_answer_was_lost_was_renamed_and_ended_since(scene: Scene) -> None:
    """Its object was another key's: it must not come a second time."""
    slow, quick = scene.client(0), scene.client(1)
    laid = scene.ambush("object", "lost", 3.0)
    writing = scene.begin(slow.put(key="k0"))
    await scene.sprung(laid)
    await scene.pause(0.5)
    await quick.rename_of("k0", "k1")
    await scene.pause(0.1)
    await quick.delete_keys(["k1"])
    await scene.pause(0.1)
    await quick.get("k0")
    await writing
    await quick.get("k0")


@scenario("groups_that_moved_on_are_not_recognised", keepers=0)
async def a_commit_whose_answer_was_lost_was_copied_and_ended_since(scene: Scene) -> None:
    """What was queued last of its group is the copy."""
    slow, quick = scene.client(0), scene.client(1)
    laid = scene.ambush("object", "lost", 3.0)
    writing = scene.begin(slow.put(key="k0"))
    await scene.sprung(laid)
    await scene.pause(0.5)
    await quick.copy_of("k0", "k1")
    for key in ("k0", "k1"):
        await scene.pause(0.1)
        await quick.delete_keys([key])
    await scene.pause(0.1)
    await quick.get("k0")
    await writing
    await quick.get("k0")


@scenario("closed_windows_tell_all", sweeps=False, window_seconds=2.0)
async def a_commit_is_tried_again_when_all_of_it_is_forgotten(scene: Scene) -> None:
    """It had been applied, read and replaced: it must not come a second time."""
    slow, quick = scene.client(0), scene.client(1)
    slow.sizes = (700,)  # in memory still when its shards are gone
    laid = scene.ambush("object", "lost", 19.0)
    writing = scene.begin(slow.put(key="k0"))
    await scene.sprung(laid)
    await scene.pause(1.0)
    await quick.get("k0")
    await quick.put(key="k0")
    await quick.get("k0")
    await writing
    await quick.get("k0")


@scenario("deletes_are_settled_by_their_successors", keepers=0)
async def a_delete_that_never_came_meets_another_object(scene: Scene) -> None:
    """One that was written on the condition that there was something."""
    slow, quick = scene.client(0), scene.client(1)
    await quick.put(key="k0")
    await scene.pause(0.1)
    laid = scene.ambush("delete", "never came", 3.0)
    deleting = scene.begin(slow.delete_keys(["k0"]))
    await scene.sprung(laid)
    await quick.put_if_same("k0")
    await deleting
    await quick.get("k0")


@scenario("commits_ignore_what_they_replace", keepers=0)
async def two_writers_each_want_to_be_the_first(scene: Scene) -> None:
    """One of them is."""
    slow, quick = scene.client(0), scene.client(1)
    laid = scene.ambush("object", "held")
    writing = scene.begin(slow.put("*", "k0"))
    await scene.sprung(laid)
    await quick.put("*", "k0")
    laid.released.set()
    await writing


@scenario("copies_may_come_twice", keys=3, keepers=0)
async def a_copy_that_was_tried_again_comes_once_more(scene: Scene) -> None:
    """Its target was renamed meanwhile: then there is nothing again, as the copy found it."""
    slow, quick = scene.client(0), scene.client(1)
    await quick.put(key="k0")
    laid = scene.ambush("object", "astray")
    await slow.copy_of("k0", "k1")
    await quick.get("k1")
    await quick.rename_of("k1", "k2")
    laid.released.set()
    await scene.pause(0.1)
    await quick.get("k1")


@scenario("copies_ignore_the_window", sweeps=False, window_seconds=2.0)
async def a_copy_comes_once_more_when_its_end_is_forgotten(scene: Scene) -> None:
    """It was deleted, and the entry that told so has gone: the copy comes too late all the same."""
    slow, quick = scene.client(0), scene.client(1)
    await quick.put(key="k0")
    laid = scene.ambush("object", "astray")
    await slow.copy_of("k0", "k1")
    await quick.get("k1")
    await quick.delete_keys(["k1"])
    await scene.pause(20.0)
    laid.released.set()
    await scene.pause(0.1)
    await quick.get("k1")


@scenario("refusals_are_told_though_a_sending_is_on_its_way", keepers=0)
async def a_write_that_was_refused_comes_at_last(scene: Scene) -> None:
    """What stood in its way is gone, and its shards would be too."""
    slow, quick = scene.client(0), scene.client(1)
    first, second = scene.ambush("object", "astray"), scene.ambush("object", "held")
    writing = scene.begin(slow.put("*", "k0"))
    await scene.sprung(second)
    await quick.put(key="k0")
    second.released.set()
    await writing
    await quick.get("k0")
    await quick.delete_keys(["k0"])
    await quick.get("k0")
    first.released.set()
    await scene.pause(0.1)
    await quick.get("k0")


@scenario("refusals_are_told_though_a_sending_is_on_its_way", keys=3, keepers=0)
async def a_rename_that_was_refused_comes_at_last(scene: Scene) -> None:
    """To a key where there was something, by then."""
    slow, quick = scene.client(0), scene.client(1)
    await quick.put(key="k0")
    etag = (await quick.get("k0")).etag
    first, second = scene.ambush("rename", "astray"), scene.ambush("rename", "held")
    acts = slow.begin("k0", "end"), slow.begin("k1", "write", value=etag)
    headers = {"x-amz-rename-source": "/k0", "if-none-match": "*"}
    renaming = scene.begin(scene.send(slow, "PUT", "k1?renameObject", headers))
    await scene.sprung(second)
    await quick.put(key="k1")
    second.released.set()
    refused = (await renaming).status == 412
    for act in acts:
        act.unsure = True
        if refused:
            scene.world.history.acts.remove(act)
    await quick.get("k1")
    await quick.delete_keys(["k1"])
    await quick.get("k1")
    first.released.set()
    await scene.pause(0.1)
    for key in ("k0", "k1"):
        await quick.get(key)


@scenario("what_ended_may_begin_again", keepers=0)
async def a_bucket_that_was_deleted_is_made_once_more(scene: Scene) -> None:
    """By a sending of which its maker heard nothing."""
    slow, quick = scene.client(0), scene.client(1)
    laid = scene.ambush("bucket", "astray")
    answers = [await slow.send("PUT", "/shards"), await quick.send("DELETE", "/shards")]
    laid.released.set()
    await scene.pause(0.1)
    answers.append(await quick.send("HEAD", "/shards"))
    if [answer.status for answer in answers] != [200, 204, 404]:
        raise Wrong(f"made, deleted and looked at: {[answer.status for answer in answers]}")


@scenario("what_ended_may_begin_again", keepers=0)
async def an_account_that_was_deleted_is_made_once_more(scene: Scene) -> None:
    """Its access key would sign again."""
    slow, quick = scene.metadata(0), scene.metadata(1)
    laid = scene.ambush("identity", "astray")
    made = await slow.accounts.create("visitor")
    await quick.accounts.delete("visitor")
    laid.released.set()
    await scene.pause(0.1)
    if await quick.identity(made.access_key) is not None:
        raise Wrong("the access key of a deleted account is taken")


@scenario("what_ended_may_begin_again", keepers=0)
async def an_upload_that_was_aborted_is_begun_once_more(scene: Scene) -> None:
    """So it would be listed, and its parts taken."""
    slow, quick = scene.client(0), scene.client(1)
    laid = scene.ambush("upload", "astray")
    upload = await uploads.begin(slow, "k0")
    assert upload is not None
    aborted = await quick.send("DELETE", upload.path)
    laid.released.set()
    await scene.pause(0.1)
    answer = await uploads.put_part(quick, upload)
    if (aborted.status, answer.status) != (204, 404):
        raise Wrong(f"aborted with {aborted.status}, the upload answered {answer.status}")
