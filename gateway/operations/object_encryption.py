"""Encryption of objects in requests: what is asked, the data key to write or read with, the answer's
headers. The rules are in `gateway.domain.encryption`, the ciphers in `gateway.objects.encrypted`."""

import base64
import hmac
from collections.abc import Mapping
from typing import NamedTuple

from gateway.context import Context, Encryption
from gateway.domain.encryption import (
    AES256,
    BUCKET_KEY,
    CONTEXT,
    CUSTOMER_ALGORITHM,
    CUSTOMER_KEY_MD5,
    ENCRYPTION,
    HEADERS,
    KEY_ID,
    KMS,
    SOURCE,
    CustomerKey,
    Default,
    EncryptionRefused,
    Kind,
    Refusal,
    Wanted,
    customer_key,
    demand_confidential,
    demand_fitting_key,
    demand_part_key,
    refuse_on_read,
    wanted_encryption,
    wrong_key,
)
from gateway.domain.ranges import pieces_of
from gateway.kms.customer import new_customer_data_key, open_customer_data_key
from gateway.kms.port import KeyUnusable
from gateway.kms.ring import STORE_KEY
from gateway.metadata.entries import BucketEntry
from gateway.metadata.records import (
    BucketEncryption,
    EncryptionEnvelope,
    ObjectRecord,
    decode,
    encode,
)
from gateway.objects.encrypted import BlobCipher, EncryptedPiece, read_encrypted
from gateway.objects.manifest import parts_of
from gateway.s3.message import S3Request, Stream

Headers = list[tuple[str, str]]

_KEEPING_MD5 = frozenset({Kind.SSE_S3.value, Kind.AT_REST.value})


class EncryptionAsked(NamedTuple):
    """The encryption headers of a request, and how they came. They are judged only once the caller
    is known to be admitted."""

    headers: Mapping[str, str]
    secure: bool
    remote: str


class Sealed(NamedTuple):
    """How a new object is encrypted: its envelope, the same encoded, and the data key."""

    envelope: EncryptionEnvelope
    encoded: bytes
    data_key: bytes

    def __repr__(self) -> str:
        return f"Sealed({self.envelope.kind!r}, …)"

    @property
    def keeps_md5(self) -> bool:
        """See `keeps_md5`."""
        return self.envelope.kind in _KEEPING_MD5

    @property
    def cipher(self) -> BlobCipher:
        """Of the object's only blob."""
        return BlobCipher(self.data_key, b"")


def encryption_asked(
    request: S3Request, headers: Mapping[str, str] | None = None
) -> EncryptionAsked | None:
    """The encryption headers of a request (of a form: `headers`), presigned ones too; None without
    any."""
    found = request.headers if headers is None else headers
    if request.query and any(name.lower() in HEADERS for name in request.query):
        presigned = {name.lower(): value for name, value in request.query.items()}
        found = {**presigned, **found}
    if HEADERS.isdisjoint(found):
        return None
    asked = {name: found[name] for name in HEADERS if name in found}
    return EncryptionAsked(asked, request.secure, request.remote)


# Writing


async def new_encryption(
    context: Context, asked: EncryptionAsked | None, entry: BucketEntry
) -> Sealed | None:
    """A fresh data key in the form that the request, its bucket or the store wants; None for none.

    Raises EncryptionRefused and what key services raise.
    """
    wanted = wanted_by(context, asked, entry)
    return None if wanted is None else await seal(context, wanted)


def wanted_by(context: Context, asked: EncryptionAsked | None, entry: BucketEntry) -> Wanted | None:
    """The form alone. Raises EncryptionRefused."""
    rule, ports = rule_of(context, entry.record.encryption), context.encryption
    wanted = None
    if asked is not None:
        if ports is None:
            raise _not_offered()
        _demand_confidential(ports, asked)
    if asked is not None or rule is not None:
        headers = {} if asked is None else asked.headers
        wanted = wanted_encryption(headers, None if rule is None else _default(rule))
    if wanted is None and ports is not None and ports.at_rest:
        return Wanted(Kind.AT_REST)
    return wanted


