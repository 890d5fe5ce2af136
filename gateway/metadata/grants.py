"""What users, groups and roles are given: inline policies, managed ones, memberships, access keys."""

from typing import Final, NamedTuple

import msgspec

from gateway.domain import iam
from gateway.domain.iam import IamRefused, Kind, Refusal
from gateway.domain.managed_policies import managed_policy
from gateway.metadata import keys
from gateway.metadata.errors import Contended
from gateway.metadata.identities import Change, Entity, Identities, there
from gateway.metadata.identity_records import IamRecord
from gateway.metadata.policies import pack_policy, unpack_policy
from gateway.metadata.records import AccessKeyRecord, AccountRecord, decode, encode
from placement.metastore.port import DeleteRange, Operation, Put, Txn, absent, unchanged

_TRIES: Final = 8


# Inline policies


async def put_inline(
    identities: Identities, account_id: str, kind: Kind, name: str, policy: str, document: str
) -> None:
    """Add or replace one. The document is valid already. Raises IamRefused."""

    async def decide(entity: Entity) -> Change:
        others = {each: packed for each, packed in entity.record.inline if each != policy}
        sizes = sum(iam.policy_size(unpack_policy(each).decode()) for each in others.values())
        iam.check_inline(kind, sizes + iam.policy_size(document))
        others[policy] = pack_policy(document.encode())
        return Change(_with_inline(entity.record, others))

    await identities.change(account_id, kind, name, decide)


async def delete_inline(
    identities: Identities, account_id: str, kind: Kind, name: str, policy: str
) -> None:
    """Raises IamRefused."""

    async def decide(entity: Entity) -> Change:
        inline_document(entity, policy)
        return Change(
            _with_inline(
                entity.record,
                {each: packed for each, packed in entity.record.inline if each != policy},
            )
        )

    await identities.change(account_id, kind, name, decide)


def inline_document(entity: Entity, policy: str) -> str:
    """What an inline policy says. Raises IamRefused (NoSuchEntity)."""
    for name, packed in entity.record.inline:
        if name == policy:
            return unpack_policy(packed).decode()
    raise IamRefused(
        Refusal.NO_SUCH_ENTITY,
        f"The {entity.kind.word} policy with name {policy} cannot be found.",
    )


def _with_inline(record: IamRecord, inline: dict[str, bytes]) -> IamRecord:
    return msgspec.structs.replace(record, inline=tuple(sorted(inline.items())))


# Managed policies


async def find_policy(identities: Identities, account_id: str, arn: str) -> Entity:
    """One of the account's own managed policies. Raises IamRefused (NoSuchEntity)."""
    found = await identities.at_arn(account_id, iam.POLICY, arn)
    if found is None:
        raise no_policy(arn)
    return found


def no_policy(arn: str) -> IamRefused:
    """NoSuchEntity in AWS's words."""
    return IamRefused(Refusal.NO_SUCH_ENTITY, f"Policy {arn} does not exist or is not attachable.")


async def attach(
    identities: Identities, account_id: str, kind: Kind, name: str, policy_arn: str
) -> None:
    """Attach a managed policy; that it is attached already is success. Raises IamRefused."""

    async def decide(entity: Entity) -> Change | None:
        own: Entity | None = None
        reference = policy_arn
        if managed_policy(policy_arn) is None:
            own = await find_policy(identities, account_id, policy_arn)
            reference = own.record.unique_id
        attached = entity.record.attached
        if reference in attached:
            return None
        if len(attached) >= iam.ATTACHED_MAX:
            raise iam.over_quota(f"PoliciesPer{kind.title}", iam.ATTACHED_MAX)
        record = msgspec.structs.replace(entity.record, attached=(*attached, reference))
        if own is None:
            return Change(record)
        return Change(record, (there(own.key),), (Put(_attachment(own, entity), b""),))

    await identities.change(account_id, kind, name, decide)


async def detach(
    identities: Identities, account_id: str, kind: Kind, name: str, policy_arn: str
) -> None:
    """Raises IamRefused (NoSuchEntity) when it is not attached."""

    async def decide(entity: Entity) -> Change:
        own: Entity | None = None
        reference = policy_arn
        if managed_policy(policy_arn) is None:
            own = await find_policy(identities, account_id, policy_arn)
            reference = own.record.unique_id
        if reference not in entity.record.attached:
            raise IamRefused(Refusal.NO_SUCH_ENTITY, f"Policy {policy_arn} was not found.")
        record = msgspec.structs.replace(
            entity.record,
            attached=tuple(each for each in entity.record.attached if each != reference),
        )
        gone: tuple[Operation, ...] = ()
        if own is not None:
            gone = (DeleteRange(_attachment(own, entity)),)
        return Change(record, (), gone)

    await identities.change(account_id, kind, name, decide)


