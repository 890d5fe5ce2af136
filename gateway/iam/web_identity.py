"""AssumeRoleWithWebIdentity: a provider's token is exchanged for a role's credentials.

Source: STS API Reference, "AssumeRoleWithWebIdentity"; IAM User Guide, "AWS OIDC federation
condition keys".
"""

from gateway.domain import iam
from gateway.domain.access import allows
from gateway.domain.iam import PROVIDER, IamRefused, Refusal
from gateway.domain.policy.conditions import condition_key
from gateway.domain.policy.question import Caller, Question
from gateway.domain.web_tokens import (
    TOKEN_LENGTH_MAX,
    TokenExpired,
    TokenInvalid,
    WebToken,
    check_claims,
    claim_values,
    read_token,
    session_claim,
    verify,
)
from gateway.iam.action import Action, Call
from gateway.iam.answers import Answer
from gateway.iam.facts import facts_of
from gateway.iam.provider_keys import ProviderUnreachable
from gateway.iam.sts import find_role, refuse_unoffered, role_session, session_name, session_policy
from gateway.metadata.identities import Entity
from gateway.metadata.policies import stored_trust_policy

_PERMISSION = "sts:AssumeRoleWithWebIdentity"
_NANOSECONDS = 1_000_000_000


async def _assume(call: Call) -> Answer:
    form = call.form
    refuse_unoffered(call, "PolicyArns.member.1.arn", "ProviderId")
    arn = form.required("RoleArn", length_max=2048, length_min=20)
    name, policy = session_name(call), session_policy(call)
    text = form.required("WebIdentityToken", length_max=TOKEN_LENGTH_MAX, length_min=4)
    role = await find_role(call, arn)
    try:
        token = read_token(text)
        provider = await _provider(call, role, token)
        url = provider.record.description
        verify(token, await call.received.provider_keys.of(url, token))
        now_seconds = call.received.context.clock.now_ns() / _NANOSECONDS
        client = check_claims(token, provider.record.clients, now_seconds)
        subject, further = token.subject, session_claim(token)
    except TokenExpired as error:
        raise IamRefused(Refusal.EXPIRED_TOKEN, str(error)) from error
    except TokenInvalid as error:
        raise IamRefused(Refusal.INVALID_IDENTITY_TOKEN, str(error)) from error
    except ProviderUnreachable as error:
        raise IamRefused(
            Refusal.PROVIDER_UNREACHABLE, "The identity provider does not tell its keys."
        ) from error
    if further is not None:
        # Policies may rest on them: a session without them is not what the token is for.
        raise IamRefused(
            Refusal.INVALID_INPUT, f"The claim {further} is not implemented by this server."
        )
    if role is None or not _is_trusted(call, role, provider, token):
        raise IamRefused(Refusal.ACCESS_DENIED, f"Not authorized to perform {_PERMISSION}")
    session = role_session(
        call, role, seconds_max=iam.ROLE_SESSION_SECONDS_MAX, name=name, policy=policy
    )
    return {
        **session,
        "SubjectFromWebIdentityToken": subject,
        "Audience": client,
        "Provider": provider.arn,
    }


async def _provider(call: Call, role: Entity | None, token: WebToken) -> Entity:
    """The issuer, as the role's account has registered it."""
    named = iam.provider_name(token.issuer)
    if role is not None:
        try:
            found = await call.identities.find(role.account_id, PROVIDER, named)
        except IamRefused:
            pass
        else:
            if found.record.description.rstrip("/") == token.issuer.rstrip("/"):
                return found
    raise TokenInvalid("No OpenIDConnect provider found in your account for the token's issuer.")


def _is_trusted(call: Call, role: Entity, provider: Entity, token: WebToken) -> bool:
    name, claims = provider.record.name, claim_values(token)
    further = {condition_key(f"{name}:{each}"): claims[each] for each in claims if each}
    caller = Caller(role.account_id, provider.arn, federated=provider.arn)
    facts = facts_of(call, role.account_id, further, resource_tags=role.record.tags)
    question = Question(caller, _PERMISSION, role.arn, facts)
    return allows(stored_trust_policy(role.record.document), question)


ACTIONS = (Action("AssumeRoleWithWebIdentity", _assume, service="sts", free=True, unsigned=True),)
