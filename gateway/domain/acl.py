"""Access control lists: canned ones, what a grant lets do, and what makes a list public.

Source: S3 User Guide, "Access control list (ACL) overview".
"""

from collections.abc import Iterable
from typing import Final

Grants = tuple[tuple[str, str], ...]
"""(grantee, permission) pairs in order. A grantee is a canonical id or one of GROUPS."""

ALL_USERS: Final = "AllUsers"
AUTHENTICATED_USERS: Final = "AuthenticatedUsers"
LOG_DELIVERY: Final = "LogDelivery"
GROUPS: Final = {
    ALL_USERS: "http://acs.amazonaws.com/groups/global/AllUsers",
    AUTHENTICATED_USERS: "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
    LOG_DELIVERY: "http://acs.amazonaws.com/groups/s3/LogDelivery",
}
GROUP_OF_URI: Final = {uri: group for group, uri in GROUPS.items()}
PUBLIC_GROUPS: Final = frozenset({ALL_USERS, AUTHENTICATED_USERS})

READ, WRITE, READ_ACP, WRITE_ACP = "READ", "WRITE", "READ_ACP", "WRITE_ACP"
FULL_CONTROL: Final = "FULL_CONTROL"
PERMISSIONS: Final = frozenset({READ, WRITE, READ_ACP, WRITE_ACP, FULL_CONTROL})
GRANTS_MAX = 100
"""Source: S3 User Guide, "How is an access policy specified": up to 100 grants."""

BUCKET_OWNER_FULL_CONTROL: Final = "bucket-owner-full-control"
_GROUP_GRANTS: Final[dict[str, Grants]] = {
    "private": (),
    "public-read": ((ALL_USERS, READ),),
    "public-read-write": ((ALL_USERS, READ), (ALL_USERS, WRITE)),
    "authenticated-read": ((AUTHENTICATED_USERS, READ),),
    "log-delivery-write": ((LOG_DELIVERY, WRITE), (LOG_DELIVERY, READ_ACP)),
    "aws-exec-read": (),
    "bucket-owner-read": (),
    BUCKET_OWNER_FULL_CONTROL: (),
}
CANNED: Final = frozenset(_GROUP_GRANTS)
_OF_OBJECTS_ONLY: Final = {"bucket-owner-read": READ, BUCKET_OWNER_FULL_CONTROL: FULL_CONTROL}

_BUCKET_ACTIONS: Final = {
    "s3:ListBucket": READ,
    "s3:ListBucketVersions": READ,
    "s3:ListBucketMultipartUploads": READ,
    "s3:PutObject": WRITE,
    "s3:AbortMultipartUpload": WRITE,
    "s3:ListMultipartUploadParts": WRITE,
    "s3:DeleteObject": WRITE,
    "s3:GetBucketAcl": READ_ACP,
    "s3:PutBucketAcl": WRITE_ACP,
}
_OBJECT_ACTIONS: Final = {
    "s3:GetObject": READ,
    "s3:GetObjectVersion": READ,
    "s3:GetObjectAttributes": READ,
    "s3:GetObjectVersionAttributes": READ,
    "s3:GetObjectAcl": READ_ACP,
    "s3:GetObjectVersionAcl": READ_ACP,
    "s3:PutObjectAcl": WRITE_ACP,
    "s3:PutObjectVersionAcl": WRITE_ACP,
}
DELETING: Final = "s3:DeleteObject"


def canned_grants(name: str, owner: str, bucket_owner: str, *, of_bucket: bool) -> Grants | None:
    """The grants of a canned list for these canonical ids; None for the private one, which is how a
    plain list is stored."""
    extra = _GROUP_GRANTS[name]
    permission = None if of_bucket else _OF_OBJECTS_ONLY.get(name)
    if permission is not None and owner != bucket_owner:
        return ((owner, FULL_CONTROL), (bucket_owner, permission))
    return (*extra, (owner, FULL_CONTROL)) if extra else None


def effective(grants: Grants | None, owner: str) -> Grants:
    """The grants as they count; a list that was never set is the owner's full control."""
    return ((owner, FULL_CONTROL),) if grants is None else grants


def permits(
    grants: Grants | None,
    *,
    owner: str,
    caller: str,
    permission: str,
    ignore_public: bool = False,
) -> bool:
    """Whether a list lets the caller (a canonical id, "" for anybody). Owners may always read and
    replace their lists."""
    if caller and caller == owner and permission in (READ_ACP, WRITE_ACP):
        return True
    for grantee, granted in effective(grants, owner):
        if granted not in (permission, FULL_CONTROL):
            continue
        if grantee in PUBLIC_GROUPS:
            if not ignore_public and (caller or grantee == ALL_USERS):
                return True
        elif caller and grantee == caller:
            return True
    return False


def bucket_permission(action: str) -> str | None:
    """What a bucket's list must grant for an action; None: no list can."""
    return _BUCKET_ACTIONS.get(action)


def object_permission(action: str) -> str | None:
    """What an object's list must grant for an action; None: no list can."""
    return _OBJECT_ACTIONS.get(action)


def is_public(grants: Iterable[tuple[str, str]] | None) -> bool:
    """Whether a list lets in people it does not name."""
    return any(grantee in PUBLIC_GROUPS for grantee, _ in grants or ())


def is_private(grants: Grants | None, owner: str) -> bool:
    """Whether a list is no more than the owner's full control."""
    return grants is None or set(grants) <= {(owner, FULL_CONTROL)}
