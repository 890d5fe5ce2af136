"""Expected bucket owners: no operation of the registry ignores the header, in whichever place."""

from typing import Any

import httpx
import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.session import get_session

from gateway.operations.registry import OPERATIONS
from tests.functional.conftest import error_of
from tests.functional.store_process import StoreProcess

MODEL = get_session().get_service_model("s3")
STRANGER = "999999999999"
OWNER_ID = "000000000000"
HEADER = "x-amz-expected-bucket-owner"
SOURCE_HEADER = "x-amz-source-expected-bucket-owner"

DOCUMENTS: dict[str, dict[str, Any]] = {
    "DeleteObjects": {"Delete": {"Objects": [{"Key": "k"}]}},
    "PutBucketAcl": {"ACL": "private"},
    "PutObjectAcl": {"ACL": "private"},
    "PutBucketPolicy": {"Policy": '{"Version":"2012-10-17","Statement":[]}'},
    "PutBucketVersioning": {"VersioningConfiguration": {"Status": "Enabled"}},
    "PutBucketWebsite": {"WebsiteConfiguration": {"IndexDocument": {"Suffix": "i"}}},
    "PutBucketCors": {
        "CORSConfiguration": {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]}
    },
    "PutBucketLifecycleConfiguration": {
        "LifecycleConfiguration": {
            "Rules": [{"Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]
        }
    },
    "PutObjectLockConfiguration": {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}},
    "PutObjectRetention": {
        "Retention": {"Mode": "GOVERNANCE", "RetainUntilDate": "2099-01-01T00:00:00Z"}
    },
    "PutObjectLegalHold": {"LegalHold": {"Status": "OFF"}},
    "PutObjectTagging": {"Tagging": {"TagSet": []}},
    "PutBucketTagging": {"Tagging": {"TagSet": [{"Key": "a", "Value": "b"}]}},
    "CompleteMultipartUpload": {"MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": "e"}]}},
    "GetObjectAttributes": {"ObjectAttributes": ["ETag"]},
    "CopyObject": {"Key": "copy"},
    "UploadPart": {"PartNumber": 1},
    "UploadPartCopy": {"PartNumber": 1},
}
"""What a call needs beside names, where the required members alone are no valid request."""


def takes(name: str, member: str) -> bool:
    """Whether the service model gives the operation that parameter."""
    if name not in MODEL.operation_names:
        return False
    shape = MODEL.operation_model(name).input_shape
    return shape is not None and member in shape.members


def method_of(s3: Any, name: str) -> Any:
    """boto3's method of an operation."""
    (found,) = (method for method, api in s3.meta.method_to_api_mapping.items() if api == name)
    return getattr(s3, found)


def arguments_of(name: str, bucket: str) -> dict[str, Any]:
    """A valid call, as far as the model and the table tell."""
    shape = MODEL.operation_model(name).input_shape
    made: dict[str, Any] = dict(DOCUMENTS.get(name, {}))
    named = {"Bucket": bucket, "Key": "k", "UploadId": "0" * 32, "CopySource": f"{bucket}/k"}
    for member in shape.required_members:
        if member not in made:
            made[member] = named.get(member) or value_of(shape.members[member])
    return made


def value_of(shape: Any) -> Any:
    """The least value of a shape."""
    match shape.type_name:
        case "structure":
            return {each: value_of(shape.members[each]) for each in shape.required_members}
        case "list":
            return [value_of(shape.member)]
        case "integer" | "long":
            return 1
        case "boolean":
            return True
        case _:
            return shape.enum[0] if getattr(shape, "enum", None) else "x"


OFFERED = sorted(operation.name for operation in OPERATIONS)
EXPECTING = [name for name in OFFERED if takes(name, "ExpectedBucketOwner")]
COPYING = [name for name in OFFERED if takes(name, "ExpectedSourceBucketOwner")]


@pytest.fixture(scope="module")
def target(s3: Any) -> Any:
    """A bucket with an object that every call finds."""
    s3.create_bucket(Bucket="owned-by-root", ObjectLockEnabledForBucket=True)
    s3.put_object(Bucket="owned-by-root", Key="k", Body=b"body")
    return "owned-by-root"


