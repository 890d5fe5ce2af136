"""Who gets in over HTTP: policies, lists, ownership, public access blocks, two accounts and nobody."""

import hashlib
import json
import urllib.error
import urllib.request
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.functional.conftest import empty_and_delete, error_of
from tests.functional.store_process import StoreProcess

DENIED = ("AccessDenied", 403)
ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"


@pytest.fixture(scope="module")
def nobody(store: StoreProcess) -> Any:
    """A client that signs nothing."""
    return boto3.session.Session().client(
        "s3",
        endpoint_url=store.endpoint,
        region_name="us-east-1",
        config=Config(
            signature_version=UNSIGNED,
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
        ),
    )


def allow(bucket: str, action: Any, resource: str = "/*", **more: Any) -> str:
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": action,
        "Resource": f"arn:aws:s3:::{bucket}{resource}",
        **more,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def test_a_bucket_is_its_owners_alone(s3: Any, other_s3: Any, nobody: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for client in (other_s3, nobody):
        for call, more in (
            (client.get_object, {"Key": "k"}),
            (client.head_bucket, {}),
            (client.list_objects_v2, {}),
            (client.put_object, {"Key": "k", "Body": b"y"}),
            (client.delete_object, {"Key": "k"}),
            (client.get_bucket_acl, {}),
            (client.get_bucket_policy, {}),
            (client.put_bucket_acl, {"ACL": "public-read"}),
            (client.create_multipart_upload, {"Key": "k"}),
            (client.delete_bucket, {}),
            (client.get_object, {"Key": "not-there"}),
        ):
            code, status = error_of(call, Bucket=bucket, **more)
            assert status == 403, (call, code)
    assert nobody.list_buckets()["Buckets"] == []
    assert error_of(nobody.create_bucket, Bucket="nobodys") == DENIED
    assert error_of(nobody.list_objects_v2, Bucket="no-such-bucket") == ("NoSuchBucket", 404)


def test_a_policy_opens_what_it_says(s3: Any, other_s3: Any, nobody: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="pub/k", Body=b"x")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    text = allow(bucket, "s3:GetObject", "/pub/*")
    assert error_of(s3.put_bucket_policy, Bucket=bucket, Policy="") == ("MalformedPolicy", 400)
    s3.put_bucket_policy(Bucket=bucket, Policy=text)
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == text
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]
    for client in (s3, other_s3, nobody):
        assert client.get_object(Bucket=bucket, Key="pub/k")["Body"].read() == b"x"
    for client in (other_s3, nobody):
        assert error_of(client.get_object, Bucket=bucket, Key="k") == DENIED
        assert error_of(client.get_object, Bucket=bucket, Key="pub/not-there") == DENIED
        assert error_of(client.put_object, Bucket=bucket, Key="pub/k", Body=b"y") == DENIED
    s3.put_bucket_policy(Bucket=bucket, Policy=allow(bucket, "s3:ListBucket", ""))
    assert error_of(nobody.get_object, Bucket=bucket, Key="not-there") == ("NoSuchKey", 404)
    assert error_of(nobody.get_object, Bucket=bucket, Key="k") == DENIED
    assert len(nobody.list_objects_v2(Bucket=bucket)["Contents"]) == 2
    s3.delete_bucket_policy(Bucket=bucket)
    assert error_of(s3.get_bucket_policy, Bucket=bucket) == ("NoSuchBucketPolicy", 404)
    assert error_of(nobody.list_objects_v2, Bucket=bucket) == DENIED


