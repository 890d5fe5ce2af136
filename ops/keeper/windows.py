"""Write windows, as the garbage duty opens and closes them: see `gateway.metadata.windows`."""

from gateway.metadata import keys
from placement.clock import Clock
from placement.metastore.port import (
    Compare,
    DeleteRange,
    KeyValue,
    Metastore,
    Put,
    Range,
    Txn,
    absent,
    prefix_end,
    unchanged,
)

WINDOW_SECONDS = 60.0
"""A window is the newest for so long at least, and open for as long again. A commit that comes later
is refused, and its blob is stored anew."""


class Windows:
    """Those that are open, as last read. They move on only while somebody waits for it."""

    def __init__(self, metastore: Metastore, clock: Clock) -> None:
        self._metastore = metastore
        self._clock = clock
        self._open: tuple[KeyValue, ...] = ()
        self._seen_at = clock.monotonic()

    async def read(self) -> None:
        """What is open now."""
        found = await self._metastore.range(Range(keys.WINDOWS, prefix_end(keys.WINDOWS)))
        if found.kvs[-1:] != self._open[-1:]:
            self._seen_at = self._clock.monotonic()
        self._open = found.kvs

    def closed_since(self, revision: int) -> bool:
        """Whether every window that was open at that revision is closed now."""
        return bool(self._open) and self._open[0].create_revision > revision

    async def advance(self) -> None:
        """Open another one, if the newest was that for long enough; all but those two are closed."""
        if self._clock.monotonic() - self._seen_at < WINDOW_SECONDS:
            return
        number = 1
        relied: tuple[Compare, ...] = (absent(keys.WINDOWED),)
        if self._open:
            newest = self._open[-1]
            number = keys.window_number(newest.key) + 1
            relied = (unchanged(newest.key, newest.mod_revision),)
        closing = tuple(DeleteRange(kv.key) for kv in self._open[:-1])
        opening = [Put(keys.window(number), b"\x01")]
        if number == 1:
            opening.append(Put(keys.WINDOWED, b"\x01"))
        await self._metastore.txn(Txn((*relied, absent(keys.window(number))), (*opening, *closing)))