def rule_of(context: Context, rule: BucketEncryption | None) -> BucketEncryption | None:
    """The rule of a bucket, or the store's where the bucket does not say how to encrypt."""
    default = context.default_encryption
    if not default or (rule is not None and rule.algorithm):
        return rule
    return BucketEncryption(algorithm=default, blocked=() if rule is None else rule.blocked)


def _default(rule: BucketEncryption) -> Default:
    return Default(rule.algorithm, rule.key_id, rule.bucket_key, rule.blocked)


def _demand_confidential(ports: Encryption, asked: EncryptionAsked) -> None:
    demand_confidential(
        asked.headers,
        secure=asked.secure,
        remote=asked.remote,
        over_http=ports.customer_keys_over_http,
    )


async def seal(context: Context, wanted: Wanted) -> Sealed:
    """A fresh data key in that form."""
    ports = context.encryption
    if ports is None:
        raise _not_offered()
    key_md5, key_id = "", wanted.key_id
    if wanted.customer is not None:
        made = new_customer_data_key(wanted.customer.key, context.randomness)
        key_md5 = wanted.customer.md5
    elif wanted.kind is Kind.SSE_KMS:
        made = await ports.kms.new_data_key(key_id, wanted.context.encode())
    else:
        key_id = STORE_KEY
        made = await ports.store_keys.new_data_key(key_id, b"")
    envelope = EncryptionEnvelope(
        kind=wanted.kind.value,
        wrapped_key=made.wrapped,
        key_id=key_id,
        key_md5=key_md5,
        context=wanted.context,
        bucket_key=wanted.bucket_key,
    )
    return Sealed(envelope, encode(envelope), made.key)


def _not_offered() -> EncryptionRefused:
    return EncryptionRefused(Refusal.NOT_OFFERED, "This server has no keys to encrypt with.")


# Reading


def envelope_of(encoded: bytes) -> EncryptionEnvelope | None:
    """The envelope in a record; None for bytes that are stored plain."""
    return decode(EncryptionEnvelope, encoded) if encoded else None


def keeps_md5(encoded: bytes) -> bool:
    """Whether ETags are made of MD5s of plain bytes, as S3 promises for SSE-S3 and no encryption
    (User Guide, "Checking object integrity"). Others are random."""
    envelope = envelope_of(encoded)
    return envelope is None or envelope.kind in _KEEPING_MD5


def hidden_etag(data_key: bytes, checksum: bytes, size_bytes: int) -> bytes:
    """An ETag that tells nothing of the bytes, for parts: the same part sent again to the same upload
    has the same one, so that a client may name the answer that it got first."""
    told = b"ostraka etag v1\x00" + size_bytes.to_bytes(8, "big") + checksum
    return hmac.digest(data_key, told, "sha256")[:16]


async def key_to_read(
    context: Context, encoded: bytes, asked: EncryptionAsked | None
) -> bytes | None:
    """The data key of a record's envelope, for a GET; None for plain bytes.

    Raises EncryptionRefused: a customer's key is missing, is another one, or has no use.
    """
    return await open_key(context, envelope_of(encoded), _reading(context, asked))


def demand_key_to_read(context: Context, encoded: bytes, asked: EncryptionAsked | None) -> None:
    """The same demands for a HEAD or the like, which opens nothing and needs no key service."""
    envelope = envelope_of(encoded)
    kind, key_md5 = (None, "") if envelope is None else (envelope.kind, envelope.key_md5)
    demand_fitting_key(kind, key_md5, _reading(context, asked))


def _reading(context: Context, asked: EncryptionAsked | None) -> CustomerKey | None:
    if asked is None:
        return None
    refuse_on_read(asked.headers)
    return _customer(context, asked, "x-amz-")


