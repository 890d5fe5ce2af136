"""A bucket policy that is put names actions that S3 has."""

import json

import pytest

from gateway.domain.policy.actions import S3_ACTIONS, refuse_unknown_actions
from gateway.domain.policy.document import Policy, read_bucket_policy
from gateway.domain.policy.errors import MalformedPolicy
from gateway.operations.registry import OPERATIONS


def policy_of(*actions: str, element: str = "Action") -> Policy:
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        element: list(actions),
        "Resource": ["arn:aws:s3:::pots", "arn:aws:s3:::pots/*"],
    }
    document = {"Version": "2012-10-17", "Statement": [statement]}
    return read_bucket_policy(json.dumps(document).encode(), "pots")


@pytest.mark.parametrize(
    "action",
    ["*", "s3:*", "S3:getobject", "s3:GetObject", "s3:Get*", "s3:?etObject", "s3:*Tagging"],
)
@pytest.mark.parametrize("element", ["Action", "NotAction"])
def test_actions_and_patterns_of_actions_pass(action: str, element: str) -> None:
    refuse_unknown_actions(policy_of("s3:PutObject", action, element=element))


@pytest.mark.parametrize(
    "action", ["s3:GetObjct", "s3:DeleteObjects", "ec2:RunInstances", "s3:Fetch*", "iam:*"]
)
@pytest.mark.parametrize("element", ["Action", "NotAction"])
def test_an_action_that_is_none_of_s3_is_refused(action: str, element: str) -> None:
    with pytest.raises(MalformedPolicy, match="Policy has invalid action"):
        refuse_unknown_actions(policy_of("s3:PutObject", action, element=element))


def test_every_permission_that_an_operation_asks_for_can_be_named() -> None:
    asked = {
        operation.permission
        for operation in OPERATIONS
        if isinstance(operation.permission, str) and operation.permission.startswith("s3:")
    }
    assert len(asked) > 30
    assert asked <= S3_ACTIONS
