"""Versions of managed policies in their records: read, made, chosen and deleted."""

from collections.abc import Callable

import msgspec

from gateway.domain import iam
from gateway.domain.iam import IamRefused, Refusal
from gateway.domain.policy_versions import PolicyVersion, PolicyVersions, number_of
from gateway.metadata import grants
from gateway.metadata.identities import Change, Entity, Identities
from gateway.metadata.identity_records import IamRecord, PolicyVersionRecord

_Decide = Callable[[Entity, PolicyVersions], PolicyVersions]


def versions_of(record: IamRecord) -> PolicyVersions:
    """The versions of a managed policy. Records from before there were any have v1."""
    default = PolicyVersion(
        record.version, record.version_created_ms or record.created_ms, record.document
    )
    others = tuple(
        PolicyVersion(each.number, each.created_ms, each.document) for each in record.versions
    )
    return PolicyVersions(default, others, record.versions_made)


def with_versions(record: IamRecord, versions: PolicyVersions) -> IamRecord:
    """The record with these versions."""
    default = versions.default
    return msgspec.structs.replace(
        record,
        document=default.document,
        version=default.number,
        version_created_ms=default.created_ms,
        versions=tuple(
            PolicyVersionRecord(
                number=each.number, created_ms=each.created_ms, document=each.document
            )
            for each in sorted(versions.others)
        ),
        versions_made=versions.made,
    )


def find_version(policy: Entity, version_id: str) -> PolicyVersion:
    """The version of that id. Raises IamRefused (NoSuchEntity)."""
    found = versions_of(policy.record).find(number_of(version_id))
    if found is None:
        raise no_version(policy.arn, version_id)
    return found


def no_version(arn: str, version_id: str) -> IamRefused:
    """NoSuchEntity in AWS's words."""
    return IamRefused(
        Refusal.NO_SUCH_ENTITY,
        f"Policy {arn} version {version_id} does not exist or is not attachable.",
    )


async def create_version(
    identities: Identities, account_id: str, arn: str, document: bytes, *, as_default: bool
) -> PolicyVersion:
    """One more version. Raises IamRefused."""
    now_ms = identities.credentials.now_ms()
    made: PolicyVersion | None = None

    def decide(_: Entity, versions: PolicyVersions) -> PolicyVersions:
        nonlocal made
        if made is not None and versions.find(made.number) == made:
            return versions  # the answer was lost, not the change
        changed = versions.with_new(document, now_ms, as_default=as_default)
        made = changed.find(changed.made)
        return changed

    await _change(identities, account_id, arn, decide)
    assert made is not None
    return made


async def choose_version(
    identities: Identities, account_id: str, arn: str, version_id: str
) -> None:
    """Let another version count. Raises IamRefused."""

    def decide(policy: Entity, versions: PolicyVersions) -> PolicyVersions:
        return versions.with_default(find_version(policy, version_id))

    await _change(identities, account_id, arn, decide)


async def delete_version(
    identities: Identities, account_id: str, arn: str, version_id: str
) -> None:
    """Delete one that does not count. Raises IamRefused."""

    def decide(policy: Entity, versions: PolicyVersions) -> PolicyVersions:
        return versions.without(find_version(policy, version_id))

    await _change(identities, account_id, arn, decide)


async def _change(identities: Identities, account_id: str, arn: str, decide: _Decide) -> None:
    async def with_record(policy: Entity) -> Change | None:
        if policy.arn != arn:
            raise grants.no_policy(arn)
        record = with_versions(policy.record, decide(policy, versions_of(policy.record)))
        return None if record == policy.record else Change(record)

    found = await grants.find_policy(identities, account_id, arn)
    await identities.change(account_id, iam.POLICY, found.record.name, with_record)
