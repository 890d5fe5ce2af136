"""Stored metadata records: MessagePack arrays behind a version byte.

Fields are only ever appended, with defaults, within a version; anything else raises the version and
adds a migration to `_decoders`. Golden bytes in tests/golden hold every version readable.
"""

import struct
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from gateway.domain.ciphertext import plain_size

VERSION = 1
_PREFIX = bytes([VERSION])


class Record(msgspec.Struct, array_like=True, frozen=True, kw_only=True, gc=False):
    """Base of all records."""


class BlobRef(Record, frozen=True, kw_only=True):
    """Where bytes are: blob, geometry, size. k = 1 means m + 1 whole copies. The size is that of
    the bytes as they are stored: of encrypted ones that of the ciphertext."""

    blob: bytes
    k: int
    m: int
    stripe_size_bytes: int
    size_bytes: int


class PartRef(Record, frozen=True, kw_only=True):
    """One part of a multipart object, in order. `number` is the client's part number. `salt` is
    that of an encrypted part (`gateway.objects.ciphers`), b"" of one that is not."""

    number: int
    data: BlobRef
    checksum: bytes = b""
    salt: bytes = b""

    @property
    def size_bytes(self) -> int:
        """Of the plain bytes."""
        size = self.data.size_bytes
        return plain_size(size) if self.salt else size


class Checksum(Record, frozen=True, kw_only=True):
    """An additional checksum. `algorithm` is S3's name ("CRC32C"); `type` FULL_OBJECT or COMPOSITE;
    `value` raw bytes; `parts` > 0 for COMPOSITE ("-N" in text)."""

    algorithm: str
    type: str
    value: bytes
    parts: int = 0


def _hold(record: "ObjectRecord | UploadRecord") -> bool | None:
    return True if record.legal_hold else False if record.hold_lifted else None


class ObjectRecord(Record, frozen=True, kw_only=True):
    """An object version. Plain ones have `data`; multipart ones `parts`, or `manifest` naming a blob
    that holds the encoded list of PartRef when it is long."""

    owner: str  # account id
    group: bytes  # unit of reclaiming: the blob's id, or the upload's
    size_bytes: int
    etag: bytes  # MD5, or MD5 of MD5s
    etag_parts: int = 0  # > 0: "-N" follows the hex
    modified_ms: int
    commit_id: bytes  # 8 random bytes: settles unknown outcomes
    data: BlobRef | None = None
    parts: tuple[PartRef, ...] = ()
    manifest: BlobRef | None = None
    checksum: Checksum | None = None
    content_type: str = ""  # "" means the default, binary/octet-stream
    headers: tuple[tuple[str, str], ...] = ()  # other content headers, lower case
    metadata: tuple[tuple[str, str], ...] = ()  # x-amz-meta-*, without the prefix
    storage_class: str = ""  # "" means STANDARD
    version_id: bytes = b""  # "" is the null version
    order: int = 0  # orders the versions of a key
    tags: tuple[tuple[str, str], ...] = ()
    retention: tuple[str, int] | None = None
    legal_hold: bool = False
    encryption: bytes = b""  # an encoded EncryptionEnvelope; b"" when the bytes are stored plain
    delete_marker: bool = False
    group_owner: bytes = b""  # record key of the group's first owner, when that is not this record:
    # then `r/<group>/<this record's key>` exists as long as this record does
    acl: tuple[tuple[str, str], ...] | None = None  # (account id or group, permission); None: the
    # owner's full control
    scheme: tuple[int, int] | None = None  # k and m that its class or bucket asked for; None: those
    # that were the default. The blobs tell their own: narrower ones, or whole copies
    hold_lifted: bool = False  # a legal hold was set, to "off" in the end

    @property
    def hold(self) -> bool | None:
        """Its legal hold: on, taken off again, or None: never set. Of one that was taken off before
        records told it, None."""
        return _hold(self)


class ListedChecksum(Record, frozen=True, kw_only=True):
    """The head of a Checksum."""

    algorithm: str
    type: str


class ListedObject(Record, frozen=True, kw_only=True):
    """The head of an ObjectRecord, field by field: what listings show. What it does not look into is
    skipped unread."""

    owner: str
    group: msgspec.Raw
    size_bytes: int
    etag: bytes
    etag_parts: int
    modified_ms: int
    commit_id: msgspec.Raw
    data: msgspec.Raw
    parts: msgspec.Raw
    manifest: msgspec.Raw
    checksum: ListedChecksum | None
    content_type: msgspec.Raw
    headers: msgspec.Raw
    metadata: msgspec.Raw
    storage_class: str


