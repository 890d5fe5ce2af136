"""Policies as they are stored: compressed, within the record of whatever they belong to."""

import logging
import zlib
from functools import lru_cache

from gateway.domain.policy.document import DENY_ALL, DENY_ALL_OF_IDENTITY, Policy, read_policy
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


@lru_cache(maxsize=1024)
def stored_identity_policy(stored: bytes) -> Policy:
    """A policy of a user, group or role to judge by. One that cannot be read any more forbids all."""
    try:
        return read_policy(unpack_policy(stored), with_principals=False)
    except (MalformedPolicy, ValueError):
        _log.exception("a policy of an identity cannot be read: all access is refused")
        return DENY_ALL_OF_IDENTITY


def stored_trust_policy(stored: bytes) -> Policy:
    """Who may assume a role. A trust policy that cannot be read any more lets nobody."""
    try:
        return read_policy(unpack_policy(stored), with_principals=True, with_resources=False)
    except (MalformedPolicy, ValueError):
        _log.exception("the trust policy of a role cannot be read: nobody may assume it")
        return DENY_ALL