async def source_key(
    context: Context, encoded: bytes, asked: EncryptionAsked | None
) -> bytes | None:
    """The same of a copy's source."""
    customer = None if asked is None else _customer(context, asked, SOURCE)
    return await open_key(context, envelope_of(encoded), customer)


def _customer(context: Context, asked: EncryptionAsked, prefix: str) -> CustomerKey | None:
    if context.encryption is None:
        raise _not_offered()
    _demand_confidential(context.encryption, asked)
    return customer_key(asked.headers, prefix)


def demand_completion_key(
    context: Context, encoded: bytes, asked: EncryptionAsked | None, *, checksummed: bool
) -> None:
    """The completion of an upload that was begun with a checksum brings its customer's key, as
    parts do; of others it may (S3 API Reference, CompleteMultipartUpload). Raises
    EncryptionRefused."""
    if asked is None and not checksummed:
        return
    envelope = envelope_of(encoded)
    kind, key_md5 = ("", "") if envelope is None else (envelope.kind, envelope.key_md5)
    demand_part_key(kind, key_md5, part_customer(context, asked))


def part_customer(context: Context, asked: EncryptionAsked | None) -> CustomerKey | None:
    """The customer's key of a part's request."""
    return None if asked is None else _customer(context, asked, "x-amz-")


async def open_key(
    context: Context, envelope: EncryptionEnvelope | None, customer: CustomerKey | None
) -> bytes | None:
    """The data key in an envelope."""
    if envelope is None:
        demand_fitting_key(None, "", customer)
        return None
    demand_fitting_key(envelope.kind, envelope.key_md5, customer)
    ports = context.encryption
    if ports is None:
        raise _not_offered()
    if customer is not None:
        try:
            return open_customer_data_key(customer.key, envelope.wrapped_key)
        except KeyUnusable:
            raise wrong_key() from None
    keys = ports.kms if envelope.kind == Kind.SSE_KMS.value else ports.store_keys
    return await keys.open_data_key(
        envelope.key_id, envelope.wrapped_key, envelope.context.encode()
    )


async def read_opened(
    context: Context, record: ObjectRecord, data_key: bytes, offset: int, length: int
) -> bytes | Stream:
    """A range of an encrypted object's plain bytes: at once when they are at hand, else a stream
    whose start is verified."""
    if record.data is not None:
        cipher = BlobCipher(data_key, b"")
        stored = context.objects.read_now(record.data)
        if stored is not None:
            return cipher.open_all(stored)[offset : offset + length]
        pieces = [EncryptedPiece(record.data, cipher, offset, length)]
        return await read_encrypted(context.objects, pieces)
    parts = await parts_of(record, context.objects)
    pieces = []
    for number, start, count in pieces_of([part.size_bytes for part in parts], offset, length):
        part = parts[number]
        cipher = BlobCipher(data_key, part.salt)
        pieces.append(EncryptedPiece(part.data, cipher, start, count))
    return await read_encrypted(context.objects, pieces)


# Answers


def encryption_headers(encoded: bytes, *, created: bool = False) -> Headers:
    """What answers tell of an object's encryption; `created`: the answer to its making, which
    repeats the KMS context."""
    envelope = envelope_of(encoded)
    if envelope is None or envelope.kind == Kind.AT_REST.value:
        return []
    if envelope.kind == Kind.SSE_C.value:
        return [(CUSTOMER_ALGORITHM, AES256), (CUSTOMER_KEY_MD5, envelope.key_md5)]
    headers = [(ENCRYPTION, envelope.kind)]
    if envelope.kind == KMS:
        headers.append((KEY_ID, envelope.key_id))
        if created and envelope.context:
            text = base64.b64encode(envelope.context.encode()).decode()
            headers.append((CONTEXT, text))
        if envelope.bucket_key:
            headers.append((BUCKET_KEY, "true"))
    return headers
