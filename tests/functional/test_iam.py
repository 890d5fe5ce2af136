"""IAM and STS over HTTP: users, keys, groups, policies, roles and sessions, with boto3."""

import itertools
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config

from tests.functional.conftest import empty_and_delete, error_of
from tests.functional.iam_clients import User, client_of, let_changes_arrive, policy, trust
from tests.functional.store_process import StoreProcess
from tests.unit.web_token_maker import TokenMaker

_numbers = itertools.count(1)
READ_ONLY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"


@pytest.fixture(scope="module")
def account(store: StoreProcess) -> dict[str, str]:
    """An account of this file's own."""
    made: dict[str, str] = store.command("account", "create", "iam-tests")
    return made


@pytest.fixture(scope="module")
def iam(store: StoreProcess, account: dict[str, str]) -> Any:
    """The IAM client of the account's root."""
    return let_changes_arrive(client_of(store, "iam", account["access_key"], account["secret_key"]))


@pytest.fixture(scope="module")
def owner(store: StoreProcess, account: dict[str, str]) -> Any:
    """The S3 client of the account's root."""
    return store.client(account["access_key"], account["secret_key"])


@pytest.fixture
def own_bucket(owner: Any) -> Iterator[str]:
    """A bucket of the account, with an object "key"."""
    name = f"iam-bucket-{next(_numbers)}"
    owner.create_bucket(Bucket=name)
    owner.put_object(Bucket=name, Key="key", Body=b"body")
    yield name
    empty_and_delete(owner, name)


@pytest.fixture
def user(store: StoreProcess, iam: Any) -> User:
    """A fresh user who may do nothing."""
    return User(store, iam, f"user-{next(_numbers)}", "/team/")


# Users and access keys


def test_a_user_is_made_found_renamed_and_deleted(iam: Any, account: dict[str, str]) -> None:
    made = iam.create_user(UserName="Ann", Path="/a/b/", Tags=[{"Key": "k", "Value": "v"}])["User"]
    assert made["Arn"] == f"arn:aws:iam::{account['account_id']}:user/a/b/Ann"
    assert made["UserId"].startswith("AIDA")
    assert iam.get_user(UserName="ann")["User"] == made
    assert error_of(iam.create_user, UserName="aNN") == ("EntityAlreadyExists", 409)
    iam.update_user(UserName="Ann", NewUserName="Anna", NewPath="/c/")
    assert error_of(iam.get_user, UserName="Ann") == ("NoSuchEntity", 404)
    renamed = iam.get_user(UserName="Anna")["User"]
    assert (renamed["UserId"], renamed["Path"]) == (made["UserId"], "/c/")
    iam.delete_user(UserName="Anna")
    assert error_of(iam.delete_user, UserName="Anna") == ("NoSuchEntity", 404)


def test_a_user_cannot_take_the_name_of_another(iam: Any) -> None:
    iam.create_user(UserName="first")
    iam.create_user(UserName="second")
    refused = error_of(iam.update_user, UserName="first", NewUserName="SECOND")
    assert refused == ("EntityAlreadyExists", 409)
    iam.update_user(UserName="first", NewUserName="FIRST")
    assert iam.get_user(UserName="first")["User"]["UserName"] == "FIRST"


def test_users_are_listed_in_pages(iam: Any) -> None:
    for name in ("c", "A", "b"):
        iam.create_user(UserName=name, Path="/listed/")
    pages = list(
        iam.get_paginator("list_users").paginate(
            PathPrefix="/listed/", PaginationConfig={"PageSize": 2}
        )
    )
    assert [[user["UserName"] for user in page["Users"]] for page in pages] == [["A", "b"], ["c"]]
    assert not iam.list_users(PathPrefix="/nobody/")["Users"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"UserName": "a b"}, "ValidationError"),
        ({"UserName": "x" * 65}, "ValidationError"),
        ({"UserName": "x", "Path": "no-slash"}, "ValidationError"),
        ({"UserName": "x", "PermissionsBoundary": READ_ONLY}, "InvalidInput"),
    ],
)
def test_what_a_user_cannot_be(iam: Any, arguments: dict[str, str], code: str) -> None:
    assert error_of(iam.create_user, **arguments) == (code, 400)


