"""Every action of IAM and STS that is offered, by name."""

from typing import Final

from gateway.iam import (
    absences,
    groups,
    policies,
    policy_entities,
    policy_versions,
    providers,
    roles,
    sts,
    tags,
    users,
    web_identity,
)
from gateway.iam.action import Action

ACTIONS: Final[dict[str, Action]] = {
    action.name: action
    for action in (
        *users.ACTIONS,
        *groups.ACTIONS,
        *roles.ACTIONS,
        *policies.ACTIONS,
        *policy_versions.ACTIONS,
        *policy_entities.ACTIONS,
        *tags.ACTIONS,
        *providers.ACTIONS,
        *absences.ACTIONS,
        *sts.ACTIONS,
        *web_identity.ACTIONS,
    )
}
