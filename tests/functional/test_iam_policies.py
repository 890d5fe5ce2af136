"""Versions of policies, whom they are attached to, tags, and what users never have, with boto3."""

import itertools
import json
from typing import Any

import pytest

from tests.functional.conftest import error_of
from tests.functional.iam_clients import User, client_of, let_changes_arrive, policy, trust
from tests.functional.store_process import StoreProcess

_numbers = itertools.count(1)
READ_ONLY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
MISSING, DENIED = ("NoSuchEntity", 404), ("AccessDenied", 403)


@pytest.fixture(scope="module")
def account(store: StoreProcess) -> dict[str, str]:
    """An account of this file's own."""
    made: dict[str, str] = store.command("account", "create", "iam-policies")
    return made


@pytest.fixture(scope="module")
def iam(store: StoreProcess, account: dict[str, str]) -> Any:
    """The IAM client of the account's root."""
    return let_changes_arrive(client_of(store, "iam", account["access_key"], account["secret_key"]))


@pytest.fixture
def user(store: StoreProcess, iam: Any) -> User:
    """A fresh user who may do nothing."""
    return User(store, iam, f"user-{next(_numbers)}", "/team/")


@pytest.fixture
def shared(iam: Any) -> str:
    """The ARN of a managed policy that permits listing buckets."""
    document = policy("Allow", "s3:ListAllMyBuckets")
    made = iam.create_policy(
        PolicyName=f"shared-{next(_numbers)}", PolicyDocument=document, Path="/team/"
    )
    arn: str = made["Policy"]["Arn"]
    return arn


def permit(iam: Any, user: User, action: str | list[str], resource: str) -> None:
    iam.put_user_policy(
        UserName=user.name, PolicyName="p", PolicyDocument=policy("Allow", action, resource)
    )


def versions(iam: Any, arn: str) -> list[tuple[str, bool]]:
    found = iam.list_policy_versions(PolicyArn=arn)
    assert not found["IsTruncated"]
    return [(each["VersionId"], each["IsDefaultVersion"]) for each in found["Versions"]]


# Versions


def test_a_policy_says_what_its_default_version_says(iam: Any, user: User, shared: str) -> None:
    iam.attach_user_policy(UserName=user.name, PolicyArn=shared)
    user.s3.list_buckets()
    nothing = policy("Deny", "s3:ListAllMyBuckets")
    made = iam.create_policy_version(PolicyArn=shared, PolicyDocument=nothing)["PolicyVersion"]
    assert (made["VersionId"], made["IsDefaultVersion"]) == ("v2", False)
    assert "Document" not in made
    user.s3.list_buckets()
    iam.set_default_policy_version(PolicyArn=shared, VersionId="v2")
    assert error_of(user.s3.list_buckets) == DENIED
    found = iam.get_policy(PolicyArn=shared)["Policy"]
    assert found["DefaultVersionId"] == "v2"
    assert found["UpdateDate"] == made["CreateDate"] >= found["CreateDate"]
    again = iam.create_policy_version(
        PolicyArn=shared, PolicyDocument=policy("Allow", "s3:*"), SetAsDefault=True
    )
    assert again["PolicyVersion"]["IsDefaultVersion"]
    user.s3.list_buckets()
    assert versions(iam, shared) == [("v3", True), ("v2", False), ("v1", False)]
    shown = iam.get_policy_version(PolicyArn=shared, VersionId="v2")["PolicyVersion"]
    assert shown == {**made, "Document": json.loads(nothing)}


