"""The real Terraform with its AWS provider: buckets and IAM are made, changed and destroyed.

It needs `terraform`, and the provider in a folder that the variable TERRAFORM_PLUGINS names, laid out
as `terraform providers mirror` does it; nothing is downloaded.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conftest import error_of
from tests.functional.iam_clients import client_of, policy, trust
from tests.functional.store_process import CLEAN_ENVIRONMENT, StoreProcess

PLUGINS = Path(os.environ.get("TERRAFORM_PLUGINS", "/usr/local/share/terraform/plugins"))
_IS_THERE = (PLUGINS / "registry.terraform.io/hashicorp/aws").is_dir()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        shutil.which("terraform") is None or not _IS_THERE,
        reason="there is no terraform, or TERRAFORM_PLUGINS has no provider for AWS",
    ),
]
NO_CHANGES, CHANGES = 0, 2
"""Exit codes of `plan -detailed-exitcode`."""
Terraform = Callable[..., int]


@pytest.fixture
def terraform(store: StoreProcess, tmp_path: Path) -> Terraform:
    """Run one command in a folder of its own; its exit code, which must be one of `allowed`."""
    access_key, secret_key = store.credentials
    settings = tmp_path / "terraform.rc"
    settings.write_text(f'provider_installation {{ filesystem_mirror {{ path = "{PLUGINS}" }} }}\n')
    environment = {
        **CLEAN_ENVIRONMENT,
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "CHECKPOINT_DISABLE": "1",
        "HOME": str(tmp_path),
        "TF_CLI_CONFIG_FILE": str(settings),
    }

    def run(*arguments: str, allowed: tuple[int, ...] = (0,)) -> int:
        done = subprocess.run(
            ["terraform", *arguments, "-no-color"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env=environment,
            check=False,
        )
        assert done.returncode in allowed, done.stdout + done.stderr
        return done.returncode

    return run


def configuration(endpoint: str, *, later: bool) -> dict[str, Any]:
    """What there is to be; `later` with changes in many places."""
    tags = {"team": "clay", "more": "1"} if later else {"team": "sherd", "less": "1"}
    actions = ["s3:GetObject", "s3:PutObject"] if later else ["s3:GetObject"]
    bucket = {"bucket": "${aws_s3_bucket.b.id}"}
    resources: dict[str, dict[str, Any]] = {
        "aws_s3_bucket": {"b": {"bucket": "terraformed", "force_destroy": True, "tags": tags}},
        "aws_s3_bucket_versioning": {
            "v": {**bucket, "versioning_configuration": {"status": "Enabled"}}
        },
        "aws_s3_bucket_notification": {"n": bucket},
        "aws_s3_bucket_request_payment_configuration": {"p": {**bucket, "payer": "BucketOwner"}},
        "aws_s3_object": {
            "o": {**bucket, "key": "a/b", "content": "later" if later else "first", "tags": tags}
        },
        "aws_iam_group": {"g": {"name": "terraformed"}},
        "aws_iam_user": {"u": {"name": "terraformed", "force_destroy": True, "tags": tags}},
        "aws_iam_role": {
            "r": {
                "name": "terraformed",
                "assume_role_policy": trust("*"),
                "description": "later" if later else "first",
                "max_session_duration": 7200 if later else 3600,
                "tags": tags,
            }
        },
        "aws_iam_policy": {
            "p": {"name": "terraformed", "policy": policy("Allow", actions), "tags": tags}
        },
        "aws_iam_policy_attachment": {
            "a": {
                "name": "terraformed",
                "policy_arn": "${aws_iam_policy.p.arn}",
                "users": ["${aws_iam_user.u.name}"],
                "groups": ["${aws_iam_group.g.name}"],
                "roles": [] if later else ["${aws_iam_role.r.name}"],
            }
        },
        "aws_iam_openid_connect_provider": {
            "i": {
                "url": "https://idp.example.com/terraformed",
                "client_id_list": ["a", "b"] if later else ["a"],
                "thumbprint_list": ["0" * 40],
                "tags": tags,
            }
        },
    }
    provider = {
        "region": "us-east-1",
        "skip_credentials_validation": True,
        "skip_metadata_api_check": True,
        "s3_use_path_style": True,
        "endpoints": dict.fromkeys(("s3", "iam", "sts"), endpoint),
    }
    return {
        "terraform": {"required_providers": {"aws": {"source": "hashicorp/aws"}}},
        "provider": {"aws": provider},
        "resource": resources,
    }


def test_what_terraform_makes_it_changes_and_destroys(
    store: StoreProcess, s3: Any, tmp_path: Path, terraform: Terraform
) -> None:
    iam = client_of(store, "iam", *store.credentials)

    def write(*, later: bool) -> None:
        text = json.dumps(configuration(store.endpoint, later=later))
        (tmp_path / "main.tf.json").write_text(text)

    def plan() -> int:
        return terraform("plan", "-detailed-exitcode", allowed=(NO_CHANGES, CHANGES))

    write(later=False)
    terraform("init")
    terraform("apply", "-auto-approve")
    assert plan() == NO_CHANGES
    # What a user has that Terraform does not know of goes with it.
    iam.create_access_key(UserName="terraformed")
    write(later=True)
    assert plan() == CHANGES
    terraform("apply", "-auto-approve")
    assert plan() == NO_CHANGES
    (made,) = iam.list_policies(Scope="Local", OnlyAttached=True)["Policies"]
    assert (made["DefaultVersionId"], made["AttachmentCount"]) == ("v2", 2)
    assert s3.get_object(Bucket="terraformed", Key="a/b")["Body"].read() == b"later"
    terraform("destroy", "-auto-approve")
    assert error_of(iam.get_user, UserName="terraformed") == ("NoSuchEntity", 404)
    assert error_of(iam.get_policy, PolicyArn=made["Arn"]) == ("NoSuchEntity", 404)
    assert error_of(s3.head_bucket, Bucket="terraformed") == ("404", 404)
