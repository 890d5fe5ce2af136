"""Uploads that were completed are forgotten after an hour; completions that were cut off are undone.

Ages are counted on this process's monotonic clock, from when it first saw an upload as it is: the
clocks on the wall of the gateways that completed them may be wrong by more than that hour.
"""

from gateway.metadata import uploads
from gateway.metadata.uploads import UploadEntry
from placement.clock import Clock
from placement.metastore.port import Metastore


class EndedUploads:
    """The duty. It remembers one number for each upload that was completed within the last hour."""

    def __init__(self, metastore: Metastore, clock: Clock) -> None:
        self._metastore = metastore
        self._clock = clock
        self._seen: dict[tuple[bytes, int], float] = {}

    async def work(self) -> None:
        """Walk over all uploads once."""
        now = self._clock.monotonic()
        seen: dict[tuple[bytes, int], float] = {}

        def age_ms(entry: UploadEntry) -> int:
            as_it_is = (entry.key, entry.mod_revision)
            since = seen[as_it_is] = self._seen.get(as_it_is, now)
            return int((now - since) * 1000)

        await uploads.tidy(self._metastore, age_ms)
        self._seen = seen  # those that changed or went are forgotten with it
