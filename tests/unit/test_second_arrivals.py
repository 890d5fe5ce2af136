"""Of two sendings of a transaction the late one does no harm, whatever became of the other."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from gateway.domain.versions import ENABLED, SUSPENDED
from gateway.metadata import groups, keys
from gateway.metadata.records import ObjectRecord
from gateway.metadata.renames import Rename
from placement.errors import OutcomeUnknown
from placement.metastore.port import DeleteRange, Put, Txn, TxnResult, prefix_end
from tests.unit.metadata_doubles import OWNER, Rig, stored

Step = Callable[[Rig], Awaitable[None]]


async def set_versioning(rig: Rig, state: str) -> None:
    await rig.metadata.change_bucket(
        "bucket", OWNER, lambda record: msgspec.structs.replace(record, versioning=state)
    )


async def put(rig: Rig, key: str = "k") -> None:
    record = rig.record()
    entry, previous = await rig.metadata.lookup("bucket", key, OWNER)
    await rig.metadata.commits.commit(
        entry, entry.object_key(key), record, stored=stored(record), previous=previous
    )


async def copy(rig: Rig) -> None:
    """Of what is at "source"."""
    entry, source = await rig.metadata.lookup("bucket", "source", OWNER)
    assert source is not None
    owner = groups.group_owner_of_copy(
        source.record_key, source.record, entry.object_key("k"), None
    )
    record: ObjectRecord = msgspec.structs.replace(
        source.record, commit_id=rig.randomness.token(8), group_owner=owner
    )
    await rig.metadata.commits.commit(
        entry, entry.object_key("k"), record, previous=None, source=source
    )


async def delete(rig: Rig) -> None:
    entry, previous = await rig.metadata.lookup("bucket", "k", OWNER)
    await rig.metadata.commits.delete(entry, entry.object_key("k"), previous=previous)


async def delete_version(rig: Rig) -> None:
    """The only one."""
    entry, found = await rig.metadata.lookup("bucket", "k", OWNER)
    assert found is not None
    await rig.metadata.versions.delete_version(entry, "k", found.record.version_id)


async def rename(rig: Rig) -> None:
    entry = await rig.metadata.bucket("bucket", OWNER)
    await rig.metadata.renames.run(
        entry,
        Rename(
            entry.object_key("k"),
            entry.object_key("elsewhere"),
            rig.randomness.token(8),
            lambda *_: None,
            lambda *_: None,
        ),
    )


@pytest.mark.parametrize("bring", [put, copy])
@pytest.mark.parametrize(
    ("versioning", "end"),
    [(state, end) for state in ("", ENABLED, SUSPENDED) for end in (delete, rename)]
    + [(state, delete_version) for state in (ENABLED, SUSPENDED)],
)
def test_an_object_that_has_ended_does_not_come_back(
    versioning: str, bring: Step, end: Step
) -> None:
    async def main() -> None:
        rig = Rig()
        await rig.ready()
        await set_versioning(rig, versioning)
        await put(rig, "source")
        await bring(rig)
        brought = rig.faulty.transactions[-1]
        await end(rig)
        assert not (await rig.memory.txn(brought)).succeeded
        _, found = await rig.metadata.lookup("bucket", "k", OWNER)
        assert found is None

    asyncio.run(main())


def test_a_copy_that_has_ended_does_not_come_back_when_its_end_is_forgotten() -> None:
    async def main() -> None:
        rig = Rig()
        await rig.ready()
        await put(rig, "source")
        await copy(rig)
        brought = rig.faulty.transactions[-1]
        await delete(rig)
        await rig.memory.txn(
            Txn(
                (),
                (
                    Put(keys.WINDOWED, b""),
                    Put(keys.window(1), b""),
                    DeleteRange(keys.GARBAGE, prefix_end(keys.GARBAGE)),
                ),
            )
        )
        assert not (await rig.memory.txn(brought)).succeeded
        await copy(rig)  # asked for anew it is another one
        _, found = await rig.metadata.lookup("bucket", "k", OWNER)
        assert found is not None

    asyncio.run(main())


@pytest.mark.parametrize("versioning", ["", ENABLED])
def test_nobody_hears_of_a_refusal_that_cannot_be_looked_into_after_a_lost_answer(
    versioning: str,
) -> None:
    """What was not carried out, as far as is known, has its shards discarded."""

    async def main() -> None:
        rig = Rig()
        await rig.ready()
        await set_versioning(rig, versioning)
        apply = rig.faulty.txn

        async def applied_and_lost(txn: Txn) -> TxnResult:
            result = await apply(txn)
            if result.succeeded:
                raise OutcomeUnknown("the answer was lost")
            rig.faulty.unreachable = True  # after it has said that its compares are broken
            return result

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rig.faulty, "txn", applied_and_lost)
            with pytest.raises(OutcomeUnknown):
                await put(rig)

    asyncio.run(main())
