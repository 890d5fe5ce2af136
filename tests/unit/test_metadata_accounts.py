"""Accounts and identities: uniqueness, sealing, staleness."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from gateway.metadata import keys
from gateway.metadata.accounts import IDENTITY_AGE_SECONDS_MAX
from gateway.metadata.errors import (
    AccountExists,
    AccountInUse,
    AccountInvalid,
    NoSuchAccount,
    SealBroken,
)
from gateway.metadata.sealing import SealingKey
from gateway.metadata.store import Metadata
from tests.unit.metadata_doubles import SEALING_KEY, Rig, SeededRandomness


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


def test_an_account_has_the_shape_that_aws_gives() -> None:
    rig = Rig()

    async def main() -> None:
        made = await rig.metadata.accounts.create("alice", email="alice@example.org")
        assert re.fullmatch(r"[0-9]{12}", made.record.account_id)
        assert re.fullmatch(r"[0-9a-f]{64}", made.record.canonical_id)
        assert re.fullmatch(r"AKIA[A-Z2-7]{16}", made.access_key)
        assert re.fullmatch(r"[A-Za-z0-9+/]{40}", made.secret_key)
        identity = await rig.metadata.identity(made.access_key)
        assert identity is not None
        principal, secret = identity
        assert (principal.name, principal.email, secret) == (
            "alice",
            "alice@example.org",
            made.secret_key,
        )
        assert made.secret_key not in repr(made) + repr(identity)
        assert await rig.metadata.identity("AKIANOBODY") is None

    run(main)


def test_names_and_access_keys_are_unique() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.metadata.accounts.create("a", access_key="KEY1", secret_key="secret-1")
        with pytest.raises(AccountExists):
            await rig.metadata.accounts.create("a")
        with pytest.raises(AccountExists):
            await rig.metadata.accounts.create("b", access_key="KEY1", secret_key="secret-2")
        with pytest.raises(AccountExists):
            await rig.metadata.accounts.ensure_root("KEY1", "secret-3")
        assert [each.name for each in await rig.metadata.accounts.list()] == ["a"]

    run(main)


@pytest.mark.parametrize(
    "given",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "123456789012"},
        {"name": "a", "email": "nobody"},
        {"name": "a", "access_key": "KEY1"},
        {"name": "a", "access_key": "K", "secret_key": "secret-1"},
        {"name": "a", "access_key": "KEY1", "secret_key": "short"},
        {"name": "a", "access_key": "KEY1", "secret_key": "with a space"},
    ],
)
def test_what_has_not_the_right_form_is_refused(given: dict[str, str]) -> None:
    rig = Rig()

    async def main() -> None:
        with pytest.raises(AccountInvalid):
            await rig.metadata.accounts.create(**given)

    run(main)


def test_an_account_with_buckets_and_root_cannot_be_deleted() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        made = await rig.metadata.accounts.create("alice")
        identity = await rig.metadata.identity(made.access_key)
        assert identity is not None
        await rig.metadata.create_bucket("hers", identity.principal, "us-east-1")
        with pytest.raises(AccountInUse):
            await rig.metadata.accounts.delete("alice")
        with pytest.raises(AccountInUse):
            await rig.metadata.accounts.delete(keys.ROOT_ACCOUNT_ID)
        await rig.metadata.delete_bucket("hers", identity.principal)
        await rig.metadata.accounts.delete(made.record.account_id)
        assert await rig.metadata.identity(made.access_key) is None
        with pytest.raises(NoSuchAccount):
            await rig.metadata.create_bucket("late", identity.principal, "us-east-1")
        with pytest.raises(NoSuchAccount):
            await rig.metadata.accounts.delete("alice")
        await rig.metadata.accounts.create("alice")

    run(main)


def test_root_credentials_are_replaced_when_they_change() -> None:
    rig = Rig()

    async def main() -> None:
        accounts = rig.metadata.accounts
        first = await accounts.ensure_root("ROOT1", "secret-1")
        assert await accounts.ensure_root("ROOT1", "secret-1") == first
        await accounts.ensure_root("ROOT1", "secret-2")
        second = await accounts.ensure_root("ROOT2", "secret-2")
        assert (second.account_id, second.canonical_id) == (
            keys.ROOT_ACCOUNT_ID,
            first.canonical_id,
        )
        assert await rig.metadata.identity("ROOT1") is None
        identity = await rig.metadata.identity("ROOT2")
        assert identity is not None
        assert (identity.secret, identity.principal.is_root) == ("secret-2", True)

    run(main)


def test_a_deleted_identity_is_stale_for_the_stated_time_at_most() -> None:
    """Without any watch; with one it is gone within milliseconds."""
    rig = Rig()

    async def main() -> None:
        made = await rig.metadata.accounts.create("alice")
        other = rig.gateway()
        assert await other.identity(made.access_key) is not None
        await rig.metadata.accounts.delete("alice")
        assert other.identity_now(made.access_key) is not None
        rig.clock.seconds += IDENTITY_AGE_SECONDS_MAX + 0.1
        assert other.identity_now(made.access_key) is None
        assert await other.identity(made.access_key) is None

    run(main)


def test_the_watch_drops_identities_that_changed() -> None:
    rig = Rig()

    async def main() -> None:
        made = await rig.metadata.accounts.create("alice")
        watching = rig.gateway()
        watching.start()
        try:
            for _ in range(20):
                await asyncio.sleep(0)
            assert await watching.identity(made.access_key) is not None
            await rig.metadata.accounts.delete("alice")
            for _ in range(20):
                await asyncio.sleep(0)
            assert watching.identity_now(made.access_key) is None
        finally:
            await watching.close()

    run(main)


def test_secrets_are_sealed_and_open_only_with_the_cluster_key() -> None:
    rig = Rig()

    async def main() -> None:
        made = await rig.metadata.accounts.create("alice")
        (found,) = await rig.memory.get_many([keys.access_key(made.access_key)])
        assert found is not None
        assert made.secret_key.encode() not in found.value
        foreign = Metadata(
            rig.memory,
            clock=rig.clock,
            randomness=rig.randomness,
            sealing_key=SealingKey(bytes(32)),
        )
        with pytest.raises(SealBroken):
            await foreign.identity(made.access_key)

    run(main)


def test_a_sealed_secret_cannot_be_moved_to_another_key() -> None:
    sealed = SEALING_KEY.seal(b"secret", b"k/one", SeededRandomness(1))
    assert SEALING_KEY.open(sealed, b"k/one") == b"secret"
    for damaged, name in ((sealed, b"k/two"), (sealed[:-1], b"k/one"), (b"", b"k/one")):
        with pytest.raises(SealBroken):
            SEALING_KEY.open(damaged, name)
