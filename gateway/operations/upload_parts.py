"""What UploadPart and UploadPartCopy share: which upload, which number, and storing a part."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gateway.context import Context
from gateway.domain.encryption import demand_part_key
from gateway.domain.multipart import PART_NUMBER_MAX
from gateway.domain.quotas import Amount
from gateway.domain.storage_classes import scheme_named
from gateway.metadata import keys, upload_commits, uploads
from gateway.metadata.entries import BucketEntry
from gateway.metadata.errors import QuotaExceeded, RelianceBroken
from gateway.metadata.records import BlobRef, PartRecord, UploadRecord, decode, encode
from gateway.metadata.uploads import COMPLETING, DONE, OPEN, UploadEntry
from gateway.objects.commit import commit_blob
from gateway.objects.encrypted import SALT_SIZE_BYTES, BlobCipher, stage_encrypted
from gateway.objects.port import Stored
from gateway.operation import principal_of
from gateway.operations.object_encryption import (
    EncryptionAsked,
    envelope_of,
    hidden_etag,
    keeps_md5,
    open_key,
    part_customer,
)
from gateway.s3.checksums import ChecksumAlgorithm, ChecksumType, Digests
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.message import Body, Principal, S3Request
from placement.ids import GroupId

DEFAULT_ALGORITHM = ChecksumAlgorithm.CRC64NVME
"""Computed over every part of an upload that names none, so that the object has a checksum."""
STALE_COMPLETION_MS = 60_000
"""A completion that has not ended by then was cut off: a further part reopens the upload."""


@dataclass(frozen=True, slots=True)
class UploadNamed:
    """An upload as a request names it."""

    bucket: str
    key: str
    upload_id: str
    principal: Principal


@dataclass(frozen=True, slots=True)
class NewPart:
    """A part that is stored."""

    record: PartRecord
    upload: UploadRecord


def upload_named(request: S3Request) -> UploadNamed:
    """The upload of a request with an uploadId argument."""
    assert request.bucket is not None
    assert request.key is not None
    return UploadNamed(
        request.bucket, request.key, request.query["uploadId"], principal_of(request)
    )


def part_number(request: S3Request) -> int:
    """The partNumber argument; InvalidArgument unless it is 1 to 10,000."""
    text = request.query["partNumber"]
    if text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= PART_NUMBER_MAX:
        return int(text)
    raise invalid_argument(
        "partNumber",
        text,
        f"Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive",
    )


def no_such_upload(named: UploadNamed) -> S3Error:
    """The answer for an upload that never was, was aborted, or is completed."""
    return S3Error(ErrorCode.NO_SUCH_UPLOAD, details={"UploadId": named.upload_id})


async def find_unfinished(context: Context, named: UploadNamed) -> tuple[BucketEntry, UploadEntry]:
    """The upload, open or completing. Raises NoSuchUpload, NoSuchBucket, NotBucketOwner."""
    bucket = await context.metadata.bucket(named.bucket, named.principal)
    upload_id = uploads.parse_upload_id(named.upload_id)
    if upload_id is None:
        raise no_such_upload(named)
    upload, _ = await uploads.find(context.metadata, bucket, named.key, upload_id)
    if upload is None or upload.record.state == DONE:
        raise no_such_upload(named)
    return bucket, upload


async def find_open(context: Context, named: UploadNamed) -> tuple[BucketEntry, UploadEntry]:
    """The upload, open for parts. OperationAborted while a completion is under way; one that was
    cut off is undone."""
    bucket, upload = await find_unfinished(context, named)
    if upload.record.state == COMPLETING:
        age_ms = context.clock.now_ns() // 1_000_000 - upload.record.completing_ms
        reopened = None
        if age_ms >= STALE_COMPLETION_MS:
            reopened = await upload_commits.reopen(context.metadata, upload)
        if reopened is None:
            raise S3Error(ErrorCode.OPERATION_ABORTED)
        upload = reopened
    assert upload.record.state == OPEN
    return bucket, upload


def algorithm_of(upload: UploadRecord) -> ChecksumAlgorithm:
    """The checksum that every part of the upload gets."""
    return (
        ChecksumAlgorithm(upload.checksum_algorithm)
        if upload.checksum_algorithm
        else DEFAULT_ALGORITHM
    )


def checksum_type_of(upload: UploadRecord) -> ChecksumType:
    """What the checksum of the upload's object covers."""
    return ChecksumType(upload.checksum_type) if upload.checksum_type else ChecksumType.FULL_OBJECT


def shown_checksum(upload: UploadRecord, part: PartRecord) -> tuple[ChecksumAlgorithm, bytes]:
    """The checksum that answers tell of a part: the client's own, if it sent one."""
    if part.declared_algorithm:
        return ChecksumAlgorithm(part.declared_algorithm), part.declared
    return algorithm_of(upload), part.checksum


