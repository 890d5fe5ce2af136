"""IAM's actions for operators of the store: as the root of whichever account, without a signature of it."""

from collections.abc import Mapping

from gateway.domain.iam import IamRefused, Refusal
from gateway.iam.action import Call
from gateway.iam.answers import Answer
from gateway.iam.form import Form
from gateway.iam.registry import ACTIONS
from gateway.metadata.callers import root_principal
from gateway.metadata.store import Metadata


async def act(
    metadata: Metadata, account: str, name: str, parameters: Mapping[str, str]
) -> Answer | None:
    """Carry out an action of IAM in the account of that name or id. Raises IamRefused, Contended,
    NoSuchAccount."""
    action = ACTIONS.get(name)
    if action is None or action.service != "iam":
        raise IamRefused(Refusal.INVALID_ACTION, f"There is no action {name[:128]} of IAM.")
    record = await metadata.accounts.named(account)
    principal = root_principal(record, "")
    return await action.handle(Call(metadata, principal, Form(dict(parameters))))