class ListedVersion(Record, frozen=True, kw_only=True):
    """An ObjectRecord as far as `delete_marker`: what listings of versions show."""

    owner: str
    group: msgspec.Raw
    size_bytes: int
    etag: bytes
    etag_parts: int
    modified_ms: int
    commit_id: msgspec.Raw
    data: msgspec.Raw
    parts: msgspec.Raw
    manifest: msgspec.Raw
    checksum: ListedChecksum | None
    content_type: msgspec.Raw
    headers: msgspec.Raw
    metadata: msgspec.Raw
    storage_class: str
    version_id: bytes
    order: int
    tags: msgspec.Raw
    retention: msgspec.Raw
    legal_hold: msgspec.Raw
    encryption: msgspec.Raw
    delete_marker: bool


class BucketEncryption(Record, frozen=True, kw_only=True):
    """How new objects of a bucket are encrypted when a request says nothing. `algorithm` is AES256,
    aws:kms, or "" when the rule only blocks. `blocked` names forms that requests may not ask for."""

    algorithm: str
    key_id: str = ""
    bucket_key: bool = False
    blocked: tuple[str, ...] = ()


class EncryptionEnvelope(Record, frozen=True, kw_only=True):
    """How an object is encrypted: what `ObjectRecord.encryption` holds, encoded.

    `kind` is AES256 (SSE-S3), aws:kms, SSE-C or at-rest (encrypted without anybody asking).
    `wrapped_key` is the object's data key, wrapped by the key service under `key_id`, or under the
    customer's key. `key_md5` is that key's MD5, in base64 as S3 shows it. `context` is the KMS
    encryption context as canonical JSON. `cipher` names the format of the bytes: 1 is AES-256-GCM
    in blocks (`gateway.domain.ciphertext`).
    """

    kind: str
    wrapped_key: bytes
    key_id: str = ""
    key_md5: str = ""
    context: str = ""
    bucket_key: bool = False
    cipher: int = 1


class KmsKeyVersion(Record, frozen=True, kw_only=True):
    """The bytes of a master key, sealed under the named sealing key."""

    sealed: bytes
    sealing_key: str
    created_ms: int


class KmsKeyRecord(Record, frozen=True, kw_only=True):
    """A master key of the local key ring. The last version wraps, all of them unwrap; version n is
    `versions[n - 1]`."""

    key_id: str
    created_ms: int
    versions: tuple[KmsKeyVersion, ...]


class BucketRecord(Record, frozen=True, kw_only=True):
    """A bucket. `settings_revision` grows with each change of settings."""

    bucket_id: bytes
    owner: str  # account id
    region: str
    created_ms: int
    home: str = ""
    versioning: str = ""  # "", Enabled, Suspended
    object_lock: bool = False
    ownership: str = "BucketOwnerEnforced"  # "" when no controls are set: as ObjectWriter
    settings_revision: int = 1
    tags: tuple[tuple[str, str], ...] = ()
    policy: bytes = b""  # the document as the client sent it, compressed (zlib)
    acl: tuple[tuple[str, str], ...] | None = None  # as an object's
    public_access_block: tuple[bool, bool, bool, bool] | None = None  # BlockPublicAcls,
    # IgnorePublicAcls, BlockPublicPolicy, RestrictPublicBuckets
    encryption: BucketEncryption | None = None
    lock_default: tuple[str, int, str] | None = None  # retention of new versions: mode, count, unit
    cors: bytes = b""  # cross-origin rules (`gateway.metadata.cors`)
    lifecycle: bytes = b""  # lifecycle rules (`gateway.metadata.lifecycle`)
    website: bytes = b""  # (`gateway.metadata.website`)
    scheme: tuple[int, int] | None = None  # k and m of its STANDARD objects; None: the default's


class AccountRecord(Record, frozen=True, kw_only=True):
    """An account: what owns buckets. `canonical_id` is 64 hex digits."""

    account_id: str
    canonical_id: str
    name: str
    email: str
    created_ms: int
    access_keys: tuple[str, ...] = ()
    is_root: bool = False


class AccessKeyRecord(Record, frozen=True, kw_only=True):
    """An access key; the secret is sealed under the named key. `user_id` is empty when it signs for
    the account's root."""

    access_key: str
    account_id: str
    sealed_secret: bytes
    sealing_key: str
    created_ms: int
    user_id: str = ""
    active: bool = True


