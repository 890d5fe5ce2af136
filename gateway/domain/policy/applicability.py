"""Whether a bucket policy's statement can mean anything: its actions fit its resources, and its
conditions fit its actions. S3 refuses the others when the policy is put.

Source: Service Authorization Reference, "Actions, resources, and condition keys for Amazon S3": the
columns of resource types and of condition keys.
"""

import re
from collections.abc import Iterator
from typing import Final

from gateway.domain.policy.actions import S3_ACTIONS
from gateway.domain.policy.document import Policy, Statement
from gateway.domain.policy.errors import MalformedPolicy
from gateway.domain.policy.globs import Pattern
from gateway.domain.policy.principals import refuse_nobody

ACTION_WITHOUT_RESOURCE: Final = "Action does not apply to any resource(s) in statement"
CONDITION_WITHOUT_ACTION: Final = (
    "Conditions do not apply to combination of actions and resources in statement"
)

_OF_OBJECTS: Final = re.compile(
    r"s3:(?:(?:Get|Put|Delete|List|Replicate|Restore|Update)Object\w*|AbortMultipartUpload"
    r"|BypassGovernanceRetention|InitiateReplication|ListMultipartUploadParts"
    r"|ObjectOwnerOverrideToBucketOwner|ReplicateDelete|ReplicateTags)"
)
_OF_NEITHER: Final = re.compile(
    r"s3:\w*(?:AccessGrant|AccessPoint|AccountPublicAccessBlock|AllMyBuckets|DataAccess|Job"
    r"|StorageLens)\w*"
)
"""Actions on what is neither a bucket nor in one."""

_COLONS_OF_ARN: Final = 5
_OF_A_REGION: Final = re.compile(r"arn:[^:]+:s3:(?!\*?:\*?:)")
"""ARNs of buckets and objects have neither region nor account."""

_WRITES: Final = frozenset({"BypassGovernanceRetention", "PutObject"})
_LISTINGS: Final = frozenset({"ListBucket", "ListBucketVersions"})
_GRANTS: Final = _WRITES | {"CreateBucket", "PutBucketAcl", "PutObjectAcl", "PutObjectVersionAcl"}
_TAGGING: Final = _WRITES | {"PutObjectTagging", "PutObjectVersionTagging"}
_ENCRYPTION: Final = _WRITES | {"ReplicateObject", "UpdateObjectEncryption"}
_RETENTION: Final = frozenset({"PutObject", "PutObjectRetention"})
_ACTIONS_OF_KEYS: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys(("delimiter", "max-keys", "prefix"), _LISTINGS),
    **dict.fromkeys(
        (
            *("x-amz-copy-source", "x-amz-metadata-directive"),
            "x-amz-website-redirect-location",
        ),
        _WRITES,
    ),
    **dict.fromkeys(("requestobjecttag", "requestobjecttagkeys"), _TAGGING),
    **dict.fromkeys(
        ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"),
        _ENCRYPTION,
    ),
    "x-amz-server-side-encryption-customer-algorithm": _WRITES | {"ReplicateObject"},
    **dict.fromkeys(
        (
            *("x-amz-grant-full-control", "x-amz-grant-read", "x-amz-grant-read-acp"),
            *("x-amz-grant-write", "x-amz-grant-write-acp"),
        ),
        _GRANTS,
    ),
    "x-amz-acl": _GRANTS | {"CreateAccessPoint"},
    "x-amz-storage-class": _WRITES | {"PutObjectAcl", "PutObjectVersionAcl"},
    **dict.fromkeys(
        (
            *("object-lock-mode", "object-lock-remaining-retention-days"),
            "object-lock-retain-until-date",
        ),
        _RETENTION,
    ),
    "object-lock-legal-hold": frozenset({"PutObject", "PutObjectLegalHold"}),
    "if-match": frozenset({"DeleteObject", "PutObject"}),
    "if-none-match": frozenset({"PutObject"}),
    "objectcreationoperation": frozenset({"PutObject"}),
    "x-amz-bucket-namespace": frozenset({"CreateBucket"}),
    "x-amz-object-ownership": frozenset({"CreateBucket"}),
    "locationconstraint": frozenset({"CreateAccessPoint", "CreateBucket"}),
    "inventoryaccessibleoptionalfields": frozenset({"PutInventoryConfiguration"}),
    "versionid": frozenset(
        {
            *("DeleteObjectVersion", "DeleteObjectVersionTagging", "GetObjectVersion"),
            *("GetObjectVersionAcl", "GetObjectVersionAttributes", "GetObjectVersionTagging"),
            *("GetObjectVersionTorrent", "PutObjectVersionAcl", "PutObjectVersionTagging"),
        }
    ),
    "existingobjecttag": frozenset(
        {
            *("DeleteObjectTagging", "DeleteObjectVersionTagging", "GetObject", "GetObjectAcl"),
            *("GetObjectAttributes", "GetObjectTagging", "GetObjectVersion"),
            *("GetObjectVersionAcl", "GetObjectVersionAttributes", "GetObjectVersionTagging"),
            *("PutObjectAcl", "PutObjectTagging", "PutObjectVersionAcl"),
            "PutObjectVersionTagging",
        }
    ),
}
"""The actions that know a key of S3; the keys that are missing here go with every action."""


def refuse_mismatches(policy: Policy) -> None:
    """Raises MalformedPolicy for a statement in which an action applies to none of the resources, or
    a condition to one of the actions, or that is about nobody or nothing that there can be.

    Only for documents that come from a client: those stored already keep their meaning.
    """
    for statement in policy.statements:
        if statement.principals is not None:
            refuse_nobody(statement.principals)
        if any(_OF_A_REGION.match(resource.text) for resource in statement.resources):
            raise MalformedPolicy("Policy has invalid resource")
        if not statement.other_actions:
            _check_resources(statement)
            _check_conditions(statement)


def _check_resources(statement: Statement) -> None:
    if statement.other_resources:
        return
    reached = tuple(map(_reach, statement.resources))
    bucket = any(of_bucket for of_bucket, _ in reached)
    objects = any(of_objects for _, of_objects in reached)
    for pattern in statement.actions:
        if not any(_applies(action, bucket, objects) for action in _meant(pattern)):
            raise MalformedPolicy(ACTION_WITHOUT_RESOURCE)


def _reach(resource: Pattern) -> tuple[bool, bool]:
    """Whether it may be the bucket, and whether it may be an object. What a wildcard or a variable
    stands for is known with the request: both may be."""
    name = resource.text.split(":", _COLONS_OF_ARN)[-1]
    if "/" in name:
        return False, True
    return True, any(mark in name for mark in "*$")


def _applies(action: str, bucket: bool, objects: bool) -> bool:
    if _OF_OBJECTS.fullmatch(action):
        return objects
    return bucket and not _OF_NEITHER.fullmatch(action)


def _check_conditions(statement: Statement) -> None:
    for condition in statement.conditions:
        service, _, key = condition.key.partition("/")[0].partition(":")
        known = _ACTIONS_OF_KEYS.get(key) if service == "s3" else None
        if known is None:
            continue
        for pattern in statement.actions:
            if not any(action.removeprefix("s3:") in known for action in _meant(pattern)):
                raise MalformedPolicy(CONDITION_WITHOUT_ACTION)


def _meant(pattern: Pattern) -> Iterator[str]:
    """The actions that a pattern stands for."""
    if pattern.text in S3_ACTIONS:
        yield pattern.text
        return
    for action in S3_ACTIONS:
        if pattern.matches(action, lambda _: None):
            yield action
