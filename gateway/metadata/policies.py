"""Bucket policies as they are stored: compressed, within the bucket's record."""

import logging
import zlib

from gateway.domain.policy.document import DENY_ALL, Policy, read_policy
from gateway.domain.policy.errors import MalformedPolicy

_SIZE_BYTES_MAX = 1 << 20
_log = logging.getLogger(__name__)


def pack_policy(text: bytes) -> bytes:
    """The stored form."""
    return zlib.compress(text, 6)


def unpack_policy(stored: bytes) -> bytes:
    """The document as the client sent it. Raises ValueError."""
    expander = zlib.decompressobj()
    try:
        text = expander.decompress(stored, _SIZE_BYTES_MAX)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not expander.eof:
        raise ValueError("a stored policy is cut off")
    return text


def stored_policy(stored: bytes, bucket: str) -> Policy:
    """The policy to judge by. One that cannot be read any more lets nobody in."""
    try:
        return read_policy(unpack_policy(stored), with_principals=True)
    except (MalformedPolicy, ValueError):
        _log.exception("the policy of bucket %s cannot be read: all access is refused", bucket)
        return DENY_ALL
