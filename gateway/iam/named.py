"""What is done to users, groups and roles alike: listing, renaming and deleting by name."""

from gateway.domain.iam import Kind
from gateway.iam.action import Call, Handle
from gateway.iam.answers import Answer
from gateway.iam.elements import entity_element, page_element


def listing(kind: Kind) -> Handle:
    """Carries out List<kind>s: a page of those under a path."""

    async def handle(call: Call) -> Answer:
        form = call.form
        page = await call.identities.page(
            call.account_id,
            kind,
            limit=form.limit(),
            marker=form.marker(),
            path_prefix=form.path_prefix(),
        )
        return page_element(f"{kind.title}s", page, [entity_element(e) for e in page.entities])

    return handle


def renaming(kind: Kind) -> Handle:
    """Carries out Update<kind>: another name, another path, or both."""
    argument = f"New{kind.title}Name"

    async def handle(call: Call) -> None:
        form = call.form
        new_name = form.get(argument)
        await call.identities.rename(
            call.account_id,
            kind,
            form.name(kind),
            new_name=None if new_name is None else form.new_name(kind, argument),
            new_path=form.path("NewPath"),
        )

    return handle


def deleting(kind: Kind) -> Handle:
    """Carries out Delete<kind>."""

    async def handle(call: Call) -> None:
        await call.identities.delete(call.account_id, kind, call.form.name(kind))

    return handle
