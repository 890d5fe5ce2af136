"""Storage classes in requests: what a write asks for, and how its object is then kept.

A class that no store of this kind has is NotImplemented; one that the operator gave no scheme, whether
or not S3 knows its name, is InvalidStorageClass.
"""

from collections.abc import Mapping
from typing import Final

from gateway.context import Context
from gateway.domain.storage_classes import (
    STANDARD,
    ClassNotMapped,
    Kept,
    StoredAs,
    kept_as,
    stays_put,
    why_not_offered,
)
from gateway.metadata.entries import BucketEntry
from gateway.metadata.records import ObjectRecord
from gateway.s3.errors import ErrorCode, S3Error
from placement.schemes import Scheme

STORAGE_CLASS: Final = "x-amz-storage-class"
_REQUESTED: Final = "StorageClassRequested"
_PLAIN: Final = Kept()


def class_asked(headers: Mapping[str, str]) -> str:
    """The storage class of a write, "" for STANDARD. Raises NotImplemented, InvalidStorageClass."""
    name = headers.get(STORAGE_CLASS)
    if name is None or name == STANDARD:
        return ""
    reason = why_not_offered(name)
    if reason is not None:
        details = {"Header": STORAGE_CLASS, _REQUESTED: name}
        raise S3Error(ErrorCode.NOT_IMPLEMENTED, f"The storage class {reason}.", details=details)
    if not name:
        raise S3Error(ErrorCode.INVALID_STORAGE_CLASS, details={_REQUESTED: name})
    return name


def kept_in(context: Context, entry: BucketEntry, storage_class: str) -> Kept:
    """How a new object of that class is kept in the bucket. Raises InvalidStorageClass."""
    bucket_scheme = entry.record.scheme
    if not storage_class and bucket_scheme is None:
        return _PLAIN
    try:
        return kept_as(storage_class, bucket_scheme, context.objects.schemes)
    except ClassNotMapped:
        raise S3Error(
            ErrorCode.INVALID_STORAGE_CLASS, details={_REQUESTED: storage_class}
        ) from None


def shares_scheme(context: Context, kept: Kept, source: ObjectRecord) -> bool:
    """Whether a copy that is kept so may refer to the source's own bytes."""
    if kept.scheme is None and source.scheme is None:
        return True
    data = source.data
    blob = (
        None
        if data is None
        else StoredAs(Scheme(data.k, data.m, data.stripe_size_bytes), data.size_bytes)
    )
    return stays_put(kept, source.scheme, blob, context.objects.schemes)
