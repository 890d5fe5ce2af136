"""How encrypted bytes are cut: blocks of a fixed size, each with a tag behind it. Pure.

A block with its tag is 64 KiB, so that a stripe of whole 64 KiB holds whole blocks and a range reads
only the stripes that it touches. The format is version 1 of `EncryptionEnvelope.cipher`.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

TAG_SIZE_BYTES: Final = 16
BLOCK_STORED_SIZE_BYTES: Final = 64 << 10
BLOCK_PLAIN_SIZE_BYTES: Final = BLOCK_STORED_SIZE_BYTES - TAG_SIZE_BYTES


class Block(NamedTuple):
    """One block as a range needs it: its number, its stored length, and of its plain bytes those
    from `skip`, `take` of them."""

    number: int
    stored_size_bytes: int
    skip: int
    take: int


def stored_size(plain_size_bytes: int) -> int:
    """Bytes that so many plain ones become."""
    blocks = -(-plain_size_bytes // BLOCK_PLAIN_SIZE_BYTES)
    return plain_size_bytes + blocks * TAG_SIZE_BYTES


def plain_size(stored_size_bytes: int) -> int:
    """The inverse of `stored_size`."""
    blocks = -(-stored_size_bytes // BLOCK_STORED_SIZE_BYTES)
    return stored_size_bytes - blocks * TAG_SIZE_BYTES


def stored_range(offset: int, length: int, stored_size_bytes: int) -> tuple[int, int]:
    """Offset and length of the stored bytes that hold [offset, offset + length) of the plain ones;
    `length` > 0."""
    first = offset // BLOCK_PLAIN_SIZE_BYTES
    last = (offset + length - 1) // BLOCK_PLAIN_SIZE_BYTES
    start = first * BLOCK_STORED_SIZE_BYTES
    end = min((last + 1) * BLOCK_STORED_SIZE_BYTES, stored_size_bytes)
    return start, end - start


def blocks_of(offset: int, length: int, stored_size_bytes: int) -> Iterator[Block]:
    """The blocks of that range in order."""
    end = offset + length
    while offset < end:
        number, skip = divmod(offset, BLOCK_PLAIN_SIZE_BYTES)
        stored = min(BLOCK_STORED_SIZE_BYTES, stored_size_bytes - number * BLOCK_STORED_SIZE_BYTES)
        take = min(stored - TAG_SIZE_BYTES - skip, end - offset)
        assert take > 0, "the range goes beyond the stored bytes"
        yield Block(number, stored, skip, take)
        offset += take
