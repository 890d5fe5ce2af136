"""Users, groups, roles and managed policies: read, listed, and changed in transactions that compare
what they relied on."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec

from gateway.domain import iam
from gateway.domain.iam import IamRefused, Kind, Refusal
from gateway.metadata import groups, keys
from gateway.metadata.credentials import ACCESS_KEY_ALPHABET, Credentials
from gateway.metadata.errors import Contended
from gateway.metadata.identity_records import IamRecord
from gateway.metadata.outcomes import Transactions
from gateway.metadata.records import decode, encode
from placement.clock import Randomness
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

_TRIES = 8
_PAGE = 500


class Entity(NamedTuple):
    """A record as it was read."""

    account_id: str
    kind: Kind
    record: IamRecord
    mod_revision: int

    @property
    def key(self) -> bytes:
        """Of the record."""
        return keys.identity(self.account_id, self.record.unique_id)

    @property
    def name_key(self) -> bytes:
        """Of what finds it by name."""
        return keys.identity_name(self.account_id, self.kind.letter, self.record.name)

    @property
    def arn(self) -> str:
        """Its ARN."""
        return iam.arn(self.account_id, self.kind, self.record.path, self.record.name)


class Change(NamedTuple):
    """What becomes of an entity, and what goes along. `record` None: it is deleted."""

    record: IamRecord | None
    compares: tuple[Compare, ...] = ()
    operations: tuple[Operation, ...] = ()


class EntityPage(NamedTuple):
    """Entities in order of name; `marker` continues, None at the end."""

    entities: tuple[Entity, ...]
    marker: str | None


Decide = Callable[[Entity], Awaitable[Change | None]]
"""What to change, from what was read; None when it is so already. Called again after a lost race."""


def there(key: bytes) -> Compare:
    """That a key exists, whatever it says."""
    return Compare(key, Target.VERSION, Relation.GREATER, 0)


def empty(prefix: bytes) -> Compare:
    """That no key begins so."""
    return Compare(prefix, Target.VERSION, Relation.EQUAL, 0, prefix_end(prefix))


class Identities:
    """The repository of one process. Refusals are `gateway.domain.iam.IamRefused`."""

    def __init__(
        self,
        metastore: Metastore,
        transactions: Transactions,
        credentials: Credentials,
        randomness: Randomness,
    ) -> None:
        self.metastore = metastore
        self.transactions = transactions
        self.credentials = credentials
        self.randomness = randomness

    async def find(self, account_id: str, kind: Kind, name: str) -> Entity:
        """By name, whatever its case. Raises IamRefused (NoSuchEntity)."""
        name_key = keys.identity_name(account_id, kind.letter, name)
        (named,) = await self.metastore.get_many([name_key])
        if named is not None:
            (found,) = await self.by_ids(account_id, [named.value.decode()])
            # Between the two reads it may have got another name.
            if found is not None and found.record.name.lower() == name.lower():
                return found
        raise iam.missing(kind, name)

    async def at_arn(self, account_id: str, kind: Kind, arn: str) -> Entity | None:
        """The policy or provider whose ARN is exactly that, also in case, since policies are asked
        about what was given; None when there is none."""
        if kind is iam.PROVIDER:
            name = iam.provider_in_arn(arn, account_id)
        else:
            name = iam.name_in_arn(arn, account_id, kind)
        if not name:
            return None
        try:
            found = await self.find(account_id, kind, name)
        except IamRefused:
            return None
        return found if found.arn == arn else None

    async def by_ids(self, account_id: str, ids: Sequence[str]) -> list[Entity | None]:
        """Several by id; None for each that is not there."""
        if not ids:
            return []
        found = await self.metastore.get_many([keys.identity(account_id, each) for each in ids])
        entities: list[Entity | None] = []
        for kv in found:
            if kv is None:
                entities.append(None)
                continue
            record = decode(IamRecord, kv.value)
            entities.append(Entity(account_id, iam.KINDS[record.kind], record, kv.mod_revision))
        return entities

    async def page(
        self,
        account_id: str,
        kind: Kind,
        *,
        limit: int,
        marker: str = "",
        path_prefix: str = "/",
    ) -> EntityPage:
        """Entities whose path begins so, after the name `marker`. One more than asked is read, so
        that the last page says that it is."""
        prefix = keys.identity_names(account_id, kind.letter)
        start = prefix + marker.encode() + b"\x00" if marker else prefix
        chosen: list[Entity] = []
        while True:
            names = await self.metastore.range(Range(start, prefix_end(prefix), limit=_PAGE))
            found = await self.by_ids(account_id, [kv.value.decode() for kv in names.kvs])
            for entity in found:
                if entity is None or not entity.record.path.startswith(path_prefix):
                    continue
                if len(chosen) == limit:
                    return EntityPage(tuple(chosen), chosen[-1].record.name.lower())
                chosen.append(entity)
            if not names.more:
                return EntityPage(tuple(chosen), None)
            start = names.kvs[-1].key + b"\x00"

    async def members(self, group: Entity) -> list[Entity]:
        """The users in a group, in order of name."""
        ids = await self.ids_under(keys.members_of(group.account_id, group.record.unique_id))
        users = [each for each in await self.by_ids(group.account_id, ids) if each is not None]
        return sorted(users, key=lambda user: user.record.name.lower())

    async def attachments(self, policy: Entity) -> int:
        """How many users, groups and roles a managed policy is attached to."""
        prefix = keys.attachments_of(policy.account_id, policy.record.unique_id)
        return await self._count(prefix)

    async def counts(self, account_id: str) -> dict[str, int]:
        """How many of each kind there are, by the kind's letter."""
        return {
            letter: await self._count(keys.identity_names(account_id, letter))
            for letter in iam.KINDS
        }

    async def create(self, account_id: str, kind: Kind, name: str, record: IamRecord) -> Entity:
        """Make one; `record` has everything but its id and time. Raises IamRefused, Contended."""
        if await self._count(keys.identity_names(account_id, kind.letter)) >= kind.quota:
            raise iam.over_quota(f"{kind.title}sPerAccount", kind.quota)
        record = msgspec.structs.replace(
            record,
            kind=kind.letter,
            name=name,
            unique_id=kind.id_prefix + self.credentials.text(ACCESS_KEY_ALPHABET, 17),
            created_ms=self.credentials.now_ms(),
        )
        entity = Entity(account_id, kind, record, 0)
        account_key = keys.account(account_id)
        own = (there(account_key), absent(entity.name_key), absent(entity.key))
        puts = (Put(entity.key, encode(record)), Put(entity.name_key, record.unique_id.encode()))
        for _ in range(_TRIES):
            once = await groups.for_once(self.metastore, keys.ended(record.unique_id.encode()))
            applied = await self.transactions.run(Txn((*own, *once), puts))
            if applied.succeeded:
                return entity
            mine, named, account = await self.metastore.get_many(
                [entity.key, entity.name_key, account_key]
            )
            if mine is not None:
                return entity
            if not applied.certain:
                raise OutcomeUnknown(f"{kind.word} {name} may have been made, or may be yet")
            if named is not None:
                raise iam.exists_already(kind, name)
            if account is None:
                raise IamRefused(
                    Refusal.NO_SUCH_ENTITY, f"The account {account_id} does not exist any more."
                )
            # A write window was closed meanwhile, or one of that name made and deleted.
        raise Contended(f"{kind.word} {name} cannot be made now")

    async def change(self, account_id: str, kind: Kind, name: str, decide: Decide) -> Entity:
        """Change one, or delete it. Raises what `decide` raises, IamRefused, Contended."""
        unsure = False
        for _ in range(_TRIES):
            try:
                entity = await self.find(account_id, kind, name)
                change = await decide(entity)
            except IamRefused as refused:
                if unsure and refused.refusal is Refusal.NO_SUCH_ENTITY:
                    return entity  # the answer was lost, not the change
                raise
            if change is None:
                return entity
            applied = await self.transactions.run(_txn(entity, change))
            if applied.succeeded:
                return entity if change.record is None else entity._replace(record=change.record)
            unsure = unsure or not applied.certain
        raise Contended(f"{kind.word} {name} keeps changing")

    async def delete(self, account_id: str, kind: Kind, name: str) -> None:
        """Raises IamRefused: it is not there, or something hangs on it."""

        async def decide(entity: Entity) -> Change:
            record, below = entity.record, self._below(entity)
            members = 0 if below is None else await self._count(below)
            iam.demand_removable(
                kind,
                access_keys=len(record.access_keys),
                inline=len(record.inline),
                attached=len(record.attached),
                groups=len(record.groups),
                members=members,
                other_versions=len(record.versions),
            )
            return Change(
                None,
                () if below is None else (empty(below),),
                (
                    DeleteRange(entity.key),
                    DeleteRange(entity.name_key),
                    groups.end_told(record.unique_id.encode(), self.credentials.now_ms()),
                ),
            )

        await self.change(account_id, kind, name, decide)

    async def rename(
        self, account_id: str, kind: Kind, name: str, *, new_name: str | None, new_path: str | None
    ) -> Entity:
        """Another name, another path, or both; the id stays. Raises IamRefused."""

        async def decide(entity: Entity) -> Change | None:
            record = msgspec.structs.replace(
                entity.record,
                name=new_name or entity.record.name,
                path=new_path or entity.record.path,
            )
            renamed = entity._replace(record=record)
            if record == entity.record:
                return None
            if renamed.name_key == entity.name_key:
                return Change(record)
            (taken,) = await self.metastore.get_many([renamed.name_key])
            if taken is not None and taken.value != record.unique_id.encode():
                raise iam.exists_already(kind, record.name)
            return Change(
                record,
                (absent(renamed.name_key),),
                (
                    DeleteRange(entity.name_key),
                    Put(renamed.name_key, record.unique_id.encode()),
                ),
            )

        return await self.change(account_id, kind, name, decide)

    async def ids_under(self, prefix: bytes) -> list[str]:
        """What the keys that begin so end in."""
        ids: list[str] = []
        start = prefix
        while True:
            page = await self.metastore.range(
                Range(start, prefix_end(prefix), limit=_PAGE, keys_only=True)
            )
            ids.extend(kv.key[len(prefix) :].decode() for kv in page.kvs)
            if not page.more:
                return ids
            start = page.kvs[-1].key + b"\x00"

    async def _count(self, prefix: bytes) -> int:
        found = await self.metastore.range(Range(prefix, prefix_end(prefix), count_only=True))
        return found.count

    def _below(self, entity: Entity) -> bytes | None:
        """Where it is said what hangs on a group or a managed policy."""
        if entity.kind is iam.GROUP:
            return keys.members_of(entity.account_id, entity.record.unique_id)
        if entity.kind is iam.POLICY:
            return keys.attachments_of(entity.account_id, entity.record.unique_id)
        return None


def _txn(entity: Entity, change: Change) -> Txn:
    writes = change.operations
    if change.record is not None:
        writes = (Put(entity.key, encode(change.record)), *writes)
    return Txn((unchanged(entity.key, entity.mod_revision), *change.compares), writes)
