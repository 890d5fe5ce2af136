"""Whether the next key that is written to a bucket is likely a new one. Pure.

Who writes many objects mostly writes new ones, or mostly overwrites. After enough new keys in a row the
next one is presumed new: its write then asks the metadata nothing before its commit, which compares
that the key is absent.
"""

ENOUGH_IN_A_ROW = 8
"""A write that presumed wrongly is carried out twice; one that presumes saves a read. With so many
new keys in a row, mixed writes seldom presume."""
ENOUGH_WHERE_READS_ARE_CHEAP = 64
"""The same where the read is a look into a file of this machine: it costs about a twentieth of a write,
so a guess pays only where it is wrong less often than that."""
BUCKETS_MAX = 10_000


class Newness:
    """Counts, for each bucket, the new keys since the last overwrite."""

    def __init__(self, enough: int = ENOUGH_IN_A_ROW) -> None:
        self.enough = enough
        self._in_a_row: dict[bytes, int] = {}

    def expects(self, bucket_id: bytes) -> bool:
        """Whether to presume that a key is new."""
        return self._in_a_row.get(bucket_id, 0) >= self.enough

    def saw(self, bucket_id: bytes, *, new: bool) -> None:
        """A write found its key absent, or not."""
        counts = self._in_a_row
        if not new:
            counts.pop(bucket_id, None)
            return
        count = counts.get(bucket_id, 0)
        if count < self.enough:
            if not count and len(counts) >= BUCKETS_MAX:
                del counts[next(iter(counts))]
            counts[bucket_id] = count + 1
