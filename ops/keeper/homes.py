"""Which shards of a blob go home together: pure."""

from collections.abc import Collection, Mapping

from placement.ids import DriveId

Held = Mapping[int, Collection[DriveId]]
"""The drives on which shards lie, by index."""


def homebound(held: Held, homes: Mapping[int, DriveId]) -> list[int]:
    """The indexes that can lie at home, nowhere else, and each alone on its drive.

    `homes` are those that take writes, or hold their shard already. Whatever else lies at a shard's home must leave it, and so go
    home too, and so on: a chain up to a free drive, shards in each other's places, second shards that
    a drive brought back. Once all these indexes are stored at home, beside what is there, every other
    shard of theirs can go. An index is left out when another lies at its home that has none, or that
    is left out itself.
    """
    able = {index for index, drives in held.items() if drives and index in homes}
    while True:
        at = {drive for index, drives in held.items() if index not in able for drive in drives}
        barred = {index for index in able if homes[index] in at}
        if not barred:
            return sorted(able)
        able -= barred
