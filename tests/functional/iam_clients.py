"""Clients, users and documents for the tests of IAM."""

import json
import time
from typing import Any

import boto3
from botocore.config import Config

from tests.functional.store_process import StoreProcess


def client_of(store: StoreProcess, service: Any, key: str, secret: str, token: str = "") -> Any:
    return boto3.client(
        service,
        endpoint_url=store.endpoint,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token or None,
        config=Config(retries={"total_max_attempts": 1}, signature_version=None),
    )


TOLD_SECONDS = 0.2
"""After a change of IAM: every worker hears of it by its watch, within milliseconds where none is
kept from running."""


def let_changes_arrive(iam: Any) -> Any:
    """The same IAM client; what it changes is known to every worker when its call returns."""
    iam.meta.events.register("after-call.iam", _wait_after_a_change)
    return iam


def _wait_after_a_change(model: Any, **_: Any) -> None:
    if not model.name.startswith(("Get", "List")):
        time.sleep(TOLD_SECONDS)


class User:
    """A user with an access key."""

    def __init__(self, store: StoreProcess, iam: Any, name: str, path: str = "/") -> None:
        self.name = name
        self.arn: str = iam.create_user(UserName=name, Path=path)["User"]["Arn"]
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self.key, self.secret = key["AccessKeyId"], key["SecretAccessKey"]
        self.s3 = store.client(self.key, self.secret)
        self.iam = client_of(store, "iam", self.key, self.secret)
        self.sts = client_of(store, "sts", self.key, self.secret)


def policy(effect: str, action: str | list[str], resource: str | list[str] = "*") -> str:
    statement = {"Effect": effect, "Action": action, "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def trust(*principals: str) -> str:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": list(principals)},
        "Action": "sts:AssumeRole",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
