"""The condition keys of a request to IAM or STS."""

from collections.abc import Mapping, Sequence

from gateway.authorization import caller_of
from gateway.domain.iam_tags import Tags, of_key
from gateway.domain.policy.question import Question
from gateway.iam.action import Call
from gateway.request_facts import RequestFacts


class CallFacts:
    """Implements `gateway.domain.policy.question.Facts`: what every request has, `further`, and tags:
    those that the request sets, and those of what it is done to."""

    def __init__(
        self,
        facts: RequestFacts,
        further: Mapping[str, Sequence[str]],
        *,
        set_tags: Tags = (),
        resource_tags: Tags = (),
    ) -> None:
        self._facts = facts
        self._further = further
        self._tags = {
            "aws:requesttag": set_tags,
            "aws:resourcetag": resource_tags,
            "iam:resourcetag": resource_tags,
        }

    def values(self, key: str) -> Sequence[str] | None:
        """The values of a condition key; None when the request has no such key."""
        found = self._further.get(key)
        if found is not None:
            return found
        name, _, tag = key.partition("/")
        tags = self._tags.get(name)
        return self._facts.values(key) if tags is None else of_key(tags, tag)


_PARAMETERS = {
    "sts:externalid": "ExternalId",
    "sts:rolesessionname": "RoleSessionName",
    "sts:durationseconds": "DurationSeconds",
    "iam:policyarn": "PolicyArn",
}


def facts_of(
    call: Call,
    owner: str,
    further: Mapping[str, Sequence[str]] | None = None,
    *,
    resource_tags: Tags = (),
) -> CallFacts:
    """The facts of a call, about a resource of the account `owner` that has these tags."""
    told: dict[str, Sequence[str]] = {
        key: (value,)
        for key, parameter in _PARAMETERS.items()
        if (value := call.form.get(parameter)) is not None
    }
    if keys := call.form.told_tag_keys():
        told["aws:tagkeys"] = keys
    context, request = call.received.context, call.received.request
    facts = RequestFacts(request, call.principal, owner, context.region, context.clock.now_ns())
    return CallFacts(
        facts,
        {**told, **(further or {})},
        set_tags=call.form.told_tags(),
        resource_tags=resource_tags,
    )


def question_of(
    call: Call, permission: str, resource: str, owner: str, *, resource_tags: Tags = ()
) -> Question:
    """Whether the caller may do this to a resource of the account `owner`, as a question."""
    facts = facts_of(call, owner, resource_tags=resource_tags)
    return Question(caller_of(call.principal), permission, resource, facts)