def test_a_deny_holds_for_the_owner_but_not_over_the_policy(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    policy = json.loads(allow(bucket, "s3:*"))
    statement = policy["Statement"][0]
    statement["Effect"] = "Deny"
    statement["Resource"] = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    assert error_of(s3.get_object, Bucket=bucket, Key="k") == DENIED
    assert error_of(s3.list_objects_v2, Bucket=bucket) == DENIED
    assert error_of(s3.put_object, Bucket=bucket, Key="k", Body=b"") == DENIED
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"]
    s3.delete_bucket_policy(Bucket=bucket)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_another_account_cannot_change_a_policy_whatever_it_grants(
    s3: Any, other_s3: Any, bucket: str
) -> None:
    """405, as S3 documents for callers who are let and are not of the owner's account."""
    text = allow(bucket, ["s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"], "")
    assert error_of(other_s3.get_bucket_policy, Bucket=bucket) == DENIED
    s3.put_bucket_policy(Bucket=bucket, Policy=text)
    wrong = ("MethodNotAllowed", 405)
    assert error_of(other_s3.get_bucket_policy, Bucket=bucket) == wrong
    assert error_of(other_s3.put_bucket_policy, Bucket=bucket, Policy=text) == wrong
    assert error_of(other_s3.delete_bucket_policy, Bucket=bucket) == wrong
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == text


def test_a_policy_that_breaks_a_rule_is_refused(s3: Any, bucket: str) -> None:
    for text in ("{", allow("other", "s3:GetObject"), allow(bucket, "GetObject"), "x" * 30_000):
        refused = error_of(s3.put_bucket_policy, Bucket=bucket, Policy=text)
        assert refused == ("MalformedPolicy", 400)


def test_a_policy_says_only_what_can_apply(s3: Any, bucket: str) -> None:
    """Actions go with resources, and conditions with actions, or S3 refuses the whole in its words."""
    prefix: dict[str, Any] = {"Condition": {"StringLike": {"s3:prefix": "a*"}}}
    for text, message in (
        (
            allow(bucket, "s3:GetObject", ""),
            "Action does not apply to any resource(s) in statement",
        ),
        (allow(bucket, "s3:ListBucket"), "Action does not apply to any resource(s) in statement"),
        (
            allow(bucket, "s3:GetObject", **prefix),
            "Conditions do not apply to combination of actions and resources in statement",
        ),
    ):
        with pytest.raises(ClientError) as caught:
            s3.put_bucket_policy(Bucket=bucket, Policy=text)
        said = caught.value.response["Error"]
        assert (said["Code"], said["Message"]) == ("MalformedPolicy", message)
    assert error_of(s3.get_bucket_policy, Bucket=bucket) == ("NoSuchBucketPolicy", 404)


def test_conditions_see_the_request_and_the_object(s3: Any, nobody: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"x", Tagging="level=public")
    s3.put_object(Bucket=bucket, Key="b", Body=b"x")
    tagged: dict[str, Any] = {
        "Condition": {"StringEquals": {"s3:ExistingObjectTag/level": "public"}}
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=allow(bucket, "s3:GetObject", **tagged))
    assert nobody.get_object(Bucket=bucket, Key="a")["Body"].read() == b"x"
    assert error_of(nobody.get_object, Bucket=bucket, Key="b") == DENIED
    listing: dict[str, Any] = {"Condition": {"StringLike": {"s3:prefix": "a*"}}}
    s3.put_bucket_policy(Bucket=bucket, Policy=allow(bucket, "s3:ListBucket", "", **listing))
    assert nobody.list_objects_v2(Bucket=bucket, Prefix="a")["KeyCount"] == 1
    assert error_of(nobody.list_objects_v2, Bucket=bucket) == DENIED
    here: dict[str, Any] = {"Condition": {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}}
    s3.put_bucket_policy(Bucket=bucket, Policy=allow(bucket, "s3:GetObject", **here))
    assert nobody.get_object(Bucket=bucket, Key="b")["Body"].read() == b"x"
    elsewhere: dict[str, Any] = {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}
    s3.put_bucket_policy(Bucket=bucket, Policy=allow(bucket, "s3:GetObject", **elsewhere))
    assert error_of(nobody.get_object, Bucket=bucket, Key="b") == DENIED


def test_each_key_and_each_source_needs_its_own_permission(
    s3: Any, other_s3: Any, bucket: str
) -> None:
    for key in ("a/1", "b/1"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    s3.put_bucket_policy(
        Bucket=bucket, Policy=allow(bucket, ["s3:DeleteObject", "s3:PutObject"], "/a/*")
    )
    source = {"Bucket": bucket, "Key": "b/1"}
    assert error_of(other_s3.copy_object, Bucket=bucket, Key="a/2", CopySource=source) == DENIED
    done = other_s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "a/1"}, {"Key": "b/1"}]}
    )
    assert [each["Key"] for each in done["Deleted"]] == ["a/1"]
    assert [(each["Key"], each["Code"]) for each in done["Errors"]] == [("b/1", "AccessDenied")]


