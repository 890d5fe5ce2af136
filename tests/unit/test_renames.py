"""Renames: one transaction, whatever the bucket's versioning, the races and the lost answers."""

import asyncio
import contextlib
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.conditions import WriteConditions
from gateway.metadata import keys
from gateway.metadata.errors import MetadataError, NoSuchKey
from gateway.metadata.records import ObjectRecord
from gateway.metadata.renames import Rename
from gateway.metadata.store import Metadata
from gateway.s3.headers import parse_etags
from ops.keeper import inventory
from placement.errors import OutcomeUnknown
from tests.unit.metadata_doubles import OWNER, Rig
from tests.unit.test_metadata_commits import garbage, reclaim_all, references
from tests.unit.test_version_commits import (
    ENABLED,
    SUSPENDED,
    check,
    copy,
    delete,
    everything,
    put,
    ready,
    records,
    run,
    versions_of,
)


async def rename(
    rig: Rig,
    source: str,
    destination: str,
    commit_id: bytes | None = None,
    metadata: Metadata | None = None,
) -> ObjectRecord:
    metadata = metadata or rig.metadata
    entry = await metadata.bucket("bucket", OWNER)

    def judge(_: object, found: object, there: object) -> None:
        if found is None:
            raise NoSuchKey(source.encode())

    asked = Rename(
        entry.object_key(source),
        entry.object_key(destination),
        commit_id or rig.randomness.token(8),
        lambda *_: None,
        judge,
    )
    return await metadata.renames.run(entry, asked)


@pytest.mark.parametrize("state", ["", ENABLED, SUSPENDED])
def test_an_object_is_under_its_new_key_only_and_what_was_there_is_freed(state: str) -> None:
    rig = Rig()

    async def main() -> None:
        await ready(rig, state)
        old, other = await put(rig, "a"), await put(rig, "b")
        renamed = await rename(rig, "a", "b")
        assert (renamed.group, renamed.modified_ms) == (old.group, old.modified_ms)
        assert (await versions_of(rig, "b"))[0] == renamed
        left = await versions_of(rig, "a")
        assert [record.delete_marker for record in left[:1]] == ([True] if state else [])
        assert (old.group in {r.group for r in left}) == (state == ENABLED)
        freed = await reclaim_all(rig)
        assert freed == (set() if state == ENABLED else {other.group})
        if state:
            await check(rig)

    run(main)


def test_a_record_that_comes_back_to_its_first_key_needs_no_reference() -> None:
    rig = Rig()

    async def main() -> None:
        await ready(rig, "")
        made = await put(rig, "a")
        there = await rename(rig, "a", "b")
        assert len(await references(rig)) == 1
        back = await rename(rig, "b", "a")
        assert there.group_owner
        assert not back.group_owner
        assert await references(rig) == set()
        await delete(rig, "a")
        assert await reclaim_all(rig) == {made.group}

    run(main)


def test_a_rename_over_a_copy_of_itself_frees_nothing_that_is_used() -> None:
    for source, destination in (("a", "b"), ("b", "a")):
        rig = Rig()

        async def main(rig: Rig = rig, names: tuple[str, str] = (source, destination)) -> None:
            await ready(rig, "")
            made = await put(rig, "a")
            await copy(rig, "a", b"", "b")
            await rename(rig, *names)
            assert await reclaim_all(rig) == set()
            await delete(rig, names[1])
            assert await reclaim_all(rig) == {made.group}
            assert await references(rig) == set()

        run(main)


@pytest.mark.parametrize("state", ["", ENABLED])
def test_what_waits_for_reencoding_waits_under_its_new_key(state: str) -> None:
    rig = Rig()

    async def main() -> None:
        await ready(rig, state)
        await put(rig, "a", narrow=True)
        await rename(rig, "a", "b")
        entry = await rig.metadata.bucket("bucket", OWNER)
        space = await everything(rig)
        assert keys.narrow(entry.object_key("b")) in space
        assert keys.narrow(entry.object_key("a")) not in space

    run(main)


