"""Commits in buckets with versioning: what races and lost answers may not break."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.conditions import WriteConditions
from gateway.domain.version_listing import VersionQuestion, list_versions
from gateway.metadata import groups, keys
from gateway.metadata.entries import ObjectEntry
from gateway.metadata.errors import MetadataError, PreconditionFailed
from gateway.metadata.records import BucketRecord, ObjectRecord, decode, encode
from gateway.metadata.store import Metadata
from gateway.s3.headers import parse_etags
from ops.keeper import inventory
from placement.errors import OutcomeUnknown
from placement.metastore.port import KeyValue, Put, Range, Txn, prefix_end, unchanged
from tests.unit.metadata_doubles import OWNER, Rig, stored
from tests.unit.test_metadata_commits import garbage, reclaim_all, references

ENABLED, SUSPENDED = "Enabled", "Suspended"


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


async def set_state(metadata: Metadata, state: str) -> None:
    def change(record: BucketRecord) -> BucketRecord:
        return msgspec.structs.replace(record, versioning=state)

    await metadata.change_bucket("bucket", OWNER, change)


async def ready(rig: Rig, state: str = ENABLED) -> None:
    await rig.ready()
    lost, rig.faulty.lost_answers = rig.faulty.lost_answers, 0.0
    if state:
        await set_state(rig.metadata, state)
    rig.faulty.lost_answers = lost


async def put(
    rig: Rig,
    key: str = "k",
    record: ObjectRecord | None = None,
    *,
    metadata: Metadata | None = None,
    conditions: WriteConditions | None = None,
    narrow: bool = False,
) -> ObjectRecord:
    metadata = metadata or rig.metadata
    record = record or rig.record()
    entry, previous = await metadata.lookup("bucket", key, OWNER)
    committed = await metadata.commits.commit(
        entry,
        entry.object_key(key),
        record,
        stored=stored(record, narrow=narrow),
        previous=previous,
        conditions=conditions,
    )
    return committed.record


async def delete(rig: Rig, key: str = "k", metadata: Metadata | None = None) -> ObjectRecord | None:
    metadata = metadata or rig.metadata
    entry, previous = await metadata.lookup("bucket", key, OWNER)
    deleted = await metadata.commits.delete(entry, entry.object_key(key), previous=previous)
    return deleted.marker


async def delete_version(
    rig: Rig, version_id: bytes, key: str = "k", metadata: Metadata | None = None
) -> ObjectEntry | None:
    metadata = metadata or rig.metadata
    entry = await metadata.bucket("bucket", OWNER)
    return await metadata.versions.delete_version(entry, key, version_id)


async def copy(
    rig: Rig, key: str, version_id: bytes, to: str, metadata: Metadata | None = None
) -> ObjectRecord | None:
    """None when there is no such source."""
    metadata = metadata or rig.metadata
    entry, source = await metadata.versions.lookup("bucket", key, OWNER, version_id)
    if source is None or source.record.delete_marker:
        return None
    _, previous = await metadata.lookup("bucket", to, OWNER)
    record = msgspec.structs.replace(
        source.record,
        commit_id=rig.randomness.token(8),
        group_owner=groups.group_owner_of_copy(
            source.record_key,
            source.record,
            entry.object_key(to),
            None if previous is None else previous.record,
        ),
    )
    committed = await metadata.commits.commit(
        entry, entry.object_key(to), record, previous=previous, source=source
    )
    return committed.record


async def reencode(rig: Rig, record_key: bytes) -> tuple[ObjectRecord, ObjectRecord] | None:
    """What the keeper does to an object stored narrow: a new group under the same record key. The
    record before and after; None when it was too late."""
    (found,) = await rig.faulty.get_many([record_key])
    if found is None:
        return None
    old = decode(ObjectRecord, found.value)
    fresh = rig.record()
    new = msgspec.structs.replace(old, group=fresh.group, data=fresh.data, group_owner=b"")
    txn = Txn(
        (unchanged(record_key, found.mod_revision), groups.first_commit_of(new.group)),
        (Put(record_key, encode(new)), *groups.end_of(record_key, old, 1)),
    )
    return (old, new) if (await rig.faulty.txn(txn)).succeeded else None


async def everything(rig: Rig) -> dict[bytes, KeyValue]:
    found = await rig.memory.range(Range(b"a", b"\xff"))
    return {kv.key: kv for kv in found.kvs}


async def versions_of(rig: Rig, key: str = "k") -> list[ObjectRecord]:
    """All versions of a key, newest first, as stored."""
    entry = await rig.metadata.bucket("bucket", OWNER)
    object_key = entry.object_key(key)
    others = keys.versions_of(object_key)
    first = await rig.memory.get_many([object_key, keys.marker(object_key)])
    rest = await rig.memory.range(Range(others, prefix_end(others)))
    return [decode(ObjectRecord, kv.value) for kv in (*first, *rest.kvs) if kv is not None]


def records(space: dict[bytes, KeyValue]) -> Iterator[tuple[bytes, ObjectRecord]]:
    for key, kv in space.items():
        if key.startswith((keys.OBJECTS, keys.MARKERS, keys.VERSIONS)):
            yield key, decode(ObjectRecord, kv.value)


async def check(rig: Rig) -> None:
    """What must hold of the key space whatever happened."""
    space = await everything(rig)
    found = dict(records(space))
    by_object: dict[bytes, list[tuple[bytes, ObjectRecord]]] = {}
    for key, record in found.items():
        by_object.setdefault(keys.object_of(key), []).append((key, record))
    pointers = {key for key in space if key.startswith(b"y/")}
    for object_key, several in by_object.items():
        present = [(k, r) for k, r in several if not k.startswith(keys.VERSIONS)]
        others = [(k, r) for k, r in several if k.startswith(keys.VERSIONS)]
        assert len(present) == 1, "one version is current, as long as there is any"
        assert present[0][1].delete_marker == present[0][0].startswith(keys.MARKERS)
        assert all(record.order < present[0][1].order for _, record in others)
        assert all(key == keys.version(object_key, record.order) for key, record in others)
        assert sum(not record.version_id for _, record in several) <= 1
        pointer = keys.null_version(object_key)
        nulls = [record.order for _, record in others if not record.version_id]
        told = [int.from_bytes(space[pointer].value, "big")] if pointer in pointers else []
        assert told == nulls
        pointers.discard(pointer)
    assert not pointers
    wanted = {
        keys.reference(record.group, key) for key, record in found.items() if record.group_owner
    }
    assert await references(rig) == wanted
    used = {record.group: record.group_owner or key for key, record in found.items()}
    for group, owner in used.items():
        if group:  # the sweep does not take it, whichever record it asks first
            assert await rig.metadata.may_reclaim(group, owner) is None
    queued = set(await garbage(rig))
    assert await reclaim_all(rig) == queued - set(used)


def test_every_write_leaves_the_version_before_it_and_frees_nothing() -> None:
    rig = Rig()

    async def main() -> None:
        await ready(rig, "")
        await put(rig)
        await set_state(rig.metadata, ENABLED)
        await put(rig)
        await delete(rig)
        await put(rig)
        kinds = [(bool(r.version_id), r.delete_marker) for r in await versions_of(rig)]
        assert kinds == [(True, False), (True, True), (True, False), (False, False)]
        assert await garbage(rig) == {}
        await check(rig)

    run(main)


def test_the_last_version_to_end_leaves_nothing_behind() -> None:
    rig = Rig()

    async def main() -> None:
        await ready(rig, "")
        made = [await put(rig)]
        await set_state(rig.metadata, ENABLED)
        made += [await put(rig), await put(rig)]
        marker = await delete(rig)
        assert marker is not None
        for record in (made[1], marker, made[0], made[2]):
            assert await delete_version(rig, record.version_id) is not None
            await check(rig)
        space = await everything(rig)
        assert not [key for key in space if key[:2] in (b"o/", b"x/", b"v/", b"y/", b"r/")]
        assert set(await garbage(rig)) == {record.group for record in made}

    run(main)


def test_orders_grow_though_the_clock_goes_back() -> None:
    rig = Rig()

    async def main() -> None:
        await ready(rig)
        await put(rig)
        rig.clock.now_ms -= 3_600_000
        second = await put(rig)
        third = await put(rig)
        assert [record.group for record in await versions_of(rig)][:2] == [
            third.group,
            second.group,
        ]
        entry = await rig.metadata.bucket("bucket", OWNER)
        for record in (second, third):
            found = await rig.metadata.versions.find(entry, "k", record.version_id)
            assert found is not None
            assert found.record.group == record.group
        await check(rig)

    run(main)


def test_suspended_writes_end_the_null_version_wherever_it_is() -> None:
    rig = Rig()

    async def main() -> None:
        await ready(rig, "")
        first = await put(rig)
        await set_state(rig.metadata, ENABLED)
        named = await put(rig)
        await set_state(rig.metadata, SUSPENDED)
        second = await put(rig)
        assert set(await garbage(rig)) == {first.group}
        await delete(rig)
        assert set(await garbage(rig)) == {first.group, second.group}
        left = [(r.version_id, r.delete_marker) for r in await versions_of(rig)]
        assert left == [(b"", True), (named.version_id, False)]
        await check(rig)

    run(main)


def test_a_version_copied_onto_its_own_key_keeps_its_bytes_alive() -> None:
    rig = Rig()

    async def main() -> None:
        await ready(rig)
        old = await put(rig)
        new = await put(rig)
        restored = await copy(rig, "k", old.version_id, "k")
        again = await copy(rig, "k", restored.version_id, "k") if restored else None
        assert restored is not None
        assert again is not None
        for version in (old, again, new):
            await delete_version(rig, version.version_id)
            await check(rig)
        assert old.group not in await reclaim_all(rig)
        await delete_version(rig, restored.version_id)
        assert {old.group, new.group} <= set(await garbage(rig))
        await check(rig)

    run(main)


def test_a_request_for_reencoding_moves_with_its_version() -> None:
    rig = Rig()

    async def narrow() -> list[bytes]:
        return [key[2:] for key in await everything(rig) if key.startswith(keys.NARROW)]

    async def main() -> None:
        await ready(rig)
        entry = await rig.metadata.bucket("bucket", OWNER)
        object_key = entry.object_key("k")
        first = await put(rig, narrow=True)
        assert await narrow() == [object_key]
        second = await put(rig)
        assert await narrow() == [keys.version(object_key, first.order)]
        third = await put(rig, narrow=True)
        assert len(await narrow()) == 2
        await delete_version(rig, third.version_id)
        assert await narrow() == [keys.version(object_key, first.order)]
        await delete_version(rig, second.version_id)
        assert await narrow() == [object_key]

    run(main)


def test_a_delete_marker_takes_over_no_request_for_reencoding() -> None:
    """One that its object left behind when it ended: the keeper has not come to it yet."""
    rig = Rig()

    async def main() -> None:
        await rig.ready()
        await put(rig, narrow=True)
        await delete(rig)
        await set_state(rig.metadata, ENABLED)
        marker = await delete(rig)
        assert marker is not None
        after = await put(rig)
        entry = await rig.metadata.bucket("bucket", OWNER)
        moved = keys.narrow(keys.version(entry.object_key("k"), marker.order))
        assert moved not in await everything(rig)
        await delete_version(rig, after.version_id)
        marker_key = keys.marker(entry.object_key("k"))
        assert keys.narrow(marker_key) not in await everything(rig)

    run(main)


def test_an_object_under_a_marker_does_not_count_for_conditions() -> None:
    rig = Rig()
    nothing_there = WriteConditions(if_none_match=parse_etags("*"))

    async def main() -> None:
        await ready(rig)
        await put(rig, conditions=nothing_there)
        with pytest.raises(PreconditionFailed):
            await put(rig, conditions=nothing_there)
        await delete(rig)
        await put(rig, conditions=nothing_there)
        assert len(await versions_of(rig)) == 3

    run(main)


def test_a_bucket_that_gets_versioning_during_a_write_keeps_the_version() -> None:
    rig = Rig()

    async def main() -> None:
        await ready(rig, "")
        first = await put(rig)
        entry, previous = await rig.metadata.lookup("bucket", "k", OWNER)
        await set_state(rig.gateway(), ENABLED)
        record = rig.record()
        committed = await rig.metadata.commits.commit(
            entry, entry.object_key("k"), record, stored=stored(record), previous=previous
        )
        assert committed.record.version_id
        assert [each.group for each in await versions_of(rig)] == [record.group, first.group]
        deleted = await rig.metadata.commits.delete(entry, entry.object_key("k"), previous=previous)
        assert deleted.marker is not None
        assert len(await versions_of(rig)) == 3
        await check(rig)

    run(main)


def test_a_put_whose_answer_was_lost_finds_itself_among_the_older_versions() -> None:
    rig = Rig()

    async def main() -> None:
        await ready(rig)
        inner = rig.faulty.txn
        others: list[ObjectRecord] = []

        async def lose_the_answer(txn: Txn) -> object:
            rig.faulty.txn = inner  # type: ignore[method-assign]
            await rig.memory.txn(txn)
            others.append(await put(rig, metadata=rig.gateway()))
            raise OutcomeUnknown("applied, but the answer was lost")

        rig.faulty.txn = lose_the_answer  # type: ignore[method-assign,assignment]
        record = await put(rig)
        found = await versions_of(rig)
        assert [each.version_id for each in found] == [others[0].version_id, record.version_id]

    run(main)


def test_what_was_reencoded_under_another_key_moves_with_its_bytes() -> None:
    rig = Rig()

    async def main() -> None:
        await ready(rig)
        entry = await rig.metadata.bucket("bucket", OWNER)
        first, second = await put(rig), await put(rig)
        older = keys.version(entry.object_key("k"), first.order)
        changed = await reencode(rig, older)
        assert changed is not None
        _, new = changed
        await check(rig)
        await delete_version(rig, second.version_id)
        (current,) = await versions_of(rig)
        assert (current.group, current.group_owner) == (new.group, older)
        await check(rig)
        await put(rig)  # back to where it was encoded: it is the first owner again
        assert (await versions_of(rig))[1].group_owner == b""
        await check(rig)
        await delete_version(rig, first.version_id)
        assert new.group in await garbage(rig)
        await check(rig)

    run(main)


def test_deleting_the_current_version_and_the_one_below_it_at_once_ends_both() -> None:
    for seed in range(30):
        rig = Rig(seed)

        async def main(rig: Rig = rig) -> None:
            await ready(rig)
            first, second, third = [await put(rig) for _ in range(3)]
            await asyncio.gather(
                delete_version(rig, third.version_id, metadata=rig.gateway()),
                delete_version(rig, second.version_id, metadata=rig.gateway()),
            )
            assert [each.group for each in await versions_of(rig)] == [first.group]
            await check(rig)

        run(main)


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.0, 0.2]))
def test_whatever_races_nothing_acknowledged_is_lost_and_nothing_leaks(
    seed: int, lost: float
) -> None:
    rig = Rig(seed, lost_answers=lost)
    choose = random.Random(seed)
    known: list[tuple[str, bytes]] = []
    kept: dict[tuple[str, bytes], bytes] = {}
    renewed: dict[tuple[str, bytes], set[bytes]] = {}
    doomed: set[tuple[str, bytes]] = set()
    groups_made: set[bytes] = set()

    async def step(metadata: Metadata) -> None:
        key = choose.choice("aaab")
        what = choose.randrange(12)
        if what == 0:
            await set_state(metadata, choose.choice([ENABLED, SUSPENDED]))
        elif what in (1, 2, 3):
            record = rig.record()
            made = await put(rig, key, record, metadata=metadata)
            groups_made.add(made.group)
            keep(key, made)
        elif what == 4:
            marker = await delete(rig, key, metadata)
            if marker is not None:
                keep(key, marker)
        elif what == 5 and known:
            source, version = choose.choice(known)
            copied = await copy(rig, source, version, key, metadata)
            if copied is not None:
                keep(key, copied)
        elif what == 6:
            stored_ones = [k for k, r in records(await everything(rig)) if not r.delete_marker]
            if stored_ones:
                record_key = choose.choice(stored_ones)
                name = keys.key_of_object(keys.object_of(record_key)).decode()
                changed = await reencode(rig, record_key)
                if changed is not None:
                    _, new = changed
                    groups_made.add(new.group)
                    renewed.setdefault((name, new.version_id), set()).add(new.group)
        elif known:
            target = choose.choice([*known[-3:], (key, b"")])
            doomed.add(target)
            await delete_version(rig, target[1], target[0], metadata)

    def keep(key: str, record: ObjectRecord) -> None:
        if record.version_id:
            known.append((key, record.version_id))
            kept[key, record.version_id] = record.group

    async def client() -> None:
        metadata = rig.gateway()
        for _ in range(6):
            with contextlib.suppress(OutcomeUnknown, MetadataError):
                await step(metadata)

    async def main() -> None:
        await ready(rig, choose.choice(["", ENABLED, SUSPENDED]))
        await asyncio.gather(*(client() for _ in range(4)))
        rig.faulty.lost_answers = 0.0
        entry = await rig.metadata.bucket("bucket", OWNER)
        for (key, version), group in kept.items():
            if (key, version) not in doomed:
                found = await rig.metadata.versions.find(entry, key, version)
                assert found is not None
                assert found.record.group in {group, *renewed.get((key, version), ())} or lost
        space = dict(records(await everything(rig)))
        used = {record.group for record in space.values()}
        assert groups_made <= used | set(await garbage(rig)), "a group leaked"
        await check(rig)
        await check_listings(rig, space)

    run(main)


async def check_listings(rig: Rig, space: dict[bytes, ObjectRecord]) -> None:
    """Pages of every size, and the keeper's inventory, show exactly what is stored."""
    entry = await rig.metadata.bucket("bucket", OWNER)
    stored_ones = sorted((key[10:], record) for key, record in space.items())
    whole = [record.commit_id for _, record in stored_ones]
    for size in (1, 3, 1000):
        listing = await list_versions(
            rig.metadata.versions.pages(entry), VersionQuestion(keys_max=size)
        )
        assert [msgspec.msgpack.decode(item.value.commit_id) for item in listing.items] == whole[
            :size
        ]
        assert (listing.last is not None) == (len(whole) > size)
    refs = [page async for page in inventory.blobs(rig.memory, None)]  # type: ignore[arg-type]
    named = {ref.blob for page in refs for ref in page}
    assert named == {record.data.blob for record in space.values() if record.data is not None}


def test_the_inventory_reads_the_versions_of_a_key_at_one_instant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inventory, "PAGE_RECORDS", 3)
    rig = Rig()

    async def main() -> None:
        await ready(rig)
        made = [await put(rig, key) for key in "aabbbbbcd" for _ in range(2)]
        named = set()
        async for page in inventory.blobs(rig.memory, None):  # type: ignore[arg-type]
            named |= {ref.blob for ref in page}
        assert named == {record.group for record in made}
        await rig.memory.txn(Txn((), (Put(b"unrelated", b""),)))

    run(main)
