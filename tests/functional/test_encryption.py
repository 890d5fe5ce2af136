"""Server-side encryption over HTTP: every form, ranges, multipart, copies, and the documented errors."""

import base64
import hashlib
import json
import secrets
import shutil
import threading
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.functional.conftest import error_of
from tests.functional.store_process import StoreProcess
from tests.functional.test_bodies import put as put_chunked
from tests.unit.vault_double import TOKEN, Double

MIB = 1 << 20
PART = 5 * MIB + 123
KMS = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "test/one"}
S3 = {"ServerSideEncryption": "AES256"}


def customer(seed: str = "key") -> dict[str, str]:
    """boto3's SSE-C arguments."""
    return {
        "SSECustomerAlgorithm": "AES256",
        "SSECustomerKey": hashlib.sha256(seed.encode()).hexdigest()[:32],
    }


def encoded(arguments: dict[str, str]) -> dict[str, str]:
    """SSE-C arguments for the calls of which boto3 does not encode them."""
    if not arguments:
        return {}
    key = arguments["SSECustomerKey"].encode()
    return {
        "SSECustomerAlgorithm": "AES256",
        "SSECustomerKey": base64.b64encode(key).decode(),
        "SSECustomerKeyMD5": base64.b64encode(hashlib.md5(key).digest()).decode(),
    }


def source(seed: str = "key") -> dict[str, str]:
    """The same for a copy's source."""
    return {f"CopySource{name}": value for name, value in customer(seed).items()}


def raw_customer(key: bytes = b"k" * 32) -> dict[str, str]:
    """SSE-C as headers."""
    prefix = "x-amz-server-side-encryption-customer-"
    return {
        f"{prefix}algorithm": "AES256",
        f"{prefix}key": base64.b64encode(key).decode(),
        f"{prefix}key-md5": base64.b64encode(hashlib.md5(key).digest()).decode(),
    }


@pytest.fixture(scope="module", autouse=True)
def keys(store: StoreProcess) -> None:
    """Two master keys."""
    for name in ("test/one", "test/two"):
        store.admin("kms-key", "create", name)


def told(answer: dict[str, Any]) -> tuple[Any, ...]:
    """What an answer says of encryption."""
    names = ("ServerSideEncryption", "SSEKMSKeyId", "SSECustomerAlgorithm")
    return tuple(answer.get(name) for name in names)


FORMS = {
    "sse-s3": (S3, {}, ("AES256", None, None)),
    "sse-kms": (KMS, {}, ("aws:kms", "test/one", None)),
    "sse-c": (customer(), customer(), (None, None, "AES256")),
}
form = pytest.mark.parametrize(("write", "read", "shown"), FORMS.values(), ids=FORMS)


@form
@pytest.mark.parametrize("size", [0, 1, 65_519, 65_520, 65_521, 300_000, 2 * MIB + 7])
def test_an_object_comes_back_whole_and_in_ranges(
    s3: Any, bucket: str, write: Any, read: Any, shown: Any, size: int
) -> None:
    data = secrets.token_bytes(size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=data, **write)
    assert told(put) == shown
    got = s3.get_object(Bucket=bucket, Key="k", **read)
    assert told(got) == shown
    assert got["ContentLength"] == size
    assert got["Body"].read() == data
    head = s3.head_object(Bucket=bucket, Key="k", **read)
    assert (told(head), head["ContentLength"]) == (shown, size)
    assert head["ETag"] == put["ETag"]
    is_md5 = head["ETag"].strip('"') == hashlib.md5(data).hexdigest()
    assert is_md5 == (shown[0] == "AES256")
    for first, last in ((0, 0), (65_519, 65_520), (1, 131_100), (size - 3, size - 1)):
        if 0 <= first <= last < size:
            part = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={first}-{last}", **read)
            assert part["Body"].read() == data[first : last + 1]
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert [item["Size"] for item in listed] == [size]


