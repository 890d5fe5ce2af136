"""Stored records: golden bytes, round trips, foreign bytes, and the slim reader of listings."""

import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.metadata import records
from gateway.metadata.identity_records import IamRecord, PolicyVersionRecord, SessionRecord
from gateway.metadata.limit_records import QuotaRecord, StoreSettings, UsageRecord
from gateway.metadata.records import (
    AccessKeyRecord,
    AccountRecord,
    BlobRef,
    BucketEncryption,
    BucketRecord,
    Checksum,
    EncryptionEnvelope,
    GarbageRecord,
    KmsKeyRecord,
    KmsKeyVersion,
    ListedObject,
    MapCurrent,
    ObjectRecord,
    PartRecord,
    PartRef,
    Record,
    RecordError,
    UploadRecord,
    decode,
    encode,
)
from gateway.metadata.snapshots import RebuiltRecord, SnapshotPart, SnapshotState

GOLDEN = Path(__file__).parent.parent / "golden" / "records_v1.txt"
REF = BlobRef(blob=bytes(range(16)), k=4, m=2, stripe_size_bytes=1 << 20, size_bytes=70_000)
OBJECT = ObjectRecord(
    owner="000000000000",
    group=bytes(range(16)),
    size_bytes=70_000,
    etag=bytes(range(16, 32)),
    modified_ms=1_700_000_000_123,
    commit_id=b"commit-1",
    data=REF,
    checksum=Checksum(algorithm="CRC64NVME", type="FULL_OBJECT", value=bytes(8)),
    content_type="text/plain",
    headers=(("cache-control", "no-cache"),),
    metadata=(("colour", "red"),),
)
EXAMPLES: dict[str, Record] = {
    "object": OBJECT,
    "multipart object": ObjectRecord(
        owner="123456789012",
        group=b"u" * 16,
        size_bytes=10 << 20,
        etag=bytes(16),
        etag_parts=2,
        modified_ms=1,
        commit_id=b"commit-2",
        parts=(PartRef(number=1, data=REF), PartRef(number=7, data=REF, checksum=b"sum")),
        group_owner=b"o/bucket01key\x00\x01",
    ),
    "bucket": BucketRecord(bucket_id=b"bucket01", owner="000000000000", region="r", created_ms=5),
    "account": AccountRecord(
        account_id="123456789012", canonical_id="c" * 64, name="n", email="", created_ms=5
    ),
    "access key": AccessKeyRecord(
        access_key="AKIA", account_id="1", sealed_secret=b"s", sealing_key="k", created_ms=5
    ),
    "access key of a user": AccessKeyRecord(
        access_key="AKIA",
        account_id="1",
        sealed_secret=b"s",
        sealing_key="k",
        created_ms=5,
        user_id="AIDA1",
        active=False,
    ),
    "user": IamRecord(
        kind="u",
        unique_id="AIDA1",
        name="Bob",
        path="/team/",
        created_ms=5,
        inline=(("read", b"packed"),),
        attached=("ANPA1", "arn:aws:iam::aws:policy/ReadOnlyAccess"),
        groups=("AGPA1",),
        access_keys=("AKIA",),
        tags=(("a", "b"),),
    ),
    "role": IamRecord(
        kind="r",
        unique_id="AROA1",
        name="writer",
        path="/",
        created_ms=6,
        document=b"trust",
        description="writes",
        session_seconds_max=7200,
    ),
    "managed policy": IamRecord(
        kind="p",
        unique_id="ANPA1",
        name="shared",
        path="/",
        created_ms=7,
        document=b"says",
        tags=(("a", "b"),),
        version=3,
        version_created_ms=9,
        versions=(PolicyVersionRecord(number=1, created_ms=7, document=b"said"),),
        versions_made=4,
    ),
    "snapshot part": SnapshotPart(
        cluster_id=b"c" * 16,
        incarnation=1,
        chain=b"n" * 16,
        number=3,
        part=7,
        kind="pages",
        first_revision=90,
        last_revision=120,
        whole=False,
        as_of_ms=1_700_000_000_123,
        keys=2,
        digest=b"d" * 16,
        before=b"b" * 16,
        changes_before=b"l" * 16,
        data=REF,
    ),
    "snapshot state": SnapshotState(
        chain=b"n" * 16,
        number=3,
        started_ms=1,
        logged=90,
        logged_ms=2,
        parts=7,
        cursor=b"o/key",
        paged=True,
        paged_revision=120,
        whole=True,
        before=b"b" * 16,
        changes_before=b"l" * 16,
        alone=False,
        complete_ms=3,
        kept=(2, 3),
        keys=700,
        size_bytes=9000,
        log_size_bytes=100,
    ),
    "rebuilt": RebuiltRecord(
        running=False, incarnation=2, number=3, revision=120, as_of_ms=1_700_000_000_123
    ),
    "session": SessionRecord(
        account_id="1",
        entity_id="AROA1",
        secret="secret",
        expires_ms=7,
        name="nightly",
        policy=b"packed",
    ),
    "upload": UploadRecord(upload_id=b"u" * 16, owner="1", initiator="1", created_ms=5),
    "part": PartRecord(data=REF, etag=bytes(16), modified_ms=1, commit_id=b"commit-3"),
    "garbage": GarbageRecord(commit_id=b"commit-1", queued_ms=9, blobs=(REF,), group=b"g" * 16),
    "map": MapCurrent(epoch=3),
    "encryption envelope": EncryptionEnvelope(
        kind="aws:kms",
        wrapped_key=bytes(range(64)),
        key_id="team/a",
        context='{"a":"b"}',
        bucket_key=True,
    ),
    "encrypted part": PartRecord(
        data=REF,
        etag=bytes(16),
        modified_ms=1,
        commit_id=b"commit-4",
        salt=bytes(range(16)),
        encryption=b"envelope",
    ),
    "encrypting bucket": BucketRecord(
        bucket_id=b"bucket02",
        owner="000000000000",
        region="r",
        created_ms=5,
        encryption=BucketEncryption(algorithm="aws:kms", key_id="team/a", blocked=("SSE-C",)),
    ),
    "bucket of a browser": BucketRecord(
        bucket_id=b"bucket03", owner="000000000000", region="r", created_ms=5, cors=b"packed"
    ),
    "bucket with rules": BucketRecord(
        bucket_id=b"bucket04", owner="000000000000", region="r", created_ms=5, lifecycle=b"packed"
    ),
    "bucket with a website": BucketRecord(
        bucket_id=b"bucket05", owner="000000000000", region="r", created_ms=5, website=b"packed"
    ),
    "bucket with a scheme": BucketRecord(
        bucket_id=b"bucket06", owner="000000000000", region="r", created_ms=5, scheme=(8, 3)
    ),
    "object of a class": msgspec.structs.replace(OBJECT, storage_class="COLD", scheme=(8, 3)),
    "upload of a class": UploadRecord(
        upload_id=b"u" * 16,
        owner="1",
        initiator="1",
        created_ms=5,
        storage_class="COLD",
        scheme=(8, 3),
    ),
    "object that was held": msgspec.structs.replace(OBJECT, hold_lifted=True),
    "upload that lifts": UploadRecord(
        upload_id=b"u" * 16, owner="1", initiator="1", created_ms=5, hold_lifted=True
    ),
    "quota": QuotaRecord(name="bucket", size_bytes_max=10 << 30),
    "usage": UsageRecord(
        bucket="bucket",
        owner="000000000000",
        revision=7,
        counted_ms=5,
        objects=1,
        size_bytes=2,
        noncurrent=3,
        noncurrent_bytes=4,
        parts=5,
        parts_bytes=6,
    ),
    "settings": StoreSettings(default_encryption="AES256", bucket_metrics=20),
    "master key": KmsKeyRecord(
        key_id="team/a",
        created_ms=5,
        versions=(KmsKeyVersion(sealed=bytes(60), sealing_key="cluster-1", created_ms=5),),
    ),
}