def code_of(call: Any, arguments: dict[str, Any]) -> str:
    """The error code of a call; "" when it succeeds."""
    try:
        call(**arguments)
    except ClientError as error:
        code = str(error.response["Error"]["Code"])
        # HEAD has no document: its status tells.
        return {"403": "AccessDenied", "400": "BadRequest"}.get(code, code)
    return ""


def test_the_model_names_what_is_tested() -> None:
    rest = set(OFFERED) - set(EXPECTING)
    assert rest == {"CreateBucket", "ListBuckets", "PostObject", "RenameObject"}
    assert COPYING == ["CopyObject", "UploadPartCopy"]


@pytest.mark.parametrize("name", [name for name in EXPECTING if name != "DeleteBucket"])
def test_another_owner_than_expected_is_refused(s3: Any, target: str, name: str) -> None:
    call, arguments = method_of(s3, name), arguments_of(name, target)
    assert code_of(call, {**arguments, "ExpectedBucketOwner": STRANGER}) == "AccessDenied"
    assert code_of(call, {**arguments, "ExpectedBucketOwner": OWNER_ID}) != "AccessDenied"
    if name == "PutBucketPolicy":
        s3.delete_bucket_policy(Bucket=target)


def test_a_bucket_is_not_deleted_for_another_owner(s3: Any) -> None:
    s3.create_bucket(Bucket="kept-for-its-owner")
    arguments = {"Bucket": "kept-for-its-owner", "ExpectedBucketOwner": STRANGER}
    assert error_of(s3.delete_bucket, **arguments) == ("AccessDenied", 403)
    s3.delete_bucket(Bucket="kept-for-its-owner", ExpectedBucketOwner=OWNER_ID)


@pytest.mark.parametrize("name", COPYING)
def test_another_owner_of_the_source_is_refused(s3: Any, target: str, name: str) -> None:
    call, arguments = method_of(s3, name), arguments_of(name, target)
    if name == "UploadPartCopy":
        upload = s3.create_multipart_upload(Bucket=target, Key="k")
        arguments["UploadId"] = upload["UploadId"]
    assert code_of(call, {**arguments, "ExpectedSourceBucketOwner": STRANGER}) == "AccessDenied"
    assert code_of(call, {**arguments, "ExpectedSourceBucketOwner": OWNER_ID}) == ""


@pytest.mark.parametrize("said", ["abc", "0000000000000", "00000000000 "])
def test_what_is_no_account_is_named_as_such(store: StoreProcess, target: str, said: str) -> None:
    for header in (HEADER, SOURCE_HEADER):
        answer = httpx.get(presigned(store, f"/{target}/k", {header: said}))
        assert answer.status_code == 400
        assert "<Code>InvalidBucketOwnerAWSAccountID</Code>" in answer.text


def presigned(store: StoreProcess, path: str, arguments: dict[str, str]) -> str:
    """A URL with headers in its query, as some SDKs presign."""
    request = AWSRequest("GET", f"{store.endpoint}{path}", params=arguments)
    credentials = Credentials(*store.credentials)
    S3SigV4QueryAuth(credentials, "s3", "us-east-1", expires=60).add_auth(request)
    return str(request.prepare().url)


def test_presigned_urls_may_carry_it_in_the_query(store: StoreProcess, target: str) -> None:
    assert httpx.get(presigned(store, f"/{target}/k", {HEADER: OWNER_ID})).status_code == 200
    refused = httpx.get(presigned(store, f"/{target}/k", {HEADER: STRANGER}))
    assert (refused.status_code, "<Code>AccessDenied</Code>" in refused.text) == (403, True)


def test_a_form_may_expect_an_owner(store: StoreProcess, s3: Any, target: str) -> None:
    for expected, status in ((STRANGER, 403), (OWNER_ID, 204), ("abc", 400)):
        post = s3.generate_presigned_post(
            target, "posted", Fields={HEADER: expected}, Conditions=[{HEADER: expected}]
        )
        answer = httpx.post(
            f"{store.endpoint}/{target}", data=post["fields"], files={"file": b"posted"}
        )
        assert answer.status_code == status, answer.text