@form
def test_a_multipart_upload_is_encrypted_part_by_part(
    s3: Any, bucket: str, write: Any, read: Any, shown: Any
) -> None:
    data = secrets.token_bytes(2 * PART + 1000)
    begun = s3.create_multipart_upload(Bucket=bucket, Key="k", **write)
    assert told(begun) == shown
    named = {"Bucket": bucket, "Key": "k", "UploadId": begun["UploadId"]}
    parts = []
    for number in (1, 2, 3):
        piece = data[(number - 1) * PART : number * PART]
        done = s3.upload_part(PartNumber=number, Body=piece, **named, **read)
        assert told(done) in (shown, (shown[0], shown[1], shown[2]))
        parts.append({"PartNumber": number, "ETag": done["ETag"]})
    sizes = [part["Size"] for part in s3.list_parts(**named)["Parts"]]
    assert sizes == [PART, PART, 1000]
    completed = s3.complete_multipart_upload(
        MultipartUpload={"Parts": parts}, **named, **encoded(read)
    )
    assert told(completed)[:2] == shown[:2]
    got = s3.get_object(Bucket=bucket, Key="k", **read)
    assert got["Body"].read() == data
    assert told(got) == shown
    for first, last in ((PART - 5, PART + 5), (PART - 70_000, 2 * PART + 17), (2 * PART, 2 * PART)):
        part = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={first}-{last}", **read)
        assert part["Body"].read() == data[first : last + 1]
    second = s3.get_object(Bucket=bucket, Key="k", PartNumber=2, **read)
    assert second["Body"].read() == data[PART : 2 * PART]
    attributes = s3.get_object_attributes(
        Bucket=bucket, Key="k", ObjectAttributes=["ObjectParts", "ObjectSize"], **encoded(read)
    )
    assert attributes["ObjectSize"] == len(data)
    assert attributes["ObjectParts"]["TotalPartsCount"] == 3


def test_nothing_of_an_encrypted_object_lies_on_the_drives(
    s3: Any, bucket: str, store: StoreProcess
) -> None:
    mark = b"never in the clear " * 10_000
    s3.put_object(Bucket=bucket, Key="large", Body=mark * 8, **S3)
    s3.put_object(Bucket=bucket, Key="small", Body=mark[:1000], **customer())
    for path in store.directory.rglob("*"):
        if path.is_file():
            assert mark[:500] not in path.read_bytes(), path


def test_a_read_needs_the_customers_key(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"secret", **customer())
    named = {"Bucket": bucket, "Key": "k"}
    assert error_of(s3.get_object, **named) == ("InvalidRequest", 400)
    assert error_of(s3.head_object, **named) == ("400", 400)
    assert error_of(s3.get_object_attributes, ObjectAttributes=["ETag"], **named)[1] == 400
    assert error_of(s3.get_object, **named, **customer("other")) == ("AccessDenied", 403)
    s3.put_object(Bucket=bucket, Key="plain", Body=b"plain")
    asked = {"Bucket": bucket, "Key": "plain", **customer()}
    assert error_of(s3.get_object, **asked) == ("InvalidRequest", 400)


def sent(s3: Any, operation: str, headers: dict[str, str], **arguments: Any) -> tuple[str, int]:
    """The refusal of a call with these headers added."""

    def add(params: Any, **_: Any) -> None:
        params["headers"].update(headers)

    event = f"before-call.s3.{operation}"
    s3.meta.events.register(event, add)
    try:
        method = {"PutObject": s3.put_object, "GetObject": s3.get_object}[operation]
        return error_of(method, **arguments)
    finally:
        s3.meta.events.unregister(event, add)


