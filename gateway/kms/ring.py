"""The local key ring: master keys in the metadata, sealed with the cluster key.

A wrapped data key is the version of the master key (4 bytes, big-endian), a nonce and the AES-256-GCM
ciphertext of the data key, bound to the master key's id and the context. Rotation adds a version; what
older ones wrapped stays readable, so nothing is wrapped anew.
"""

import contextlib
import re
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.kms.port import (
    DATA_KEY_SIZE_BYTES,
    DataKey,
    KeyExists,
    KeyIdInvalid,
    KeyNotFound,
    KeyUnusable,
)
from gateway.metadata import keys
from gateway.metadata.outcomes import Transactions
from gateway.metadata.records import KmsKeyRecord, KmsKeyVersion, decode, encode
from gateway.metadata.sealing import NONCE_SIZE_BYTES, SealingKey
from gateway.metadata.watching import Watcher
from placement.clock import Clock, Randomness
from placement.metastore.port import (
    Compare,
    KeyValue,
    Metastore,
    Put,
    Range,
    Txn,
    absent,
    prefix_end,
    unchanged,
)

STORE_KEY: Final = "ostraka/sse-s3"
"""The master key of SSE-S3 and of encryption at rest; made when it is first needed."""
_VERSION_SIZE_BYTES: Final = 4
_KEY_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9/_.:@+=,-]{0,127}")
_TRIES: Final = 8


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A master key as operators see it."""

    key_id: str
    versions: int
    created_ms: int
    rotated_ms: int


class KeyRing:
    """Implements `gateway.kms.port.KeyService`. One a process; `start` and `close` in its loop.

    Opened keys are cached until the metadata says that a key changed. What is absent is not cached.
    """

    def __init__(
        self,
        metastore: Metastore,
        *,
        sealing_key: SealingKey,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._metastore = metastore
        self._transactions = Transactions(metastore, clock=clock, randomness=randomness)
        self._sealing_key = sealing_key
        self._clock = clock
        self._randomness = randomness
        self._opened: dict[str, tuple[AESGCM, ...]] = {}
        self._watcher = Watcher(
            metastore,
            (keys.KMS_KEYS,),
            clock=clock,
            randomness=randomness,
            changed=lambda key: self._forget(key),
            lost=self._opened.clear,
        )

    def start(self) -> None:
        """Begin to watch for changes of keys."""
        self._watcher.start()

    async def close(self) -> None:
        """End the watch."""
        await self._watcher.close()

    def _forget(self, key: bytes) -> None:
        self._opened.pop(key[len(keys.KMS_KEYS) :].decode(), None)

    # For objects

    async def new_data_key(self, key_id: str, context: bytes) -> DataKey:
        """See `KeyService`."""
        versions = self._opened.get(key_id)
        if versions is None:
            versions = await self._open(key_id)
        if not versions:
            if key_id != STORE_KEY:
                raise KeyNotFound(key_id)
            versions = await self._make_store_key()
        key = self._randomness.token(DATA_KEY_SIZE_BYTES)
        nonce = self._randomness.token(NONCE_SIZE_BYTES)
        sealed = versions[-1].encrypt(nonce, key, _bound(key_id, context))
        number = len(versions).to_bytes(_VERSION_SIZE_BYTES, "big")
        return DataKey(key, number + nonce + sealed)

    async def open_data_key(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """See `KeyService`."""
        number = int.from_bytes(wrapped[:_VERSION_SIZE_BYTES], "big")
        versions = self._opened.get(key_id)
        if versions is None or number > len(versions):
            versions = await self._open(key_id)
        if not versions:
            raise KeyNotFound(key_id)
        if not 1 <= number <= len(versions):
            raise KeyUnusable(f"key {key_id!r} has no version {number}")
        start = _VERSION_SIZE_BYTES + NONCE_SIZE_BYTES
        nonce, sealed = wrapped[_VERSION_SIZE_BYTES:start], wrapped[start:]
        try:
            return versions[number - 1].decrypt(nonce, sealed, _bound(key_id, context))
        except (InvalidTag, ValueError) as error:
            raise KeyUnusable(f"a data key does not open with key {key_id!r}") from error

    async def _open(self, key_id: str) -> tuple[AESGCM, ...]:
        (found,) = await self._metastore.get_many([keys.kms_key(key_id)])
        return () if found is None else self._take(decode(KmsKeyRecord, found.value))

    def _take(self, record: KmsKeyRecord) -> tuple[AESGCM, ...]:
        opened = tuple(
            AESGCM(self._sealing_key.open(version.sealed, _place(record.key_id, number)))
            for number, version in enumerate(record.versions, 1)
        )
        self._opened[record.key_id] = opened
        return opened

    async def _make_store_key(self) -> tuple[AESGCM, ...]:
        for _ in range(_TRIES):
            with contextlib.suppress(KeyExists):  # another gateway was first
                await self._create(STORE_KEY)
            if opened := await self._open(STORE_KEY):
                return opened
        raise KeyNotFound(STORE_KEY)

    # For operators

    async def create(self, key_id: str) -> KeyInfo:
        """Make a master key. Raises KeyExists, KeyIdInvalid."""
        if _KEY_ID.fullmatch(key_id) is None or key_id.startswith("ostraka/"):
            raise KeyIdInvalid(
                "a key's id has 1 to 128 letters, digits or /_.:@+=,- and begins with a letter or "
                "digit; ostraka/ is reserved"
            )
        return await self._create(key_id)

    async def rotate(self, key_id: str) -> KeyInfo:
        """Add a version, which new writes use from now on. Raises KeyNotFound."""
        place = keys.kms_key(key_id)
        for attempt in range(_TRIES):
            (found,) = await self._metastore.get_many([place])
            if found is None:
                raise KeyNotFound(key_id)
            record = decode(KmsKeyRecord, found.value)
            fresh = self._new_version(key_id, len(record.versions) + 1)
            rotated = msgspec.structs.replace(record, versions=(*record.versions, fresh))
            if await self._put(place, unchanged(place, found.mod_revision), rotated):
                return _info(rotated)
            await self._transactions.pause(attempt, first_seconds=0.01)
        raise KeyUnusable(f"key {key_id!r} keeps changing")

    async def list(self) -> list[KeyInfo]:
        """All master keys in order of id."""
        found: list[KeyValue] = []
        start, end = keys.KMS_KEYS, prefix_end(keys.KMS_KEYS)
        while True:
            page = await self._metastore.range(Range(start, end, limit=1000))
            found += page.kvs
            if not page.more:
                return [_info(decode(KmsKeyRecord, kv.value)) for kv in found]
            start = page.kvs[-1].key + b"\x00"

    async def _create(self, key_id: str) -> KeyInfo:
        place = keys.kms_key(key_id)
        now_ms = self._clock.now_ns() // 1_000_000
        record = KmsKeyRecord(
            key_id=key_id, created_ms=now_ms, versions=(self._new_version(key_id, 1),)
        )
        if not await self._put(place, absent(place), record):
            raise KeyExists(f"a key {key_id!r} exists")
        return _info(record)

    async def _put(self, place: bytes, compare: Compare, record: KmsKeyRecord) -> bool:
        value = encode(record)
        applied = await self._transactions.run(Txn((compare,), (Put(place, value),)))
        self._forget(place)
        if applied.succeeded or applied.certain:
            return applied.succeeded
        (found,) = await self._metastore.get_many([place])
        return found is not None and found.value == value

    def _new_version(self, key_id: str, number: int) -> KmsKeyVersion:
        sealed = self._sealing_key.seal(
            self._randomness.token(DATA_KEY_SIZE_BYTES), _place(key_id, number), self._randomness
        )
        return KmsKeyVersion(
            sealed=sealed,
            sealing_key=self._sealing_key.name,
            created_ms=self._clock.now_ns() // 1_000_000,
        )


def _place(key_id: str, version: int) -> bytes:
    """What a sealed master key belongs to."""
    return keys.kms_key(key_id) + b"\x00" + version.to_bytes(_VERSION_SIZE_BYTES, "big")


def _bound(key_id: str, context: bytes) -> bytes:
    return b"ostraka data key v1\x00" + key_id.encode() + b"\x00" + context


def _info(record: KmsKeyRecord) -> KeyInfo:
    return KeyInfo(
        record.key_id, len(record.versions), record.created_ms, record.versions[-1].created_ms
    )
