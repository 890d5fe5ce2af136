"""Encrypted blobs: bodies that become ciphertext on their way in, streams that are opened on their
way out.

The store below sees ciphertext only, so repair, re-encoding and copies need no key. Every blob has a
key of its own, derived from the object's data key and the blob's salt; the number of a block is its
nonce, so that no block can stand in another's place or another blob's. AES-GCM of one block takes
some ten microseconds and holds the interpreter, so it is done in place; hashing has threads.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.domain.ciphertext import (
    BLOCK_PLAIN_SIZE_BYTES,
    BLOCK_STORED_SIZE_BYTES,
    TAG_SIZE_BYTES,
    Block,
    blocks_of,
    plain_size,
    stored_range,
    stored_size,
)
from gateway.metadata.records import BlobRef
from gateway.objects.errors import BlobDamaged
from gateway.objects.port import Hashing, Objects, Staged
from gateway.objects.reader import BlobStream
from gateway.objects.staging import MEMORY_SIZE_BYTES_MAX
from gateway.s3.message import Body, Buffer, Stream
from placement.ids import GroupId
from placement.schemes import Scheme

SALT_SIZE_BYTES = 16
INLINE_SIZE_BYTES_MAX = 256 << 10
"""Bodies up to this size are hashed on the event loop."""
_SCRATCH_BLOCKS = 16
_LABEL = b"ostraka blob v1\x00"


class BlobCipher:
    """AES-256-GCM of one blob's blocks. Only one body may ever be encrypted with it."""

    def __init__(self, data_key: bytes, salt: bytes) -> None:
        self._aead = AESGCM(hmac.digest(data_key, _LABEL + salt, "sha256"))

    def seal(self, number: int, plain: Buffer) -> bytes:
        """Ciphertext and tag of a block."""
        return self._aead.encrypt(number.to_bytes(12, "big"), plain, _LABEL)

    def seal_into(self, number: int, plain: Buffer, stored: memoryview) -> None:
        """The same, in place."""
        self._aead.encrypt_into(number.to_bytes(12, "big"), plain, _LABEL, stored)

    def open(self, number: int, stored: Buffer) -> bytes:
        """The plain block. Raises BlobDamaged."""
        try:
            return self._aead.decrypt(number.to_bytes(12, "big"), stored, _LABEL)
        except InvalidTag as error:
            raise _damaged(number) from error

    def open_into(self, number: int, stored: Buffer, room: memoryview) -> None:
        """The same, into the start of a buffer."""
        room = room[: len(stored) - TAG_SIZE_BYTES]
        try:
            self._aead.decrypt_into(number.to_bytes(12, "big"), stored, _LABEL, room)
        except InvalidTag as error:
            raise _damaged(number) from error

    def seal_all(self, data: bytes) -> bytes:
        """A whole small body."""
        if len(data) <= BLOCK_PLAIN_SIZE_BYTES:
            return self.seal(0, data) if data else b""
        view, size = memoryview(data), BLOCK_PLAIN_SIZE_BYTES
        starts = range(0, len(data), size)
        return b"".join(self.seal(n, view[at : at + size]) for n, at in enumerate(starts))

    def open_all(self, stored: bytes) -> bytes:
        """A whole small blob. Raises BlobDamaged."""
        if len(stored) <= BLOCK_STORED_SIZE_BYTES:
            return self.open(0, stored) if stored else b""
        view, size = memoryview(stored), BLOCK_STORED_SIZE_BYTES
        starts = range(0, len(stored), size)
        return b"".join(self.open(n, view[at : at + size]) for n, at in enumerate(starts))


def _damaged(number: int) -> BlobDamaged:
    return BlobDamaged(f"block {number} of an encrypted blob is not what was stored")


# Writing


async def stage_encrypted(
    objects: Objects,
    body: Body,
    size_bytes: int,
    digests: Hashing,
    cipher: BlobCipher,
    *,
    group: GroupId | None = None,
    scheme: Scheme | None = None,
) -> Staged:
    """As `Objects.stage`; the digests are of the plain bytes."""
    stored = stored_size(size_bytes)
    if stored <= MEMORY_SIZE_BYTES_MAX:
        data = await body.read_all(size_bytes)
        await _hash_small(digests, data)
        return await objects.stage_bytes(cipher.seal_all(data), group=group, scheme=scheme)
    sealing = EncryptingBody(body, cipher, digests)
    return await objects.stage(sealing, stored, _NoHashing(), group=group, scheme=scheme)


async def stage_encrypted_to_end(
    objects: Objects,
    body: Body,
    size_bytes_max: int,
    digests: Hashing,
    cipher: BlobCipher,
    *,
    scheme: Scheme | None = None,
) -> Staged:
    """As `Objects.stage_to_end`."""
    sealing = EncryptingBody(body, cipher, digests)
    size_bytes = stored_size(size_bytes_max)
    return await objects.stage_to_end(sealing, size_bytes, _NoHashing(), scheme=scheme)


async def _hash_small(digests: Hashing, data: bytes) -> None:
    def both() -> None:
        view = memoryview(data)
        digests.update_md5(view)
        digests.update_rest(view)

    if len(data) <= INLINE_SIZE_BYTES_MAX:
        both()
    else:
        await asyncio.get_running_loop().run_in_executor(None, both)


