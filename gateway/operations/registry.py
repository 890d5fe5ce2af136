"""Every operation that is offered, in one tuple."""

from gateway.operation import AnyOperation
from gateway.operations import (
    acl,
    attributes,
    buckets,
    copy,
    delete,
    listing,
    multipart,
    objects,
)

OPERATIONS: tuple[AnyOperation, ...] = (
    *buckets.OPERATIONS,
    *acl.OPERATIONS,
    *listing.OPERATIONS,
    *objects.OPERATIONS,
    *copy.OPERATIONS,
    *delete.OPERATIONS,
    *multipart.OPERATIONS,
    *attributes.OPERATIONS,
)
