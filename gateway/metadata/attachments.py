"""To whom managed policies are attached."""

from collections import Counter

from gateway.domain import iam
from gateway.metadata import keys
from gateway.metadata.identities import Entity, Identities

_PAGE = 1000


async def holders_of_own(identities: Identities, policy: Entity) -> list[Entity]:
    """The users, groups and roles that one of the account's own policies is attached to."""
    prefix = keys.attachments_of(policy.account_id, policy.record.unique_id)
    found = await identities.by_ids(policy.account_id, await identities.ids_under(prefix))
    return [each for each in found if each is not None]


async def holders(identities: Identities, account_id: str) -> list[Entity]:
    """All that something can be attached to. What comes with the store keeps no list of whom it is
    attached to; whoever asks for one has all of the account read, some thousand records at most."""
    found: list[Entity] = []
    for kind in (iam.GROUP, iam.ROLE, iam.USER):
        marker: str | None = ""
        while marker is not None:
            page = await identities.page(account_id, kind, limit=_PAGE, marker=marker)
            found += page.entities
            marker = page.marker
    return found


async def attachments_of_known(identities: Identities, account_id: str) -> Counter[str]:
    """How often each policy that comes with the store is attached in the account, by its ARN."""
    return Counter(
        each for holder in await holders(identities, account_id) for each in holder.record.attached
    )
