"""Room kept back for the embedded metadata, so that a full disk does not keep it from starting and
from deleting.

A file beside the database holds some space. It is given up when nothing else is free: what is freed
then serves transactions that delete, and nothing else, until there is plenty of space again.
"""

import contextlib
import logging
import os

from placement.metastore.port import DeleteRange, Txn

_log = logging.getLogger(__name__)

RESERVE_SIZE_BYTES = 4 << 20
SCARCE_SIZE_BYTES = 1 << 20
"""With less free than this the reserve is given up."""
PLENTY_SIZE_BYTES = 32 << 20
"""With so much free it is made, and all transactions are taken again."""


class SpaceReserve:
    """The reserve of one database file. On filesystems that compress zeros it holds little."""

    def __init__(self, database: str) -> None:
        self._path = database + ".reserve"
        self._folder = os.path.dirname(os.path.abspath(database))

    @property
    def held(self) -> bool:
        """Whether it is there, whole."""
        try:
            return os.stat(self._path).st_size >= RESERVE_SIZE_BYTES
        except OSError:
            return False

    def free_bytes(self) -> int:
        """What is free beside it. Raises OSError."""
        facts = os.statvfs(self._folder)
        return facts.f_bavail * facts.f_frsize

    def release(self) -> None:
        """Give its space up."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
            _log.warning("the reserve of the metadata's disk was given up: only deletes are taken")

    def make(self, room_bytes: int = PLENTY_SIZE_BYTES) -> None:
        """Hold it again, if so much is free. A disk that refuses leaves us without, which is no
        error."""
        try:
            if self.held or self.free_bytes() < room_bytes:
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_SIZE_BYTES)
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.info("no reserve can be made: %s", error)
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def frees(txn: Txn) -> bool:
    """Whether it may delete: then it leads to more space, whatever it writes on the way."""
    return any(
        isinstance(operation, DeleteRange) or (isinstance(operation, Txn) and frees(operation))
        for operation in txn.success
    )