def golden() -> dict[str, bytes]:
    lines = [line.rsplit(" ", 1) for line in GOLDEN.read_text().splitlines() if line]
    return {name: bytes.fromhex(data) for name, data in lines}


@pytest.mark.parametrize("name", EXAMPLES)
def test_bytes_written_by_the_first_release_are_still_read(name: str) -> None:
    assert decode(type(EXAMPLES[name]), golden()[name]) == EXAMPLES[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_records_round_trip(name: str) -> None:
    assert decode(type(EXAMPLES[name]), encode(EXAMPLES[name])) == EXAMPLES[name]


def test_a_plain_object_is_small() -> None:
    assert len(encode(OBJECT)) < 250


def test_a_newer_or_foreign_record_is_refused() -> None:
    data = encode(OBJECT)
    for foreign in (b"", bytes([records.VERSION + 1]) + data[1:], data[:-1], b"\x01\xc1"):
        with pytest.raises(RecordError):
            decode(ObjectRecord, foreign)
    with pytest.raises(RecordError):
        decode(ObjectRecord, data + b"\x00")


def test_fields_of_a_later_minor_release_are_passed_over() -> None:
    items = msgspec.msgpack.decode(encode(OBJECT)[1:])
    extended = bytes([records.VERSION]) + msgspec.msgpack.encode([*items, "new"])
    assert decode(ObjectRecord, extended) == OBJECT


@given(st.binary(max_size=60))
def test_random_bytes_never_do_worse_than_a_record_error(data: bytes) -> None:
    with contextlib.suppress(RecordError):
        decode(ObjectRecord, data)


@pytest.mark.parametrize("name", ["object", "multipart object"])
def test_the_listing_reads_the_same_values(name: str) -> None:
    whole = EXAMPLES[name]
    assert isinstance(whole, ObjectRecord)
    listed = decode(ListedObject, encode(whole))
    assert (listed.owner, listed.size_bytes, listed.etag, listed.etag_parts) == (
        whole.owner,
        whole.size_bytes,
        whole.etag,
        whole.etag_parts,
    )
    assert listed.modified_ms == whole.modified_ms
    assert (listed.checksum and listed.checksum.algorithm) == (
        whole.checksum and whole.checksum.algorithm
    )


def test_the_listing_names_the_head_of_the_object_record() -> None:
    head = ObjectRecord.__struct_fields__[: len(ListedObject.__struct_fields__)]
    assert ListedObject.__struct_fields__ == head
