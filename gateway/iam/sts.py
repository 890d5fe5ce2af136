"""STS: who am I, and temporary credentials.

Source: STS API Reference.
"""

import re
from typing import Final

from gateway.domain import iam
from gateway.domain.access import may_assume, may_by_identity
from gateway.domain.iam import ROLE, USER, IamRefused, Refusal
from gateway.iam.action import Action, Call
from gateway.iam.answers import Answer
from gateway.iam.facts import question_of
from gateway.metadata.identities import Entity
from gateway.metadata.policies import pack_policy, stored_trust_policy
from gateway.metadata.sessions import NewSession
from gateway.s3.headers import format_iso8601

_SESSION_NAME: Final = re.compile(r"[\w+=,.@-]*", re.ASCII)
_TOKEN_SECONDS_MAX: Final = 129_600
_TOKEN_SECONDS_DEFAULT: Final = 43_200
_ROOT_SECONDS_MAX: Final = 3600
_CHAINED_SECONDS_MAX: Final = 3600
"""Of a role assumed by who plays a role already."""
_ROLE_SECONDS_DEFAULT: Final = 3600
ASSUME_ROLE: Final = "sts:AssumeRole"


def credentials_element(session: NewSession) -> Answer:
    """What a client needs to sign for the session."""
    return {
        "AccessKeyId": session.access_key,
        "SecretAccessKey": session.secret,
        "SessionToken": session.token,
        "Expiration": format_iso8601(session.expires_ms),
    }


def refuse_unoffered(call: Call, *names: str) -> None:
    """InvalidInput for parameters that would narrow or prove something, and cannot here."""
    for name in names:
        if call.form.get(name) is not None:
            raise IamRefused(Refusal.INVALID_INPUT, f"{name} is not implemented by this server.")


def session_policy(call: Call) -> bytes:
    """What the session is to be narrowed to, packed; empty when it is not. Raises IamRefused."""
    if call.form.get("Policy") is None:
        return b""
    document = call.form.document("Policy")
    iam.read_identity_policy(document)
    if iam.policy_size(document) > iam.SESSION_POLICY_SIZE_MAX:
        raise IamRefused(
            Refusal.PACKED_POLICY_TOO_LARGE,
            f"The policy has more than {iam.SESSION_POLICY_SIZE_MAX} characters.",
        )
    return pack_policy(document.encode())


def session_name(call: Call) -> str:
    """RoleSessionName."""
    return call.form.required("RoleSessionName", length_max=64, length_min=2, pattern=_SESSION_NAME)


def role_session(call: Call, role: Entity, *, seconds_max: int, name: str, policy: bytes) -> Answer:
    """Credentials to play a role that trusts the caller, and who one is then."""
    allowed_seconds = min(role.record.session_seconds_max, seconds_max)
    seconds = call.form.number(
        "DurationSeconds", iam.SESSION_SECONDS_MIN, iam.ROLE_SESSION_SECONDS_MAX
    )
    if seconds is not None and seconds > allowed_seconds:
        raise IamRefused(
            Refusal.VALIDATION,
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        )
    record = role.record
    session = call.metadata.accounts.sessions.issue(
        role.account_id,
        record.unique_id,
        seconds or min(_ROLE_SECONDS_DEFAULT, allowed_seconds),
        name=name,
        policy=policy,
    )
    return {
        "Credentials": credentials_element(session),
        "AssumedRoleUser": {
            "AssumedRoleId": f"{record.unique_id}:{name}",
            "Arn": iam.session_arn(role.account_id, record.name, name),
        },
        "PackedPolicySize": len(policy) * 100 // iam.SESSION_POLICY_SIZE_MAX if policy else None,
    }


async def find_role(call: Call, arn: str) -> Entity | None:
    """The role of that ARN, of whichever account; None when there is none."""
    named = iam.role_in_arn(arn)
    if named is None:
        return None
    try:
        found = await call.identities.find(named[0], ROLE, named[1])
    except IamRefused:
        return None
    return found if found.arn == arn else None


async def _caller_identity(call: Call) -> Answer:
    principal = call.principal
    return {
        "UserId": principal.user_id or principal.account_id,
        "Account": principal.account_id,
        "Arn": principal.arn,
    }


async def _session_token(call: Call) -> Answer:
    refuse_unoffered(call, "SerialNumber", "TokenCode")
    principal = call.principal
    if principal.session is not None:
        raise IamRefused(
            Refusal.ACCESS_DENIED, "Cannot call GetSessionToken with session credentials"
        )
    seconds = call.form.number("DurationSeconds", iam.SESSION_SECONDS_MIN, _TOKEN_SECONDS_MAX)
    seconds = seconds or _TOKEN_SECONDS_DEFAULT
    if not principal.user:
        seconds = min(seconds, _ROOT_SECONDS_MAX)
    session = call.metadata.accounts.sessions.issue(
        principal.account_id, principal.user_id, seconds
    )
    return {"Credentials": credentials_element(session)}


async def _assume_role(call: Call) -> Answer:
    form, principal = call.form, call.principal
    refuse_unoffered(
        call,
        *("PolicyArns.member.1.arn", "Tags.member.1.Key", "TransitiveTagKeys.member.1"),
        *("SerialNumber", "TokenCode", "SourceIdentity", "ProvidedContexts.member.1.ProviderArn"),
    )
    arn = form.required("RoleArn", length_max=2048, length_min=20)
    name, policy = session_name(call), session_policy(call)
    role = await find_role(call, arn)
    if role is None:
        raise iam.not_authorized(principal.arn, ASSUME_ROLE, arn)
    question = question_of(call, ASSUME_ROLE, arn, role.account_id, resource_tags=role.record.tags)
    trust = stored_trust_policy(role.record.document)
    narrowed = principal.session_policy is None or may_by_identity(
        question, principal.policies, principal.session_policy
    )
    if not narrowed or not may_assume(question, trust, role.account_id, principal.policies):
        raise iam.not_authorized(principal.arn, ASSUME_ROLE, arn)
    seconds_max = _CHAINED_SECONDS_MAX if principal.role_arn else iam.ROLE_SESSION_SECONDS_MAX
    return role_session(call, role, seconds_max=seconds_max, name=name, policy=policy)


ACTIONS = (
    Action("GetCallerIdentity", _caller_identity, service="sts", free=True),
    Action("GetSessionToken", _session_token, USER, service="sts", free=True),
    Action("AssumeRole", _assume_role, ROLE, service="sts", free=True),
)
"""AssumeRole asks for itself: the role's account decides too."""
