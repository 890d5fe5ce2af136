"""Who may do what: a table of callers, bucket settings and actions, with AWS's answers written out."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.domain import acl
from gateway.domain.access import BucketRules, ObjectRules, PublicAccessBlock, is_permitted
from gateway.domain.policy.document import Policy, read_bucket_policy, read_policy
from gateway.domain.policy.question import ANYBODY, Caller, Question

OWNER, OTHER = "111111111111", "222222222222"
OTHER_CANONICAL = "b" * 64


def user(account: str, name: str) -> Caller:
    canonical = OTHER_CANONICAL if account == OTHER else "a" * 64
    return Caller(account, f"arn:aws:iam::{account}:user/{name}", canonical, f"AIDA{name}")


ALL = read_policy(
    b'{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}',
    with_principals=False,
)
NO_DELETE = read_policy(
    b'{"Version":"2012-10-17","Statement":['
    b'{"Effect":"Allow","Action":"*","Resource":"*"},'
    b'{"Effect":"Deny","Action":"s3:DeleteObject*","Resource":"arn:aws:s3:::b/*"}]}',
    with_principals=False,
)
CALLERS: dict[str, tuple[Caller, tuple[Policy, ...]]] = {
    "the owner's root": (Caller(OWNER, f"arn:aws:iam::{OWNER}:root", "a" * 64), ()),
    "a user whom IAM lets": (user(OWNER, "may"), (ALL,)),
    "a user whom IAM lets all but delete": (user(OWNER, "keeps"), (NO_DELETE,)),
    "a user without policies": (user(OWNER, "none"), ()),
    "another root": (Caller(OTHER, f"arn:aws:iam::{OTHER}:root", OTHER_CANONICAL), ()),
    "another's user whom IAM lets": (user(OTHER, "may"), (ALL,)),
    "another's user without policies": (user(OTHER, "none"), ()),
    "nobody": (ANYBODY, ()),
}
"""In this order the table's letters follow: A allow, D deny."""


class RequestOf:
    """The condition keys of a request from 10.0.0.1 without TLS."""

    def __init__(self, caller: Caller, extra: dict[str, tuple[str, ...]]) -> None:
        self.keys: dict[str, tuple[str, ...]] = {
            "aws:sourceip": ("10.0.0.1",),
            "aws:securetransport": ("false",),
            "aws:currenttime": ("2030-01-01T00:00:00Z",),
            **extra,
        }
        if "user/" in caller.arn:
            self.keys["aws:username"] = (caller.arn.rpartition("/")[2],)
        if caller.arn:
            self.keys["aws:principalarn"] = (caller.arn,)

    def values(self, key: str) -> tuple[str, ...] | None:
        return self.keys.get(key)


@dataclass(frozen=True)
class Case:
    """One line: what is asked, of which bucket, and the eight answers."""

    label: str
    answers: str
    action: str = "s3:GetObject"
    key: str | None = "k"
    statements: tuple[dict[str, Any], ...] = ()
    bucket: dict[str, Any] = field(default_factory=dict)
    existing: ObjectRules | None = field(default_factory=lambda: ObjectRules(OWNER))
    facts: dict[str, tuple[str, ...]] = field(default_factory=dict)


def says(
    effect: str = "Allow",
    action: Any = "s3:GetObject",
    resource: Any = "arn:aws:s3:::b/*",
    principal: Any = "*",
    **more: Any,
) -> dict[str, Any]:
    statement = {"Effect": effect, "Action": action, "Resource": resource, "Principal": principal}
    statement.update(more)
    for name, negation in (("Action", "NotAction"), ("Resource", "NotResource")):
        if negation in more:
            del statement[name]
    if "NotPrincipal" in more:
        del statement["Principal"]
    return statement


def to(*names: str) -> dict[str, list[str]]:
    return {"AWS": list(names)}


def when(operator: str, key: str, *values: str) -> dict[str, Any]:
    return {"Condition": {operator: {key: list(values)}}}


BUCKET = "arn:aws:s3:::b"
MAY, NONE = f"arn:aws:iam::{OWNER}:user/may", f"arn:aws:iam::{OWNER}:user/none"
FOREIGN = ObjectRules(OTHER)
PUBLIC_READ = ((acl.ALL_USERS, acl.READ), (OWNER, acl.FULL_CONTROL))
PUBLIC_WRITE = ((acl.ALL_USERS, acl.READ), (acl.ALL_USERS, acl.WRITE), (OWNER, acl.FULL_CONTROL))
SIGNED_READ = ((acl.AUTHENTICATED_USERS, acl.READ), (OWNER, acl.FULL_CONTROL))
OWN, ANYONE = "AAADDDDD", "AAAAAADA"
"""The account's own, whom IAM lets; and all but another account's user that has no policy."""


