"""The shard envelope, the geometry of a shard, and the file that holds a large one.

The envelope travels with each shard and can tell the story alone (which blob, which stripe geometry,
which object it was written for). Layout of a shard: see storage_node/port.py.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import xxhash

from storage_node.port import CHECKSUM_SIZE_BYTES, Buffer, ShardId

ENVELOPE_VERSION = 1
ENVELOPE_SIZE_BYTES_MAX = 256 << 10

_checksum = xxhash.xxh3_64_intdigest


class ShardEnvelope(msgspec.Struct, array_like=True, frozen=True):
    """What lies beside a shard's bytes. New fields are added at the end, with a default.

    `size_bytes` is the plain size of the blob; `record` the object record as first written under
    the metadata key `owner_key`; `cipher` 0 means that stripes are not encrypted.
    """

    group: bytes
    blob: bytes
    index: int
    k: int
    m: int
    stripe_size_bytes: int
    size_bytes: int
    owner_key: bytes = b""
    record: bytes = b""
    created_ms: int = 0
    cipher: int = 0
    key_id: bytes = b""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ShardEnvelope)
_VERSION_BYTE = bytes([ENVELOPE_VERSION])
_INDEX_AT = 6
"""Before the index come the version, the head of the array, and group and blob with two bytes each."""
_INDICES = tuple(bytes([index]) for index in range(128))


def encode_envelope(envelope: ShardEnvelope) -> bytes:
    """Version byte, then MessagePack."""
    return _VERSION_BYTE + _encoder.encode(envelope)


def envelopes_like(envelope: ShardEnvelope) -> Callable[[int], bytes]:
    """The encoded envelope of each index of a blob whose envelopes differ in nothing else: the rest is
    encoded once. For indices below 128, which MessagePack writes as one byte."""
    encoded = encode_envelope(envelope)
    at = _INDEX_AT + len(envelope.group) + len(envelope.blob)
    assert encoded[at] == envelope.index, "group and blob are shorter than 256 bytes"
    before, after = encoded[:at], encoded[at + 1 :]
    return lambda index: b"".join((before, _INDICES[index], after))


def decode_envelope(data: Buffer) -> ShardEnvelope:
    """Raises ValueError for what is not an envelope this code reads."""
    if len(data) < 2 or data[0] != ENVELOPE_VERSION:
        raise ValueError("unknown version of a shard envelope")
    try:
        return _decoder.decode(memoryview(data)[1:])
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a shard envelope: {error}") from None


def shard_size_bytes(size_bytes: int, k: int, stripe_size_bytes: int) -> int:
    """Length of each shard of a blob, checksums included."""
    whole, rest = divmod(size_bytes, stripe_size_bytes)
    size = whole * (CHECKSUM_SIZE_BYTES + -(-stripe_size_bytes // k))
    if rest:
        size += CHECKSUM_SIZE_BYTES + -(-rest // k)
    return size


def is_intact(envelope: ShardEnvelope, length: int, read: Callable[[int, int], bytes]) -> bool:
    """Whether every fragment of a shard of `length` bytes is there and passes its checksum.

    `read(offset, length)` gives the shard's bytes; one fragment is held at a time.
    """
    k, stripe_size = envelope.k, envelope.stripe_size_bytes
    if not (k > 0 and stripe_size > 0 and envelope.size_bytes >= 0):
        return False
    if length != shard_size_bytes(envelope.size_bytes, k, stripe_size):
        return False
    left, position = envelope.size_bytes, 0
    while left > 0:
        size = CHECKSUM_SIZE_BYTES + -(-min(left, stripe_size) // k)
        piece = read(position, size)
        stored = int.from_bytes(piece[:CHECKSUM_SIZE_BYTES], "little")
        fragment = memoryview(piece)[CHECKSUM_SIZE_BYTES:]
        if len(piece) != size or _checksum(fragment) != stored:
            return False
        position += size
        left -= stripe_size
    return True


_FOOTER = struct.Struct("<8sIIQ16sI4xQ")
FOOTER_SIZE_BYTES = _FOOTER.size
_FOOTER_MAGIC = b"OSTRAKAf"
_FOOTER_VERSION = 1


class ShardFooter(NamedTuple):
    """The end of a shard file: its body's length, its envelope, whose it is."""

    shard: ShardId
    body_length: int
    envelope_length: int
    envelope: bytes


def encode_footer(shard: ShardId, envelope: Buffer, body_length: int) -> bytes:
    """What follows a body in its file: the envelope, then a fixed footer.

    The footer's checksum covers itself and the envelope; the body carries its own checksums.
    """
    head = _FOOTER.pack(
        _FOOTER_MAGIC, _FOOTER_VERSION, len(envelope), body_length, shard.blob, shard.index, 0
    )[:-8]
    checksum = _checksum(b"".join((envelope, head)))
    return b"".join((envelope, head, checksum.to_bytes(8, "little")))


def decode_footer(tail: bytes, file_size_bytes: int) -> ShardFooter | None:
    """Read the footer from a file's last bytes (the envelope among them, if `tail` is long enough:
    see `tail_length`). None when the file is no whole shard."""
    if len(tail) < FOOTER_SIZE_BYTES:
        return None
    fixed = tail[-FOOTER_SIZE_BYTES:]
    magic, version, envelope_length, body_length, blob, index, checksum = _FOOTER.unpack(fixed)
    if magic != _FOOTER_MAGIC or version != _FOOTER_VERSION:
        return None
    if body_length + envelope_length + FOOTER_SIZE_BYTES != file_size_bytes:
        return None
    if len(tail) < envelope_length + FOOTER_SIZE_BYTES:
        return None
    envelope = tail[-FOOTER_SIZE_BYTES - envelope_length : -FOOTER_SIZE_BYTES]
    if _checksum(envelope + fixed[:-8]) != checksum:
        return None
    return ShardFooter(ShardId(blob, index), body_length, envelope_length, envelope)


def tail_length(fixed: bytes) -> int:
    """How many last bytes of the file hold envelope and footer, from the footer alone."""
    length: int = _FOOTER.unpack(fixed[-FOOTER_SIZE_BYTES:])[2] if len(fixed) >= _FOOTER.size else 0
    return min(length, ENVELOPE_SIZE_BYTES_MAX) + FOOTER_SIZE_BYTES
