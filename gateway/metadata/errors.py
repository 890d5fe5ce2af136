"""What the metadata repository refuses, each with what a caller can do about it."""


class MetadataError(Exception):
    """Base of this package's errors. Nothing was changed when one is raised."""


class NoSuchBucket(MetadataError):
    """No such bucket, or it was deleted (perhaps made again) while the request ran."""

    def __init__(self, bucket: str) -> None:
        super().__init__(f"no bucket {bucket!r}")
        self.bucket = bucket


class NotBucketOwner(MetadataError):
    """The bucket belongs to another account."""

    def __init__(self, bucket: str) -> None:
        super().__init__(f"bucket {bucket!r} belongs to another account")
        self.bucket = bucket


class BucketTaken(MetadataError):
    """Another account owns a bucket of that name. Choose another name."""

    def __init__(self, bucket: str) -> None:
        super().__init__(f"bucket {bucket!r} is another account's")
        self.bucket = bucket


class BucketOwned(MetadataError):
    """The caller has that bucket already, as `created_ms` tells, in `region`."""

    def __init__(self, bucket: str, region: str) -> None:
        super().__init__(f"bucket {bucket!r} is the caller's own already")
        self.bucket = bucket
        self.region = region


class BucketNotEmpty(MetadataError):
    """The bucket holds objects. Delete them first."""

    def __init__(self, bucket: str) -> None:
        super().__init__(f"bucket {bucket!r} is not empty")
        self.bucket = bucket


class BucketBusy(MetadataError):
    """The bucket is being made, deleted or filled by others all the time. Try again."""

    def __init__(self, bucket: str) -> None:
        super().__init__(f"bucket {bucket!r} keeps changing")
        self.bucket = bucket


class TooManyBuckets(MetadataError):
    """The account owns as many buckets as one may."""


class NoSuchKey(MetadataError):
    """A condition named an object that is not there."""

    def __init__(self, key: bytes) -> None:
        super().__init__(f"no object {key!r}")
        self.key = key


class PreconditionFailed(MetadataError):
    """The client's condition does not hold. `condition` is the header's name."""

    def __init__(self, condition: str) -> None:
        super().__init__(f"condition {condition} does not hold")
        self.condition = condition


class ObjectLocked(MetadataError):
    """Retention or a legal hold keeps the version."""

    def __init__(self, key: bytes) -> None:
        super().__init__(f"a version of {key!r} is locked")
        self.key = key


class QuotaExceeded(MetadataError):
    """The write does not fit into the quota of its bucket, or of the bucket's account."""


class QuotaInvalid(MetadataError):
    """What was asked for is no quota."""


class GarbageBacklogged(MetadataError):
    """Too much garbage waits for its collection: nothing may add to it now. Slow down, try again."""


class ConditionalConflict(MetadataError):
    """A conditional request lost every race it was allowed. Try again."""


class Contended(MetadataError):
    """An unconditional request lost every race it was allowed. Slow down and try again."""


class RelianceBroken(MetadataError):
    """Something else that the commit relied on changed: the map epoch, a damage mark, a copy's
    source, an upload. `key` is its metadata key: read it again and decide anew."""

    def __init__(self, key: bytes) -> None:
        super().__init__(f"what the commit relied on changed: {key!r}")
        self.key = key


class PresumptionBroken(MetadataError):
    """A write that presumed its key to be new, in a bucket as last known, was not committed: one of
    both is not so. Look, and begin anew."""

    def __init__(self, bucket: str) -> None:
        super().__init__(f"a write to {bucket} presumed what is not so")


class GroupReclaimed(MetadataError):
    """The sweep took the new blob for abandoned before it was committed. Store it again."""

    def __init__(self, group: bytes) -> None:
        super().__init__(f"group {group.hex()} was reclaimed before its commit")
        self.group = group


class AccountExists(MetadataError):
    """An account of that name, or that access key, exists."""


class NoSuchAccount(MetadataError):
    """No account of that name or id."""


class AccountInUse(MetadataError):
    """The account owns buckets, or is root. Delete its buckets first."""


class AccountInvalid(MetadataError):
    """A name, e-mail address or key has not the form it must have."""


class SealBroken(MetadataError):
    """A stored secret cannot be opened: another cluster key, or damage. An operator must look."""


class SessionExpired(MetadataError):
    """Temporary credentials whose time is over. Ask for new ones."""

    def __init__(self, access_key: str) -> None:
        super().__init__(f"the session of {access_key} is over")
