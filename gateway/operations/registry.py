"""Every operation that is offered, in one tuple."""

from gateway.operation import AnyOperation
from gateway.operations import (
    absent_settings,
    acl,
    attributes,
    buckets,
    copy,
    cors,
    delete,
    encryption,
    listing,
    multipart,
    object_lock,
    objects,
    ownership,
    policy,
    post_object,
    public_access,
    tagging,
    versions,
)

OPERATIONS: tuple[AnyOperation, ...] = (
    *buckets.OPERATIONS,
    *acl.OPERATIONS,
    *policy.OPERATIONS,
    *public_access.OPERATIONS,
    *ownership.OPERATIONS,
    *listing.OPERATIONS,
    *objects.OPERATIONS,
    *copy.OPERATIONS,
    *delete.OPERATIONS,
    *multipart.OPERATIONS,
    *post_object.OPERATIONS,
    *attributes.OPERATIONS,
    *tagging.OPERATIONS,
    *encryption.OPERATIONS,
    *cors.OPERATIONS,
    *versions.OPERATIONS,
    *object_lock.OPERATIONS,
    *absent_settings.OPERATIONS,
)
