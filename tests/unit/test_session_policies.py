"""What a session policy narrows, and what it does not: a grant of a bucket to the session itself.

Source: IAM User Guide, "Policies and permissions", "Session policies".
"""

import json

import pytest

from gateway.domain.access import BucketRules, is_permitted
from gateway.domain.policy.document import Policy, read_bucket_policy, read_policy
from gateway.domain.policy.question import Caller, Question

OWNER, OTHER = "111111111111", "222222222222"
ROLE = f"arn:aws:iam::{OWNER}:role/potter"
SESSION = f"arn:aws:sts::{OWNER}:assumed-role/potter/today"


class NoFacts:
    def values(self, key: str) -> None:
        """No request has any."""


def identity(effect: str, action: str) -> Policy:
    statement = {"Effect": effect, "Action": action, "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    return read_policy(json.dumps(document).encode(), with_principals=False)


def bucket(owner: str, *principals: str, effect: str = "Allow") -> BucketRules:
    """A bucket whose policy speaks of each of the principals in a statement of its own."""
    statements = [
        {
            "Effect": effect,
            "Principal": principal if principal == "*" else {"AWS": principal},
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::b/*",
        }
        for principal in principals
    ]
    document = json.dumps({"Version": "2012-10-17", "Statement": statements}).encode()
    return BucketRules(owner, read_bucket_policy(document, "b"))


def may_get(rules: BucketRules, session: Policy | None, *policies: Policy) -> bool:
    caller = Caller(OWNER, SESSION, "a" * 64, "AROA:today", ROLE)
    question = Question(caller, "s3:GetObject", "arn:aws:s3:::b/k", NoFacts())
    return is_permitted(question, rules, None, policies, session)


PUT_ONLY = identity("Allow", "s3:PutObject")


@pytest.mark.parametrize(
    ("principals", "permitted"),
    [
        ((SESSION,), True),
        ((ROLE, SESSION), True),
        (("*", SESSION), True),
        ((ROLE,), False),
        (("*",), False),
        ((OWNER,), False),
        ((SESSION.replace("today", "tomorrow"),), False),
    ],
)
def test_a_grant_to_the_session_itself_is_not_narrowed(
    principals: tuple[str, ...], permitted: bool
) -> None:
    assert may_get(bucket(OWNER, *principals), PUT_ONLY, identity("Allow", "s3:*")) is permitted


def test_a_grant_to_the_session_needs_no_policy_of_the_role() -> None:
    assert may_get(bucket(OWNER, SESSION), PUT_ONLY)
    assert may_get(bucket(OWNER, SESSION), None)
    assert may_get(bucket(OWNER, ROLE), None)


def test_a_deny_holds_wherever_it_stands() -> None:
    allowing = identity("Allow", "s3:*")
    assert not may_get(bucket(OWNER, SESSION), identity("Deny", "s3:GetObject"), allowing)
    assert not may_get(bucket(OWNER, SESSION), PUT_ONLY, identity("Deny", "s3:GetObject"))
    assert not may_get(bucket(OWNER, SESSION, effect="Deny"), allowing, allowing)


def test_another_accounts_bucket_cannot_widen_a_session() -> None:
    assert not may_get(bucket(OTHER, SESSION), PUT_ONLY, identity("Allow", "s3:*"))
    assert may_get(bucket(OTHER, SESSION), identity("Allow", "s3:*"), identity("Allow", "s3:*"))
