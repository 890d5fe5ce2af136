"""IAM by operators: `ostraka admin user|access-key|group|role|policy`, and what comes of it on the S3 port."""

import json
from pathlib import Path
from typing import Any

import pytest

from ops.admin_cli import Refusal, call
from tests.functional.conftest import error_of
from tests.functional.iam_clients import client_of
from tests.functional.store_process import StoreProcess
from tests.waiting import eventually

READ = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}],
}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}},
    ],
}


@pytest.fixture(scope="module")
def account(store: StoreProcess) -> str:
    """An account of its own."""
    made: dict[str, str] = store.admin("account", "create", "operated")
    return made["name"]


def allowed(s3: Any) -> bool:
    """Whether the key is let in now."""
    try:
        s3.list_buckets()
    except s3.exceptions.ClientError:
        return False
    return True


def test_a_user_comes_and_goes_by_commands(
    store: StoreProcess, account: str, tmp_path: Path
) -> None:
    def admin(*arguments: str) -> Any:
        return store.command(*arguments, "--account", account)

    file = tmp_path / "policy.json"
    file.write_text(json.dumps(READ))
    admin("user", "create", "ann")
    (key,) = [admin("access-key", "create", "--user", "ann")]
    key = key[0]
    (policy,) = admin("policy", "create", "readers", str(file))
    admin("group", "create", "team")
    admin("group", "add", "team", "--user", "ann")
    admin("policy", "attach", policy["Arn"], "--group", "team")
    shown = admin("user", "show", "ann")
    assert shown["AccessKeys"] == {key["AccessKeyId"]: "Active"}
    assert (shown["Groups"], shown["AttachedPolicies"], shown["OwnPolicies"]) == (["team"], [], [])
    group = admin("group", "show", "team")
    assert (group["Users"], group["AttachedPolicies"]) == (["ann"], [policy["Arn"]])
    assert admin("policy", "show", policy["Arn"])["Document"] == READ
    s3 = store.client(key["AccessKeyId"], key["SecretAccessKey"])
    eventually(lambda: allowed(s3), 20)
    admin("access-key", "disable", key["AccessKeyId"], "--user", "ann")
    eventually(lambda: not allowed(s3), 20)
    assert error_of(s3.list_buckets) == ("InvalidAccessKeyId", 403)
    admin("access-key", "enable", key["AccessKeyId"], "--user", "ann")
    eventually(lambda: allowed(s3), 20)
    admin("policy", "detach", policy["Arn"], "--group", "team")
    admin("group", "remove", "team", "--user", "ann")
    admin("access-key", "delete", key["AccessKeyId"], "--user", "ann")
    for arguments in (("group", "delete", "team"), ("policy", "delete", policy["Arn"])):
        admin(*arguments)
    admin("user", "delete", "ann")
    assert admin("user", "list") == admin("group", "list") == []


def test_a_role_comes_and_goes_by_commands(
    store: StoreProcess, account: str, tmp_path: Path
) -> None:
    def admin(*arguments: str) -> Any:
        return store.command(*arguments, "--account", account)

    file = tmp_path / "trust.json"
    file.write_text(json.dumps(TRUST))
    (made,) = admin("role", "create", "guest", str(file))
    assert [role["Arn"] for role in admin("role", "list")] == [made["Arn"]]
    policy = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    admin("policy", "attach", policy, "--role", "guest")
    shown = admin("role", "show", "guest")
    assert shown["AssumeRolePolicyDocument"] == TRUST
    assert shown["AttachedPolicies"] == [policy]
    admin("policy", "detach", policy, "--role", "guest")
    admin("role", "delete", "guest")
    assert admin("role", "list") == []


@pytest.mark.parametrize(
    ("action", "parameters", "code"),
    [
        ("GetUser", {"UserName": "nobody"}, "NoSuchEntity"),
        ("GetGroup", {"GroupName": "none"}, "NoSuchEntity"),
        ("GetRole", {"RoleName": "none"}, "NoSuchEntity"),
        ("UpdateAccessKey", {"UserName": "nobody", "AccessKeyId": "A" * 20, "Status": "Active"},
         "NoSuchEntity"),
        ("DropTable", {}, "InvalidAction"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_in_one_sentence(
    store: StoreProcess, account: str, action: str, parameters: dict[str, str], code: str
) -> None:
    document = {"account": account, "action": action, "parameters": parameters}
    with pytest.raises(Refusal, match=f"^{code}: [^\n]+$"):
        call(store.admin_url, store.directory, "POST", "/api/v1/iam", document)


def test_an_operator_may_bring_a_key_and_bring_it_again(store: StoreProcess, account: str) -> None:
    """What is written down elsewhere, as in a secret of Kubernetes; a key is one user's alone."""

    def iam(action: str, **parameters: str) -> Any:
        document = {"account": account, "action": action, "parameters": parameters}
        return call(store.admin_url, store.directory, "POST", "/api/v1/iam", document)

    for user in ("brought", "other"):
        iam("CreateUser", UserName=user)
    pair = {"AccessKeyId": "BROUGHT_KEY_1", "SecretAccessKey": "a-secret-of-theirs"}
    for _ in range(2):
        made = iam("CreateAccessKey", UserName="brought", **pair)["AccessKey"]
        assert made.items() >= pair.items()
    listed = iam("ListAccessKeys", UserName="brought")["AccessKeyMetadata"]
    assert [key["AccessKeyId"] for key in listed] == ["BROUGHT_KEY_1"]
    sts = client_of(store, "sts", pair["AccessKeyId"], pair["SecretAccessKey"])
    assert sts.get_caller_identity()["Arn"].endswith(":user/brought")
    for user, given, reason in (
        ("other", pair, "EntityAlreadyExists"),
        ("brought", pair | {"SecretAccessKey": "another-secret"}, "EntityAlreadyExists"),
        ("other", pair | {"AccessKeyId": store.credentials[0]}, "EntityAlreadyExists"),
        ("other", {"AccessKeyId": "LONELY"}, "given together"),
        ("other", {"AccessKeyId": "a b", "SecretAccessKey": "long-enough"}, "3 to 128"),
        ("other", {"AccessKeyId": "SHORT", "SecretAccessKey": "short"}, "8 to 128"),
    ):
        with pytest.raises(Refusal, match=reason) as refused:
            iam("CreateAccessKey", UserName=user, **given)
        assert given.get("SecretAccessKey", "\n") not in str(refused.value)
    assert iam("ListAccessKeys", UserName="other")["AccessKeyMetadata"] == []


def test_whoever_signs_for_iam_cannot_choose_a_key(store: StoreProcess) -> None:
    """On the S3 port keys are random, as at AWS; other parameters mean nothing."""
    iam = client_of(store, "iam", *store.credentials)

    def choose(params: dict[str, Any], **_: Any) -> None:
        params["body"] |= {"AccessKeyId": "CHOSEN_KEY", "SecretAccessKey": "chosen-secret"}

    iam.create_user(UserName="chooser")
    iam.meta.events.register("before-call.iam.CreateAccessKey", choose)
    made = iam.create_access_key(UserName="chooser")["AccessKey"]
    assert made["AccessKeyId"].startswith("AKIA")
    assert made["SecretAccessKey"] != "chosen-secret"
