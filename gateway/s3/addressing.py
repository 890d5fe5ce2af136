"""Where a request points: bucket and key from the raw path and Host, and the query arguments."""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from gateway.s3.errors import ErrorCode, S3Error

MAX_KEY_BYTES: Final = 1024
"""Longest object key in UTF-8. Source: S3 User Guide, "Naming Amazon S3 objects"."""
MAX_QUERY_ARGUMENTS: Final = 128
"""Bound on query arguments; S3's richest request has about twenty."""


class Address(msgspec.Struct, frozen=True, gc=False):
    """What a request points at. `virtual_host`: the bucket came from the Host header."""

    bucket: str | None
    key: str | None
    virtual_host: bool = False


_SERVICE: Final = Address(None, None)
_PERCENT: Final = ord("%")
"""As a number: to look for bytes in bytes, Python first tries whether they are one."""
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Raw path and raw query (without "?") of an origin-form request target."""
    path, _, query = target.partition(b"?")
    return path, query


def locate(raw_path: bytes, host: str, domains: Sequence[str] = ()) -> Address:
    """The bucket and key of a request. Raises InvalidURI, KeyTooLongError.

    `host` is the Host header; `domains` are lower-case names under which `bucket.domain` is a
    bucket. Nothing is normalised: `//`, `.` and `..` are parts of a key like any other.
    """
    if raw_path[:1] != b"/":
        raise S3Error(ErrorCode.INVALID_URI)
    path = _decode(raw_path)
    bucket = bucket_of_host(host, domains) if domains else None
    if bucket is not None:
        key = path[1:]
        virtual_host = True
    else:
        bucket, _, key = path[1:].partition("/")
        virtual_host = False
        if not bucket:
            if key:  # "//key" names a bucket without a name
                raise S3Error(ErrorCode.INVALID_URI)
            return _SERVICE
    if not key:
        return Address(bucket, None, virtual_host)
    if len(key) > MAX_KEY_BYTES // 4:
        size_bytes = len(key.encode())
        if size_bytes > MAX_KEY_BYTES:
            raise S3Error(
                ErrorCode.KEY_TOO_LONG,
                details={"Size": str(size_bytes), "MaxSizeAllowed": str(MAX_KEY_BYTES)},
            )
    return Address(bucket, key, virtual_host)


def bucket_of_host(host: str, domains: Sequence[str]) -> str | None:
    """The bucket in a virtual-host name, or None when the host is none of ours or a bare domain."""
    name = host.lower()
    if name[-1:] != "]":  # an IPv6 literal without a port
        head, colon, port = name.rpartition(":")
        if colon and (port.isdigit() or not port):
            name = head
    for domain in domains:
        if name.endswith(domain) and name[-len(domain) - 1 : -len(domain)] == ".":
            return name[: -len(domain) - 1] or None
    return None


def parse_query(raw_query: bytes) -> dict[str, str]:
    """Decoded arguments; the first of a repeated name counts, "+" is a space.

    Raises InvalidURI for broken escapes or text that is not UTF-8, InvalidArgument for too many.
    """
    if not raw_query:
        return {}
    text = _decode(raw_query, keep_escapes=True)
    pairs = text.split("&", MAX_QUERY_ARGUMENTS + 1)
    if len(pairs) > MAX_QUERY_ARGUMENTS:
        raise S3Error(ErrorCode.INVALID_ARGUMENT, "Too many query parameters.")
    arguments: dict[str, str] = {}
    for pair in pairs:
        if not pair:
            continue
        name, _, value = pair.partition("=")
        if "+" in pair or "%" in pair:
            name = _decode(name.replace("+", " ").encode())
            value = _decode(value.replace("+", " ").encode())
        if name not in arguments:
            arguments[name] = value
    return arguments


def _decode(raw: bytes, *, keep_escapes: bool = False) -> str:
    """Percent-decoded UTF-8 text; InvalidURI when it is not that."""
    if _PERCENT in raw:
        if _BAD_ESCAPE.search(raw) is not None:
            raise S3Error(ErrorCode.INVALID_URI)
        if not keep_escapes:
            raw = unquote_to_bytes(raw)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise S3Error(ErrorCode.INVALID_URI) from None


_BUCKET_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_IP_ADDRESS: Final = re.compile(r"\d+\.\d+\.\d+\.\d+", re.ASCII)
_RESERVED_PREFIXES: Final = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES: Final = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def check_bucket_name(name: str) -> None:
    """InvalidBucketName unless a general purpose bucket may be created under this name.

    Source: S3 User Guide, "General purpose bucket naming rules". Look-ups need no check: a name
    that cannot be created is not found.
    """
    if (
        _BUCKET_NAME.fullmatch(name) is None
        or ".." in name
        or ".-" in name
        or "-." in name
        or _IP_ADDRESS.fullmatch(name) is not None
        or name.startswith(_RESERVED_PREFIXES)
        or name.endswith(_RESERVED_SUFFIXES)
    ):
        raise S3Error(ErrorCode.INVALID_BUCKET_NAME, details={"BucketName": name})
