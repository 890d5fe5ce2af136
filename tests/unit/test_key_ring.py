"""The local key ring: what it wraps opens again, under the same key and context alone, for ever."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.domain.encryption import CustomerKey, Kind, Wanted
from gateway.kms.customer import new_customer_data_key, open_customer_data_key
from gateway.kms.port import KeyExists, KeyIdInvalid, KeyNotFound, KeyUnusable
from gateway.kms.ring import STORE_KEY, KeyRing
from gateway.metadata.errors import SealBroken
from gateway.metadata.records import EncryptionEnvelope, KmsKeyRecord, decode
from gateway.metadata.sealing import SealingKey
from gateway.operations.copy_encryption import shares_blobs
from placement.clock import SystemClock, SystemRandomness
from placement.metastore.memory import MemoryMetastore
from placement.metastore.port import Range
from tests.unit.metadata_doubles import FaultyMetastore


class Rings:
    """Several gateways' rings over one store."""

    def __init__(self) -> None:
        self.metastore = MemoryMetastore(SystemClock())

    def ring(self, cluster_key: bytes = b"c" * 32, *, lost_answers: float = 0.0) -> KeyRing:
        store = FaultyMetastore(self.metastore, 1, lost_answers=lost_answers)
        return KeyRing(
            store,
            sealing_key=SealingKey(cluster_key),
            clock=SystemClock(),
            randomness=SystemRandomness(),
        )


