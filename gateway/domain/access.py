"""May this caller do this? Policies, lists and public access blocks joined as AWS joins them.

Sources: IAM User Guide, "Policy evaluation logic"; S3 User Guide, "How Amazon S3 authorizes a
request" and "Blocking public access".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.domain import acl
from gateway.domain.policy.document import Policy
from gateway.domain.policy.principals import Match
from gateway.domain.policy.publicity import is_public
from gateway.domain.policy.question import Caller, Question
from gateway.domain.policy.verdict import SILENT, Opinion, opinion

ENFORCED: Final = "BucketOwnerEnforced"
PREFERRED: Final = "BucketOwnerPreferred"
OBJECT_WRITER: Final = "ObjectWriter"
OWNERSHIPS: Final = frozenset({ENFORCED, PREFERRED, OBJECT_WRITER})

_KEPT_FOR_ROOT: Final = frozenset(
    {"s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"}
)
"""A bucket's policy cannot lock out the root of the account that owns it from the policy itself."""

_OF_THEIR_OWNERS: Final = frozenset(
    {
        *("s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectAcl", "s3:GetObjectVersionAcl"),
        *("s3:GetObjectAttributes", "s3:GetObjectVersionAttributes", "s3:PutObjectAcl"),
        *("s3:PutObjectVersionAcl", "s3:GetObjectTorrent", "s3:GetObjectVersionTorrent"),
    }
)
"""What is an object's owner's to permit. All else is the bucket owner's: to write, replace or delete
objects, their tags (S3 API Reference, "GetObjectTagging": the bucket owner has the permission by
default), their locks."""

OF_OBJECTS: Final = _OF_THEIR_OWNERS | {
    *("s3:GetObjectTagging", "s3:GetObjectVersionTagging", "s3:PutObjectTagging"),
    *("s3:PutObjectVersionTagging", "s3:DeleteObjectTagging", "s3:DeleteObjectVersionTagging"),
    *("s3:GetObjectRetention", "s3:PutObjectRetention", "s3:GetObjectLegalHold"),
    *("s3:PutObjectLegalHold", "s3:RestoreObject"),
}
"""What is done to an object that exists."""


class PublicAccessBlock(NamedTuple):
    """The four settings, all off unless set. Source: S3 User Guide, "Blocking public access"."""

    block_public_acls: bool = False
    ignore_public_acls: bool = False
    block_public_policy: bool = False
    restrict_public_buckets: bool = False


OPEN: Final = PublicAccessBlock()


@dataclass(frozen=True, slots=True)
class BucketRules:
    """What a bucket says of who may do what in it. `owner` is an account id, as in lists."""

    owner: str
    policy: Policy | None = None
    ownership: str = ""
    grants: acl.Grants | None = None
    block: PublicAccessBlock = OPEN


@dataclass(frozen=True, slots=True)
class ObjectRules:
    """The same of an object."""

    owner: str
    grants: acl.Grants | None = None


def is_permitted(
    question: Question,
    bucket: BucketRules,
    existing: ObjectRules | None = None,
    identity: Sequence[Policy] = (),
    session: Policy | None = None,
) -> bool:
    """The decision. `existing`: the object in question, None when there is none or it does not
    matter. `identity`: the policies of the caller, when it is a user or plays a role. `session`:
    what a session was narrowed to; beyond it only what a policy of a bucket in the same account
    grants to the session itself, by its ARN, is permitted (IAM User Guide, "Session policies")."""
    caller = question.caller
    narrowed = SILENT if session is None else opinion((session,), question)
    if narrowed.denied:
        return False
    within = session is None or narrowed.allowed is not Match.NONE
    own = _of_identity(question, identity)
    if own.denied:
        return False
    policy = _of_bucket(question, bucket)
    if policy.denied:
        return False
    owner, granted = bucket.owner, policy.allowed
    lists_count = bucket.ownership != ENFORCED
    if (
        lists_count
        and existing is not None
        and existing.owner != owner
        and question.action in _OF_THEIR_OWNERS
    ):
        # The bucket's owner cannot give away what is another's.
        owner, granted = existing.owner, Match.NONE
    if not within:
        return granted is Match.SESSION and caller.account_id == owner
    if lists_count and granted < Match.DIRECT:
        granted = max(granted, _of_lists(question, bucket, existing))
    if caller.is_anonymous:
        return granted is not Match.NONE
    if caller.account_id == owner:
        return own.allowed is not Match.NONE or granted >= Match.DIRECT
    return own.allowed is not Match.NONE and granted is not Match.NONE


