"""What wraps the data keys of objects: a key service, known by this port alone."""

from typing import NamedTuple, Protocol

DATA_KEY_SIZE_BYTES = 32


class KeyServiceError(Exception):
    """Base of what key services refuse."""


class KeyNotFound(KeyServiceError):
    """No master key of that id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"Key '{key_id}' does not exist")
        self.key_id = key_id


class KeyExists(KeyServiceError):
    """A master key of that id exists."""


class KeyIdInvalid(KeyServiceError):
    """Not the form of a master key's id."""


class KeyUnusable(KeyServiceError):
    """A wrapped data key does not open: another master key or context, or damage."""


class KeyServiceDenied(KeyServiceError):
    """The service does not let this store use that master key."""


class KeyServiceUnavailable(KeyServiceError):
    """The service cannot be reached or does not answer in time. Try again."""


class DataKey(NamedTuple):
    """A fresh key of one object, and its wrapped form."""

    key: bytes
    wrapped: bytes

    def __repr__(self) -> str:
        return "DataKey(…)"


class KeyService(Protocol):
    """Wraps under named master keys. `context` is bound to what is wrapped: it opens with the same
    one only. Raises `KeyNotFound`, `KeyUnusable`, `KeyServiceUnavailable`."""

    async def new_data_key(self, key_id: str, context: bytes) -> DataKey:
        """A random key of 32 bytes, wrapped under the newest version of the master key."""
        ...

    async def open_data_key(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """The data key; wrapped under any version of the master key that there was."""
        ...
