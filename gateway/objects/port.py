"""How operations store and fetch blobs: stage, commit, then one metadata transaction.

staged = await objects.stage(body, size_bytes, digests)     reads the body to its end
payload.verify(digests)                                      refuses a body that is not as announced
... build the record (ETag from digests) ...
stored = await objects.commit(staged, owner_key, record)     shards durable, record in their envelopes
await metadata.txn(... stored.compares ..., stored.puts ...)
or, on any refusal before or after:  await objects.discard(staged)
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from gateway.metadata.records import BlobRef
from gateway.s3.message import Body, Stream
from placement.ids import GroupId
from placement.metastore.port import Compare, Put, Txn, TxnResult
from placement.schemes import Scheme, Schemes


class Hashing(Protocol):
    """What the writer feeds while bytes pass (`gateway.s3.checksums.Digests`): two halves, so that
    MD5 and the rest run in two threads."""

    def update_md5(self, buffer: memoryview) -> None:
        """Feed MD5."""
        ...

    def update_rest(self, buffer: memoryview) -> None:
        """Feed every other algorithm."""
        ...


class Staged(Protocol):
    """A blob whose bytes were received and coded but are not durable yet."""

    @property
    def ref(self) -> BlobRef:
        """Blob id, geometry and the size received."""
        ...


class Carrier(Protocol):
    """Takes a blob's shards along with the transaction that relies on them, in one call: they are
    durable before it is looked at."""

    @property
    def arrived(self) -> bool:
        """The shards are stored: further transactions go alone."""
        ...

    async def txn(self, txn: Txn) -> TxnResult:
        """As `Metastore.txn`. Also raises `gateway.objects.errors.ShardsLeftBehind`."""
        ...


class Stored(msgspec.Struct, frozen=True, gc=False):
    """Shards are durable. The transaction that commits the record must hold these compares (map
    epoch, write window, damage marks) and puts (re-encoding queue entries need the record key: see `narrow`)."""

    ref: BlobRef
    compares: tuple[Compare, ...]
    puts: tuple[Put, ...]
    narrow: bool
    """Stored in fewer drives than the scheme asks: queue the record for re-encoding."""
    carrier: Carrier | None = None
    """If there is one, the shards are not stored yet: it must run the transaction."""


class Objects(Protocol):
    """The store of blobs. Errors: `gateway.objects.errors.NotEnoughDrives` (503) when fewer than
    the invariant's least can be written, `BlobOutOfReach` (503) while drives that may hold a blob
    are away, `BlobDamaged` (500) when k shards cannot be had though all drives are there.

    Blobs are coded under the default scheme unless another is named; on too few drives under the
    widest of the same m that fits."""

    @property
    def schemes(self) -> Schemes:
        """The default scheme and those of storage classes, as they are now."""
        ...

    async def stage(
        self,
        body: Body,
        size_bytes: int,
        digests: Hashing,
        *,
        group: GroupId | None = None,
        scheme: Scheme | None = None,
    ) -> Staged:
        """Receive `size_bytes` from the body. Memory: a few stripe buffers from a bounded pool."""
        ...

    async def stage_to_end(
        self, body: Body, size_bytes_max: int, digests: Hashing, *, scheme: Scheme | None = None
    ) -> Staged:
        """Receive a body whose size shows only when it ends, after at most `size_bytes_max`; then
        `Staged.ref` tells it. Memory: as `stage`."""
        ...

    async def stage_bytes(
        self, data: bytes, *, group: GroupId | None = None, scheme: Scheme | None = None
    ) -> Staged:
        """A blob from memory (manifests, small bodies already hashed)."""
        ...

    async def commit(self, staged: Staged, owner_key: bytes, record: bytes) -> Stored:
        """Make all shards durable with their envelopes (group, owner key, record)."""
        ...

    def commit_along(self, staged: Staged, owner_key: bytes, record: bytes) -> Stored | None:
        """The same, put off until the transaction, which `Stored.carrier` then runs. None where the
        shards and the metadata do not go to one process, or not all drives are well."""
        ...

    async def restage(self, staged: Staged) -> Staged:
        """The same bytes as a new blob on the drives that are left, after `WriteFellShort` or
        `PlacementChanged`; the old one is discarded. `gateway.objects.commit` does this."""
        ...

    async def renew(self, staged: Staged) -> Stored:
        """What a transaction must compare now, after it found an earlier `Stored.compares` broken.
        Raises `PlacementChanged` when too few shards are where readers will look."""
        ...

    async def discard(self, staged: Staged) -> None:
        """Forget a blob that no transaction refers to. Never after an unknown outcome."""
        ...

    async def read_bytes(self, ref: BlobRef) -> bytes:
        """A whole small blob, verified."""
        ...

    def read_now(self, ref: BlobRef) -> bytes | None:
        """A blob of one stripe if it can be had without waiting; None: use `read` or `read_bytes`."""
        ...

    async def read_small(self, ref: BlobRef) -> bytes | None:
        """A whole small blob, verified, by one question; None: use `read` or `read_bytes`."""
        ...

    async def read(self, pieces: Sequence[tuple[BlobRef, int, int]]) -> Stream:
        """Stream [offset, offset + length) of each blob in turn. The first group of buffers has been
        read and verified when this returns."""
        ...