def grants(permission: str) -> dict[str, Any]:
    return {"grants": ((OTHER, permission), (OWNER, acl.FULL_CONTROL))}


TABLE = (
    # A bucket without settings
    Case("plain: get", OWN),
    Case("plain: put", OWN, "s3:PutObject"),
    Case("plain: list", OWN, "s3:ListBucket", None),
    Case("plain: delete", "AADDDDDD", "s3:DeleteObject"),
    Case("plain: delete a version", "AADDDDDD", "s3:DeleteObjectVersion"),
    Case("plain: put a policy", OWN, "s3:PutBucketPolicy", None),
    # Whom a policy names
    Case("everybody may get", ANYONE, statements=(says(),)),
    Case("AWS * is everybody", ANYONE, statements=(says(principal=to("*")),)),
    Case("getting is not putting", OWN, "s3:PutObject", statements=(says(),)),
    Case("objects are not the bucket", OWN, "s3:ListBucket", None, statements=(says(),)),
    Case(
        "everybody may list", ANYONE, "s3:ListBucket", None,
        statements=(says(action="s3:ListBucket", resource=BUCKET),),
    ),
    Case("another account by id", "AAADAADD", statements=(says(principal=to(OTHER)),)),
    Case(
        "another account by ARN", "AAADAADD",
        statements=(says(principal=to(f"arn:aws:iam::{OTHER}:root")),),
    ),
    Case(
        "another account by canonical id", "AAADAADD",
        statements=(says(principal={"CanonicalUser": OTHER_CANONICAL}),),
    ),
    Case(
        "one of its users", "AAADDADD",
        statements=(says(principal=to(f"arn:aws:iam::{OTHER}:user/may")),),
    ),
    Case(
        "one of its users without IAM's leave", OWN,
        statements=(says(principal=to(f"arn:aws:iam::{OTHER}:user/none")),),
    ),
    Case("a user of one's own", "AAAADDDD", statements=(says(principal=to(NONE)),)),
    Case("one's own account leaves it to IAM", OWN, statements=(says(principal=to(OWNER)),)),
    Case("a service is nobody here", OWN, statements=(says(principal={"Service": "x.y"}),)),
    # Deny
    Case("denied to everybody", "DDDDDDDD", statements=(says("Deny"),)),
    Case("deny wins over allow", "DDDDDDDD", statements=(says(), says("Deny"))),
    Case(
        "denied to another account", "AAAADDDA",
        statements=(says(), says("Deny", principal=to(OTHER))),
    ),
    Case(
        "denied to a user", "ADAAAADA", statements=(says(), says("Deny", principal=to(MAY))),
    ),
    Case(
        "denied to all but root and a user", "AADDDDDD",
        statements=(
            says(),
            says("Deny", NotPrincipal=to(f"arn:aws:iam::{OWNER}:root", MAY)),
        ),
    ),
    Case(
        "root keeps putting the policy", "ADDDDDDD", "s3:PutBucketPolicy", None,
        statements=(says("Deny", "s3:*", BUCKET),),
    ),
    Case(
        "root keeps reading the policy", "ADDDDDDD", "s3:GetBucketPolicy", None,
        statements=(says("Deny", "s3:*", BUCKET),),
    ),
    Case(
        "root keeps deleting the policy", "ADDDDDDD", "s3:DeleteBucketPolicy", None,
        statements=(says("Deny", "s3:*", BUCKET),),
    ),
    Case(
        "root keeps nothing else", "DDDDDDDD", "s3:PutBucketAcl", None,
        statements=(says("Deny", "s3:*", BUCKET),),
    ),
    # Actions and resources
    Case("a wildcard in the action", ANYONE, statements=(says(action="s3:Get*"),)),
    Case("a question mark", ANYONE, statements=(says(action="s3:?etObject"),)),
    Case("actions know no case", ANYONE, statements=(says(action="S3:getobject"),)),
    Case("all actions", ANYONE, "s3:PutObject", statements=(says(action="*"),)),
    Case("one of several", ANYONE, statements=(says(action=["s3:PutObject", "s3:GetObject"]),)),
    Case("the version's own action", OWN, "s3:GetObjectVersion", statements=(says(),)),
    Case("not this action", ANYONE, statements=(says(NotAction="s3:DeleteObject"),)),
    Case(
        "not this action, which it is", "AADDDDDD", "s3:DeleteObject",
        statements=(says(NotAction="s3:DeleteObject"),),
    ),
    Case("within a prefix", ANYONE, key="pub/1", statements=(says(resource=f"{BUCKET}/pub/*"),)),
    Case("outside a prefix", OWN, key="pri/1", statements=(says(resource=f"{BUCKET}/pub/*"),)),
    Case("resources know case", OWN, key="PUB/1", statements=(says(resource=f"{BUCKET}/pub/*"),)),
    Case("not this resource", ANYONE, statements=(says(NotResource=f"{BUCKET}/secret/*"),)),
    Case(
        "not this resource, which it is", OWN, key="secret/1",
        statements=(says(NotResource=f"{BUCKET}/secret/*"),),
    ),
    Case(
        "a home by name", "AAAADDDD", key="home/none/x",
        statements=(says(resource=f"{BUCKET}/home/${{aws:username}}/*"),),
    ),
    Case(
        "another's home", OWN, key="home/x/x",
        statements=(says(resource=f"{BUCKET}/home/${{aws:username}}/*"),),
    ),
    # Conditions
    Case(
        "from the right network", ANYONE,
        statements=(says(**when("IpAddress", "aws:SourceIp", "10.0.0.0/8")),),
    ),
    Case(
        "from the wrong network", OWN,
        statements=(says(**when("IpAddress", "aws:SourceIp", "192.168.0.0/16")),),
    ),
    Case(
        "denied without TLS", "DDDDDDDD",
        statements=(says(), says("Deny", **when("Bool", "aws:SecureTransport", "false"))),
    ),
    Case(
        "before a date that is past", OWN,
        statements=(says(**when("DateLessThan", "aws:CurrentTime", "2029-01-01T00:00:00Z")),),
    ),
    Case(
        "after a date that is past", ANYONE,
        statements=(says(**when("DateGreaterThan", "aws:CurrentTime", "2029-01-01T00:00:00Z")),),
    ),
    Case(
        "a tag of the object", ANYONE,
        statements=(says(**when("StringEquals", "s3:ExistingObjectTag/Level", "public")),),
        facts={"s3:existingobjecttag/Level": ("public",)},
    ),
    Case(
        "no such tag", OWN,
        statements=(says(**when("StringEquals", "s3:ExistingObjectTag/Level", "public")),),
    ),
    Case(
        "a listing of the prefix", ANYONE, "s3:ListBucket", None,
        statements=(
            says(action="s3:ListBucket", resource=BUCKET, **when("StringLike", "s3:prefix", "p/*")),
        ),
        facts={"s3:prefix": ("p/1",)},
    ),
    Case(
        "a listing without the prefix", OWN, "s3:ListBucket", None,
        statements=(
            says(action="s3:ListBucket", resource=BUCKET, **when("StringLike", "s3:prefix", "p/*")),
        ),
    ),
    Case(
        "a negation holds for what is absent", ANYONE,
        statements=(says(**when("StringNotEquals", "aws:Referer", "http://bad/")),),
    ),
    Case(
        "if it exists, and it does not", ANYONE,
        statements=(says(**when("StringEqualsIfExists", "aws:Referer", "http://good/")),),
    ),
    Case(
        "the principal's ARN", "AAADDADD",
        statements=(says(**when("ArnLike", "aws:PrincipalArn", f"arn:aws:iam::{OTHER}:user/m*")),),
    ),
    # Lists
    Case(
        "public-read: list", ANYONE, "s3:ListBucket", None, bucket={"grants": PUBLIC_READ}
    ),
    Case("public-read: put", OWN, "s3:PutObject", bucket={"grants": PUBLIC_READ}),
    Case("the bucket's list is not the object's", OWN, bucket={"grants": PUBLIC_READ}),
    Case("public-read-write: put", ANYONE, "s3:PutObject", bucket={"grants": PUBLIC_WRITE}),
    Case(
        "public-read-write: delete", "AADADDDD", "s3:DeleteObject", bucket={"grants": PUBLIC_WRITE}
    ),
    Case(
        "public-read-write: delete another's", "AADAAADD", "s3:DeleteObject",
        bucket={"grants": PUBLIC_WRITE}, existing=FOREIGN,
    ),
    Case(
        "authenticated-read: list", "AAAAAADD", "s3:ListBucket", None,
        bucket={"grants": SIGNED_READ},
    ),
    Case("READ to another: list", "AAADAADD", "s3:ListBucket", None, bucket=grants(acl.READ)),
    Case("READ to another: put", OWN, "s3:PutObject", bucket=grants(acl.READ)),
    Case("WRITE to another: put", "AAADAADD", "s3:PutObject", bucket=grants(acl.WRITE)),
    Case("WRITE to another: list", OWN, "s3:ListBucket", None, bucket=grants(acl.WRITE)),
    Case("READ_ACP to another", "AAADAADD", "s3:GetBucketAcl", None, bucket=grants(acl.READ_ACP)),
    Case("READ_ACP is not WRITE_ACP", OWN, "s3:PutBucketAcl", None, bucket=grants(acl.READ_ACP)),
    Case("WRITE_ACP to another", "AAADAADD", "s3:PutBucketAcl", None, bucket=grants(acl.WRITE_ACP)),
    Case(
        "FULL_CONTROL to another", "AAADAADD", "s3:PutBucketAcl", None,
        bucket=grants(acl.FULL_CONTROL),
    ),
    Case(
        "no list gives the policy away", OWN, "s3:GetBucketPolicy", None,
        bucket=grants(acl.FULL_CONTROL),
    ),
    Case("a public object", ANYONE, existing=ObjectRules(OWNER, PUBLIC_READ)),
    Case("its list is not public", OWN, "s3:GetObjectAcl", existing=ObjectRules(OWNER, PUBLIC_READ)),
    Case("an object for who signs", "AAAAAADD", existing=ObjectRules(OWNER, SIGNED_READ)),
    Case("another's object", "DDDDAADD", existing=FOREIGN),
    Case("another's object: its list", "DDDDAADD", "s3:GetObjectAcl", existing=FOREIGN),
    Case("another's object: its tags", OWN, "s3:GetObjectTagging",
         existing=FOREIGN),
    Case("another's object: delete", "AADDDDDD", "s3:DeleteObject", existing=FOREIGN),
    Case("another's object: replace", OWN, "s3:PutObject", existing=FOREIGN),
    Case("no policy gives it away", "DDDDAADD", existing=FOREIGN, statements=(says(),)),
    Case("a policy may deny it", "DDDDDDDD", existing=FOREIGN, statements=(says("Deny"),)),
    Case(
        "bucket-owner-full-control", "AAADAADD",
        existing=ObjectRules(OTHER, ((OTHER, acl.FULL_CONTROL), (OWNER, acl.FULL_CONTROL))),
    ),
    Case("users need IAM for their account's lists", OWN, "s3:GetBucketAcl", None),
    # Ownership
    Case(
        "lists do not count", OWN, "s3:ListBucket", None,
        bucket={"grants": PUBLIC_READ, "ownership": "BucketOwnerEnforced"},
    ),
    Case("nor objects' owners", OWN, existing=FOREIGN, bucket={"ownership": "BucketOwnerEnforced"}),
    Case(
        "so a policy gives it away", ANYONE, existing=FOREIGN, statements=(says(),),
        bucket={"ownership": "BucketOwnerEnforced"},
    ),
    # Public access blocks
    Case(
        "public lists are ignored", OWN, "s3:ListBucket", None,
        bucket={"grants": PUBLIC_READ, "block": PublicAccessBlock(ignore_public_acls=True)},
    ),
    Case(
        "of objects too", OWN, existing=ObjectRules(OWNER, PUBLIC_READ),
        bucket={"block": PublicAccessBlock(ignore_public_acls=True)},
    ),
    Case(
        "a public policy is for one's own", "AAAADDDD", statements=(says(),),
        bucket={"block": PublicAccessBlock(restrict_public_buckets=True)},
    ),
    Case(
        "one that is not public is not restricted", "AAADAADD",
        statements=(says(principal=to(OTHER)),),
        bucket={"block": PublicAccessBlock(restrict_public_buckets=True)},
    ),
)  # fmt: skip
ROWS = [
    pytest.param(case, caller, answer == "A", id=f"{case.label}: {caller}")
    for case in TABLE
    for caller, answer in zip(CALLERS, case.answers, strict=True)
]


def test_the_table_is_large() -> None:
    assert len(ROWS) >= 300


@pytest.mark.parametrize(("case", "name", "permitted"), ROWS)
def test_each_caller_may_what_aws_documents(case: Case, name: str, permitted: bool) -> None:
    caller, identity = CALLERS[name]
    policy = None
    if case.statements:
        text = json.dumps({"Version": "2012-10-17", "Statement": list(case.statements)})
        policy = read_bucket_policy(text.encode(), "b")
    arn = BUCKET if case.key is None else f"{BUCKET}/{case.key}"
    question = Question(caller, case.action, arn, RequestOf(caller, case.facts))
    rules = BucketRules(OWNER, policy, **case.bucket)
    existing = None if case.key is None else case.existing
    assert is_permitted(question, rules, existing, identity) is permitted