async def attached_policies(identities: Identities, entity: Entity) -> list[tuple[str, str]]:
    """(name, ARN) of the managed policies attached, in order of name."""
    own = [each for each in entity.record.attached if managed_policy(each) is None]
    known = [managed_policy(each) for each in entity.record.attached]
    found = [(each.name, each.arn) for each in known if each is not None]
    policies = await identities.by_ids(entity.account_id, own)
    found += [(each.record.name, each.arn) for each in policies if each is not None]
    return sorted(found)


def _attachment(policy: Entity, entity: Entity) -> bytes:
    prefix = keys.attachments_of(policy.account_id, policy.record.unique_id)
    return prefix + entity.record.unique_id.encode()


# Memberships


async def add_to_group(identities: Identities, account_id: str, group: str, user: str) -> None:
    """That the user is in it already is success. Raises IamRefused."""

    async def decide(entity: Entity) -> Change | None:
        into = await identities.find(account_id, iam.GROUP, group)
        groups = entity.record.groups
        if into.record.unique_id in groups:
            return None
        if len(groups) >= iam.GROUPS_OF_USER_MAX:
            raise iam.over_quota("GroupsPerUser", iam.GROUPS_OF_USER_MAX)
        record = msgspec.structs.replace(entity.record, groups=(*groups, into.record.unique_id))
        return Change(record, (there(into.key),), (Put(_membership(into, entity), b""),))

    await identities.change(account_id, iam.USER, user, decide)


async def remove_from_group(identities: Identities, account_id: str, group: str, user: str) -> None:
    """Raises IamRefused (NoSuchEntity) when the user is not in it."""

    async def decide(entity: Entity) -> Change:
        out_of = await identities.find(account_id, iam.GROUP, group)
        wanted = out_of.record.unique_id
        if wanted not in entity.record.groups:
            raise IamRefused(
                Refusal.NO_SUCH_ENTITY, f"User {user} is not in the group with name {group}."
            )
        record = msgspec.structs.replace(
            entity.record, groups=tuple(each for each in entity.record.groups if each != wanted)
        )
        return Change(record, (), (DeleteRange(_membership(out_of, entity)),))

    await identities.change(account_id, iam.USER, user, decide)


def _membership(group: Entity, user: Entity) -> bytes:
    prefix = keys.members_of(group.account_id, group.record.unique_id)
    return prefix + user.record.unique_id.encode()


# Access keys


class Holder(NamedTuple):
    """Who has access keys: a user, or an account's root."""

    key: bytes
    record: IamRecord | AccountRecord
    mod_revision: int
    account_id: str
    user_id: str
    name: str
    """For the answers; of the account for its root."""


class GivenKey(NamedTuple):
    """A key that an operator brings with its secret, because it is written down elsewhere."""

    access_key: str
    secret: str

    def __repr__(self) -> str:
        return f"GivenKey({self.access_key!r})"


class NewAccessKey(NamedTuple):
    """A key just made. The secret is told this once."""

    record: AccessKeyRecord
    secret: str
    name: str

    def __repr__(self) -> str:
        return f"NewAccessKey({self.record.access_key!r})"


async def holder(identities: Identities, account_id: str, user: str | None) -> Holder:
    """The user of that name, or the root. Raises IamRefused (NoSuchEntity)."""
    if user is not None:
        entity = await identities.find(account_id, iam.USER, user)
        record = entity.record
        return Holder(
            entity.key, record, entity.mod_revision, account_id, record.unique_id, record.name
        )
    key = keys.account(account_id)
    (found,) = await identities.metastore.get_many([key])
    if found is None:
        raise IamRefused(Refusal.NO_SUCH_ENTITY, f"The account {account_id} cannot be found.")
    account = decode(AccountRecord, found.value)
    return Holder(key, account, found.mod_revision, account_id, "", account.name)


async def access_keys(identities: Identities, of: Holder) -> list[AccessKeyRecord]:
    """The holder's keys, as they were made."""
    wanted = [keys.access_key(each) for each in of.record.access_keys]
    if not wanted:
        return []
    found = await identities.metastore.get_many(wanted)
    return [decode(AccessKeyRecord, kv.value) for kv in found if kv is not None]


