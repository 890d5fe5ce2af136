"""Accounts and access keys: who signs requests and owns buckets."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.metadata import groups, keys
from gateway.metadata.callers import entity_principal, root_principal, session_principal
from gateway.metadata.credentials import ACCESS_KEY, SECRET, Credentials
from gateway.metadata.errors import (
    AccountExists,
    AccountInUse,
    AccountInvalid,
    Contended,
    NoSuchAccount,
    SessionExpired,
)
from gateway.metadata.outcomes import Transactions
from gateway.metadata.records import AccessKeyRecord, AccountRecord, decode, encode
from gateway.metadata.sessions import Sessions
from gateway.s3.message import Principal
from placement.clock import Clock, Randomness
from placement.errors import OutcomeUnknown
from placement.metastore.port import (
    Compare,
    DeleteRange,
    Metastore,
    Operation,
    Put,
    Range,
    Relation,
    Target,
    Txn,
    absent,
    prefix_end,
    unchanged,
)

IDENTITIES_CACHED_MAX = 10_000
IDENTITY_AGE_SECONDS_MAX = 5.0
"""How stale an identity may be: changes arrive by watch within milliseconds; when the watch is broken
or late, a deleted account's requests are refused after this many seconds at the latest."""

_NAME = re.compile(r"[A-Za-z0-9+=,.@_-]{1,64}")
_EMAIL = re.compile(r"[^\s@\x00-\x1f]{1,64}@[^\s@\x00-\x1f]{1,189}")
_OF_SESSIONS = "token:"
"""Before a token that is a name in the cache; no access key has a colon."""
_PAGE = 500
_TRIES = 8


class Identity(NamedTuple):
    """Who an access key belongs to, and the secret it signs with."""

    principal: Principal
    secret: str

    def __repr__(self) -> str:
        return f"Identity({self.principal.access_key!r})"


