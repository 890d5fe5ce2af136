"""What policies say to a question: explicit deny over allow over silence.

Source: IAM User Guide, "Policy evaluation logic".
"""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.domain.policy.document import Policy, Statement
from gateway.domain.policy.globs import Lookup, Pattern
from gateway.domain.policy.principals import Match
from gateway.domain.policy.question import Question


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one or several policies say. `allowed` tells how the caller was meant: an account that
    is meant as a whole must itself let its users (Match.ACCOUNT)."""

    denied: bool
    allowed: Match


SILENT = Opinion(False, Match.NONE)
DENIED = Opinion(True, Match.NONE)


def opinion(policies: Iterable[Policy], question: Question) -> Opinion:
    """The joint opinion of policies of one kind."""
    allowed = Match.NONE
    enough = Match.SESSION if question.caller.role_arn else Match.DIRECT
    for policy in policies:
        for statement in policy.statements:
            if statement.allows and allowed >= enough:
                continue
            match = _applies(statement, question)
            if match is Match.NONE:
                continue
            if not statement.allows:
                return DENIED
            allowed = max(allowed, match)
    return Opinion(False, allowed) if allowed else SILENT


def _applies(statement: Statement, question: Question) -> Match:
    lookup = question.variable
    if _fits(statement.actions, question.action, lookup) is statement.other_actions:
        return Match.NONE
    match = (
        Match.DIRECT
        if statement.principals is None
        else statement.principals.match(question.caller)
    )
    if match is Match.NONE:
        return match
    if _fits(statement.resources, question.resource, lookup) is statement.other_resources:
        return Match.NONE
    for condition in statement.conditions:
        if not condition.holds(question):
            return Match.NONE
    return match


def _fits(patterns: tuple[Pattern, ...], text: str, lookup: Lookup) -> bool:
    return any(pattern.matches(text, lookup) for pattern in patterns)
