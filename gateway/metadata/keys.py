"""Keys of the metadata key space. One letter names the family; an escape keeps the order of S3 keys.

    m/current, m/epoch/<8>          cluster map: newest epoch, and one value an epoch
    a/<account id>                  accounts          k/<access key>   access keys (sealed secret)
    c/<canonical id>                account by canonical id
    s/<account name>                account by name
    i/<account id>/e/<id>           users, groups, roles, managed policies
    i/<account id>/n/<kind>/<name>  their ids by name, in lower case
    i/<account id>/m/<group>/<id>   members of a group
    i/<account id>/t/<policy>/<id>  what a managed policy is attached to
    b/<bucket name>                 buckets
    w/<account id>/<bucket name>    buckets by owner: the record as created (its settings are in b/)
    o/<bucket 8><key><end>          current objects, in S3's listing order
    x/<bucket 8><key><end>          current delete markers (then there is no o/ of that key)
    v/<bucket 8><key><end><8>       versions and markers that are not current, newest first
    y/<bucket 8><key><end>          order of the null version among them
    u/<bucket 8><key><end><id 16>   multipart uploads, in ListMultipartUploads' order
    f/<bucket 8><key><end><id 16>   finished uploads, kept for an hour: out of the way of the others
    p/<upload 16><number 2>         parts of an upload
    g/<id 16>                       garbage: groups and blobs that no record refers to any more
    g/end/<name>                    that a bucket, an account or an identity of that id has ended
    r/<group 16>/<record key>       further records that use a group (copies)
    n/<record key>                  objects stored narrower than the scheme asks: to be re-encoded
    d/<partition 2><slot 2>         damage: a write left this drive out of this partition
    e/<key id>                      master keys of the local key ring (sealed)
    h/scrub                         how far the scrub is
    h/snapshot                      how far the metadata is copied to the drives
    h/part/<number 8><part 4>       parts of those copies: where their bytes are
    m/window/<number 8>             write windows: how late the commit of a new blob may come
    m/windowed                      there are write windows, or were
    m/migration                     how far the metadata of `serve` was copied into this etcd
    m/rebuilt                       this metadata was rebuilt from drives, and nobody confirmed it yet
    z/q/b/<bucket 8>                quotas of buckets         z/q/a/<account id>   of accounts
    z/u/<bucket 8>                  what counted buckets hold
    z/s                             settings of the whole store
    z/g                             how much garbage waits for its collection

<key><end>: the key's UTF-8 bytes with 0x00 written as 0x00 0xff, then 0x00 0x01. So any key works,
byte order is kept, and no key's record is a prefix of another's.
"""

from placement.ids import BlobId, BucketId, Epoch, GroupId, Partition, Slot, UploadId

END = b"\x00\x01"
MAP_CURRENT = b"m/current"
BUCKETS = b"b/"
ACCOUNTS = b"a/"
ACCESS_KEYS = b"k/"
IDENTITIES = b"i/"
OBJECTS = b"o/"
MARKERS = b"x/"
VERSIONS = b"v/"
UPLOADS = b"u/"
FINISHED = b"f/"
PARTS = b"p/"
GARBAGE = b"g/"
ENDED = b"g/end/"
REFERENCES = b"r/"
NARROW = b"n/"
DAMAGE = b"d/"
KMS_KEYS = b"e/"
SCRUB = b"h/scrub"
SNAPSHOT = b"h/snapshot"
SNAPSHOT_PARTS = b"h/part/"
REBUILT = b"m/rebuilt"
LIMITS = b"z/"
BUCKET_QUOTAS = b"z/q/b/"
ACCOUNT_QUOTAS = b"z/q/a/"
USAGE = b"z/u/"
STORE_SETTINGS = b"z/s"
GARBAGE_WAITING = b"z/g"
MIGRATION = b"m/migration"
WINDOWS = b"m/window/"
WINDOWED = b"m/windowed"
_ORDER_MAX = (1 << 64) - 1
_GROUP_SIZE_BYTES = 16
ROOT_ACCOUNT_ID = "000000000000"


