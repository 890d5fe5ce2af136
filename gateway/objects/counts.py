"""What a process counts about its blobs."""

from dataclasses import dataclass


@dataclass(slots=True)
class BlobCounts:
    """`degraded_reads`: blobs of which a shard could not be had where it was expected, so that
    others were read or computed in its place. `degraded_writes`: blobs stored with a drive left
    out, or under a narrower scheme."""

    degraded_reads: int = 0
    degraded_writes: int = 0
