"""Who deletes an upload's blobs: the sweep never takes one that is used, and nothing stays for ever.

Interleavings come from a store that answers late, unfairly, or not at all, by seed.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

import pytest

from gateway.domain.multipart import ListedPart, completion_token
from gateway.metadata import keys, upload_commits, uploads
from gateway.metadata.entries import BucketEntry
from gateway.metadata.errors import GroupReclaimed, MetadataError, RelianceBroken
from gateway.metadata.records import (
    BlobRef,
    GarbageRecord,
    ObjectRecord,
    PartRecord,
    PartRef,
    UploadRecord,
    decode,
    encode,
)
from gateway.metadata.uploads import PartEntry, UploadEntry
from gateway.objects.port import Stored
from ops.keeper.ended_uploads import EndedUploads
from placement.clock import SystemClock
from placement.errors import OutcomeUnknown
from placement.ids import UploadId
from placement.metastore.port import DeleteRange, KeyValue, Put, Range, Txn, prefix_end
from tests.unit.metadata_doubles import OWNER, Rig

KEY = "key"


@dataclass
class Case:
    """A bucket with one upload."""

    rig: Rig
    bucket: BucketEntry
    upload_id: bytes

    @classmethod
    async def begin(cls, seed: int = 0, *, lost_answers: float = 0.0) -> "Case":
        rig = Rig(seed, lost_answers=lost_answers)
        await rig.ready()
        lost, rig.faulty.lost_answers = rig.faulty.lost_answers, 0.0
        bucket = await rig.metadata.bucket("bucket", OWNER)
        upload_id = uploads.new_upload_id(rig.clock.now_ms, rig.randomness)
        record = UploadRecord(
            upload_id=upload_id, owner="o", initiator="o", created_ms=rig.clock.now_ms
        )
        await upload_commits.create(rig.metadata, bucket, KEY, record)
        rig.faulty.lost_answers = lost
        return cls(rig, bucket, upload_id)

    @property
    def upload_key(self) -> bytes:
        return keys.upload(self.bucket.bucket_id, KEY.encode(), UploadId(self.upload_id))

    async def upload(self) -> UploadEntry | None:
        (found,) = await self.rig.memory.get_many([self.upload_key])
        return uploads.upload_entry(found)

    def part(self, number: int = 1) -> PartRecord:
        ref = BlobRef(
            blob=self.rig.randomness.token(16), k=1, m=2, stripe_size_bytes=1 << 20, size_bytes=3
        )
        return PartRecord(
            data=ref,
            etag=b"e" * 16,
            modified_ms=1,
            commit_id=self.rig.randomness.token(8),
            checksum=b"c" * 8,
            number=number,
        )

    async def commit(self, part: PartRecord, upload: UploadEntry | None = None) -> None:
        upload = upload or await self.upload()
        assert upload is not None
        await upload_commits.commit_part(
            self.rig.metadata,
            self.bucket,
            upload,
            part.number,
            part,
            value=encode(part),
            stored=Stored(part.data, (), (), narrow=False),
            now_ms=5,
        )

    async def complete(self) -> ObjectRecord | None:
        """Complete with all parts there are; None when a race was lost."""
        upload = await self.upload()
        if upload is None or upload.record.state == uploads.DONE:
            return None
        parts = await uploads.read_parts(self.rig.faulty, self.upload_id)
        if not parts.entries:
            return None
        token = completion_token([ListedPart(p.number, "") for p in parts.entries])
        frozen = await upload_commits.freeze(
            self.rig.metadata, self.bucket, upload, parts, token=token, now_ms=7
        )
        if frozen is None:
            return None
        return await self.finish(frozen, parts.entries, ())

    async def finish(
        self, frozen: UploadEntry, chosen: tuple[PartEntry, ...], unused: tuple[PartEntry, ...]
    ) -> ObjectRecord:
        record = ObjectRecord(
            owner="o",
            group=self.upload_id,
            size_bytes=0,
            etag=b"e" * 16,
            etag_parts=len(chosen),
            modified_ms=1,
            commit_id=self.rig.randomness.token(8),
            parts=tuple(PartRef(number=p.number, data=p.record.data) for p in chosen),
        )
        await upload_commits.finish(
            self.rig.metadata,
            self.bucket,
            frozen,
            self.bucket.object_key(KEY),
            record,
            value=encode(record),
            stored_manifest=None,
            previous=None,
            conditions=None,
            unused=unused,
            narrow=False,
            now_ms=9,
        )
        return record

    async def abort(self) -> None:
        upload = await self.upload()
        if upload is not None and upload.record.state != uploads.DONE:
            await upload_commits.abort(self.rig.metadata, self.bucket, upload, now_ms=11)

    async def in_use(self, part: PartRecord, *, hinted: bool = False) -> bool:
        record = encode(part) if hinted else b""
        return await uploads.blob_in_use(
            self.rig.memory, self.upload_key, part.data.blob, record=record
        )

    async def claim(self, part: PartRecord) -> bool:
        return await uploads.claim_blob(
            self.rig.faulty, self.upload_key, part.data.blob, now_ms=13, record=encode(part)
        )

    async def used_blobs(self) -> set[bytes]:
        """What an upload's part records and the object name."""
        named: set[bytes] = set()
        if (upload := await self.upload()) is not None and upload.record.state != uploads.DONE:
            parts = await uploads.read_parts(self.rig.memory, self.upload_id)
            named |= {part.record.data.blob for part in parts.entries}
        (found,) = await self.rig.memory.get_many([self.bucket.object_key(KEY)])
        if found is not None:
            named |= {part.data.blob for part in decode(ObjectRecord, found.value).parts}
        return named

    async def garbage(self) -> list[GarbageRecord]:
        found = await self.rig.memory.range(Range(keys.GARBAGE, prefix_end(keys.GARBAGE)))
        return [decode(GarbageRecord, kv.value) for kv in found.kvs]