def run(scenario: Callable[[Rings], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario(Rings())

    asyncio.run(main())


def test_a_data_key_opens_with_its_key_and_context_alone() -> None:
    async def scenario(rings: Rings) -> None:
        ring, other = rings.ring(), rings.ring()
        await ring.create("a")
        await ring.create("b")
        made = await ring.new_data_key("a", b"context")
        assert made.key not in made.wrapped
        assert await other.open_data_key("a", made.wrapped, b"context") == made.key
        flipped = made.wrapped[:-1] + bytes([made.wrapped[-1] ^ 1])
        for key_id, wrapped, context in (
            ("a", made.wrapped, b""),
            ("b", made.wrapped, b"context"),
            ("a", flipped, b"context"),
            ("a", b"", b"context"),
            ("a", b"\0\0\0\x09" + made.wrapped[4:], b"context"),
        ):
            with pytest.raises(KeyUnusable):
                await other.open_data_key(key_id, wrapped, context)
        with pytest.raises(KeyNotFound):
            await ring.new_data_key("c", b"")
        with pytest.raises(KeyNotFound):
            await ring.open_data_key("c", made.wrapped, b"")

    run(scenario)


def test_rotation_keeps_what_was_wrapped_before() -> None:
    async def scenario(rings: Rings) -> None:
        ring, other = rings.ring(), rings.ring()
        await ring.create("a")
        old = await other.new_data_key("a", b"")
        assert (await ring.rotate("a")).versions == 2
        new = await ring.new_data_key("a", b"")
        assert (old.wrapped[:4], new.wrapped[:4]) == (b"\0\0\0\x01", b"\0\0\0\x02")
        for made in (old, new):  # the other ring has cached one version
            assert await other.open_data_key("a", made.wrapped, b"") == made.key
        assert [(info.key_id, info.versions) for info in await other.list()] == [("a", 2)]
        with pytest.raises(KeyNotFound):
            await ring.rotate("b")

    run(scenario)


def test_a_key_is_made_once_and_named_properly() -> None:
    async def scenario(rings: Rings) -> None:
        ring = rings.ring()
        await ring.create("a")
        with pytest.raises(KeyExists):
            await rings.ring().create("a")
        for key_id in ("", "ostraka/x", "-a", "a b", "x" * 129, "é"):
            with pytest.raises(KeyIdInvalid):
                await ring.create(key_id)

    run(scenario)


def test_the_stores_own_key_is_made_once_by_many_gateways() -> None:
    async def scenario(rings: Rings) -> None:
        several = [rings.ring() for _ in range(8)]
        made = await asyncio.gather(*(ring.new_data_key(STORE_KEY, b"") for ring in several))
        for one in made:
            assert await several[0].open_data_key(STORE_KEY, one.wrapped, b"") == one.key
        (info,) = await several[0].list()
        assert (info.key_id, info.versions) == (STORE_KEY, 1)

    run(scenario)


def test_lost_answers_make_no_second_version() -> None:
    async def scenario(rings: Rings) -> None:
        ring = rings.ring(lost_answers=0.3)
        await ring.create("a")
        for versions in range(2, 12):
            assert (await ring.rotate("a")).versions == versions

    run(scenario)


def test_master_keys_are_sealed_with_the_cluster_key() -> None:
    async def scenario(rings: Rings) -> None:
        await rings.ring().create("a")
        made = await rings.ring().new_data_key("a", b"")
        with pytest.raises(SealBroken):
            await rings.ring(b"d" * 32).open_data_key("a", made.wrapped, b"")
        (stored,) = (await rings.metastore.range(Range(b"e/a"))).kvs
        record = decode(KmsKeyRecord, stored.value)
        assert len(record.versions[0].sealed) == 12 + 32 + 16

    run(scenario)


def test_a_change_reaches_the_rings_that_watch() -> None:
    async def scenario(rings: Rings) -> None:
        ring, other = rings.ring(), rings.ring()
        await ring.create("a")
        other.start()
        await other.new_data_key("a", b"")
        await ring.rotate("a")
        for _ in range(200):
            await asyncio.sleep(0.005)
            made = await other.new_data_key("a", b"")
            if made.wrapped[:4] == b"\0\0\0\x02":
                break
        await other.close()
        assert made.wrapped[:4] == b"\0\0\0\x02"

    run(scenario)


def test_a_customers_key_wraps_and_only_it_opens() -> None:
    made = new_customer_data_key(b"k" * 32, SystemRandomness())
    assert open_customer_data_key(b"k" * 32, made.wrapped) == made.key
    for key, wrapped in (
        (b"l" * 32, made.wrapped),
        (b"k" * 32, made.wrapped[:-1]),
        (b"k" * 32, b""),
    ):
        with pytest.raises(KeyUnusable):
            open_customer_data_key(key, wrapped)


CUSTOMER = CustomerKey(b"k" * 32, "md5")


@pytest.mark.parametrize(
    ("source", "wanted", "shares"),
    [
        (None, None, True),
        (None, Wanted(Kind.SSE_S3), False),
        (Kind.SSE_S3, None, False),
        (Kind.AT_REST, None, True),
        (Kind.AT_REST, Wanted(Kind.AT_REST), True),
        (Kind.AT_REST, Wanted(Kind.SSE_S3), False),
        (Kind.SSE_S3, Wanted(Kind.SSE_S3), True),
        (Kind.SSE_KMS, Wanted(Kind.SSE_KMS, "a"), True),
        (Kind.SSE_KMS, Wanted(Kind.SSE_KMS, "b"), False),
        (Kind.SSE_KMS, Wanted(Kind.SSE_KMS, "a", "{}"), False),
        (Kind.SSE_KMS, Wanted(Kind.SSE_S3), False),
        (Kind.SSE_C, Wanted(Kind.SSE_C, customer=CUSTOMER), True),
        (Kind.SSE_C, Wanted(Kind.SSE_C, customer=CustomerKey(b"l" * 32, "md5")), False),
        (Kind.SSE_C, None, False),
    ],
)
def test_which_copies_share_their_sources_bytes(
    source: Kind | None, wanted: Wanted | None, shares: bool
) -> None:
    envelope = None
    if source is not None:
        wrapped = new_customer_data_key(CUSTOMER.key, SystemRandomness()).wrapped
        key_id = "a" if source is Kind.SSE_KMS else ""
        envelope = EncryptionEnvelope(kind=source.value, wrapped_key=wrapped, key_id=key_id)
    assert shares_blobs(envelope, wanted) is shares
