"""Every action of IAM and STS that is offered, by name."""

from typing import Final

from gateway.iam import groups, policies, providers, roles, sts, users, web_identity
from gateway.iam.action import Action

ACTIONS: Final[dict[str, Action]] = {
    action.name: action
    for action in (
        *users.ACTIONS,
        *groups.ACTIONS,
        *roles.ACTIONS,
        *policies.ACTIONS,
        *providers.ACTIONS,
        *sts.ACTIONS,
        *web_identity.ACTIONS,
    )
}