@pytest.mark.parametrize("hinted", [False, True])
def test_a_part_is_in_use_from_its_commit_until_it_is_replaced(hinted: bool) -> None:
    async def main() -> None:
        case = await Case.begin()
        first, second = case.part(), case.part()
        assert not await case.in_use(first, hinted=hinted)
        await case.commit(first)
        assert await case.in_use(first, hinted=hinted)
        await case.commit(second)
        assert await case.in_use(second, hinted=hinted)
        assert await case.in_use(first, hinted=hinted)  # queued: not the sweep's business
        garbage = keys.garbage(first.data.blob)
        await case.rig.memory.txn(Txn((), (DeleteRange(garbage),)))
        assert not await case.in_use(first, hinted=hinted)

    asyncio.run(main())


def test_parts_of_an_object_are_in_use_and_lost_ones_beside_them_are_not() -> None:
    async def main() -> None:
        case = await Case.begin()
        used, lost = case.part(), case.part(2)
        await case.commit(used)
        record = await case.complete()
        assert record is not None
        assert await case.in_use(used)
        assert not await case.in_use(lost)
        assert await case.claim(lost)
        assert not await case.claim(used)
        await case.rig.memory.txn(Txn((), (DeleteRange(case.bucket.object_key(KEY)),)))
        assert not await case.in_use(used)
        lost_later = case.part(2)
        reference = keys.reference(case.upload_id, b"o/copy")
        copy = (Put(reference, b""), Put(b"o/copy", encode(record)))
        await case.rig.memory.txn(Txn((), copy))
        assert await case.in_use(used)
        assert not await case.claim(used)
        assert not await case.in_use(lost_later)
        assert await case.claim(lost_later)

    asyncio.run(main())