def test_lists_let_in_groups_and_accounts(
    s3: Any, other_s3: Any, nobody: Any, bucket: str, other_account: dict[str, str]
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    assert nobody.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    assert error_of(nobody.list_objects_v2, Bucket=bucket) == DENIED
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="authenticated-read")
    assert error_of(nobody.get_object, Bucket=bucket, Key="k") == DENIED
    assert other_s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="private")
    assert error_of(other_s3.get_object, Bucket=bucket, Key="k") == DENIED
    canonical_id = other_account["canonical_id"]
    s3.put_bucket_acl(
        Bucket=bucket, GrantWrite=f'id="{canonical_id}"', GrantRead=f"uri={ALL_USERS}"
    )
    shown = s3.get_bucket_acl(Bucket=bucket)["Grants"]
    assert [(each["Grantee"]["Type"], each["Permission"]) for each in shown] == [
        ("Group", "READ"),
        ("CanonicalUser", "WRITE"),
    ]
    assert nobody.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    other_s3.put_object(Bucket=bucket, Key="theirs", Body=b"y")
    assert error_of(s3.get_object, Bucket=bucket, Key="theirs") == DENIED
    owners = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"]
    assert owners[1]["Owner"]["ID"] == canonical_id != owners[0]["Owner"]["ID"]
    assert error_of(other_s3.delete_object, Bucket=bucket, Key="k") == DENIED
    other_s3.put_object_acl(Bucket=bucket, Key="theirs", ACL="bucket-owner-full-control")
    assert s3.get_object(Bucket=bucket, Key="theirs")["Body"].read() == b"y"


def test_lists_that_break_a_rule_are_refused(s3: Any, bucket: str) -> None:
    for grant, code in (
        ("id=nobody", "InvalidArgument"),
        ("emailAddress=no@example.org", "UnresolvableGrantByEmailAddress"),
        ("uri=http://example.org/", "InvalidArgument"),
        ("name=x", "InvalidArgument"),
    ):
        assert error_of(s3.put_bucket_acl, Bucket=bucket, GrantRead=grant) == (code, 400)
    both = error_of(s3.put_bucket_acl, Bucket=bucket, GrantRead="id=x", ACL="private")
    assert both == ("InvalidRequest", 400)


def test_ownership_decides_whose_objects_are(s3: Any, other_s3: Any, other_account: Any) -> None:
    for ownership, theirs in (
        ("BucketOwnerEnforced", False),
        ("BucketOwnerPreferred", False),
        ("ObjectWriter", True),
    ):
        name = f"owned-{ownership.lower()}"
        s3.create_bucket(Bucket=name, ObjectOwnership=ownership)
        s3.put_bucket_policy(Bucket=name, Policy=allow(name, "s3:*"))
        other_s3.put_object(Bucket=name, Key="k", Body=b"", ACL="bucket-owner-full-control")
        owner = other_s3.get_object_acl(Bucket=name, Key="k")["Owner"]["ID"]
        assert (owner == other_account["canonical_id"]) is theirs
        empty_and_delete(s3, name)


