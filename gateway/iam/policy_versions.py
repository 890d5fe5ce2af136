"""Versions of managed policies."""

from typing import Final

from gateway.domain.iam import POLICY
from gateway.domain.managed_policies import managed_policy
from gateway.domain.policy_versions import VERSION_ID, PolicyVersion, PolicyVersions, number_of
from gateway.iam.action import Action, Call
from gateway.iam.answers import Answer
from gateway.iam.elements import Element, cut, version_element
from gateway.iam.policies import demand_own, managed_document, own_policy, policy_arn
from gateway.metadata import policy_versions as versions
from gateway.metadata.policies import pack_policy, unpack_policy

_VERSION_ID_LENGTH_MAX: Final = 64
_NUMBERS_END: Final = 10**18
"""Above all numbers of versions."""
_OF_KNOWN: Final = PolicyVersion(1, 0, b"")
"""The only one of a policy that comes with the store."""


def _version_id(call: Call) -> str:
    return call.form.required("VersionId", length_max=_VERSION_ID_LENGTH_MAX, pattern=VERSION_ID)


async def _create(call: Call) -> Answer:
    arn, document = demand_own(policy_arn(call)), managed_document(call)
    as_default = call.form.flag("SetAsDefault")
    made = await versions.create_version(
        call.identities,
        call.account_id,
        arn,
        pack_policy(document.encode()),
        as_default=as_default,
    )
    return {"PolicyVersion": version_element(made, is_default=as_default)}


async def _get(call: Call) -> Answer:
    arn, version_id = policy_arn(call), _version_id(call)
    known = managed_policy(arn)
    if known is not None:
        if number_of(version_id) != _OF_KNOWN.number:
            raise versions.no_version(arn, version_id)
        shown = version_element(_OF_KNOWN, is_default=True, document=known.document)
        return {"PolicyVersion": shown}
    policy = await own_policy(call)
    version = versions.find_version(policy, version_id)
    document = unpack_policy(version.document).decode()
    is_default = version.number == policy.record.version
    return {"PolicyVersion": version_element(version, is_default=is_default, document=document)}


async def _list(call: Call) -> Answer:
    """The newest first."""
    held = PolicyVersions(_OF_KNOWN)
    if managed_policy(policy_arn(call)) is None:
        held = versions.versions_of((await own_policy(call)).record)
    shown: list[tuple[str, Element]] = [
        (
            f"{_NUMBERS_END - each.number:018}",
            version_element(each, is_default=each == held.default),
        )
        for each in held.newest_first
    ]
    return cut("Versions", shown, call.form.marker(), call.form.limit())


async def _set_default(call: Call) -> None:
    arn = demand_own(policy_arn(call))
    await versions.choose_version(call.identities, call.account_id, arn, _version_id(call))


async def _delete(call: Call) -> None:
    arn = demand_own(policy_arn(call))
    await versions.delete_version(call.identities, call.account_id, arn, _version_id(call))


ACTIONS = (
    Action("CreatePolicyVersion", _create, POLICY),
    Action("GetPolicyVersion", _get, POLICY),
    Action("ListPolicyVersions", _list, POLICY),
    Action("SetDefaultPolicyVersion", _set_default, POLICY),
    Action("DeletePolicyVersion", _delete, POLICY),
)