def escape(key: bytes) -> bytes:
    """An S3 key (or prefix of one) in the order-preserving form, without the end mark."""
    return key.replace(b"\x00", b"\x00\xff") if 0 in key else key


def unescape(escaped: bytes) -> bytes:
    """The S3 key of an escaped one."""
    return escaped.replace(b"\x00\xff", b"\x00") if 0 in escaped else escaped


def map_epoch(epoch: Epoch) -> bytes:
    """Key of one epoch's cluster map."""
    return b"m/epoch/" + epoch.to_bytes(8, "big")


def window(number: int) -> bytes:
    """Key of an open write window."""
    return WINDOWS + number.to_bytes(8, "big")


def window_number(key: bytes) -> int:
    """The other way."""
    return int.from_bytes(key[len(WINDOWS) :], "big")


def bucket(name: str) -> bytes:
    """Key of a bucket's record."""
    return BUCKETS + name.encode()


def account(account_id: str) -> bytes:
    """Key of an account's record."""
    return ACCOUNTS + account_id.encode()


def access_key(access_key_id: str) -> bytes:
    """Key of an access key's record."""
    return ACCESS_KEYS + access_key_id.encode()


def canonical(canonical_id: str) -> bytes:
    """Key that finds an account by its canonical id."""
    return b"c/" + canonical_id.encode()


def account_name(name: str) -> bytes:
    """Key that finds an account by its name."""
    return b"s/" + name.encode()


def identities_of(account_id: str) -> bytes:
    """Prefix of all that IAM keeps of an account."""
    return IDENTITIES + account_id.encode() + b"/"


def identity(account_id: str, unique_id: str) -> bytes:
    """Key of a user's, group's, role's or managed policy's record."""
    return identities_of(account_id) + b"e/" + unique_id.encode()


def identity_names(account_id: str, kind: str) -> bytes:
    """Prefix of the names of one kind."""
    return identities_of(account_id) + b"n/" + kind.encode() + b"/"


def identity_name(account_id: str, kind: str, name: str) -> bytes:
    """Key that finds one by its name, whatever its case."""
    return identity_names(account_id, kind) + name.lower().encode()


def members_of(account_id: str, group_id: str) -> bytes:
    """Prefix of the members of a group."""
    return identities_of(account_id) + b"m/" + group_id.encode() + b"/"


def attachments_of(account_id: str, policy_id: str) -> bytes:
    """Prefix of what a managed policy is attached to."""
    return identities_of(account_id) + b"t/" + policy_id.encode() + b"/"


def owned_buckets(account_id: str) -> bytes:
    """Prefix of the index of an account's buckets."""
    return b"w/" + account_id.encode() + b"/"


def owned_bucket(account_id: str, name: str) -> bytes:
    """Key of one bucket in its owner's index."""
    return owned_buckets(account_id) + name.encode()


def objects_of(bucket_id: BucketId) -> bytes:
    """Prefix of a bucket's current objects."""
    return OBJECTS + bucket_id


def object_(bucket_id: BucketId, key: bytes) -> bytes:
    """Key of an object's current record; `key` is the S3 key in UTF-8."""
    return OBJECTS + bucket_id + escape(key) + END


def key_of_object(record_key: bytes) -> bytes:
    """The S3 key in a current object's record key."""
    return unescape(record_key[10:-2])


def marker(object_key: bytes) -> bytes:
    """Key of the delete marker that is current in the place of this object."""
    return MARKERS + object_key[2:]


def null_version(object_key: bytes) -> bytes:
    """Key that tells the order of an object's null version while that is not current."""
    return b"y/" + object_key[2:]


def versions_of(object_key: bytes) -> bytes:
    """Prefix of the versions of an object that are not current."""
    return VERSIONS + object_key[2:]