def test_a_blob_is_not_claimed_when_its_copy_moved_while_the_copies_were_looked_at() -> None:
    async def main() -> None:
        case = await Case.begin()
        used = case.part()
        await case.commit(used)
        record = await case.complete()
        assert record is not None
        memory = case.rig.memory
        later = keys.reference(case.upload_id, b"o/later")
        await memory.txn(
            Txn(
                (),
                (
                    DeleteRange(case.bucket.object_key(KEY)),
                    Put(later, b""),
                    Put(b"o/later", encode(record)),
                ),
            )
        )
        get_many = case.rig.faulty.get_many

        async def get_many_late(wanted: Sequence[bytes]) -> tuple[KeyValue | None, ...]:
            if b"o/later" in wanted:  # it is another key's by now, which was passed already
                earlier = keys.reference(case.upload_id, b"o/earlier")
                moved = (DeleteRange(b"o/later"), DeleteRange(later), Put(earlier, b""))
                await memory.txn(Txn((), (*moved, Put(b"o/earlier", encode(record)))))
            return await get_many(wanted)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(case.rig.faulty, "get_many", get_many_late)
            assert not await case.claim(used)
        assert await case.in_use(used)

    asyncio.run(main())


def test_a_claimed_blob_can_not_become_a_part() -> None:
    async def main() -> None:
        case = await Case.begin()
        part = case.part()
        assert await case.claim(part)
        with pytest.raises(GroupReclaimed):
            await case.commit(part)
        assert await case.used_blobs() == set()

    asyncio.run(main())


def test_a_part_of_an_upload_that_ended_is_refused_by_its_key() -> None:
    async def main() -> None:
        case = await Case.begin()
        upload = await case.upload()
        await case.abort()
        with pytest.raises(RelianceBroken) as raised:
            await case.commit(case.part(), upload)
        assert raised.value.key == case.upload_key

    asyncio.run(main())


def test_unused_parts_are_queued_in_entries_of_bounded_size() -> None:
    async def main() -> None:
        case = await Case.begin()
        upload = await case.upload()
        assert upload is not None
        entries = tuple(PartEntry(n, case.part(n)) for n in range(1, 10_001))
        frozen = await upload_commits.freeze(
            case.rig.metadata,
            case.bucket,
            upload,
            uploads.Parts((), 10**9),
            token=b"t",
            now_ms=1,
        )
        assert frozen is not None
        await case.finish(frozen, entries[:1], entries[1:])
        garbage = await case.garbage()
        assert max(len(encode(entry)) for entry in garbage) < 16 << 10
        queued = {ref.blob for entry in garbage for ref in entry.blobs}
        assert queued == {entry.record.data.blob for entry in entries[1:]}
        assert await case.in_use(entries[-1].record)

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(150))
def test_no_interleaving_loses_a_used_blob_or_leaks_a_part(seed: int) -> None:
    """Parts, a sweep that suspects every blob at once, completion and abort run side by side."""

    async def attempt(call: Awaitable[object]) -> object:
        try:
            return await call
        except (MetadataError, OutcomeUnknown) as error:
            return error

    async def main() -> None:
        case = await Case.begin(seed, lost_answers=0.2 if seed % 2 else 0.0)
        upload = await case.upload()
        parts = [case.part(number) for number in (1, 1, 2, 3)]
        results = await asyncio.gather(
            *(attempt(case.commit(part, upload)) for part in parts),
            *(attempt(case.claim(part)) for part in parts),
            attempt(case.complete()),
            *([attempt(case.abort())] if seed % 3 == 0 else []),
        )
        case.rig.faulty.lost_answers = 0.0
        used = await case.used_blobs()
        garbage = await case.garbage()
        claimed = {
            part.data.blob for part, won in zip(parts, results[4:8], strict=True) if won is True
        }
        for part in parts:
            (kv,) = await case.rig.memory.get_many([keys.garbage(part.data.blob)])
            if kv is not None:
                claimed.add(part.data.blob)
        assert not used & claimed
        queued = {ref.blob for entry in garbage for ref in entry.blobs}
        assert not used & queued
        # Nothing is leaked: what is neither used nor queued can be claimed now.
        groups = {entry.group for entry in garbage}
        for part in parts:
            blob = part.data.blob
            if blob in used | queued | claimed or case.upload_id in groups:
                continue
            assert await case.claim(part)
        # A part that was acknowledged is used, replaced, or went with its upload.
        ended = (now := await case.upload()) is None or now.record.state == uploads.DONE
        for part, result in zip(parts, results[:4], strict=True):
            if result is None and not ended:
                assert part.data.blob in used | queued

    asyncio.run(main())


