"""Makes the accounts, users, groups and buckets that the chart's values list, where missing.

Usage: provision.py WANTED.json. Policies are set to what the values say, versioning is enabled. Run
twice it changes nothing; it never removes anything.
"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

REGION = os.environ["REGION"]
ADMIN = os.environ["ADMIN_ENDPOINT"].rstrip("/")
ROOT = (os.environ["OSTRAKA_ROOT_ACCESS_KEY"], os.environ["OSTRAKA_ROOT_SECRET_KEY"])


def trusted() -> ssl.SSLContext:
    """The authority that the chart mounts, if there is one; else those that everybody trusts."""
    ca_file = os.environ.get("CA_FILE", "")
    return ssl.create_default_context(cafile=ca_file if os.path.exists(ca_file) else None)


def wait_until_ready(seconds: float) -> None:
    """Until the write quorum is reachable."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"{ADMIN}/health/ready", timeout=5, context=trusted()):
                return
        except OSError as error:
            if time.monotonic() > end:
                raise SystemExit(f"{ADMIN} is not ready: {error}") from None
            time.sleep(2)


def admin(method: str, path: str, document: Any = None) -> Any:
    """A signed request to the admin API; its decoded answer."""
    body = b"" if document is None else json.dumps(document).encode()
    signed = AWSRequest(method, ADMIN + path, {"content-type": "application/json"}, data=body)
    signed.context["payload_signing_enabled"] = True
    S3SigV4Auth(Credentials(*ROOT), "s3", "us-east-1").add_auth(signed)
    request = urllib.request.Request(
        ADMIN + path, body or None, dict(signed.headers.items()), method=method
    )
    with urllib.request.urlopen(request, timeout=60, context=trusted()) as answer:
        return json.load(answer)


class IamError(Exception):
    """The store refused an action of IAM."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


def iam(account: str, action: str, **parameters: str) -> Any:
    """An action of IAM in that account; its result. Raises IamError."""
    document = {"account": account, "action": action, "parameters": parameters}
    try:
        return admin("POST", "/api/v1/iam", document)
    except urllib.error.HTTPError as error:
        told = json.loads(error.read())
        raise IamError(told["code"], told["message"]) from None


def missing(account: str, action: str, **parameters: str) -> bool:
    """Whether IAM does not know what is asked for. Raises IamError."""
    try:
        iam(account, action, **parameters)
    except IamError as error:
        if error.code != "NoSuchEntity":
            raise
        return True
    return False


def client(keys: tuple[str, str]) -> Any:
    """An S3 client of whoever has these keys."""
    ca_file = os.environ.get("CA_FILE", "")
    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=os.environ["S3_ENDPOINT"],
        region_name=REGION,
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
        verify=ca_file if os.path.exists(ca_file) else None,
        config=Config(s3={"addressing_style": "path"}),
    )


def keys_in(folder: Path) -> tuple[str, str]:
    """Access key and secret, as a mounted secret has them."""
    return ((folder / "access-key").read_text(), (folder / "secret-key").read_text())


def make_account(account: dict[str, str]) -> tuple[str, str]:
    """The account's keys, as its secret has them."""
    keys = keys_in(Path(os.environ["ACCOUNTS_FOLDER"]) / account["name"])
    known = {found["name"]: found for found in admin("GET", "/api/v1/accounts")}
    found = known.get(account["name"])
    if found is None:
        document = {"name": account["name"], "email": account.get("email", "")}
        document |= {"access_key": keys[0], "secret_key": keys[1]}
        admin("POST", "/api/v1/accounts", document)
        print(f"account {account['name']}: made")
    elif found["access_key"] != keys[0]:
        raise SystemExit(f"account {account['name']} exists with another access key")
    else:
        print(f"account {account['name']}: is there")
    return keys


def set_policies(kind: str, entry: dict[str, Any], account: str) -> None:
    """The inline policies of a user or group, each where it is missing or another."""
    for name, document in (entry.get("policies") or {}).items():
        which = {f"{kind}Name": entry["name"], "PolicyName": name}
        if not missing(account, f"Get{kind}Policy", **which):
            found = iam(account, f"Get{kind}Policy", **which)["PolicyDocument"]
            if json.loads(unquote(found)) == document:
                continue
        iam(account, f"Put{kind}Policy", **which, PolicyDocument=json.dumps(document))
        print(f"{kind.lower()} {entry['name']}: policy {name} set")


def make_group(group: dict[str, Any]) -> None:
    """The group with its policies."""
    account, name = group.get("account") or "root", group["name"]
    there = not missing(account, "GetGroup", GroupName=name)
    if not there:
        iam(account, "CreateGroup", GroupName=name)
    print(f"group {name}: {'is there' if there else 'made'}")
    set_policies("Group", group, account)


def make_user(user: dict[str, Any]) -> None:
    """The user with its policies, its groups and the key that its secret has."""
    account, name = user.get("account") or "root", user["name"]
    there = not missing(account, "GetUser", UserName=name)
    if not there:
        iam(account, "CreateUser", UserName=name)
    print(f"user {name}: {'is there' if there else 'made'}")
    set_policies("User", user, account)
    groups = iam(account, "ListGroupsForUser", UserName=name)["Groups"]
    for group in set(user.get("groups") or []) - {found["GroupName"] for found in groups}:
        iam(account, "AddUserToGroup", UserName=name, GroupName=group)
        print(f"user {name}: put into group {group}")
    access_key, secret = keys_in(Path(os.environ["USERS_FOLDER"]) / account / name)
    held = iam(account, "ListAccessKeys", UserName=name)["AccessKeyMetadata"]
    # Also where it is held: the store compares the secret.
    iam(account, "CreateAccessKey", UserName=name, AccessKeyId=access_key, SecretAccessKey=secret)
    if access_key not in {key["AccessKeyId"] for key in held}:
        print(f"user {name}: has the access key {access_key}")


def make_bucket(bucket: dict[str, Any], keys: tuple[str, str]) -> None:
    """The bucket, with what its entry says of versioning and policy."""
    s3, name = client(keys), bucket["name"]
    place = (
        {}
        if REGION == "us-east-1"
        else {"CreateBucketConfiguration": {"LocationConstraint": REGION}}
    )
    try:
        s3.head_bucket(Bucket=name)
        print(f"bucket {name}: is there")
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise SystemExit(f"bucket {name}: {error}") from None
        s3.create_bucket(Bucket=name, **place)
        print(f"bucket {name}: made")
    if (
        bucket.get("versioning")
        and s3.get_bucket_versioning(Bucket=name).get("Status") != "Enabled"
    ):
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        print(f"bucket {name}: versioning enabled")
    if bucket.get("policy"):
        s3.put_bucket_policy(Bucket=name, Policy=json.dumps(bucket["policy"]))
        print(f"bucket {name}: policy set")


def main() -> None:
    """Everything in WANTED.json, accounts first, then who is named by policies of buckets."""
    wanted = json.loads(Path(sys.argv[1]).read_text())
    wait_until_ready(float(os.environ.get("WAIT_SECONDS", "600")))
    keys = {account["name"]: make_account(account) for account in wanted["accounts"] or []}
    for make, kind in ((make_group, "group"), (make_user, "user")):
        for entry in wanted.get(f"{kind}s") or []:
            try:
                make(entry)
            except IamError as error:
                raise SystemExit(f"{kind} {entry['name']}: {error}") from None
    for bucket in wanted["buckets"] or []:
        make_bucket(bucket, keys[bucket["account"]] if bucket.get("account") else ROOT)


if __name__ == "__main__":
    main()
