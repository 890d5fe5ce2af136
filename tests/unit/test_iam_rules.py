"""Rules of IAM: who may assume a role, what a session may, what parameters and policies are taken."""

import contextlib
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import iam
from gateway.domain.access import BucketRules, is_denied, is_permitted, may_assume, may_by_identity
from gateway.domain.iam import USER, IamRefused, Refusal
from gateway.domain.managed_policies import ALL, managed_policy
from gateway.domain.policy.document import Policy
from gateway.domain.policy.question import Caller, Question
from gateway.iam.answers import Entries, answer, refusal
from gateway.iam.form import Form, read_form, write_marker
from gateway.iam.registry import ACTIONS

HOME, AWAY = "111111111111", "222222222222"
ROLE = f"arn:aws:iam::{HOME}:role/r"
ROOT, USER_ARN = f"arn:aws:iam::{HOME}:root", f"arn:aws:iam::{HOME}:user/u"
AWAY_USER = f"arn:aws:iam::{AWAY}:user/u"


class NoFacts:
    def values(self, key: str) -> Sequence[str] | None:
        return None


def question(caller: Caller, action: str = "sts:AssumeRole", resource: str = ROLE) -> Question:
    return Question(caller, action, resource, NoFacts())


def identity(effect: str, action: str = "*") -> Policy:
    statement = {"Effect": effect, "Action": action, "Resource": "*"}
    return iam.read_identity_policy(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


def trust(effect: str, *principals: str) -> Policy:
    statement = {
        "Effect": effect,
        "Principal": {"AWS": list(principals)},
        "Action": "sts:AssumeRole",
    }
    return iam.read_trust_policy(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


@pytest.mark.parametrize(
    ("arn", "trusted", "own", "expected"),
    [
        (USER_ARN, trust("Allow", USER_ARN), (), True),
        (USER_ARN, trust("Allow", "*"), (), True),
        (USER_ARN, trust("Allow", ROOT), (), False),
        (USER_ARN, trust("Allow", HOME), (identity("Allow"),), True),
        (USER_ARN, trust("Allow", USER_ARN), (identity("Deny"),), False),
        (USER_ARN, trust("Deny", USER_ARN), (identity("Allow"),), False),
        (USER_ARN, trust("Allow", AWAY_USER), (identity("Allow"),), False),
        (ROOT, trust("Allow", ROOT), (), True),
        (ROOT, trust("Allow", USER_ARN), (), False),
        (AWAY_USER, trust("Allow", AWAY_USER), (), False),
        (AWAY_USER, trust("Allow", AWAY_USER), (identity("Allow", "s3:*"),), False),
        (AWAY_USER, trust("Allow", AWAY_USER), (identity("Allow", "sts:*"),), True),
        (AWAY_USER, trust("Allow", AWAY), (identity("Allow"),), True),
        (f"arn:aws:iam::{AWAY}:root", trust("Allow", AWAY), (), True),
    ],
)
def test_a_role_is_assumed_when_both_sides_agree(
    arn: str, trusted: Policy, own: tuple[Policy, ...], expected: bool
) -> None:
    caller = Caller(arn.split(":")[4], arn)
    assert may_assume(question(caller), trusted, HOME, own) is expected


def test_a_session_is_bounded_by_its_policy_whoever_grants() -> None:
    arn = iam.session_arn(HOME, "r", "s")
    caller = Caller(HOME, arn, role_arn=ROLE)
    asked = question(caller, "s3:GetObject", "arn:aws:s3:::b/k")
    rules, all_of_it = BucketRules(HOME), (identity("Allow"),)
    assert is_permitted(asked, rules, None, all_of_it)
    assert is_permitted(asked, rules, None, all_of_it, identity("Allow", "s3:Get*"))
    assert not is_permitted(asked, rules, None, all_of_it, identity("Allow", "s3:Put*"))
    assert not is_permitted(asked, rules, None, (), identity("Allow"))
    assert is_denied(asked, rules, all_of_it, identity("Allow", "s3:Put*"))
    assert not is_denied(asked, rules, all_of_it, identity("Allow"))
    assert not may_by_identity(asked, all_of_it, identity("Deny"))
    assert may_by_identity(asked, all_of_it)


def test_a_policy_means_a_role_or_one_session_of_it() -> None:
    arn = iam.session_arn(HOME, "r", "s")
    caller = Caller(HOME, arn, role_arn=ROLE)
    for named, expected in ((ROLE, True), (arn, True), (iam.session_arn(HOME, "r", "t"), False)):
        assert may_assume(question(caller), trust("Allow", named), HOME, ()) is expected


def test_an_identity_provider_is_meant_by_its_arn_only() -> None:
    provider = f"arn:aws:iam::{HOME}:oidc-provider/idp"
    caller = Caller(HOME, provider, federated=provider)
    assert not may_assume(question(caller), trust("Allow", "*"), HOME, (identity("Allow"),))


@pytest.mark.parametrize(
    "change",
    [
        {"Resource": "*"},
        {"Principal": None},
        {"Effect": "Maybe"},
        {"Condition": {"StringEquals": {"nocolon": "x"}}},
    ],
)
def test_trust_policies_that_are_refused(change: dict[str, Any]) -> None:
    statement = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"} | change
    with pytest.raises(IamRefused) as refused:
        iam.read_trust_policy(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    assert refused.value.refusal is Refusal.MALFORMED_POLICY


@pytest.mark.parametrize(
    ("arn", "expected"),
    [
        (f"arn:aws:iam::{HOME}:role/r", (HOME, "r")),
        (f"arn:aws:iam::{HOME}:role/a/b/r", (HOME, "r")),
        (f"arn:aws:iam::{HOME}:user/r", None),
        ("arn:aws:iam:::role/r", None),
        (f"arn:aws:iam::{HOME}:role/", None),
    ],
)
def test_arns_of_roles(arn: str, expected: tuple[str, str] | None) -> None:
    assert iam.role_in_arn(arn) == expected


def test_what_comes_with_the_store_is_found_by_its_arn() -> None:
    for policy in ALL:
        assert managed_policy(policy.arn) is policy
    assert managed_policy("arn:aws:iam::aws:policy/Nothing") is None


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ({}, lambda form: form.name(USER)),
        ({"UserName": ""}, lambda form: form.name(USER)),
        ({"UserName": "a/b"}, lambda form: form.name(USER)),
        ({"Path": "a/"}, lambda form: form.path()),
        ({"Path": "/" + "a" * 512 + "/"}, lambda form: form.path()),
        ({"MaxItems": "0"}, lambda form: form.limit()),
        ({"MaxItems": "1001"}, lambda form: form.limit()),
        ({"MaxItems": "-1"}, lambda form: form.limit()),
        ({"Marker": "%%%"}, lambda form: form.marker()),
        ({"Marker": "é"}, lambda form: form.marker()),
    ],
)
def test_parameters_that_are_refused(fields: dict[str, str], read: Any) -> None:
    with pytest.raises(IamRefused) as refused:
        read(Form(fields))
    assert refused.value.refusal is Refusal.VALIDATION


@given(st.text(min_size=1, max_size=64))
def test_markers_come_back_as_they_were(name: str) -> None:
    assert Form({"Marker": write_marker(name)}).marker() == name


@given(st.binary(max_size=200))
def test_random_bodies_are_forms_or_refused(body: bytes) -> None:
    with contextlib.suppress(IamRefused):
        assert read_form(body).get("a") is None or b"a" in body or b"%61" in body


def test_lists_and_tags_are_read_in_order() -> None:
    body = urlencode(
        {
            "Tags.member.1.Key": "a b",
            "Tags.member.1.Value": "ü",
            "Tags.member.2.Key": "c",
            "L.member.1": "x",
            "L.member.2": "y",
            "L.member.4": "lost",
        }
    ).encode()
    form = read_form(body)
    assert form.tags(USER) == (("a b", "ü"), ("c", ""))
    assert form.members("L", count_max=5, length_max=9) == ("x", "y")
    with pytest.raises(IamRefused):
        form.members("L", count_max=1, length_max=9)


def test_answers_are_what_the_sdks_read() -> None:
    told = answer(
        "iam", "Do", {"A": "<", "B": True, "C": None, "D": [{"E": 1}], "F": Entries({"g": 2})}, "id"
    )
    assert isinstance(told.body, bytes)
    assert told.body.decode().strip() == (
        '<DoResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><DoResult><A>&lt;</A>'
        "<B>true</B><D><member><E>1</E></member></D><F><entry><key>g</key><value>2</value></entry>"
        "</F></DoResult><ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></DoResponse>"
    )
    refused = refusal("sts", "AccessDenied", 403, "no", "id")
    assert refused.status == 403
    assert isinstance(refused.body, bytes)
    assert b"<Type>Sender</Type><Code>AccessDenied</Code>" in refused.body


def test_each_action_is_known_by_its_name() -> None:
    assert all(name == action.name for name, action in ACTIONS.items())
    assert {action.service for action in ACTIONS.values()} == {"iam", "sts"}
    unsigned = [name for name, action in ACTIONS.items() if action.unsigned]
    assert unsigned == ["AssumeRoleWithWebIdentity"]
    free = {name for name, action in ACTIONS.items() if action.free}
    assert free == {*unsigned, "GetCallerIdentity", "GetSessionToken", "AssumeRole"}
