"""Secrets at rest: AES-256-GCM under the cluster key, bound to what they belong to."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.metadata.errors import SealBroken
from placement.clock import Randomness

CLUSTER_KEY_SIZE_BYTES = 32
NONCE_SIZE_BYTES = 12


class SealingKey:
    """One named key. `name` is stored with what it sealed, so that keys can be exchanged."""

    def __init__(self, cluster_key: bytes, *, name: str = "cluster-1") -> None:
        """Derive from the cluster's 32 bytes; they are used for nothing directly."""
        if len(cluster_key) != CLUSTER_KEY_SIZE_BYTES:
            raise ValueError(f"a cluster key has {CLUSTER_KEY_SIZE_BYTES} bytes")
        self.name = name
        derived = HKDF(SHA256(), 32, salt=None, info=b"ostraka secrets at rest v1")
        self._cipher = AESGCM(derived.derive(cluster_key))

    def __repr__(self) -> str:
        return f"SealingKey({self.name!r})"

    def seal(self, secret: bytes, belongs_to: bytes, randomness: Randomness) -> bytes:
        """Nonce and ciphertext; opens only for the same `belongs_to`."""
        nonce = randomness.token(NONCE_SIZE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, belongs_to)

    def open(self, sealed: bytes, belongs_to: bytes) -> bytes:
        """The secret. Raises SealBroken."""
        try:
            return self._cipher.decrypt(
                sealed[:NONCE_SIZE_BYTES], sealed[NONCE_SIZE_BYTES:], belongs_to
            )
        except (InvalidTag, ValueError) as error:
            raise SealBroken("a stored secret does not open with the cluster key") from error