def version(object_key: bytes, order: int) -> bytes:
    """Key of a version that is not current; a greater order comes first."""
    return VERSIONS + object_key[2:] + order_suffix(order)


def order_suffix(order: int) -> bytes:
    """How a version's order ends its key: descending."""
    return (_ORDER_MAX - order).to_bytes(8, "big")


def object_of(record_key: bytes) -> bytes:
    """Key of the current object's record, of any record of an object: of a version or a marker."""
    if record_key.startswith(VERSIONS):
        return OBJECTS + record_key[2:-8]
    return OBJECTS + record_key[2:]


def object_of_upload(upload_key: bytes) -> bytes:
    """Key of the object record that an upload completes to."""
    return OBJECTS + upload_key[2:-16]


def uploads_of(bucket_id: BucketId) -> bytes:
    """Prefix of a bucket's multipart uploads."""
    return UPLOADS + bucket_id


def upload(bucket_id: BucketId, key: bytes, upload_id: UploadId) -> bytes:
    """Key of a multipart upload's record."""
    return UPLOADS + bucket_id + escape(key) + END + upload_id


def finished(upload_key: bytes) -> bytes:
    """Key of the same upload's record once it has become an object."""
    return FINISHED + upload_key[2:]


def parts_of(upload_id: UploadId) -> bytes:
    """Prefix of an upload's parts."""
    return PARTS + upload_id


def part(upload_id: UploadId, number: int) -> bytes:
    """Key of one part, 1 ≤ number ≤ 10,000."""
    return PARTS + upload_id + number.to_bytes(2, "big")


def garbage(identity: GroupId | BlobId | bytes) -> bytes:
    """Key of a garbage entry: of a group or of single blobs."""
    return GARBAGE + identity


def ended(name: bytes) -> bytes:
    """Key of the garbage entry that tells of the end of what has no bytes: by its id, which is given
    once. That a group's id begins alike is as good as impossible."""
    return ENDED + name


def references_of(group: GroupId | bytes) -> bytes:
    """Prefix of the further records that use a group."""
    return REFERENCES + group + b"/"


def reference(group: GroupId | bytes, record_key: bytes) -> bytes:
    """Key saying that this record uses the group too."""
    return references_of(group) + record_key


def record_of_reference(key: bytes) -> bytes:
    """The record key in a reference."""
    return key[len(REFERENCES) + _GROUP_SIZE_BYTES + 1 :]


def narrow(record_key: bytes) -> bytes:
    """Key asking for an object to be re-encoded when drives return."""
    return NARROW + record_key


def damage(partition: Partition, slot: Slot) -> bytes:
    """Key marking that a committed write left a drive out of a partition."""
    return DAMAGE + partition.to_bytes(2, "big") + slot.to_bytes(2, "big")


def marked_slot(key: bytes) -> bytes:
    """The slot that a damage mark tells of, as it ends its key; b"" for any other key."""
    return key[-2:] if key.startswith(DAMAGE) else b""


def kms_key(key_id: str) -> bytes:
    """Key of a master key of the local key ring."""
    return KMS_KEYS + key_id.encode()


def snapshot_parts(number: int) -> bytes:
    """Prefix of the parts of one snapshot of the metadata; where those of earlier ones end."""
    return SNAPSHOT_PARTS + number.to_bytes(8, "big")


def snapshot_part(number: int, part: int) -> bytes:
    """Key of one part, and the owner key in its shards' envelopes."""
    return snapshot_parts(number) + part.to_bytes(4, "big")


def bucket_quota(bucket_id: BucketId) -> bytes:
    """Key of a bucket's quota."""
    return BUCKET_QUOTAS + bucket_id


def account_quota(account_id: str) -> bytes:
    """Key of an account's quota."""
    return ACCOUNT_QUOTAS + account_id.encode()


def usage(bucket_id: BucketId | bytes) -> bytes:
    """Key of what a bucket was counted to hold."""
    return USAGE + bucket_id