def upload_as(client: Any, bucket: str) -> None:
    """Objects by PUT, by PUT with a list, by copy and in parts."""
    client.put_object(Bucket=bucket, Key="up/put", Body=b"x")
    client.put_object(Bucket=bucket, Key="up/listed", Body=b"x", ACL="public-read")
    client.copy_object(Bucket=bucket, Key="up/copy", CopySource=f"{bucket}/open")
    upload = client.create_multipart_upload(Bucket=bucket, Key="up/parts")["UploadId"]
    where = {"Bucket": bucket, "Key": "up/parts", "UploadId": upload}
    tag = client.upload_part(**where, PartNumber=1, Body=b"x")["ETag"]
    client.complete_multipart_upload(
        **where, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]}
    )


def test_what_nobody_in_particular_uploaded_is_the_bucket_owners(
    s3: Any, other_s3: Any, nobody: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="open", Body=b"x", ACL="public-read")
    s3.put_bucket_policy(Bucket=bucket, Policy=allow(bucket, "s3:PutObject", "/up/*"))
    upload_as(nobody, bucket)
    keys = ("up/put", "up/listed", "up/copy", "up/parts")
    mine = s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"]
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="up/", FetchOwner=True)["Contents"]
    assert {each["Key"]: each["Owner"]["ID"] for each in listed} == dict.fromkeys(keys, mine)
    for key in keys:
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"x"
        grants = s3.get_object_acl(Bucket=bucket, Key=key)["Grants"]
        assert [each["Grantee"].get("ID") for each in grants if "ID" in each["Grantee"]] == [mine]
        if key != "up/listed":  # its list is public
            assert error_of(nobody.get_object, Bucket=bucket, Key=key) == DENIED
            assert error_of(other_s3.get_object, Bucket=bucket, Key=key) == DENIED
    # And the policy of the bucket speaks for it.
    s3.put_bucket_policy(Bucket=bucket, Policy=allow(bucket, ["s3:GetObject", "s3:DeleteObject"]))
    for key in keys:
        assert nobody.get_object(Bucket=bucket, Key=key)["Body"].read() == b"x"
        assert other_s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"x"
    # By a list the same.
    s3.delete_bucket_policy(Bucket=bucket)
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    nobody.put_object(Bucket=bucket, Key="up/put", Body=b"y")
    assert s3.get_object(Bucket=bucket, Key="up/put")["Body"].read() == b"y"
    assert error_of(nobody.get_object, Bucket=bucket, Key="up/put") == DENIED
    assert error_of(nobody.delete_object, Bucket=bucket, Key="up/put") == DENIED
    # Somebody's objects stay their own.
    other_s3.put_object(Bucket=bucket, Key="up/theirs", Body=b"z")
    assert error_of(s3.get_object, Bucket=bucket, Key="up/theirs") == DENIED


def test_enforced_ownership_knows_no_lists(s3: Any, bucket: str) -> None:
    rules = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    refused = error_of(s3.put_bucket_ownership_controls, Bucket=bucket, OwnershipControls=rules)
    assert refused == ("InvalidBucketAclWithObjectOwnership", 400)
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=rules)
    unsupported = ("AccessControlListNotSupported", 400)
    assert error_of(s3.put_bucket_acl, Bucket=bucket, ACL="private") == unsupported
    assert error_of(s3.put_object, Bucket=bucket, Key="k", ACL="public-read") == unsupported
    s3.put_object(Bucket=bucket, Key="k", ACL="bucket-owner-full-control")
    s3.delete_bucket_ownership_controls(Bucket=bucket)
    gone = ("OwnershipControlsNotFoundError", 404)
    assert error_of(s3.get_bucket_ownership_controls, Bucket=bucket) == gone