async def key_for_part(
    context: Context, upload: UploadRecord, asked: EncryptionAsked | None
) -> bytes | None:
    """The upload's data key; None when its parts are stored plain. A part of an upload with a
    customer's key must bring the same one. Raises EncryptionRefused."""
    if not upload.encryption and asked is None:
        return None
    envelope = envelope_of(upload.encryption)
    customer = part_customer(context, asked)
    if envelope is None:
        demand_part_key("", "", customer)
        return None
    demand_part_key(envelope.kind, envelope.key_md5, customer)
    return await open_key(context, envelope, customer)


class PartDigests:
    """The digests of a part: what the client's body demands, and the upload's checksum, when that is
    another one."""

    def __init__(self, asked: Digests, algorithm: ChecksumAlgorithm) -> None:
        self._asked = asked
        self._own = None if asked.algorithm is algorithm else Digests(algorithm, md5=False)

    def update_md5(self, buffer: memoryview) -> None:
        """Feed MD5."""
        self._asked.update_md5(buffer)

    def update_rest(self, buffer: memoryview) -> None:
        """Feed every other algorithm."""
        self._asked.update_rest(buffer)
        if self._own is not None:
            self._own.update_rest(buffer)

    @property
    def etag(self) -> bytes:
        """MD5 of the part."""
        return self._asked.md5

    @property
    def checksum(self) -> bytes:
        """Of the upload's algorithm."""
        value = (self._own or self._asked).checksum
        assert value is not None
        return value

    @property
    def declared(self) -> tuple[str, bytes]:
        """Name and value of the client's checksum, when it is not the upload's; else ("", b"")."""
        value = self._asked.checksum
        if self._own is None or self._asked.algorithm is None or value is None:
            return "", b""
        return self._asked.algorithm.text, value


async def _demand_room(
    context: Context, bucket: BucketEntry, upload: UploadEntry, number: int, size_bytes: int
) -> None:
    """Before the part is received. The one that it replaces is only looked at where it matters."""
    quotas = context.metadata.quotas
    try:
        quotas.demand(bucket, Amount(size_bytes))
    except QuotaExceeded:
        key = keys.part(upload.upload_id, number)
        (found,) = await context.metadata.metastore.get_many((key,))
        if found is None:
            raise
        replaced = decode(PartRecord, found.value)
        quotas.demand(bucket, Amount(size_bytes - replaced.size_bytes))


async def store_part(
    context: Context,
    named: UploadNamed,
    found: tuple[BucketEntry, UploadEntry],
    number: int,
    body: Body,
    asked: Digests,
    verify: Callable[[], None],
    data_key: bytes | None,
) -> NewPart:
    """Receive a part, `verify` it, make it durable and the upload's part of that number.
    `data_key` as `key_for_part` gives it."""
    bucket, upload = found
    if context.metadata.quotas.active:
        await _demand_room(context, bucket, upload, number, body.size_bytes)
    digests = PartDigests(asked, algorithm_of(upload.record))
    group, salt = GroupId(upload.upload_id), b""
    scheme = scheme_named(upload.record.scheme)
    if data_key is None:
        staged = await context.objects.stage(
            body, body.size_bytes, digests, group=group, scheme=scheme
        )
    else:
        salt = context.randomness.token(SALT_SIZE_BYTES)
        cipher = BlobCipher(data_key, salt)
        staged = await stage_encrypted(
            context.objects, body, body.size_bytes, digests, cipher, group=group, scheme=scheme
        )
    try:
        verify()
    except S3Error:
        await context.objects.discard(staged)
        raise
    checksum = digests.checksum
    if keeps_md5(upload.record.encryption):
        etag = digests.etag
    else:
        assert data_key is not None
        etag = hidden_etag(data_key, checksum, body.size_bytes)
    declared_algorithm, declared = digests.declared
    commit_id = context.randomness.token(8)
    now_ms = context.clock.now_ns() // 1_000_000

    def build(ref: BlobRef) -> PartRecord:
        return PartRecord(
            data=ref,
            etag=etag,
            modified_ms=now_ms,
            commit_id=commit_id,
            checksum=checksum,
            number=number,
            declared_algorithm=declared_algorithm,
            declared=declared,
            salt=salt,
            encryption=upload.record.encryption,
        )

    async def publish(part: PartRecord, value: bytes, stored: Stored) -> PartRecord:
        if stored.narrow:
            part = msgspec.structs.replace(part, narrow=True)
            value = encode(part)
        await upload_commits.commit_part(
            context.metadata,
            bucket,
            upload,
            number,
            part,
            value=value,
            stored=stored,
            now_ms=now_ms,
        )
        return part

    try:
        part = await commit_blob(context.objects, staged, upload.key, build, publish)
    except RelianceBroken as error:
        if error.key != upload.key:
            raise
        await find_open(context, named)  # says what became of the upload
        raise S3Error(ErrorCode.OPERATION_ABORTED) from error
    return NewPart(part, upload.record)
