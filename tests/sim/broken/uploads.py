"""Rules of multipart uploads, each taken out."""

# What is taken out is a name inside a module: mypy cannot know that on purpose.
# mypy: disable-error-code="attr-defined,assignment,misc,method-assign,arg-type"

import contextvars
from typing import Any

import msgspec

import gateway.metadata.upload_commits
import gateway.metadata.uploads
import gateway.operations.multipart_complete
from gateway.metadata import keys
from gateway.metadata.records import UploadRecord
from gateway.metadata.uploads import COMPLETING
from gateway.s3.errors import ErrorCode, S3Error
from tests.sim.broken.registry import ALWAYS, always, rule
from tests.sim.world import World


@rule("UploadPart compares that the upload is open", "uploads")
def parts_ignore_the_upload(world: World) -> None:
    """A part is committed to an upload that is being completed, or has ended."""
    module = gateway.metadata.upload_commits
    commit_part, unchanged = module.commit_part, module.unchanged
    within: contextvars.ContextVar[bool] = contextvars.ContextVar("part", default=False)

    async def bold(*arguments: Any, **named: Any) -> None:
        token = within.set(True)
        try:
            await commit_part(*arguments, **named)
        finally:
            within.reset(token)

    module.commit_part = bold
    module.unchanged = lambda key, revision: (
        ALWAYS if within.get() and key.startswith(keys.UPLOADS) else unchanged(key, revision)
    )


@rule("a part compares that nobody claimed its blob", "uploads")
def parts_ignore_claims(world: World) -> None:
    """A slow part commits though the sweep has claimed its blob."""
    module = gateway.metadata.upload_commits
    absent = module.absent
    module.absent = lambda key: ALWAYS if key.startswith(keys.GARBAGE) else absent(key)


@rule("what a completion does not use is queued", "uploads")
def unused_parts_are_not_queued(world: World) -> None:
    """Parts that are not in the object are left to the sweep."""
    gateway.metadata.upload_commits._garbage_of_unused = lambda *ignored: ()


@rule("of an upload's blobs a copy keeps those that it names", "uploads")
def copies_keep_whole_uploads(world: World) -> None:
    """Whatever was sent for an object counts as used while there is a copy of it."""

    async def named(*ignored: Any) -> bool:
        return True

    gateway.metadata.uploads._some_copy_names = named


@rule("a completion compares that the parts are as it read them", "uploads")
def completions_ignore_the_parts(world: World) -> None:
    """A part that was replaced meanwhile goes into the object, and to the garbage."""
    gateway.metadata.upload_commits.unchanged_parts = always


@rule("a completion is kept: the same token gets the same answer", "uploads")
def completions_are_not_kept(world: World) -> None:
    """Nothing tells afterwards what an upload became."""
    done = gateway.metadata.upload_commits._done

    def forgotten(*arguments: Any) -> UploadRecord:
        return msgspec.structs.replace(done(*arguments), token=b"", result=None)

    gateway.metadata.upload_commits._done = forgotten


@rule("a refused completion opens the upload again", "uploads")
def refused_completions_stay(world: World) -> None:
    """After a failed precondition the upload is still being completed."""

    async def nothing(*ignored: Any) -> None:
        return None

    gateway.metadata.upload_commits.reopen = nothing


@rule("a completion that was cut off is resumed by its token", "uploads")
def cut_off_completions_block(world: World) -> None:
    """Whoever finds an upload being completed leaves it to him who began."""
    find = gateway.operations.multipart_complete._find

    async def wary(*arguments: Any) -> Any:
        bucket, upload, current = await find(*arguments)
        if upload.record.state == COMPLETING:
            raise S3Error(ErrorCode.OPERATION_ABORTED)
        return bucket, upload, current

    gateway.operations.multipart_complete._find = wary