def test_five_versions_of_which_the_default_stays(iam: Any, shared: str) -> None:
    document = policy("Allow", "s3:*")
    for _ in range(4):
        iam.create_policy_version(PolicyArn=shared, PolicyDocument=document)
    full = error_of(iam.create_policy_version, PolicyArn=shared, PolicyDocument=document)
    assert full == ("LimitExceeded", 409)
    kept = error_of(iam.delete_policy_version, PolicyArn=shared, VersionId="v1")
    assert kept == ("DeleteConflict", 409)
    iam.delete_policy_version(PolicyArn=shared, VersionId="v5")
    made = iam.create_policy_version(PolicyArn=shared, PolicyDocument=document)
    assert made["PolicyVersion"]["VersionId"] == "v6"
    pages = iam.get_paginator("list_policy_versions").paginate(
        PolicyArn=shared, PaginationConfig={"PageSize": 2}
    )
    listed = [[each["VersionId"] for each in page["Versions"]] for page in pages]
    assert listed == [["v6", "v4"], ["v3", "v2"], ["v1"]]
    assert error_of(iam.delete_policy, PolicyArn=shared) == ("DeleteConflict", 409)
    for version in ("v6", "v4", "v3", "v2"):
        iam.delete_policy_version(PolicyArn=shared, VersionId=version)
    iam.delete_policy(PolicyArn=shared)
    assert error_of(iam.list_policy_versions, PolicyArn=shared) == MISSING


def test_versions_that_cannot_be(iam: Any, shared: str) -> None:
    for call in (
        iam.get_policy_version,
        iam.set_default_policy_version,
        iam.delete_policy_version,
    ):
        assert error_of(call, PolicyArn=shared, VersionId="v9") == MISSING
        assert error_of(call, PolicyArn=shared, VersionId="9") == ("ValidationError", 400)
        assert error_of(call, PolicyArn=shared + "x", VersionId="v1") == MISSING
    refused = error_of(iam.create_policy_version, PolicyArn=shared, PolicyDocument="{")
    assert refused == ("MalformedPolicyDocument", 400)
    long = policy("Allow", "s3:GetObject", "arn:aws:s3:::" + "x" * 6144)
    refused = error_of(iam.create_policy_version, PolicyArn=shared, PolicyDocument=long)
    assert refused == ("LimitExceeded", 409)
    assert versions(iam, shared) == [("v1", True)]


def test_policies_that_come_with_the_store_do_not_change(iam: Any) -> None:
    assert versions(iam, READ_ONLY) == [("v1", True)]
    unchanged = ("UnmodifiableEntity", 400)
    document = policy("Allow", "s3:*")
    refused = error_of(iam.create_policy_version, PolicyArn=READ_ONLY, PolicyDocument=document)
    assert refused == unchanged
    for call in (iam.set_default_policy_version, iam.delete_policy_version):
        assert error_of(call, PolicyArn=READ_ONLY, VersionId="v1") == unchanged
    tags = [{"Key": "k", "Value": "v"}]
    assert error_of(iam.tag_policy, PolicyArn=READ_ONLY, Tags=tags) == unchanged
    assert iam.list_policy_tags(PolicyArn=READ_ONLY)["Tags"] == []


def test_versions_need_permissions_on_that_policy(iam: Any, user: User, shared: str) -> None:
    other = iam.create_policy(
        PolicyName=f"other-{next(_numbers)}", PolicyDocument=policy("Allow", "s3:*")
    )["Policy"]["Arn"]
    document = policy("Allow", "s3:*")
    every = [
        "iam:CreatePolicyVersion",
        "iam:GetPolicyVersion",
        "iam:ListPolicyVersions",
        "iam:SetDefaultPolicyVersion",
        "iam:DeletePolicyVersion",
        "iam:ListEntitiesForPolicy",
        "iam:TagPolicy",
        "iam:ListPolicyTags",
        "iam:UntagPolicy",
    ]

    def steps(arn: str) -> list[tuple[str, dict[str, Any]]]:
        on = {"PolicyArn": arn}
        return [
            ("create_policy_version", {**on, "PolicyDocument": document}),
            ("get_policy_version", {**on, "VersionId": "v2"}),
            ("list_policy_versions", on),
            ("set_default_policy_version", {**on, "VersionId": "v2"}),
            ("delete_policy_version", {**on, "VersionId": "v1"}),
            ("list_entities_for_policy", on),
            ("tag_policy", {**on, "Tags": [{"Key": "k", "Value": "v"}]}),
            ("list_policy_tags", on),
            ("untag_policy", {**on, "TagKeys": ["k"]}),
        ]

    for name, arguments in steps(shared):
        assert error_of(getattr(user.iam, name), **arguments) == DENIED
    permit(iam, user, every, shared)
    for name, arguments in steps(other):
        assert error_of(getattr(user.iam, name), **arguments) == DENIED
    for name, arguments in steps(shared):
        getattr(user.iam, name)(**arguments)


