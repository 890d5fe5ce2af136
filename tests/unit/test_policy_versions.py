"""Versions of managed policies: the rules, and what becomes of them in the metadata."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import iam
from gateway.domain.iam import POLICY, USER, IamRefused, Refusal
from gateway.domain.policy_versions import (
    VERSIONS_MAX,
    PolicyVersion,
    PolicyVersions,
    number_of,
)
from gateway.metadata import attachments, grants
from gateway.metadata.identity_records import IamRecord
from gateway.metadata.policies import pack_policy
from gateway.metadata.policy_versions import (
    choose_version,
    create_version,
    delete_version,
    find_version,
    versions_of,
    with_versions,
)
from tests.unit.metadata_doubles import Rig

BLANK = IamRecord(kind="", unique_id="", name="", path="/", created_ms=0)
FIRST = PolicyVersions(PolicyVersion(1, 10, b"first"))


def document(effect: str) -> bytes:
    return pack_policy(
        b'{"Version":"2012-10-17","Statement":[{"Effect":"%s","Action":"*","Resource":"*"}]}'
        % effect.encode()
    )


ALLOW, DENY = document("Allow"), document("Deny")


# Rules


def test_a_new_version_counts_only_when_that_is_asked() -> None:
    beside = FIRST.with_new(b"second", 20, as_default=False)
    assert beside.default == FIRST.default
    assert [each.version_id for each in beside.newest_first] == ["v2", "v1"]
    instead = beside.with_new(b"third", 30, as_default=True)
    assert instead.default == (3, 30, b"third")
    assert [each.number for each in instead.newest_first] == [3, 2, 1]


def test_another_version_is_chosen() -> None:
    both = FIRST.with_new(b"second", 20, as_default=True)
    back = both.with_default(FIRST.default)
    assert back.default == FIRST.default
    assert back.newest_first == both.newest_first
    assert back.with_default(FIRST.default) == back


def test_the_version_that_counts_is_not_deleted() -> None:
    both = FIRST.with_new(b"second", 20, as_default=True)
    with pytest.raises(IamRefused) as refused:
        both.without(both.default)
    assert refused.value.refusal is Refusal.DELETE_CONFLICT
    assert both.without(FIRST.default).newest_first == (both.default,)


def test_there_are_five_versions_at_most_and_their_numbers_never_come_again() -> None:
    versions = FIRST
    for number in range(2, VERSIONS_MAX + 1):
        versions = versions.with_new(b"", number, as_default=False)
    with pytest.raises(IamRefused) as refused:
        versions.with_new(b"", 9, as_default=True)
    assert refused.value.refusal is Refusal.LIMIT_EXCEEDED
    newest = versions.newest_first[0]
    again = versions.without(newest).with_new(b"", 9, as_default=False)
    assert again.newest_first[0].number == newest.number + 1


@given(st.lists(st.tuples(st.sampled_from("ncd"), st.integers(1, 8), st.booleans()), max_size=30))
def test_versions_stay_in_order_whatever_is_done(steps: list[tuple[str, int, bool]]) -> None:
    versions = FIRST
    for step, number, as_default in steps:
        try:
            if step == "n":
                versions = versions.with_new(b"", number, as_default=as_default)
            elif (found := versions.find(number)) is not None:
                change = versions.with_default if step == "c" else versions.without
                versions = change(found)
        except IamRefused:
            pass
        numbers = [each.number for each in versions.newest_first]
        assert numbers == sorted(set(numbers), reverse=True)
        assert 1 <= len(numbers) <= VERSIONS_MAX
        assert numbers[0] <= versions.made


@pytest.mark.parametrize(
    ("text", "expected"),
    [("v1", 1), ("v20", 20), ("v0", 0), ("v01", 0), ("1", 0), ("v1.a", 0), ("v" + "9" * 40, 0)],
)
def test_ids_of_versions(text: str, expected: int) -> None:
    assert number_of(text) == expected


def test_a_record_from_before_versions_has_one() -> None:
    old = msgspec.structs.replace(BLANK, created_ms=7, document=b"says")
    assert versions_of(old) == PolicyVersions(PolicyVersion(1, 7, b"says"))
    both = versions_of(old).with_new(b"now", 8, as_default=True)
    changed = with_versions(old, both)
    assert changed.document == b"now"
    assert versions_of(changed).newest_first == both.newest_first


# In the metadata


class World(Rig):
    """An account with a user, and a policy that permits all."""

    async def begin(self) -> "World":
        lost, self.faulty.lost_answers = self.faulty.lost_answers, 0.0
        self.account = (await self.metadata.accounts.create("alice")).record.account_id
        self.identities = self.metadata.identities
        await self.identities.create(self.account, USER, "bob", BLANK)
        record = msgspec.structs.replace(BLANK, document=ALLOW)
        await self.identities.create(self.account, POLICY, "all", record)
        self.arn = iam.arn(self.account, POLICY, "/", "all")
        self.faulty.lost_answers = lost
        return self

    async def numbers(self) -> list[int]:
        policy = await grants.find_policy(self.identities, self.account, self.arn)
        return [each.number for each in versions_of(policy.record).newest_first]


def run(test: Callable[[World], Awaitable[None]], *, lost_answers: float = 0.0) -> None:
    async def main() -> None:
        await test(await World(lost_answers=lost_answers).begin())

    asyncio.run(main())


def test_only_the_version_that_counts_is_judged_by() -> None:
    async def test(world: World) -> None:
        identities, account = world.identities, world.account
        made = await grants.create_access_key(identities, account, "bob")
        await grants.attach(identities, account, USER, "bob", world.arn)

        async def allowed() -> bool:
            world.metadata.accounts.clear()
            identity = await world.metadata.identity(made.record.access_key)
            assert identity is not None
            (policy,) = identity.principal.policies
            return bool(policy.statements[0].allows)

        await create_version(identities, account, world.arn, DENY, as_default=False)
        assert await allowed()
        await choose_version(identities, account, world.arn, "v2")
        assert not await allowed()
        await create_version(identities, account, world.arn, ALLOW, as_default=True)
        assert await allowed()

    run(test)


def test_versions_made_at_once_all_get_a_number() -> None:
    async def test(world: World) -> None:
        gateways = [world.identities, world.gateway().identities, world.gateway().identities]
        made = await asyncio.gather(
            *(
                create_version(each, world.account, world.arn, b"%d" % number, as_default=True)
                for number, each in enumerate(gateways)
            )
        )
        assert sorted(each.number for each in made) == [2, 3, 4]
        assert await world.numbers() == [4, 3, 2, 1]

    run(test)


@pytest.mark.parametrize("seed", range(8))
def test_lost_answers_make_no_version_twice(seed: int) -> None:
    async def main() -> None:
        world = await World(seed, lost_answers=0.25).begin()
        identities, account, arn = world.identities, world.account, world.arn
        for number in (2, 3):
            made = await create_version(identities, account, arn, DENY, as_default=True)
            assert made.number == number
        await delete_version(identities, account, arn, "v2")
        await choose_version(identities, account, arn, "v1")
        assert await world.numbers() == [3, 1]
        policy = await grants.find_policy(identities, account, arn)
        assert find_version(policy, "v1").document == policy.record.document == ALLOW

    asyncio.run(main())


def test_a_policy_with_further_versions_is_not_deleted() -> None:
    async def test(world: World) -> None:
        identities, account = world.identities, world.account
        await create_version(identities, account, world.arn, DENY, as_default=True)
        with pytest.raises(IamRefused) as refused:
            await identities.delete(account, POLICY, "all")
        assert refused.value.refusal is Refusal.DELETE_CONFLICT
        await delete_version(identities, account, world.arn, "v1")
        await identities.delete(account, POLICY, "all")

    run(test)


def test_versions_that_are_not_there() -> None:
    async def test(world: World) -> None:
        identities, account = world.identities, world.account
        elsewhere = world.arn.replace("/all", "/path/all")
        for arn, version in ((world.arn, "v2"), (world.arn, "v1.x"), (elsewhere, "v1")):
            for change in (choose_version, delete_version):
                with pytest.raises(IamRefused) as refused:
                    await change(identities, account, arn, version)
                assert refused.value.refusal is Refusal.NO_SUCH_ENTITY

    run(test)


def test_whom_policies_are_attached_to() -> None:
    async def test(world: World) -> None:
        identities, account = world.identities, world.account
        known = "arn:aws:iam::aws:policy/ReadOnlyAccess"
        await grants.attach(identities, account, USER, "bob", world.arn)
        await grants.attach(identities, account, USER, "bob", known)
        policy = await grants.find_policy(identities, account, world.arn)
        (holder,) = await attachments.holders_of_own(identities, policy)
        assert holder.record.name == "bob"
        assert (await attachments.attachments_of_known(identities, account))[known] == 1

    run(test)
