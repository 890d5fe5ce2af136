"""What the keeper counts and publishes takes the place of what was found there, and of nothing that counts
later changes: a keeper that led before, or a transaction of its that comes late, would leave a figure
that nobody mends until what is counted changes again.
"""

from collections.abc import Iterable
from typing import NamedTuple

from gateway.metadata.limit_records import GarbageWaiting, UsageRecord
from gateway.metadata.records import RecordError, decode, encode
from placement.metastore.port import KeyValue, Metastore, Put, Txn, unchanged

Count = UsageRecord | GarbageWaiting


class Publication(NamedTuple):
    """A count for that key, where that was `found`."""

    key: bytes
    found: KeyValue | None
    counted: Count


async def publish(metastore: Metastore, publications: Iterable[Publication]) -> bool:
    """All or none. False when something else is there by now. Raises MetastoreUnavailable."""
    compares, puts = [], []
    for key, found, counted in publications:
        assert counted_to(type(counted), found) <= counted.revision
        compares.append(unchanged(key, 0 if found is None else found.mod_revision))
        puts.append(Put(key, encode(counted)))
    return (await metastore.txn(Txn(tuple(compares), tuple(puts)))).succeeded


def counted_to(kind: type[Count], found: KeyValue | None) -> int:
    """The revision up to which changes are in what was published; 0 for what cannot be of this
    history of revisions (metadata that was rebuilt or moved counts its own), or cannot be read."""
    if found is None:
        return 0
    try:
        revision = decode(kind, found.value).revision
    except RecordError:
        return 0
    return revision if revision < found.mod_revision else 0
