"""Where what was read of a bucket or an object meets who asks: the one check before it is used."""

from gateway.metadata.entries import BucketEntry, ObjectEntry
from gateway.metadata.errors import NotBucketOwner
from gateway.s3.message import Principal


def admit_to_bucket(entry: BucketEntry, principal: Principal) -> None:
    """Raises what the principal's admission raises; NotBucketOwner when it has none and one is
    needed: the bucket is another account's, or has a policy."""
    if entry.plain_owner == principal.plain_account:
        return
    if principal.admission is None:
        raise NotBucketOwner(entry.name)
    principal.admission.to_bucket(entry)


def admit_to_object(entry: BucketEntry, current: ObjectEntry | None, principal: Principal) -> None:
    """The same for an object of the bucket, or for the place where there is none."""
    if entry.plain_owner == principal.plain_account and (
        current is None or current.record.owner == principal.account_id
    ):
        return
    if principal.admission is None:
        raise NotBucketOwner(entry.name)
    principal.admission.to_object(entry, current)
