"""What can go wrong in placement and metadata, each with what a caller can do about it."""


class PlacementError(Exception):
    """Base of this package's errors."""


class CodingError(PlacementError):
    """Fragments cannot be encoded or decoded: too few, or of the wrong size. A bug or lost data."""


class MetastoreUnavailable(PlacementError):
    """The metadata store did not answer in time or at all. Nothing is known to have been applied
    (reads) or the request was never sent (writes). Retry later."""


class MetastoreFull(MetastoreUnavailable):
    """The metadata store has no space left and takes no writes until an operator makes room; reads
    go on. Nothing was applied."""


class MetastoreDenied(MetastoreUnavailable):
    """The metadata store refuses our user, password or certificate. An operator must look."""


class OutcomeUnknown(MetastoreUnavailable):
    """A transaction was sent and its answer lost: it may or may not have been applied. Only the
    identical transaction may be retried, or its effect read back."""


class Compacted(PlacementError):
    """The revision asked for is older than the kept history. Read the present state instead.

    `revision` is the oldest one still available.
    """

    def __init__(self, revision: int) -> None:
        super().__init__(f"revision is compacted; the oldest kept is {revision}")
        self.revision = revision


class RequestTooLarge(PlacementError):
    """A transaction is beyond the store's limits: 128 operations a level, 1.5 MiB in all."""


class DuplicateKey(PlacementError):
    """A transaction puts one key twice. Nothing was applied."""


class LeaseNotFound(PlacementError):
    """The lease has expired or was revoked; what was attached to it is gone."""


class ProtocolError(PlacementError):
    """A peer broke the framing or speaks no common version. The connection is closed."""


class PeerUnavailable(PlacementError):
    """The peer cannot be reached, closed the connection, or missed the deadline."""