class EncryptingBody:
    """A `Body` of ciphertext over a plain one, which is hashed on the way.

    While one piece is hashed in threads the next one is received: two pieces of 1 MiB at most, made
    when the first is read. `digests` are complete once the end was read.
    """

    def __init__(self, body: Body, cipher: BlobCipher, digests: Hashing) -> None:
        self.size_bytes = stored_size(body.size_bytes)
        self._body = body
        self._cipher = cipher
        self._digests = digests
        self._number = 0
        self._ended = False
        self._spill = memoryview(b"")
        self._scratches: list[memoryview] = []
        self._hashing: tuple[asyncio.Future[None], ...] = ()

    @property
    def trailers(self) -> dict[str, str]:
        """Those of the plain body."""
        return self._body.trailers

    async def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer with ciphertext; fewer bytes only at the end."""
        filled = self._take_spill(buffer)
        while filled < len(buffer) and not self._ended:
            blocks = (len(buffer) - filled) // BLOCK_STORED_SIZE_BYTES
            plain = await self._receive(min(max(blocks, 1), _SCRATCH_BLOCKS))
            for start in range(0, len(plain), BLOCK_PLAIN_SIZE_BYTES):
                piece = plain[start : start + BLOCK_PLAIN_SIZE_BYTES]
                end = filled + len(piece) + TAG_SIZE_BYTES
                if end <= len(buffer):
                    self._cipher.seal_into(self._number, piece, buffer[filled:end])
                    filled = end
                else:
                    self._spill = memoryview(self._cipher.seal(self._number, piece))
                    filled += self._take_spill(buffer[filled:])
                self._number += 1
        if self._ended:
            await self._settle()
        return filled

    def _take_spill(self, buffer: memoryview) -> int:
        taken = min(len(self._spill), len(buffer))
        buffer[:taken] = self._spill[:taken]
        self._spill = self._spill[taken:]
        return taken

    async def _receive(self, blocks: int) -> memoryview:
        """The next whole blocks of the plain body, on their way into the digests."""
        if len(self._scratches) < 2:
            size = _SCRATCH_BLOCKS * BLOCK_PLAIN_SIZE_BYTES
            scratch = memoryview(bytearray(size))
        else:
            scratch = self._scratches.pop(0)
        self._scratches.append(scratch)
        wanted = blocks * BLOCK_PLAIN_SIZE_BYTES
        got = await self._body.read_into(scratch[:wanted])
        self._ended = got < wanted
        plain = scratch[:got]
        await self._settle()
        if got:
            loop = asyncio.get_running_loop()
            self._hashing = (
                loop.run_in_executor(None, self._digests.update_md5, plain),
                loop.run_in_executor(None, self._digests.update_rest, plain),
            )
        return plain

    async def _settle(self) -> None:
        """Wait for what is being hashed."""
        hashing, self._hashing = self._hashing, ()
        for future in hashing:
            await future

    async def read_all(self, limit_bytes: int) -> bytes:
        """The whole of it, which the caller knows to fit."""
        data = bytearray(min(self.size_bytes, limit_bytes) + 1)
        filled = await self.read_into(memoryview(data))
        return bytes(memoryview(data)[:filled])


class _NoHashing:
    """The digests are of the plain bytes, and those are hashed above."""

    def update_md5(self, buffer: memoryview) -> None:
        """Nothing to feed."""

    def update_rest(self, buffer: memoryview) -> None:
        """Nothing to feed."""


# Reading


class EncryptedPiece(NamedTuple):
    """[offset, offset + length) of the plain bytes of a blob."""

    ref: BlobRef
    cipher: BlobCipher
    offset: int
    length: int


async def read_encrypted(objects: Objects, pieces: Sequence[EncryptedPiece]) -> Stream:
    """As `Objects.read`, of plain bytes: the first group is opened when this returns. Raises
    BlobDamaged."""
    pieces = [piece for piece in pieces if piece.length]
    if not pieces:
        return BlobStream.of(b"")
    stored = [
        (piece.ref, *stored_range(piece.offset, piece.length, piece.ref.size_bytes))
        for piece in pieces
    ]
    stream = await objects.read(stored)
    groups = _opened(stream.chunks(), pieces)
    return BlobStream(sum(piece.length for piece in pieces), await anext(groups), groups)


def _blocks(pieces: Sequence[EncryptedPiece]) -> Iterator[tuple[BlobCipher, Block]]:
    for piece in pieces:
        for block in blocks_of(piece.offset, piece.length, piece.ref.size_bytes):
            yield piece.cipher, block


async def _opened(
    groups: AsyncIterator[Sequence[Buffer]], pieces: Sequence[EncryptedPiece]
) -> AsyncIterator[Sequence[Buffer]]:
    """The plain bytes, group by group, in a buffer that is used again for the next one. What of a
    block is left over waits for the next group."""
    blocks = _blocks(pieces)
    current = next(blocks, None)
    held = bytearray()
    room = memoryview(b"")
    async for group in groups:
        size = len(held) + sum(len(buffer) for buffer in group)
        if len(room) < size:
            room = memoryview(bytearray(size))
        plain: list[Buffer] = []
        start = end = 0  # in the room: what was opened and not handed over yet
        for buffer in group:
            view = memoryview(buffer)
            while current is not None and len(view):
                cipher, block = current
                lacking = block.stored_size_bytes - len(held)
                if len(view) < lacking:
                    held += view
                    break
                whole: Buffer = view[:lacking]
                if held:
                    whole = bytes(held) + whole
                    held.clear()
                view = view[lacking:]
                cipher.open_into(block.number, whole, room[end:])
                if block.skip:  # the first of a piece: what it skips stays behind
                    plain.append(room[start:end])
                    start = end = end + block.skip
                end += block.take
                current = next(blocks, None)
        if end > start:
            plain.append(room[start:end])
        if plain:
            yield plain
    if current is not None:
        raise BlobDamaged("an encrypted blob is shorter than it was stored")


def plain_size_of(ref: BlobRef) -> int:
    """The plain size of an encrypted blob."""
    return plain_size(ref.size_bytes)
