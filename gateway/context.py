"""What every operation is handed: the ports and settings of one gateway process."""

from dataclasses import dataclass

from gateway.kms.port import KeyService
from gateway.metadata.store import Metadata
from gateway.objects.port import Objects
from placement.clock import Clock, Randomness


@dataclass(frozen=True, slots=True)
class Encryption:
    """Where keys come from, and what the operator decided.

    `store_keys` serve SSE-S3 and encryption at rest, `kms` SSE-KMS. `at_rest`: what nobody asked to
    encrypt is encrypted all the same. `customer_keys_over_http`: keys of clients are taken from
    other hosts without TLS too.
    """

    store_keys: KeyService
    kms: KeyService
    at_rest: bool = False
    customer_keys_over_http: bool = False


@dataclass(slots=True)
class Context:
    """One per process. Handlers see ports, never adapters."""

    metadata: Metadata
    objects: Objects
    clock: Clock
    randomness: Randomness
    region: str
    encryption: Encryption | None = None
    """None: this process has no keys, requests to encrypt are refused."""

    @property
    def encrypts_everything(self) -> bool:
        """Whether objects are encrypted all the same that neither requests nor buckets ask for."""
        return bool(self.metadata.quotas.settings.default_encryption) or (
            self.encryption is not None and self.encryption.at_rest
        )

    @property
    def default_encryption(self) -> str:
        """What buckets without a rule of their own have, by the store's settings: AES256, or ""."""
        return self.metadata.quotas.settings.default_encryption
