"""Access keys and their secrets: made at random, sealed at rest."""

import re
from typing import Final

from gateway.metadata import keys
from gateway.metadata.records import AccessKeyRecord, encode
from gateway.metadata.sealing import SealingKey
from placement.clock import Clock, Randomness
from placement.metastore.port import Put

ACCESS_KEY_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
SECRET_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
LASTING = "AKIA"
ACCESS_KEY: Final = re.compile(r"[A-Za-z0-9_]{3,128}")
SECRET: Final = re.compile(r"[\x21-\x7e]{8,128}")
"""What those look like that somebody brings."""


class Credentials:
    """Makes and seals them; one a process."""

    def __init__(self, *, clock: Clock, randomness: Randomness, sealing_key: SealingKey) -> None:
        self._clock = clock
        self._randomness = randomness
        self._sealing_key = sealing_key

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return self._clock.now_ns() // 1_000_000

    def access_key(self, prefix: str = LASTING) -> str:
        """A new access key, which is an id of 20 characters."""
        return prefix + self.text(ACCESS_KEY_ALPHABET, 16)

    def secret(self) -> str:
        """A new secret: 240 bits."""
        return self.text(SECRET_ALPHABET, 40)

    def text(self, alphabet: bytes, length: int) -> str:
        """Unbiased: bytes beyond the largest multiple of the alphabet's size are thrown away."""
        limit = 256 - 256 % len(alphabet)
        text = bytearray()
        while len(text) < length:
            text.extend(
                alphabet[byte % len(alphabet)]
                for byte in self._randomness.token(length)
                if byte < limit
            )
        return text[:length].decode()

    def sealed(self, access_key: str, account_id: str, secret: str, user_id: str = "") -> Put:
        """The write that makes a key sign for an account's root, or for one of its users."""
        key = keys.access_key(access_key)
        record = AccessKeyRecord(
            access_key=access_key,
            account_id=account_id,
            sealed_secret=self.seal(secret.encode(), key),
            sealing_key=self._sealing_key.name,
            created_ms=self.now_ms(),
            user_id=user_id,
        )
        return Put(key, encode(record))

    def seal(self, plain: bytes, belongs_to: bytes) -> bytes:
        """Sealed with the cluster's key; opens for the same `belongs_to` only."""
        return self._sealing_key.seal(plain, belongs_to, self._randomness)

    def open(self, sealed: bytes, belongs_to: bytes) -> bytes:
        """The inverse. Raises SealBroken."""
        return self._sealing_key.open(sealed, belongs_to)