class UploadRecord(Record, frozen=True, kw_only=True):
    """A multipart upload. `state`: open, completing, done. `token` digests the part list that the
    completion in progress (or done) was asked for; `result` is the object's ETag text when done."""

    upload_id: bytes
    owner: str
    initiator: str
    created_ms: int
    state: str = "open"
    token: bytes = b""
    checksum_algorithm: str = ""
    checksum_type: str = ""
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    storage_class: str = ""
    result: ObjectRecord | None = None
    manifest: BlobRef | None = None
    completing_ms: int = 0
    tags: tuple[tuple[str, str], ...] = ()
    acl: tuple[tuple[str, str], ...] | None = None  # of the object that it will be
    encryption: bytes = b""  # as an object's: of the object that it will be
    retention: tuple[str, int] | None = None  # asked for the object that it will be
    legal_hold: bool = False
    scheme: tuple[int, int] | None = None  # as an object's: of all its parts
    hold_lifted: bool = False  # as an object's

    @property
    def hold(self) -> bool | None:
        """As an object's: what was asked for."""
        return _hold(self)


class PartRecord(Record, frozen=True, kw_only=True):
    """One uploaded part. `checksum` is of the upload's algorithm (CRC64NVME when it has none);
    `declared` what the client sent of another one, to an upload that has none. `number` is there
    for whoever finds the record on a drive."""

    data: BlobRef
    etag: bytes
    modified_ms: int
    commit_id: bytes
    checksum: bytes = b""
    narrow: bool = False
    number: int = 0
    declared_algorithm: str = ""
    declared: bytes = b""
    salt: bytes = b""
    encryption: bytes = b""  # the upload's, for whoever finds the record on a drive

    @property
    def size_bytes(self) -> int:
        """Of the plain bytes."""
        size = self.data.size_bytes
        return plain_size(size) if self.salt else size


class GarbageRecord(Record, frozen=True, kw_only=True):
    """Blobs to delete once nobody can be reading them. `group` when the entry is a whole group: then
    `r/<group>/` must be empty and the group's first owner, `owner_key`, must not use it.
    `manifest` names a blob listing further parts to delete. `commit_id` is that of the record that
    ended (its writer, unsure of the outcome, finds it here). `claimed`: checked, nobody can come to
    use it any more; its shards may be deleted."""

    commit_id: bytes
    queued_ms: int
    blobs: tuple[BlobRef, ...] = ()
    manifest: BlobRef | None = None
    group: bytes = b""
    owner_key: bytes = b""
    claimed: bool = False


class MapCurrent(Record, frozen=True, kw_only=True):
    """The newest epoch of the cluster map."""

    epoch: int


R = TypeVar("R", bound=Record)

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type[Record], msgspec.msgpack.Decoder[Record]] = {}


# Of many stored forms in a row: the version byte is MessagePack's for that number.
_listed_decoder = msgspec.msgpack.Decoder(list[int | ListedObject])
_versions_decoder = msgspec.msgpack.Decoder(list[int | ListedVersion])


_ARRAY = struct.Struct(">BI")
"""The head of a MessagePack array: 0xdd and the number of its elements."""


class RecordError(ValueError):
    """Stored bytes are not a record this code reads."""


def encode(record: Record) -> bytes:
    """The stored form: version byte, MessagePack."""
    return _PREFIX + _encoder.encode(record)


def decode(kind: type[R], data: bytes) -> R:
    """Read a stored record; raises RecordError for foreign bytes or a newer version."""
    if not data or data[0] != VERSION:
        raise RecordError(f"not a version {VERSION} {kind.__name__}")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        return decoder.decode(data[1:])  # type: ignore[return-value]
    except msgspec.DecodeError as error:
        raise RecordError(f"damaged {kind.__name__}: {error}") from error


def decode_listed(values: Sequence[bytes]) -> list[ListedObject]:
    """The heads of many object records, as `decode` would read each. Raises RecordError."""
    return _heads(ListedObject, values, _listed_decoder)


def decode_versions(values: Sequence[bytes]) -> list[ListedVersion]:
    """The same, as far as listings of versions look."""
    return _heads(ListedVersion, values, _versions_decoder)


def _heads(
    kind: type[R], values: Sequence[bytes], decoder: msgspec.msgpack.Decoder[list[int | R]]
) -> list[R]:
    """All of them by one call, which costs less than a call each."""
    try:
        found = decoder.decode(_ARRAY.pack(0xDD, 2 * len(values)) + b"".join(values))
    except msgspec.DecodeError as error:
        raise RecordError(f"damaged ObjectRecord: {error}") from error
    heads = found[1::2]
    if found[::2].count(VERSION) != len(values) or set(map(type, heads)) - {kind}:
        raise RecordError(f"not a version {VERSION} ObjectRecord")
    return heads  # type: ignore[return-value]
