"""The part table of a long multipart object, as a blob: version byte, MessagePack list of PartRef."""

from collections.abc import Sequence

import msgspec

from gateway.metadata.records import ObjectRecord, PartRef, RecordError
from gateway.objects.port import Objects

_VERSION = b"\x01"
_decoder = msgspec.msgpack.Decoder(tuple[PartRef, ...])


def encode_parts(parts: Sequence[PartRef]) -> bytes:
    """The manifest blob's bytes."""
    return _VERSION + msgspec.msgpack.encode(list(parts))


def decode_parts(data: bytes) -> tuple[PartRef, ...]:
    """Read a manifest. Raises RecordError for foreign bytes."""
    if data[:1] != _VERSION:
        raise RecordError("unknown version of a manifest")
    try:
        return _decoder.decode(memoryview(data)[1:])
    except msgspec.DecodeError as error:
        raise RecordError(f"damaged manifest: {error}") from error


async def parts_of(record: ObjectRecord, objects: Objects) -> tuple[PartRef, ...]:
    """The parts of a multipart object, in order; none for a plain one."""
    if record.manifest is not None:
        return decode_parts(await objects.read_bytes(record.manifest))
    return record.parts