def test_a_rename_that_is_asked_for_again_is_not_carried_out_again() -> None:
    rig = Rig()

    async def main() -> None:
        await ready(rig, "")
        await put(rig, "a")
        first = await rename(rig, "a", "b", b"same one")
        assert await rename(rig, "a", "b", b"same one") == first
        another = await put(rig, "a")
        assert await rename(rig, "a", "b", b"same one") == first
        assert (await rename(rig, "a", "b")).group == another.group

    run(main)


@pytest.mark.parametrize("state", ["", ENABLED])
def test_an_inventory_finds_what_was_renamed_behind_its_back(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "PAGE_RECORDS", 1)
    monkeypatch.setattr(inventory, "PAGE_REFERENCES", 1)
    rig = Rig()

    async def main() -> None:
        await ready(rig, state)
        made = {(await put(rig, key)).group for key in "bcd"}
        for key in "ef":
            await copy(rig, "b", (await versions_of(rig, "b"))[0].version_id, key)
        named: set[bytes] = set()
        pages = 0
        async for page in inventory.blobs(rig.memory, None):  # type: ignore[arg-type]
            named |= {ref.blob for ref in page}
            pages += 1
            if pages == 1:
                await rename(rig, "d", "a")
                await reclaim_all(rig)
        assert named == made

    run(main)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32), st.sampled_from(["", ENABLED, SUSPENDED]), st.sampled_from([0.0, 0.2])
)
def test_whatever_races_an_object_is_never_lost_and_never_under_two_keys(
    seed: int, state: str, lost: float
) -> None:
    rig = Rig(seed, lost_answers=lost)
    choose = random.Random(seed)
    made: set[bytes] = set()

    async def step(metadata: Metadata) -> None:
        source, destination = choose.sample("abc", 2)
        what = choose.randrange(6)
        if what == 0:
            made.add((await put(rig, source, metadata=metadata)).group)
        elif what == 1:
            await delete(rig, source, metadata)
        else:
            await rename(rig, source, destination, metadata=metadata)

    async def client() -> None:
        metadata = rig.gateway()
        for _ in range(6):
            with contextlib.suppress(OutcomeUnknown, MetadataError):
                await step(metadata)

    async def main() -> None:
        rig.faulty.lost_answers = 0.0
        await ready(rig, state)
        for key in "ab":
            made.add((await put(rig, key)).group)
        rig.faulty.lost_answers = lost
        await asyncio.gather(*(client() for _ in range(4)))
        rig.faulty.lost_answers = 0.0
        space = dict(records(await everything(rig)))
        current = [r.group for key, r in space.items() if key.startswith(keys.OBJECTS)]
        assert len(current) == len(set(current)), "an object is under two keys"
        used = {record.group for record in space.values()}
        assert made <= used | set(await garbage(rig)), "a group leaked"
        wanted = {keys.reference(r.group, k) for k, r in space.items() if r.group_owner}
        assert await references(rig) == wanted
        if state:
            await check(rig)
        else:
            assert await reclaim_all(rig) & used == set()

    run(main)


def test_renames_and_conditional_writes_of_one_key_agree_on_one_winner() -> None:
    for seed in range(20):
        rig = Rig(seed)

        async def main(rig: Rig = rig) -> None:
            await ready(rig, "")
            await put(rig, "a")
            absent = WriteConditions(if_none_match=parse_etags("*"))
            renamed, _ = await asyncio.gather(
                rename(rig, "a", "b", metadata=rig.gateway()),
                put(rig, "b", metadata=rig.gateway(), conditions=absent),
                return_exceptions=True,
            )
            assert isinstance(renamed, ObjectRecord)
            _, found = await rig.metadata.lookup("bucket", "b", OWNER)
            assert found is not None
            assert msgspec.structs.replace(found.record) == renamed

    run(main)
