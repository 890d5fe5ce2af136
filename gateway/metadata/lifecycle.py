"""Lifecycle rules as they are stored: packed and compressed, within the bucket's record."""

import logging
import zlib

import msgspec

from gateway.domain.lifecycle import LifecycleRules

_SIZE_BYTES_MAX = 4 << 20
_log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(LifecycleRules).decode


def pack_lifecycle(rules: LifecycleRules) -> bytes:
    """The stored form."""
    return zlib.compress(_encode(rules), 6)


def stored_lifecycle(stored: bytes, bucket: str) -> LifecycleRules:
    """The rules of a bucket. Ones that cannot be read any more end nothing."""
    try:
        return _decode(zlib.decompressobj().decompress(stored, _SIZE_BYTES_MAX))
    except (zlib.error, msgspec.MsgspecError):
        _log.exception("the lifecycle rules of bucket %s cannot be read", bucket)
        return ()