SSE = "x-amz-server-side-encryption"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({SSE: "AES512"}, "InvalidArgument"),
        ({SSE: "aws:kms:dsse"}, "NotImplemented"),
        ({SSE: "aws:kms", f"{SSE}-aws-kms-key-id": "no-such-key"}, "KMS.NotFoundException"),
        ({SSE: "aws:kms"}, "KMS.NotFoundException"),
        ({f"{SSE}-aws-kms-key-id": "test/one"}, "InvalidArgument"),
        ({SSE: "AES256", f"{SSE}-aws-kms-key-id": "test/one"}, "InvalidArgument"),
        ({SSE: "AES256", **raw_customer()}, "InvalidArgument"),
        ({SSE: "aws:kms", f"{SSE}-context": "bm8ganNvbg=="}, "InvalidArgument"),
        (raw_customer(b"short"), "InvalidArgument"),
        (
            raw_customer() | {f"{SSE}-customer-key-md5": "AAAAAAAAAAAAAAAAAAAAAA=="},
            "InvalidArgument",
        ),
        (
            raw_customer() | {f"{SSE}-customer-algorithm": "AES192"},
            "InvalidEncryptionAlgorithmError",
        ),
        ({f"{SSE}-customer-algorithm": "AES256"}, "InvalidArgument"),
    ],
)
def test_malformed_or_contradictory_headers_are_refused(
    s3: Any, bucket: str, headers: dict[str, str], code: str
) -> None:
    status = 501 if code == "NotImplemented" else 400
    answer = sent(s3, "PutObject", headers, Bucket=bucket, Key="k", Body=b"x")
    assert answer == (code, status)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_reads_name_no_method(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **S3)
    answer = sent(s3, "GetObject", {SSE: "AES256"}, Bucket=bucket, Key="k")
    assert answer == ("InvalidArgument", 400)


def test_parts_bring_the_uploads_own_key(s3: Any, bucket: str) -> None:
    begun = s3.create_multipart_upload(Bucket=bucket, Key="k", **customer())
    part = {
        "Bucket": bucket, "Key": "k", "UploadId": begun["UploadId"], "PartNumber": 1, "Body": b"x"
    }  # fmt: skip
    assert error_of(s3.upload_part, **part) == ("InvalidRequest", 400)
    assert error_of(s3.upload_part, **part, **customer("other")) == ("InvalidRequest", 400)
    first = s3.upload_part(**part, **customer())
    assert s3.upload_part(**part, **customer())["ETag"] == first["ETag"]
    plain = s3.create_multipart_upload(Bucket=bucket, Key="k")
    part["UploadId"] = plain["UploadId"]
    assert error_of(s3.upload_part, **part, **customer()) == ("InvalidRequest", 400)


def test_a_buckets_rule_encrypts_what_says_nothing(s3: Any, bucket: str) -> None:
    def rule(algorithm: str, **more: Any) -> dict[str, Any]:
        default = {"SSEAlgorithm": algorithm, **more}
        return {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}

    def put(configuration: dict[str, Any]) -> None:
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=configuration)

    put(rule("AES256"))
    assert told(s3.put_object(Bucket=bucket, Key="a", Body=b"a"))[0] == "AES256"
    put(rule("aws:kms", KMSMasterKeyID="test/two"))
    shown = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
    by_default = shown["Rules"][0]["ApplyServerSideEncryptionByDefault"]
    assert by_default == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "test/two"}
    assert told(s3.put_object(Bucket=bucket, Key="b", Body=b"b"))[:2] == ("aws:kms", "test/two")
    assert told(s3.head_object(Bucket=bucket, Key="b"))[:2] == ("aws:kms", "test/two")
    assert told(s3.put_object(Bucket=bucket, Key="c", Body=b"c", **S3))[0] == "AES256"
    s3.delete_bucket_encryption(Bucket=bucket)
    assert told(s3.put_object(Bucket=bucket, Key="d", Body=b"d")) == (None, None, None)
    code = "ServerSideEncryptionConfigurationNotFoundError"
    assert error_of(s3.get_bucket_encryption, Bucket=bucket) == (code, 404)
    for key in "abcd":
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    with pytest.raises(ClientError):
        put(rule("AES512"))
    with pytest.raises(ClientError):
        put(rule("AES256", KMSMasterKeyID="test/two"))


