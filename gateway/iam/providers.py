"""OpenID Connect providers: whose tokens may be exchanged for a role's credentials.

URLs keep their scheme in the answers, and http is taken beside https: providers in one's own network
often have no certificate. Thumbprints are kept and shown; certificates are verified as TLS does.
"""

import msgspec

from gateway.domain import iam
from gateway.domain.iam import PROVIDER, IamRefused, Refusal
from gateway.iam.action import Action, Call
from gateway.iam.answers import Answer
from gateway.iam.elements import tag_elements
from gateway.iam.form import violated
from gateway.metadata.identities import Change, Decide, Entity
from gateway.metadata.identity_records import IamRecord
from gateway.s3.headers import format_iso8601

_PAGE = 1000
_THUMBPRINT_LENGTH = 40


def _thumbprints(call: Call) -> tuple[str, ...]:
    return call.form.members(
        "ThumbprintList", count_max=iam.THUMBPRINTS_MAX, length_max=_THUMBPRINT_LENGTH
    )


async def find_provider(call: Call) -> Entity:
    """The one that is meant. Raises IamRefused (NoSuchEntity)."""
    arn = call.form.required("OpenIDConnectProviderArn", length_max=2048, length_min=20)
    found = await call.identities.at_arn(call.account_id, PROVIDER, arn)
    if found is None:
        raise IamRefused(Refusal.NO_SUCH_ENTITY, f"OpenIDConnect Provider not found for arn {arn}")
    return found


async def _create(call: Call) -> Answer:
    form = call.form
    url = form.required("Url", length_max=255, pattern=iam.PROVIDER_URL)
    record = IamRecord(
        kind="",
        unique_id="",
        name="",
        path="/",
        created_ms=0,
        description=url,
        tags=form.tags(PROVIDER),
        clients=form.members("ClientIDList", count_max=iam.CLIENTS_MAX, length_max=255),
        thumbprints=_thumbprints(call),
    )
    made = await call.identities.create(call.account_id, PROVIDER, iam.provider_name(url), record)
    return {"OpenIDConnectProviderArn": made.arn}


async def _get(call: Call) -> Answer:
    record = (await find_provider(call)).record
    return {
        "Url": record.description,
        "ClientIDList": list(record.clients),
        "ThumbprintList": list(record.thumbprints),
        "CreateDate": format_iso8601(record.created_ms),
        "Tags": tag_elements(record),
    }


async def _list(call: Call) -> Answer:
    page = await call.identities.page(call.account_id, PROVIDER, limit=_PAGE)
    return {"OpenIDConnectProviderList": [{"Arn": each.arn} for each in page.entities]}


async def _change(call: Call, decide: Decide) -> None:
    found = await find_provider(call)
    await call.identities.change(call.account_id, PROVIDER, found.record.name, decide)


async def _add_client(call: Call) -> None:
    client = call.form.required("ClientID", length_max=255)

    async def decide(entity: Entity) -> Change | None:
        clients = entity.record.clients
        if client in clients:
            return None
        if len(clients) >= iam.CLIENTS_MAX:
            raise iam.over_quota("ClientIdsPerOpenIdConnectProvider", iam.CLIENTS_MAX)
        return Change(msgspec.structs.replace(entity.record, clients=(*clients, client)))

    await _change(call, decide)


async def _remove_client(call: Call) -> None:
    client = call.form.required("ClientID", length_max=255)

    async def decide(entity: Entity) -> Change:
        left = tuple(each for each in entity.record.clients if each != client)
        return Change(msgspec.structs.replace(entity.record, clients=left))

    await _change(call, decide)


async def _update_thumbprints(call: Call) -> None:
    thumbprints = _thumbprints(call)
    if not thumbprints:
        raise violated("thumbprintList", "[]", "have length greater than or equal to 1")

    async def decide(entity: Entity) -> Change:
        return Change(msgspec.structs.replace(entity.record, thumbprints=thumbprints))

    await _change(call, decide)


async def _delete(call: Call) -> None:
    found = await find_provider(call)
    await call.identities.delete(call.account_id, PROVIDER, found.record.name)


ACTIONS = (
    Action("CreateOpenIDConnectProvider", _create, PROVIDER, tagging=True),
    Action("GetOpenIDConnectProvider", _get, PROVIDER),
    Action("ListOpenIDConnectProviders", _list, PROVIDER, listing=True),
    Action("AddClientIDToOpenIDConnectProvider", _add_client, PROVIDER),
    Action("RemoveClientIDFromOpenIDConnectProvider", _remove_client, PROVIDER),
    Action("UpdateOpenIDConnectProviderThumbprint", _update_thumbprints, PROVIDER),
    Action("DeleteOpenIDConnectProvider", _delete, PROVIDER),
)
