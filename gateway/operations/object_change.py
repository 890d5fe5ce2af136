"""Changing what is recorded of an object without touching its bytes."""

from collections.abc import Callable

import msgspec

from gateway.context import Context
from gateway.metadata.errors import NoSuchKey, RelianceBroken
from gateway.metadata.records import ObjectRecord
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import Principal
from placement.metastore.port import unchanged

_RACES_MAX = 20


async def change_object(
    context: Context,
    bucket: str,
    key: str,
    principal: Principal,
    change: Callable[[ObjectRecord], ObjectRecord],
) -> ObjectRecord:
    """Replace the current object's record by what `change` makes of it; the record as it is now.

    The commit relies on the very record that was read, so that an overwrite which comes between is
    not undone: then the new object is changed instead. The group stays, hence no byte is freed.
    Raises NoSuchBucket, NotBucketOwner, NoSuchKey, OperationAborted, OutcomeUnknown.
    """
    for _ in range(_RACES_MAX):
        entry, current = await context.metadata.lookup(bucket, key, principal)
        if current is None:
            raise NoSuchKey(key.encode())
        record = msgspec.structs.replace(
            change(current.record), commit_id=context.randomness.token(8)
        )
        assert record.group == current.record.group
        try:
            committed = await context.metadata.commit_object(
                entry,
                current.record_key,
                record,
                previous=current,
                compares=(unchanged(current.record_key, current.mod_revision),),
            )
        except RelianceBroken:
            continue
        return committed.record
    raise S3Error(ErrorCode.OPERATION_ABORTED)