class _Cached(NamedTuple):
    identity: Identity
    read_at: float


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account just made. The secret is told this once."""

    record: AccountRecord
    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"NewAccount({self.record.name!r}, {self.access_key!r})"


class Accounts:
    """Reads and writes of accounts; a bounded, watch-fed cache of identities."""

    def __init__(
        self,
        metastore: Metastore,
        transactions: Transactions,
        *,
        clock: Clock,
        randomness: Randomness,
        credentials: Credentials,
    ) -> None:
        self._metastore = metastore
        self._transactions = transactions
        self._clock = clock
        self._randomness = randomness
        self._credentials = credentials
        self.sessions = Sessions(credentials)
        self._cached: dict[str, _Cached] = {}
        self._generation = 0

    def clear(self) -> None:
        """Identities changed, or changes may have been missed."""
        self._generation += 1
        self._cached.clear()

    def cached_identity(self, access_key: str) -> Identity | None:
        """From the cache; None says nothing, then ask `identity`."""
        cached = self._cached.get(access_key)
        if cached is None:
            return None
        if self._clock.monotonic() - cached.read_at > IDENTITY_AGE_SECONDS_MAX:
            del self._cached[access_key]
            return None
        return cached.identity

    async def identity(self, access_key: str) -> Identity | None:
        """Who signs with that key; None when nobody does. Raises SealBroken."""
        identity = self.cached_identity(access_key)
        if identity is not None or not ACCESS_KEY.fullmatch(access_key):
            return identity
        generation = self._generation
        read_at = self._clock.monotonic()
        key = keys.access_key(access_key)
        (found,) = await self._metastore.get_many([key])
        if found is None:
            return None
        record = decode(AccessKeyRecord, found.value)
        account = await self.account(record.account_id)
        if account is None or not record.active:  # deleted between the two reads
            return None
        principal: Principal | None = root_principal(account, access_key)
        if record.user_id:
            principal = await entity_principal(self._metastore, account, access_key, record.user_id)
        if principal is None:
            return None
        identity = Identity(principal, self._credentials.open(record.sealed_secret, key).decode())
        self._remember(access_key, identity, generation, read_at)
        return identity

    async def session_identity(self, access_key: str, token: str) -> Identity | None:
        """Who signs with a session's credentials; None when they are none of ours, or who they stand
        for is gone. Raises SessionExpired."""
        name = _OF_SESSIONS + token
        identity = self.cached_identity(name)
        if identity is None:
            generation, read_at = self._generation, self._clock.monotonic()
            session = self.sessions.read(access_key, token)
            if session is None:
                return None
            account = await self.account(session.account_id)
            if account is None:
                return None
            principal = await session_principal(self._metastore, account, access_key, session)
            if principal is None:
                return None
            identity = Identity(principal, session.secret)
            self._remember(name, identity, generation, read_at)
        principal = identity.principal
        assert principal.session is not None
        if principal.session.expires_ms <= self._credentials.now_ms():
            raise SessionExpired(access_key)
        return identity if principal.access_key == access_key else None

    def _remember(self, name: str, identity: Identity, generation: int, read_at: float) -> None:
        """`name`: the access key, or what stands for a session's token."""
        if generation != self._generation:  # what was read may be outdated
            return
        if len(self._cached) >= IDENTITIES_CACHED_MAX:
            del self._cached[next(iter(self._cached))]
        self._cached[name] = _Cached(identity, read_at)

    async def account(self, account_id: str) -> AccountRecord | None:
        """One account by id."""
        (found,) = await self._metastore.get_many([keys.account(account_id)])
        return None if found is None else decode(AccountRecord, found.value)

    async def named(self, name_or_id: str) -> AccountRecord:
        """One account by name or id. Raises NoSuchAccount."""
        record = await self.account(await self._find(name_or_id))
        if record is None:
            raise NoSuchAccount(f"no account {name_or_id}")
        return record

    async def many(self, account_ids: Sequence[str]) -> Sequence[AccountRecord | None]:
        """Several accounts by id; None for each that is not there."""
        if not account_ids:
            return ()
        found = await self._metastore.get_many([keys.account(each) for each in account_ids])
        return [None if kv is None else decode(AccountRecord, kv.value) for kv in found]

    async def by_canonical_id(self, canonical_id: str) -> str | None:
        """The account's id."""
        (found,) = await self._metastore.get_many([keys.canonical(canonical_id)])
        return None if found is None else found.value.decode()

    async def by_email(self, email: str) -> str | None:
        """The id of the one account with that address; None when there is none, or more."""
        wanted = email.lower()
        found = [
            record.account_id for record in await self.list() if record.email.lower() == wanted
        ]
        return found[0] if wanted and len(found) == 1 else None

    async def list(self) -> tuple[AccountRecord, ...]:
        """All accounts, in order of id (root first)."""
        records: list[AccountRecord] = []
        start, end = keys.ACCOUNTS, prefix_end(keys.ACCOUNTS)
        while True:
            page = await self._metastore.range(Range(start, end, limit=_PAGE))
            records.extend(decode(AccountRecord, found.value) for found in page.kvs)
            if not page.more:
                return tuple(records)
            start = page.kvs[-1].key + b"\x00"

    async def create(
        self,
        name: str,
        *,
        email: str = "",
        access_key: str | None = None,
        secret_key: str | None = None,
    ) -> NewAccount:
        """Make an account with one access key, random unless given.

        Raises AccountInvalid, AccountExists (by name or access key).
        """
        if (access_key is None) != (secret_key is None):
            raise AccountInvalid("an access key and its secret are given together or not at all")
        access_key = access_key or self._credentials.access_key()
        secret_key = secret_key or self._credentials.secret()
        _check(name, email, access_key, secret_key)
        for _ in range(_TRIES):
            digits = self._credentials.text(b"0123456789", 12)
            if digits == keys.ROOT_ACCOUNT_ID:
                continue
            record = self._new_record(digits, name, email, access_key)
            once = await groups.for_once(self._metastore, keys.ended(digits.encode()))
            creation = self._creation(record, secret_key)
            applied = await self._transactions.run(
                Txn((*creation.compares, *once), creation.success)
            )
            if applied.succeeded:
                return NewAccount(record, access_key, secret_key)
            mine, by_name, by_key = await self._metastore.get_many(
                [keys.account(digits), keys.account_name(name), keys.access_key(access_key)]
            )
            if mine is not None and decode(AccountRecord, mine.value) == record:
                return NewAccount(record, access_key, secret_key)
            if not applied.certain:
                raise OutcomeUnknown(f"account {name} may have been made, or may be yet")
            if by_name is not None:
                raise AccountExists(f"an account named {name} exists")
            if by_key is not None:
                raise AccountExists(f"the access key {access_key} exists")
        raise Contended("accounts keep changing")

    async def delete(self, name_or_id: str) -> AccountRecord:
        """Delete an account and its access keys. Raises NoSuchAccount, AccountInUse."""
        for _ in range(_TRIES):
            account_id = await self._find(name_or_id)
            key = keys.account(account_id)
            owned = keys.owned_buckets(account_id)
            within = keys.identities_of(account_id)
            account, buckets, identities = await self._metastore.read(
                [
                    Range(key),
                    Range(owned, prefix_end(owned), limit=1, keys_only=True),
                    Range(within, prefix_end(within), limit=1, keys_only=True),
                ]
            )
            if not account.kvs:
                raise NoSuchAccount(f"no account {name_or_id}")
            record = decode(AccountRecord, account.kvs[0].value)
            if record.is_root:
                raise AccountInUse("the root account cannot be deleted")
            if buckets.kvs:
                raise AccountInUse(f"account {record.name} owns buckets")
            if identities.kvs:
                raise AccountInUse(f"account {record.name} has users, groups, roles or policies")
            compares = (
                unchanged(key, account.kvs[0].mod_revision),
                Compare(owned, Target.VERSION, Relation.EQUAL, 0, prefix_end(owned)),
                Compare(within, Target.VERSION, Relation.EQUAL, 0, prefix_end(within)),
            )
            writes: tuple[Operation, ...] = (
                DeleteRange(key),
                DeleteRange(keys.account_name(record.name)),
                DeleteRange(keys.account_quota(record.account_id)),
                DeleteRange(keys.canonical(record.canonical_id)),
                *(DeleteRange(keys.access_key(each)) for each in record.access_keys),
                groups.end_told(account_id.encode(), self._clock.now_ns() // 1_000_000),
            )
            applied = await self._transactions.run(Txn(compares, writes))
            self.clear()
            if applied.succeeded:
                return record
            if not applied.certain and await self.account(account_id) is None:
                return record
        raise Contended(f"account {name_or_id} keeps changing")

    async def ensure_root(self, access_key: str, secret_key: str) -> AccountRecord:
        """Make or update the root account so that exactly this key signs for it.

        Raises AccountInvalid, and AccountExists when another account has that access key.
        """
        _check("root", "", access_key, secret_key)
        for _ in range(_TRIES):
            account_key, key_key = (
                keys.account(keys.ROOT_ACCOUNT_ID),
                keys.access_key(access_key),
            )
            account, held = await self._metastore.get_many([account_key, key_key])
            if held is not None:
                holder = decode(AccessKeyRecord, held.value)
                if holder.account_id != keys.ROOT_ACCOUNT_ID:
                    raise AccountExists(f"the access key {access_key} is another account's")
            if account is None:
                record = self._new_record(keys.ROOT_ACCOUNT_ID, "root", "", access_key)
                txn = self._creation(record, secret_key)
            else:
                record = decode(AccountRecord, account.value)
                identity = await self.identity(access_key)
                if (
                    record.access_keys == (access_key,)
                    and identity is not None
                    and identity.secret == secret_key
                ):
                    return record
                txn, record = self._new_root_key(
                    record, account.mod_revision, access_key, secret_key
                )
            applied = await self._transactions.run(txn)
            self.clear()
            if applied.succeeded:
                return record
        raise Contended("the root account keeps changing")

    def _new_root_key(
        self, record: AccountRecord, mod_revision: int, access_key: str, secret_key: str
    ) -> tuple[Txn, AccountRecord]:
        old_keys = [each for each in record.access_keys if each != access_key]
        updated = AccountRecord(
            account_id=record.account_id,
            canonical_id=record.canonical_id,
            name=record.name,
            email=record.email,
            created_ms=record.created_ms,
            access_keys=(access_key,),
            is_root=True,
        )
        account_key = keys.account(record.account_id)
        return Txn(
            (unchanged(account_key, mod_revision),),
            (
                Put(account_key, encode(updated)),
                self._credentials.sealed(access_key, record.account_id, secret_key),
                *(DeleteRange(keys.access_key(each)) for each in old_keys),
            ),
        ), updated

    async def _find(self, name_or_id: str) -> str:
        if re.fullmatch(r"[0-9]{12}", name_or_id):
            return name_or_id
        if not _NAME.fullmatch(name_or_id):
            raise NoSuchAccount(f"no account {name_or_id}")
        (found,) = await self._metastore.get_many([keys.account_name(name_or_id)])
        if found is None:
            raise NoSuchAccount(f"no account {name_or_id}")
        return found.value.decode()

    def _creation(self, record: AccountRecord, secret_key: str) -> Txn:
        (access_key,) = record.access_keys
        taken = (
            keys.account(record.account_id),
            keys.account_name(record.name),
            keys.canonical(record.canonical_id),
            keys.access_key(access_key),
        )
        return Txn(
            tuple(absent(key) for key in taken),
            (
                Put(keys.account(record.account_id), encode(record)),
                Put(keys.account_name(record.name), record.account_id.encode()),
                Put(keys.canonical(record.canonical_id), record.account_id.encode()),
                self._credentials.sealed(access_key, record.account_id, secret_key),
            ),
        )

    def _new_record(self, account_id: str, name: str, email: str, access_key: str) -> AccountRecord:
        return AccountRecord(
            account_id=account_id,
            canonical_id=self._randomness.token(32).hex(),
            name=name,
            email=email,
            created_ms=self._clock.now_ns() // 1_000_000,
            access_keys=(access_key,),
            is_root=account_id == keys.ROOT_ACCOUNT_ID,
        )


def _check(name: str, email: str, access_key: str, secret_key: str) -> None:
    if not _NAME.fullmatch(name) or re.fullmatch(r"[0-9]{12}", name):
        raise AccountInvalid(
            "an account's name has 1 to 64 of A-Z a-z 0-9 + = , . @ _ - and is not an account id"
        )
    if email and not _EMAIL.fullmatch(email):
        raise AccountInvalid("that is not an e-mail address")
    if not ACCESS_KEY.fullmatch(access_key):
        raise AccountInvalid("an access key has 3 to 128 of A-Z a-z 0-9 _")
    if not SECRET.fullmatch(secret_key):
        raise AccountInvalid("a secret key has 8 to 128 printable ASCII characters, no spaces")
