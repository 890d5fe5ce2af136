"""A bucket policy that is put: its actions fit its resources, its conditions its actions; and IAM's words
for the same faults in the policies of identities and roles."""

import json
from typing import Any

import pytest

from gateway.domain.iam import IamRefused, read_identity_policy, read_trust_policy
from gateway.domain.policy.applicability import (
    ACTION_WITHOUT_RESOURCE,
    CONDITION_WITHOUT_ACTION,
    refuse_mismatches,
)
from gateway.domain.policy.conditions import WITHOUT_VENDOR
from gateway.domain.policy.document import Policy, read_bucket_policy
from gateway.domain.policy.errors import LEGACY, SYNTAX, MalformedPolicy

BUCKET, OBJECTS = "arn:aws:s3:::pots", "arn:aws:s3:::pots/*"


def policy_of(**changes: Any) -> Policy:
    statement = {"Effect": "Allow", "Principal": "*", **changes}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    return read_bucket_policy(json.dumps(document).encode(), "pots")


FITTING = [
    ("s3:GetObject", OBJECTS),
    ("s3:GetObject", [BUCKET, OBJECTS]),
    ("s3:ListBucket", BUCKET),
    ("s3:ListBucketMultipartUploads", BUCKET),
    ("s3:ListMultipartUploadParts", "arn:aws:s3:::pots/one"),
    (["s3:GetObject", "s3:ListBucket"], [BUCKET, OBJECTS]),
    ("s3:*", BUCKET),
    ("s3:*", OBJECTS),
    ("*", OBJECTS),
    ("s3:Get*", BUCKET),
    ("s3:GetObject", "arn:aws:s3:::pots*"),
    ("s3:GetObject", "arn:aws:s3:::pots/a:::b"),
    ("s3:ListBucket", "arn:aws:s3:::po*"),
    (["s3:GetObject", "s3:ListBucket"], "*"),
    ("s3:GetObject", "arn:aws:s3:::pots/${aws:username}/*"),
    ("s3:GetBucketObjectLockConfiguration", BUCKET),
]


@pytest.mark.parametrize(("action", "resource"), FITTING)
def test_actions_that_fit_a_resource_pass(action: Any, resource: Any) -> None:
    refuse_mismatches(policy_of(Action=action, Resource=resource))


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("s3:GetObject", BUCKET),
        ("s3:PutObject*", BUCKET),
        ("s3:ListBucket", OBJECTS),
        ("s3:GetBucketObjectLockConfiguration", OBJECTS),
        (["s3:GetObject", "s3:ListBucket"], BUCKET),
        (["s3:GetObject", "s3:ListBucket"], OBJECTS),
        ("s3:ListAllMyBuckets", [BUCKET, OBJECTS]),
        ("s3:CreateJob", [BUCKET, OBJECTS]),
        ("s3:GetAccessPoint*", [BUCKET, OBJECTS]),
    ],
)
def test_an_action_without_a_resource_is_refused(action: Any, resource: Any) -> None:
    with pytest.raises(MalformedPolicy) as caught:
        refuse_mismatches(policy_of(Action=action, Resource=resource))
    assert str(caught.value) == ACTION_WITHOUT_RESOURCE


def test_what_names_all_but_some_is_not_judged() -> None:
    refuse_mismatches(policy_of(NotAction="s3:GetObject", Resource=BUCKET))
    refuse_mismatches(policy_of(Action="s3:GetObject", NotResource=BUCKET))


CONDITIONS = [
    ("s3:ListBucket", "s3:prefix", True),
    (["s3:ListBucket", "s3:ListBucketVersions"], "s3:delimiter", True),
    ("s3:List*", "s3:prefix", True),
    ("s3:*", "s3:x-amz-acl", True),
    ("s3:PutObject", "s3:x-amz-server-side-encryption", True),
    ("s3:GetObject", "s3:ExistingObjectTag/stage", True),
    ("s3:PutObjectTagging", "s3:RequestObjectTag/stage", True),
    (["s3:GetObject", "s3:ListBucket"], "aws:SourceIp", True),
    (["s3:GetObject", "s3:ListBucket"], "s3:TlsVersion", True),
    ("s3:GetObject", "s3:prefix", False),
    (["s3:ListBucket", "s3:GetObject"], "s3:prefix", False),
    ("s3:ListBucketMultipartUploads", "s3:prefix", False),
    ("s3:Get*", "s3:x-amz-acl", False),
    ("s3:GetObjectRetention", "s3:ExistingObjectTag/stage", False),
    ("s3:DeleteObject", "s3:if-none-match", False),
    ("s3:GetObject", "s3:VersionId", False),
]


@pytest.mark.parametrize(("action", "key", "fits"), CONDITIONS)
def test_conditions_fit_every_action(action: Any, key: str, fits: bool) -> None:
    policy = policy_of(
        Action=action,
        Resource=[BUCKET, OBJECTS],
        Condition={"StringLike" if key != "aws:SourceIp" else "IpAddress": {key: "10.0.0.1"}},
    )
    if fits:
        refuse_mismatches(policy)
        return
    with pytest.raises(MalformedPolicy) as caught:
        refuse_mismatches(policy)
    assert str(caught.value) == CONDITION_WITHOUT_ACTION


