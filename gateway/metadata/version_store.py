"""Versions of objects as operations see them: look one up, delete one, change what is recorded."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.domain.conditions import DeleteConditions
from gateway.domain.listing import From
from gateway.domain.version_listing import Item, VersionPage, VersionPosition
from gateway.domain.versions import UNVERSIONED, Stamp
from gateway.metadata import keys
from gateway.metadata.admission import admit_to_object
from gateway.metadata.entries import BucketEntry, Deleted, ObjectEntry
from gateway.metadata.errors import BucketBusy, NoSuchBucket
from gateway.metadata.records import ListedVersion, ObjectRecord, decode_versions, encode
from gateway.metadata.version_commits import VersionCommits
from gateway.s3.message import Principal
from placement.metastore.port import KeyValue, Put, Range, Txn, prefix_end, unchanged

if TYPE_CHECKING:
    from gateway.metadata.store import Metadata

_REFRESHES_MAX = 8


class Versions:
    """Part of the repository: `Metadata.versions`. Ids are the bytes of `domain.versions`."""

    def __init__(self, metadata: "Metadata", commits: VersionCommits) -> None:
        self._metadata = metadata
        self._commits = commits

    def stamp(self, entry: BucketEntry, previous: ObjectEntry | None) -> Stamp:
        """What a record should be stamped with before it is stored; its commit changes the stamp
        when it turns out not to be the newest."""
        if not entry.record.versioning:
            return UNVERSIONED
        return self._commits.stamp(entry, above=-1 if previous is None else previous.record.order)

    async def lookup(
        self, bucket: str, key: str, principal: Principal, version_id: bytes
    ) -> tuple[BucketEntry, ObjectEntry | None]:
        """As `Metadata.lookup`, of one version; it may be a delete marker."""
        for _ in range(_REFRESHES_MAX):
            entry = await self._metadata.buckets.guess(bucket)
            try:
                current, found = await self._commits.find(entry, entry.object_key(key), version_id)
            except NoSuchBucket:
                continue  # made again, perhaps: a guess that is wrong is not made twice
            admit_to_object(current, found, principal)
            return current, found
        raise BucketBusy(bucket)

    async def find(self, entry: BucketEntry, key: str, version_id: bytes) -> ObjectEntry | None:
        """One version in a bucket that was looked up. Raises NoSuchBucket when it is gone."""
        return (await self._commits.find(entry, entry.object_key(key), version_id))[1]

    async def current_marker(self, entry: BucketEntry, key: str) -> ObjectEntry | None:
        """The delete marker in the place of an object that was not found."""
        if not entry.record.versioning:
            return None
        return await self._commits.current_marker(entry, entry.object_key(key))

    async def delete(
        self, entry: BucketEntry, key: str, *, conditions: DeleteConditions | None = None
    ) -> Deleted:
        """Put a delete marker in front. The bucket must have versioning. Raises as
        `Commits.delete`."""
        return await self._commits.delete(entry, entry.object_key(key), conditions=conditions)

    async def delete_version(
        self,
        entry: BucketEntry,
        key: str,
        version_id: bytes,
        *,
        conditions: DeleteConditions | None = None,
        bypass_governance: bool = False,
    ) -> ObjectEntry | None:
        """End one version; what was ended, None when there was none. Raises as
        `Commits.delete`, and ObjectLocked."""
        return await self._commits.delete_version(
            entry,
            entry.object_key(key),
            version_id,
            conditions=conditions,
            bypass_governance=bypass_governance,
        )

    async def amend(
        self, entry: BucketEntry, version: ObjectEntry, record: ObjectRecord
    ) -> ObjectEntry | None:
        """Change what is recorded of a version where it is, current or not; None when it changed or
        moved since it was read. Its group and its stamp stay.

        Raises NoSuchBucket, OutcomeUnknown.
        """
        old = version.record
        assert (record.group, record.group_owner) == (old.group, old.group_owner)
        assert (record.version_id, record.order) == (old.version_id, old.order)
        key = version.record_key
        txn = Txn(
            (entry.unchanged, unchanged(key, version.mod_revision)), (Put(key, encode(record)),)
        )
        applied = await self._metadata.transactions.run(txn)
        return ObjectEntry(key, record, applied.revision) if applied.succeeded else None

    def pages(self, entry: BucketEntry) -> "BucketVersions":
        """A bucket's versions for `domain.version_listing`."""
        return BucketVersions(self._metadata, entry)


class BucketVersions:
    """The `VersionSource` over a bucket: current objects, current markers and all other versions
    merged, read at one instant a page. A bucket without versioning has only the first."""

    def __init__(self, metadata: "Metadata", entry: BucketEntry) -> None:
        self._metadata = metadata
        self._entry = entry
        objects = keys.objects_of(entry.bucket_id)
        self._families: tuple[bytes, ...] = (objects,)
        if entry.record.versioning:
            self._families = (objects, keys.marker(objects), keys.versions_of(objects))

    async def page(
        self, prefix: bytes, start: VersionPosition, limit: int
    ) -> VersionPage[ListedVersion]:
        """Raises NoSuchBucket when the bucket is not the one it was."""
        ranges = [self._range(family, prefix, start, limit) for family in self._families]
        asked = [each for each in ranges if each is not None]
        if not asked:
            return VersionPage([], None)
        results = await self._metadata.snapshot(self._entry, asked)
        found: list[KeyValue] = []
        last: bytes | None = None  # up to where every family has been read
        for result in results:
            found.extend(result.kvs)
            if result.more:
                end = result.kvs[-1].key[2:]
                last = end if last is None else min(last, end)
        if len(results) > 1:
            found.sort(key=lambda kv: kv.key[2:])
        if last is not None:
            found = [kv for kv in found if kv.key[2:] <= last]
        items = _items(found)
        after = None
        if last is not None:
            after = VersionPosition(From.AT, items[-1].key, items[-1].order)
        if start.below is not None:
            below = start.below
            items = [item for item in items if item.key != start.key or item.order < below]
        return VersionPage(items, after)

    def _range(
        self, family: bytes, prefix: bytes, start: VersionPosition, limit: int
    ) -> Range | None:
        first = family + keys.escape(prefix)
        bound = family + keys.escape(start.key)
        if start.origin is From.AFTER:
            bound = prefix_end(bound + keys.END)
        elif start.origin is From.PAST:
            bound = prefix_end(bound)
        elif start.below is not None and family.startswith(keys.VERSIONS):
            bound += keys.END + keys.order_suffix(start.below) + b"\x00"
        begin, end = max(first, bound), prefix_end(first)
        # What is current of the key is read again and left out, and must not fill the page.
        limit += start.below is not None
        return Range(begin, end, limit) if begin < end else None


def _items(found: Sequence[KeyValue]) -> list[Item[ListedVersion]]:
    heads = decode_versions([kv.value for kv in found])
    return [
        Item(
            keys.key_of_object(keys.object_of(kv.key)),
            head.order,
            head,
            latest=not kv.key.startswith(keys.VERSIONS),
        )
        for kv, head in zip(found, heads, strict=True)
    ]
