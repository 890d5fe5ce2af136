"""Re-encoding: objects that were stored on too few drives get their full width back.

A write that found fewer than k + m live drives used a narrower scheme of the same m and queued its
record. When the drives are back, the object is stored again under the scheme that it was meant for.
"""

import logging
from dataclasses import dataclass

from gateway.metadata import keys
from gateway.metadata.entries import ObjectEntry
from gateway.metadata.records import ObjectRecord, decode
from gateway.objects.errors import NotEnoughDrives, ObjectsError
from ops.keeper.recoding import Recoding
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

log = logging.getLogger("ostraka.keeper.reencode")


@dataclass(slots=True)
class ReencodeProgress:
    """What the gauges show."""

    pending: int = 0
    done: int = 0


class Reencode:
    """The duty."""

    def __init__(self, metastore: Metastore, recoding: Recoding) -> None:
        self._metastore = metastore
        self._recoding = recoding
        self._after = keys.NARROW
        self._fitting = 0
        self._futile_with: int | None = None
        self.progress = ReencodeProgress()

    async def work(self) -> bool:
        """One page of the queue. True if there may be more to do at once. What cannot be done now
        stays queued, and is met again when the queue is gone through anew."""
        begin, self._after = self._after, keys.NARROW
        end = prefix_end(keys.NARROW)
        page = await self._metastore.range(Range(begin, end, limit=PAGE_ENTRIES))
        live = self._recoding.live_drives()
        if begin == keys.NARROW:
            self.progress.pending, self._fitting = page.count, 0
            if self._futile_with == live:
                return False  # nothing of the queue fits on so many drives
        for entry in page.kvs:
            try:
                await self._reencode(entry)
            except NotEnoughDrives as error:
                log.info("re-encoding waits: %s", error)  # drives went again meanwhile
                return False
            except ObjectsError as error:
                log.warning("%r stays as it is: %s", entry.key, error)
        if page.more:
            self._after = page.kvs[-1].key + b"\x00"
            return True
        self._futile_with = live if page.kvs and not self._fitting else None
        return False

    async def _reencode(self, entry: KeyValue) -> None:
        record_key = entry.key[len(keys.NARROW) :]
        (current,) = await self._metastore.get_many([record_key])
        settle = (unchanged(entry.key, entry.mod_revision),)
        if current is None:
            await self._metastore.txn(Txn(settle, (DeleteRange(entry.key),)))
            return
        record = decode(ObjectRecord, current.value)
        if not self._recoding.fits(self._recoding.scheme_of(record)):
            return
        self._fitting += 1
        found = ObjectEntry(record_key, record, current.mod_revision)
        self.progress.done += await self._recoding.store_again(found, record, settle)
