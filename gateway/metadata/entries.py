"""What the repository hands out: records with where and at which revision they were read."""

from typing import NamedTuple

import msgspec

from gateway.domain.cors import CorsRules
from gateway.domain.lifecycle import LifecycleRules
from gateway.domain.policy.document import Policy
from gateway.metadata import keys
from gateway.metadata.records import BucketRecord, ObjectRecord, decode
from placement.ids import BucketId
from placement.metastore.port import Compare, KeyValue, unchanged


class BucketEntry(NamedTuple):
    """A bucket as read at `mod_revision` of its key. `plain_owner` is the account whose root needs
    no more than to be it; "" when there is a policy to ask, which `policy` then is."""

    name: str
    record: BucketRecord
    mod_revision: int
    bucket_id: BucketId
    plain_owner: str
    policy: Policy | None = None
    cors: CorsRules = ()
    lifecycle: LifecycleRules = ()

    @property
    def key(self) -> bytes:
        """The bucket's metadata key."""
        return keys.bucket(self.name)

    @property
    def unchanged(self) -> Compare:
        """The compare that every commit which relies on the bucket carries."""
        return unchanged(keys.bucket(self.name), self.mod_revision)

    def object_key(self, key: str) -> bytes:
        """The record key of one of its objects."""
        return keys.object_(self.bucket_id, key.encode())


class ObjectEntry(msgspec.Struct, frozen=True, gc=False):
    """An object's record as read at `mod_revision` of its key: the current one's, or a version's."""

    record_key: bytes
    record: ObjectRecord
    mod_revision: int

    @property
    def key(self) -> str:
        """The S3 key."""
        return keys.key_of_object(keys.object_of(self.record_key)).decode()


class Committed(msgspec.Struct, frozen=True, gc=False):
    """What a commit left: the object as it is now. `mod_revision` 0 when only its effect is known
    (an unknown outcome that was settled)."""

    record_key: bytes
    record: ObjectRecord
    mod_revision: int


class Deleted(msgspec.Struct, frozen=True, gc=False):
    """What a delete did: the object that is not current any more, if there was one, and the delete
    marker in its place; none in buckets without versioning, where the object has ended."""

    object: ObjectEntry | None
    marker: ObjectRecord | None = None


def object_entry(record_key: bytes, found: KeyValue | None) -> ObjectEntry | None:
    """An object's record as read."""
    if found is None:
        return None
    return ObjectEntry(record_key, decode(ObjectRecord, found.value), found.mod_revision)


def etag_text(record: ObjectRecord) -> str:
    """The entity tag without quotes: hex, and "-N" for N parts."""
    if record.etag_parts:
        return f"{record.etag.hex()}-{record.etag_parts}"
    return record.etag.hex()
