"""Re-encoding: objects that were stored on too few drives get their full width back.

A write that found fewer than k + m live drives used a narrower scheme of the same m and queued its
record. When the drives are back, the object is stored again under the scheme that it was meant for.
"""

import logging
from dataclasses import dataclass

from gateway.metadata import keys
from gateway.metadata.entries import ObjectEntry
from gateway.metadata.records import ObjectRecord, RecordError, decode
from gateway.objects.errors import NotEnoughDrives, ObjectsError
from ops.keeper.recoding import Recoding
from placement.clock import Clock
from placement.metastore.port import (
    DeleteRange,
    KeyValue,
    Metastore,
    Range,
    Txn,
    prefix_end,
    unchanged,
)

PAGE_ENTRIES = 100
FUTILE_SECONDS = 60.0
"""Where nothing of the queue fits on the drives that there are, it is gone through again after so long,
or with other drives: what was queued since may fit, or what the map asks for by now."""

log = logging.getLogger("ostraka.keeper.reencode")


@dataclass(slots=True)
class ReencodeProgress:
    """What the gauges show."""

    pending: int = 0
    done: int = 0


@dataclass(slots=True)
class _Walk:
    """Once through the queue, as far as it has come. Every entry is held against the drives that took
    writes when it began: what is found of some must not be believed of others."""

    live: int
    after: bytes = keys.NARROW
    fitting: int = 0
    waiting: int = 0


class Reencode:
    """The duty."""

    def __init__(self, metastore: Metastore, recoding: Recoding, clock: Clock) -> None:
        self._metastore = metastore
        self._recoding = recoding
        self._clock = clock
        self._walk: _Walk | None = None
        self._futile_with: int | None = None
        self._futile_since = 0.0
        self.progress = ReencodeProgress()

    async def work(self) -> bool:
        """One page of the queue. True if there may be more to do at once. What cannot be done now
        stays queued, and is met again when the queue is gone through anew."""
        walk = self._walk or _Walk(self._recoding.live_drives())
        end = prefix_end(keys.NARROW)
        page = await self._metastore.range(Range(walk.after, end, limit=PAGE_ENTRIES))
        if self._walk is None:
            self.progress.pending = page.count
            if self._is_futile(walk.live):
                return False
            self._walk = walk
        for entry in page.kvs:
            # Whatever comes of this one, the others have their turn before it is met again.
            walk.after = entry.key + b"\x00"
            try:
                await self._reencode(entry, walk)
            except NotEnoughDrives as error:
                log.info("re-encoding waits: %s", error)  # drives went again meanwhile
                return False
            except (ObjectsError, RecordError) as error:
                log.warning("%r stays as it is: %s", entry.key, error)
        if page.more:
            return True
        self._walk = None
        self._futile_with = walk.live if walk.waiting and not walk.fitting else None
        self._futile_since = self._clock.monotonic()
        return False

    def _is_futile(self, live: int) -> bool:
        """Nothing fitted on so many drives, a moment ago."""
        age = self._clock.monotonic() - self._futile_since
        return self._futile_with == live and age < FUTILE_SECONDS

    async def _reencode(self, entry: KeyValue, walk: _Walk) -> None:
        record_key = entry.key[len(keys.NARROW) :]
        (current,) = await self._metastore.get_many([record_key])
        settle = (unchanged(entry.key, entry.mod_revision),)
        record = None if current is None else decode(ObjectRecord, current.value)
        if current is None or record is None or record.delete_marker:
            await self._metastore.txn(Txn(settle, (DeleteRange(entry.key),)))
            return
        scheme = self._recoding.scheme_of(record)
        if scheme.width > walk.live:
            walk.waiting += 1
            return
        walk.fitting += 1
        if not self._recoding.fits(scheme):
            return
        found = ObjectEntry(record_key, record, current.mod_revision)
        self.progress.done += await self._recoding.store_again(found, record, settle)