def test_tidying_forgets_old_answers_and_reopens_what_was_cut_off() -> None:
    async def main() -> None:
        case = await Case.begin()
        await case.commit(case.part())
        upload = await case.upload()
        assert upload is not None
        parts = await uploads.read_parts(case.rig.memory, case.upload_id)
        await upload_commits.freeze(
            case.rig.metadata, case.bucket, upload, parts, token=b"t", now_ms=1000
        )
        tidy = uploads.tidy
        assert await tidy(case.rig.memory, lambda entry: uploads.STALE_COMPLETION_MS - 1) == 0
        assert await tidy(case.rig.memory, lambda entry: uploads.STALE_COMPLETION_MS) == 1
        assert (now := await case.upload()) is not None
        assert now.record.state == uploads.OPEN
        listed = [
            entry
            async for page in uploads.unfinished(case.rig.memory, now_ms=10**15, age_ms=1)
            for entry in page
        ]
        assert [entry.key for entry in listed] == [case.upload_key]
        assert await case.complete() is not None
        assert await tidy(case.rig.memory, lambda entry: uploads.DONE_RETENTION_MS - 1) == 0
        assert await tidy(case.rig.memory, lambda entry: uploads.DONE_RETENTION_MS) == 1
        assert await case.upload() is None

    asyncio.run(main())


def test_an_answer_is_kept_for_an_hour_whatever_the_clocks_on_the_wall_say() -> None:
    class Clock(SystemClock):
        seconds = 0.0

        def now_ns(self) -> int:
            return 10**18  # far from the time of the completion

        def monotonic(self) -> float:
            return self.seconds

    async def main() -> None:
        case = await Case.begin()
        await case.commit(case.part())
        assert await case.complete() is not None
        clock = Clock()
        duty = EndedUploads(case.rig.memory, clock)
        answer = keys.finished(case.upload_key)
        for clock.seconds in (0.0, 3599.0):
            await duty.work()
            assert await case.rig.memory.get_many([answer]) != (None,)
        clock.seconds = 3600.0
        await duty.work()
        assert await case.rig.memory.get_many([answer]) == (None,)

    asyncio.run(main())


def test_upload_ids_sort_by_time_and_read_back_from_text() -> None:
    rig = Rig()
    first = uploads.new_upload_id(1_000, rig.randomness)
    second = uploads.new_upload_id(1_001, rig.randomness)
    assert first < second
    assert uploads.parse_upload_id(first.hex()) == first
    for text in ("", "00", "g" * 32, first.hex().upper() + "0", f" {first.hex()}", "0" * 33):
        assert uploads.parse_upload_id(text) is None


def test_a_completion_that_was_reopened_behind_its_back_commits_nothing() -> None:
    """Else the object would name a part that was replaced meanwhile, and whose blob is garbage."""

    async def main() -> None:
        case = await Case.begin()
        await case.commit(case.part())
        upload = await case.upload()
        assert upload is not None
        parts = await uploads.read_parts(case.rig.memory, case.upload_id)
        frozen = await upload_commits.freeze(
            case.rig.metadata, case.bucket, upload, parts, token=b"t", now_ms=1
        )
        assert frozen is not None
        assert await upload_commits.reopen(case.rig.metadata, frozen) is not None
        replacement = case.part()
        await case.commit(replacement)
        with pytest.raises(RelianceBroken) as raised:
            await case.finish(frozen, parts.entries, ())
        assert raised.value.key == case.upload_key
        assert await case.used_blobs() == {replacement.data.blob}

    asyncio.run(main())
