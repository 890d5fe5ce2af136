"""How much garbage may wait for its collection, and what becomes of writes while more does. Pure.

What ends a version (an overwrite, a delete, a part that is replaced) queues an entry of garbage. While
clients end more than the keeper collects, or no keeper collects, those waiting grow in number, and with
them the metadata and the space that is not free again.
"""

ENTRIES_SLOWED = 1_000_000
"""From so many on, what would queue more is slowed down: longer, the more there are."""
ENTRIES_MAX = 2_000_000
"""More are refused. About 250 bytes of metadata each."""
DELAY_SECONDS_MAX = 1.0
"""Short against the time that a write has for its commit."""


def delay_seconds(waiting: int, slowed: int, most: int) -> float | None:
    """How long a commit is to wait that makes so many wait; None: it is to be refused."""
    if waiting > most:
        return None
    return DELAY_SECONDS_MAX * max(waiting - slowed, 0) / (most - slowed)