def test_public_access_blocks_mean_what_they_say(s3: Any, nobody: Any, bucket: str) -> None:
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")

    def block(*on: str) -> None:
        setting = {name: name in on for name in names}
        s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=setting)
        found = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        assert found == setting

    public = allow(bucket, "s3:GetObject")
    block("BlockPublicAcls", "BlockPublicPolicy")
    assert error_of(s3.put_bucket_acl, Bucket=bucket, ACL="public-read") == DENIED
    assert error_of(s3.put_object, Bucket=bucket, Key="k", ACL="public-read") == DENIED
    assert error_of(s3.put_bucket_policy, Bucket=bucket, Policy=public) == DENIED
    s3.delete_public_access_block(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    assert nobody.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    block("IgnorePublicAcls")
    assert error_of(nobody.get_object, Bucket=bucket, Key="k") == DENIED
    s3.put_bucket_policy(Bucket=bucket, Policy=public)
    assert nobody.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    block("RestrictPublicBuckets", "IgnorePublicAcls")
    assert error_of(nobody.get_object, Bucket=bucket, Key="k") == DENIED
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_the_owner_can_be_expected(s3: Any, bucket: str, other_account: dict[str, str]) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ExpectedBucketOwner="000000000000")
    wrong = other_account["account_id"]
    for call, more in (
        (s3.get_object, {"Key": "k"}),
        (s3.put_object, {"Key": "k", "Body": b"y"}),
        (s3.list_objects_v2, {}),
        (s3.delete_bucket, {}),
    ):
        assert error_of(call, Bucket=bucket, ExpectedBucketOwner=wrong, **more)[1] == 403
    source = {"Bucket": bucket, "Key": "k"}
    refused = error_of(
        s3.copy_object, Bucket=bucket, Key="c", CopySource=source, ExpectedSourceBucketOwner=wrong
    )
    assert refused == DENIED
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_making_ones_bucket_again_does_not_open_it(s3: Any, bucket: str) -> None:
    taken = ("BucketAlreadyExists", 409)
    assert error_of(s3.create_bucket, Bucket=bucket, ACL="public-read") == taken
    s3.create_bucket(Bucket=bucket)
    assert len(s3.get_bucket_acl(Bucket=bucket)["Grants"]) == 1


def test_nobody_may_not_shape_answers(s3: Any, nobody: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    refused = error_of(nobody.get_object, Bucket=bucket, Key="k", ResponseContentType="text/html")
    assert refused == ("InvalidRequest", 400)


def test_bodies_that_nobody_signed_are_read_as_they_are_sent(
    store: StoreProcess, s3: Any, bucket: str
) -> None:
    """The JavaScript SDK sends streams in chunks also without credentials."""
    s3.put_bucket_ownership_controls(
        Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    )
    s3.put_bucket_policy(Bucket=bucket, Policy=allow(bucket, "s3:PutObject"))
    url = f"{store.endpoint}/{bucket}/key"

    def put(body: bytes, **headers: str) -> int:
        named = {f"x-amz-{name.replace('_', '-')}": text for name, text in headers.items()}
        request = urllib.request.Request(url, body, named, method="PUT")
        try:
            with urllib.request.urlopen(request) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    chunked = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    framed = b"3\r\nabc\r\n0\r\nx-amz-checksum-crc32:NSRBwg==\r\n\r\n"
    told = {"decoded_content_length": "3", "trailer": "x-amz-checksum-crc32"}
    assert put(framed, content_sha256=chunked, **told) == 200
    assert s3.head_object(Bucket=bucket, Key="key")["ContentLength"] == 3
    s3.delete_object(Bucket=bucket, Key="key")
    for body, headers in (
        (framed.replace(b"NSRB", b"AAAA"), {"content_sha256": chunked, **told}),
        (framed, {"content_sha256": chunked, "trailer": "x-amz-checksum-crc32"}),
        (framed, {"content_sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", **told}),
        (b"abc", {"content_sha256": hashlib.sha256(b"other").hexdigest()}),
        (b"abc", {"content_sha256": "no-hash"}),
    ):
        assert put(body, **headers) in (400, 411), headers
    assert error_of(s3.head_object, Bucket=bucket, Key="key") == ("404", 404)
    assert put(b"abc", content_sha256=hashlib.sha256(b"abc").hexdigest()) == 200
    assert put(b"abc", content_sha256="UNSIGNED-PAYLOAD") == 200
    assert put(b"abc") == 200
    s3.delete_bucket_policy(Bucket=bucket)