# Whom a policy is attached to


def test_entities_of_a_policy_are_listed(iam: Any, user: User, shared: str) -> None:
    group, role = f"group-{next(_numbers)}", f"role-{next(_numbers)}"
    group_id = iam.create_group(GroupName=group)["Group"]["GroupId"]
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust("*"), Path="/team/")
    for arn in (shared, READ_ONLY):
        iam.attach_user_policy(UserName=user.name, PolicyArn=arn)
        iam.attach_group_policy(GroupName=group, PolicyArn=arn)
        iam.attach_role_policy(RoleName=role, PolicyArn=arn)

    def entities(arn: str = shared, **asked: str) -> list[str]:
        found = iam.list_entities_for_policy(PolicyArn=arn, **asked)
        kinds = ("Group", "Role", "User")
        return [each[f"{kind}Name"] for kind in kinds for each in found[f"Policy{kind}s"]]

    for arn in (shared, READ_ONLY):
        assert entities(arn) == [group, role, user.name]
        assert iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 3
    assert entities(EntityFilter="Role") == [role]
    assert entities(EntityFilter="LocalManagedPolicy") == []
    assert entities(PathPrefix="/team/") == [role, user.name]
    assert entities(PolicyUsageFilter="PermissionsPolicy") == [group, role, user.name]
    assert entities(PolicyUsageFilter="PermissionsBoundary") == []
    unknown = error_of(iam.list_entities_for_policy, PolicyArn=shared, EntityFilter="Cat")
    assert unknown == ("ValidationError", 400)
    assert error_of(iam.list_entities_for_policy, PolicyArn=shared + "x") == MISSING
    pages = list(
        iam.get_paginator("list_entities_for_policy").paginate(
            PolicyArn=shared, PaginationConfig={"PageSize": 2}
        )
    )
    assert pages[0]["PolicyGroups"] == [{"GroupName": group, "GroupId": group_id}]
    assert [len(page["PolicyUsers"]) for page in pages] == [0, 1]
    attached = {each["Arn"] for each in iam.list_policies(OnlyAttached=True)["Policies"]}
    assert {shared, READ_ONLY} <= attached
    for arn in (shared, READ_ONLY):
        iam.detach_group_policy(GroupName=group, PolicyArn=arn)
        assert entities(arn) == [role, user.name]


# Tags


def test_tags_are_set_listed_and_taken_away(
    iam: Any, user: User, shared: str, account: dict[str, str]
) -> None:
    role = f"role-{next(_numbers)}"
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust("*"))
    provider = iam.create_open_id_connect_provider(
        Url=f"https://idp-{next(_numbers)}.example.com", Tags=[{"Key": "k", "Value": "v"}]
    )["OpenIDConnectProviderArn"]
    iam.untag_open_id_connect_provider(OpenIDConnectProviderArn=provider, TagKeys=["k"])
    for kind, named in (
        ("user", {"UserName": user.name}),
        ("role", {"RoleName": role}),
        ("policy", {"PolicyArn": shared}),
        ("open_id_connect_provider", {"OpenIDConnectProviderArn": provider}),
    ):
        tag, untag = getattr(iam, f"tag_{kind}"), getattr(iam, f"untag_{kind}")
        tag(**named, Tags=[{"Key": "b", "Value": "1"}, {"Key": "a", "Value": ""}])
        tag(**named, Tags=[{"Key": "b", "Value": "2"}, {"Key": "c", "Value": "ü"}])
        list_tags = f"list_{kind}_tags"
        found = getattr(iam, list_tags)(**named)["Tags"]
        assert [(each["Key"], each["Value"]) for each in found] == [
            *(("a", ""), ("b", "2"), ("c", "ü"))
        ]
        first = getattr(iam, list_tags)(**named, MaxItems=2)
        assert [each["Key"] for each in first["Tags"]] == ["a", "b"]
        rest = getattr(iam, list_tags)(**named, Marker=first["Marker"])
        assert [each["Key"] for each in rest["Tags"]] == ["c"]
        untag(**named, TagKeys=["a", "c", "absent"])
        many = [{"Key": f"k{number}", "Value": ""} for number in range(50)]
        assert error_of(tag, **named, Tags=many) == ("LimitExceeded", 409)
        reserved = [{"Key": "aws:x", "Value": ""}]
        assert error_of(tag, **named, Tags=reserved) == ("InvalidInput", 400)
        assert getattr(iam, list_tags)(**named)["Tags"] == [{"Key": "b", "Value": "2"}]
    left = [{"Key": "b", "Value": "2"}]
    assert iam.get_user(UserName=user.name)["User"]["Tags"] == left
    assert iam.get_role(RoleName=role)["Role"]["Tags"] == left
    assert iam.get_policy(PolicyArn=shared)["Policy"]["Tags"] == left
    found = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=provider)
    assert found["Tags"] == left
    assert error_of(iam.list_user_tags, UserName="nobody") == MISSING
    assert error_of(iam.tag_role, RoleName="nobody", Tags=left) == MISSING
    # A provider's ARN is judged by as it was given, so it must be given as it is.
    shouted = provider.replace("idp-", "IDP-")
    assert error_of(iam.delete_open_id_connect_provider, OpenIDConnectProviderArn=shouted) == (
        MISSING
    )


