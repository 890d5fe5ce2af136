"""Users, groups, roles and policies as the answers show them."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TypeVar
from urllib.parse import quote

from gateway.domain.managed_policies import ManagedPolicy
from gateway.domain.policy_versions import PolicyVersion
from gateway.iam.answers import Value
from gateway.iam.form import write_marker
from gateway.metadata.identities import Entity, EntityPage
from gateway.metadata.identity_records import IamRecord
from gateway.metadata.policies import unpack_policy
from gateway.metadata.policy_versions import versions_of
from gateway.s3.headers import format_iso8601

Element = Mapping[str, Value | None]
ONLY_VERSION = "v1"
"""Managed policies that come with the store have one version."""


def entity_element(entity: Entity, *, whole: bool = False) -> Element:
    """A user, group or role; `whole` with what only asking for one tells."""
    record, title = entity.record, entity.kind.title
    found: dict[str, Value | None] = {
        "Path": record.path,
        f"{title}Name": record.name,
        f"{title}Id": record.unique_id,
        "Arn": entity.arn,
        "CreateDate": format_iso8601(record.created_ms),
    }
    if record.document:
        found["AssumeRolePolicyDocument"] = encoded(unpack_policy(record.document).decode())
        found["MaxSessionDuration"] = record.session_seconds_max
        found["Description"] = record.description or None
    if whole and record.tags:
        found["Tags"] = tag_elements(record)
    return found


def tag_elements(record: IamRecord) -> list[Element]:
    """Its tags, as they were given."""
    return [{"Key": key, "Value": value} for key, value in record.tags]


def policy_element(entity: Entity, attachments: int, *, whole: bool = False) -> Element:
    """One of the account's managed policies."""
    record, versions = entity.record, versions_of(entity.record)
    return {
        "PolicyName": record.name,
        "PolicyId": record.unique_id,
        "Arn": entity.arn,
        "Path": record.path,
        "DefaultVersionId": versions.default.version_id,
        "AttachmentCount": attachments,
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "Description": record.description or None,
        "CreateDate": format_iso8601(record.created_ms),
        "UpdateDate": format_iso8601(versions.newest_first[0].created_ms),
        "Tags": tag_elements(record) if whole and record.tags else None,
    }


def known_policy_element(policy: ManagedPolicy, attachments: int) -> Element:
    """A managed policy that comes with the store."""
    return {
        "PolicyName": policy.name,
        "PolicyId": policy.policy_id,
        "Arn": policy.arn,
        "Path": "/",
        "DefaultVersionId": ONLY_VERSION,
        "AttachmentCount": attachments,
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "Description": policy.description,
        "CreateDate": format_iso8601(0),
        "UpdateDate": format_iso8601(0),
    }


def version_element(version: PolicyVersion, *, is_default: bool, document: str = "") -> Element:
    """A version of a managed policy; with its document only where one is asked for."""
    return {
        "Document": encoded(document) or None,
        "VersionId": version.version_id,
        "IsDefaultVersion": is_default,
        "CreateDate": format_iso8601(version.created_ms),
    }


def encoded(document: str) -> str:
    """A policy as answers carry it: percent-encoded (RFC 3986)."""
    return quote(document, safe="-_.~")


def page_element(name: str, page: EntityPage, shown: Sequence[Element]) -> Element:
    """A page of a list, and where it continues."""
    return {
        name: shown,
        "IsTruncated": page.marker is not None,
        "Marker": None if page.marker is None else write_marker(page.marker),
    }


def cut(name: str, items: Sequence[tuple[str, str | Element]], marker: str, limit: int) -> Element:
    """A page of a list that is short enough to be read whole, by its items' names."""
    shown, page = cut_off(items, marker, limit)
    return {name: shown, **page}


Item = TypeVar("Item")


def cut_off(
    items: Sequence[tuple[str, Item]], marker: str, limit: int
) -> tuple[list[Item], Element]:
    """The same: what is shown, and where it continues."""
    left = sorted((item for item in items if item[0] > marker), key=itemgetter(0))
    shown, more = left[:limit], len(left) > limit
    return [value for _, value in shown], {
        "IsTruncated": more,
        "Marker": write_marker(shown[-1][0]) if more else None,
    }
