"""Groups and who is in them."""

from gateway.domain.iam import GROUP, USER
from gateway.iam.action import Action, Call
from gateway.iam.answers import Answer
from gateway.iam.elements import cut, entity_element
from gateway.iam.named import deleting, listing, renaming
from gateway.metadata import grants
from gateway.metadata.identity_records import IamRecord


async def _create(call: Call) -> Answer:
    form = call.form
    record = IamRecord(kind="", unique_id="", name="", path=form.path() or "/", created_ms=0)
    made = await call.identities.create(call.account_id, GROUP, form.new_name(GROUP), record)
    return {"Group": entity_element(made)}


async def _get(call: Call) -> Answer:
    group = await call.find(GROUP)
    users = await call.identities.members(group)
    shown = [(each.record.name.lower(), entity_element(each)) for each in users]
    return {
        "Group": entity_element(group),
        **cut("Users", shown, call.form.marker(), call.form.limit()),
    }


async def _list_of_user(call: Call) -> Answer:
    user = await call.find(USER)
    found = await call.identities.by_ids(call.account_id, user.record.groups)
    groups = sorted(
        (each for each in found if each is not None), key=lambda group: group.record.name.lower()
    )
    shown = [(each.record.name.lower(), entity_element(each)) for each in groups]
    return cut("Groups", shown, call.form.marker(), call.form.limit())


async def _add(call: Call) -> None:
    await grants.add_to_group(
        call.identities, call.account_id, call.form.name(GROUP), call.form.name(USER)
    )


async def _remove(call: Call) -> None:
    await grants.remove_from_group(
        call.identities, call.account_id, call.form.name(GROUP), call.form.name(USER)
    )


ACTIONS = (
    Action("CreateGroup", _create, GROUP),
    Action("GetGroup", _get, GROUP),
    Action("UpdateGroup", renaming(GROUP), GROUP),
    Action("ListGroups", listing(GROUP), GROUP, listing=True),
    Action("ListGroupsForUser", _list_of_user, USER),
    Action("DeleteGroup", deleting(GROUP), GROUP),
    Action("AddUserToGroup", _add, GROUP),
    Action("RemoveUserFromGroup", _remove, GROUP),
)
