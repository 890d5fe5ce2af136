"""Websites as they are stored: packed and compressed, within the bucket's record."""

import logging
import zlib

import msgspec

from gateway.domain.website import Website

_SIZE_BYTES_MAX = 1 << 20
_log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Website).decode


def pack_website(website: Website) -> bytes:
    """The stored form."""
    return zlib.compress(_encode(website), 6)


def stored_website(stored: bytes, bucket: str) -> Website | None:
    """The website of a bucket; None when it has none, or none that can be read any more."""
    if not stored:
        return None
    try:
        return _decode(zlib.decompressobj().decompress(stored, _SIZE_BYTES_MAX))
    except (zlib.error, msgspec.MsgspecError):
        _log.exception("the website of bucket %s cannot be read", bucket)
        return None
