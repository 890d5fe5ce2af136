"""Encrypted bodies and streams: any cut gives the same bytes, and no changed byte comes through."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.ciphertext import (
    BLOCK_PLAIN_SIZE_BYTES,
    BLOCK_STORED_SIZE_BYTES,
    blocks_of,
    plain_size,
    stored_range,
    stored_size,
)
from gateway.metadata.records import BlobRef
from gateway.objects.encrypted import (
    BlobCipher,
    EncryptedPiece,
    EncryptingBody,
    read_encrypted,
)
from gateway.objects.errors import BlobDamaged
from gateway.objects.reader import BlobStream
from gateway.s3.checksums import Digests
from gateway.s3.message import Buffer, Stream

P, S = BLOCK_PLAIN_SIZE_BYTES, BLOCK_STORED_SIZE_BYTES
EDGES = [0, 1, P - 1, P, P + 1, 2 * P, 16 * P - 1, 16 * P, 16 * P + 1, 33 * P + 5]
KEY = b"d" * 32


def plain(size: int) -> bytes:
    return (b"0123456789abcdefghijklmnopqrstuvwxyz!" * (size // 37 + 1))[:size]


class Plain:
    """A body in memory."""

    def __init__(self, data: bytes) -> None:
        self.size_bytes = len(data)
        self.trailers: dict[str, str] = {}
        self._rest = memoryview(data)

    async def read_into(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    async def read_all(self, limit_bytes: int) -> bytes:
        return bytes(self._rest)


async def sealed(data: bytes, cipher: BlobCipher, step: int) -> tuple[bytes, Digests]:
    """The ciphertext, read `step` bytes at a time."""
    digests = Digests()
    body = EncryptingBody(Plain(data), cipher, digests)
    whole, buffer = b"", memoryview(bytearray(step))
    while True:
        count = await body.read_into(buffer)
        whole += buffer[:count]
        if count < step:
            assert await body.read_into(buffer) == 0
            assert len(whole) == body.size_bytes
            return whole, digests


class Blobs:
    """Reads of one stored blob, in groups of buffers of `step` bytes."""

    def __init__(self, stored: bytes, step: int) -> None:
        self._stored, self._step = stored, step

    async def read(self, pieces: Sequence[tuple[BlobRef, int, int]]) -> Stream:
        return BlobStream(0, (), self._groups(pieces))

    async def _groups(
        self, pieces: Sequence[tuple[BlobRef, int, int]]
    ) -> AsyncIterator[Sequence[Buffer]]:
        for _, offset, length in pieces:
            piece = memoryview(self._stored)[offset : offset + length]
            cut = [piece[at : at + self._step] for at in range(0, len(piece), self._step)]
            for at in range(0, len(cut), 3):
                yield cut[at : at + 3]


def ref(size: int) -> BlobRef:
    return BlobRef(blob=b"b" * 16, k=1, m=0, stripe_size_bytes=1 << 20, size_bytes=size)


async def opened(stored: bytes, cipher: BlobCipher, offset: int, length: int, step: int) -> bytes:
    pieces = [EncryptedPiece(ref(len(stored)), cipher, offset, length)]
    stream = await read_encrypted(Blobs(stored, step), pieces)  # type: ignore[arg-type]
    assert stream.size_bytes == length
    return b"".join([bytes(part) async for group in stream.chunks() for part in group])


@given(st.one_of(st.integers(0, 1 << 40), st.sampled_from(EDGES)))
def test_sizes_are_each_others_inverse(size: int) -> None:
    assert plain_size(stored_size(size)) == size


@given(st.data())
def test_the_blocks_of_a_range_cover_it_and_nothing_else(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 5 * P))
    offset = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(1, size - offset))
    blocks = list(blocks_of(offset, length, stored_size(size)))
    assert sum(block.take for block in blocks) == length
    assert blocks[0].number * P + blocks[0].skip == offset
    assert all(block.skip == 0 for block in blocks[1:])
    start, stored_length = stored_range(offset, length, stored_size(size))
    assert start == blocks[0].number * S
    assert sum(block.stored_size_bytes for block in blocks) == stored_length


@pytest.mark.parametrize("step", [1 << 20, 1000, S, S + 1, 17 * S])
@pytest.mark.parametrize("size", EDGES)
def test_a_body_is_the_same_however_it_is_read(size: int, step: int) -> None:
    data = plain(size)
    whole, digests = asyncio.run(sealed(data, BlobCipher(KEY, b"s"), step))
    assert whole == BlobCipher(KEY, b"s").seal_all(data)
    assert BlobCipher(KEY, b"s").open_all(whole) == data
    once = Digests()
    once.update(data)
    assert digests.md5 == once.md5


@pytest.mark.parametrize("step", [1 << 20, 1000, S, 87_382])
def test_ranges_are_opened_wherever_the_store_cuts(step: int) -> None:
    async def scenario() -> None:
        data, cipher = plain(5 * P + 77), BlobCipher(KEY, b"")
        stored = cipher.seal_all(data)
        for offset in (0, 1, P - 1, P, 3 * P + 5, len(data) - 1):
            for length in (1, 2, P, 2 * P + 1, len(data)):
                end = min(offset + length, len(data))
                found = await opened(stored, cipher, offset, end - offset, step)
                assert found == data[offset:end]

    asyncio.run(scenario())


def test_parts_follow_each_other() -> None:
    async def scenario() -> None:
        first, second = BlobCipher(KEY, b"1"), BlobCipher(KEY, b"2")
        data = plain(P + 9)
        stored = first.seal_all(data) + second.seal_all(data)
        half = len(stored) // 2

        class Two(Blobs):
            async def read(self, pieces: Sequence[tuple[BlobRef, int, int]]) -> Stream:
                shifted = [
                    (which, offset + (half if which.blob == b"2" * 16 else 0), length)
                    for which, offset, length in pieces
                ]
                return await super().read(shifted)

        refs = [
            BlobRef(blob=name * 16, k=1, m=0, stripe_size_bytes=1 << 20, size_bytes=half)
            for name in (b"1", b"2")
        ]
        pieces = [
            EncryptedPiece(refs[0], first, 5, len(data) - 5),
            EncryptedPiece(refs[0], first, 3, 0),
            EncryptedPiece(refs[1], second, 0, P + 2),
        ]
        stream = await read_encrypted(Two(stored, 50_000), pieces)  # type: ignore[arg-type]
        found = b"".join([bytes(part) async for group in stream.chunks() for part in group])
        assert found == data[5:] + data[: P + 2]

    asyncio.run(scenario())


def test_no_block_stands_in_anothers_place() -> None:
    cipher, data = BlobCipher(KEY, b"a"), plain(3 * P)
    stored = cipher.seal_all(data)
    swapped = stored[S : 2 * S] + stored[:S] + stored[2 * S :]
    flipped = bytes([stored[0] ^ 1]) + stored[1:]
    for wrong in (swapped, flipped, stored[: 2 * S] + stored[2 * S : -1]):
        with pytest.raises(BlobDamaged):
            cipher.open_all(wrong)
    for other in (BlobCipher(KEY, b"b"), BlobCipher(b"e" * 32, b"a")):
        with pytest.raises(BlobDamaged):
            other.open_all(stored)


@pytest.mark.parametrize("missing", [1, S, S + 1])
def test_a_stream_that_ends_early_is_damage(missing: int) -> None:
    cipher = BlobCipher(KEY, b"")
    stored = cipher.seal_all(plain(3 * P))

    async def scenario() -> None:
        pieces = [EncryptedPiece(ref(len(stored)), cipher, 0, 3 * P)]
        stream = await read_encrypted(Blobs(stored[:-missing], 1000), pieces)  # type: ignore[arg-type]
        async for _ in stream.chunks():
            pass

    with pytest.raises(BlobDamaged):
        asyncio.run(scenario())
