"""Recoding: an object is read, written again as a new group under another scheme, and its record swapped
by compare-and-swap; the old group becomes garbage.

What is written meanwhile wins: the swap then fails, and what was copied is discarded. Bytes are copied
as they are stored, so an encrypted object needs no key. An object of many blobs may take longer than
the sweep waits for a commit, so its new group is claimed by a reference under a lease: it holds the
sweep off while this process copies, and ends with it.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from gateway.domain.storage_classes import Kept, StoredAs, kept_as, scheme_named, stays_put
from gateway.metadata import keys
from gateway.metadata.entries import ObjectEntry
from gateway.metadata.groups import end_of, first_commit_of
from gateway.metadata.records import BlobRef, ObjectRecord, PartRef, encode
from gateway.metadata.windows import is_window
from gateway.objects.manifest import encode_parts, parts_of
from gateway.objects.port import Objects, Staged, Stored
from gateway.operations.source_body import StreamBody
from placement.clock import Clock, Randomness
from placement.errors import LeaseNotFound, MetastoreUnavailable, OutcomeUnknown
from placement.ids import GroupId
from placement.metastore.port import (
    Compare,
    DeleteRange,
    Metastore,
    Put,
    Txn,
    exists,
    unchanged,
)
from placement.schemes import Scheme

LEASE_SECONDS = 600
RENEW_SECONDS = 60.0
"""How often the lease is kept alive, at most once a blob: the largest takes less than the rest of it."""

MARKS_COMPARED_MAX = 64
"""Damage marks that a swap compares one by one."""


class _Unhashed:
    """The bytes were hashed when they first came."""

    def update_md5(self, buffer: memoryview) -> None:
        """Nothing to add."""

    def update_rest(self, buffer: memoryview) -> None:
        """Nothing to add."""


@dataclass(slots=True)
class _Copy:
    """What was written so far of an object's new group."""

    group: GroupId
    scheme: Scheme
    lease: int = 0
    renewed_at: float = 0.0
    staged: list[Staged] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)


