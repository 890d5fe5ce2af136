"""From staged bytes to a committed record: commit, publish, and again where the rule allows it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.metadata.errors import GroupReclaimed, RelianceBroken
from gateway.metadata.records import BlobRef, Record, encode
from gateway.objects.errors import (
    NotEnoughDrives,
    PlacementChanged,
    ShardsLeftBehind,
    WriteFellShort,
)
from gateway.objects.port import Objects, Staged, Stored
from placement.errors import OutcomeUnknown

ATTEMPTS_MAX = 6

R = TypeVar("R", bound=Record)
T = TypeVar("T")


async def commit_blob(
    objects: Objects,
    staged: Staged,
    owner_key: bytes,
    build: Callable[[BlobRef], R],
    publish: Callable[[R, bytes, Stored], Awaitable[T]],
    *,
    along: bool = False,
) -> T:
    """Make the shards durable and publish the record that `build` makes of the blob.

    `publish(record, encoded record, stored)` runs the metadata transaction; with `along` it heeds
    `stored.carrier`. Where drives failed or the map changed meanwhile, the blob is staged anew (with
    another `BlobRef`) or its compares are renewed. On a refusal the blob is discarded; after an
    unknown outcome it is not.
    """
    stored: Stored | None = None
    publishing = False
    last: Exception | None = None
    try:
        for _ in range(ATTEMPTS_MAX):
            record = build(staged.ref)
            value = encode(record)
            try:
                if stored is None and along:
                    stored = objects.commit_along(staged, owner_key, value)
                if stored is None:
                    stored = await objects.commit(staged, owner_key, value)
                publishing = True
                published = await publish(record, value, stored)
                assert stored.carrier is None or stored.carrier.arrived, "shards were forgotten"
                return published
            except ShardsLeftBehind as error:
                last = error
                publishing, stored, along = False, None, False
            except (WriteFellShort, GroupReclaimed) as error:
                last = error
                publishing, stored = False, None
                staged = await objects.restage(staged)
            except RelianceBroken as error:
                last = error
                publishing = False
                if stored is None or error.key not in {c.key for c in stored.compares}:
                    raise
                try:
                    stored = await objects.renew(staged)
                except PlacementChanged:
                    stored = None
                    staged = await objects.restage(staged)
        raise NotEnoughDrives("drives failed again and again during the write") from last
    except OutcomeUnknown:
        raise
    except asyncio.CancelledError:
        if not publishing:
            await asyncio.shield(objects.discard(staged))
        raise
    except BaseException:
        await objects.discard(staged)
        raise
