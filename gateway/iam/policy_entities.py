"""Whom managed policies are attached to."""

from typing import Final

from gateway.domain.iam import GROUP, POLICY, ROLE, USER
from gateway.domain.managed_policies import managed_policy
from gateway.iam.action import Action, Call
from gateway.iam.answers import Answer
from gateway.iam.elements import Element, cut_off
from gateway.iam.policies import of_boundaries, own_policy, policy_arn
from gateway.metadata import attachments
from gateway.metadata.identities import Entity

_FILTERS: Final = ("User", "Role", "Group", "LocalManagedPolicy", "AWSManagedPolicy")


def _element(holder: Entity) -> Element:
    title, record = holder.kind.title, holder.record
    return {f"{title}Name": record.name, f"{title}Id": record.unique_id}


async def _holders(call: Call) -> list[Entity]:
    arn = policy_arn(call)
    if managed_policy(arn) is None:
        return await attachments.holders_of_own(call.identities, await own_policy(call))
    everybody = await attachments.holders(call.identities, call.account_id)
    return [each for each in everybody if arn in each.record.attached]


async def _list(call: Call) -> Answer:
    """Groups, then roles, then users, each in order of name; a page counts them all."""
    form = call.form
    wanted, prefix = form.choice("EntityFilter", _FILTERS), form.path_prefix()
    nobody = of_boundaries(call)
    items = [
        (f"{each.kind.title}/{each.record.name.lower()}", each)
        for each in await _holders(call)
        if each.record.path.startswith(prefix) and wanted in (None, each.kind.title)
    ]
    shown, page = cut_off([] if nobody else items, form.marker(), form.limit())
    lists = {
        f"Policy{kind.title}s": [_element(each) for each in shown if each.kind is kind]
        for kind in (GROUP, USER, ROLE)
    }
    return {**lists, **page}


ACTIONS = (Action("ListEntitiesForPolicy", _list, POLICY),)