class Recoding:
    """Stores objects again. `live_drives` counts the drives that take writes now."""

    def __init__(
        self,
        metastore: Metastore,
        objects: Objects,
        clock: Clock,
        randomness: Randomness,
        live_drives: Callable[[], int],
    ) -> None:
        self._metastore = metastore
        self._objects = objects
        self._clock = clock
        self._randomness = randomness
        self.live_drives = live_drives

    def scheme_of(self, record: ObjectRecord) -> Scheme:
        """What the record says that it is to be stored under."""
        return scheme_named(record.scheme) or self._objects.schemes.default

    def fits(self, scheme: Scheme) -> bool:
        """Whether enough drives take writes now."""
        return self.live_drives() >= scheme.width

    def in_class(self, record: ObjectRecord, storage_class: str) -> ObjectRecord:
        """The record in that storage class, its blobs as they are. Raises ClassNotMapped."""
        kept = kept_as(storage_class, None, self._objects.schemes)
        return msgspec.structs.replace(record, storage_class=kept.storage_class, scheme=kept.named)

    async def swap(
        self, found: ObjectEntry, wanted: ObjectRecord, compares: Sequence[Compare]
    ) -> bool:
        """Make `wanted` the record, its bytes stored under the scheme that it says. False when the
        record or something else that was compared changed meanwhile, or drives went: nothing is
        different then. Raises ObjectsError, MetastoreUnavailable."""
        if self._stays_put(found.record, wanted):
            relied = (*compares, unchanged(found.record_key, found.mod_revision))
            return await self._run(Txn(relied, (Put(found.record_key, encode(wanted)),)), wanted)
        return await self.store_again(found, wanted, compares)

    async def store_again(
        self,
        found: ObjectEntry,
        wanted: ObjectRecord,
        compares: Sequence[Compare],
    ) -> bool:
        """As `swap`; the bytes are written anew in any case."""
        copy = _Copy(GroupId(self._randomness.token(16)), self.scheme_of(wanted))
        try:
            renewed = await self._copied(copy, found, wanted)
        except BaseException:
            await self._give_up(copy)
            raise
        if any(one.narrow for one in copy.stored):
            await self._give_up(copy)
            return False  # drives went meanwhile
        now_ms = self._clock.now_ns() // 1_000_000
        reference = keys.reference(copy.group, found.record_key)
        txn = Txn(
            compares=(
                *compares,
                unchanged(found.record_key, found.mod_revision),
                first_commit_of(copy.group),
                *self._relied(copy, found),
            ),
            success=(
                Put(found.record_key, encode(renewed)),
                *end_of(found.record_key, found.record, now_ms),
                DeleteRange(keys.narrow(found.record_key)),
                *((DeleteRange(reference),) if copy.lease else ()),
                *dict.fromkeys(put for one in copy.stored for put in one.puts),
            ),
        )
        try:
            done = await self._run(txn, renewed)
        except OutcomeUnknown:
            await self._release(copy)
            raise  # it may come to be yet: nothing is discarded, the sweep finds what is left over
        if not done:
            await self._give_up(copy)
        else:
            await self._release(copy)
        return done

    def _relied(self, copy: _Copy, found: ObjectEntry) -> Sequence[Compare]:
        """What stored the copy. One of many blobs takes longer than write windows are open: the
        reference that has held the sweep off must be there."""
        relied = _with_room(compare for one in copy.stored for compare in one.compares)
        if not copy.lease:
            return tuple(relied)
        reference = exists(keys.reference(copy.group, found.record_key))
        return (reference, *(c for c in relied if not is_window(c)))

    async def _run(self, txn: Txn, wanted: ObjectRecord) -> bool:
        """Whether it was applied; after a lost answer the record tells."""
        try:
            return (await self._metastore.txn(txn)).succeeded
        except OutcomeUnknown:
            (put,) = [
                op for op in txn.success if isinstance(op, Put) and op.value == encode(wanted)
            ]
            (current,) = await self._metastore.get_many([put.key])
            if current is None or current.value != put.value:
                raise
            return True

    def _stays_put(self, record: ObjectRecord, wanted: ObjectRecord) -> bool:
        if not record.size_bytes:
            return True
        data = record.data
        blob = None
        if data is not None:
            blob = StoredAs(Scheme(data.k, data.m, data.stripe_size_bytes), data.size_bytes)
        kept = Kept(wanted.storage_class, scheme_named(wanted.scheme))
        return stays_put(kept, record.scheme, blob, self._objects.schemes)

    async def _copied(self, copy: _Copy, found: ObjectEntry, wanted: ObjectRecord) -> ObjectRecord:
        """The same object under the new group. Beside each shard lies the record with the blob that
        it is of, so that drives go on to tell whose it is."""
        record, record_key = found.record, found.record_key
        renewed = msgspec.structs.replace(wanted, group=copy.group, group_owner=b"")
        replace = msgspec.structs.replace
        if record.data is not None:
            staged = await self._again(copy, record.data)
            return await self._commit(
                copy, staged, record_key, lambda ref: replace(renewed, data=ref)
            )
        await self._claim(copy, record_key)
        renewed = replace(renewed, parts=(), manifest=None)
        parts: list[PartRef] = []
        for part in await parts_of(record, self._objects):
            staged = await self._again(copy, part.data)
            alone = await self._commit(copy, staged, record_key, partial(_with_part, renewed, part))
            parts += alone.parts
            await self._keep_alive(copy)
        if record.manifest is None:
            return replace(renewed, parts=tuple(parts))
        staged = await self._objects.stage_bytes(
            encode_parts(parts), group=copy.group, scheme=copy.scheme
        )
        return await self._commit(
            copy, staged, record_key, lambda ref: replace(renewed, manifest=ref)
        )

    async def _again(self, copy: _Copy, ref: BlobRef) -> Staged:
        """The bytes of a blob, on their way to its new place."""
        group, scheme = copy.group, copy.scheme
        if not ref.size_bytes:
            return await self._objects.stage_bytes(b"", group=group, scheme=scheme)
        stream = await self._objects.read([(ref, 0, ref.size_bytes)])
        return await self._objects.stage(
            StreamBody(stream), ref.size_bytes, _Unhashed(), group=group, scheme=scheme
        )

    async def _commit(
        self,
        copy: _Copy,
        staged: Staged,
        record_key: bytes,
        build: Callable[[BlobRef], ObjectRecord],
    ) -> ObjectRecord:
        copy.staged.append(staged)
        record = build(staged.ref)
        copy.stored.append(await self._objects.commit(staged, record_key, encode(record)))
        return record

    async def _claim(self, copy: _Copy, record_key: bytes) -> None:
        copy.lease = await self._metastore.lease_grant(LEASE_SECONDS)
        copy.renewed_at = self._clock.monotonic()
        reference = keys.reference(copy.group, record_key)
        await self._metastore.txn(Txn((), (Put(reference, b"", copy.lease),)))

    async def _keep_alive(self, copy: _Copy) -> None:
        """Without its lease the group may be reclaimed: then the swap fails."""
        now = self._clock.monotonic()
        if copy.lease and now - copy.renewed_at >= RENEW_SECONDS:
            with contextlib.suppress(LeaseNotFound):
                await self._metastore.lease_keep_alive(copy.lease)
            copy.renewed_at = now

    async def _release(self, copy: _Copy) -> None:
        """The reference goes with the lease, at the latest when that expires."""
        if copy.lease:
            with contextlib.suppress(LeaseNotFound, MetastoreUnavailable):
                await self._metastore.lease_revoke(copy.lease)

    async def _give_up(self, copy: _Copy) -> None:
        for one in copy.staged:
            await self._objects.discard(one)
        await self._release(copy)


def _with_part(record: ObjectRecord, part: PartRef, ref: BlobRef) -> ObjectRecord:
    return msgspec.structs.replace(record, parts=(msgspec.structs.replace(part, data=ref),))


def _with_room(compares: Iterable[Compare]) -> list[Compare]:
    """Each once, but of more damage marks than a transaction has room for only one a drive. Those of a
    drive are all taken away before an inventory of everything begins: while one of them is there, the
    next inventory is still to come, and sees the copy."""
    each = list(dict.fromkeys(compares))
    marks = {compare: keys.marked_slot(compare.key) for compare in each}
    if sum(map(bool, marks.values())) <= MARKS_COMPARED_MAX:
        return each
    kept: dict[Compare | bytes, Compare] = {}
    for compare, slot in marks.items():
        kept.setdefault(slot or compare, compare)
    return list(kept.values())
