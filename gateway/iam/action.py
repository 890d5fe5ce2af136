"""An action of IAM or STS as a value: its name, what it is done to, how it is carried out."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.context import Context
from gateway.domain import iam
from gateway.domain.iam import IamRefused, Kind
from gateway.domain.iam_tags import Tags
from gateway.iam.answers import Answer
from gateway.iam.form import Form
from gateway.iam.provider_keys import ProviderKeys
from gateway.metadata.identities import Entity, Identities
from gateway.metadata.store import Metadata
from gateway.s3.message import Principal, S3Request

VERSIONS: Final = {"iam": "2010-05-08", "sts": "2011-06-15"}


@dataclass(frozen=True, slots=True)
class Wire:
    """What a call over the wire has besides."""

    context: Context
    request: S3Request
    provider_keys: ProviderKeys


@dataclass(frozen=True, slots=True)
class Call:
    """One request: who asks, and with which parameters. An operator's call of IAM, for the root of
    an account, has no `wire`: no policy is asked about it."""

    metadata: Metadata
    principal: Principal
    form: Form
    wire: Wire | None = None

    @property
    def identities(self) -> Identities:
        """The repository."""
        return self.metadata.identities

    @property
    def account_id(self) -> str:
        """The account in which everything happens: the caller's."""
        return self.principal.account_id

    @property
    def received(self) -> Wire:
        """What it has besides, for what nobody calls but over the wire."""
        assert self.wire is not None
        return self.wire

    async def find(self, kind: Kind) -> Entity:
        """The entity that the form names. Raises IamRefused."""
        return await self.identities.find(self.account_id, kind, self.form.name(kind))


Handle = Callable[[Call], Awaitable[Answer | None]]


@dataclass(frozen=True, slots=True)
class Action:
    """One row of the table. `kind` is what the action is about; `of_caller`: without a name the
    caller is meant; `listing`: all of the kind are, or nothing in particular when there is none."""

    name: str
    handle: Handle
    kind: Kind | None = None
    of_caller: bool = False
    listing: bool = False
    service: str = "iam"
    free: bool = False
    """Permitted to whoever signs: it tells or gives nothing that the caller has not, or it decides
    for itself."""
    unsigned: bool = False
    """Something else than a signature proves who asks."""
    tagging: bool = False
    """It makes something, perhaps with tags, and these need the permission to tag besides."""

    def permissions(self, form: Form) -> tuple[str, ...]:
        """All that it needs, as policies name it."""
        own = f"{self.service}:{self.name}"
        if not self.tagging or not form.has_tags or self.kind is None:
            return (own,)
        return own, f"{self.service}:Tag{self.kind.title}"


_ARN_ARGUMENTS: Final = {
    iam.POLICY.letter: "PolicyArn",
    iam.PROVIDER.letter: "OpenIDConnectProviderArn",
}


class Asked(NamedTuple):
    """What policies are asked about: an ARN, and the tags of what has it."""

    arn: str
    tags: Tags = ()


async def resource_of(action: Action, call: Call) -> Asked:
    """What the call is about. Raises IamRefused (ValidationError)."""
    kind, form, account_id = action.kind, call.form, call.account_id
    if kind is None:
        return Asked("*")
    if action.listing:
        return Asked(iam.arn(account_id, kind, form.path_prefix(), ""))
    arn = form.get(_ARN_ARGUMENTS.get(kind.letter, ""))
    if arn is not None:
        named = await call.identities.at_arn(account_id, kind, arn)
        return Asked(arn, () if named is None else named.record.tags)
    url = form.get("Url")
    if kind is iam.PROVIDER and url is not None:
        return Asked(iam.arn(account_id, kind, "/", iam.provider_name(url)))
    name = form.get(f"{kind.title}Name")
    if name is None:
        if action.of_caller:
            return Asked(call.principal.arn, call.principal.tags)
        return Asked(iam.arn(account_id, kind, "/", ""))
    try:
        found = await call.find(kind)
    except IamRefused:
        return Asked(iam.arn(account_id, kind, form.path() or "/", name))
    return Asked(found.arn, found.record.tags)