def test_access_keys_sign_until_they_are_inactive_or_deleted(
    store: StoreProcess, iam: Any, user: User, own_bucket: str
) -> None:
    iam.attach_user_policy(UserName=user.name, PolicyArn=READ_ONLY)
    second = iam.create_access_key(UserName=user.name)["AccessKey"]
    refused = error_of(iam.create_access_key, UserName=user.name)
    assert refused == ("LimitExceeded", 409)
    other = store.client(second["AccessKeyId"], second["SecretAccessKey"])
    for each in (user.s3, other):
        assert each.get_object(Bucket=own_bucket, Key="key")["Body"].read() == b"body"
    iam.update_access_key(UserName=user.name, AccessKeyId=user.key, Status="Inactive")
    states = {
        each["AccessKeyId"]: each["Status"]
        for each in iam.list_access_keys(UserName=user.name)["AccessKeyMetadata"]
    }
    assert states == {user.key: "Inactive", second["AccessKeyId"]: "Active"}
    gone = ("InvalidAccessKeyId", 403)
    assert error_of(user.s3.get_object, Bucket=own_bucket, Key="key") == gone
    assert error_of(user.iam.get_user) == ("InvalidClientTokenId", 403)
    iam.delete_access_key(UserName=user.name, AccessKeyId=second["AccessKeyId"])
    assert error_of(other.get_object, Bucket=own_bucket, Key="key") == gone
    missing = error_of(iam.delete_access_key, UserName=user.name, AccessKeyId=second["AccessKeyId"])
    assert missing == ("NoSuchEntity", 404)


def test_a_root_may_exchange_its_access_key(
    store: StoreProcess, iam: Any, account: dict[str, str]
) -> None:
    made = iam.create_access_key()["AccessKey"]
    second = store.client(made["AccessKeyId"], made["SecretAccessKey"])
    second.list_buckets()
    listed = {each["AccessKeyId"] for each in iam.list_access_keys()["AccessKeyMetadata"]}
    assert listed == {account["access_key"], made["AccessKeyId"]}
    iam.delete_access_key(AccessKeyId=made["AccessKeyId"])
    assert error_of(second.list_buckets) == ("InvalidAccessKeyId", 403)


def test_the_key_of_the_stores_root_is_its_configurations(store: StoreProcess, s3: Any) -> None:
    credentials = s3._request_signer._credentials
    root = client_of(store, "iam", credentials.access_key, credentials.secret_key)
    assert error_of(root.create_access_key) == ("UnmodifiableEntity", 400)


def test_nothing_is_deleted_that_something_hangs_on(iam: Any, user: User) -> None:
    conflict = ("DeleteConflict", 409)
    assert error_of(iam.delete_user, UserName=user.name) == conflict
    iam.delete_access_key(UserName=user.name, AccessKeyId=user.key)
    iam.put_user_policy(UserName=user.name, PolicyName="p", PolicyDocument=policy("Allow", "s3:*"))
    assert error_of(iam.delete_user, UserName=user.name) == conflict
    iam.delete_user_policy(UserName=user.name, PolicyName="p")
    iam.attach_user_policy(UserName=user.name, PolicyArn=READ_ONLY)
    assert error_of(iam.delete_user, UserName=user.name) == conflict
    iam.detach_user_policy(UserName=user.name, PolicyArn=READ_ONLY)
    group = f"group-{next(_numbers)}"
    iam.create_group(GroupName=group)
    iam.add_user_to_group(GroupName=group, UserName=user.name)
    assert error_of(iam.delete_user, UserName=user.name) == conflict
    assert error_of(iam.delete_group, GroupName=group) == conflict
    iam.remove_user_from_group(GroupName=group, UserName=user.name)
    iam.delete_group(GroupName=group)
    iam.delete_user(UserName=user.name)


def test_an_account_with_users_is_not_deleted(store: StoreProcess) -> None:
    made = store.command("account", "create", "crowded")
    client_of(store, "iam", made["access_key"], made["secret_key"]).create_user(UserName="u")
    with pytest.raises(AssertionError, match="users"):
        store.command("account", "delete", "crowded")