def test_a_bucket_may_block_customers_keys(s3: Any, bucket: str) -> None:
    rule = {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"},
        "BlockedEncryptionTypes": {"EncryptionType": ["SSE-C"]},
    }
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    put = {"Bucket": bucket, "Key": "k", "Body": b"x"}
    assert error_of(s3.put_object, **put, **customer()) == ("AccessDenied", 403)
    s3.put_object(**put)


WRITES: dict[str, tuple[dict[str, str], dict[str, str], dict[str, str]]] = {
    "plain": ({}, {}, {}),
    "sse-s3": (S3, {}, {}),
    "sse-kms": (KMS, {}, {}),
    "sse-kms-two": (KMS | {"SSEKMSKeyId": "test/two"}, {}, {}),
    "sse-c": (customer(), customer(), source()),
    "sse-c-two": (customer("two"), customer("two"), source("two")),
}


@pytest.mark.parametrize("target", WRITES)
@pytest.mark.parametrize("origin", WRITES)
def test_copies_go_between_all_forms(s3: Any, bucket: str, origin: str, target: str) -> None:
    data = secrets.token_bytes(70_001)
    write, _, opening = WRITES[origin]
    s3.put_object(
        Bucket=bucket, Key="from", Body=data, Metadata={"a": "b"}, ContentType="x/y", **write
    )
    again, read_again, _ = WRITES[target]
    named = {"Bucket": bucket, "CopySource": f"{bucket}/from"}
    copied = s3.copy_object(Key="to", **named, **again, **opening)
    assert told(copied)[0] == again.get("ServerSideEncryption")
    s3.delete_object(Bucket=bucket, Key="from")
    got = s3.get_object(Bucket=bucket, Key="to", **read_again)
    assert got["Body"].read() == data
    assert (got["Metadata"], got["ContentType"]) == ({"a": "b"}, "x/y")
    assert got["ETag"] == copied["CopyObjectResult"]["ETag"]


def test_a_copy_onto_itself_changes_the_encryption(s3: Any, bucket: str) -> None:
    data = secrets.token_bytes(MIB)
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    named = {"Bucket": bucket, "Key": "k", "CopySource": f"{bucket}/k"}
    assert error_of(s3.copy_object, **named) == ("InvalidRequest", 400)
    s3.copy_object(**named, **KMS)
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (told(got)[0], got["Body"].read()) == ("aws:kms", data)


def test_a_copys_source_needs_its_key(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **customer())
    named = {"Bucket": bucket, "Key": "to", "CopySource": f"{bucket}/k"}
    assert error_of(s3.copy_object, **named) == ("InvalidRequest", 400)
    assert error_of(s3.copy_object, **named, **source("other")) == ("AccessDenied", 403)


def test_parts_are_copied_from_encrypted_objects(s3: Any, bucket: str) -> None:
    data = secrets.token_bytes(6 * MIB)
    s3.put_object(Bucket=bucket, Key="from", Body=data, **customer())
    begun = s3.create_multipart_upload(
        Bucket=bucket, Key="to", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT",
        **customer("two"),
    )  # fmt: skip
    named = {"Bucket": bucket, "Key": "to", "UploadId": begun["UploadId"]}
    parts = []
    for number, (first, last) in enumerate(((100, 5 * MIB + 99), (5 * MIB, 6 * MIB - 1)), 1):
        copied = s3.upload_part_copy(
            PartNumber=number, CopySource=f"{bucket}/from", CopySourceRange=f"bytes={first}-{last}",
            **named, **customer("two"), **source(),
        )  # fmt: skip
        parts.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
    done = {"MultipartUpload": {"Parts": parts}, **named}
    assert error_of(s3.complete_multipart_upload, **done) == ("InvalidRequest", 400)
    wrong = encoded(customer())
    assert error_of(s3.complete_multipart_upload, **done, **wrong) == ("InvalidRequest", 400)
    s3.complete_multipart_upload(**done, **encoded(customer("two")))
    got = s3.get_object(Bucket=bucket, Key="to", **customer("two"))["Body"].read()
    assert got == data[100 : 5 * MIB + 100] + data[5 * MIB :]