async def create_access_key(
    identities: Identities, account_id: str, user: str | None, given: GivenKey | None = None
) -> NewAccessKey:
    """A further key, random unless given; given again it is the same one. Raises IamRefused."""
    credentials = identities.credentials
    access_key, secret = given or (credentials.access_key(), credentials.secret())
    for _ in range(_TRIES):
        of = await holder(identities, account_id, user)
        known = None if given is None else await _known(identities, of, given)
        if known is not None:
            return known
        write = credentials.sealed(access_key, account_id, secret, of.user_id)
        made = NewAccessKey(decode(AccessKeyRecord, write.value), secret, of.name)
        if given is None and access_key in of.record.access_keys:
            return made  # an answer was lost
        _demand_own_keys(of)
        if len(of.record.access_keys) >= iam.ACCESS_KEYS_MAX:
            raise iam.over_quota("AccessKeysPerUser", iam.ACCESS_KEYS_MAX)
        record = _with_keys(of.record, (*of.record.access_keys, access_key))
        txn = Txn(
            (unchanged(of.key, of.mod_revision), absent(write.key)),
            (Put(of.key, encode(record)), write),
        )
        if (await identities.transactions.run(txn)).succeeded:
            return made
    raise Contended("access keys keep changing")


async def _known(identities: Identities, of: Holder, given: GivenKey) -> NewAccessKey | None:
    """The key where the holder has it with that secret; None when nobody has it. Raises IamRefused."""
    key = keys.access_key(given.access_key)
    (found,) = await identities.metastore.get_many([key])
    if found is None:
        return None
    record = decode(AccessKeyRecord, found.value)
    theirs = (record.account_id, record.user_id) != (of.account_id, of.user_id)
    if theirs or identities.credentials.open(record.sealed_secret, key) != given.secret.encode():
        raise IamRefused(
            Refusal.ENTITY_ALREADY_EXISTS,
            f"The Access Key with id {given.access_key} exists, of another user or with another secret.",
        )
    return NewAccessKey(record, given.secret, of.name)


async def set_access_key_active(
    identities: Identities, account_id: str, user: str | None, access_key: str, active: bool
) -> None:
    """Raises IamRefused."""
    for _ in range(_TRIES):
        of = await holder(identities, account_id, user)
        key = _key_of(of, access_key)
        (found,) = await identities.metastore.get_many([key])
        if found is None:
            continue  # it goes just now
        record = decode(AccessKeyRecord, found.value)
        if record.active is active:
            return
        _demand_own_keys(of)
        txn = Txn(
            (unchanged(of.key, of.mod_revision), unchanged(key, found.mod_revision)),
            (Put(key, encode(msgspec.structs.replace(record, active=active))),),
        )
        if (await identities.transactions.run(txn)).succeeded:
            return
    raise Contended("access keys keep changing")


async def delete_access_key(
    identities: Identities, account_id: str, user: str | None, access_key: str
) -> None:
    """Raises IamRefused."""
    unsure = False
    for _ in range(_TRIES):
        of = await holder(identities, account_id, user)
        if unsure and access_key not in of.record.access_keys:
            return
        key = _key_of(of, access_key)
        _demand_own_keys(of)
        left = tuple(each for each in of.record.access_keys if each != access_key)
        txn = Txn(
            (unchanged(of.key, of.mod_revision),),
            (Put(of.key, encode(_with_keys(of.record, left))), DeleteRange(key)),
        )
        applied = await identities.transactions.run(txn)
        if applied.succeeded:
            return
        unsure = unsure or not applied.certain
    raise Contended("access keys keep changing")


def _key_of(of: Holder, access_key: str) -> bytes:
    if access_key not in of.record.access_keys:
        raise IamRefused(
            Refusal.NO_SUCH_ENTITY, f"The Access Key with id {access_key} cannot be found."
        )
    return keys.access_key(access_key)


def _demand_own_keys(of: Holder) -> None:
    """The one key of the store's first account comes from its configuration at each start."""
    if isinstance(of.record, AccountRecord) and of.record.is_root:
        raise IamRefused(
            Refusal.NOT_POSSIBLE,
            "The access key of the store's root account comes from its configuration.",
        )


def _with_keys(
    record: IamRecord | AccountRecord, access_keys: tuple[str, ...]
) -> IamRecord | AccountRecord:
    return msgspec.structs.replace(record, access_keys=access_keys)