def is_denied(
    question: Question,
    bucket: BucketRules,
    identity: Sequence[Policy] = (),
    session: Policy | None = None,
) -> bool:
    """Whether a policy forbids it, whatever else may permit it."""
    if session is not None and not allows(session, question):
        return True
    return _of_identity(question, identity).denied or _of_bucket(question, bucket).denied


def allows(policy: Policy, question: Question) -> bool:
    """Whether one policy by itself lets the caller."""
    said = opinion((policy,), question)
    return not said.denied and said.allowed is not Match.NONE


def may_by_identity(
    question: Question, identity: Sequence[Policy], session: Policy | None = None
) -> bool:
    """Whether a caller may do what its own account alone decides about: IAM's actions."""
    if session is not None and not allows(session, question):
        return False
    own = _of_identity(question, identity)
    return not own.denied and own.allowed is not Match.NONE


def may_assume(question: Question, trust: Policy, owner: str, identity: Sequence[Policy]) -> bool:
    """Whether the caller may play a role of the account `owner`: the role must trust it, and unless
    it does so in person its own account must let it.

    Source: IAM User Guide, "Policy evaluation logic" and "Cross-account policy evaluation".
    """
    own, trusted = _of_identity(question, identity), opinion((trust,), question)
    if own.denied or trusted.denied or trusted.allowed is Match.NONE:
        return False
    if question.caller.account_id == owner and trusted.allowed >= Match.DIRECT:
        return True
    return own.allowed is not Match.NONE


def _of_identity(question: Question, identity: Sequence[Policy]) -> Opinion:
    """The root of an account needs no policy, and whoever did not sign has none."""
    if question.caller.is_anonymous:
        return SILENT
    if question.caller.is_root:
        return Opinion(False, Match.DIRECT)
    return opinion(identity, question)


def _of_bucket(question: Question, bucket: BucketRules) -> Opinion:
    if bucket.policy is None:
        return SILENT
    caller = question.caller
    said = opinion((bucket.policy,), question)
    mine = caller.account_id == bucket.owner
    if said.denied and mine and caller.is_root and question.action in _KEPT_FOR_ROOT:
        return SILENT
    if (
        said.allowed
        and bucket.block.restrict_public_buckets
        and not mine
        and is_public(bucket.policy)
    ):
        return SILENT
    return said


def _of_lists(question: Question, bucket: BucketRules, existing: ObjectRules | None) -> Match:
    """What the bucket's list grants, or the object's."""
    caller, action = question.caller, question.action
    permission = acl.object_permission(action)
    if permission is not None:
        if existing is None:
            return Match.NONE
        return _granted(caller, existing.grants, existing.owner, permission, bucket.block)
    permission = acl.bucket_permission(action)
    if permission is None:
        return Match.NONE
    if (
        action == acl.DELETING
        and existing is not None
        and caller.account_id not in (existing.owner, bucket.owner)
    ):
        return Match.NONE  # WRITE lets delete one's own objects only
    return _granted(caller, bucket.grants, bucket.owner, permission, bucket.block)


def _granted(
    caller: Caller, grants: acl.Grants | None, owner: str, permission: str, block: PublicAccessBlock
) -> Match:
    """A list that names an account leaves it to that to let its users; a group is everybody in it."""
    account, ignore = caller.account_id, block.ignore_public_acls
    public = tuple(each for each in grants or () if each[0] in acl.PUBLIC_GROUPS)
    if public and acl.permits(
        public, owner="", caller=account, permission=permission, ignore_public=ignore
    ):
        return Match.DIRECT
    if acl.permits(grants, owner=owner, caller=account, permission=permission, ignore_public=True):
        return Match.ACCOUNT
    return Match.NONE
