"""Cross-origin rules as they are stored: packed and compressed, within the bucket's record."""

import logging
import zlib

import msgspec

from gateway.domain.cors import CorsRules

_SIZE_BYTES_MAX = 1 << 20
_log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(CorsRules).decode


def pack_cors(rules: CorsRules) -> bytes:
    """The stored form."""
    return zlib.compress(_encode(rules), 6)


def stored_cors(stored: bytes, bucket: str) -> CorsRules:
    """The rules of a bucket. Ones that cannot be read any more allow nothing."""
    expander = zlib.decompressobj()
    try:
        return _decode(expander.decompress(stored, _SIZE_BYTES_MAX))
    except (zlib.error, msgspec.MsgspecError):
        _log.exception("the cross-origin rules of bucket %s cannot be read", bucket)
        return ()
