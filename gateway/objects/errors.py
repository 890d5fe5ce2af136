"""What can go wrong when blobs are written or read, each with what a caller can do about it."""


class ObjectsError(Exception):
    """Base of this package's errors."""


class NotEnoughDrives(ObjectsError):
    """Fewer drives took the blob than the least that may be acknowledged. Nothing was committed.
    The client may retry (503)."""


class WriteFellShort(NotEnoughDrives):
    """Drives failed during the write, but k shards are there: `Objects.restage` can copy the blob
    into a narrower scheme without the client."""


class ShardsLeftBehind(ObjectsError):
    """Not all shards could be stored, so the transaction that was to take them along was dropped.
    `Objects.commit` stores them elsewhere."""


class PlacementChanged(ObjectsError):
    """The cluster map changed so that the shards just written are not where readers will look.
    Write again under the new map (503 for the client when its body is gone)."""


class BlobDamaged(ObjectsError):
    """Fewer than k shards can be had. Read the record again, for the blob may have been replaced
    meanwhile; if it is still the one, the data are damaged beyond repair (500)."""


class BlobOutOfReach(BlobDamaged):
    """Fewer than k shards can be had now, but drives that may hold the others are away, late or
    still recovering. The client may retry (503)."""
