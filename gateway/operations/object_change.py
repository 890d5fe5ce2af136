"""Changing what is recorded of an object without touching its bytes."""

from collections.abc import Callable

import msgspec

from gateway.context import Context
from gateway.metadata.entries import BucketEntry
from gateway.metadata.records import ObjectRecord
from gateway.operations.object_versions import find_version
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import Principal

_RACES_MAX = 20


async def change_object(
    context: Context,
    bucket: str,
    key: str,
    principal: Principal,
    change: Callable[[ObjectRecord], ObjectRecord],
    version: bytes | None = None,
    *,
    method: str = "PUT",
) -> tuple[BucketEntry, ObjectRecord]:
    """Replace the record of an object's current version, or of the one named, by what `change`
    makes of it; the bucket, and the record as it is now.

    The commit relies on the very record that was read, so that an overwrite which comes between is
    not undone: then the new object is changed instead. The group stays, hence no byte is freed.
    Raises NoSuchBucket, NotBucketOwner, OperationAborted, OutcomeUnknown, and what
    `object_versions.find_version` raises.
    """
    for _ in range(_RACES_MAX):
        entry, current = await find_version(
            context, bucket, key, principal, version, changing=method
        )
        record = msgspec.structs.replace(
            change(current.record), commit_id=context.randomness.token(8)
        )
        amended = await context.metadata.versions.amend(entry, current, record)
        if amended is not None:
            return entry, amended.record
    raise S3Error(ErrorCode.OPERATION_ABORTED)
