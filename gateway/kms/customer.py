"""Data keys wrapped under a key that the client brings (SSE-C): it is used and forgotten.

The wrapped form is a salt and the AES-256-GCM ciphertext of the data key, under a key derived from the
customer's and the salt. So one customer key may serve any number of objects.
"""

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.kms.port import DATA_KEY_SIZE_BYTES, DataKey, KeyUnusable
from placement.clock import Randomness

_SALT_SIZE_BYTES: Final = 16
_LABEL: Final = b"ostraka customer key v1\x00"
_NONCE: Final = bytes(12)  # every wrapping key is used once


def new_customer_data_key(customer_key: bytes, randomness: Randomness) -> DataKey:
    """A random data key, wrapped under the customer's key."""
    key = randomness.token(DATA_KEY_SIZE_BYTES)
    salt = randomness.token(_SALT_SIZE_BYTES)
    return DataKey(key, salt + _wrapping(customer_key, salt).encrypt(_NONCE, key, _LABEL))


def open_customer_data_key(customer_key: bytes, wrapped: bytes) -> bytes:
    """The data key. Raises KeyUnusable for another customer key."""
    salt, sealed = wrapped[:_SALT_SIZE_BYTES], wrapped[_SALT_SIZE_BYTES:]
    try:
        return _wrapping(customer_key, salt).decrypt(_NONCE, sealed, _LABEL)
    except (InvalidTag, ValueError) as error:
        raise KeyUnusable("a data key does not open with the customer's key") from error


def _wrapping(customer_key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(hmac.digest(customer_key, _LABEL + salt, "sha256"))
