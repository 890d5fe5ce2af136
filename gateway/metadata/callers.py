"""From an access key or a session to a principal: the account, the user or role, and its policies."""

from collections.abc import Sequence
from typing import Final

from gateway.domain import iam
from gateway.domain.managed_policies import managed_policy
from gateway.domain.policy.document import DENY_ALL_OF_IDENTITY, Policy
from gateway.metadata import keys
from gateway.metadata.identity_records import IamRecord, SessionRecord
from gateway.metadata.policies import stored_identity_policy
from gateway.metadata.records import AccountRecord, decode
from gateway.s3.message import Principal, Session
from placement.metastore.port import Metastore

_FORBIDS_ALL: Final = (DENY_ALL_OF_IDENTITY,)


def root_principal(account: AccountRecord, access_key: str) -> Principal:
    """The root of an account."""
    return Principal(
        account_id=account.account_id,
        canonical_id=account.canonical_id,
        name=account.name,
        email=account.email,
        access_key=access_key,
        is_root=account.is_root,
    )


async def entity_principal(
    metastore: Metastore, account: AccountRecord, access_key: str, unique_id: str
) -> Principal | None:
    """A user of the account, or who plays one of its roles (then `session` is still to be said),
    with all policies; None when it is not there any more.

    The parts are read one after the other. What changes meanwhile clears the cache of identities.
    """
    (found,) = await metastore.get_many([keys.identity(account.account_id, unique_id)])
    if found is None:
        return None
    record = decode(IamRecord, found.value)
    is_user = record.kind == iam.USER.letter
    return Principal(
        account_id=account.account_id,
        canonical_id=account.canonical_id,
        name=account.name,
        email=account.email,
        access_key=access_key,
        user=record.name if is_user else "",
        user_id=unique_id,
        user_path=record.path,
        policies=await _policies(metastore, account.account_id, record),
        # A role has no name of its own as a user: it is plain nowhere.
        session=None if is_user else Session(_arn(account.account_id, record), 0, "-"),
        tags=record.tags,
    )


def _arn(account_id: str, record: IamRecord) -> str:
    return iam.arn(account_id, iam.KINDS[record.kind], record.path, record.name)


async def session_principal(
    metastore: Metastore, account: AccountRecord, access_key: str, session: SessionRecord
) -> Principal | None:
    """Who asks with a session's credentials; None when the user or role is not there any more."""
    if not session.entity_id:
        root = root_principal(account, access_key)
        return _with_session(root, Session(root.arn, session.expires_ms))
    found = await entity_principal(metastore, account, access_key, session.entity_id)
    if found is None:
        return None
    policy = stored_identity_policy(session.policy) if session.policy else None
    if found.user:
        return _with_session(found, Session(found.arn, session.expires_ms, policy=policy))
    role_arn = found.arn
    name = role_arn.rpartition("/")[2]
    arn = iam.session_arn(account.account_id, name, session.name)
    return _with_session(
        found,
        Session(arn, session.expires_ms, role_arn, policy),
        user_id=f"{session.entity_id}:{session.name}",
    )


def _with_session(principal: Principal, session: Session, *, user_id: str = "") -> Principal:
    return Principal(
        account_id=principal.account_id,
        canonical_id=principal.canonical_id,
        name=principal.name,
        email=principal.email,
        access_key=principal.access_key,
        user=principal.user,
        user_id=user_id or principal.user_id,
        user_path=principal.user_path,
        policies=principal.policies,
        session=session,
        tags=principal.tags,
    )


async def _policies(metastore: Metastore, account_id: str, record: IamRecord) -> tuple[Policy, ...]:
    groups = await _entities(metastore, account_id, record.groups)
    holders = [record, *(group for group in groups if group is not None)]
    attached = list(dict.fromkeys(each for holder in holders for each in holder.attached))
    own = [each for each in attached if managed_policy(each) is None]
    documents = [packed for holder in holders for _, packed in holder.inline]
    found = await _entities(metastore, account_id, own)
    documents += [policy.document for policy in found if policy is not None]
    comes_along = (managed_policy(each) for each in attached)
    policies = (
        *(stored_identity_policy(packed) for packed in documents),
        *(each.policy for each in comes_along if each is not None),
    )
    # A group or policy that went while this was read may have forbidden something: nothing is
    # permitted this once, and what made it go clears the cache.
    lost = any(each is None for each in (*groups, *found))
    return _FORBIDS_ALL if lost else policies


async def _entities(
    metastore: Metastore, account_id: str, ids: Sequence[str]
) -> list[IamRecord | None]:
    if not ids:
        return []
    found = await metastore.get_many([keys.identity(account_id, each) for each in ids])
    return [None if kv is None else decode(IamRecord, kv.value) for kv in found]