def test_an_upload_without_a_checksum_is_completed_without_its_customers_key(
    s3: Any, bucket: str
) -> None:
    begun = s3.create_multipart_upload(Bucket=bucket, Key="to", **customer())
    named = {"Bucket": bucket, "Key": "to", "UploadId": begun["UploadId"]}
    part = s3.upload_part(PartNumber=1, Body=b"secret", **named, **customer())
    done = {"MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}, **named}
    wrong = encoded(customer("two"))
    assert error_of(s3.complete_multipart_upload, **done, **wrong) == ("InvalidRequest", 400)
    s3.complete_multipart_upload(**done)
    assert s3.get_object(Bucket=bucket, Key="to", **customer())["Body"].read() == b"secret"


def test_old_versions_of_a_master_key_still_open(s3: Any, bucket: str, store: StoreProcess) -> None:
    s3.put_object(Bucket=bucket, Key="old", Body=b"old", **KMS)
    versions = store.admin("kms-key", "rotate", "test/one")["versions"]
    s3.put_object(Bucket=bucket, Key="new", Body=b"new", **KMS)
    listed = {key["key_id"]: key["versions"] for key in store.admin("kms-key", "list")}
    assert listed["test/one"] == versions >= 2
    for key in ("old", "new"):
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()


def test_a_kms_context_is_bound_and_repeated(s3: Any, bucket: str) -> None:
    context = base64.b64encode(b'{"team": "a"}').decode()
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x", SSEKMSEncryptionContext=context, **KMS)
    assert base64.b64decode(put["SSEKMSEncryptionContext"]) == b'{"team":"a"}'
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_forms_may_ask_for_encryption(s3: Any, bucket: str) -> None:
    fields = {SSE: "AES256"}
    post = s3.generate_presigned_post(bucket, "k", Fields=fields, Conditions=[fields])
    for size in (10, 3 * MIB):
        data = secrets.token_bytes(size)
        answer = httpx.post(
            post["url"], data=post["fields"], files={"file": ("f", data)}, timeout=30
        )
        assert (answer.status_code, answer.headers[SSE]) == (204, "AES256")
        got = s3.get_object(Bucket=bucket, Key="k")
        assert (told(got)[0], got["Body"].read()) == ("AES256", data)


def test_a_presigned_url_carries_a_customers_key(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"secret", **customer())
    arguments = {"Bucket": bucket, "Key": "k", **customer()}
    url = s3.generate_presigned_url("get_object", arguments)
    key = customer()["SSECustomerKey"].encode()
    assert httpx.get(url, headers=raw_customer(key), timeout=30).content == b"secret"


def test_a_store_may_encrypt_everything_at_rest_and_lose_drives(directory: Path) -> None:
    store = StoreProcess(directory, ("--encrypt-at-rest",))
    try:
        s3 = store.start().client()
        s3.create_bucket(Bucket="rest")
        mark = b"never in the clear " * 60_000
        put = s3.put_object(Bucket="rest", Key="a", Body=mark)
        assert told(put) == (None, None, None)
        assert put["ETag"].strip('"') == hashlib.md5(mark).hexdigest()
        s3.put_object(Bucket="rest", Key="asked", Body=mark, **S3)
        s3.copy_object(Bucket="rest", Key="b", CopySource="rest/a")
        s3.put_object(Bucket="rest", Key="small", Body=mark[:500], **customer())
        assert store.stop() == 0
        for path in directory.rglob("*"):
            if path.is_file():
                assert mark[:500] not in path.read_bytes(), path
        for number in (1, 2):
            shutil.rmtree(directory / f"drive{number}")
        store.options = ()
        s3 = store.start().client()
        for key in ("a", "b"):  # the keys outlive the processes and the option
            got = s3.get_object(Bucket="rest", Key=key)
            assert (told(got), got["Body"].read()) == ((None, None, None), mark)
        assert told(s3.head_object(Bucket="rest", Key="asked"))[0] == "AES256"
        small = s3.get_object(Bucket="rest", Key="small", **customer())
        assert small["Body"].read() == mark[:500]
        part = s3.get_object(Bucket="rest", Key="asked", Range="bytes=65000-1100000")
        assert part["Body"].read() == mark[65_000:1_100_001]
        assert store.admin("kms-key", "rotate", "ostraka/sse-s3")["versions"] == 2
        assert s3.get_object(Bucket="rest", Key="a")["Body"].read() == mark
    finally:
        store.kill()


def test_versions_keep_their_own_encryption(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    writes = [({}, {}), (S3, {}), (KMS, {}), (customer(), customer())]
    versions = [
        s3.put_object(Bucket=bucket, Key="k", Body=f"{number}".encode(), **write)["VersionId"]
        for number, (write, _) in enumerate(writes)
    ]
    for number, (version, (_, read)) in enumerate(zip(versions, writes, strict=True)):
        got = s3.get_object(Bucket=bucket, Key="k", VersionId=version, **read)
        assert got["Body"].read() == f"{number}".encode()
    origin = {"Bucket": bucket, "Key": "k", "VersionId": versions[1]}
    s3.copy_object(Bucket=bucket, Key="k", CopySource=origin, **KMS)
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (told(got)[0], got["Body"].read()) == ("aws:kms", b"1")


def test_vault_may_hold_the_master_keys(directory: Path) -> None:
    double = Double()
    thread = threading.Thread(target=double.serve_forever, args=(0.01,))
    thread.start()
    directory.mkdir(parents=True)
    directory.with_name("token").write_text(TOKEN)
    settings = directory.with_name("vault.json")
    settings.write_text(json.dumps({"url": double.url, "token_file": "token"}))
    store = StoreProcess(directory, ("--vault", str(settings)))
    try:
        s3 = store.start().client()
        s3.create_bucket(Bucket="vault")
        key = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "team-a"}
        s3.put_object(Bucket="vault", Key="k", Body=b"wrapped by vault", **key)
        got = s3.get_object(Bucket="vault", Key="k")
        assert (got["SSEKMSKeyId"], got["Body"].read()) == ("team-a", b"wrapped by vault")
        assert "/v1/transit/encrypt/team-a" in [path for path, _ in double.asked]
        put = {"Bucket": "vault", "Key": "no", "Body": b"x", "ServerSideEncryption": "aws:kms"}
        assert error_of(s3.put_object, **put, SSEKMSKeyId="b") == ("KMS.NotFoundException", 400)
        double.failing = (503, b'{"errors":["Vault is sealed"]}')
        assert error_of(s3.put_object, **put, SSEKMSKeyId="team-a")[1] == 503
        s3.put_object(Bucket="vault", Key="s3", Body=b"x", **S3)
    finally:
        store.kill()
        double.shutdown()
        thread.join()
        double.server_close()


@pytest.mark.parametrize("size", [1000, 16 * 65_520, 2 * MIB])
def test_checksums_are_of_the_plain_bytes(
    s3: Any, bucket: str, store: StoreProcess, size: int
) -> None:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    data = secrets.token_bytes(size)
    checksum = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    assert put_chunked(store, f"/{bucket}/k", data, checksum)[0] == 200
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (told(head)[0], head["ChecksumCRC32"]) == ("AES256", checksum)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data
    status, answer = put_chunked(store, f"/{bucket}/other", data[1:] + b"x", checksum)
    assert (status, b"BadDigest" in answer) == (400, True)
    wrong = {
        "Bucket": bucket,
        "Key": "other",
        "Body": data,
        "ContentMD5": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    assert error_of(s3.put_object, **wrong, **KMS) == ("BadDigest", 400)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
