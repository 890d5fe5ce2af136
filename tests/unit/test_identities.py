"""Users, groups, roles and policies in the metadata: races, lost answers, what the cache forgets."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from gateway.domain import iam
from gateway.domain.iam import GROUP, POLICY, ROLE, USER, IamRefused, Refusal
from gateway.metadata import grants, keys
from gateway.metadata.errors import AccountInUse, SessionExpired
from gateway.metadata.identities import Change, Entity
from gateway.metadata.identity_records import IamRecord
from gateway.metadata.policies import pack_policy
from placement.metastore.port import Range, prefix_end
from tests.unit.metadata_doubles import Rig

BLANK = IamRecord(kind="", unique_id="", name="", path="/", created_ms=0)
ALLOW = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
TRUST = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole",'
    '"Principal":{"AWS":"*"}}]}'
)


class World(Rig):
    """An account with a user, a group and a policy."""

    account = ""

    async def begin(self) -> "World":
        lost, self.faulty.lost_answers = self.faulty.lost_answers, 0.0
        made = await self.metadata.accounts.create("alice")
        self.account = made.record.account_id
        self.identities = self.metadata.identities
        await self.identities.create(self.account, USER, "bob", BLANK)
        await self.identities.create(self.account, GROUP, "team", BLANK)
        document = msgspec.structs.replace(BLANK, document=pack_policy(ALLOW.encode()))
        await self.identities.create(self.account, POLICY, "all", document)
        self.faulty.lost_answers = lost
        return self

    @property
    def policy(self) -> str:
        return iam.arn(self.account, POLICY, "/", "all")


def run(test: Callable[[World], Awaitable[None]], *, lost_answers: float = 0.0) -> None:
    async def main() -> None:
        await test(await World(lost_answers=lost_answers).begin())

    asyncio.run(main())


def refusal_of(error: pytest.ExceptionInfo[IamRefused]) -> Refusal:
    return error.value.refusal


def test_of_two_that_make_the_same_user_one_succeeds() -> None:
    async def test(world: World) -> None:
        other = world.gateway().identities
        made = await asyncio.gather(
            world.identities.create(world.account, USER, "Eve", BLANK),
            other.create(world.account, USER, "eve", BLANK),
            return_exceptions=True,
        )
        assert sum(isinstance(each, Entity) for each in made) == 1

    run(test)


def test_changes_from_two_gateways_are_both_kept() -> None:
    async def test(world: World) -> None:
        other = world.gateway().identities
        await asyncio.gather(
            grants.put_inline(world.identities, world.account, USER, "bob", "one", ALLOW),
            grants.put_inline(other, world.account, USER, "bob", "two", ALLOW),
            grants.attach(world.identities, world.account, USER, "bob", world.policy),
            grants.add_to_group(other, world.account, "team", "bob"),
        )
        bob = await world.identities.find(world.account, USER, "bob")
        assert [name for name, _ in bob.record.inline] == ["one", "two"]
        assert len(bob.record.attached) == len(bob.record.groups) == 1

    run(test)


def test_a_policy_that_is_attached_just_now_is_not_deleted() -> None:
    async def test(world: World) -> None:
        other = world.gateway().identities
        attached, deleted = await asyncio.gather(
            grants.attach(world.identities, world.account, USER, "bob", world.policy),
            other.delete(world.account, POLICY, "all"),
            return_exceptions=True,
        )
        assert (attached is None) != (deleted is None)

    run(test)


def test_a_group_with_a_member_that_comes_just_now_is_not_deleted() -> None:
    async def test(world: World) -> None:
        other = world.gateway().identities
        joined, deleted = await asyncio.gather(
            grants.add_to_group(world.identities, world.account, "team", "bob"),
            other.delete(world.account, GROUP, "team"),
            return_exceptions=True,
        )
        assert (joined is None) != (deleted is None)

    run(test)


@pytest.mark.parametrize("seed", range(8))
def test_lost_answers_do_not_double_or_lose_a_change(seed: int) -> None:
    async def main() -> None:
        world = await World(seed, lost_answers=0.25).begin()
        identities, account = world.identities, world.account
        made = await grants.create_access_key(identities, account, "bob")
        await grants.attach(identities, account, USER, "bob", world.policy)
        await grants.add_to_group(identities, account, "team", "bob")
        await identities.rename(account, USER, "bob", new_name="rob", new_path=None)
        bob = await identities.find(account, USER, "rob")
        assert bob.record.access_keys == (made.record.access_key,)
        assert await identities.attachments(await identities.find(account, POLICY, "all")) == 1
        await grants.remove_from_group(identities, account, "team", "rob")
        await grants.detach(identities, account, USER, "rob", world.policy)
        await grants.delete_access_key(identities, account, "rob", made.record.access_key)
        await identities.delete(account, USER, "rob")
        await identities.delete(account, GROUP, "team")
        await identities.delete(account, POLICY, "all")
        within = keys.identities_of(account)
        left = await world.memory.range(Range(within, prefix_end(within)))
        assert left.kvs == ()

    asyncio.run(main())


def test_a_user_signs_with_its_policies_and_those_of_its_groups() -> None:
    async def test(world: World) -> None:
        made = await grants.create_access_key(world.identities, world.account, "bob")
        await grants.put_inline(world.identities, world.account, GROUP, "team", "g", ALLOW)
        await grants.add_to_group(world.identities, world.account, "team", "bob")
        await grants.attach(world.identities, world.account, USER, "bob", world.policy)
        identity = await world.metadata.identity(made.record.access_key)
        assert identity is not None
        principal, secret = identity
        assert (principal.user, principal.is_root, secret) == ("bob", False, made.secret)
        assert len(principal.policies) == 2
        assert principal.plain_account != world.account
        assert principal.arn == f"arn:aws:iam::{world.account}:user/bob"

    run(test)


def test_a_policy_that_cannot_be_read_forbids_all() -> None:
    async def test(world: World) -> None:
        made = await grants.create_access_key(world.identities, world.account, "bob")

        async def damage(entity: Entity) -> Change:
            return Change(msgspec.structs.replace(entity.record, inline=(("p", b"rubbish"),)))

        await world.identities.change(world.account, USER, "bob", damage)
        identity = await world.metadata.identity(made.record.access_key)
        assert identity is not None
        (policy,) = identity.principal.policies
        assert not policy.statements[0].allows

    run(test)


def test_a_session_ends_with_its_time_its_role_and_its_account() -> None:
    async def test(world: World) -> None:
        role = msgspec.structs.replace(BLANK, document=pack_policy(TRUST.encode()))
        made = await world.identities.create(world.account, ROLE, "writer", role)
        accounts = world.metadata.accounts
        session = accounts.sessions.issue(world.account, made.record.unique_id, 900, name="night")
        identity = await accounts.session_identity(session.access_key, session.token)
        assert identity is not None
        principal = identity.principal
        assert principal.arn == f"arn:aws:sts::{world.account}:assumed-role/writer/night"
        assert principal.role_arn == made.arn
        assert principal.plain_account != world.account
        assert not principal.user
        assert identity.secret not in repr(session)
        assert await accounts.session_identity("ASIAANOTHERKEY", session.token) is None
        assert await accounts.session_identity(session.access_key, session.access_key) is None
        world.clock.now_ms += 901_000
        with pytest.raises(SessionExpired):
            await accounts.session_identity(session.access_key, session.token)
        again = accounts.sessions.issue(world.account, made.record.unique_id, 900, name="n")
        await world.identities.delete(world.account, ROLE, "writer")
        accounts.clear()
        assert await accounts.session_identity(again.access_key, again.token) is None

    run(test)


def test_an_account_is_deleted_only_when_nothing_of_iam_is_in_it() -> None:
    async def test(world: World) -> None:
        with pytest.raises(AccountInUse):
            await world.metadata.accounts.delete("alice")
        for kind, name in ((USER, "bob"), (GROUP, "team"), (POLICY, "all")):
            await world.identities.delete(world.account, kind, name)
        await world.metadata.accounts.delete("alice")
        with pytest.raises(IamRefused) as refused:
            await world.identities.find(world.account, USER, "bob")
        assert refusal_of(refused) is Refusal.NO_SUCH_ENTITY

    run(test)


def test_nothing_is_made_in_an_account_that_is_gone() -> None:
    async def test(world: World) -> None:
        with pytest.raises(IamRefused, match="does not exist"):
            await world.identities.create("999999999999", USER, "ghost", BLANK)

    run(test)
