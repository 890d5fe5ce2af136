"""Copies between forms of encryption and schemes: which share their blobs with the source, and how the
others are stored again."""

from collections.abc import Awaitable
from typing import NamedTuple

import msgspec

from gateway.context import Context
from gateway.domain.conditions import WriteConditions
from gateway.domain.encryption import Kind, Wanted
from gateway.domain.storage_classes import Kept
from gateway.kms.customer import open_customer_data_key
from gateway.kms.port import KeyUnusable
from gateway.metadata.entries import BucketEntry, Committed, ObjectEntry
from gateway.metadata.records import (
    BlobRef,
    EncryptionEnvelope,
    ObjectRecord,
)
from gateway.objects.commit import commit_blob
from gateway.objects.encrypted import plain_size_of, stage_encrypted
from gateway.objects.port import Stored
from gateway.operations.object_encryption import (
    EncryptionAsked,
    Sealed,
    envelope_of,
    seal,
    source_key,
    wanted_by,
)
from gateway.operations.put import OBJECT_SIZE_BYTES_MAX, full_object
from gateway.operations.source_body import StreamBody, open_range
from gateway.operations.storage_class import shares_scheme
from gateway.s3.checksums import ChecksumAlgorithm, Digests
from gateway.s3.errors import ErrorCode, S3Error


class Transfer(NamedTuple):
    """How a copy's bytes come to their new record: `source_key` opens an encrypted source;
    `rewrites` when they are stored again, then in the form of `wanted` (None: plain)."""

    source_key: bytes | None
    wanted: Wanted | None
    rewrites: bool


class NewCopy(NamedTuple):
    """A copy that is stored again: where to, and its record as far as it does not depend on the
    bytes."""

    entry: BucketEntry
    key: str
    previous: ObjectEntry | None
    record: ObjectRecord
    conditions: WriteConditions | None
    kept: Kept


async def judge_transfer(
    context: Context,
    asked: EncryptionAsked | None,
    source: ObjectRecord,
    entry: BucketEntry,
    kept: Kept,
) -> Transfer:
    """What the request, the destination's bucket and the source make of a copy.

    Raises EncryptionRefused, what key services raise, and InvalidRequest for a source that is too
    long to be stored again.
    """
    shares = shares_scheme(context, kept, source)
    opening: bytes | None = None
    wanted: Wanted | None = None
    if (
        asked is not None
        or source.encryption
        or entry.record.encryption is not None
        or context.encrypts_everything
    ):
        opening = await source_key(context, source.encryption, asked)
        wanted = wanted_by(context, asked, entry)
        shares = shares and shares_blobs(envelope_of(source.encryption), wanted)
    if shares:
        return Transfer(opening, wanted, rewrites=False)
    if source.size_bytes > OBJECT_SIZE_BYTES_MAX:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            "The specified copy source is larger than the maximum allowable size for a copy "
            f"source: {OBJECT_SIZE_BYTES_MAX}",
        )
    return Transfer(opening, wanted, rewrites=True)


def shares_blobs(source: EncryptionEnvelope | None, wanted: Wanted | None) -> bool:
    """Whether a copy may refer to the source's own bytes: when they are encrypted as is wanted,
    under the same key. What was encrypted unasked may stay so."""
    if source is None:
        return wanted is None
    if wanted is None:
        return source.kind == Kind.AT_REST.value
    if source.kind != wanted.kind.value:
        return False
    if wanted.customer is not None:
        try:
            open_customer_data_key(wanted.customer.key, source.wrapped_key)
        except KeyUnusable:
            return False
        return True
    if wanted.kind is Kind.SSE_KMS:
        return (source.key_id, source.context, source.bucket_key) == (
            wanted.key_id,
            wanted.context,
            wanted.bucket_key,
        )
    return True


async def store_again(
    context: Context, copy: NewCopy, source: ObjectRecord, transfer: Transfer
) -> Committed:
    """Read the source, store it as one blob in the wanted form, and publish the copy's record.
    Raises BlobDamaged when the source cannot be read, and what a PUT raises."""
    sealed = None if transfer.wanted is None else await seal(context, transfer.wanted)
    keeps_md5 = sealed is None or sealed.keeps_md5
    checksum = copy.record.checksum
    algorithm = (
        ChecksumAlgorithm.CRC64NVME if checksum is None else ChecksumAlgorithm(checksum.algorithm)
    )
    digests = Digests(algorithm, md5=keeps_md5)
    size_bytes = source.size_bytes
    body = StreamBody(await open_range(context, source, 0, size_bytes, transfer.source_key))
    scheme = copy.kept.scheme
    if sealed is None:
        staged = await context.objects.stage(body, size_bytes, digests, scheme=scheme)
    else:
        staged = await stage_encrypted(
            context.objects, body, size_bytes, digests, sealed.cipher, scheme=scheme
        )
    etag = digests.md5 if keeps_md5 else context.randomness.token(16)
    record_key = copy.entry.object_key(copy.key)

    def build(ref: BlobRef) -> ObjectRecord:
        return msgspec.structs.replace(
            copy.record,
            group=ref.blob,
            group_owner=b"",
            size_bytes=_plain_size(ref, sealed),
            etag=etag,
            etag_parts=0,
            data=ref,
            parts=(),
            manifest=None,
            checksum=full_object(digests),
            encryption=b"" if sealed is None else sealed.encoded,
        )

    def publish(record: ObjectRecord, value: bytes, stored: Stored) -> Awaitable[Committed]:
        return context.metadata.commits.commit(
            copy.entry,
            record_key,
            record,
            value=value,
            stored=stored,
            previous=copy.previous,
            conditions=copy.conditions,
        )

    return await commit_blob(context.objects, staged, record_key, build, publish, along=True)


def _plain_size(ref: BlobRef, sealed: Sealed | None) -> int:
    return ref.size_bytes if sealed is None else plain_size_of(ref)