def test_tagging_needs_permissions_on_what_is_tagged(iam: Any, user: User) -> None:
    tags = [{"Key": "k", "Value": "v"}]
    permit(iam, user, ["iam:TagUser", "iam:CreateUser"], user.arn)
    user.iam.tag_user(UserName=user.name, Tags=tags)
    assert error_of(user.iam.tag_user, UserName="another", Tags=tags) == DENIED
    assert error_of(user.iam.untag_user, UserName=user.name, TagKeys=["k"]) == DENIED
    assert error_of(user.iam.list_user_tags, UserName=user.name) == DENIED
    permit(iam, user, "iam:CreateUser", "*")
    name = f"made-by-{user.name}"
    assert error_of(user.iam.create_user, UserName=name, Tags=tags) == DENIED
    permit(iam, user, ["iam:CreateUser", "iam:TagUser"], "*")
    user.iam.create_user(UserName=name, Tags=tags)


def test_a_provider_is_registered_by_whom_its_arn_permits(
    iam: Any, user: User, account: dict[str, str]
) -> None:
    host = f"idp-{next(_numbers)}.example.com"
    arn = f"arn:aws:iam::{account['account_id']}:oidc-provider/{host}"
    permit(iam, user, "iam:CreateOpenIDConnectProvider", arn)
    create = user.iam.create_open_id_connect_provider
    assert error_of(create, Url=f"https://other-{host}") == DENIED
    assert create(Url=f"https://{host}")["OpenIDConnectProviderArn"] == arn


# What users and roles never have


@pytest.mark.parametrize(
    ("call", "member"),
    [
        ("list_mfa_devices", "MFADevices"),
        ("list_ssh_public_keys", "SSHPublicKeys"),
        ("list_signing_certificates", "Certificates"),
        ("list_service_specific_credentials", "ServiceSpecificCredentials"),
    ],
)
def test_users_have_nothing_for_other_services(
    iam: Any, user: User, call: str, member: str
) -> None:
    assert getattr(iam, call)(UserName=user.name)[member] == []
    assert getattr(iam, call)()[member] == []
    assert error_of(getattr(iam, call), UserName="nobody") == MISSING
    assert error_of(getattr(user.iam, call)) == DENIED
    permit(iam, user, "iam:List*", user.arn)
    assert getattr(user.iam, call)()[member] == []
    assert error_of(getattr(user.iam, call), UserName="nobody") == DENIED


def test_users_have_no_password(iam: Any, user: User) -> None:
    for call in (iam.get_login_profile, iam.delete_login_profile):
        assert error_of(call, UserName=user.name) == MISSING
        assert error_of(call, UserName="nobody") == MISSING
        with pytest.raises(iam.exceptions.NoSuchEntityException, match="Login Profile"):
            call(UserName=user.name)


