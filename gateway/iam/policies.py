"""Managed policies, and policies of users, groups and roles: inline ones and those attached."""

from gateway.domain import iam
from gateway.domain.iam import GROUP, POLICY, ROLE, USER, IamRefused, Kind, Refusal
from gateway.domain.managed_policies import ALL, managed_policy
from gateway.iam.action import Action, Call, Handle
from gateway.iam.answers import Answer
from gateway.iam.elements import Element, cut, encoded, known_policy_element, policy_element
from gateway.metadata import grants
from gateway.metadata.attachments import attachments_of_known
from gateway.metadata.identities import Entity
from gateway.metadata.identity_records import IamRecord
from gateway.metadata.policies import pack_policy

_ARN_LENGTH_MIN, _ARN_LENGTH_MAX = 20, 2048
_DESCRIPTION_LENGTH_MAX = 1000
_SCOPES = ("All", "AWS", "Local")
_USAGES = ("PermissionsPolicy", "PermissionsBoundary")


def policy_arn(call: Call) -> str:
    """The policy that is meant."""
    return call.form.required("PolicyArn", length_max=_ARN_LENGTH_MAX, length_min=_ARN_LENGTH_MIN)


def demand_own(arn: str) -> str:
    """The ARN, of a policy that can be changed. Raises IamRefused (UnmodifiableEntity)."""
    if managed_policy(arn) is not None:
        raise IamRefused(Refusal.NOT_POSSIBLE, f"Policy {arn} comes with the store.")
    return arn


async def own_policy(call: Call) -> Entity:
    """The account's own policy that is meant. Raises IamRefused."""
    return await grants.find_policy(call.identities, call.account_id, demand_own(policy_arn(call)))


def managed_document(call: Call) -> str:
    """What a managed policy is to say. Raises IamRefused."""
    document = call.form.document("PolicyDocument")
    iam.read_identity_policy(document)
    if iam.policy_size(document) > iam.MANAGED_POLICY_SIZE_MAX:
        raise iam.over_quota("PolicySize", iam.MANAGED_POLICY_SIZE_MAX)
    return document


def of_boundaries(call: Call) -> bool:
    """Whether only permissions boundaries are asked for, which nothing here has."""
    return call.form.choice("PolicyUsageFilter", _USAGES) == "PermissionsBoundary"


async def _create(call: Call) -> Answer:
    form = call.form
    name, document = form.new_name(POLICY), managed_document(call)
    description = form.text("Description", length_max=_DESCRIPTION_LENGTH_MAX, length_min=0)
    record = IamRecord(
        kind="",
        unique_id="",
        name="",
        path=form.path() or "/",
        created_ms=0,
        document=pack_policy(document.encode()),
        description=description or "",
        tags=form.tags(POLICY),
    )
    made = await call.identities.create(call.account_id, POLICY, name, record)
    return {"Policy": policy_element(made, 0, whole=True)}


async def _get(call: Call) -> Answer:
    arn = policy_arn(call)
    known = managed_policy(arn)
    if known is not None:
        attached = await attachments_of_known(call.identities, call.account_id)
        return {"Policy": known_policy_element(known, attached[arn])}
    found = await own_policy(call)
    count = await call.identities.attachments(found)
    return {"Policy": policy_element(found, count, whole=True)}


async def _list(call: Call) -> Answer:
    """The account's own, then those that come with the store; all are few enough to be read."""
    form = call.form
    scope, nothing = form.choice("Scope", _SCOPES) or "All", of_boundaries(call)
    marker, limit, prefix = form.marker(), form.limit(), form.path_prefix()
    attached_only = form.flag("OnlyAttached")
    items: list[tuple[str, Element]] = []
    if scope != "AWS":
        page = await call.identities.page(
            call.account_id, POLICY, limit=POLICY.quota, path_prefix=prefix
        )
        for each in page.entities:
            count = await call.identities.attachments(each)
            if count or not attached_only:
                items.append(("1/" + each.record.name.lower(), policy_element(each, count)))
    if scope != "Local" and prefix == "/":
        attached = await attachments_of_known(call.identities, call.account_id)
        items += [
            ("2/" + each.name, known_policy_element(each, attached[each.arn]))
            for each in ALL
            if attached[each.arn] or not attached_only
        ]
    return cut("Policies", [] if nothing else items, marker, limit)


async def _delete(call: Call) -> None:
    found = await own_policy(call)
    await call.identities.delete(call.account_id, POLICY, found.record.name)


# Inline policies


def _put_inline(kind: Kind) -> Handle:
    async def handle(call: Call) -> None:
        form = call.form
        name, policy = form.name(kind), form.policy_name()
        document = form.document("PolicyDocument")
        iam.read_identity_policy(document)
        await grants.put_inline(call.identities, call.account_id, kind, name, policy, document)

    return handle


def _get_inline(kind: Kind) -> Handle:
    async def handle(call: Call) -> Answer:
        policy = call.form.policy_name()
        entity = await call.find(kind)
        return {
            f"{kind.title}Name": entity.record.name,
            "PolicyName": policy,
            "PolicyDocument": encoded(grants.inline_document(entity, policy)),
        }

    return handle


def _list_inline(kind: Kind) -> Handle:
    async def handle(call: Call) -> Answer:
        entity = await call.find(kind)
        names = [(name, name) for name, _ in entity.record.inline]
        return cut("PolicyNames", names, call.form.marker(), call.form.limit())

    return handle


def _delete_inline(kind: Kind) -> Handle:
    async def handle(call: Call) -> None:
        await grants.delete_inline(
            call.identities,
            call.account_id,
            kind,
            call.form.name(kind),
            call.form.policy_name(),
        )

    return handle


# Managed policies of somebody


def _attach(kind: Kind) -> Handle:
    async def handle(call: Call) -> None:
        name = call.form.name(kind)
        await grants.attach(call.identities, call.account_id, kind, name, policy_arn(call))

    return handle


def _detach(kind: Kind) -> Handle:
    async def handle(call: Call) -> None:
        name = call.form.name(kind)
        await grants.detach(call.identities, call.account_id, kind, name, policy_arn(call))

    return handle


def _list_attached(kind: Kind) -> Handle:
    async def handle(call: Call) -> Answer:
        found = await grants.attached_policies(call.identities, await call.find(kind))
        shown = [(name, {"PolicyName": name, "PolicyArn": arn}) for name, arn in found]
        return cut("AttachedPolicies", shown, call.form.marker(), call.form.limit())

    return handle


def _actions_of(kind: Kind) -> tuple[Action, ...]:
    title = kind.title
    return (
        Action(f"Put{title}Policy", _put_inline(kind), kind),
        Action(f"Get{title}Policy", _get_inline(kind), kind),
        Action(f"List{title}Policies", _list_inline(kind), kind),
        Action(f"Delete{title}Policy", _delete_inline(kind), kind),
        Action(f"Attach{title}Policy", _attach(kind), kind),
        Action(f"Detach{title}Policy", _detach(kind), kind),
        Action(f"ListAttached{title}Policies", _list_attached(kind), kind),
    )


ACTIONS = (
    Action("CreatePolicy", _create, POLICY, tagging=True),
    Action("GetPolicy", _get, POLICY),
    Action("ListPolicies", _list, POLICY, listing=True),
    Action("DeletePolicy", _delete, POLICY),
    *_actions_of(USER),
    *_actions_of(GROUP),
    *_actions_of(ROLE),
)