# What policies permit


def test_a_user_may_do_nothing_until_a_policy_says_so(
    iam: Any, user: User, own_bucket: str
) -> None:
    denied = ("AccessDenied", 403)
    assert error_of(user.s3.get_object, Bucket=own_bucket, Key="key") == denied
    assert error_of(user.s3.list_buckets) == denied
    iam.put_user_policy(
        UserName=user.name,
        PolicyName="read",
        PolicyDocument=policy("Allow", "s3:GetObject", f"arn:aws:s3:::{own_bucket}/*"),
    )
    assert user.s3.get_object(Bucket=own_bucket, Key="key")["Body"].read() == b"body"
    assert error_of(user.s3.put_object, Bucket=own_bucket, Key="key", Body=b"") == denied
    iam.put_user_policy(
        UserName=user.name, PolicyName="stop", PolicyDocument=policy("Deny", "s3:GetObject")
    )
    assert error_of(user.s3.get_object, Bucket=own_bucket, Key="key") == denied


def test_a_bucket_policy_lets_in_a_user_in_person(
    owner: Any, iam: Any, user: User, own_bucket: str
) -> None:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": user.arn},
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{own_bucket}/*",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    owner.put_bucket_policy(Bucket=own_bucket, Policy=document)
    user.s3.get_object(Bucket=own_bucket, Key="key")
    statement |= {"Effect": "Deny"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    owner.put_bucket_policy(Bucket=own_bucket, Policy=document)
    iam.attach_user_policy(UserName=user.name, PolicyArn=READ_ONLY)
    denied = ("AccessDenied", 403)
    assert error_of(user.s3.get_object, Bucket=own_bucket, Key="key") == denied


def test_variables_of_a_policy_are_the_users(iam: Any, user: User, own_bucket: str) -> None:
    iam.put_user_policy(
        UserName=user.name,
        PolicyName="home",
        PolicyDocument=policy(
            "Allow", "s3:PutObject", f"arn:aws:s3:::{own_bucket}/${{aws:username}}/*"
        ),
    )
    user.s3.put_object(Bucket=own_bucket, Key=f"{user.name}/mine", Body=b"")
    denied = ("AccessDenied", 403)
    assert error_of(user.s3.put_object, Bucket=own_bucket, Key="other/x", Body=b"") == denied


def test_groups_hand_their_policies_to_their_members(iam: Any, user: User, own_bucket: str) -> None:
    group = f"group-{next(_numbers)}"
    made = iam.create_group(GroupName=group, Path="/g/")["Group"]
    iam.put_group_policy(
        GroupName=group, PolicyName="read", PolicyDocument=policy("Allow", "s3:GetObject")
    )
    iam.add_user_to_group(GroupName=group, UserName=user.name)
    iam.add_user_to_group(GroupName=group, UserName=user.name)
    user.s3.get_object(Bucket=own_bucket, Key="key")
    found = iam.get_group(GroupName=group)
    assert found["Group"] == made
    assert [each["UserName"] for each in found["Users"]] == [user.name]
    renamed = f"{group}-renamed"
    iam.update_group(GroupName=group, NewGroupName=renamed)
    of_user = iam.list_groups_for_user(UserName=user.name)["Groups"]
    assert [each["GroupName"] for each in of_user] == [renamed]
    user.s3.get_object(Bucket=own_bucket, Key="key")
    iam.remove_user_from_group(GroupName=renamed, UserName=user.name)
    denied = ("AccessDenied", 403)
    assert error_of(user.s3.get_object, Bucket=own_bucket, Key="key") == denied
    again = error_of(iam.remove_user_from_group, GroupName=renamed, UserName=user.name)
    assert again == ("NoSuchEntity", 404)


def test_managed_policies_are_made_attached_and_deleted(
    iam: Any, user: User, own_bucket: str
) -> None:
    document = policy("Allow", ["s3:GetObject"], f"arn:aws:s3:::{own_bucket}/*")
    name = f"policy-{next(_numbers)}"
    made = iam.create_policy(PolicyName=name, PolicyDocument=document, Path="/p/")["Policy"]
    arn = made["Arn"]
    refused = error_of(iam.create_policy, PolicyName=name, PolicyDocument=document)
    assert refused == ("EntityAlreadyExists", 409)
    iam.attach_user_policy(UserName=user.name, PolicyArn=arn)
    user.s3.get_object(Bucket=own_bucket, Key="key")
    assert iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 1
    version = iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
    assert version["Document"] == json.loads(document)
    attached = iam.list_attached_user_policies(UserName=user.name)["AttachedPolicies"]
    assert attached == [{"PolicyName": name, "PolicyArn": arn}]
    own = iam.list_policies(Scope="Local", OnlyAttached=True)["Policies"]
    assert [each["Arn"] for each in own] == [arn]
    assert READ_ONLY in {each["Arn"] for each in iam.list_policies(Scope="AWS")["Policies"]}
    assert error_of(iam.delete_policy, PolicyArn=arn) == ("DeleteConflict", 409)
    iam.detach_user_policy(UserName=user.name, PolicyArn=arn)
    iam.delete_policy(PolicyArn=arn)
    denied = ("AccessDenied", 403)
    assert error_of(user.s3.get_object, Bucket=own_bucket, Key="key") == denied
    missing = error_of(iam.attach_user_policy, UserName=user.name, PolicyArn=arn)
    assert missing == ("NoSuchEntity", 404)


@pytest.mark.parametrize(
    "document",
    [
        "{",
        json.dumps({"Version": "2010-10-17", "Statement": []}),
        json.dumps({"Version": "2012-10-17"}),
        trust("*"),
    ],
)
def test_a_malformed_policy_is_refused(iam: Any, user: User, document: str) -> None:
    refused = error_of(
        iam.put_user_policy, UserName=user.name, PolicyName="p", PolicyDocument=document
    )
    assert refused == ("MalformedPolicyDocument", 400)


def test_inline_policies_are_bounded_together(iam: Any, user: User) -> None:
    long = policy("Allow", "s3:GetObject", "arn:aws:s3:::" + "x" * 1500)
    iam.put_user_policy(UserName=user.name, PolicyName="one", PolicyDocument=long)
    iam.put_user_policy(UserName=user.name, PolicyName="one", PolicyDocument=long)
    refused = error_of(
        iam.put_user_policy, UserName=user.name, PolicyName="two", PolicyDocument=long
    )
    assert refused == ("LimitExceeded", 409)
    shown = iam.get_user_policy(UserName=user.name, PolicyName="one")
    assert shown["PolicyDocument"] == json.loads(long)
    assert iam.list_user_policies(UserName=user.name)["PolicyNames"] == ["one"]


def test_users_need_a_policy_for_iam_too(iam: Any, user: User) -> None:
    denied = ("AccessDenied", 403)
    assert error_of(user.iam.get_user) == denied
    iam.put_user_policy(
        UserName=user.name,
        PolicyName="self",
        PolicyDocument=policy("Allow", "iam:GetUser", "arn:aws:iam::*:user/team/*"),
    )
    assert user.iam.get_user()["User"]["UserName"] == user.name
    assert error_of(user.iam.create_user, UserName="sneaky") == denied
    assert error_of(user.iam.put_user_policy, UserName=user.name, PolicyName="p",
                    PolicyDocument=policy("Allow", "*")) == denied  # fmt: skip


def test_users_of_the_stores_root_do_not_administer_the_store(store: StoreProcess, s3: Any) -> None:
    credentials = s3._request_signer._credentials
    root = client_of(store, "iam", credentials.access_key, credentials.secret_key)
    helper = User(store, root, "helper")
    root.attach_user_policy(
        UserName="helper", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess"
    )
    helper.s3.list_buckets()
    imposter = replace(
        store,
        environment={
            "OSTRAKA_ROOT_ACCESS_KEY": helper.key,
            "OSTRAKA_ROOT_SECRET_KEY": helper.secret,
        },
    )
    with pytest.raises(AssertionError, match="Only root"):
        imposter.admin("account", "list")


def test_accounts_do_not_see_each_other(store: StoreProcess, user: User) -> None:
    made = store.command("account", "create", f"stranger-{next(_numbers)}")
    stranger = client_of(store, "iam", made["access_key"], made["secret_key"])
    assert error_of(stranger.get_user, UserName=user.name) == ("NoSuchEntity", 404)
    assert stranger.list_users()["Users"] == []


# Operators


def test_operators_make_users_in_any_account(
    store: StoreProcess, account: dict[str, str], own_bucket: str, tmp_path: Path
) -> None:
    inside = ("--account", "iam-tests")
    (made,) = store.command("user", "create", "by-admin", "--path", "/ops/", *inside)
    assert made["Arn"].endswith(":user/ops/by-admin")
    (key,) = store.command("access-key", "create", "--user", "by-admin", *inside)
    store.command("group", "create", "admins", *inside)
    store.command("group", "add", "admins", "--user", "by-admin", *inside)
    document = tmp_path / "policy.json"
    document.write_text(policy("Allow", "s3:GetObject"))
    (shared,) = store.command("policy", "create", "by-admin", str(document), *inside)
    store.command("policy", "attach", shared["Arn"], "--group", "admins", *inside)
    s3 = store.client(key["AccessKeyId"], key["SecretAccessKey"])
    assert s3.get_object(Bucket=own_bucket, Key="key")["Body"].read() == b"body"
    names = [each["UserName"] for each in store.command("user", "list", *inside)]
    assert "by-admin" in names
    keys = store.command("access-key", "list", "--user", "by-admin", *inside)
    assert [each["AccessKeyId"] for each in keys] == [key["AccessKeyId"]]
    assert "admins" in {each["GroupName"] for each in store.command("group", "list", *inside)}
    assert shared["Arn"] in {each["Arn"] for each in store.command("policy", "list", *inside)}
    with pytest.raises(AssertionError, match="DeleteConflict"):
        store.command("user", "delete", "by-admin", *inside)
    store.command("policy", "detach", shared["Arn"], "--group", "admins", *inside)
    store.command("policy", "delete", shared["Arn"], *inside)
    store.command("group", "remove", "admins", "--user", "by-admin", *inside)
    store.command("group", "delete", "admins", *inside)
    store.command("access-key", "delete", key["AccessKeyId"], "--user", "by-admin", *inside)
    store.command("user", "delete", "by-admin", *inside)
    with pytest.raises(AssertionError, match="NoSuchEntity"):
        store.command("user", "list", "--account", "nobody")


# The protocol


def test_a_wrong_secret_is_refused(store: StoreProcess, account: dict[str, str]) -> None:
    wrong = client_of(store, "iam", account["access_key"], "wrong-secret")
    assert error_of(wrong.list_users) == ("SignatureDoesNotMatch", 403)
    nobody = client_of(store, "iam", "AKIANOBODYATALL", "wrong-secret")
    assert error_of(nobody.list_users) == ("InvalidClientTokenId", 403)


def test_what_is_not_offered_says_so(iam: Any) -> None:
    assert error_of(iam.list_instance_profiles) == ("InvalidAction", 400)


def test_the_account_is_summed_up(iam: Any, user: User) -> None:
    summary = iam.get_account_summary()["SummaryMap"]
    assert summary["Users"] >= 1
    assert summary["AccessKeysPerUserQuota"] == 2


# Sessions


def session_clients(store: StoreProcess, credentials: dict[str, Any]) -> tuple[Any, Any]:
    parts = [credentials[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
    return client_of(store, "s3", *parts), client_of(store, "sts", *parts)


def test_callers_learn_who_they_are(
    store: StoreProcess, account: dict[str, str], user: User
) -> None:
    root = client_of(store, "sts", account["access_key"], account["secret_key"])
    account_id = account["account_id"]
    assert root.get_caller_identity()["Arn"] == f"arn:aws:iam::{account_id}:root"
    identity = user.sts.get_caller_identity()
    assert (identity["Arn"], identity["Account"]) == (user.arn, account_id)
    assert identity["UserId"].startswith("AIDA")


def test_a_session_token_is_as_good_as_the_user(
    store: StoreProcess, iam: Any, user: User, own_bucket: str
) -> None:
    iam.attach_user_policy(UserName=user.name, PolicyArn=READ_ONLY)
    credentials = user.sts.get_session_token(DurationSeconds=900)["Credentials"]
    s3, sts = session_clients(store, credentials)
    assert s3.get_object(Bucket=own_bucket, Key="key")["Body"].read() == b"body"
    denied = ("AccessDenied", 403)
    assert error_of(s3.put_object, Bucket=own_bucket, Key="key", Body=b"") == denied
    assert sts.get_caller_identity()["Arn"] == user.arn
    assert error_of(sts.get_session_token) == denied
    iam.detach_user_policy(UserName=user.name, PolicyArn=READ_ONLY)
    assert error_of(s3.get_object, Bucket=own_bucket, Key="key") == denied


def test_a_token_belongs_to_its_access_key(
    store: StoreProcess, account: dict[str, str], user: User
) -> None:
    credentials = user.sts.get_session_token()["Credentials"]
    key, secret = credentials["AccessKeyId"], credentials["SecretAccessKey"]
    without = store.client(key, secret)
    assert error_of(without.list_buckets) == ("InvalidAccessKeyId", 403)
    foreign = user.sts.get_session_token()["Credentials"]["SessionToken"]
    for token in (foreign, "nonsense", account["access_key"]):
        client = client_of(store, "s3", key, secret, token)
        assert error_of(client.list_buckets) == ("InvalidToken", 400)
    lasting = client_of(store, "s3", user.key, user.secret, credentials["SessionToken"])
    assert error_of(lasting.list_buckets) == ("InvalidToken", 400)


def test_presigned_urls_work_with_sessions(
    store: StoreProcess, iam: Any, user: User, own_bucket: str
) -> None:
    iam.attach_user_policy(UserName=user.name, PolicyArn=READ_ONLY)
    credentials = user.sts.get_session_token()["Credentials"]
    parts = [credentials[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
    for version in ("s3v4", "s3"):
        s3 = boto3.client(
            "s3", endpoint_url=store.endpoint, region_name="us-east-1",
            aws_access_key_id=parts[0], aws_secret_access_key=parts[1],
            aws_session_token=parts[2], config=Config(signature_version=version),
        )  # fmt: skip
        url = s3.generate_presigned_url("get_object", {"Bucket": own_bucket, "Key": "key"})
        with urllib.request.urlopen(url) as response:
            assert response.read() == b"body"


def test_forms_work_with_sessions(
    store: StoreProcess, iam: Any, user: User, owner: Any, own_bucket: str
) -> None:
    iam.put_user_policy(
        UserName=user.name, PolicyName="put", PolicyDocument=policy("Allow", "s3:PutObject")
    )
    s3, _ = session_clients(store, user.sts.get_session_token()["Credentials"])
    post = s3.generate_presigned_post(own_bucket, "posted")
    parts = [*post["fields"].items(), ("file", "by a form")]
    body = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in parts
    )
    request = urllib.request.Request(
        f"{store.endpoint}/{own_bucket}",
        data=f"{body}--x--\r\n".encode(),
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    with urllib.request.urlopen(request) as response:
        assert response.status == 204
    assert owner.get_object(Bucket=own_bucket, Key="posted")["Body"].read() == b"by a form"


def test_a_role_is_assumed_by_whom_it_trusts(
    store: StoreProcess, iam: Any, owner: Any, user: User, own_bucket: str
) -> None:
    name = f"role-{next(_numbers)}"
    role = iam.create_role(
        RoleName=name, AssumeRolePolicyDocument=trust(user.arn), Description="reads"
    )["Role"]
    iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=policy("Allow", "s3:*"))
    assert iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"] == json.loads(
        trust(user.arn)
    )
    made = user.sts.assume_role(RoleArn=role["Arn"], RoleSessionName="nightly")
    s3, sts = session_clients(store, made["Credentials"])
    s3.put_object(Bucket=own_bucket, Key="key", Body=b"by the role")
    identity = sts.get_caller_identity()
    assert identity["Arn"].endswith(f":assumed-role/{name}/nightly")
    assert identity["UserId"] == f"{role['RoleId']}:nightly"
    narrowed = user.sts.assume_role(
        RoleArn=role["Arn"],
        RoleSessionName="narrow",
        Policy=policy("Allow", "s3:GetObject"),
    )
    s3_narrow, _ = session_clients(store, narrowed["Credentials"])
    s3_narrow.get_object(Bucket=own_bucket, Key="key")
    denied = ("AccessDenied", 403)
    assert error_of(s3_narrow.put_object, Bucket=own_bucket, Key="key", Body=b"") == denied
    # What a bucket grants to the session itself is not narrowed.
    to_session = json.loads(policy("Allow", "s3:PutObject", f"arn:aws:s3:::{own_bucket}/*"))
    session_arn = identity["Arn"].replace("nightly", "narrow")
    to_session["Statement"][0]["Principal"] = {"AWS": session_arn}
    owner.put_bucket_policy(Bucket=own_bucket, Policy=json.dumps(to_session))
    s3_narrow.put_object(Bucket=own_bucket, Key="key", Body=b"granted")
    owner.delete_bucket_policy(Bucket=own_bucket)
    assert error_of(s3_narrow.put_object, Bucket=own_bucket, Key="key", Body=b"") == denied
    iam.delete_role_policy(RoleName=name, PolicyName="all")
    assert error_of(s3.get_object, Bucket=own_bucket, Key="key") == denied
    iam.delete_role(RoleName=name)
    assert error_of(s3.list_buckets) == ("InvalidToken", 400)


def test_a_role_refuses_whom_it_does_not_trust(
    store: StoreProcess, iam: Any, account: dict[str, str], user: User
) -> None:
    name = f"role-{next(_numbers)}"
    root = f"arn:aws:iam::{account['account_id']}:root"
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(root))["Role"]["Arn"]
    denied = ("AccessDenied", 403)
    assert error_of(user.sts.assume_role, RoleArn=arn, RoleSessionName="me") == denied
    iam.put_user_policy(
        UserName=user.name, PolicyName="assume", PolicyDocument=policy("Allow", "sts:*", arn)
    )
    user.sts.assume_role(RoleArn=arn, RoleSessionName="me")
    made = store.command("account", "create", f"stranger-{next(_numbers)}")
    stranger = client_of(store, "sts", made["access_key"], made["secret_key"])
    assert error_of(stranger.assume_role, RoleArn=arn, RoleSessionName="me") == denied
    iam.update_assume_role_policy(
        RoleName=name,
        PolicyDocument=trust(f"arn:aws:iam::{made['account_id']}:root"),
    )
    stranger.assume_role(RoleArn=arn, RoleSessionName="me")
    assert error_of(user.sts.assume_role, RoleArn=arn, RoleSessionName="me") == denied
    too_long = error_of(
        stranger.assume_role, RoleArn=arn, RoleSessionName="me", DurationSeconds=7200
    )
    assert too_long == ("ValidationError", 400)


def test_a_trust_policy_names_principals_and_no_resources(iam: Any) -> None:
    for document in (policy("Allow", "sts:AssumeRole"), "{}"):
        refused = error_of(iam.create_role, RoleName="r", AssumeRolePolicyDocument=document)
        assert refused == ("MalformedPolicyDocument", 400)


# Identity providers


class Provider(BaseHTTPRequestHandler):
    """An OpenID Connect provider as far as its keys go."""

    maker: TokenMaker

    def do_GET(self) -> None:
        _, port = cast("tuple[str, int]", self.server.server_address)
        documents = {
            "/idp/.well-known/openid-configuration": json.dumps(
                {"jwks_uri": f"http://127.0.0.1:{port}/keys"}
            ).encode(),
            "/keys": self.maker.jwks(),
        }
        body = documents.get(self.path)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def provider() -> Iterator[tuple[str, TokenMaker]]:
    """URL and keys of a running provider."""
    Provider.maker = TokenMaker()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/idp", Provider.maker
    server.shutdown()
    server.server_close()
    thread.join()


def test_providers_are_registered_changed_and_deleted(iam: Any) -> None:
    made = iam.create_open_id_connect_provider(
        Url="https://idp.example.com/realm", ClientIDList=["a"], ThumbprintList=["0" * 40]
    )
    arn = made["OpenIDConnectProviderArn"]
    assert arn.endswith(":oidc-provider/idp.example.com/realm")
    refused = error_of(iam.create_open_id_connect_provider, Url="https://idp.example.com/realm")
    assert refused == ("EntityAlreadyExists", 409)
    iam.add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=arn, ClientID="b")
    iam.remove_client_id_from_open_id_connect_provider(OpenIDConnectProviderArn=arn, ClientID="a")
    found = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    assert (found["ClientIDList"], found["ThumbprintList"]) == (["b"], ["0" * 40])
    listed = iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    assert {"Arn": arn} in listed
    iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    missing = error_of(iam.get_open_id_connect_provider, OpenIDConnectProviderArn=arn)
    assert missing == ("NoSuchEntity", 404)


def test_a_providers_token_is_exchanged_for_a_role(
    store: StoreProcess, iam: Any, own_bucket: str, provider: tuple[str, TokenMaker]
) -> None:
    url, maker = provider
    arn = iam.create_open_id_connect_provider(Url=url, ClientIDList=["app"])[
        "OpenIDConnectProviderArn"
    ]
    host = url.partition("://")[2]
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": arn},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {f"{host}:sub": "ci", f"{host}:aud": "app"}},
    }
    trusted = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    role = iam.create_role(RoleName="ci", AssumeRolePolicyDocument=trusted)["Role"]["Arn"]
    iam.attach_role_policy(RoleName="ci", PolicyArn=READ_ONLY)
    sts = boto3.client(
        "sts", endpoint_url=store.endpoint, region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}),
    )  # fmt: skip
    claims = {"iss": url, "sub": "ci", "aud": "app", "exp": int(time.time()) + 600}

    def assume(token: str) -> Any:
        return sts.assume_role_with_web_identity(
            RoleArn=role, RoleSessionName="run-1", WebIdentityToken=token
        )

    made = assume(maker.token(claims))
    assert (made["SubjectFromWebIdentityToken"], made["Provider"]) == ("ci", arn)
    s3, who = session_clients(store, made["Credentials"])
    assert s3.get_object(Bucket=own_bucket, Key="key")["Body"].read() == b"body"
    assert who.get_caller_identity()["Arn"].endswith(":assumed-role/ci/run-1")
    invalid = ("InvalidIdentityToken", 400)
    for change, expected in (
        ({"sub": "other"}, ("AccessDenied", 403)),
        ({"aud": "another-app"}, invalid),
        ({"iss": "https://elsewhere"}, invalid),
        ({"exp": 1}, ("ExpiredTokenException", 400)),
        (
            {"https://aws.amazon.com/tags": {"principal_tags": {"team": ["clay"]}}},
            ("InvalidInput", 400),
        ),
    ):
        assert error_of(assume, token=maker.token({**claims, **change})) == expected
    assert error_of(assume, token=TokenMaker().token(claims)) == invalid
    assert error_of(assume, token="not.a.token") == invalid
    assert error_of(sts.get_caller_identity) == ("MissingAuthenticationToken", 403)


def test_tags_of_a_new_bucket_need_a_permission_of_their_own(iam: Any, user: User) -> None:
    name = f"tagged-by-{user.name}"
    tagged = {"CreateBucketConfiguration": {"Tags": [{"Key": "a", "Value": "1"}]}}

    def may(*actions: str) -> None:
        iam.put_user_policy(
            UserName=user.name, PolicyName="p", PolicyDocument=policy("Allow", list(actions))
        )

    may("s3:CreateBucket", "s3:PutBucketTagging")
    assert error_of(user.s3.create_bucket, Bucket=name, **tagged) == ("AccessDenied", 403)
    may("s3:CreateBucket", "s3:TagResource", "s3:DeleteBucket")
    user.s3.create_bucket(Bucket=name, **tagged)
    user.s3.delete_bucket(Bucket=name)
