"""The condition keys of a request to IAM or STS."""

from collections.abc import Mapping, Sequence

from gateway.authorization import caller_of
from gateway.domain.policy.question import Question
from gateway.iam.action import Call
from gateway.request_facts import RequestFacts


class CallFacts:
    """Implements `gateway.domain.policy.question.Facts`: what every request has, and `further`."""

    def __init__(self, facts: RequestFacts, further: Mapping[str, Sequence[str]]) -> None:
        self._facts = facts
        self._further = further

    def values(self, key: str) -> Sequence[str] | None:
        """The values of a condition key; None when the request has no such key."""
        found = self._further.get(key)
        return self._facts.values(key) if found is None else found


_PARAMETERS = {
    "sts:externalid": "ExternalId",
    "sts:rolesessionname": "RoleSessionName",
    "sts:durationseconds": "DurationSeconds",
    "iam:policyarn": "PolicyArn",
}


def facts_of(
    call: Call, owner: str, further: Mapping[str, Sequence[str]] | None = None
) -> CallFacts:
    """The facts of a call, about a resource of the account `owner`."""
    told = {
        key: (value,)
        for key, parameter in _PARAMETERS.items()
        if (value := call.form.get(parameter)) is not None
    }
    context, request = call.received.context, call.received.request
    facts = RequestFacts(request, call.principal, owner, context.region, context.clock.now_ns())
    return CallFacts(facts, {**told, **(further or {})})


def question_of(call: Call, permission: str, resource: str, owner: str) -> Question:
    """Whether the caller may do this to a resource of the account `owner`, as a question."""
    return Question(caller_of(call.principal), permission, resource, facts_of(call, owner))
