"""Roles: who may play them, and for how long."""

import msgspec

from gateway.domain import iam
from gateway.domain.iam import ROLE
from gateway.iam.action import Action, Call
from gateway.iam.answers import Answer
from gateway.iam.elements import entity_element
from gateway.iam.named import deleting, listing
from gateway.iam.users import refuse_boundary
from gateway.metadata.identities import Change, Entity
from gateway.metadata.identity_records import IamRecord
from gateway.metadata.policies import pack_policy

_DESCRIPTION_LENGTH_MAX = 1000


def _session_seconds(call: Call) -> int | None:
    return call.form.number(
        "MaxSessionDuration", iam.ROLE_SESSION_SECONDS_MIN, iam.ROLE_SESSION_SECONDS_MAX
    )


def _description(call: Call) -> str | None:
    return call.form.text("Description", length_max=_DESCRIPTION_LENGTH_MAX, length_min=0)


async def _create(call: Call) -> Answer:
    form = call.form
    refuse_boundary(call)
    name, trust = form.new_name(ROLE), form.document("AssumeRolePolicyDocument")
    iam.read_trust_policy(trust)
    record = IamRecord(
        kind="",
        unique_id="",
        name="",
        path=form.path() or "/",
        created_ms=0,
        document=pack_policy(trust.encode()),
        description=_description(call) or "",
        session_seconds_max=_session_seconds(call) or iam.ROLE_SESSION_SECONDS_MIN,
        tags=form.tags(ROLE),
    )
    made = await call.identities.create(call.account_id, ROLE, name, record)
    return {"Role": entity_element(made, whole=True)}


async def _get(call: Call) -> Answer:
    return {"Role": entity_element(await call.find(ROLE), whole=True)}


async def _update(call: Call) -> Answer:
    seconds, description = _session_seconds(call), _description(call)

    async def decide(entity: Entity) -> Change:
        record = entity.record
        return Change(
            msgspec.structs.replace(
                record,
                session_seconds_max=seconds or record.session_seconds_max,
                description=record.description if description is None else description,
            )
        )

    await call.identities.change(call.account_id, ROLE, call.form.name(ROLE), decide)
    return {}


async def _describe(call: Call) -> Answer:
    """What UpdateRole does too; it answers with the role."""
    description = call.form.required(
        "Description", length_max=_DESCRIPTION_LENGTH_MAX, length_min=0
    )

    async def decide(entity: Entity) -> Change:
        return Change(msgspec.structs.replace(entity.record, description=description))

    changed = await call.identities.change(call.account_id, ROLE, call.form.name(ROLE), decide)
    return {"Role": entity_element(changed, whole=True)}


async def _update_trust(call: Call) -> None:
    trust = call.form.document("PolicyDocument")
    iam.read_trust_policy(trust)
    packed = pack_policy(trust.encode())

    async def decide(entity: Entity) -> Change:
        return Change(msgspec.structs.replace(entity.record, document=packed))

    await call.identities.change(call.account_id, ROLE, call.form.name(ROLE), decide)


ACTIONS = (
    Action("CreateRole", _create, ROLE, tagging=True),
    Action("GetRole", _get, ROLE),
    Action("ListRoles", listing(ROLE), ROLE, listing=True),
    Action("UpdateRole", _update, ROLE),
    Action("UpdateRoleDescription", _describe, ROLE),
    Action("UpdateAssumeRolePolicy", _update_trust, ROLE),
    Action("DeleteRole", deleting(ROLE), ROLE),
)
