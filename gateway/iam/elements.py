"""Users, groups, roles and policies as the answers show them."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from gateway.domain.managed_policies import ManagedPolicy
from gateway.iam.answers import Value
from gateway.iam.form import write_marker
from gateway.metadata.identities import Entity, EntityPage
from gateway.metadata.policies import unpack_policy
from gateway.s3.headers import format_iso8601

Element = Mapping[str, Value | None]
DEFAULT_VERSION = "v1"
"""Managed policies have one version here."""


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
        found["Tags"] = [{"Key": key, "Value": value} for key, value in record.tags]
    return found


def policy_element(entity: Entity, attachments: int) -> Element:
    """One of the account's managed policies."""
    record = entity.record
    return {
        "PolicyName": record.name,
        "PolicyId": record.unique_id,
        "Arn": entity.arn,
        "Path": record.path,
        "DefaultVersionId": DEFAULT_VERSION,
        "AttachmentCount": attachments,
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "Description": record.description or None,
        "CreateDate": format_iso8601(record.created_ms),
        "UpdateDate": format_iso8601(record.created_ms),
    }


def known_policy_element(policy: ManagedPolicy) -> Element:
    """A managed policy that comes with the store."""
    return {
        "PolicyName": policy.name,
        "PolicyId": policy.policy_id,
        "Arn": policy.arn,
        "Path": "/",
        "DefaultVersionId": DEFAULT_VERSION,
        "AttachmentCount": 0,
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "Description": policy.description,
        "CreateDate": format_iso8601(0),
        "UpdateDate": format_iso8601(0),
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
    """A page of a list that is short enough to be read whole; items are in order of their names."""
    left = [item for item in items if item[0] > marker]
    shown, more = left[:limit], len(left) > limit
    return {
        name: [value for _, value in shown],
        "IsTruncated": more,
        "Marker": write_marker(shown[-1][0]) if more else None,
    }