@pytest.mark.parametrize(
    ("principal", "known"),
    [
        ({"Service": "logging.s3.amazonaws.com"}, True),
        ({"Service": ["delivery.logs.amazonaws.com", "cloudtrail.amazonaws.com"]}, True),
        ({"Federated": "cognito-identity.amazonaws.com"}, True),
        ({"Federated": "arn:aws:iam::111122223333:oidc-provider/idp.example.com/realm"}, True),
        ({"Service": "logging"}, False),
        ({"Service": "*"}, False),
        ({"Federated": "realm"}, False),
        ({"Federated": "arn:aws:iam::1:oidc-provider/x"}, False),
    ],
)
def test_services_and_providers_have_names_that_can_be(principal: Any, known: bool) -> None:
    policy = policy_of(Action="s3:GetObject", Resource=OBJECTS, Principal=principal)
    if known:
        refuse_mismatches(policy)
        return
    with pytest.raises(MalformedPolicy, match="Invalid principal in policy"):
        refuse_mismatches(policy)


@pytest.mark.parametrize(
    ("resource", "valid"),
    [
        ("arn:aws:s3:::pots/*", True),
        ("arn:aws:s3:*:*:pots/*", True),
        ("arn:aws:s3:us-east-1::pots/*", False),
        ("arn:aws:s3::111122223333:pots/*", False),
    ],
)
def test_buckets_have_no_region_in_their_arn(resource: str, valid: bool) -> None:
    policy = policy_of(Action="s3:GetObject", Resource=resource)
    if valid:
        refuse_mismatches(policy)
        return
    with pytest.raises(MalformedPolicy, match="Policy has invalid resource"):
        refuse_mismatches(policy)


def identity(**changes: Any) -> str:
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"} | changes
    kept = {name: value for name, value in statement.items() if value is not None}
    return json.dumps({"Version": "2012-10-17", "Statement": [kept]})


OF_IDENTITIES = [
    ("{", SYNTAX),
    ("[]", SYNTAX),
    ('{"Version":"2012-10-17","Statement":[]}', SYNTAX),
    (identity(Colour="red"), SYNTAX),
    (identity(Effect=None), SYNTAX),
    (identity(Effect="allow"), LEGACY),
    (identity(Effect="maybe"), SYNTAX),
    (
        identity(Sid="a b"),
        "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular"
        " expression [0-9A-Za-z]*",
    ),
    (identity(Action=None), "Policy statement must contain actions."),
    (identity(Action=[]), "Policy statement must contain actions."),
    (identity(Action=[1]), SYNTAX),
    (identity(Action="GetObject"), WITHOUT_VENDOR),
    (identity(Action="s3:Get:Object"), "Actions/Condition can contain only one colon."),
    (identity(Action="s 3:GetObject"), "Vendor s 3 is not valid"),
    (identity(Resource=None), "Policy statement must contain resources."),
    (identity(Resource=[]), "Policy statement must contain resources."),
    (identity(Resource="pots/*"), 'Resource pots/* must be in ARN format or "*".'),
    (identity(Resource="arn:aws:s3"), LEGACY),
    (identity(Principal="*"), "Policy document should not specify a principal."),
    (identity(Condition={"StringIs": {"aws:Referer": "x"}}), SYNTAX),
    (identity(Condition={"StringEquals": {"referer": "x"}}), WITHOUT_VENDOR),
    (
        identity(Condition={"StringEquals": {"s3:colour": "x"}}),
        "Policy has an invalid condition key",
    ),
    (identity(Condition={"DateLessThan": {"aws:CurrentTime": "soon"}}), LEGACY),
]


@pytest.mark.parametrize(("document", "message"), OF_IDENTITIES)
def test_policies_of_identities_are_refused_in_iam_words(document: str, message: str) -> None:
    with pytest.raises(IamRefused) as caught:
        read_identity_policy(document)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"Action": ["sts:AssumeRole", "sts:TagSession"]}, None),
        ({"Action": "sts:*"}, None),
        ({"Action": "*"}, "AssumeRole policy may only specify STS AssumeRole actions."),
        ({"Action": "s3:GetObject"}, "AssumeRole policy may only specify STS AssumeRole actions."),
        ({"Resource": "*"}, "Has prohibited field Resource"),
        ({"Principal": {"AWS": "arn:aws:iam::1:group/x"}}, "Invalid principal in policy"),
        ({"Principal": None}, "Missing required field Principal"),
    ],
)
def test_trust_policies_name_principals_and_actions_of_sts(
    changes: dict[str, Any], message: str | None
) -> None:
    trust = {"Action": "sts:AssumeRole", "Principal": {"AWS": "111122223333"}, "Resource": None}
    document = identity(**(trust | changes))
    if message is None:
        read_trust_policy(document)
        return
    with pytest.raises(IamRefused) as caught:
        read_trust_policy(document)
    assert caught.value.message == message
