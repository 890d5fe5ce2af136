"""Tags of users, roles, managed policies and identity providers: set, taken away, listed."""

from collections.abc import Callable

import msgspec

from gateway.domain.iam import POLICY, PROVIDER, ROLE, USER, Kind
from gateway.domain.iam_tags import TAG_KEY_LENGTH_MAX, TAGS_MAX, Tags, merged, without
from gateway.domain.managed_policies import managed_policy
from gateway.iam.action import Action, Call, Handle
from gateway.iam.answers import Answer
from gateway.iam.elements import cut
from gateway.iam.form import absent
from gateway.iam.policies import own_policy, policy_arn
from gateway.iam.providers import find_provider
from gateway.metadata.identities import Change, Entity


async def _find(call: Call, kind: Kind) -> Entity:
    if kind is PROVIDER:
        return await find_provider(call)
    return await (own_policy(call) if kind is POLICY else call.find(kind))


async def _change(call: Call, kind: Kind, changed: Callable[[Tags], Tags]) -> None:
    async def decide(entity: Entity) -> Change | None:
        tags = changed(entity.record.tags)
        if tags == entity.record.tags:
            return None
        return Change(msgspec.structs.replace(entity.record, tags=tags))

    found = await _find(call, kind)
    await call.identities.change(call.account_id, kind, found.record.name, decide)


def _tag(kind: Kind) -> Handle:
    async def handle(call: Call) -> None:
        new = call.form.tags(kind)
        _demand(call, "Tags", new)
        await _change(call, kind, lambda tags: merged(kind, tags, new))

    return handle


def _untag(kind: Kind) -> Handle:
    async def handle(call: Call) -> None:
        gone = call.form.members("TagKeys", count_max=TAGS_MAX, length_max=TAG_KEY_LENGTH_MAX)
        _demand(call, "TagKeys", gone)
        await _change(call, kind, lambda tags: without(kind, tags, gone))

    return handle


def _demand(call: Call, argument: str, given: tuple[object, ...]) -> None:
    """A list must be given; an empty one is its name alone."""
    if not given and call.form.get(argument) is None:
        raise absent(argument)


def _list(kind: Kind) -> Handle:
    async def handle(call: Call) -> Answer:
        form = call.form
        known = kind is POLICY and managed_policy(policy_arn(call)) is not None
        tags = () if known else (await _find(call, kind)).record.tags
        shown = [(key, {"Key": key, "Value": value}) for key, value in sorted(tags)]
        return cut("Tags", shown, form.marker(), form.limit())

    return handle


def _actions_of(kind: Kind) -> tuple[Action, ...]:
    title = kind.title
    return (
        Action(f"Tag{title}", _tag(kind), kind),
        Action(f"Untag{title}", _untag(kind), kind),
        Action(f"List{title}Tags", _list(kind), kind),
    )


ACTIONS = tuple(action for kind in (USER, ROLE, POLICY, PROVIDER) for action in _actions_of(kind))
