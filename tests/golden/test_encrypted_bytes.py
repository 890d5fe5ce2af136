"""Golden bytes of encrypted blobs and wrapped keys: what one release wrote every later one opens."""

import hashlib

from gateway.kms.customer import open_customer_data_key
from gateway.objects.encrypted import BlobCipher

DATA_KEY, SALT = bytes(range(32)), bytes(range(16))


def test_a_short_blob() -> None:
    stored = BlobCipher(DATA_KEY, SALT).seal_all(b"ostraka")
    assert stored.hex() == "721bca5901b1198c17f091138a4f2719718d0fc8e12a3b"
    assert (
        BlobCipher(DATA_KEY, b"").seal_all(b"ostraka").hex()
        == "a2368a31acdc636192d1ba9cdbfa64616a3b00edae22cb"
    )


def test_a_blob_of_several_blocks() -> None:
    stored = BlobCipher(DATA_KEY, SALT).seal_all(bytes(200_000))
    assert len(stored) == 200_000 + 4 * 16
    assert (
        hashlib.sha256(stored).hexdigest()
        == "b8773baf966a9bb0b2192235003e37b017cf9e23675ed1eddae0d2c0e8b1ff37"
    )


def test_a_data_key_under_a_customers_key() -> None:
    wrapped = bytes.fromhex(
        "000102030405060708090a0b0c0d0e0f9d2c4f050418b18218b75b5d39bd1ece0f2b79de23cbc8d0da8e00369877e44a2b445d4468e747b6ee21feb2c7b1acc3"
    )
    assert open_customer_data_key(b"c" * 32, wrapped) == DATA_KEY