def test_there_are_no_devices_and_no_instance_profiles(iam: Any) -> None:
    assert iam.list_virtual_mfa_devices(AssignmentStatus="Any")["VirtualMFADevices"] == []
    role = f"role-{next(_numbers)}"
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust("*"))
    assert iam.list_instance_profiles_for_role(RoleName=role)["InstanceProfiles"] == []
    assert error_of(iam.list_instance_profiles_for_role, RoleName="nobody") == MISSING


def test_a_role_is_described_anew(iam: Any) -> None:
    role = f"role-{next(_numbers)}"
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust("*"), Description="old")
    changed = iam.update_role_description(RoleName=role, Description="new")["Role"]
    assert changed["Description"] == iam.get_role(RoleName=role)["Role"]["Description"] == "new"
    assert error_of(iam.update_role_description, RoleName="nobody", Description="") == MISSING


# Conditions on tags


def conditioned(action: str | list[str], condition: dict[str, Any], effect: str = "Allow") -> str:
    statement = {"Effect": effect, "Action": action, "Resource": "*", "Condition": condition}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def tagged(**tags: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def test_policies_ask_for_the_tags_of_what_is_asked_about(
    iam: Any, user: User, shared: str
) -> None:
    same_team = {"StringEquals": {"aws:ResourceTag/Team": "${aws:PrincipalTag/team}"}}
    document = conditioned(["iam:GetUser", "iam:GetPolicy"], same_team)
    iam.put_user_policy(UserName=user.name, PolicyName="p", PolicyDocument=document)
    other = f"user-{next(_numbers)}"
    iam.create_user(UserName=other, Tags=tagged(team="clay"))
    iam.tag_policy(PolicyArn=shared, Tags=tagged(team="clay"))

    assert error_of(user.iam.get_user, UserName=other) == DENIED
    iam.tag_user(UserName=user.name, Tags=tagged(Team="clay"))
    assert user.iam.get_user(UserName=other)["User"]["UserName"] == other
    assert user.iam.get_policy(PolicyArn=shared)["Policy"]["Arn"] == shared
    assert user.iam.get_user()["User"]["UserName"] == user.name
    iam.tag_user(UserName=user.name, Tags=tagged(team="sherd"))
    assert error_of(user.iam.get_user, UserName=other) == DENIED
    assert error_of(user.iam.get_policy, PolicyArn=shared) == DENIED


def test_policies_ask_for_the_tags_that_are_set(iam: Any, user: User) -> None:
    permit(iam, user, ["iam:TagUser", "iam:UntagUser"], user.arn)
    only = {"ForAnyValue:StringNotEquals": {"aws:TagKeys": ["team"]}}
    iam.put_user_policy(
        UserName=user.name,
        PolicyName="keys",
        PolicyDocument=conditioned("iam:*", only, "Deny"),
    )
    clay = {"StringNotEquals": {"aws:RequestTag/team": "clay"}}
    iam.put_user_policy(
        UserName=user.name,
        PolicyName="values",
        PolicyDocument=conditioned("iam:TagUser", clay, "Deny"),
    )
    tag = user.iam.tag_user
    tag(UserName=user.name, Tags=tagged(team="clay"))
    assert error_of(tag, UserName=user.name, Tags=tagged(team="sherd")) == DENIED
    assert error_of(tag, UserName=user.name, Tags=tagged(team="clay", more="")) == DENIED
    assert error_of(user.iam.untag_user, UserName=user.name, TagKeys=["more"]) == DENIED
    user.iam.untag_user(UserName=user.name, TagKeys=["team"])


def test_roles_bring_their_tags_to_buckets(store: StoreProcess, iam: Any, user: User) -> None:
    role = f"role-{next(_numbers)}"
    arn = iam.create_role(
        RoleName=role, AssumeRolePolicyDocument=trust(user.arn), Tags=tagged(reader="yes")
    )["Role"]["Arn"]
    readers = {"StringEquals": {"aws:PrincipalTag/reader": "yes"}}
    document = conditioned("s3:ListAllMyBuckets", readers)
    iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=document)
    made = user.sts.assume_role(RoleArn=arn, RoleSessionName="me")["Credentials"]
    parts = [made[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
    s3 = client_of(store, "s3", *parts)
    s3.list_buckets()
    iam.untag_role(RoleName=role, TagKeys=["reader"])
    assert error_of(s3.list_buckets) == DENIED
